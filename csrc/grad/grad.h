// Gradients of a loss with respect to what a convolution reads, from those with respect to what it gives: what training
// needs. Images are NHWC, one after the other; weights are as torch holds them.
//
// Work is cut into pieces by sizes alone and sums are added in the order of the pieces, so that results have the same
// bits at any number of threads. All throw std::bad_alloc only: their callers check shapes. The caller's Interruptible can
// end them early.
#pragma once

#include <cstdint>

#include "base/tensor.h"
#include "kernels/table.h"

namespace sepconv {

struct DepthwiseGrad {
  Shape in;
  Window window;
  int multiplier;           // output channel c·multiplier + m reads input channel c
  std::int64_t images;
  const float* x;           // [images][h][w][C]; not read where dweights is nullptr
  const float* weights;     // [C·M][kh][kw]; not read where dx is nullptr
  const float* dy;          // [images][out_h][out_w][C·M]
  float* dx;                // as x, or nullptr
  float* dweights;          // as weights, or nullptr
  float* dbias;             // [C·M], or nullptr; only together with dweights
};
void depthwise_grad(const DepthwiseGrad&, int threads, const KernelTable&);

struct PointwiseGrad {
  std::int64_t pixels;      // of all images
  int channels, outputs;
  const float* x;           // [pixels][channels]; not read where dweights is nullptr
  const float* weights;     // [outputs][channels]; not read where dx is nullptr
  const float* dy;          // [pixels][outputs]
  float* dx;                // as x, or nullptr
  float* dweights;          // as weights, or nullptr
  float* dbias;             // [outputs], or nullptr; only together with dweights
};
void pointwise_grad(const PointwiseGrad&, int threads, const KernelTable&);

// out[n][x][y] = in[n][y][x] for y < rows, x < columns: from NCHW to NHWC and back.
void transpose_images(const float* in, float* out, std::int64_t images, std::int64_t rows, std::int64_t columns, int threads,
                      const KernelTable&);

// out = activation'(value)·dy over n numbers. For none, relu and relu6 `value` may be the activation's result; for the
// others it must be what went in. `out` may be `value` or `dy`. At a kink the slope is that of torch: 0 for relu at 0 and
// for relu6 at 0 and 6; at NaN it is 1 for both.
void activation_grad(Activation, const float* value, const float* dy, float* out, std::int64_t n, int threads);
void activation_grad(Activation, const double* value, const double* dy, double* out, std::int64_t n, int threads);

}  // namespace sepconv
