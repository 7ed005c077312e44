#include "ref/grad.h"

#include <cmath>

namespace sepconv::ref {
namespace {

ConvGrad zeros(const Tensor& x, std::size_t weights, const Tensor& dy) {
  ConvGrad g{Tensor(x.shape), Tensor(x.shape), std::vector<double>(weights), std::vector<double>(weights), {}, {}};
  g.bias.resize(dy.shape.c);
  g.bias_magnitude.resize(dy.shape.c);
  for (std::size_t i = 0; i < dy.data.size(); ++i) {
    g.bias[i % dy.shape.c] += dy.data[i];
    g.bias_magnitude[i % dy.shape.c] += std::abs(dy.data[i]);
  }
  return g;
}

// The product of x's element i and weight k went into an output whose gradient is dy.
void add(ConvGrad& g, const Tensor& x, std::span<const double> weights, std::size_t i, std::size_t k, double dy) {
  g.x.data[i] += weights[k] * dy;
  g.x_magnitude.data[i] += std::abs(weights[k] * dy);
  g.weights[k] += x.data[i] * dy;
  g.weights_magnitude[k] += std::abs(x.data[i] * dy);
}

}  // namespace

ConvGrad depthwise_grad(const Tensor& x, std::span<const double> weights, const Tensor& dy, const Window& window,
                        const Poll& poll) {
  const int channels = x.shape.c, multiplier = channels > 0 ? dy.shape.c / channels : 0;
  require(dy.shape == output_shape(x.shape, window, channels * multiplier), "dy does not have the output's shape");
  require(weights.size() == std::size_t(window.kh) * window.kw * dy.shape.c, "weights do not have the window's size");
  ConvGrad g = zeros(x, weights.size(), dy);
  for (int oy = 0; oy < dy.shape.h; ++oy) {
    poll();
    for (int ox = 0; ox < dy.shape.w; ++ox)
      for (int r = 0; r < window.kh; ++r)
        for (int s = 0; s < window.kw; ++s) {
          const int iy = oy * window.stride_h - window.padding.top + r * window.dilation_h;
          const int ix = ox * window.stride_w - window.padding.left + s * window.dilation_w;
          if (!x.inside(iy, ix)) continue;
          for (int n = 0; n < dy.shape.c; ++n) {
            const std::size_t k = (std::size_t(r) * window.kw + s) * dy.shape.c + n;
            add(g, x, weights, x.index(iy, ix, n / multiplier), k, dy(oy, ox, n));
          }
        }
  }
  return g;
}

ConvGrad pointwise_grad(const Tensor& x, std::span<const double> weights, const Tensor& dy, const Poll& poll) {
  require(dy.shape.h == x.shape.h && dy.shape.w == x.shape.w, "dy does not have the height and width of x");
  require(weights.size() == std::size_t(x.shape.c) * dy.shape.c, "weights do not have the size C*N");
  ConvGrad g = zeros(x, weights.size(), dy);
  for (int y = 0; y < x.shape.h; ++y) {
    poll();
    for (int column = 0; column < x.shape.w; ++column)
      for (int c = 0; c < x.shape.c; ++c)
        for (int n = 0; n < dy.shape.c; ++n)
          add(g, x, weights, x.index(y, column, c), std::size_t(c) * dy.shape.c + n, dy(y, column, n));
  }
  return g;
}

}  // namespace sepconv::ref
