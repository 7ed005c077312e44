#include "ref/elementwise.h"

#include <cmath>
#include <limits>
#include <numbers>

namespace sepconv::ref {

double clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::none: return x;
    case Activation::relu: return clamp(x, 0.0, std::numeric_limits<double>::infinity());
    case Activation::relu6: return clamp(x, 0.0, 6.0);
    case Activation::hard_sigmoid: return clamp(x + 3.0, 0.0, 6.0) / 6.0;
    case Activation::hard_swish: return x * clamp(x + 3.0, 0.0, 6.0) / 6.0;
    case Activation::sigmoid: return 1.0 / (1.0 + std::exp(-x));
    case Activation::silu: return x * activate(Activation::sigmoid, x);
    case Activation::gelu: return x * (std::erfc(x * -std::numbers::sqrt2 / 2) / 2);
    case Activation::gelu_tanh:
      return x * activate(Activation::sigmoid, std::sqrt(8 / std::numbers::pi) * (x + 0.044715 * x * x * x));
  }
  throw std::invalid_argument("activation is " + std::to_string(static_cast<int>(activation)) +
                              ", which must be one of Activation's");
}

Tensor activate(Activation activation, const Tensor& x) {
  Tensor out = x;
  for (double& value : out.data) value = activate(activation, value);
  return out;
}

Tensor add(const Tensor& a, const Tensor& b) {
  require(a.shape == b.shape, "b has " + std::to_string(b.data.size()) + " elements, whose shape must be that of a");
  Tensor out = a;
  for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] += b.data[i];
  return out;
}

Tensor mul(const Tensor& a, const Tensor& b) {
  require(b.shape == a.shape || b.shape == Shape{1, 1, a.shape.c},
          "b has " + std::to_string(b.data.size()) + " elements, whose shape must be that of a, or one pixel of it");
  Tensor out = a;
  for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] *= b.data[i % b.data.size()];
  return out;
}

Tensor softmax(const Tensor& x, double beta) {
  Tensor out(x.shape);
  for (int y = 0; y < x.shape.h; ++y)
    for (int col = 0; col < x.shape.w; ++col) {
      double largest = -std::numeric_limits<double>::infinity(), sum = 0.0;
      for (int c = 0; c < x.shape.c; ++c) largest = std::fmax(largest, beta * x(y, col, c));
      for (int c = 0; c < x.shape.c; ++c) sum += out(y, col, c) = std::exp(beta * x(y, col, c) - largest);
      for (int c = 0; c < x.shape.c; ++c) out(y, col, c) /= sum;
    }
  return out;
}

Tensor layer_norm(const Tensor& x, std::span<const double> scale, std::span<const double> bias, double epsilon) {
  const auto channels = static_cast<std::size_t>(x.shape.c);
  require(scale.size() == channels && bias.size() == channels, "scale and bias have " + std::to_string(scale.size()) + " and " +
          std::to_string(bias.size()) + " elements, which must be the " + std::to_string(channels) + " channels of x");
  Tensor out(x.shape);
  for (std::size_t pixel = 0; pixel < x.data.size(); pixel += channels) {
    double mean = 0.0, variance = 0.0;
    for (std::size_t c = 0; c < channels; ++c) mean += x.data[pixel + c] / x.shape.c;
    for (std::size_t c = 0; c < channels; ++c) variance += (x.data[pixel + c] - mean) * (x.data[pixel + c] - mean) / x.shape.c;
    for (std::size_t c = 0; c < channels; ++c) {
      out.data[pixel + c] = (x.data[pixel + c] - mean) / std::sqrt(variance + epsilon) * scale[c] + bias[c];
    }
  }
  return out;
}

Tensor pad(const Tensor& x, const Padding& padding, double value) {
  require(padding.top >= 0 && padding.bottom >= 0 && padding.left >= 0 && padding.right >= 0,
          "padding has a negative side, which must be 0 or more");
  Tensor out({x.shape.h + padding.top + padding.bottom, x.shape.w + padding.left + padding.right, x.shape.c}, value);
  for (int y = 0; y < x.shape.h; ++y)
    for (int col = 0; col < x.shape.w; ++col)
      for (int c = 0; c < x.shape.c; ++c) out(y + padding.top, col + padding.left, c) = x(y, col, c);
  return out;
}

Tensor batch_norm(const Tensor& x, std::span<const double> gamma, std::span<const double> beta,
                  std::span<const double> mean, std::span<const double> variance, double epsilon) {
  const auto fits = [&](std::span<const double> values, bool optional, const char* name) {
    require(values.size() == static_cast<std::size_t>(x.shape.c) || (optional && values.empty()),
            std::string(name) + " has " + std::to_string(values.size()) + " elements, which must be the " +
                std::to_string(x.shape.c) + " channels of x");
  };
  fits(gamma, true, "gamma");
  fits(beta, true, "beta");
  fits(mean, false, "mean");
  fits(variance, false, "variance");
  Tensor out = x;
  for (std::size_t i = 0; i < out.data.size(); ++i) {
    const std::size_t c = i % x.shape.c;
    const double normal = (x.data[i] - mean[c]) / std::sqrt(variance[c] + epsilon);
    out.data[i] = normal * (gamma.empty() ? 1.0 : gamma[c]) + (beta.empty() ? 0.0 : beta[c]);
  }
  return out;
}

}  // namespace sepconv::ref
