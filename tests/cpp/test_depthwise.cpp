// Every depthwise kernel of every ISA against the oracle, at all odd sizes and paddings.
#include <algorithm>

#include "depthwise_problem.h"

namespace sepconv::test {
namespace {

class Depthwise : public ::testing::TestWithParam<KernelId> {
 protected:
  const DepthwiseKernel kernel = depthwise_kernel(GetParam());
  const int lanes = GetParam().table().vector;
  Random random{2};

  Clamp any_clamp() { return std::array{Clamp{}, Clamp{0.0f, 6.0f}, Clamp{-0.5f, 0.75f}}[random.below(3)]; }
};

class FastDepthwise : public Depthwise {
 protected:
  const int size = named_size(GetParam());
  const int stride = named_stride(GetParam());

  // A window of the kernel's size that gives out_h×out_w, with `unused` columns right of the last tap at stride 2.
  DepthwiseProblem problem(int out_h, int out_w, Padding padding, Values values, int unused = 0) {
    const Window window{size, size, stride, stride, 1, 1, padding};
    const int in_h = (out_h - 1) * stride + size - padding.top - padding.bottom;
    const int in_w = (out_w - 1) * stride + size - padding.left - padding.right + unused;
    return {in_h, in_w, lanes, window, random, values};
  }

  void check_all(Values values) {
    int turn = 0;
    for (int out_w = 1; out_w <= 17; ++out_w)
      for (int left = 0; left <= size / 2; ++left)
        for (int right = 0; right <= size / 2; ++right)
          for (int unused = 0; unused < stride; ++unused)
            for (const Flush flush : kBothEnds) {
              const int out_h = 1 + turn % 3, top = turn / 3 % (size / 2 + 1), bottom = turn / 2 % (size / 2 + 1);
              DepthwiseProblem p = problem(out_h, out_w, {top, bottom, left, right}, values, unused);
              p.clamp = any_clamp();
              const int row_step = random.below(2) ? stride : size;
              p.check(p.run(kernel, flush, row_step, out_h, turn % 5 ? 0 : 3), values);
              ASSERT_FALSE(HasFailure());
              ++turn;
            }
  }
};

TEST_P(FastDepthwise, AppliesHardSwishAsTheActivationDoes) {
  for (int out_w = 1; out_w <= 15; ++out_w) {
    DepthwiseProblem p = problem(2, out_w, {1, 0, 1, 1}, Values::real);
    for (int lane = 0; lane < lanes; ++lane) p.weights[lane] *= 4.0f;
    for (const DepthwiseKernel each : {kernel, GetParam().table().depthwise_any_f32}) {
      p.hard_swish = false;
      std::vector<float> expected = p.run(each, Flush::tail, size, 2);
      const auto count = static_cast<std::int64_t>(expected.size());
      GetParam().table().activate_f32(Activation::hard_swish, expected.data(), expected.data(), count);
      p.hard_swish = true;
      const std::vector<float> actual = p.run(each, Flush::tail, size, 2);
      for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_TRUE(same_bits(expected[i], actual[i])) << "element " << i;
    }
  }
}

TEST_P(FastDepthwise, IsCloseToTheOracle) { check_all(Values::real); }

TEST_P(FastDepthwise, IsExactOnSmallIntegers) { check_all(Values::integer); }

TEST_P(FastDepthwise, HandlesOneInputPixel) {
  const int half = size / 2;
  const Window window{size, size, stride, stride, 1, 1, {half, half, half, half}};
  const DepthwiseProblem p(1, 1, lanes, window, random, Values::real);
  for (const Flush flush : kBothEnds) p.check(p.run(kernel, flush, stride, 1));
}

// Results may not depend on how an image was cut into strips or rows, so that they are the same for any plan.
TEST_P(FastDepthwise, GivesTheSameBitsHoweverRowsAndColumnsAreCut) {
  const int half = size / 2;
  const DepthwiseProblem whole = problem(3, 17, {half, half, half, half}, Values::real);
  const std::vector<float> all = whole.run(kernel, Flush::tail, stride, 3);
  const std::vector<float> by_row = whole.run(kernel, Flush::tail, stride, 1);
  ASSERT_TRUE(std::ranges::equal(all, by_row, same_bits));

  for (int x0 = half; x0 < 17; ++x0) {  // the columns from x0 on, whose taps all lie right of the padding
    DepthwiseProblem part = whole;
    const int first = x0 * stride - half;
    part.window.padding.left = 0;
    part.in_w = whole.in_w - first;
    part.x.clear();
    for (int y = 0; y < whole.in_h; ++y) {
      const auto row = whole.x.begin() + static_cast<std::ptrdiff_t>(y) * whole.in_w * lanes;
      part.x.insert(part.x.end(), row + first * lanes, row + whole.in_w * lanes);
    }
    const std::vector<float> cut = part.run(kernel, Flush::tail, stride, 3);
    const int width = (17 - x0) * lanes;
    ASSERT_EQ(cut.size(), 3u * width);
    for (int y = 0; y < 3; ++y)
      for (int i = 0; i < width; ++i)
        ASSERT_PRED2(same_bits, cut[y * width + i], all[(y * 17 + x0) * lanes + i]) << "columns from " << x0;
  }
}

TEST_P(FastDepthwise, GivesTheBitsOfDepthwiseAny) {
  const DepthwiseKernel any = GetParam().table().depthwise_any_f32;
  for (int out_w = 1; out_w <= 17; ++out_w) {
    const DepthwiseProblem p = problem(2, out_w, {1, 1, 1, 1}, Values::real);
    ASSERT_TRUE(std::ranges::equal(p.run(kernel, Flush::tail, stride, 2), p.run(any, Flush::tail, size, 1), same_bits));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, FastDepthwise, ::testing::ValuesIn(on_each_isa(kFastDepthwise)), test_name);

class AnyDepthwise : public Depthwise {
 protected:
  void check(int in_h, int in_w, const Window& window, Values values) {
    for (const Flush flush : kBothEnds) {
      DepthwiseProblem p(in_h, in_w, lanes, window, random, values);
      p.clamp = any_clamp();
      p.check(p.run(kernel, flush, window.kh, 1), values);
      ASSERT_FALSE(HasFailure());
    }
  }
};

TEST_P(AnyDepthwise, IsCloseToTheOracleForEverySize) {
  for (int kh = 1; kh <= 7; ++kh)
    for (int kw = 1; kw <= 7; ++kw)
      for (const int stride : {1, 2, 3})
        ASSERT_NO_FATAL_FAILURE(
            check(9, 11, {kh, kw, stride, stride, 1, 1, {kh / 2, 0, kw / 2, (kw - 1) / 2}}, Values::real));
}

TEST_P(AnyDepthwise, IsExactOnSmallIntegers) {
  for (const int dilation : {1, 2})
    for (const int stride : {1, 2, 3})
      for (const int kw : {1, 2, 3, 4})
        ASSERT_NO_FATAL_FAILURE(check(7, 10, {3, kw, stride, stride, 1, dilation, {1, 1, 2, 0}}, Values::integer));
}

TEST_P(AnyDepthwise, HandlesDilationAndDifferentStrides) {
  for (const int dilation_h : {1, 2, 4})
    for (const int dilation_w : {1, 2, 3, 5})
      for (const int stride_w : {1, 3})
        for (const int left : {0, 1, 6})
          ASSERT_NO_FATAL_FAILURE(
              check(9, 16, {3, 3, 2, stride_w, dilation_h, dilation_w, {2, 3, left, 4}}, Values::real));
}

TEST_P(AnyDepthwise, HandlesPaddingWiderThanTheKernelAndTheImage) {
  for (const int side : {3, 8, 20})
    for (const int in_w : {1, 2, 5})
      ASSERT_NO_FATAL_FAILURE(check(2, in_w, {2, 3, 1, 1, 1, 1, {side, 0, side, side + 1}}, Values::real));
}

INSTANTIATE_TEST_SUITE_P(Kernels, AnyDepthwise, ::testing::ValuesIn(on_each_isa({"depthwise_any_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
