// Elementwise functions of one or two arrays, for the N-d operators. No registers are held but constants; one loop over
// vectors, whose last, partial one goes through a copy on the stack.
#include "base/elementwise.h"
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Times this, a denormal is the zero of its sign, as a run takes it: min and max make it one on x86-64's vector ISAs alone,
// if_less nowhere. It is 1, which the compiler must not know.
SEPCONV_INLINE vf flushing_one() {
  const volatile float one = 1.0f;
  return broadcast(one);
}

// e^x - 1, precise also near 0: x = n·ln2 + r as in exp(), then 2^n·(e^r - 1) + (2^n - 1).
SEPCONV_INLINE vf expm1(vf x) {
  const vf one = broadcast(1.0f);
  x = min(broadcast(89.0f), max(broadcast(-30.0f), x));
  const vf n = round(mul(x, broadcast(1.44269504f)));
  vf r = fmadd(n, broadcast(-0.693359375f), x);
  r = fmadd(n, broadcast(2.12194440e-4f), r);
  vf p = broadcast(1.0f / 5040);
  p = fmadd(p, r, broadcast(1.0f / 720));
  p = fmadd(p, r, broadcast(1.0f / 120));
  p = fmadd(p, r, broadcast(1.0f / 24));
  p = fmadd(p, r, broadcast(1.0f / 6));
  p = fmadd(p, r, broadcast(0.5f));
  p = fmadd(mul(p, r), r, r);
  return add(ldexp(p, n), sub(ldexp(one, n), one));
}

// log(1 + u) for u in [0, 1]: 2·artanh(s) with s = u/(2 + u) ≤ 1/3, as its series to s^17.
SEPCONV_INLINE vf log1p_unit(vf u) {
  const vf s = div(u, add(broadcast(2.0f), u));
  const vf q = mul(s, s);
  vf p = broadcast(1.0f / 17);
  p = fmadd(p, q, broadcast(1.0f / 15));
  p = fmadd(p, q, broadcast(1.0f / 13));
  p = fmadd(p, q, broadcast(1.0f / 11));
  p = fmadd(p, q, broadcast(1.0f / 9));
  p = fmadd(p, q, broadcast(1.0f / 7));
  p = fmadd(p, q, broadcast(1.0f / 5));
  p = fmadd(p, q, broadcast(1.0f / 3));
  p = fmadd(p, q, broadcast(1.0f));
  return mul(add(s, s), p);
}

// 1 - 2/(e^2x + 1), written so that nothing cancels near 0. Beyond ±15 it is ±1.
SEPCONV_INLINE vf tanh(vf x) {
  const vf e = expm1(add(x, x));
  // e/(e + 2), whose numerator is at most e^30: no infinity meets another.
  return div(e, add(e, broadcast(2.0f)));
}
SEPCONV_INLINE vf bounded_tanh(vf x) { return tanh(min(broadcast(15.0f), max(broadcast(-15.0f), x))); }

// x < 0 ? a·x : x, whatever a is.
SEPCONV_INLINE vf leaky_relu(vf x, vf a) { return if_less(x, broadcast(0.0f), mul(a, x), x); }

// x < 0 ? a·(e^(x·k) - 1) : x
SEPCONV_INLINE vf elu(vf x, vf a, vf k) { return if_less(x, broadcast(0.0f), mul(a, expm1(mul(x, k))), x); }

SEPCONV_INLINE vf softplus(vf x) {
  const vf zero = broadcast(0.0f);
  const vf magnitude = max(sub(zero, x), x);
  return add(max(zero, x), log1p_unit(exp(sub(zero, magnitude))));
}

// tanh(log(1 + w)) = m/(m + 2) with w = e^x, m = w·(w + 2).
SEPCONV_INLINE vf mish(vf x) {
  const vf low = max(broadcast(-100.0f), x);
  const vf w = exp(min(broadcast(20.0f), low));
  const vf m = mul(w, add(w, broadcast(2.0f)));
  return mul(low, div(m, add(m, broadcast(2.0f))));
}

SEPCONV_INLINE void unary(UnaryKind kind, const float* in, float* out, std::int64_t n, float a, float b) {
  const vf va = broadcast(a), vb = broadcast(b), zero = broadcast(0.0f), one = broadcast(1.0f), flush = flushing_one();
  switch (kind) {
    case UnaryKind::relu: return for_each_vector(in, out, n, [=](vf x) { return max(zero, mul(flush, x)); });
    case UnaryKind::leaky_relu: return for_each_vector(in, out, n, [=](vf x) { return leaky_relu(mul(flush, x), va); });
    case UnaryKind::clip: {
      const vf lo = mul(flush, va), hi = mul(flush, vb);
      return for_each_vector(in, out, n, [=](vf x) { return min(hi, max(lo, mul(flush, x))); });
    }
    case UnaryKind::affine: return for_each_vector(in, out, n, [=](vf x) { return fmadd(va, x, vb); });
    case UnaryKind::hard_sigmoid:
      return for_each_vector(in, out, n, [=](vf x) { return min(one, max(zero, fmadd(va, x, vb))); });
    case UnaryKind::hard_swish: return for_each_vector(in, out, n, [](vf x) { return hard_swish(x); });
    case UnaryKind::sigmoid: return for_each_vector(in, out, n, [](vf x) { return sigmoid(x); });
    case UnaryKind::swish: return for_each_vector(in, out, n, [=](vf x) { return mul(x, sigmoid(mul(va, x))); });
    case UnaryKind::tanh: return for_each_vector(in, out, n, [](vf x) { return bounded_tanh(x); });
    case UnaryKind::elu: return for_each_vector(in, out, n, [=](vf x) { return elu(mul(flush, x), va, one); });
    case UnaryKind::selu: return for_each_vector(in, out, n, [=](vf x) { return mul(vb, elu(x, va, one)); });
    case UnaryKind::celu: {
      const vf k = div(one, va);
      return for_each_vector(in, out, n, [=](vf x) { return elu(mul(flush, x), va, k); });
    }
    case UnaryKind::softplus: return for_each_vector(in, out, n, [](vf x) { return softplus(x); });
    case UnaryKind::mish: return for_each_vector(in, out, n, [](vf x) { return mish(x); });
    case UnaryKind::gelu: return for_each_vector(in, out, n, [](vf x) { return gelu(x); });
    case UnaryKind::gelu_tanh: return for_each_vector(in, out, n, [](vf x) { return gelu_tanh(x); });
    case UnaryKind::exp: return for_each_vector(in, out, n, [](vf x) { return exp(x); });
  }
}

// Calls op on each pair of vectors; an operand of step 0 is one float for all.
template <class Op>
SEPCONV_INLINE void for_each_pair(const float* a, int a_step, const float* b, int b_step, float* out, std::int64_t n, Op op) {
  const vf first = broadcast(*a), second = broadcast(*b);
  std::int64_t i = 0;
  if (a_step && b_step) {
    for (; i + kLanes <= n; i += kLanes) store(out + i, op(load(a + i), load(b + i)));
  } else if (a_step) {
    for (; i + kLanes <= n; i += kLanes) store(out + i, op(load(a + i), second));
  } else if (b_step) {
    for (; i + kLanes <= n; i += kLanes) store(out + i, op(first, load(b + i)));
  }
  for (; i < n; i += kLanes) {
    const std::int64_t left = n - i < kLanes ? n - i : kLanes;
    float x[kLanes] = {}, y[kLanes] = {};
    for (std::int64_t j = 0; j < left; ++j) {
      x[j] = a[(i + j) * a_step];
      y[j] = b[(i + j) * b_step];
    }
    store(x, op(load(x), load(y)));
    for (std::int64_t j = 0; j < left; ++j) out[i + j] = x[j];
  }
}

SEPCONV_INLINE void binary(BinaryKind kind, const float* a, int a_step, const float* b, int b_step, float* out,
                           std::int64_t n) {
  const vf flush = flushing_one();
  switch (kind) {
    case BinaryKind::add: return for_each_pair(a, a_step, b, b_step, out, n, [](vf x, vf y) { return add(x, y); });
    case BinaryKind::sub: return for_each_pair(a, a_step, b, b_step, out, n, [](vf x, vf y) { return sub(x, y); });
    case BinaryKind::mul: return for_each_pair(a, a_step, b, b_step, out, n, [](vf x, vf y) { return mul(x, y); });
    case BinaryKind::div: return for_each_pair(a, a_step, b, b_step, out, n, [](vf x, vf y) { return div(x, y); });
    case BinaryKind::max:
      return for_each_pair(a, a_step, b, b_step, out, n, [=](vf x, vf y) { return max_nan(mul(flush, x), mul(flush, y)); });
    case BinaryKind::prelu:
      return for_each_pair(a, a_step, b, b_step, out, n, [=](vf x, vf slope) { return leaky_relu(mul(flush, x), slope); });
    default: return;
  }
}

}  // namespace sepconv::SEPCONV_ISA
