// Sixteen lanes as arrays: any machine. See README.md for the meaning of each member.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_PORTABLE_H_
#define UPDRAFT_KERNELS_CPU_SIMD_PORTABLE_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/formats/float16.h"

#define UPDRAFT_NOINLINE __attribute__((noinline))

#include "kernels/cpu/simd/expand.h"

namespace updraft::kernels {
namespace {

struct Portable {
  struct F {
    float v[16];
  };
  struct I {
    int32_t v[16];
  };
  struct W {
    uint8_t v[64];
  };
  using Partial = I;

  // Not inlined: sixteen lanes written out at each of thousands of uses would take minutes to compile.
  template <typename Fn>
  static UPDRAFT_NOINLINE F Map(Fn fn) {
    F r;
    for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
    return r;
  }
  template <typename Fn>
  static UPDRAFT_NOINLINE I MapI(Fn fn) {
    I r;
    for (int i = 0; i < 16; ++i) r.v[i] = fn(i);
    return r;
  }

  // ---- memory
  static F Load(const float* p) {
    return Map([&](int i) { return p[i]; });
  }
  static F LoadPartial(const float* p, int n) {
    return Map([&](int i) { return i < n ? p[i] : 0.0f; });
  }
  static void Store(float* p, F a) { std::memcpy(p, a.v, sizeof(a.v)); }
  static void StorePartial(float* p, F a, int n) { std::memcpy(p, a.v, n * sizeof(float)); }
  static F LoadF16(const uint16_t* p) {
    return Map([&](int i) { return F16ToF32(p[i]); });
  }
  static F LoadF16Partial(const uint16_t* p, int n) {
    return Map([&](int i) { return i < n ? F16ToF32(p[i]) : 0.0f; });
  }
  static F LoadBf16(const uint16_t* p) {
    return Map([&](int i) { return BF16ToF32(p[i]); });
  }
  static F LoadBf16Partial(const uint16_t* p, int n) {
    return Map([&](int i) { return i < n ? BF16ToF32(p[i]) : 0.0f; });
  }
  static void StoreF16(uint16_t* p, F a) { StoreF16Partial(p, a, 16); }
  static void StoreF16Partial(uint16_t* p, F a, int n) {
    for (int i = 0; i < n; ++i) p[i] = F32ToF16(a.v[i]);
  }
  static void StoreBf16(uint16_t* p, F a) {
    for (int i = 0; i < 16; ++i) p[i] = F32ToBF16(a.v[i]);
  }
  static F LoadU8(const uint8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i]); });
  }
  static F LoadLow4(const uint8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i] & 15); });
  }
  static F LoadHigh4(const uint8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i] >> 4); });
  }
  static F LoadI8(const int8_t* p) {
    return Map([&](int i) { return static_cast<float>(p[i]); });
  }

  // ---- float
  static F Zero() { return Set(0.0f); }
  static F Set(float x) {
    return Map([&](int) { return x; });
  }
  static F SetF16(uint16_t x) { return Set(F16ToF32(x)); }
  static F Add(F a, F b) {
    return Map([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F Sub(F a, F b) {
    return Map([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F Mul(F a, F b) {
    return Map([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F Div(F a, F b) {
    return Map([&](int i) { return a.v[i] / b.v[i]; });
  }
  static F Abs(F a) {
    return Map([&](int i) { return std::fabs(a.v[i]); });
  }
  static F Fma(F a, F b, F c) {
    return Map([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  // ---- pairs of BF16
  using Pairs = F;
  static constexpr int kPairPhases = 2;
  template <int kPhase>
  static Pairs LoadPairs(const uint16_t* p) {
    return Map([&](int i) { return BF16ToF32(p[2 * i + 1 - kPhase]); });
  }
  template <int kPhase>
  static Pairs LoadPairsPartial(const uint16_t* p, int n) {
    return Map([&](int i) { return 2 * i + 1 - kPhase < n ? BF16ToF32(p[2 * i + 1 - kPhase]) : 0.0f; });
  }
  static F DotPairs(Pairs a, Pairs b, F c) { return Fma(a, b, c); }

  static F Max(F a, F b) {
    return Map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F Min(F a, F b) {
    return Map([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }

  // ---- integer
  static I SetI(int32_t x) {
    return MapI([&](int) { return x; });
  }
  template <int kBits>
  static I ShiftLeft(I a) {
    return MapI([&](int i) { return static_cast<int32_t>(static_cast<uint32_t>(a.v[i]) << kBits); });
  }
  static I ToInt(F a) {  // what x86 gives for NaN and values out of range, defined here
    return MapI([&](int i) {
      return a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f ? static_cast<int32_t>(std::nearbyint(a.v[i]))
                                                                : INT32_MIN;
    });
  }
  static F ToFloat(I a) {
    return Map([&](int i) { return static_cast<float>(a.v[i]); });
  }
  static F Pow2(I n) {
    return Map([&](int i) { return __builtin_bit_cast(float, static_cast<uint32_t>(n.v[i] + 127) << 23); });
  }
  static int32_t SumI(I a) {
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += a.v[i];
    return sum;
  }
  static void StoreI8(int8_t* p, I a) {
    for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i] > 127 ? 127 : a.v[i] < -128 ? -128 : a.v[i]);
  }

  // ---- across lanes
  static UPDRAFT_NOINLINE float Sum(F a) {
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) a.v[i] += a.v[i + step];
    }
    return a.v[0];
  }
  static float MaxOf(F a) {
    for (int step = 8; step > 0; step /= 2) {
      for (int i = 0; i < step; ++i) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
    }
    return a.v[0];
  }

  // Largest magnitude of 32 values; NaN counts as larger than infinity.
  static float MaxAbs(F a, F b) {
    uint32_t max = 0;
    for (int i = 0; i < 32; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, i < 16 ? a.v[i] : b.v[i - 16]) & 0x7fffffffu;
      max = bits > max ? bits : max;
    }
    return __builtin_bit_cast(float, max);
  }

  // ---- integer dot products
  static constexpr bool kSignedBytes = false;
  static constexpr bool kTokenPairs = false;
  static constexpr int kGroup = 2;
  static constexpr int kSkinny = 3;
  static constexpr int kTiles = 1;
  static constexpr int MaxRun(int /*max_code*/) { return 8; }
  static UPDRAFT_NOINLINE W LoadW(const uint8_t* p) {
    W w;
    std::memcpy(w.v, p, sizeof(w.v));
    return w;
  }
  static UPDRAFT_NOINLINE void StoreW(uint8_t* p, W a) { std::memcpy(p, a.v, sizeof(a.v)); }
  static UPDRAFT_NOINLINE W Low4(W a) {
    for (uint8_t& x : a.v) x &= 15;
    return a;
  }
  static UPDRAFT_NOINLINE W High4(W a) {
    for (uint8_t& x : a.v) x >>= 4;
    return a;
  }
  template <int kBit>
  static UPDRAFT_NOINLINE W TwoBits(W a) {
    for (int i = 0; i < 64; ++i) a.v[i] = a.v[i] >> kBit & 3;
    return a;
  }
  template <int kBit, int kTo, int kMask>
  static UPDRAFT_NOINLINE W OrPlane(W low, W plane) {
    for (int i = 0; i < 64; ++i) low.v[i] |= static_cast<uint8_t>((plane.v[i] >> kBit & kMask) << kTo);
    return low;
  }
  static UPDRAFT_NOINLINE W Expand(const uint8_t* codes, uint64_t mask, uint8_t fill) {
    return LoadW(ExpandBytes(codes, mask, fill).bytes);
  }
  static UPDRAFT_NOINLINE W Lookup(const uint8_t* table, W indices) {
    for (int i = 0; i < 64; ++i) indices.v[i] = table[indices.v[i]];
    return indices;
  }
  static Partial Begin(I acc) { return acc; }
  template <int kMaxCode>
  static UPDRAFT_NOINLINE Partial Step(Partial acc, W w, const int8_t* x) {
    for (int i = 0; i < 64; ++i) acc.v[i / 4] += w.v[i] * x[i % 4];
    return acc;
  }
  static I End(I /*acc*/, Partial partial) { return partial; }

  static void Prefetch(const void* /*p*/) {}
  static void PrefetchFar(const void* /*p*/) {}
  static void PrefetchWrite(const void* /*p*/) {}

  // ---- register blocks of the float matmul and of the probes
  static constexpr int kAttentionQueries = 2;
  static constexpr int kAttentionSums = 4;
  static constexpr int kDenseRows = 2;
  static constexpr int kDenseTokens = 2;
  static constexpr int kChains = 2;
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_PORTABLE_H_
