// What every oracle shares: a float64 image in NHWC order, and the hook that lets a long run be stopped.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/tensor.h"

namespace sepconv::ref {

// One image, [h][w][c].
struct Tensor {
  Shape shape;
  std::vector<double> data;

  explicit Tensor(Shape s, double value = 0.0) : shape(s), data(static_cast<std::size_t>(s.elements()), value) {}

  std::size_t index(int y, int x, int c) const {
    return (static_cast<std::size_t>(y) * shape.w + x) * shape.c + c;
  }
  double& operator()(int y, int x, int c) { return data[index(y, x, c)]; }
  double operator()(int y, int x, int c) const { return data[index(y, x, c)]; }
  bool inside(int y, int x) const { return y >= 0 && y < shape.h && x >= 0 && x < shape.w; }
};

// Thrown out of an oracle whose poll asked it to stop.
struct Interrupted : std::runtime_error {
  Interrupted() : std::runtime_error("the oracle was stopped by its poll") {}
};

// Called once an output row: `proceed(context)` returning false stops the run with Interrupted.
struct Poll {
  bool (*proceed)(void* context) = nullptr;
  void* context = nullptr;

  void operator()() const {
    if (proceed && !proceed(context)) throw Interrupted();
  }
};

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

// The shape that a window leaves of an image, with c channels.
inline Shape output_shape(const Shape& in, const Window& window, int c) {
  require(window.kh > 0 && window.kw > 0 && window.stride_h > 0 && window.stride_w > 0 && window.dilation_h > 0 &&
              window.dilation_w > 0,
          "window has a size, stride or dilation below 1, which must be 1 or more");
  const int reach_h = (window.kh - 1) * window.dilation_h + 1, reach_w = (window.kw - 1) * window.dilation_w + 1;
  require(in.h + window.padding.top + window.padding.bottom >= reach_h &&
              in.w + window.padding.left + window.padding.right >= reach_w,
          "window reaches over " + std::to_string(reach_h) + "x" + std::to_string(reach_w) +
              " pixels, which must fit the padded input of " + std::to_string(in.h) + "x" + std::to_string(in.w));
  return {window.out_h(in.h), window.out_w(in.w), c};
}

}  // namespace sepconv::ref
