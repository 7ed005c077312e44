// Operators that work through one row after the other: sums and other reductions, softmax, normalisation, resampling.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <type_traits>
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

double sum_exp(const float* x, std::int64_t n, double largest) {
  double total = 0;
  for (std::int64_t i = 0; i < n; ++i) total += std::exp(static_cast<double>(x[i]) - largest);
  return total;
}

double log_sum_exp(const KernelTable& table, const float* x, std::int64_t n) {
  const double largest = static_cast<double>(table.greatest_f32(x, n, 1.0f));
  return std::isfinite(largest) ? largest + std::log(sum_exp(x, n, largest)) : largest;
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

// part(row, first element, elements) of each run, then join(a, b) of them in order: one value for each row.
template <class Part, class Join>
auto joined_runs(std::int64_t rows, std::int64_t n, int threads, const Part& part, const Join& join) {
  using Value = std::invoke_result_t<Part, std::int64_t, std::int64_t, std::int64_t>;
  const std::int64_t runs = runs_of(n);
  std::vector<Value> parts(static_cast<std::size_t>(rows * runs));
  for_runs(rows, n, threads, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
    parts[static_cast<std::size_t>(r * runs + first / kRun)] = part(r, first, count);
  });
  for (std::int64_t r = 0; r < rows; ++r) {
    Value total = parts[static_cast<std::size_t>(r * runs)];
    for (std::int64_t i = 1; i < runs; ++i) total = join(total, parts[static_cast<std::size_t>(r * runs + i)]);
    parts[static_cast<std::size_t>(r)] = total;
  }
  parts.resize(static_cast<std::size_t>(rows));
  return parts;
}

double greater(double a, double b) { return std::isnan(a) || a > b ? a : b; }
double plus(double a, double b) { return a + b; }

std::vector<double> greatest_of_long_rows(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n,
                                          int threads) {
  return joined_runs(
      rows, n, threads,
      [&](std::int64_t r, std::int64_t first, std::int64_t count) {
        return static_cast<double>(table.greatest_f32(x + r * n + first, count, 1.0f));
      },
      greater);
}

std::vector<double> log_sum_exp_of_long_rows(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n,
                                             int threads) {
  std::vector<double> results = greatest_of_long_rows(table, x, rows, n, threads);
  const auto totals = joined_runs(
      rows, n, threads,
      [&](std::int64_t r, std::int64_t first, std::int64_t count) {
        const double largest = results[static_cast<std::size_t>(r)];
        return std::isfinite(largest) ? sum_exp(x + r * n + first, count, largest) : 1.0;
      },
      plus);
  for (std::size_t r = 0; r < results.size(); ++r) results[r] += std::log(totals[r]);
  return results;
}

// mantissa·2^exponent. A part of a product may lie far outside a double's range, and the product not.
struct Scaled {
  double mantissa;
  std::int64_t exponent;
};

Scaled times(Scaled a, Scaled b) {
  int shift = 0;
  const double product = std::frexp(a.mantissa * b.mantissa, &shift);
  return {product, std::isfinite(product) && product != 0.0 ? a.exponent + b.exponent + shift : 0};
}

void multiply_long_rows(const float* x, std::int64_t rows, std::int64_t n, float* y, int threads) {
  const auto products = joined_runs(
      rows, n, threads,
      [&](std::int64_t r, std::int64_t first, std::int64_t count) {
        constexpr std::int64_t kWithin = 6;  // so many floats' product is a double, whatever they are
        const float* const from = x + r * n + first;
        Scaled product{1.0, 0};
        for (std::int64_t i = 0; i < count; i += kWithin) {
          double some = 1.0;
          for (std::int64_t j = i; j < std::min(i + kWithin, count); ++j) some *= static_cast<double>(from[j]);
          product = times(product, {some, 0});
        }
        return product;
      },
      times);
  for (std::int64_t r = 0; r < rows; ++r) {
    const Scaled& product = products[static_cast<std::size_t>(r)];
    const auto exponent = static_cast<int>(std::clamp<std::int64_t>(product.exponent, -2000, 2000));
    y[r] = static_cast<float>(std::ldexp(product.mantissa, exponent));
  }
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
      is_extreme(kind) ? greater : plus);
  for (std::int64_t r = 0; r < rows; ++r) y[r] = finished(kind, totals[static_cast<std::size_t>(r)], n);
}

// Down the columns of each [n, inner], so many columns at a time, and of long ones so many rows: the parts are then joined
// in order.
void reduce_columns(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t outer, std::int64_t n,
                    std::int64_t inner, float* y, int threads) {
  constexpr std::int64_t kColumns = 256, kElements = 1 << 19;
  const std::int64_t blocks = (inner + kColumns - 1) / kColumns;
  const std::int64_t own = kElements / std::clamp<std::int64_t>(inner, 1, kColumns);
  const std::int64_t runs = std::max<std::int64_t>(1, (n + own - 1) / own);
  const auto finish = [&](const double* totals, std::int64_t columns, float* to) {
    if (kind == ReduceKind::l2 || kind == ReduceKind::log_sum || is_extreme(kind)) {
      for (std::int64_t c = 0; c < columns; ++c) to[c] = finished(kind, totals[c], n);
    } else {
      const double count = kind == ReduceKind::mean ? static_cast<double>(n) : 1.0;
      for (std::int64_t c = 0; c < columns; ++c) to[c] = static_cast<float>(totals[c] / count);
    }
  };
  std::vector<double> parts(runs == 1 ? 0 : static_cast<std::size_t>(outer * runs * inner));
  for_pieces(threads_for(outer * n * inner, threads), outer * runs * blocks, [&](std::int64_t begin, std::int64_t end, int) {
    double totals[kColumns];
    float most[kColumns];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t first = i % blocks * kColumns, columns = std::min(kColumns, inner - first);
      const std::int64_t image = i / blocks / runs, row = i / blocks % runs * own, rows = std::min(own, n - row);
      const float* const from = x + (image * n + row) * inner + first;
      if (is_extreme(kind)) {
        table.greatest_columns_f32(from, inner, rows, columns, sign_of(kind), most);
        std::copy_n(most, columns, totals);
      } else {
        table.sum_columns_f32(sum_kind(kind), from, inner, rows, columns, totals);
      }
      if (runs == 1) finish(totals, columns, y + image * inner + first);
      else std::copy_n(totals, columns, parts.data() + i / blocks * inner + first);
    }
  });
  for (std::int64_t image = 0; image < outer && runs > 1; ++image) {
    double* const totals = parts.data() + image * runs * inner;
    for (std::int64_t i = inner; i < runs * inner; ++i) {
      double& total = totals[i % inner];
      total = is_extreme(kind) ? greater(total, totals[i]) : total + totals[i];
    }
    finish(totals, inner, y + image * inner);
  }
}

}  // namespace

void reduce(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t outer, std::int64_t n, std::int64_t inner,
            float* y, int threads) {
  if (kind == ReduceKind::prod && n > kRun) {
    multiply_long_rows(x, outer, n, y, threads);
  } else if (kind == ReduceKind::log_sum_exp && n > kRun) {
    const auto results = log_sum_exp_of_long_rows(table, x, outer, n, threads);
    std::transform(results.begin(), results.end(), y, [](double value) { return static_cast<float>(value); });
  } else if (kind == ReduceKind::prod || kind == ReduceKind::log_sum_exp) {
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

namespace {

// y = x less a logarithm, which of a row with an infinity is NaN, as its softmax is.
void subtract(const float* x, std::int64_t n, double logarithm, float* y) {
  if (std::isinf(logarithm)) logarithm = std::numeric_limits<double>::quiet_NaN();
  for (std::int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(static_cast<double>(x[i]) - logarithm);
}

void softmax_of_long_rows(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, float* y, int threads) {
  const auto greatest = greatest_of_long_rows(table, x, rows, n, threads);
  const auto totals = joined_runs(
      rows, n, threads,
      [&](std::int64_t r, std::int64_t first, std::int64_t count) {
        const float* const from = x + r * n + first;
        float* const to = y + r * n + first;
        const auto most = static_cast<float>(greatest[static_cast<std::size_t>(r)]);
        for (std::int64_t i = 0; i < count; ++i) to[i] = from[i] - most;
        table.unary_f32(UnaryKind::exp, to, to, count, 0.0f, 0.0f);
        return table.sum_f32(SumKind::plain, to, count, 0.0);
      },
      plus);
  for_runs(rows, n, threads, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
    const auto factor = static_cast<float>(1.0 / totals[static_cast<std::size_t>(r)]);
    float* const to = y + r * n + first;
    for (std::int64_t i = 0; i < count; ++i) to[i] *= factor;
  });
}

}  // namespace

void softmax(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, bool logarithm, float* y,
             int threads) {
  if (n > kRun && !logarithm) return softmax_of_long_rows(table, x, rows, n, y, threads);
  if (n > kRun) {
    const auto totals = log_sum_exp_of_long_rows(table, x, rows, n, threads);
    return for_runs(rows, n, threads, [&](std::int64_t r, std::int64_t first, std::int64_t count) {
      subtract(x + r * n + first, count, totals[static_cast<std::size_t>(r)], y + r * n + first);
    });
  }
  for_rows(rows, n, threads, [&](std::int64_t r) {
    const float* const from = x + r * n;
    float* const to = y + r * n;
    if (!logarithm) return table.softmax_f32(from, to, n, 1.0f);
    subtract(from, n, log_sum_exp(table, from, n), to);
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
    const std::int64_t together = std::clamp<std::int64_t>(kSerial / 4 / n, 1, kMost);
    const std::int64_t blocks = (rows + together - 1) / together;
    const auto count = static_cast<double>(n);
    for_rows(blocks, together * n, threads, [&](std::int64_t block) {
      const std::int64_t first = block * together, some = std::min(together, rows - first);
      const float* const from = x + first * n;
      double middles[kMost] = {}, stretches[kMost];
      for (std::int64_t r = 0; r < some && center; ++r) {
        middles[r] = table.sum_f32(SumKind::plain, from + r * n, n, 0.0) / count;
      }
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
