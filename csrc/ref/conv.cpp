#include "ref/conv.h"

#include <cmath>

namespace sepconv::ref {
namespace {

// The last dimension of weights whose others multiply to `rest`.
int last_dimension(std::span<const double> weights, std::size_t rest, const char* others) {
  require(rest > 0 && !weights.empty() && weights.size() % rest == 0,
          "weights has " + std::to_string(weights.size()) + " elements, which must be a multiple of " + others +
              " = " + std::to_string(rest));
  return static_cast<int>(weights.size() / rest);
}

// Starts every pixel from the bias, and magnitude from |bias|.
Tensor biased(Shape shape, std::span<const double> bias, std::vector<double>* magnitude) {
  require(bias.empty() || bias.size() == static_cast<std::size_t>(shape.c),
          "bias has " + std::to_string(bias.size()) + " elements, which must be none or the " +
              std::to_string(shape.c) + " output channels");
  Tensor out(shape);
  if (!bias.empty())
    for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] = bias[i % bias.size()];
  if (magnitude) {
    magnitude->resize(out.data.size());
    for (std::size_t i = 0; i < out.data.size(); ++i) (*magnitude)[i] = std::abs(out.data[i]);
  }
  return out;
}

// out[i] += x * w[i] for n outputs that share the input x.
void accumulate(double x, const double* w, int n, double* out, double* magnitude) {
  for (int i = 0; i < n; ++i) out[i] += x * w[i];
  if (magnitude)
    for (int i = 0; i < n; ++i) magnitude[i] += std::abs(x * w[i]);
}

}  // namespace

Tensor conv2d(const Tensor& x, std::span<const double> weights, std::span<const double> bias, const Window& window,
              std::vector<double>* magnitude, const Poll& poll) {
  const int channels = x.shape.c;
  const std::size_t taps = std::size_t(window.kh) * window.kw;
  const int n = last_dimension(weights, taps * channels, "kh*kw*C");
  Tensor out = biased(output_shape(x.shape, window, n), bias, magnitude);
  for (int oy = 0; oy < out.shape.h; ++oy) {
    poll();
    for (int ox = 0; ox < out.shape.w; ++ox) {
      const std::size_t at = out.index(oy, ox, 0);
      for (int r = 0; r < window.kh; ++r)
        for (int s = 0; s < window.kw; ++s) {
          const int iy = oy * window.stride_h - window.padding.top + r * window.dilation_h;
          const int ix = ox * window.stride_w - window.padding.left + s * window.dilation_w;
          for (int c = 0; c < channels; ++c) {
            const double value = x.inside(iy, ix) ? x(iy, ix, c) : 0.0;
            const double* w = &weights[((std::size_t(r) * window.kw + s) * channels + c) * n];
            accumulate(value, w, n, &out.data[at], magnitude ? &(*magnitude)[at] : nullptr);
          }
        }
    }
  }
  return out;
}

Tensor depthwise_conv2d(const Tensor& x, std::span<const double> weights, std::span<const double> bias,
                        const Window& window, std::vector<double>* magnitude, const Poll& poll) {
  const int channels = x.shape.c;
  const std::size_t taps = std::size_t(window.kh) * window.kw;
  const int multiplier = last_dimension(weights, taps * channels, "kh*kw*C");
  Tensor out = biased(output_shape(x.shape, window, channels * multiplier), bias, magnitude);
  for (int oy = 0; oy < out.shape.h; ++oy) {
    poll();
    for (int ox = 0; ox < out.shape.w; ++ox)
      for (int r = 0; r < window.kh; ++r)
        for (int s = 0; s < window.kw; ++s) {
          const int iy = oy * window.stride_h - window.padding.top + r * window.dilation_h;
          const int ix = ox * window.stride_w - window.padding.left + s * window.dilation_w;
          for (int c = 0; c < channels; ++c) {
            const double value = x.inside(iy, ix) ? x(iy, ix, c) : 0.0;
            const double* w = &weights[((std::size_t(r) * window.kw + s) * channels + c) * multiplier];
            const std::size_t at = out.index(oy, ox, c * multiplier);
            accumulate(value, w, multiplier, &out.data[at], magnitude ? &(*magnitude)[at] : nullptr);
          }
        }
  }
  return out;
}

Tensor fully_connected(const Tensor& x, std::span<const double> weights, std::span<const double> bias,
                       std::vector<double>* magnitude, const Poll& poll) {
  const int n = last_dimension(weights, x.data.size(), "K");
  Tensor out = biased({1, 1, n}, bias, magnitude);
  poll();
  for (std::size_t k = 0; k < x.data.size(); ++k)
    accumulate(x.data[k], &weights[k * n], n, out.data.data(), magnitude ? magnitude->data() : nullptr);
  return out;
}

}  // namespace sepconv::ref
