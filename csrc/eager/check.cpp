#include "eager/check.h"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <string>

namespace sepconv {
namespace {

void check_range(const std::string& what, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  throw std::invalid_argument(what + " was " + std::to_string(value) + ", must be between " + std::to_string(least) + " and " +
                              std::to_string(most));
}

void check_shape(const Shape& s) {
  for (const int size : {s.h, s.w, s.c}) check_range("a dimension of an image", size, 1, kMaxSize);
  check_range("the number of elements of an image", s.elements(), 1, kMaxElements);
}

// The shape that a window gives of an image.
Shape windowed(const Shape& in, const Window& w, int outputs) {
  for (const int n : {w.stride_h, w.stride_w}) check_range("stride", n, 1, kMaxSize);
  for (const int n : {w.dilation_h, w.dilation_w}) check_range("dilation", n, 1, kMaxSize);
  const Padding& p = w.padding;
  for (const int n : {p.top, p.bottom, p.left, p.right}) check_range("padding", n, 0, kMaxSize);
  const std::int64_t height = std::int64_t{w.kh - 1} * w.dilation_h + 1, width = std::int64_t{w.kw - 1} * w.dilation_w + 1;
  check_range("the height of the window", height, 1, std::int64_t{in.h} + p.top + p.bottom);
  check_range("the width of the window", width, 1, std::int64_t{in.w} + p.left + p.right);
  return {w.out_h(in.h), w.out_w(in.w), outputs};
}

}  // namespace

void check_weights(WeightKind kind, const std::array<std::int64_t, 4>& dims, std::int64_t groups, std::int64_t bias) {
  for (const std::int64_t n : dims) check_range("a dimension of weight", n, 1, kMaxSize);
  const bool depthwise = kind == WeightKind::depthwise;
  const std::int64_t outputs = dims[depthwise ? 2 : 3], inputs = depthwise ? 1 : dims[2];
  if (depthwise) check_range("weight's last dimension", dims[3], 1, 1);
  if (kind == WeightKind::pointwise) check_range("the window of weight", std::max(dims[0], dims[1]), 1, 1);
  check_range("groups", groups, 1, kind == WeightKind::dense ? outputs : 1);
  if (outputs % groups) {
    throw std::invalid_argument("groups was " + std::to_string(groups) + ", must divide the " + std::to_string(outputs) + " outputs");
  }
  // Packed, each group's outputs come in whole vectors. No product here passes 2^60.
  constexpr std::int64_t kVector = 16;
  const std::int64_t window = dims[0] * dims[1], packed = groups * ((outputs / groups + kVector - 1) / kVector) * kVector;
  check_range("the number of weight's taps", window, 1, kMaxElements);
  check_range("the channels that weight sees", inputs * groups, 1, kMaxSize);
  check_range("the number of weight's taps and channels", window * inputs, 1, kMaxElements);
  check_range("the size of weight, in whole vectors", window * inputs * packed, 1, kMaxElements);
  if (bias >= 0) check_range("the size of bias", bias, outputs, outputs);
}

void check_stages(const Shape& in, const std::vector<StageSpec>& stages) {
  check_range("the number of stages", static_cast<std::int64_t>(stages.size()), 1, 3);
  check_shape(in);
  Shape shape = in;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const StageSpec& stage = stages[i];
    if (!stage.weights) throw std::invalid_argument("a stage has no weights, must have them");
    const EagerWeights& w = *stage.weights;
    if (stage.window.kh != w.kh || stage.window.kw != w.kw) throw std::invalid_argument("a stage's window must be its weights'");
    const bool depthwise = w.kind == WeightKind::depthwise;
    if (depthwise) {
      check_range("the rest of the outputs over the channels", w.outputs % shape.c, 0, 0);
    } else {
      check_range("the channels of weight", w.inputs, shape.c, shape.c);
    }
    const bool pointwise = !depthwise && stage.window.pointwise() && w.groups == 1;
    if (w.kind == WeightKind::pointwise && !pointwise) {
      throw std::invalid_argument("a pointwise stage has strides or paddings, must have none");
    }
    // One stage; a window and a pointwise stage; or those two after a pointwise stage.
    const std::size_t place = stages.size() == 3 ? 1 : 0;
    const bool window = depthwise || !stage.window.pointwise();
    if (stages.size() > 1 && !(i == place ? window : pointwise)) {
      throw std::invalid_argument("of several stages the last but one must have the window, and no other");
    }
    shape = windowed(shape, stage.window, w.outputs);
    check_shape(shape);
  }
}

}  // namespace sepconv
