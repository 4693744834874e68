// Sixteen lanes as one 512-bit register: AVX-512 F, BW, DQ, VL, VNNI. See README.md for the meaning of each member.
#ifndef UPDRAFT_KERNELS_CPU_SIMD_AVX512_H_
#define UPDRAFT_KERNELS_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/simd/expand.h"

namespace updraft::kernels {
namespace {

struct Avx512Vnni {
  using F = __m512;
  using I = __m512i;
  using W = __m512i;
  using Partial = __m512i;

  static __mmask16 First(int n) { return static_cast<__mmask16>((1u << n) - 1u); }

  // ---- memory
  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static F LoadPartial(const float* p, int n) { return _mm512_maskz_loadu_ps(First(n), p); }
  static void Store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static void StorePartial(float* p, F a, int n) { _mm512_mask_storeu_ps(p, First(n), a); }
  static F LoadF16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F LoadF16Partial(const uint16_t* p, int n) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(First(n), p)); }
  static F Bf16(__m256i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)); }
  static F LoadBf16(const uint16_t* p) { return Bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static F LoadBf16Partial(const uint16_t* p, int n) { return Bf16(_mm256_maskz_loadu_epi16(First(n), p)); }
  static __m256i Half(F a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static void StoreF16(uint16_t* p, F a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Half(a)); }
  static void StoreF16Partial(uint16_t* p, F a, int n) { _mm256_mask_storeu_epi16(p, First(n), Half(a)); }
  static void StoreBf16(uint16_t* p, F a) {
    const I bits = _mm512_castps_si512(a);
    const I odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const I rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const I quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const I result = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), quiet);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16)));
  }
  static F LoadU8(const uint8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static F LoadLow4(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_cvtepu8_epi32(bytes), _mm512_set1_epi32(15)));
  }
  static F LoadHigh4(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes), 4));
  }
  static F LoadI8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }

  // ---- float
  static F Zero() { return _mm512_setzero_ps(); }
  static F Set(float x) { return _mm512_set1_ps(x); }
  static F SetF16(uint16_t x) { return _mm512_set1_ps(_cvtsh_ss(x)); }
  static F Add(F a, F b) { return _mm512_add_ps(a, b); }
  static F Sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F Mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F Div(F a, F b) { return _mm512_div_ps(a, b); }
  static F Abs(F a) { return _mm512_abs_ps(a); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }

  // ---- pairs of BF16
  using Pairs = F;
  static constexpr int kPairPhases = 2;
  template <int kPhase>
  static Pairs HalfPairs(I pairs) {
    return _mm512_castsi512_ps(kPhase == 0 ? _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000)))
                                           : _mm512_slli_epi32(pairs, 16));
  }
  static I LoadSome(const uint16_t* p, int n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
  }
  template <int kPhase>
  static Pairs LoadPairs(const uint16_t* p) {
    return HalfPairs<kPhase>(_mm512_loadu_si512(p));
  }
  template <int kPhase>
  static Pairs LoadPairsPartial(const uint16_t* p, int n) {
    return HalfPairs<kPhase>(LoadSome(p, n));
  }
  static F DotPairs(Pairs a, Pairs b, F c) { return Fma(a, b, c); }

  // ---- integer
  static I SetI(int32_t x) { return _mm512_set1_epi32(x); }
  template <int kBits>
  static I ShiftLeft(I a) {
    return _mm512_slli_epi32(a, kBits);
  }
  static I ToInt(F a) { return _mm512_cvtps_epi32(a); }
  static F ToFloat(I a) { return _mm512_cvtepi32_ps(a); }
  static F Pow2(I n) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23)); }
  static int32_t SumI(I a) { return _mm512_reduce_add_epi32(a); }
  static void StoreI8(int8_t* p, I a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(a)); }

  // ---- across lanes
  static __m256 Fold(F a) { return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)); }
  static float Sum(F a) {
    const __m256 s8 = Fold(a);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
  }
  static void Sum4(F a, F b, F c, F d, float* sums) {
    const F ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
    const F cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x44), _mm512_shuffle_f32x4(c, d, 0xee));
    const F s4 = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    const F s2 = _mm512_add_ps(s4, _mm512_permute_ps(s4, 0x4e));
    const F s1 = _mm512_add_ps(s2, _mm512_permute_ps(s2, 0xb1));
    _mm_storeu_ps(sums, _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, s1)));
  }
  static float MaxOf(F a) {
    const __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
  }

  // Largest magnitude of 32 values; NaN counts as larger than infinity.
  static float MaxAbs(F a, F b) {
    const I m = _mm512_max_epi32(_mm512_castps_si512(_mm512_abs_ps(a)), _mm512_castps_si512(_mm512_abs_ps(b)));
    return __builtin_bit_cast(float, _mm512_reduce_max_epi32(m));
  }

  // ---- integer dot products
  static constexpr bool kSignedBytes = false;
  static constexpr bool kTokenPairs = false;
  static constexpr int kGroup = 6;
  static constexpr int kSkinny = 8;
  static constexpr int kTiles = 2;
  static constexpr int MaxRun(int /*max_code*/) { return 8; }
  static W LoadW(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static void StoreW(uint8_t* p, W a) { _mm512_storeu_si512(p, a); }
  static W Low4(W a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
  static W High4(W a) { return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15)); }
  template <int kBit>
  static W TwoBits(W a) {
    return _mm512_and_si512(kBit == 0 ? a : _mm512_srli_epi16(a, kBit), _mm512_set1_epi8(3));
  }
  template <int kBit, int kTo, int kMask>
  static W OrPlane(W low, W plane) {
    // Bytes do not mix: what a 16-bit shift carries over is masked away.
    const W shifted = kBit < kTo ? _mm512_slli_epi16(plane, kBit < kTo ? kTo - kBit : 0)
                                 : _mm512_srli_epi16(plane, kBit < kTo ? 0 : kBit - kTo);
    return _mm512_ternarylogic_epi32(low, shifted, _mm512_set1_epi8(kMask << kTo), 0xf8);  // low | (shifted & mask)
  }
  static W Lookup(const uint8_t* table, W indices) {
    const __m128i codes = _mm_load_si128(reinterpret_cast<const __m128i*>(table));
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(codes), indices);
  }
  // In memory: AVX-512 without VBMI2 expands no bytes.
  static W Expand(const uint8_t* codes, uint64_t mask, uint8_t fill) {
    return LoadW(ExpandBytes(codes, mask, fill).bytes);
  }
  static Partial Begin(I acc) { return acc; }
  template <int kMaxCode>
  static Partial Step(Partial acc, W w, const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
  }
  static I End(I /*acc*/, Partial partial) { return partial; }

  // Not the intrinsic: GCC 12 takes functions that do nothing but prefetch for pure and drops the calls.
  static void Prefetch(const void* p) { asm volatile("prefetcht0 %0" : : "m"(*static_cast<const char*>(p))); }
  static void PrefetchFar(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*static_cast<const char*>(p))); }
  static void PrefetchWrite(const void* p) { asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p))); }

  // ---- register blocks of the float matmul and of the probes
  static constexpr int kAttentionQueries = 6;
  static constexpr int kAttentionSums = 24;
  static constexpr int kDenseRows = 4;
  static constexpr int kDenseTokens = 6;
  static constexpr int kChains = 12;
};

}  // namespace
}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_SIMD_AVX512_H_
