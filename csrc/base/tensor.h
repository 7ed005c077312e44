// Plain descriptions that every layer of the core shares: sizes, paddings, activations.
#pragma once

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "sepconv: -ffast-math and its parts change results and must not be given"
#endif

#include <cstddef>
#include <cstdint>

namespace sepconv {

// Of each size of an image, window or weight, and of the elements of an image: far above any, and far below overflow of the
// index arithmetic in kernels.
inline constexpr int kMaxSize = 1 << 20;
inline constexpr std::int64_t kMaxElements = std::int64_t{1} << 31;

// One image's extent; the batch is a loop around the plan, so no batch dimension here.
struct Shape {
  int h = 0, w = 0, c = 0;
  friend bool operator==(const Shape&, const Shape&) = default;
  std::int64_t elements() const { return std::int64_t{1} * h * w * c; }
};

struct Padding {
  int top = 0, bottom = 0, left = 0, right = 0;
  friend bool operator==(const Padding&, const Padding&) = default;
  bool any() const { return top | bottom | left | right; }
};

// A sliding window: of a convolution, a depthwise convolution or a pooling.
struct Window {
  int kh = 1, kw = 1;
  int stride_h = 1, stride_w = 1;
  int dilation_h = 1, dilation_w = 1;
  Padding padding;

  // Whether each output pixel depends on the input pixel in its place alone.
  bool pointwise() const { return kh == 1 && kw == 1 && stride_h == 1 && stride_w == 1 && !padding.any(); }
  int out_h(int h) const { return (h + padding.top + padding.bottom - (kh - 1) * dilation_h - 1) / stride_h + 1; }
  int out_w(int w) const { return (w + padding.left + padding.right - (kw - 1) * dilation_w - 1) / stride_w + 1; }
};

enum class Activation { none, relu, relu6, hard_swish, hard_sigmoid, sigmoid, silu, gelu, gelu_tanh };

}  // namespace sepconv
