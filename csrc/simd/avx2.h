// The vocabulary of simd/avx512.h for AVX2 with FMA: 8 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/inline.h"

namespace sepconv::avx2 {

using vf = __m256;
using vi = __m256i;
inline constexpr int kLanes = 8;
inline constexpr int kRegisters = 16;
inline constexpr int kLoads = 1;

SEPCONV_INLINE vf load(const float* p) { return _mm256_loadu_ps(p); }
SEPCONV_INLINE void store(float* p, vf v) { _mm256_storeu_ps(p, v); }
SEPCONV_INLINE vf load_once(const float* p) {
  vf v = load(p);
  asm("" : "+x"(v));
  return v;
}
SEPCONV_INLINE vf broadcast(float x) { return _mm256_set1_ps(x); }
SEPCONV_INLINE vf fmadd(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
SEPCONV_INLINE vf square_error(vf a, vf square) { return _mm256_fmsub_ps(a, a, square); }
SEPCONV_INLINE vf add(vf a, vf b) { return _mm256_add_ps(a, b); }
SEPCONV_INLINE vf sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
SEPCONV_INLINE vf mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
SEPCONV_INLINE vf div(vf a, vf b) { return _mm256_div_ps(a, b); }
SEPCONV_INLINE vf min(vf a, vf b) { return _mm256_min_ps(a, b); }
SEPCONV_INLINE vf max(vf a, vf b) { return _mm256_max_ps(a, b); }
SEPCONV_INLINE vf clamp(vf x, vf lo, vf hi) { return min(hi, max(lo, x)); }
SEPCONV_INLINE vf if_less(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
SEPCONV_INLINE vf max_nan(vf a, vf b) { return _mm256_blendv_ps(max(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
SEPCONV_INLINE vi load_lanes(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
SEPCONV_INLINE vf merge_lanes(vf old, vf v, vi lanes) {
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(v, lanes), old, _mm256_castsi256_ps(lanes));
}
SEPCONV_INLINE vf round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

// In two factors, so that neither leaves the exponent's range.
SEPCONV_INLINE vf ldexp(vf p, vf n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  const vf first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const vf second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, first), second);
}
SEPCONV_INLINE vf ldexp_normal(vf p, vf n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}

// V doubles.
struct vd {
  __m256d lo, hi;
};
SEPCONV_INLINE vd broadcast_double(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
SEPCONV_INLINE void store(double* p, vd v) {
  _mm256_storeu_pd(p, v.lo);
  _mm256_storeu_pd(p + 4, v.hi);
}
SEPCONV_INLINE vd widen(vf a) {
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
SEPCONV_INLINE vf narrow(vd a) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(a.lo)), _mm256_cvtpd_ps(a.hi), 1);
}
SEPCONV_INLINE vd add(vd a, vd b) { return {_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)}; }
SEPCONV_INLINE vd sub(vd a, vd b) { return {_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)}; }
SEPCONV_INLINE vd mul(vd a, vd b) { return {_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)}; }

// A broadcast comes with the load.
using scalars = vf;
inline constexpr int kScalars = 1;
SEPCONV_INLINE scalars load_scalars(const float* p) { return broadcast(*p); }
template <int I>
SEPCONV_INLINE vf fmadd_scalar(scalars a, vf b, vf c) {
  static_assert(I == 0);
  // In place: GCC 12 else takes forms that overwrite a factor, and in long unrolled loops copies and spills sums for them.
  asm("vfmadd231ps %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
  return c;
}

SEPCONV_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
SEPCONV_INLINE vf load_some(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
SEPCONV_INLINE void store_some(float* p, vf v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v); }

SEPCONV_INLINE vf broadcast_pair(const float* p) {
  return _mm256_castsi256_ps(_mm256_broadcastq_epi64(_mm_loadu_si64(p)));
}
SEPCONV_INLINE void interleave(vf& a, vf& b) {
  const vf low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
  a = _mm256_permute2f128_ps(low, high, 0x20);
  b = _mm256_permute2f128_ps(low, high, 0x31);
}
SEPCONV_INLINE vf evens(vf v) { return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)); }
SEPCONV_INLINE vf odds(vf v) { return _mm256_permutevar8x32_ps(v, _mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7)); }

// Within halves of four lanes as 4×4 blocks, then the blocks.
SEPCONV_INLINE void transpose(vf (&v)[8]) {
  vf a[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const vf p = _mm256_unpacklo_ps(v[i], v[i + 1]), q = _mm256_unpackhi_ps(v[i], v[i + 1]);
    const vf r = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), s = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
    a[i] = _mm256_shuffle_ps(p, r, 0x44);
    a[i + 1] = _mm256_shuffle_ps(p, r, 0xee);
    a[i + 2] = _mm256_shuffle_ps(q, s, 0x44);
    a[i + 3] = _mm256_shuffle_ps(q, s, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
  }
}

}  // namespace sepconv::avx2
