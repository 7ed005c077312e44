// Oracles of the operators that treat every element alike, and of padding, batch normalisation and softmax.
#pragma once

#include <span>

#include "ref/tensor.h"

namespace sepconv::ref {

// NaN passes through; limits may be infinite.
double clamp(double x, double lo, double hi);

// The formulas as written, so NaN gives NaN, and -inf gives -inf·0 = NaN for hard_swish, silu and gelu:
//   relu = max(x, 0), relu6 = min(relu, 6), hard_sigmoid = relu6(x + 3)/6, hard_swish = x·relu6(x + 3)/6,
//   sigmoid = 1/(1 + e^-x), silu = x·sigmoid(x), gelu = x·(1 + erf(x/√2))/2 (arXiv 1606.08415),
//   gelu_tanh = x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))/2.
double activate(Activation activation, double x);
Tensor activate(Activation activation, const Tensor& x);

// Shapes must be equal.
Tensor add(const Tensor& a, const Tensor& b);

// b has a's shape, or is one pixel of as many channels, which scales those of a.
Tensor mul(const Tensor& a, const Tensor& b);

// Over the channels of each pixel: e^(beta·x - max) / Σ. A NaN or +inf among them makes all NaN.
Tensor softmax(const Tensor& x, double beta = 1.0);

// (x - mean)/√(variance + epsilon)·scale + bias over the channels of each pixel (arXiv 1607.06450); scale and bias have c
// elements.
Tensor layer_norm(const Tensor& x, std::span<const double> scale, std::span<const double> bias, double epsilon);

// A border of `value`.
Tensor pad(const Tensor& x, const Padding& padding, double value = 0.0);

// (x - mean)/sqrt(variance + epsilon)·gamma + beta, each of c elements; gamma and beta may be empty (1 and 0).
Tensor batch_norm(const Tensor& x, std::span<const double> gamma, std::span<const double> beta,
                  std::span<const double> mean, std::span<const double> variance, double epsilon);

}  // namespace sepconv::ref
