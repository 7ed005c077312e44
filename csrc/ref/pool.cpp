#include "ref/pool.h"

#include <cmath>
#include <limits>

namespace sepconv::ref {
namespace {

// Calls visit(oy, ox, c, value) for every pixel inside each output's window.
template <class Visit>
void for_each_inside(const Tensor& x, const Window& window, const Shape& out, const Poll& poll, Visit visit) {
  for (int oy = 0; oy < out.h; ++oy) {
    poll();
    for (int ox = 0; ox < out.w; ++ox)
      for (int r = 0; r < window.kh; ++r)
        for (int s = 0; s < window.kw; ++s) {
          const int iy = oy * window.stride_h - window.padding.top + r * window.dilation_h;
          const int ix = ox * window.stride_w - window.padding.left + s * window.dilation_w;
          if (!x.inside(iy, ix)) continue;
          for (int c = 0; c < out.c; ++c) visit(oy, ox, c, x(iy, ix, c));
        }
  }
}

}  // namespace

Tensor average_pool(const Tensor& x, const Window& window, bool include_padding, const Poll& poll) {
  Tensor out(output_shape(x.shape, window, x.shape.c));
  Tensor count(out.shape);
  for_each_inside(x, window, out.shape, poll, [&](int oy, int ox, int c, double value) {
    out(oy, ox, c) += value;
    count(oy, ox, c) += 1;
  });
  const double taps = double(window.kh) * window.kw;
  for (std::size_t i = 0; i < out.data.size(); ++i) out.data[i] /= include_padding ? taps : count.data[i];
  return out;
}

Tensor max_pool(const Tensor& x, const Window& window, const Poll& poll) {
  Tensor out(output_shape(x.shape, window, x.shape.c), -std::numeric_limits<double>::infinity());
  for_each_inside(x, window, out.shape, poll, [&](int oy, int ox, int c, double value) {
    double& best = out(oy, ox, c);
    if (value > best || std::isnan(value)) best = value;  // nothing is greater than a NaN, so a NaN stays
  });
  return out;
}

Tensor global_average_pool(const Tensor& x, const Poll& poll) {
  Window whole;
  whole.kh = x.shape.h;
  whole.kw = x.shape.w;
  return average_pool(x, whole, false, poll);
}

}  // namespace sepconv::ref
