// Sums, maxima and normalisation along rows and down columns, of every ISA, against plain loops of doubles between guard
// pages; and the operators on them: the same bits at any number of threads.
#include <algorithm>

#include "kernel_testing.h"
#include "nd/operators.h"

namespace sepconv::test {
namespace {

constexpr SumKind kSums[] = {SumKind::plain, SumKind::absolute, SumKind::squares};

double term(SumKind kind, double x, double shift) {
  return kind == SumKind::plain ? x : kind == SumKind::absolute ? std::fabs(x) : (x - shift) * (x - shift);
}

class Rows : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{41};

  std::vector<float> real(std::size_t n, float offset = 0.0f) {
    std::vector<float> x = draw(random, n, Values::real);
    for (float& value : x) value = value * 9.0f + offset;
    return x;
  }
};

TEST_P(Rows, SumsAreThoseOfDoublesForEveryLength) {
  for (int n = 0; n < 80; ++n)
    for (const Flush flush : kBothEnds)
      for (const SumKind kind : kSums) {
        const double shift = kind == SumKind::squares ? 0.7 : 0.0;
        const std::vector<float> x = real(static_cast<std::size_t>(n), 100.0f);
        GuardedBuffer<float> in(x, flush);
        double want = 0.0, magnitude = 0.0;
        for (const float value : x) {
          want += term(kind, double{value}, shift);
          magnitude += std::fabs(term(kind, double{value}, shift));
        }
        ASSERT_NEAR(table.sum_f32(kind, in.data(), n, shift), want, 1e-14 * magnitude) << n;
      }
}

TEST_P(Rows, MaximaOfEveryLengthKeepNaN) {
  EXPECT_EQ(table.greatest_f32(nullptr, 0, 1.0f), -kInf);
  for (int n = 1; n < 70; ++n)
    for (const Flush flush : kBothEnds)
      for (const float factor : {1.0f, -1.0f, 0.5f}) {
        std::vector<float> x = real(static_cast<std::size_t>(n));
        float want = -kInf;
        for (const float value : x) want = std::max(want, factor * value);
        ASSERT_EQ(table.greatest_f32(GuardedBuffer<float>(x, flush).data(), n, factor), want);
        x[static_cast<std::size_t>(random.below(n))] = kNaN;
        ASSERT_TRUE(std::isnan(table.greatest_f32(GuardedBuffer<float>(x, flush).data(), n, factor))) << n;
      }
}

TEST_P(Rows, ColumnsAreReducedAsRowsAre) {
  for (const int n : {0, 1, 2, 9})
    for (int columns = 1; columns < 5 * table.vector + 3; ++columns)
      for (const int gap : {0, 3}) {
        const Flush flush = columns % 2 ? Flush::head : Flush::tail;
        const std::ptrdiff_t step = columns + gap;
        std::vector<float> x = real(n ? static_cast<std::size_t>((n - 1) * step + columns) : 0);
        const int bad = n > 1 ? random.below(columns) : -1;  // of a column with a NaN
        if (bad >= 0) x[static_cast<std::size_t>(step + bad)] = kNaN;
        GuardedBuffer<float> in(x, flush), most(static_cast<std::size_t>(columns), flush);
        GuardedBuffer<double> sums(static_cast<std::size_t>(columns), flush);
        for (const SumKind kind : kSums) {
          table.sum_columns_f32(kind, in.data(), step, n, columns, sums.data());
          for (int c = 0; c < columns; ++c) {
            double want = 0.0;
            for (int r = 0; r < n; ++r) want += term(kind, double{x[static_cast<std::size_t>(r * step + c)]}, 0.0);
            if (c == bad) ASSERT_TRUE(std::isnan(sums.values()[c]));
            else ASSERT_DOUBLE_EQ(sums.values()[c], want) << "column " << c << " of " << columns;
          }
        }
        table.greatest_columns_f32(in.data(), step, n, columns, -1.0f, most.data());
        for (int c = 0; c < columns; ++c) {
          float want = -kInf;
          for (int r = 0; r < n; ++r) want = std::max(want, -x[static_cast<std::size_t>(r * step + c)]);
          if (c == bad) ASSERT_TRUE(std::isnan(most.values()[c]));
          else ASSERT_EQ(most.values()[c], want);
        }
        ASSERT_TRUE(sums.slack_intact() && most.slack_intact());
      }
}

TEST_P(Rows, NormalisedValuesAreRoundedOnceThenScaled) {
  for (int n = 1; n < 40; ++n)
    for (const Flush flush : kBothEnds)
      for (const int step : {0, 1})
        for (const bool with_bias : {false, true}) {
          const auto factors = static_cast<std::size_t>(step ? n : 1);
          const std::vector<float> x = real(static_cast<std::size_t>(n), 1e6f), scale = real(factors), bias = real(factors);
          GuardedBuffer<float> in(x, flush), s(scale, flush), b(bias, flush), out = unwritten(x.size(), flush);
          table.normalize_f32(in.data(), n, 1e6 - 0.3, 0.37, s.data(), with_bias ? b.data() : nullptr, step, out.data());
          ASSERT_TRUE(out.slack_intact());
          for (int i = 0; i < n; ++i) {
            const double by = double{scale[static_cast<std::size_t>(i * step)]};
            const double plus = with_bias ? double{bias[static_cast<std::size_t>(i * step)]} : 0.0;
            const double product = (double{x[static_cast<std::size_t>(i)]} - (1e6 - 0.3)) * 0.37 * by;
            ASSERT_NEAR(out.values()[i], product + plus, 3 * kEpsilon * (std::fabs(product) + std::fabs(product + plus)));
          }
        }
}

// Row lengths below, at and above what one run holds.
TEST_P(Rows, OperatorsGiveTheSameBitsAtAnyNumberOfThreads) {
  for (const std::int64_t n : {std::int64_t{700}, nd::kSerial, 3 * nd::kSerial + 77}) {
    const std::int64_t rows = 3 * nd::kSerial / n + 3;
    const std::vector<float> x = real(static_cast<std::size_t>(rows * n), 5.0f), scale = real(5), bias = real(5);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 5}) {
      std::vector<float> y(x.size()), mean(static_cast<std::size_t>(rows)), inverse(mean.size());
      nd::normalize(table, x.data(), rows, n, 1e-5, true, {scale.data(), bias.data(), 5, 3}, y.data(), mean.data(),
                    inverse.data(), threads);
      y.insert(y.end(), mean.begin(), mean.end());
      y.insert(y.end(), inverse.begin(), inverse.end());
      for (const nd::ReduceKind kind : {nd::ReduceKind::mean, nd::ReduceKind::min, nd::ReduceKind::l2}) {
        nd::reduce(kind, table, x.data(), rows, n, 1, mean.data(), threads);
        y.insert(y.end(), mean.begin(), mean.end());
        std::vector<float> columns(static_cast<std::size_t>(n));
        nd::reduce(kind, table, x.data(), 1, rows, n, columns.data(), threads);
        y.insert(y.end(), columns.begin(), columns.end());
      }
      results.push_back(y);
    }
    for (const auto& result : results)
      for (std::size_t i = 0; i < result.size(); ++i) ASSERT_PRED2(same_bits, result[i], results[0][i]);
    double mean = 0.0, squares = 0.0;
    for (std::int64_t i = 0; i < n; ++i) mean += double{x[static_cast<std::size_t>(i)]} / static_cast<double>(n);
    for (std::int64_t i = 0; i < n; ++i) squares += std::pow(double{x[static_cast<std::size_t>(i)]} - mean, 2.0);
    for (std::int64_t i = 0; i < n; ++i) {
      const double normal = (double{x[static_cast<std::size_t>(i)]} - mean) / std::sqrt(squares / static_cast<double>(n) + 1e-5);
      const auto place = static_cast<std::size_t>(i / 3 % 5);
      ASSERT_NEAR(results[0][static_cast<std::size_t>(i)], normal * double{scale[place]} + double{bias[place]}, 1e-5);
    }
  }
}

// Rows and columns of several runs: as plain loops of doubles give, and the same bits at any number of threads.
TEST_P(Rows, LongOnesAreTakenInRuns) {
  constexpr std::int64_t n = 3 * nd::kSerial + 77, inner = 5, tall = (1 << 18) + 9;
  for (const int special : {0, 1, 2}) {
    std::vector<float> x = real(static_cast<std::size_t>(2 * n));
    std::vector<float> factors(x.size(), 2.0f);  // of a product whose parts a double does not hold
    for (std::size_t i = 0; i < factors.size(); i += 2) factors[i] = 0.5f;
    std::fill_n(factors.begin(), n / 2, 2.0f);
    std::fill_n(factors.begin() + n / 2, n / 2, 0.5f);
    if (special == 1) x[nd::kSerial + 5] = kInf;
    if (special == 1) factors[n - 1] = 0.0f;
    if (special == 2) x[nd::kSerial + 5] = kNaN;
    std::vector<float> matrix = real(static_cast<std::size_t>(tall * inner));
    std::vector<float> first;
    for (const int threads : {1, 2, 5}) {
      std::vector<float> y(x.size()), log(x.size()), sums(2), products(2), most(inner), means(inner);
      nd::softmax(table, x.data(), 2, n, false, y.data(), threads);
      nd::softmax(table, x.data(), 2, n, true, log.data(), threads);
      GuardedBuffer<float> guarded(2, Flush::tail);
      nd::reduce(nd::ReduceKind::prod, table, factors.data(), 2, n, 1, guarded.data(), threads);
      std::copy_n(guarded.data(), 2, products.begin());
      nd::reduce(nd::ReduceKind::log_sum_exp, table, x.data(), 2, n, 1, guarded.data(), threads);
      std::copy_n(guarded.data(), 2, sums.begin());
      nd::reduce(nd::ReduceKind::min, table, matrix.data(), 1, tall, inner, most.data(), threads);
      nd::reduce(nd::ReduceKind::mean, table, matrix.data(), 1, tall, inner, means.data(), threads);
      for (std::int64_t r = special ? 1 : 0; r < 2; ++r) {
        double total = 0.0;
        for (std::int64_t i = 0; i < n; ++i) total += std::exp(double{x[static_cast<std::size_t>(r * n + i)]});
        ASSERT_NEAR(sums[static_cast<std::size_t>(r)], std::log(total), 1e-5);
        for (std::int64_t i = r * n; i < (r + 1) * n; ++i) {
          const double value = double{x[static_cast<std::size_t>(i)]};
          ASSERT_NEAR(y[static_cast<std::size_t>(i)], std::exp(value) / total, 4e-6 * std::exp(value) / total);
          ASSERT_NEAR(log[static_cast<std::size_t>(i)], value - std::log(total), 2e-6 * std::fabs(value - std::log(total)));
        }
      }
      for (std::int64_t i = 0; i < n && special; ++i) {
        ASSERT_TRUE(std::isnan(y[static_cast<std::size_t>(i)]) && std::isnan(log[static_cast<std::size_t>(i)]));
      }
      ASSERT_TRUE(special != 1 || sums[0] == kInf);
      ASSERT_TRUE(special != 2 || std::isnan(sums[0]));
      ASSERT_EQ(products[0], special == 1 ? 0.0f : factors[n - 1]);
      ASSERT_EQ(products[1], n % 2 ? factors[n] : 1.0f);
      for (std::int64_t c = 0; c < inner; ++c) {
        double sum = 0.0;
        float least = kInf;
        for (std::int64_t r = 0; r < tall; ++r) {
          const float value = matrix[static_cast<std::size_t>(r * inner + c)];
          sum += double{value};
          least = std::min(least, value);
        }
        ASSERT_EQ(most[static_cast<std::size_t>(c)], least);
        ASSERT_NEAR(means[static_cast<std::size_t>(c)], sum / tall, 1e-5);
      }
      for (const auto* part : {&log, &sums, &products, &most, &means}) y.insert(y.end(), part->begin(), part->end());
      if (first.empty()) first = y;
      for (std::size_t i = 0; i < y.size(); ++i) ASSERT_PRED2(same_bits, y[i], first[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Rows, ::testing::ValuesIn(on_each_isa({"rows"})), test_name);

}  // namespace
}  // namespace sepconv::test
