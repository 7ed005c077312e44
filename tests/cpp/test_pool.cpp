// The poolings of every ISA against the oracles.
#include "pool_problem.h"

namespace sepconv::test {
namespace {

class Pool : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  const int lanes = table.vector;
  Random random{3};

  // Calls check(problem, flush) over sizes, strides and paddings, also windows that lie wholly in the padding.
  template <class Check>
  void for_each_problem(Check check) {
    for (const int kh : {1, 2, 3, 7})
      for (const int kw : {1, 2, 3, 5})
        for (const int stride : {1, 2, 3})
          for (const int left : {0, kw / 2, kw - 1, kw + 1})
            for (const int in_w : {1, 5, 12})
              for (const Flush flush : kBothEnds) {
                const Window window{kh, kw, stride, stride, 1, 1, {kh / 2, kh - 1, left, kw - 1}};
                check(PoolProblem(6, in_w, lanes, window, random, Values::real), flush);
                ASSERT_FALSE(HasFailure());
              }
  }
};

using MaxPool = Pool;
using AveragePool = Pool;
using GlobalAverage = Pool;

TEST_P(MaxPool, EqualsTheOracle) {
  ASSERT_NE(table.max_pool_f32, nullptr);
  for_each_problem([&](const PoolProblem& p, Flush flush) { p.check_max(p.run(table.max_pool_f32, flush)); });
}

TEST_P(AveragePool, IsCloseToTheOracle) {
  ASSERT_NE(table.average_pool_f32, nullptr);
  for_each_problem([&](const PoolProblem& p, Flush flush) {
    for (const bool include_padding : {false, true})
      p.check_average(p.run(table.average_pool_f32, flush, include_padding), include_padding);
  });
}

TEST_P(AveragePool, IsExactOnSmallIntegers) {
  const Window window{2, 2, 2, 2, 1, 1, {}};
  const PoolProblem p(4, 6, lanes, window, random, Values::integer);
  const ref::Tensor expected = ref::average_pool(p.image(), window);
  const std::vector<float> actual = p.run(table.average_pool_f32, Flush::tail);
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_EQ(double{actual[i]}, expected.data[i]);
}

TEST_P(GlobalAverage, IsCloseToTheOracle) {
  ASSERT_NE(table.global_average_f32, nullptr);
  for (const int n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 49, 50, 63, 196, 1000, 50176})
    for (const Flush flush : kBothEnds) {
      Window window;
      window.kh = n;
      const PoolProblem p(n, 1, lanes, window, random, n == 16 ? Values::integer : Values::real);
      GuardedBuffer<float> in(p.x, flush), out = unwritten(lanes, flush);
      table.global_average_f32(in.data(), n, out.data());
      ASSERT_NO_FATAL_FAILURE(p.check_average({out.values().begin(), out.values().end()}, false));
      ASSERT_TRUE(out.slack_intact());
    }
}

TEST_P(GlobalAverage, KeepsSpecialValuesInTheirLane) {
  for (const float special : {kNaN, kInf, -kInf, kDenormal})
    for (int n = 1; n <= 9; ++n)
      for (int at = 0; at < n; ++at)
        for (int lane = 0; lane < lanes; ++lane) {
          Window window;
          window.kh = n;
          PoolProblem p(n, 1, lanes, window, random, Values::real);
          p.pixel(at, 0, lane) = special;
          GuardedBuffer<float> in(p.x, Flush::tail), out = unwritten(lanes, Flush::tail);
          table.global_average_f32(in.data(), n, out.data());
          ASSERT_NO_FATAL_FAILURE(p.check_average({out.values().begin(), out.values().end()}, false));
        }
}

TEST_P(GlobalAverage, OfALargeImageKeepsItsDigits) {
  constexpr int kVectors = 1 << 20;
  const std::vector<float> in(std::size_t{kVectors} * lanes, 0.1f);
  std::vector<float> out(lanes);
  table.global_average_f32(in.data(), kVectors, out.data());
  for (const float mean : out) ASSERT_NEAR(mean, 0.1f, 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Kernels, MaxPool, ::testing::ValuesIn(on_each_isa({"max_pool_f32"})), test_name);
INSTANTIATE_TEST_SUITE_P(Kernels, AveragePool, ::testing::ValuesIn(on_each_isa({"average_pool_f32"})), test_name);
INSTANTIATE_TEST_SUITE_P(Kernels, GlobalAverage, ::testing::ValuesIn(on_each_isa({"global_average_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
