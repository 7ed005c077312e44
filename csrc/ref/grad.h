// Oracles of the gradients, by the definition: each product of a forward sum, once for each of its two factors.
// Sizes that do not fit throw std::invalid_argument.
#pragma once

#include <span>
#include <vector>

#include "ref/tensor.h"

namespace sepconv::ref {

// Of a loss whose gradient with respect to a convolution's output is known. The magnitudes are Σ|products|, what
// float32's error bound scales with.
struct ConvGrad {
  Tensor x, x_magnitude;
  std::vector<double> weights, weights_magnitude;  // in the layout of the weights
  std::vector<double> bias, bias_magnitude;
};

// weights [kh][kw][C][M], dy [out_h][out_w][C*M].
ConvGrad depthwise_grad(const Tensor& x, std::span<const double> weights, const Tensor& dy, const Window& window,
                        const Poll& poll = {});

// weights [C][N], dy [h][w][N].
ConvGrad pointwise_grad(const Tensor& x, std::span<const double> weights, const Tensor& dy, const Poll& poll = {});

}  // namespace sepconv::ref
