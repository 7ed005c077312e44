// The vocabulary of simd/avx512.h without any ISA extension: 4 floats in the compiler's portable vector type, for every
// architecture. No fused multiply-add: without hardware for it std::fma is a library call.
#pragma once

#include <cstdint>
#include <cstring>

#include "base/inline.h"

namespace sepconv::scalar {

typedef float vf __attribute__((vector_size(16)));
typedef int vi __attribute__((vector_size(16)));
inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 16;
inline constexpr int kLoads = 1;

SEPCONV_INLINE vf load(const float* p) {
  vf v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SEPCONV_INLINE void store(float* p, vf v) { std::memcpy(p, &v, sizeof v); }
SEPCONV_INLINE vf load_once(const float* p) { return load(p); }
SEPCONV_INLINE vf broadcast(float x) { return vf{x, x, x, x}; }
SEPCONV_INLINE vf fmadd(vf a, vf b, vf c) { return a * b + c; }
SEPCONV_INLINE vf square_error(vf a, vf square) {
  vf lost;
  for (int i = 0; i < kLanes; ++i) {
    const double wide = static_cast<double>(a[i]);
    lost[i] = static_cast<float>(wide * wide - static_cast<double>(square[i]));
  }
  return lost;
}
SEPCONV_INLINE vf add(vf a, vf b) { return a + b; }
SEPCONV_INLINE vf sub(vf a, vf b) { return a - b; }
SEPCONV_INLINE vf mul(vf a, vf b) { return a * b; }
SEPCONV_INLINE vf div(vf a, vf b) { return a / b; }
SEPCONV_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
SEPCONV_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
SEPCONV_INLINE vf clamp(vf x, vf lo, vf hi) { return min(hi, max(lo, x)); }
SEPCONV_INLINE vf if_less(vf a, vf b, vf x, vf y) { return a < b ? x : y; }
SEPCONV_INLINE vf max_nan(vf a, vf b) { return a == a ? max(a, b) : a; }

SEPCONV_INLINE vi load_lanes(const std::int32_t* p) {
  vi v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
SEPCONV_INLINE vf merge_lanes(vf old, vf v, vi lanes) {
  vf result = old;
  for (int l = 0; l < kLanes; ++l) {
    if (lanes[l] >= 0) result[l] = v[lanes[l]];
  }
  return result;
}

// Adding 1.5·2^23 leaves no bit for a fraction; exact for |a| < 2^22, all that exp() asks of it.
SEPCONV_INLINE vf round(vf a) {
  const vf magic = broadcast(12582912.0f);
  return (a + magic) - magic;
}

// In two factors, so that neither leaves the exponent's range. A NaN n has no int: 0 does, as p is NaN then.
SEPCONV_INLINE vf ldexp(vf p, vf n) {
  const vf safe = n == n ? n : broadcast(0.0f);
  const vi whole = __builtin_convertvector(safe, vi);
  const vi half = whole >> 1;
  const vi rest = whole - half;
  const vi first = (half + 127) << 23;
  const vi second = (rest + 127) << 23;
  vf f, s;
  std::memcpy(&f, &first, sizeof f);
  std::memcpy(&s, &second, sizeof s);
  return p * f * s;
}
SEPCONV_INLINE vf ldexp_normal(vf p, vf n) { return ldexp(p, n); }

// V doubles.
typedef double two_doubles __attribute__((vector_size(16)));
struct vd {
  two_doubles lo, hi;
};
SEPCONV_INLINE vd broadcast_double(double x) { return {two_doubles{x, x}, two_doubles{x, x}}; }
SEPCONV_INLINE void store(double* p, vd v) { std::memcpy(p, &v, sizeof v); }
SEPCONV_INLINE vd widen(vf a) {
  return {two_doubles{double{a[0]}, double{a[1]}}, two_doubles{double{a[2]}, double{a[3]}}};
}
SEPCONV_INLINE vf narrow(vd a) {
  return vf{static_cast<float>(a.lo[0]), static_cast<float>(a.lo[1]), static_cast<float>(a.hi[0]), static_cast<float>(a.hi[1])};
}
SEPCONV_INLINE vd add(vd a, vd b) { return {a.lo + b.lo, a.hi + b.hi}; }
SEPCONV_INLINE vd sub(vd a, vd b) { return {a.lo - b.lo, a.hi - b.hi}; }
SEPCONV_INLINE vd mul(vd a, vd b) { return {a.lo * b.lo, a.hi * b.hi}; }

using scalars = vf;
inline constexpr int kScalars = 1;
SEPCONV_INLINE scalars load_scalars(const float* p) { return broadcast(*p); }
template <int I>
SEPCONV_INLINE vf fmadd_scalar(scalars a, vf b, vf c) {
  static_assert(I == 0);
  return fmadd(a, b, c);
}

SEPCONV_INLINE vf load_some(const float* p, int n) {
  vf v = broadcast(0.0f);
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
SEPCONV_INLINE void store_some(float* p, vf v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
SEPCONV_INLINE void transpose(vf (&v)[4]) {
  const vf a[4] = {v[0], v[1], v[2], v[3]};
  for (int i = 0; i < 4; ++i) v[i] = vf{a[0][i], a[1][i], a[2][i], a[3][i]};
}

}  // namespace sepconv::scalar
