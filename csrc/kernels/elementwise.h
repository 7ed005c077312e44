// Elementwise sums, products and activations. Tails shorter than a vector go through a copy on the stack.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// x = n·ln2 + r with |r| ≤ ln2/2. ln2 in two parts, the first with zeros at its end, so that n times it is exact.
struct Reduced {
  vf n, r;
};
SEPCONV_INLINE Reduced reduced(vf x) {
  const vf n = round(mul(x, broadcast(1.44269504f)));
  const vf r = fmadd(n, broadcast(-0.693359375f), x);
  return {n, fmadd(n, broadcast(2.12194440e-4f), r)};
}

// e^r for such an r: a polynomial, fitted, with an error of at most 3e-9.
SEPCONV_INLINE vf exp_of_reduced(vf r) {
  vf p = broadcast(0.00138436536f);
  p = fmadd(p, r, broadcast(0.00837415496f));
  p = fmadd(p, r, broadcast(0.0416680001f));
  p = fmadd(p, r, broadcast(0.16666431f));
  p = fmadd(p, r, broadcast(0.499999938f));
  p = fmadd(p, r, broadcast(1.0f));
  return fmadd(p, r, broadcast(1.0f));
}

// e^x within 2 ulp for results that are normal numbers.
SEPCONV_INLINE vf exp(vf x) {
  const Reduced e = reduced(min(broadcast(89.0f), max(broadcast(-110.0f), x)));
  return ldexp(exp_of_reduced(e.r), e.n);
}

SEPCONV_INLINE vf sigmoid(vf x) {
  const vf one = broadcast(1.0f);
  return div(one, add(one, exp(sub(broadcast(0.0f), x))));
}

// x·Φ(x), Φ the normal distribution: within 8 ulp, also where Φ is small, as long as it is a normal number. With a = |x|,
// Φ(-a) = e^(-a²/2)·R(a); R is t times a polynomial in t = 1/(1 + 0.35a), relative error at most 4e-8, fitted to erfc. a²
// in two parts: what its rounding loses would be multiplied by a²/2. From 13 on Φ(-a) is 0 here.
SEPCONV_INLINE vf gelu(vf x) {
  const vf zero = broadcast(0.0f), one = broadcast(1.0f), minus_half = broadcast(-0.5f);
  const vf a = min(broadcast(13.0f), max(sub(zero, x), x));
  const vf square = mul(a, a), t = div(one, fmadd(broadcast(0.35f), a, one));
  vf p = broadcast(-0.029163806f);
  p = fmadd(p, t, broadcast(0.14406024f));
  p = fmadd(p, t, broadcast(-0.25590074f));
  p = fmadd(p, t, broadcast(0.15939167f));
  p = fmadd(p, t, broadcast(-0.023263017f));
  p = fmadd(p, t, broadcast(0.10557447f));
  p = fmadd(p, t, broadcast(0.11981557f));
  p = fmadd(p, t, broadcast(0.13986433f));
  p = fmadd(p, t, broadcast(0.13962126f));
  const Reduced e = reduced(mul(minus_half, square));
  const vf r = fmadd(minus_half, square_error(a, square), e.r);
  p = if_less(a, broadcast(13.0f), mul(mul(p, t), ldexp_normal(exp_of_reduced(r), e.n)), zero);
  return mul(x, if_less(x, zero, p, sub(one, p)));
}

// x/2·(1 + tanh(y)) = x·sigmoid(2y).
SEPCONV_INLINE vf gelu_tanh(vf x) {
  const vf cube = mul(mul(x, x), x);
  return mul(x, sigmoid(mul(broadcast(1.5957691216f), fmadd(broadcast(0.044715f), cube, x))));
}

// Calls op on each vector of n floats; the last, partial one by way of a buffer.
template <class Op>
SEPCONV_INLINE void for_each_vector(const float* in, float* out, std::int64_t n, Op op) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, op(load(in + i)));
  if (i == n) return;
  float tail[kLanes] = {};
  for (std::int64_t j = i; j < n; ++j) tail[j - i] = in[j];
  store(tail, op(load(tail)));
  for (std::int64_t j = i; j < n; ++j) out[j] = tail[j - i];
}

SEPCONV_INLINE void activate(Activation activation, const float* in, float* out, std::int64_t n) {
  const vf zero = broadcast(0.0f);
  switch (activation) {
    case Activation::none: return for_each_vector(in, out, n, [](vf x) { return x; });
    case Activation::relu: return for_each_vector(in, out, n, [=](vf x) { return max(zero, x); });
    case Activation::relu6:
      return for_each_vector(in, out, n, [=](vf x) { return min(broadcast(6.0f), max(zero, x)); });
    case Activation::hard_swish:
      return for_each_vector(in, out, n, [](vf x) { return hard_swish(x); });
    case Activation::hard_sigmoid: return for_each_vector(in, out, n, [](vf x) { return hard_sigmoid(x); });
    case Activation::sigmoid: return for_each_vector(in, out, n, [](vf x) { return sigmoid(x); });
    case Activation::silu: return for_each_vector(in, out, n, [](vf x) { return mul(x, sigmoid(x)); });
    case Activation::gelu: return for_each_vector(in, out, n, [](vf x) { return gelu(x); });
    case Activation::gelu_tanh: return for_each_vector(in, out, n, [](vf x) { return gelu_tanh(x); });
  }
}

SEPCONV_INLINE void add(const float* a, const float* b, float* out, std::int64_t n, float lo, float hi) {
  const vf low = broadcast(lo), high = broadcast(hi);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, min(high, max(low, add(load(a + i), load(b + i)))));
  for (; i < n; ++i) {
    const float sum = a[i] + b[i];
    const float raised = lo > sum ? lo : sum;
    out[i] = hi < raised ? hi : raised;
  }
}

SEPCONV_INLINE void mul(const float* a, const float* b, float* out, std::int64_t n, float lo, float hi) {
  const vf low = broadcast(lo), high = broadcast(hi);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, min(high, max(low, mul(load(a + i), load(b + i)))));
  for (; i < n; ++i) {
    const float product = a[i] * b[i];
    const float raised = lo > product ? lo : product;
    out[i] = hi < raised ? hi : raised;
  }
}

SEPCONV_INLINE void scale(const float* a, const float* factors, float* out, std::int64_t n, float lo, float hi) {
  const vf low = broadcast(lo), high = broadcast(hi), factor = load(factors);
  for (std::int64_t i = 0; i < n; ++i) store(out + i * kLanes, min(high, max(low, mul(load(a + i * kLanes), factor))));
}

SEPCONV_INLINE void prelu(const float* a, const float* slopes, float* out, std::int64_t n) {
  const vf zero = broadcast(0.0f), slope = load(slopes);
  for (std::int64_t i = 0; i < n; ++i) {
    const vf x = load(a + i * kLanes);
    store(out + i * kLanes, if_less(x, zero, mul(slope, x), x));
  }
}

}  // namespace sepconv::SEPCONV_ISA
