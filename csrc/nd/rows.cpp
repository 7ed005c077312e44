// Operators that work through one row after the other: sums and other reductions, softmax, normalisation, resampling.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <vector>

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

double log_sum_exp(const KernelTable& table, const float* x, std::int64_t n) {
  const double largest = static_cast<double>(table.greatest_f32(x, n, 1.0f));
  if (std::isinf(largest) || std::isnan(largest)) return largest;
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += std::exp(static_cast<double>(x[i]) - largest);
  return largest + std::log(total);
}

// What a reduction adds up, or takes the greatest of, before finished(). The least is the greatest of the negated.
SumKind sum_kind(ReduceKind kind) {
  switch (kind) {
    case ReduceKind::l1: return SumKind::absolute;
    case ReduceKind::l2:
    case ReduceKind::sum_square: return SumKind::squares;
    default: return SumKind::plain;
  }
}

bool is_extreme(ReduceKind kind) { return kind == ReduceKind::max || kind == ReduceKind::min; }
float sign_of(ReduceKind kind) { return kind == ReduceKind::min ? -1.0f : 1.0f; }

double part_of(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t n) {
  if (is_extreme(kind)) return static_cast<double>(table.greatest_f32(x, n, sign_of(kind)));
  return table.sum_f32(sum_kind(kind), x, n, 0.0);
}

float finished(ReduceKind kind, double total, std::int64_t n) {
  switch (kind) {
    case ReduceKind::mean: return static_cast<float>(total / static_cast<double>(n));
    case ReduceKind::min: return static_cast<float>(-total);
    case ReduceKind::l2: return static_cast<float>(std::sqrt(total));
    case ReduceKind::log_sum: return static_cast<float>(std::log(total));
    default: return static_cast<float>(total);
  }
}

// Rows longer than this are taken in runs of so many elements, so that threads share even one row; each run's part is
// added to the parts before it.
constexpr std::int64_t kRun = kSerial;
std::int64_t runs_of(std::int64_t n) { return std::max<std::int64_t>(1, (n + kRun - 1) / kRun); }

// f(row, first element, elements) for each run of each row, on threads.
template <class F>
void for_runs(std::int64_t rows, std::int64_t n, int threads, const F& f) {
  const std::int64_t runs = runs_of(n);
  for_pieces(threads_for(rows * n, threads), rows * runs, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % runs * kRun;
      f(i / runs, first, std::min(kRun, n - first));
    }
  });
}

// part(row, first element, elements) of each run, then join(a, b) of them in order: one number for each row.
template <class Part, class Join>
std::vector<double> joined_runs(std::int64_t rows, std::int64_t n, int threads, const Part& part, const Join& join) {
  const std::int64_t runs = runs_of(n);
  std::vector<double> parts(static_cast<std::size_t>(rows * runs));
  for_runs(rows, n, threads, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
    parts[static_cast<std::size_t>(r * runs + first / kRun)] = part(r, first, count);
  });
  for (std::int64_t r = 0; r < rows; ++r) {
    double total = parts[static_cast<std::size_t>(r * runs)];
    for (std::int64_t i = 1; i < runs; ++i) total = join(total, parts[static_cast<std::size_t>(r * runs + i)]);
    parts[static_cast<std::size_t>(r)] = total;
  }
  return parts;
}

void reduce_rows(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, float* y,
                 int threads) {
  if (n <= kRun) {
    for_rows(rows, n, threads, [&](std::int64_t r) { y[r] = finished(kind, part_of(kind, table, x + r * n, n), n); });
    return;
  }
  const auto totals = joined_runs(
      rows, n, threads,
      [&](std::int64_t r, std::int64_t first, std::int64_t count) { return part_of(kind, table, x + r * n + first, count); },
      [&](double a, double b) { return !is_extreme(kind) ? a + b : std::isnan(a) || a > b ? a : b; });
  for (std::int64_t r = 0; r < rows; ++r) y[r] = finished(kind, totals[static_cast<std::size_t>(r)], n);
}

// Down the columns of each [n, inner], so many columns at a time.
void reduce_columns(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t outer, std::int64_t n,
                    std::int64_t inner, float* y, int threads) {
  constexpr std::int64_t kColumns = 256;
  const std::int64_t blocks = (inner + kColumns - 1) / kColumns;
  for_pieces(threads_for(outer * n * inner, threads), outer * blocks, [&](std::int64_t begin, std::int64_t end, int) {
    double totals[kColumns];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % blocks * kColumns, columns = std::min(kColumns, inner - first);
      const float* const from = x + i / blocks * n * inner + first;
      float* const to = y + i / blocks * inner + first;
      if (is_extreme(kind)) {
        table.greatest_columns_f32(from, inner, n, columns, sign_of(kind), to);
        for (std::int64_t c = 0; c < columns; ++c) to[c] *= sign_of(kind);
        continue;
      }
      table.sum_columns_f32(sum_kind(kind), from, inner, n, columns, totals);
      if (kind == ReduceKind::l2 || kind == ReduceKind::log_sum) {
        for (std::int64_t c = 0; c < columns; ++c) to[c] = finished(kind, totals[c], n);
      } else {
        const double count = kind == ReduceKind::mean ? static_cast<double>(n) : 1.0;
        for (std::int64_t c = 0; c < columns; ++c) to[c] = static_cast<float>(totals[c] / count);
      }
    }
  });
}

}  // namespace

void reduce(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t outer, std::int64_t n, std::int64_t inner,
            float* y, int threads) {
  if (kind == ReduceKind::prod || kind == ReduceKind::log_sum_exp) {
    for_rows(outer * inner, n, threads, [&](std::int64_t r) {
      const float* const row = x + r * n;
      double result = 1;
      if (kind == ReduceKind::log_sum_exp) result = log_sum_exp(table, row, n);
      else for (std::int64_t i = 0; i < n; ++i) result *= static_cast<double>(row[i]);
      y[r] = static_cast<float>(result);
    });
  } else if (inner == 1) {
    reduce_rows(kind, table, x, outer, n, y, threads);
  } else {
    reduce_columns(kind, table, x, outer, n, inner, y, threads);
  }
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
    double total = log_sum_exp(table, from, n);
    if (std::isinf(total)) total = std::numeric_limits<double>::quiet_NaN();  // as the softmax of such a row is
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(static_cast<double>(from[i]) - total);
  });
}

void normalize(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, double epsilon, bool center,
               const Scaling& scaling, float* y, float* mean, float* inverse, int threads) {
  const auto factor = [&](double squares) { return 1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon); };
  const auto keep = [&](std::int64_t r, double middle, double stretch) {
    mean[r] = static_cast<float>(middle);
    inverse[r] = static_cast<float>(stretch);
  };
  // Elements first to first + count of row r, by stretches that have one scale, or one after the other.
  const auto apply = [&](std::int64_t r, std::int64_t first, std::int64_t count, double middle, double stretch) {
    for (std::int64_t i = 0; i < count;) {
      const std::int64_t at = r * n + first + i, place = at / scaling.run % scaling.count;
      const std::int64_t left = scaling.run == 1 ? scaling.count - place : scaling.run - at % scaling.run;
      const std::int64_t some = std::min(count - i, left);
      table.normalize_f32(x + at, some, middle, stretch, scaling.scale + place, scaling.bias ? scaling.bias + place : nullptr,
                          scaling.run == 1, y + at);
      i += some;
    }
  };
  if (n <= kRun) {
    // Several short rows step by step together: each step of one waits for the one before it, but not for other rows.
    constexpr std::int64_t kMost = 16;
    const std::int64_t together = std::clamp<std::int64_t>(kSerial / 4 / n, 1, kMost), blocks = (rows + together - 1) / together;
    const auto count = static_cast<double>(n);
    for_rows(blocks, together * n, threads, [&](std::int64_t block) {
      const std::int64_t first = block * together, some = std::min(together, rows - first);
      const float* const from = x + first * n;
      double middles[kMost] = {}, stretches[kMost];
      for (std::int64_t r = 0; r < some && center; ++r) middles[r] = table.sum_f32(SumKind::plain, from + r * n, n, 0.0) / count;
      for (std::int64_t r = 0; r < some; ++r) stretches[r] = table.sum_f32(SumKind::squares, from + r * n, n, middles[r]);
      for (std::int64_t r = 0; r < some; ++r) stretches[r] = factor(stretches[r]);
      for (std::int64_t r = 0; r < some; ++r) {
        apply(first + r, 0, n, middles[r], stretches[r]);
        keep(first + r, middles[r], stretches[r]);
      }
    });
    return;
  }
  const auto sums = [&](SumKind kind, const std::vector<double>& shifts) {
    return joined_runs(
        rows, n, threads,
        [&](std::int64_t r, std::int64_t first, std::int64_t count) {
          return table.sum_f32(kind, x + r * n + first, count, shifts[static_cast<std::size_t>(r)]);
        },
        [](double a, double b) { return a + b; });
  };
  std::vector<double> middles(static_cast<std::size_t>(rows));
  if (center) middles = sums(SumKind::plain, middles);
  for (double& middle : middles) middle /= static_cast<double>(n);
  std::vector<double> stretches = sums(SumKind::squares, middles);
  for (double& stretch : stretches) stretch = factor(stretch);
  for_runs(rows, n, threads, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
    apply(r, first, count, middles[static_cast<std::size_t>(r)], stretches[static_cast<std::size_t>(r)]);
  });
  for (std::int64_t r = 0; r < rows; ++r) keep(r, middles[static_cast<std::size_t>(r)], stretches[static_cast<std::size_t>(r)]);
}

void resample(const float* x, std::int64_t outer, std::int64_t in, std::int64_t inner, std::int64_t out, std::int64_t taps,
              const std::int64_t* index, const float* weight, float* y, int threads) {
  if (inner == 1) {
    for_rows(outer, out * taps, threads, [&](std::int64_t r) {
      const float* const row = x + r * in;
      for (std::int64_t o = 0; o < out; ++o) {
        float sum = weight[o * taps] * row[index[o * taps]];
        for (std::int64_t t = 1; t < taps; ++t) sum += weight[o * taps + t] * row[index[o * taps + t]];
        y[r * out + o] = sum;
      }
    });
    return;
  }
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
