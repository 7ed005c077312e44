// Oracles of the operators that sum products: convolutions and the fully connected layer.
//
// Padding is zeros that take part in the sum, so a NaN or infinite weight over padding gives NaN. `bias` may be
// empty. `magnitude`, where given, receives for each output Σ|x·w| + |bias|, what float32's error bound scales with.
// Sizes that do not fit throw std::invalid_argument.
#pragma once

#include <span>
#include <vector>

#include "ref/tensor.h"

namespace sepconv::ref {

// weights [kh][kw][C][N] -> [out_h][out_w][N]. A pointwise convolution is a window of 1x1.
Tensor conv2d(const Tensor& x, std::span<const double> weights, std::span<const double> bias, const Window& window,
              std::vector<double>* magnitude = nullptr, const Poll& poll = {});

// weights [kh][kw][C][M] -> [out_h][out_w][C*M]; output channel c*M + m reads input channel c.
Tensor depthwise_conv2d(const Tensor& x, std::span<const double> weights, std::span<const double> bias,
                        const Window& window, std::vector<double>* magnitude = nullptr, const Poll& poll = {});

// weights [K][N], K = h*w*c elements of x in memory order -> [1][1][N].
Tensor fully_connected(const Tensor& x, std::span<const double> weights, std::span<const double> bias,
                       std::vector<double>* magnitude = nullptr, const Poll& poll = {});

}  // namespace sepconv::ref
