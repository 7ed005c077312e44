// One plane's pooling: operands, and the run of a kernel on them, row by row, between guard pages.
#pragma once

#include "kernel_testing.h"
#include "ref/pool.h"

namespace sepconv::test {

struct PoolProblem {
  int in_h, in_w, lanes;
  Window window;
  std::vector<float> x;  // [in_h][in_w][V]

  PoolProblem(int in_h_, int in_w_, int lanes_, const Window& window_, Random& random, Values values)
      : in_h(in_h_), in_w(in_w_), lanes(lanes_), window(window_) {
    x = draw(random, static_cast<std::size_t>(in_h) * in_w * lanes, values);
  }

  float& pixel(int y, int column, int lane) { return x[(static_cast<std::size_t>(y) * in_w + column) * lanes + lane]; }

  // The plane is an NHWC image of V channels.
  ref::Tensor image() const {
    ref::Tensor out({in_h, in_w, lanes});
    out.data = widen(x);
    return out;
  }

  // -> [out_h][out_w][V]. include_padding: the divisor is kh*kw.
  std::vector<float> run(PoolKernel kernel, Flush flush, bool include_padding = false) const {
    const std::size_t row_size = static_cast<std::size_t>(in_w) * lanes;
    const int out_h = window.out_h(in_h), out_w = window.out_w(in_w);
    std::vector<GuardedBuffer<float>> guarded;
    for (int y = 0; y < in_h; ++y)
      guarded.emplace_back(std::vector<float>(x.begin() + y * row_size, x.begin() + (y + 1) * row_size), flush);
    std::vector<float> result;
    for (int y = 0; y < out_h; ++y) {
      std::vector<const float*> rows;
      for (int r = 0; r < window.kh; ++r) {
        const int iy = y * window.stride_h - window.padding.top + r;
        if (iy >= 0 && iy < in_h) rows.push_back(guarded[iy].data());
      }
      GuardedBuffer<const float*> guarded_rows(rows, flush);
      GuardedBuffer<float> out = unwritten(static_cast<std::size_t>(out_w) * lanes, flush);
      kernel({.rows = guarded_rows.data(),
              .row_count = static_cast<int>(rows.size()),
              .in_w = in_w,
              .out_w = out_w,
              .kw = window.kw,
              .stride_w = window.stride_w,
              .pad_left = window.padding.left,
              .out = out.data(),
              .divisor = include_padding ? static_cast<float>(window.kh * window.kw) : 0});
      EXPECT_TRUE(out.slack_intact()) << "written before or after the output";
      result.insert(result.end(), out.values().begin(), out.values().end());
    }
    return result;
  }

  void check_max(const std::vector<float>& actual) const {
    const ref::Tensor expected = ref::max_pool(image(), window);
    ASSERT_EQ(actual.size(), expected.data.size());
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_TRUE(close(expected.data[i], actual[i], 0.0)) << "lane " << i % lanes << ", pixel " << i / lanes;
  }

  void check_average(const std::vector<float>& actual, bool include_padding) const {
    const ref::Tensor expected = ref::average_pool(image(), window, include_padding);
    ref::Tensor magnitudes = image();
    for (double& value : magnitudes.data) value = std::abs(value);
    magnitudes = ref::average_pool(magnitudes, window, include_padding);
    ASSERT_EQ(actual.size(), expected.data.size());
    for (std::size_t i = 0; i < actual.size(); ++i)
      ASSERT_TRUE(close(expected.data[i], actual[i],
                        sum_bound(expected.data[i], window.kh * window.kw, magnitudes.data[i])))
          << "lane " << i % lanes << ", pixel " << i / lanes << ", kernel " << window.kh << "x" << window.kw;
  }
};

}  // namespace sepconv::test
