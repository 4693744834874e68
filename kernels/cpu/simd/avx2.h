// Sixteen lanes as two 256-bit registers: AVX2, FMA, F16C. See README.md for the meaning of each member.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_AVX2_H_
#define UPDRAFT_KERNELS_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd/expand.h"

namespace updraft::kernels {
namespace {

struct Avx2 {
  struct F {
    __m256 lo, hi;
  };
  struct I {
    __m256i lo, hi;
  };
  struct W {
    __m256i lo, hi;  // outputs 0..7, 8..15
  };
  using Partial = I;  // 16-bit sums of 2 products: 8 outputs x 2 per register

  // ---- memory
  static F Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static F LoadPartial(const float* p, int n) {
    alignas(32) float full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(float));
    return Load(full);
  }
  static void Store(float* p, F a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  static void StorePartial(float* p, F a, int n) {
    if (n == 16) return Store(p, a);
    alignas(32) float full[16];
    Store(full, a);
    __builtin_memcpy(p, full, n * sizeof(float));
  }
  static __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
  static F LoadF16(const uint16_t* p) { return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))}; }
  static F LoadF16Partial(const uint16_t* p, int n) {
    uint16_t full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadF16(full);
  }
  static __m256 Bf16(__m128i a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16)); }
  static F LoadBf16(const uint16_t* p) { return {Bf16(Load128(p)), Bf16(Load128(p + 8))}; }
  static F LoadBf16Partial(const uint16_t* p, int n) {
    uint16_t full[16] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadBf16(full);
  }
  static void StoreF16(uint16_t* p, F a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
  }
  static void StoreF16Partial(uint16_t* p, F a, int n) {
    uint16_t full[16];
    StoreF16(full, a);
    __builtin_memcpy(p, full, n * sizeof(uint16_t));
  }
  // 32-bit lanes of which the upper half is the result; NaN made quiet.
  static __m256i RoundToBf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
    return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
  }
  static void StoreBf16(uint16_t* p, F a) {
    const __m256i lo = _mm256_srli_epi32(RoundToBf16(a.lo), 16);
    const __m256i hi = _mm256_srli_epi32(RoundToBf16(a.hi), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(_mm256_packus_epi32(lo, hi), 0xd8));
  }
  static F LoadU8(const uint8_t* p) {
    const __m128i bytes = Load128(p);
    return ToFloat({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
  }
  static F LoadLow4(const uint8_t* p) {
    const __m128i bytes = _mm_and_si128(Load128(p), _mm_set1_epi8(15));
    return ToFloat({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
  }
  static F LoadHigh4(const uint8_t* p) {
    const __m128i bytes = _mm_and_si128(_mm_srli_epi16(Load128(p), 4), _mm_set1_epi8(15));
    return ToFloat({_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))});
  }
  static F LoadI8(const int8_t* p) {
    const __m128i bytes = Load128(p);
    return ToFloat({_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))});
  }

  // ---- float
  static F Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static F Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static F SetF16(uint16_t x) { return Set(_cvtsh_ss(x)); }
  static F Add(F a, F b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  static F Sub(F a, F b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  static F Mul(F a, F b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  static F Div(F a, F b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  static F Abs(F a) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
  }
  static F Fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  static F Max(F a, F b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  static F Min(F a, F b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }

  // ---- pairs of BF16
  using Pairs = F;
  static constexpr int kPairPhases = 2;
  template <int kPhase>
  static __m256 HalfPairs(__m256i pairs) {
    return _mm256_castsi256_ps(kPhase == 0 ? _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000)))
                                           : _mm256_slli_epi32(pairs, 16));
  }
  template <int kPhase>
  static Pairs LoadPairs(const uint16_t* p) {
    return {HalfPairs<kPhase>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            HalfPairs<kPhase>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16)))};
  }
  template <int kPhase>
  static Pairs LoadPairsPartial(const uint16_t* p, int n) {
    uint16_t full[32] = {};
    __builtin_memcpy(full, p, n * sizeof(uint16_t));
    return LoadPairs<kPhase>(full);
  }
  static F DotPairs(Pairs a, Pairs b, F c) { return Fma(a, b, c); }

  // ---- integer
  static I SetI(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  template <int kBits>
  static I ShiftLeft(I a) {
    return {_mm256_slli_epi32(a.lo, kBits), _mm256_slli_epi32(a.hi, kBits)};
  }
  static I ToInt(F a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
  static F ToFloat(I a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
  static __m256 Pow2(__m256i n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
  }
  static F Pow2(I n) { return {Pow2(n.lo), Pow2(n.hi)}; }
  static int32_t SumI(I a) {
    const __m256i s8 = _mm256_add_epi32(a.lo, a.hi);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(s8), _mm256_extracti128_si256(s8, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(1, 0, 3, 2)));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, _MM_SHUFFLE(2, 3, 0, 1))));
  }
  static __m128i Pack16(__m256i a) {
    return _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  }
  static void StoreI8(int8_t* p, I a) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(Pack16(a.lo), Pack16(a.hi)));
  }

  // ---- across lanes
  static float Sum(F a) {
    const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
  static float MaxOf(F a) {
    const __m256 m8 = _mm256_max_ps(a.lo, a.hi);
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
  }
  // Largest magnitude of 32 values; NaN counts as larger than infinity.
  static float MaxAbs(F a, F b) {
    const F aa = Abs(a);
    const F bb = Abs(b);
    const __m256i m8 = _mm256_max_epi32(_mm256_max_epi32(_mm256_castps_si256(aa.lo), _mm256_castps_si256(aa.hi)),
                                        _mm256_max_epi32(_mm256_castps_si256(bb.lo), _mm256_castps_si256(bb.hi)));
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
    return __builtin_bit_cast(float, _mm_cvtsi128_si32(m));
  }

  // ---- integer dot products: vpmaddubsw adds two u8 x s8 products in 16 bits, saturating at 32767. With activations
  // in [-127, 127] a 16-bit sum holds 8 steps of 4-bit codes (8 * 2 * 15 * 127 = 30480), 4 of 5-bit, 2 of 6-bit codes.
  // 8-bit codes are taken as signed: |w| * sign(w) x, at most 2 * 128 * 127 = 32512.
  static constexpr bool kSignedBytes = true;
  static constexpr bool kTokenPairs = false;
  static constexpr int kGroup = 3;
  static constexpr int kSkinny = 4;
  static constexpr int kTiles = 1;
  static constexpr int MaxRun(int max_code) { return max_code <= 15 ? 8 : max_code <= 31 ? 4 : max_code <= 63 ? 2 : 1; }
  static W LoadW(const uint8_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
  }
  static void StoreW(uint8_t* p, W a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), a.hi);
  }
  static W Low4(W a) {
    const __m256i mask = _mm256_set1_epi8(15);
    return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
  }
  static W High4(W a) { return Low4({_mm256_srli_epi16(a.lo, 4), _mm256_srli_epi16(a.hi, 4)}); }
  template <int kBit>
  static W TwoBits(W a) {
    const __m256i mask = _mm256_set1_epi8(3);
    return {_mm256_and_si256(_mm256_srli_epi16(a.lo, kBit), mask),
            _mm256_and_si256(_mm256_srli_epi16(a.hi, kBit), mask)};
  }
  template <int kBit, int kTo, int kMask>
  static __m256i OrPlane(__m256i low, __m256i plane) {
    // Bytes do not mix: what a 16-bit shift carries over is masked away.
    const __m256i shifted = kBit < kTo ? _mm256_slli_epi16(plane, kBit < kTo ? kTo - kBit : 0)
                                       : _mm256_srli_epi16(plane, kBit < kTo ? 0 : kBit - kTo);
    return _mm256_or_si256(low, _mm256_and_si256(shifted, _mm256_set1_epi8(kMask << kTo)));
  }
  template <int kBit, int kTo, int kMask>
  static W OrPlane(W low, W plane) {
    return {OrPlane<kBit, kTo, kMask>(low.lo, plane.lo), OrPlane<kBit, kTo, kMask>(low.hi, plane.hi)};
  }
  static W Expand(const uint8_t* codes, uint64_t mask, uint8_t fill) {
    return LoadW(ExpandBytes(codes, mask, fill).bytes);
  }
  static W Lookup(const uint8_t* table, W indices) {
    const __m256i codes = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
    return {_mm256_shuffle_epi8(codes, indices.lo), _mm256_shuffle_epi8(codes, indices.hi)};
  }
  static Partial Begin(I /*acc*/) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  template <int kMaxCode>
  static __m256i Products(__m256i w, __m256i x) {
    if constexpr (kMaxCode < 128) return _mm256_maddubs_epi16(w, x);
    const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    return _mm256_maddubs_epi16(_mm256_abs_epi8(s), _mm256_sign_epi8(x, s));
  }
  template <int kMaxCode>
  static Partial Step(Partial acc, W w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    const __m256i x8 = _mm256_set1_epi32(four);
    return {_mm256_add_epi16(acc.lo, Products<kMaxCode>(w.lo, x8)),
            _mm256_add_epi16(acc.hi, Products<kMaxCode>(w.hi, x8))};
  }
  static I End(I acc, Partial partial) {
    const __m256i ones = _mm256_set1_epi16(1);
    return {_mm256_add_epi32(acc.lo, _mm256_madd_epi16(partial.lo, ones)),
            _mm256_add_epi32(acc.hi, _mm256_madd_epi16(partial.hi, ones))};
  }

  // Not the intrinsic: GCC 12 takes functions that do nothing but prefetch for pure and drops the calls.
  static void Prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }
  static void PrefetchFar(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(p))); }
  static void PrefetchWrite(const void* p) { asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p))); }

  // ---- register blocks of the float matmul and of the probes
  static constexpr int kAttentionQueries = 3;
  static constexpr int kAttentionSums = 6;
  static constexpr int kDenseRows = 2;
  static constexpr int kDenseTokens = 2;
  static constexpr int kChains = 5;
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_AVX2_H_
