// The vocabulary of simd/avx512.h for AArch64 Advanced SIMD: 4 floats.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "base/inline.h"

namespace sepconv::neon {

using vf = float32x4_t;
using vi = int32x4_t;
inline constexpr int kLanes = 4;
inline constexpr int kRegisters = 32;
inline constexpr int kLoads = 2;  // ldp

SEPCONV_INLINE vf load(const float* p) { return vld1q_f32(p); }
SEPCONV_INLINE void store(float* p, vf v) { vst1q_f32(p, v); }
SEPCONV_INLINE vf load_once(const float* p) { return load(p); }
SEPCONV_INLINE vf broadcast(float x) { return vdupq_n_f32(x); }
SEPCONV_INLINE vf fmadd(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
SEPCONV_INLINE vf square_error(vf a, vf square) { return vfmaq_f32(vnegq_f32(square), a, a); }
SEPCONV_INLINE vf add(vf a, vf b) { return vaddq_f32(a, b); }
SEPCONV_INLINE vf sub(vf a, vf b) { return vsubq_f32(a, b); }
SEPCONV_INLINE vf mul(vf a, vf b) { return vmulq_f32(a, b); }
SEPCONV_INLINE vf div(vf a, vf b) { return vdivq_f32(a, b); }
SEPCONV_INLINE vf min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
SEPCONV_INLINE vf max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
// vminq and vmaxq let NaN through, but take -0 for less than 0, where the other ISAs keep their second operand. A clamp
// does with that, in two instructions where min and max take four: packed weights have no bias of -0 (pack/pack.cpp), and a
// sum that begins with 0 is no -0 but by underflow.
SEPCONV_INLINE vf clamp(vf x, vf lo, vf hi) { return vminq_f32(hi, vmaxq_f32(lo, x)); }
SEPCONV_INLINE vf if_less(vf a, vf b, vf x, vf y) { return vbslq_f32(vcltq_f32(a, b), x, y); }
SEPCONV_INLINE vf max_nan(vf a, vf b) { return vbslq_f32(vceqq_f32(a, b), b, vmaxq_f32(a, b)); }
SEPCONV_INLINE vf round(vf a) { return vrndnq_f32(a); }

// In two factors, so that neither leaves the exponent's range.
SEPCONV_INLINE vf ldexp(vf p, vf n) {
  const vi whole = vcvtnq_s32_f32(n);
  const vi half = vshrq_n_s32(whole, 1);
  const vi rest = vsubq_s32(whole, half);
  const vi bias = vdupq_n_s32(127);
  const vf first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  const vf second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
  return vmulq_f32(vmulq_f32(p, first), second);
}
SEPCONV_INLINE vf ldexp_normal(vf p, vf n) {
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtnq_s32_f32(n), 23)));
}

// V doubles.
struct vd {
  float64x2_t lo, hi;
};
SEPCONV_INLINE vd broadcast_double(double x) { return {vdupq_n_f64(x), vdupq_n_f64(x)}; }
SEPCONV_INLINE void store(double* p, vd v) {
  vst1q_f64(p, v.lo);
  vst1q_f64(p + 2, v.hi);
}
SEPCONV_INLINE vd widen(vf a) { return {vcvt_f64_f32(vget_low_f32(a)), vcvt_high_f64_f32(a)}; }
SEPCONV_INLINE vf narrow(vd a) { return vcvt_high_f32_f64(vcvt_f32_f64(a.lo), a.hi); }
SEPCONV_INLINE vd add(vd a, vd b) { return {vaddq_f64(a.lo, b.lo), vaddq_f64(a.hi, b.hi)}; }
SEPCONV_INLINE vd sub(vd a, vd b) { return {vsubq_f64(a.lo, b.lo), vsubq_f64(a.hi, b.hi)}; }
SEPCONV_INLINE vd mul(vd a, vd b) { return {vmulq_f64(a.lo, b.lo), vmulq_f64(a.hi, b.hi)}; }

// Each lane's number becomes those of its four bytes: 4l … 4l+3. Of -1 they lie outside, where the table lookup keeps old's.
SEPCONV_INLINE vi load_lanes(const std::int32_t* p) {
  return vmlaq_n_s32(vdupq_n_s32(0x03020100), vld1q_s32(p), 0x04040404);
}
SEPCONV_INLINE vf merge_lanes(vf old, vf v, vi lanes) {
  return vreinterpretq_f32_u8(
      vqtbx1q_u8(vreinterpretq_u8_f32(old), vreinterpretq_u8_f32(v), vreinterpretq_u8_s32(lanes)));
}

// A multiply-add takes its factor from any lane of a register, so one load brings four.
using scalars = float32x4_t;
inline constexpr int kScalars = 4;
SEPCONV_INLINE scalars load_scalars(const float* p) { return vld1q_f32(p); }
// The next two loads, and p moved past them: one instruction, which GCC 12 does not form.
SEPCONV_INLINE void load_scalars_twice(const float*& p, scalars (&x)[2]) {
  asm("ldp %q0, %q1, [%2], #32" : "=w"(x[0]), "=w"(x[1]), "+r"(p) : "m"(*reinterpret_cast<const float(*)[8]>(p)));
}
template <int I>
SEPCONV_INLINE vf fmadd_scalar(scalars a, vf b, vf c) {
  return vfmaq_laneq_f32(c, b, a, I);
}

// Lane by lane, 0 < n < 4: of a loop GCC makes a call of memcpy, for which all accumulators go to the stack.
SEPCONV_INLINE vf load_some(const float* p, int n) {
  vf v = vld1q_lane_f32(p, broadcast(0.0f), 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
SEPCONV_INLINE void store_some(float* p, vf v, int n) {
  vst1q_lane_f32(p, v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}
SEPCONV_INLINE void transpose(vf (&v)[4]) {
  const float32x4x2_t a = vtrnq_f32(v[0], v[1]), b = vtrnq_f32(v[2], v[3]);
  v[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
  v[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
  v[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
  v[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

}  // namespace sepconv::neon
