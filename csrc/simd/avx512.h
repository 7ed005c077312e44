// The vocabulary of vector operations for AVX-512 (F, BW, DQ, VL): 16 floats. Same names and meanings in every simd/*.h:
//   load_once  a load that stays one: GCC would repeat it as the memory operand of each multiply-add
//   min, max   return the second operand when either is NaN, so max(lo, x) lets a NaN x through
//   max_nan    NaN when either is NaN
//   if_less    a < b ? x : y, the bits of x or y
//   clamp      min(hi, max(lo, x)) for bounds that are numbers: NaN comes through. Of two zeros it may give either.
//   fmadd      a*b + c
//   square_error  what the rounding of a*a to `square` lost
//   merge_lanes  lane l is v[lanes[l]], or that of old where lanes[l] is -1
//   load_some, store_some  the first n lanes, 0 < n < V; no other memory is touched, other lanes are loaded as zeros
//   transpose  lane j of vector i becomes lane i of vector j
//   ldexp      p · 2^n for integral n in [-252, 254]
//   ldexp_normal  the same where p and the result are normal numbers, or p is NaN as n is
//   vd         V doubles: widen gives them from a vector of floats, narrow rounds them to one
//   kLoads     neighbouring vectors that one instruction loads, if nothing stands between the loads
//   scalars    kScalars floats from memory, factors for vectors: load_scalars, then fmadd_scalar<i>(a, b, c) = a[i]*b + c
// And, for kernels/gemm_pairs.h, which ISAs can do without:
//   broadcast_pair  p[0] p[1] p[0] p[1] …
//   interleave  a, b become a0 b0 a1 b1 …, the first half of both and the second
//   evens, odds  every second lane, from the first or the second on, twice
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "base/inline.h"

namespace sepconv::avx512 {

using vf = __m512;
using vi = __m512i;
inline constexpr int kLanes = 16;
inline constexpr int kRegisters = 32;
inline constexpr int kLoads = 1;

SEPCONV_INLINE vf load(const float* p) { return _mm512_loadu_ps(p); }
SEPCONV_INLINE void store(float* p, vf v) { _mm512_storeu_ps(p, v); }
SEPCONV_INLINE vf load_once(const float* p) {
  vf v = load(p);
  asm("" : "+v"(v));
  return v;
}
SEPCONV_INLINE vf broadcast(float x) { return _mm512_set1_ps(x); }
SEPCONV_INLINE vf fmadd(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
SEPCONV_INLINE vf square_error(vf a, vf square) { return _mm512_fmsub_ps(a, a, square); }
SEPCONV_INLINE vf add(vf a, vf b) { return _mm512_add_ps(a, b); }
SEPCONV_INLINE vf sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
SEPCONV_INLINE vf mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
SEPCONV_INLINE vf div(vf a, vf b) { return _mm512_div_ps(a, b); }
SEPCONV_INLINE vf min(vf a, vf b) { return _mm512_min_ps(a, b); }
SEPCONV_INLINE vf max(vf a, vf b) { return _mm512_max_ps(a, b); }
SEPCONV_INLINE vf clamp(vf x, vf lo, vf hi) { return min(hi, max(lo, x)); }
SEPCONV_INLINE vf if_less(vf a, vf b, vf x, vf y) { return _mm512_mask_mov_ps(y, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), x); }
SEPCONV_INLINE vf max_nan(vf a, vf b) {
  return _mm512_mask_mov_ps(max(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}
SEPCONV_INLINE vi load_lanes(const std::int32_t* p) { return _mm512_loadu_si512(p); }
SEPCONV_INLINE vf merge_lanes(vf old, vf v, vi lanes) {
  return _mm512_mask_permutexvar_ps(old, _mm512_cmpge_epi32_mask(lanes, _mm512_setzero_si512()), lanes, v);
}
SEPCONV_INLINE vf round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
SEPCONV_INLINE vf ldexp(vf p, vf n) { return _mm512_scalef_ps(p, n); }
SEPCONV_INLINE vf ldexp_normal(vf p, vf n) { return ldexp(p, n); }

// V doubles.
struct vd {
  __m512d lo, hi;
};
SEPCONV_INLINE vd broadcast_double(double x) { return {_mm512_set1_pd(x), _mm512_set1_pd(x)}; }
SEPCONV_INLINE void store(double* p, vd v) {
  _mm512_storeu_pd(p, v.lo);
  _mm512_storeu_pd(p + 8, v.hi);
}
SEPCONV_INLINE vd widen(vf a) {
  const __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(a), 1);
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(a)), _mm512_cvtps_pd(_mm256_castpd_ps(high))};
}
SEPCONV_INLINE vf narrow(vd a) {
  const __m512d low = _mm512_castpd256_pd512(_mm256_castps_pd(_mm512_cvtpd_ps(a.lo)));
  return _mm512_castpd_ps(_mm512_insertf64x4(low, _mm256_castps_pd(_mm512_cvtpd_ps(a.hi)), 1));
}
SEPCONV_INLINE vd add(vd a, vd b) { return {_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)}; }
SEPCONV_INLINE vd sub(vd a, vd b) { return {_mm512_sub_pd(a.lo, b.lo), _mm512_sub_pd(a.hi, b.hi)}; }
SEPCONV_INLINE vd mul(vd a, vd b) { return {_mm512_mul_pd(a.lo, b.lo), _mm512_mul_pd(a.hi, b.hi)}; }

// A broadcast comes with the load.
using scalars = vf;
inline constexpr int kScalars = 1;
SEPCONV_INLINE scalars load_scalars(const float* p) { return broadcast(*p); }
template <int I>
SEPCONV_INLINE vf fmadd_scalar(scalars a, vf b, vf c) {
  static_assert(I == 0);
  return fmadd(a, b, c);
}

SEPCONV_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
SEPCONV_INLINE vf load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
SEPCONV_INLINE void store_some(float* p, vf v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }

SEPCONV_INLINE vf broadcast_pair(const float* p) {
  return _mm512_castsi512_ps(_mm512_broadcastq_epi64(_mm_loadu_si64(p)));
}
SEPCONV_INLINE void interleave(vf& a, vf& b) {
  const vi first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  const vf low = _mm512_permutex2var_ps(a, first, b);
  b = _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b);
  a = low;
}
SEPCONV_INLINE vf evens(vf v) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14), v);
}
SEPCONV_INLINE vf odds(vf v) {
  return _mm512_permutexvar_ps(_mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 1, 3, 5, 7, 9, 11, 13, 15), v);
}

// Within quarters of four lanes as 4×4 blocks, then the blocks.
SEPCONV_INLINE void transpose(vf (&v)[16]) {
  vf a[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const __m512d p = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1])), q = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
    const __m512d r = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
    const __m512d s = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
    a[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, r));
    a[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, r));
    a[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(q, s));
    a[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(q, s));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const vf p = _mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), q = _mm512_shuffle_f32x4(a[i], a[i + 4], 0xdd);
    const vf r = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0x88), s = _mm512_shuffle_f32x4(a[i + 8], a[i + 12], 0xdd);
    v[i] = _mm512_shuffle_f32x4(p, r, 0x88);
    v[i + 4] = _mm512_shuffle_f32x4(q, s, 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(p, r, 0xdd);
    v[i + 12] = _mm512_shuffle_f32x4(q, s, 0xdd);
  }
}

}  // namespace sepconv::avx512
