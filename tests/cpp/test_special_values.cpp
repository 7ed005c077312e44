// NaN, infinities, -0 and denormals in each lane, pixel and tap of the window kernels, and what the tables promise.
// (GEMM's and the elementwise kernels' special values stand with their other tests.)
#include <set>

#include "depthwise_problem.h"
#include "pool_problem.h"

namespace sepconv::test {
namespace {

constexpr float kSpecial[] = {kNaN, -kNaN, kInf, -kInf, -0.0f, 0.0f, kDenormal, -kDenormal, 3e38f};
constexpr Clamp kClamps[] = {{}, {0.0f, 6.0f}, {0.0f, kInf}};

class DepthwiseSpecial : public ::testing::TestWithParam<KernelId> {
 protected:
  const DepthwiseKernel kernel = depthwise_kernel(GetParam());
  const int lanes = GetParam().table().vector;
  Random random{7};

  // Padding on every side, more columns than one tile has, and for `any` what the fast ones do not do.
  Window window() const {
    if (GetParam().kernel == "depthwise_any_f32") return {3, 2, 1, 2, 1, 2, {1, 1, 2, 1}};
    const int size = named_size(GetParam()), stride = named_stride(GetParam()), half = size / 2;
    return {size, size, stride, stride, 1, 1, {half, half, half, half}};
  }

  template <class Place>
  void check(Clamp clamp, Place place) {
    const Window w = window();
    DepthwiseProblem problem(3, 9 * w.stride_w, lanes, w, random, Values::real);
    problem.clamp = clamp;
    place(problem);
    problem.check(problem.run(kernel, Flush::tail, w.stride_h, 1));
  }
};

TEST_P(DepthwiseSpecial, PixelReachesItsOutputsAndNoOther) {
  const int in_w = 9 * window().stride_w;
  for (const float special : kSpecial)
    for (const Clamp clamp : kClamps)
      for (int column = 0; column < in_w; ++column)
        ASSERT_NO_FATAL_FAILURE(
            check(clamp, [&](DepthwiseProblem& p) { p.pixel(column % 3, column, column % lanes) = special; }));
}

TEST_P(DepthwiseSpecial, EveryLaneOfInputWeightAndBias) {
  const Window w = window();
  for (const float special : kSpecial)
    for (int lane = 0; lane < lanes; ++lane) {
      const Clamp clamp = kClamps[lane % 3];
      ASSERT_NO_FATAL_FAILURE(check(clamp, [&](DepthwiseProblem& p) { p.pixel(1, 4, lane) = special; }));
      ASSERT_NO_FATAL_FAILURE(check(clamp, [&](DepthwiseProblem& p) { p.weights[lane] = special; }));
      ASSERT_NO_FATAL_FAILURE(
          check(clamp, [&](DepthwiseProblem& p) { p.weight(lane % w.kh, lane % w.kw, lane) = special; }));
    }
}

// Padding takes part in the sum, so a tap that is NaN or infinite makes NaN of every output over padding too.
TEST_P(DepthwiseSpecial, TapOverPaddingIsMultipliedByZero) {
  const Window w = window();
  for (const float special : {kNaN, kInf})
    for (int r = 0; r < w.kh; ++r)
      for (int s = 0; s < w.kw; ++s)
        ASSERT_NO_FATAL_FAILURE(check({0.0f, 6.0f}, [&](DepthwiseProblem& p) { p.weight(r, s, 1) = special; }));
}

TEST_P(DepthwiseSpecial, KeepsNegativeZeroAndDenormalsExactly) {
  for (const float value : {-0.0f, kDenormal, -kDenormal}) {
    DepthwiseProblem p(3, 9, lanes, window(), random, Values::real);
    std::fill(p.x.begin(), p.x.end(), 0.0f);
    std::fill(p.weights.begin(), p.weights.end(), -1.0f);  // 0·-1 = -0, and -0 + -0 = -0
    std::fill_n(p.weights.begin(), lanes, value);
    for (const float out : p.run(kernel, Flush::tail, window().stride_h, 1)) ASSERT_PRED2(same_bits, out, value);
  }
}

std::vector<std::string> all_depthwise() {
  std::vector<std::string> names = kFastDepthwise;
  names.push_back("depthwise_any_f32");
  return names;
}

INSTANTIATE_TEST_SUITE_P(Kernels, DepthwiseSpecial, ::testing::ValuesIn(on_each_isa(all_depthwise())), test_name);

class PoolSpecial : public ::testing::TestWithParam<KernelId> {};

TEST_P(PoolSpecial, EveryPixelAndLane) {
  const KernelTable& table = GetParam().table();
  const int lanes = table.vector, in_w = 7;
  Random random{8};
  const Window window{3, 3, 2, 2, 1, 1, {1, 1, 1, 1}};
  for (const float special : kSpecial)
    for (int lane = 0; lane < lanes; ++lane)
      for (int column = 0; column < in_w; ++column) {
        PoolProblem p(3, in_w, lanes, window, random, Values::real);
        p.pixel((lane + column) % 3, column, lane) = special;
        ASSERT_NO_FATAL_FAILURE(p.check_max(p.run(table.max_pool_f32, Flush::tail)));
        for (const bool include_padding : {false, true})
          ASSERT_NO_FATAL_FAILURE(
              p.check_average(p.run(table.average_pool_f32, Flush::tail, include_padding), include_padding));
      }
}

// A NaN anywhere under the window, first or last, wins over every number; and -inf is a maximum like any other.
TEST_P(PoolSpecial, MaximumOfNaNIsNaN) {
  const KernelTable& table = GetParam().table();
  Random random{9};
  Window window;
  window.kh = window.kw = 3;
  for (int at = 0; at < 9; ++at) {
    PoolProblem p(3, 3, table.vector, window, random, Values::real);
    for (int lane = 0; lane < table.vector; ++lane) p.pixel(at / 3, at % 3, lane) = lane % 2 ? kNaN : kInf;
    const std::vector<float> out = p.run(table.max_pool_f32, Flush::tail);
    for (int lane = 0; lane < table.vector; ++lane) ASSERT_EQ(std::isnan(out[lane]), lane % 2 == 1);
  }
  PoolProblem p(3, 3, table.vector, window, random, Values::real);
  std::fill(p.x.begin(), p.x.end(), -kInf);
  for (const float out : p.run(table.max_pool_f32, Flush::tail)) ASSERT_EQ(out, -kInf);
}

// Of two zeros the later one, on every ISA.
TEST_P(PoolSpecial, MaximumOfZerosIsTheLast) {
  const KernelTable& table = GetParam().table();
  Random random{10};
  Window window;
  window.kw = 2;
  for (const float first : {0.0f, -0.0f}) {
    PoolProblem p(1, 2, table.vector, window, random, Values::real);
    std::fill_n(p.x.begin(), table.vector, first);
    std::fill_n(p.x.begin() + table.vector, table.vector, -first);
    for (const float out : p.run(table.max_pool_f32, Flush::tail)) ASSERT_PRED2(same_bits, out, -first);
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, PoolSpecial, ::testing::ValuesIn(on_each_isa({"pool_f32"})), test_name);

class Table : public ::testing::TestWithParam<KernelId> {};

TEST_P(Table, HasEveryKernel) {
  const KernelTable& t = GetParam().table();
  EXPECT_EQ(t.isa, GetParam().isa);
  EXPECT_GE(t.vector, 1);
  ASSERT_TRUE(t.gemm_vectors >= 1 && t.gemm_vectors <= kMaxGemmVectors);
  std::set<GemmKernel> distinct;
  std::size_t expected = 0;
  for (int vectors = 0; vectors < t.gemm_vectors; ++vectors) {
    ASSERT_TRUE(t.gemm_rows[vectors] >= 1 && t.gemm_rows[vectors] <= kMaxGemmRows);
    expected += 3u * t.gemm_rows[vectors];
    for (int rows = 0; rows < t.gemm_rows[vectors]; ++rows)
      distinct.insert({t.gemm_f32[vectors][rows], t.gemm_strided_f32[vectors][rows], t.gemm_image_f32[vectors][rows]});
  }
  EXPECT_EQ(distinct.count(nullptr), 0u);
  EXPECT_EQ(distinct.size(), expected);
  for (const DepthwiseKernel kernel : {t.depthwise_3x3_s1_f32, t.depthwise_3x3_s2_f32, t.depthwise_5x5_s1_f32,
                                       t.depthwise_5x5_s2_f32, t.depthwise_any_f32})
    EXPECT_NE(kernel, nullptr);
  EXPECT_TRUE(t.average_pool_f32 && t.max_pool_f32 && t.global_average_f32);
  EXPECT_TRUE(t.add_f32 && t.activate_f32 && t.softmax_f32);
}

// ReLU leaves -0 as it is, in every kernel that takes what others computed.
TEST_P(Table, ClampsKeepNegativeZero) {
  const KernelTable& t = GetParam().table();
  const int v = t.vector;
  const std::vector<float> zeros(2 * v + 1, -0.0f), ones(2 * v + 1, 1.0f);
  const std::int64_t n = 2 * v + 1;
  std::vector<std::vector<float>> results(6, std::vector<float>(n, -0.0f));
  t.add_f32(zeros.data(), zeros.data(), results[0].data(), n, 0.0f, 6.0f);
  t.mul_f32(zeros.data(), ones.data(), results[1].data(), n, 0.0f, 6.0f);
  t.scale_f32(zeros.data(), ones.data(), results[2].data(), 2, 0.0f, 6.0f);
  t.activate_f32(Activation::relu, zeros.data(), results[3].data(), n);
  t.activate_f32(Activation::relu6, zeros.data(), results[4].data(), n);
  t.unary_f32(UnaryKind::relu, zeros.data(), results[5].data(), n, 0.0f, 0.0f);
  for (const std::vector<float>& result : results)
    for (const float out : result) ASSERT_PRED2(same_bits, out, -0.0f);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Table, ::testing::ValuesIn(on_each_isa({"table"})), test_name);

}  // namespace
}  // namespace sepconv::test
