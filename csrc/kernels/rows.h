// Sums, maxima and normalisation along rows, and down the columns of a matrix; the softmax. Sums are of doubles.
//
// Registers: along a row two sums of V doubles (four or eight registers), enough chains to hide the adder's latency behind
// the conversions; down columns four such sums, or four maxima, a cache line or two of each row. The order of a sum
// depends on n alone.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <SumKind Kind>
SEPCONV_INLINE vd sum_term(vf x, vd shift) {
  if constexpr (Kind == SumKind::plain) return widen(x);
  if constexpr (Kind == SumKind::absolute) return widen(max(x, sub(broadcast(0.0f), x)));
  const vd distance = sub(widen(x), shift);
  return mul(distance, distance);
}

template <SumKind Kind>
SEPCONV_INLINE double sum_row(const float* in, std::int64_t n, double shift) {
  const vd from = broadcast_double(shift);
  vd a = broadcast_double(0.0), b = a;
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a = add(a, sum_term<Kind>(load(in + i), from));
    b = add(b, sum_term<Kind>(load(in + i + kLanes), from));
  }
  if (i + kLanes <= n) {
    a = add(a, sum_term<Kind>(load(in + i), from));
    i += kLanes;
  }
  double part[kLanes];
  store(part, add(a, b));
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) part[l] += part[l + half];
  }
  for (; i < n; ++i) {
    const double x = static_cast<double>(in[i]);
    part[0] += Kind == SumKind::plain ? x : Kind == SumKind::absolute ? __builtin_fabs(x) : (x - shift) * (x - shift);
  }
  return part[0];
}

SEPCONV_INLINE double sum_row(SumKind kind, const float* in, std::int64_t n, double shift) {
  switch (kind) {
    case SumKind::plain: return sum_row<SumKind::plain>(in, n, shift);
    case SumKind::absolute: return sum_row<SumKind::absolute>(in, n, shift);
    default: return sum_row<SumKind::squares>(in, n, shift);
  }
}

// take(columns of a block of Vectors vectors, how many lanes are left or 0) over all columns.
template <class Take4, class Take1>
SEPCONV_INLINE void for_column_blocks(std::int64_t columns, Take4 take4, Take1 take1) {
  std::int64_t c = 0;
  for (; c + 4 * kLanes <= columns; c += 4 * kLanes) take4(c);
  for (; c < columns; c += kLanes) take1(c, columns - c < kLanes ? static_cast<int>(columns - c) : 0);
}

template <SumKind Kind>
SEPCONV_INLINE void sum_columns(const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns, double* out) {
  const vd zero = broadcast_double(0.0);
  for_column_blocks(
      columns,
      [=](std::int64_t c) {
        vd sum[4] = {zero, zero, zero, zero};
        for (std::int64_t r = 0; r < n; ++r) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sum[j] = add(sum[j], sum_term<Kind>(load(in + r * step + c + j * kLanes), zero));
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store(out + c + j * kLanes, sum[j]);
      },
      [=](std::int64_t c, int some) {
        vd sum = zero;
        for (std::int64_t r = 0; r < n; ++r) {
          const float* const from = in + r * step + c;
          sum = add(sum, sum_term<Kind>(some ? load_some(from, some) : load(from), zero));
        }
        if (!some) return store(out + c, sum);
        double part[kLanes];
        store(part, sum);
        for (int l = 0; l < some; ++l) out[c + l] = part[l];
      });
}

SEPCONV_INLINE void sum_columns(SumKind kind, const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns,
                                double* out) {
  switch (kind) {
    case SumKind::plain: return sum_columns<SumKind::plain>(in, step, n, columns, out);
    case SumKind::absolute: return sum_columns<SumKind::absolute>(in, step, n, columns, out);
    default: return sum_columns<SumKind::squares>(in, step, n, columns, out);
  }
}

// A NaN stays. The product also flushes denormals, which comparisons alone need not do.
SEPCONV_INLINE float greatest_of_row(const float* in, std::int64_t n, float factor) {
  const vf scale = broadcast(factor), least = broadcast(-__builtin_inff());
  vf a = least, b = least;
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    a = max_nan(a, mul(scale, load(in + i)));
    b = max_nan(b, mul(scale, load(in + i + kLanes)));
  }
  if (i + kLanes <= n) {
    a = max_nan(a, mul(scale, load(in + i)));
    i += kLanes;
  }
  if (i < n) {
    float tail[kLanes];
    store(tail, least);
    for (std::int64_t j = i; j < n; ++j) tail[j - i] = factor * in[j];
    a = max_nan(a, load(tail));
  }
  float part[kLanes];
  store(part, max_nan(a, b));
  bool has_nan = false;
  for (int l = 0; l < kLanes; ++l) has_nan |= part[l] != part[l];
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int l = 0; l < half; ++l) part[l] = part[l + half] > part[l] ? part[l + half] : part[l];
  }
  return has_nan ? __builtin_nanf("") : part[0];
}

SEPCONV_INLINE void greatest_of_columns(const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns,
                                        float factor, float* out) {
  const vf scale = broadcast(factor), least = broadcast(-__builtin_inff());
  for_column_blocks(
      columns,
      [=](std::int64_t c) {
        vf most[4] = {least, least, least, least};
        for (std::int64_t r = 0; r < n; ++r) {
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) most[j] = max_nan(most[j], mul(scale, load(in + r * step + c + j * kLanes)));
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store(out + c + j * kLanes, most[j]);
      },
      [=](std::int64_t c, int some) {
        vf most = least;
        for (std::int64_t r = 0; r < n; ++r) {
          const float* const from = in + r * step + c;
          most = max_nan(most, mul(scale, some ? load_some(from, some) : load(from)));
        }
        if (!some) return store(out + c, most);
        store_some(out + c, most, some);
      });
}

// The difference and its product with the factor are of doubles, rounded once: a mean far from 0 costs no precision.
template <bool Each>
SEPCONV_INLINE void normalize_row(const float* in, std::int64_t n, double mean, double factor, const float* scale,
                                  const float* bias, float* out) {
  const vd middle = broadcast_double(mean), stretch = broadcast_double(factor);
  const vf one_scale = broadcast(*scale), one_bias = broadcast(bias ? *bias : 0.0f);
  const auto normal = [&](vf x) { return narrow(mul(sub(widen(x), middle), stretch)); };
  const auto vector = [&](std::int64_t i) {
    const vf y = normal(load(in + i)), by = Each ? load(scale + i) : one_scale;
    store(out + i, bias ? fmadd(y, by, Each ? load(bias + i) : one_bias) : mul(y, by));
  };
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vector(i);
  if (i == n) return;
  if (n >= kLanes) return vector(n - kLanes);  // some again
  const int some = static_cast<int>(n);
  const vf y = normal(load_some(in, some)), by = Each ? load_some(scale, some) : one_scale;
  store_some(out, bias ? fmadd(y, by, Each ? load_some(bias, some) : one_bias) : mul(y, by), some);
}

// op on each vector; the last one overlaps the one before it, and is read before anything is written: out may be in.
template <class Op>
SEPCONV_INLINE void for_each_of_row(const float* in, float* out, std::int64_t n, Op op) {
  if (n < kLanes) return for_each_vector(in, out, n, op);
  const vf last = op(load(in + n - kLanes));
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, op(load(in + i)));
  if (i < n) store(out + n - kLanes, last);
}

SEPCONV_INLINE void softmax(const float* in, float* out, std::int64_t n, float beta) {
  const vf scale = broadcast(beta), shift = broadcast(greatest_of_row(in, n, beta));
  for_each_of_row(in, out, n, [=](vf x) { return exp(sub(mul(x, scale), shift)); });
  const vf factor = broadcast(static_cast<float>(1.0 / sum_row<SumKind::plain>(out, n, 0.0)));
  for_each_of_row(out, out, n, [=](vf x) { return mul(x, factor); });
}

}  // namespace sepconv::SEPCONV_ISA
