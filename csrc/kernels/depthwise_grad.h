// Gradient of a depthwise convolution's weights, one plane (V channels): for each tap the sum over all output pixels of
// input times gradient.
//
// Registers: the sums of Rows rows of taps (all nine of 3×3; of 5×5 all 25 where there are 32 registers, else a row), the
// sum for the bias, one gradient. Loop order: output rows, rows of taps in groups of Rows, pixels, taps: a gradient is
// loaded once a group and meets every tap of it. The sums of one output row are added to those so far before the next
// row: a sum over a whole image in one chain would lose digits. The order does not depend on anything but the sizes.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int K, int Rows>
SEPCONV_INLINE void depthwise_grad_row(const DepthwiseGradRows& d, const float* dy, const float* x, float* sums) {
  vf acc[Rows][K];
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 5
    for (int s = 0; s < K; ++s) acc[r][s] = broadcast(0.0f);
  }
  const std::ptrdiff_t step = std::ptrdiff_t{1} * d.stride_w * kLanes;
  for (int i = 0; i < d.out_w; ++i, dy += d.dy_step, x += step) {
    const vf g = load_once(dy);
#pragma GCC unroll 5
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 5
      for (int s = 0; s < K; ++s) acc[r][s] = fmadd(g, load(x + r * d.x_row + s * kLanes), acc[r][s]);
    }
  }
#pragma GCC unroll 5
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 5
    for (int s = 0; s < K; ++s) {
      float* const sum = sums + (r * K + s) * kLanes;
      store(sum, add(load(sum), acc[r][s]));
    }
  }
}

SEPCONV_INLINE void depthwise_grad_bias(const DepthwiseGradRows& d, const float* dy) {
  vf acc = broadcast(0.0f);
  for (int i = 0; i < d.out_w; ++i, dy += d.dy_step) acc = add(acc, load(dy));
  store(d.sums, add(load(d.sums), acc));
}

// K×K without dilation, any stride.
template <int K>
void depthwise_grad(const DepthwiseGradRows& d) {
  constexpr int kRows = K == 3 || kRegisters >= 32 ? K : 1;
  for (int y = 0; y < d.out_rows; ++y) {
    const float* const dy = d.dy + y * d.dy_row;
    depthwise_grad_bias(d, dy);
    for (int r = 0; r < K; r += kRows) {
      const float* const x = d.x + (std::ptrdiff_t{1} * y * d.stride_h + r) * d.x_row;
      depthwise_grad_row<K, kRows>(d, dy, x, d.sums + (1 + r * K) * kLanes);
    }
  }
}

// Any window: one tap at a time.
SEPCONV_INLINE void depthwise_grad_any(const DepthwiseGradRows& d) {
  for (int y = 0; y < d.out_rows; ++y) {
    const float* const dy = d.dy + y * d.dy_row;
    depthwise_grad_bias(d, dy);
    for (int r = 0; r < d.kh; ++r) {
      const float* const x = d.x + (std::ptrdiff_t{1} * y * d.stride_h + std::ptrdiff_t{1} * r * d.dilation_h) * d.x_row;
      for (int s = 0; s < d.kw; ++s) {
        const float* const tap = x + std::ptrdiff_t{1} * s * d.dilation_w * kLanes;
        depthwise_grad_row<1, 1>(d, dy, tap, d.sums + (1 + std::ptrdiff_t{1} * r * d.kw + s) * kLanes);
      }
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA
