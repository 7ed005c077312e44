// Rows of one depthwise plane: operands, the oracle's answer, and the run of a kernel on them between guard pages.
#pragma once

#include "kernel_testing.h"
#include "ref/conv.h"
#include "ref/elementwise.h"

namespace sepconv::test {

inline const std::vector<std::string> kFastDepthwise = {"depthwise_3x3_s1_f32", "depthwise_3x3_s2_f32",
                                                        "depthwise_5x5_s1_f32", "depthwise_5x5_s2_f32",
                                                        "depthwise_7x7_s1_f32", "depthwise_7x7_s2_f32"};

inline DepthwiseKernel depthwise_kernel(const KernelId& id) {
  const KernelTable& t = id.table();
  if (id.kernel == "depthwise_3x3_s1_f32") return t.depthwise_3x3_s1_f32;
  if (id.kernel == "depthwise_3x3_s2_f32") return t.depthwise_3x3_s2_f32;
  if (id.kernel == "depthwise_5x5_s1_f32") return t.depthwise_5x5_s1_f32;
  if (id.kernel == "depthwise_5x5_s2_f32") return t.depthwise_5x5_s2_f32;
  if (id.kernel == "depthwise_7x7_s1_f32") return t.depthwise_7x7_s1_f32;
  if (id.kernel == "depthwise_7x7_s2_f32") return t.depthwise_7x7_s2_f32;
  return t.depthwise_any_f32;
}

// The size and stride in a fast kernel's name: depthwise_3x3_s2_f32.
inline int named_size(const KernelId& id) { return id.kernel[10] - '0'; }
inline int named_stride(const KernelId& id) { return id.kernel[15] - '0'; }

struct DepthwiseProblem {
  int in_h, in_w, lanes;
  Window window;
  std::vector<float> x;        // [in_h][in_w][V]
  std::vector<float> weights;  // bias[V], then [kh][kw][V]
  Clamp clamp;
  bool hard_swish = false;

  DepthwiseProblem(int in_h_, int in_w_, int lanes_, const Window& window_, Random& random, Values values)
      : in_h(in_h_), in_w(in_w_), lanes(lanes_), window(window_) {
    x = draw(random, static_cast<std::size_t>(in_h) * in_w * lanes, values);
    weights = draw(random, static_cast<std::size_t>(1 + window.kh * window.kw) * lanes, values);
  }

  int out_h() const { return window.out_h(in_h); }
  int out_w() const { return window.out_w(in_w); }
  float& pixel(int y, int column, int lane) { return x[(static_cast<std::size_t>(y) * in_w + column) * lanes + lane]; }
  float& weight(int r, int s, int lane) {
    return weights[(1 + static_cast<std::size_t>(r) * window.kw + s) * lanes + lane];
  }

  // The plane is an NHWC image of V channels; magnitude as in ref/conv.h.
  ref::Tensor oracle(std::vector<double>* magnitude) const {
    ref::Tensor image({in_h, in_w, lanes});
    image.data = widen(x);
    const std::vector<double> wide = widen(weights);
    const std::span<const double> all = wide;
    ref::Tensor out = ref::depthwise_conv2d(image, all.subspan(lanes), all.first(lanes), window, magnitude);
    for (double& value : out.data) value = ref::clamp(value, clamp.lo, clamp.hi);
    return out;
  }

  // Output rows [first_row, first_row + rows) in calls of `rows_a_call` -> [rows][out_w][V]. Each input row lies in a
  // buffer of its own; the output rows lie `gap` floats apart, and it fails where the gap was written.
  // row_step: stride_h lets output rows share pointers (dilation 1), kh gives each its own.
  std::vector<float> run(DepthwiseKernel kernel, Flush flush, int row_step, int rows_a_call, int gap = 0) const {
    const std::size_t row_size = static_cast<std::size_t>(in_w) * lanes;
    std::vector<GuardedBuffer<float>> image;
    for (int y = 0; y < in_h; ++y)
      image.emplace_back(std::vector<float>(x.begin() + y * row_size, x.begin() + (y + 1) * row_size), flush);
    GuardedBuffer<float> outside(std::vector<float>(row_size), flush), zeros(std::vector<float>(lanes), flush);
    GuardedBuffer<float> guarded_weights(weights, flush);

    const int width = out_w() * lanes;
    const std::ptrdiff_t out_step = width + gap;
    std::vector<float> result;
    for (int y0 = 0; y0 < out_h(); y0 += rows_a_call) {
      const int rows = std::min(rows_a_call, out_h() - y0);
      std::vector<const float*> pointers((rows - 1) * row_step + window.kh);
      for (int y = 0; y < rows; ++y)
        for (int r = 0; r < window.kh; ++r) {
          const int iy = (y0 + y) * window.stride_h - window.padding.top + r * window.dilation_h;
          pointers[y * row_step + r] = (iy >= 0 && iy < in_h ? image[iy] : outside).data();
        }
      GuardedBuffer<const float*> guarded_pointers(pointers, flush);
      GuardedBuffer<float> out = unwritten((rows - 1) * out_step + width, flush);
      kernel({.rows = guarded_pointers.data(),
              .row_step = row_step,
              .zeros = zeros.data(),
              .in_w = in_w,
              .out_w = out_w(),
              .out_rows = rows,
              .pad_left = window.padding.left,
              .w = guarded_weights.data(),
              .out = out.data(),
              .out_step = out_step,
              .lo = clamp.lo,
              .hi = clamp.hi,
              .hard_swish = hard_swish,
              .kh = window.kh,
              .kw = window.kw,
              .stride_w = window.stride_w,
              .dilation_w = window.dilation_w});
      for (std::size_t i = 0; i < out.size(); ++i) {
        const bool described = static_cast<std::ptrdiff_t>(i) % out_step < width;
        EXPECT_EQ(is_unwritten(out.values()[i]), !described) << "element " << i << " of the output";
        if (described) result.push_back(out.values()[i]);
      }
      EXPECT_TRUE(out.slack_intact()) << "written before or after the output";
    }
    return result;
  }

  // Holds a run's result against the oracle: exactly where values are integers.
  void check(const std::vector<float>& actual, Values values = Values::real) const {
    std::vector<double> magnitude;
    const ref::Tensor expected = oracle(&magnitude);
    ASSERT_EQ(actual.size(), expected.data.size());
    const int products = window.kh * window.kw;
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const double bound = values == Values::integer ? 0.0 : sum_bound(expected.data[i], products, magnitude[i]);
      ASSERT_TRUE(close(expected.data[i], actual[i], bound))
          << "lane " << i % lanes << ", pixel " << i / lanes << ", in " << in_h << "x" << in_w << ", out " << out_h()
          << "x" << out_w() << ", kernel " << window.kh << "x" << window.kw << ", stride " << window.stride_w
          << ", dilation " << window.dilation_w << ", padding " << window.padding.left << "," << window.padding.right;
    }
  }
};

}  // namespace sepconv::test
