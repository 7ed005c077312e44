// The loops that measure the machine: that they do what they count, and read what they say.
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "kernel_testing.h"
#include "ops/peaks.h"

namespace sepconv::test {
namespace {

class Peaks : public ::testing::TestWithParam<KernelId> {};
INSTANTIATE_TEST_SUITE_P(Kernels, Peaks, ::testing::ValuesIn(on_each_isa({"peaks_f32"})), test_name);

// acc/2 + 1 goes to 2 in each chain: twelve, or sixteen where there are 32 registers.
TEST_P(Peaks, MultiplyAddsConverge) {
  const float sum = GetParam().table().fma_peak_f32(100, 0.5f, 1.0f);
  EXPECT_TRUE(sum == 24.0f || sum == 32.0f) << sum;
}

TEST_P(Peaks, ReadsAllAndNoMore) {
  const KernelTable& table = GetParam().table();
  const std::size_t unit = 8 * static_cast<std::size_t>(table.vector);
  for (const Flush flush : kBothEnds) {
    GuardedBuffer<float> ones(std::vector<float>(5 * unit, 1.0f), flush);
    EXPECT_EQ(table.read_peak_f32(ones.data(), static_cast<std::int64_t>(ones.size())), 40.0f);
  }
}

TEST_P(Peaks, GivesARateABurst) {
  const KernelTable& table = GetParam().table();
  for (const double rate : measure_fma(table, 2, 0.001)) EXPECT_GT(rate, 0);
  for (const double rate : measure_read(table, 1 << 12, 2, 0.001)) EXPECT_GT(rate, 0);
  EXPECT_EQ(measure_fma(table, 1, 0.0).size(), 1u);
}

TEST(PeaksArguments, AreChecked) {
  const KernelTable& table = kernels("scalar");
  EXPECT_THROW(measure_fma(table, 0, 0.0), std::invalid_argument);
  EXPECT_THROW(measure_fma(table, 1, -1.0), std::invalid_argument);
  EXPECT_THROW(measure_read(table, 8, 1, 0.0), std::invalid_argument);
}

}  // namespace
}  // namespace sepconv::test
