// What every operator of a plan is: a function that computes some rows of its output, for some of its channels.
// Rows are the unit because a chain of operators can then stream them through small ring buffers (graph/chain.h), and
// because rows and channels are what threads can share without changing any sum.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/tensor.h"
#include "kernels/table.h"

namespace sepconv {

// An activation in memory. Row y of plane b starts at data + b·plane + (y mod ring)·row; a whole image has ring = h.
// Blocked activations have planes of V channels; an NHWC image is one plane of rows of w·c floats.
template <class T>
struct BasicRowView {
  T* data = nullptr;
  std::ptrdiff_t plane = 0;
  std::ptrdiff_t row = 0;
  int ring = 1;

  T* at(int block, int y) const { return data + block * plane + (y % ring) * row; }
};
using ConstRowView = BasicRowView<const float>;
using RowView = BasicRowView<float>;

struct RowTask {
  ConstRowView in;
  ConstRowView other;  // a residual or second addend, of the output's shape; data is nullptr where there is none
  RowView out;
  int y0, y1;          // output rows
  int part0, part1;    // of RowOp::parts
  float* scratch;      // RowOp::scratch_floats of them
  const ConstRowView* others = nullptr;  // for an operator of many inputs: those after the first, `other` among them
};

// What threads share of an operator's output. Following its input, they mostly read what they wrote themselves.
enum class Split { rows, channels, as_input };

struct RowRange {
  int begin, end;
};

// Weights of a later operator that reads them faster than L3 gives them. A thread that computes a part of this operator's
// output fetches the same part of them, which it most likely reads; and of that only from `begin` to `end`, between 0 and 1,
// since other operators fetch the rest.
struct Ahead {
  const char* weights = nullptr;
  std::size_t bytes = 0;
  double begin = 0, end = 0;
};

class RowOp {
 public:
  virtual ~RowOp() = default;

  virtual void run(const RowTask& task) const noexcept = 0;

  // Input rows that output rows [y0, y1) need: a window's, unless the operator says otherwise.
  virtual RowRange input_rows(int y0, int y1) const {
    const int first = y0 * window.stride_h - window.padding.top;
    const int last = (y1 - 1) * window.stride_h - window.padding.top + (window.kh - 1) * window.dilation_h + 1;
    return {std::clamp(first, 0, in.h), std::clamp(last, 0, in.h)};
  }

  std::string kernel;              // the name of what runs: gemm_f32_14x32__avx512
  Shape in, out;
  Window window;                   // identity unless it is a sliding-window operator
  int parts = 1;                   // how many pieces the output's channels can be computed in
  std::int64_t macs = 0;           // multiply-adds (for elementwise operators: operations) an image
  std::size_t weight_bytes = 0;    // packed
  std::size_t scratch_floats = 0;
  const char* weights = nullptr;   // of a dense or pointwise convolution
  bool waits_for_weights = false;  // whether it has too little work on them to fetch them in time itself
  std::size_t spare_fetches = 0;   // bytes that it could fetch into L2 besides its own weights
  Ahead ahead;                     // what it does fetch
  Split split = Split::as_input;
  bool few_pieces = false;         // whether a piece costs so much by itself that a thread should get but one
  bool streams = false;            // whether it reads and writes ring buffers, so that it can be part of a chain
};

inline int blocks_of(int channels, const KernelTable& table) { return (channels + table.vector - 1) / table.vector; }

inline std::int64_t blocked_floats(const Shape& s, const KernelTable& table) {
  return std::int64_t{1} * blocks_of(s.c, table) * s.h * s.w * table.vector;
}

// Whether the fast depthwise kernels take a window: a square of 3, 5 or 7, padding up to half of it. The last column that is
// read may be nearer than the padding says. A dilated window of stride 1 is taken phase by phase (for_each_phase).
inline bool fits_fast_depthwise(const Window& w, const Shape& in, const Shape& out) {
  const int k = w.kh;
  if (w.kh != w.kw || (k != 3 && k != 5 && k != 7) || w.stride_h != w.stride_w || w.stride_w > 2) return false;
  if (w.stride_w != 1 && (w.dilation_h != 1 || w.dilation_w != 1)) return false;
  const std::int64_t dilation = w.dilation_w, edge = k / 2 * dilation;
  const std::int64_t last = (std::int64_t{out.w} - 1) * w.stride_w - w.padding.left + (k - 1) * dilation;
  return dilation <= in.w && w.padding.left <= edge && last <= in.w - 1 + edge;
}

// The kernel for pixels of such a window.
inline DepthwisePixelsKernel fast_depthwise_pixels(const Window& w, const KernelTable& t) {
  const bool one = w.stride_w == 1;
  return w.kh == 3   ? (one ? t.depthwise_pixels_3x3_s1_f32 : t.depthwise_pixels_3x3_s2_f32)
         : w.kh == 5 ? (one ? t.depthwise_pixels_5x5_s1_f32 : t.depthwise_pixels_5x5_s2_f32)
                     : (one ? t.depthwise_pixels_7x7_s1_f32 : t.depthwise_pixels_7x7_s2_f32);
}

// The phases of a depthwise convolution of stride 1 whose taps lie `dilation` columns apart: each is one whose taps are
// neighbours, of every dilation-th column of input and output. `rows` and `steps` are d's, `count` of them, and others within
// compute(phase), which returns whether to go on.
template <class Compute>
bool for_each_phase(const DepthwisePixels& d, const float** rows, std::ptrdiff_t* steps, int count, int dilation,
                    Compute compute) {
  DepthwisePixels phase = d;
  phase.out_pixel *= dilation;
  for (int i = 0; i < count; ++i) steps[i] *= dilation;
  bool on = true;
  for (int q = 0; on && q < std::min(dilation, d.out_w); ++q) {
    phase.pad_left = std::max(d.pad_left - q + dilation - 1, 0) / dilation;
    const int column = q - d.pad_left + phase.pad_left * dilation;  // the phase's first in the image
    phase.in_w = (d.in_w - column + dilation - 1) / dilation;
    phase.out_w = (d.out_w - q + dilation - 1) / dilation;
    phase.out = d.out + q * d.out_pixel;
    const auto move = [&](int sign) {
      for (int i = 0; i < count; ++i) rows[i] += sign * column * (steps[i] / dilation);
    };
    move(1);
    on = compute(phase);
    move(-1);
  }
  for (int i = 0; i < count; ++i) steps[i] /= dilation;
  return on;
}

// What kernels apply themselves, a clamp or (convolutions) hard swish, and any other activation, which needs its own pass.
struct Epilogue {
  float lo = -__builtin_inff(), hi = __builtin_inff();
  bool hard_swish = false;
  Activation pass = Activation::none;

  explicit Epilogue(Activation activation, bool of_convolution = false) {
    hard_swish = of_convolution && activation == Activation::hard_swish;
    if (activation == Activation::relu || activation == Activation::relu6) lo = 0.0f;
    if (activation == Activation::relu6) hi = 6.0f;
    if (activation > Activation::relu6 && !hard_swish) pass = activation;
  }
};

}  // namespace sepconv
