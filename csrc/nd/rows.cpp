// Operators that work through one row after the other: sums and other reductions, softmax, normalisation, resampling.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "nd/operators.h"

namespace sepconv::nd {
namespace {

// f(row) for each row, on threads.
template <class F>
void for_rows(std::int64_t rows, std::int64_t n, int threads, const F& f) {
  for_pieces(threads_for(rows * n, threads), rows, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t r = begin; r < end; ++r) f(r);
  });
}

double greatest_of(const float* x, std::int64_t n) {
  double result = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < n; ++i) {
    const double value = x[i];
    if (value > result || std::isnan(value)) result = value;
    if (std::isnan(result)) break;
  }
  return result;
}

template <class F>
double sum_of(const float* x, std::int64_t n, const F& f) {
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += f(static_cast<double>(x[i]));
  return total;
}

double log_sum_exp(const float* x, std::int64_t n) {
  const double largest = greatest_of(x, n);
  if (std::isinf(largest)) return largest;
  return largest + std::log(sum_of(x, n, [&](double v) { return std::exp(v - largest); }));
}

double reduced(ReduceKind kind, const float* x, std::int64_t n) {
  switch (kind) {
    case ReduceKind::sum: return sum_of(x, n, [](double v) { return v; });
    case ReduceKind::mean: return sum_of(x, n, [](double v) { return v; }) / static_cast<double>(n);
    case ReduceKind::max: return greatest_of(x, n);
    case ReduceKind::min: {
      double result = std::numeric_limits<double>::infinity();
      for (std::int64_t i = 0; i < n && !std::isnan(result); ++i) {
        const double value = x[i];
        if (value < result || std::isnan(value)) result = value;
      }
      return result;
    }
    case ReduceKind::prod: {
      double result = 1;
      for (std::int64_t i = 0; i < n; ++i) result *= static_cast<double>(x[i]);
      return result;
    }
    case ReduceKind::l1: return sum_of(x, n, [](double v) { return std::fabs(v); });
    case ReduceKind::l2: return std::sqrt(sum_of(x, n, [](double v) { return v * v; }));
    case ReduceKind::sum_square: return sum_of(x, n, [](double v) { return v * v; });
    case ReduceKind::log_sum: return std::log(sum_of(x, n, [](double v) { return v; }));
    default: return log_sum_exp(x, n);
  }
}

}  // namespace

void reduce(ReduceKind kind, const float* x, std::int64_t rows, std::int64_t n, float* y, int threads) {
  for_rows(rows, n, threads, [&](std::int64_t r) { y[r] = static_cast<float>(reduced(kind, x + r * n, n)); });
}

template <class T>
void reduce_integers(ReduceKind kind, const T* x, std::int64_t rows, std::int64_t n, T* y, int threads) {
  for_rows(rows, n, threads, [&](std::int64_t r) {
    const T* const row = x + r * n;
    std::uint64_t total = kind == ReduceKind::prod ? 1 : 0;  // sums wrap
    T least = std::numeric_limits<T>::max(), most = std::numeric_limits<T>::min();
    for (std::int64_t i = 0; i < n; ++i) {
      const auto value = static_cast<std::uint64_t>(row[i]);
      least = std::min(least, row[i]);
      most = std::max(most, row[i]);
      if (kind == ReduceKind::prod) total *= value;
      else if (kind == ReduceKind::sum_square) total += value * value;
      else total += kind == ReduceKind::l1 && row[i] < 0 ? 0 - value : value;
    }
    y[r] = kind == ReduceKind::max ? most : kind == ReduceKind::min ? least : static_cast<T>(total);
  });
}

template void reduce_integers(ReduceKind, const std::int8_t*, std::int64_t, std::int64_t, std::int8_t*, int);
template void reduce_integers(ReduceKind, const std::uint8_t*, std::int64_t, std::int64_t, std::uint8_t*, int);
template void reduce_integers(ReduceKind, const std::int32_t*, std::int64_t, std::int64_t, std::int32_t*, int);
template void reduce_integers(ReduceKind, const std::int64_t*, std::int64_t, std::int64_t, std::int64_t*, int);

void softmax(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, bool logarithm, float* y, int threads) {
  for_rows(rows, n, threads, [&](std::int64_t r) {
    const float* const from = x + r * n;
    float* const to = y + r * n;
    if (!logarithm) return table.softmax_f32(from, to, n, 1.0f);
    const double total = log_sum_exp(from, n);
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(static_cast<double>(from[i]) - total);
  });
}

void normalize(const float* x, std::int64_t rows, std::int64_t n, double epsilon, bool center, float* y, float* mean,
               float* inverse, int threads) {
  for_rows(rows, n, threads, [&](std::int64_t r) {
    const float* const from = x + r * n;
    const double middle = center ? sum_of(from, n, [](double v) { return v; }) / static_cast<double>(n) : 0.0;
    const double variance = sum_of(from, n, [&](double v) { return (v - middle) * (v - middle); }) / static_cast<double>(n);
    const double factor = 1.0 / std::sqrt(variance + epsilon);
    for (std::int64_t i = 0; i < n; ++i) y[r * n + i] = static_cast<float>((static_cast<double>(from[i]) - middle) * factor);
    mean[r] = static_cast<float>(middle);
    inverse[r] = static_cast<float>(factor);
  });
}

void resample(const float* x, std::int64_t outer, std::int64_t in, std::int64_t inner, std::int64_t out, std::int64_t taps,
              const std::int64_t* index, const float* weight, float* y, int threads) {
  for_rows(outer * out, inner * taps, threads, [&](std::int64_t r) {
    const std::int64_t o = r % out;
    const float* const plane = x + r / out * in * inner;
    float* const to = y + r * inner;
    for (std::int64_t i = 0; i < inner; ++i) to[i] = weight[o * taps] * plane[index[o * taps] * inner + i];
    for (std::int64_t t = 1; t < taps; ++t) {
      const float* const from = plane + index[o * taps + t] * inner;
      const float w = weight[o * taps + t];
      for (std::int64_t i = 0; i < inner; ++i) to[i] += w * from[i];
    }
  });
}

}  // namespace sepconv::nd
