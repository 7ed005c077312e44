// The depthwise kernels over pixels of any distance, of every ISA: against the oracle, and the bits of the kernels over planes.
#include <algorithm>

#include "depthwise_problem.h"

namespace sepconv::test {
namespace {

DepthwisePixelsKernel pixels_kernel(const KernelId& id) {
  const KernelTable& t = id.table();
  if (id.kernel == "depthwise_pixels_3x3_s1_f32") return t.depthwise_pixels_3x3_s1_f32;
  if (id.kernel == "depthwise_pixels_3x3_s2_f32") return t.depthwise_pixels_3x3_s2_f32;
  if (id.kernel == "depthwise_pixels_5x5_s1_f32") return t.depthwise_pixels_5x5_s1_f32;
  if (id.kernel == "depthwise_pixels_5x5_s2_f32") return t.depthwise_pixels_5x5_s2_f32;
  if (id.kernel == "depthwise_pixels_7x7_s1_f32") return t.depthwise_pixels_7x7_s1_f32;
  if (id.kernel == "depthwise_pixels_7x7_s2_f32") return t.depthwise_pixels_7x7_s2_f32;
  return t.depthwise_pixels_any_f32;
}

class DepthwisePixelsTest : public ::testing::TestWithParam<KernelId> {
 protected:
  const DepthwisePixelsKernel kernel = pixels_kernel(GetParam());
  const bool any = GetParam().kernel == "depthwise_pixels_any_f32";
  const int lanes = GetParam().table().vector;
  Random random{3};

  // An image of `channels` with each input row in a guarded buffer of its own, pixels `in_gap` and `out_gap` floats further
  // apart than channels; `rows_a_call` output rows a call. -> [out_h][out_w][channels]. The problem's lanes are channels.
  // `second`: where the second block begins, the last then ending with the channels; 0: blocks that do not overlap.
  std::vector<float> run(const DepthwiseProblem& p, Flush flush, int in_gap, int out_gap, int rows_a_call, int second = 0) {
    const int channels = p.lanes, rest = second ? 0 : channels % lanes;
    std::vector<int> starts{0};
    for (int c = second ? second : lanes; starts.back() + lanes < channels; c += lanes) {
      starts.push_back(second ? std::min(c, channels - lanes) : c);
    }
    const int blocks = static_cast<int>(starts.size());
    const std::ptrdiff_t in_pixel = channels + in_gap, out_pixel = channels + out_gap;
    std::vector<GuardedBuffer<float>> image;
    for (int y = 0; y < p.in_h; ++y) {
      std::vector<float> row((p.in_w - 1) * in_pixel + channels, kNaN);
      for (int x = 0; x < p.in_w; ++x)
        for (int c = 0; c < channels; ++c) row[x * in_pixel + c] = p.x[(static_cast<std::size_t>(y) * p.in_w + x) * channels + c];
      image.emplace_back(row, flush);
    }
    std::vector<float> packed;
    for (const int start : starts)
      for (int tap = 0; tap <= p.window.kh * p.window.kw; ++tap)
        for (int l = 0; l < lanes; ++l) {
          const int c = start + l;
          packed.push_back(c < channels ? p.weights[static_cast<std::size_t>(tap) * channels + c] : kNaN);
        }
    GuardedBuffer<float> weights(packed, flush), zeros(std::vector<float>(blocks * lanes), flush);
    std::vector<float> result;
    for (int y0 = 0; y0 < p.out_h(); y0 += rows_a_call) {
      const int rows = std::min(rows_a_call, p.out_h() - y0);
      std::vector<const float*> pointers;
      std::vector<std::ptrdiff_t> steps;
      for (int i = 0; i < (rows - 1) * p.window.stride_h + p.window.kh; ++i) {
        const int y = y0 * p.window.stride_h - p.window.padding.top + i * p.window.dilation_h;
        const bool inside = y >= 0 && y < p.in_h;
        pointers.push_back(inside ? image[y].data() : zeros.data());
        steps.push_back(inside ? in_pixel : 0);
      }
      GuardedBuffer<const float*> guarded_pointers(pointers, flush);
      GuardedBuffer<std::ptrdiff_t> guarded_steps(steps, flush);
      const std::ptrdiff_t out_row = p.out_w() * out_pixel;
      GuardedBuffer<float> out = unwritten((rows - 1) * out_row + (p.out_w() - 1) * out_pixel + channels, flush);
      kernel({.rows = guarded_pointers.data(),
              .steps = guarded_steps.data(),
              .zeros = zeros.data(),
              .in_w = p.in_w,
              .out_w = p.out_w(),
              .out_rows = rows,
              .pad_left = p.window.padding.left,
              .blocks = blocks,
              .second = second ? second : lanes,
              .last = starts.back(),
              .last_lanes = rest,
              .w = weights.data(),
              .out = out.data(),
              .out_row = out_row,
              .out_pixel = out_pixel,
              .lo = p.clamp.lo,
              .hi = p.clamp.hi,
              .kh = p.window.kh,
              .kw = p.window.kw,
              .stride_w = p.window.stride_w,
              .dilation_w = p.window.dilation_w});
      for (std::size_t i = 0; i < out.size(); ++i) {
        const bool described = static_cast<std::ptrdiff_t>(i) % out_pixel < channels;
        EXPECT_EQ(is_unwritten(out.values()[i]), !described) << "element " << i << " of the output";
        if (described) result.push_back(out.values()[i]);
      }
      EXPECT_TRUE(out.slack_intact()) << "written before or after the output";
    }
    return result;
  }
};

TEST_P(DepthwisePixelsTest, IsCloseToTheOracleAtEveryWidthAndPadding) {
  const int size = any ? 3 : GetParam().kernel[17] - '0', stride = any ? 1 : GetParam().kernel[22] - '0';
  int turn = 0;
  for (int out_w = 1; out_w <= 16; ++out_w)
    for (int left = 0; left <= size / 2; ++left)
      for (int right = 0; right <= size / 2; ++right)
        for (const Flush flush : kBothEnds)
          for (const Values values : {Values::real, Values::integer}) {
            const int top = random.below(size / 2 + 1), bottom = random.below(size / 2 + 1), out_h = 1 + random.below(3);
            const Window window{size, size, stride, stride, 1, 1, {top, bottom, left, right}};
            const int channels = any ? 1 + turn % (2 * lanes + 1) : lanes * (1 + turn % 3);
            DepthwiseProblem p((out_h - 1) * stride + size - top - bottom, (out_w - 1) * stride + size - left - right, channels,
                               window, random, values);
            if (turn % 3) p.clamp = {-0.5f, 0.75f};
            ASSERT_NO_FATAL_FAILURE(p.check(run(p, flush, turn % 5, turn % 4, any ? 1 : 2), values));
            ++turn;
          }
}

TEST_P(DepthwisePixelsTest, GivesTheBitsOfThePlanes) {
  const int size = any ? 3 : GetParam().kernel[17] - '0', stride = any ? 2 : GetParam().kernel[22] - '0', half = size / 2;
  const Window window{size, size, stride, stride, 1, 1, {half, half, half, half}};
  for (const int in_w : {1, 4, 14, 15, 23}) {
    const DepthwiseProblem p(5, in_w, lanes, window, random, Values::real);
    const std::vector<float> planes = p.run(GetParam().table().depthwise_any_f32, Flush::tail, size, 1);
    for (const int rows : {1, any ? 1 : 2}) ASSERT_TRUE(std::ranges::equal(planes, run(p, Flush::tail, 0, 0, rows), same_bits));
  }
}

TEST_P(DepthwisePixelsTest, GivesTheSameBitsWhereverBlocksBegin) {
  const int size = any ? 3 : GetParam().kernel[17] - '0', stride = any ? 2 : GetParam().kernel[22] - '0', half = size / 2;
  const Window window{size, size, stride, stride, 1, 1, {half, half, half, half}};
  for (const int channels : {2 * lanes, 4 * lanes, 3 * lanes + 1, 4 * lanes + 3})
    for (const int second : {1, lanes / 2, lanes - 1}) {
      if (second == 0) continue;  // a vector of one
      const DepthwiseProblem p(5, 19, channels, window, random, Values::real);
      const std::vector<float> apart = run(p, Flush::tail, 0, 0, 1, lanes);
      ASSERT_NO_FATAL_FAILURE(p.check(apart, Values::real));
      for (const int rows : {1, any ? 1 : 2})
        ASSERT_TRUE(std::ranges::equal(apart, run(p, Flush::tail, 1, 2, rows, second), same_bits));
    }
}

TEST_P(DepthwisePixelsTest, TakesAnyWindow) {
  if (!any) return;
  for (const int kh : {1, 2, 4})
    for (const int kw : {1, 3, 6})
      for (const int stride : {1, 2, 3})
        for (const int dilation : {1, 2})
          for (const int side : {0, 2, 9}) {
            const Window window{kh, kw, stride, stride, dilation, dilation, {side / 2, side, side, 0}};
            const DepthwiseProblem p(7, 11, lanes + 3, window, random, Values::integer);
            ASSERT_NO_FATAL_FAILURE(p.check(run(p, Flush::tail, 1, 2, 1), Values::integer));
          }
}

TEST_P(DepthwisePixelsTest, LetsSpecialValuesThrough) {
  const int size = any ? 3 : GetParam().kernel[17] - '0', stride = any ? 1 : GetParam().kernel[22] - '0', half = size / 2;
  const Window window{size, size, stride, stride, 1, 1, {half, half, half, half}};
  for (const float special : {kNaN, kInf, -kInf, -0.0f}) {
    DepthwiseProblem p(4, 9, lanes, window, random, Values::real);
    for (int lane = 0; lane < lanes; ++lane) p.pixel(lane % 4, lane % 9, lane) = special;
    p.clamp = {0.0f, 6.0f};
    ASSERT_NO_FATAL_FAILURE(p.check(run(p, Flush::head, 0, 0, any ? 1 : 2)));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, DepthwisePixelsTest,
                         ::testing::ValuesIn(on_each_isa({"depthwise_pixels_3x3_s1_f32", "depthwise_pixels_3x3_s2_f32",
                                                          "depthwise_pixels_5x5_s1_f32", "depthwise_pixels_5x5_s2_f32",
                                                          "depthwise_pixels_7x7_s1_f32", "depthwise_pixels_7x7_s2_f32",
                                                          "depthwise_pixels_any_f32"})),
                         test_name);

class Transpose : public ::testing::TestWithParam<KernelId> {};

TEST_P(Transpose, MovesEveryElementAndNothingElse) {
  const int v = GetParam().table().vector;
  for (const int rows : {1, 2, 3, 4, v - 1, v, v + 1, 2 * v + 3})
    for (const int columns : {1, 2, 3, 4, v, v + 2, 3 * v})
      for (const Flush flush : kBothEnds)
        for (const int gap : {0, 5}) {
          const int in_step = columns + gap, out_step = rows + gap;
          std::vector<float> values((rows - 1) * in_step + columns);
          for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
          GuardedBuffer<float> in(values, flush);
          GuardedBuffer<float> out = unwritten((columns - 1) * out_step + rows, flush);
          GetParam().table().transpose_f32(in.data(), in_step, out.data(), out_step, rows, columns);
          for (int x = 0; x < columns; ++x)
            for (int y = 0; y < out_step && x * out_step + y < static_cast<int>(out.size()); ++y) {
              const float got = out.values()[x * out_step + y];
              if (y < rows) {
                ASSERT_EQ(got, values[y * in_step + x]) << rows << "x" << columns;
              } else {
                ASSERT_TRUE(is_unwritten(got));
              }
            }
          ASSERT_TRUE(out.slack_intact());
        }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Transpose, ::testing::ValuesIn(on_each_isa({"transpose_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
