#include "graph/graph.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <stdexcept>

namespace sepconv {
namespace {

[[noreturn]] void fail(const std::string& layer, const std::string& what) {
  throw std::invalid_argument("layer '" + layer + "': " + what);
}

void check_range(const std::string& layer, const char* argument, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  fail(layer, std::string(argument) + " is " + std::to_string(value) + ", must be between " + std::to_string(least) + " and " +
                  std::to_string(most));
}

void check_shape(const std::string& layer, const Shape& s) {
  check_range(layer, "height", s.h, 1, kMaxSize);
  check_range(layer, "width", s.w, 1, kMaxSize);
  check_range(layer, "channels", s.c, 1, kMaxSize);
  check_range(layer, "number of elements", s.elements(), 1, kMaxElements);
}

void check_length(const std::string& layer, const char* argument, const VectorView& v, int channels) {
  if (v.size != channels) {
    fail(layer, std::string(argument) + " has length " + std::to_string(v.size) + ", must have the number of output channels, " +
                    std::to_string(channels));
  }
}

std::vector<float> floats(const std::string& layer, const char* argument, const VectorView& v, int channels) {
  check_length(layer, argument, v, channels);
  std::vector<float> result(static_cast<std::size_t>(channels));
  for (int i = 0; i < channels; ++i) result[static_cast<std::size_t>(i)] = static_cast<float>(v.at(i));
  return result;
}

Affine fold(const std::string& layer, const VectorView* bias, const BatchNormView* norm, int channels) {
  Affine affine{std::vector<double>(norm ? channels : 0, 1.0), std::vector<double>(channels, 0.0)};
  if (bias) check_length(layer, "bias", *bias, channels);
  if (norm) {
    check_length(layer, "batch_norm.gamma", norm->gamma, channels);
    check_length(layer, "batch_norm.beta", norm->beta, channels);
    check_length(layer, "batch_norm.mean", norm->mean, channels);
    check_length(layer, "batch_norm.variance", norm->variance, channels);
  }
  for (int i = 0; i < channels; ++i) {
    if (bias) affine.shift[i] = bias->at(i);
    if (norm) {
      affine.scale[i] = norm->gamma.at(i) / std::sqrt(norm->variance.at(i) + norm->epsilon);
      affine.shift[i] = (affine.shift[i] - norm->mean.at(i)) * affine.scale[i] + norm->beta.at(i);
    }
  }
  return affine;
}

void check_weight(const std::string& layer, const WeightView& w, const Window& window, int channels) {
  if (w.dims[0] != window.kh || w.dims[1] != window.kw) fail(layer, "weight does not have the window's height and width");
  for (const int dim : w.dims) check_range(layer, "a dimension of weight", dim, 1, kMaxSize);
  if (w.dims[2] != channels) {
    fail(layer, "weight has " + std::to_string(w.dims[2]) + " input channels, must have those of the input, " +
                    std::to_string(channels));
  }
  check_range(layer, "size of weight", std::int64_t{1} * w.dims[0] * w.dims[1] * w.dims[2], 1, kMaxElements / 64);
}

}  // namespace

double VectorView::at(std::int64_t i) const {
  float x;
  std::memcpy(&x, data + i * stride, sizeof x);
  return x;
}

const Node& Graph::at(int node, const std::string& layer) const {
  if (node < 0 || node >= static_cast<int>(nodes_.size())) {
    fail(layer, "input is node " + std::to_string(node) + ", must be one of the " + std::to_string(nodes_.size()) + " before");
  }
  return nodes_[node];
}

int Graph::append(Node node) {
  check_shape(node.name, node.out);
  nodes_.push_back(std::move(node));
  return static_cast<int>(nodes_.size()) - 1;
}

Shape Graph::windowed(const std::string& name, const Shape& in, const Window& w) const {
  check_range(name, "kernel height", w.kh, 1, kMaxSize);
  check_range(name, "kernel width", w.kw, 1, kMaxSize);
  check_range(name, "stride", std::min(w.stride_h, w.stride_w), 1, kMaxSize);
  check_range(name, "stride", std::max(w.stride_h, w.stride_w), 1, kMaxSize);
  check_range(name, "dilation", std::min(w.dilation_h, w.dilation_w), 1, kMaxSize);
  check_range(name, "dilation", std::max(w.dilation_h, w.dilation_w), 1, kMaxSize);
  const Padding& p = w.padding;
  check_range(name, "padding", std::min({p.top, p.bottom, p.left, p.right}), 0, kMaxSize);
  check_range(name, "padding", std::max({p.top, p.bottom, p.left, p.right}), 0, kMaxSize);
  check_range(name, "height of the window (dilation included)", std::int64_t{w.kh - 1} * w.dilation_h + 1, 1,
              std::int64_t{in.h} + p.top + p.bottom);
  check_range(name, "width of the window (dilation included)", std::int64_t{w.kw - 1} * w.dilation_w + 1, 1,
              std::int64_t{in.w} + p.left + p.right);
  return {w.out_h(in.h), w.out_w(in.w), in.c};
}

int Graph::input(const std::string& name, Shape shape) { return append({NodeKind::input, name, {}, shape, {}}); }

int Graph::conv2d(const std::string& name, int x, const WeightView& weight, const VectorView* bias, const BatchNormView* norm,
                  const Window& window, Activation activation) {
  Node node{NodeKind::conv, name, {x}, windowed(name, at(x, name).out, window), window, activation};
  check_weight(name, weight, window, node.out.c);
  node.out.c = weight.dims[3];
  check_shape(name, node.out);
  node.gemm = std::make_shared<PackedGemm>(weight, fold(name, bias, norm, node.out.c), *table_, *store_);
  return append(std::move(node));
}

int Graph::depthwise_conv2d(const std::string& name, int x, const WeightView& weight, const VectorView* bias,
                            const BatchNormView* norm, const Window& window, Activation activation) {
  Node node{NodeKind::depthwise, name, {x}, windowed(name, at(x, name).out, window), window, activation};
  check_weight(name, weight, window, node.out.c);
  node.multiplier = weight.dims[3];
  check_range(name, "number of output channels", std::int64_t{1} * node.out.c * node.multiplier, 1, kMaxSize);
  node.out.c *= node.multiplier;
  check_shape(name, node.out);
  node.depthwise = std::make_shared<PackedDepthwise>(weight, fold(name, bias, norm, node.out.c), *table_, *store_);
  return append(std::move(node));
}

// A convolution whose window is the whole input: k then runs in NHWC order, as the flattened input does.
int Graph::fully_connected(const std::string& name, int x, const WeightView& weight, const VectorView* bias,
                           Activation activation) {
  const Shape in = at(x, name).out;
  if (weight.dims[0] != 1 || weight.dims[1] != 1 || weight.dims[2] != in.elements()) {
    fail(name, "weight has " + std::to_string(weight.dims[2]) + " rows, must have the number of input elements, " +
                   std::to_string(in.elements()));
  }
  Window window;
  window.kh = in.h;
  window.kw = in.w;
  WeightView split = weight;
  split.dims = {in.h, in.w, in.c, weight.dims[3]};
  split.strides = {weight.strides[2] * in.w * in.c, weight.strides[2] * in.c, weight.strides[2], weight.strides[3]};
  return conv2d(name, x, split, bias, nullptr, window, activation);
}

int Graph::add(const std::string& name, int a, int b, Activation activation) {
  const Shape shape = at(a, name).out;
  if (!(at(b, name).out == shape)) fail(name, "the two inputs have different shapes, must have the same");
  return append({NodeKind::add, name, {a, b}, shape, {}, activation});
}

int Graph::mul(const std::string& name, int a, int b, Activation activation) {
  const Shape shape = at(a, name).out, other = at(b, name).out;
  if (!(other == shape) && !(other == Shape{1, 1, shape.c})) {
    fail(name, "the second input has another shape, must have the first's or one pixel of as many channels");
  }
  return append({NodeKind::mul, name, {a, b}, shape, {}, activation});
}

int Graph::average_pool2d(const std::string& name, int x, const Window& window, bool include_padding, Activation activation) {
  Node node{NodeKind::average_pool, name, {x}, windowed(name, at(x, name).out, window), window, activation};
  node.include_padding = include_padding;
  check_range(name, "padding", std::max(window.padding.top, window.padding.bottom), 0, window.kh - 1);
  check_range(name, "padding", std::max(window.padding.left, window.padding.right), 0, window.kw - 1);
  return append(std::move(node));
}

int Graph::max_pool2d(const std::string& name, int x, const Window& window, Activation activation) {
  const int node = average_pool2d(name, x, window, false, activation);
  nodes_[node].kind = NodeKind::max_pool;
  return node;
}

int Graph::global_average_pool(const std::string& name, int x) {
  const Shape in = at(x, name).out;
  return append({NodeKind::global_average, name, {x}, {1, 1, in.c}, {}});
}

int Graph::activation(const std::string& name, int x, Activation activation) {
  return append({NodeKind::activation, name, {x}, at(x, name).out, {}, activation});
}

int Graph::softmax(const std::string& name, int x, float beta) {
  Node node{NodeKind::softmax, name, {x}, at(x, name).out, {}};
  node.beta = beta;
  return append(std::move(node));
}

int Graph::prelu(const std::string& name, int x, const VectorView& slope) {
  Node node{NodeKind::prelu, name, {x}, at(x, name).out, {}};
  node.slopes = std::make_shared<const std::vector<float>>(floats(name, "slope", slope, node.out.c));
  return append(std::move(node));
}

int Graph::layer_norm(const std::string& name, int x, const VectorView* scale, const VectorView* bias, double epsilon) {
  Node node{NodeKind::layer_norm, name, {x}, at(x, name).out, {}};
  const auto values = [&](const char* argument, const VectorView* v, float missing) {
    return v ? floats(name, argument, *v, node.out.c) : std::vector<float>(static_cast<std::size_t>(node.out.c), missing);
  };
  if (!(epsilon >= 0 && std::isfinite(epsilon))) {
    fail(name, "epsilon is " + std::to_string(epsilon) + ", must be a finite number of at least 0");
  }
  node.norm = std::make_shared<const LayerNorm>(LayerNorm{values("scale", scale, 1.0f), values("bias", bias, 0.0f), epsilon});
  return append(std::move(node));
}

int Graph::pad(const std::string& name, int x, const Padding& p) {
  const Shape in = at(x, name).out;
  Window window;
  window.padding = p;
  check_range(name, "padding", std::min({p.top, p.bottom, p.left, p.right}), 0, kMaxSize);
  check_range(name, "padding", std::max({p.top, p.bottom, p.left, p.right}), 0, kMaxSize);
  return append({NodeKind::pad, name, {x}, {in.h + p.top + p.bottom, in.w + p.left + p.right, in.c}, window});
}

int Graph::reshape(const std::string& name, int x, Shape shape) {
  check_shape(name, shape);
  if (shape.elements() != at(x, name).out.elements()) {
    fail(name, "shape has " + std::to_string(shape.elements()) + " elements, must have the input's, " +
                   std::to_string(at(x, name).out.elements()));
  }
  return append({NodeKind::reshape, name, {x}, shape, {}});
}

int Graph::concat(const std::string& name, const std::vector<int>& inputs) {
  check_range(name, "number of inputs", static_cast<std::int64_t>(inputs.size()), 1, kMaxSize);
  const Shape first = at(inputs[0], name).out;
  std::int64_t channels = 0;
  for (const int input : inputs) {
    const Shape& in = at(input, name).out;
    if (in.h != first.h || in.w != first.w) fail(name, "the inputs have different heights or widths, must have the same");
    channels += in.c;
  }
  check_range(name, "channels", channels, 1, kMaxSize);
  // An operator takes so many inputs at most: of more, neighbours are put together first, and these again.
  const auto join = [&](std::span<const int> parts) {
    Node node{NodeKind::channels, name, {parts.begin(), parts.end()}, {first.h, first.w, 0}, {}};
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const int own = nodes_[parts[i]].out.c;
      for (int c = 0; c < own; ++c) node.sources.push_back({static_cast<int>(i), c});
      node.out.c += own;
    }
    return append(std::move(node));
  };
  std::vector<int> parts = inputs;
  while (parts.size() > kMaxChannelInputs) {
    std::vector<int> fewer;
    std::size_t excess = parts.size() - kMaxChannelInputs;
    for (std::size_t i = 0, count; i < parts.size(); i += count) {
      count = std::min({std::size_t{kMaxChannelInputs}, excess + 1, parts.size() - i});
      excess -= count - 1;
      fewer.push_back(count == 1 ? parts[i] : join({&parts[i], count}));
    }
    parts = std::move(fewer);
  }
  return join(parts);
}

int Graph::channel_slice(const std::string& name, int x, int begin, int end) {
  const Shape in = at(x, name).out;
  check_range(name, "end", end, 1, in.c);
  check_range(name, "begin", begin, 0, end - 1);
  Node node{NodeKind::channels, name, {x}, {in.h, in.w, end - begin}, {}};
  for (int c = begin; c < end; ++c) node.sources.push_back({0, c});
  return append(std::move(node));
}

int Graph::channel_shuffle(const std::string& name, int x, int groups) {
  const Shape in = at(x, name).out;
  check_range(name, "groups", groups, 1, in.c);
  if (in.c % groups != 0) fail(name, "groups is " + std::to_string(groups) + ", must divide the channels, " + std::to_string(in.c));
  Node node{NodeKind::channels, name, {x}, in, {}};
  for (int c = 0; c < in.c; ++c) node.sources.push_back({0, c % groups * (in.c / groups) + c / groups});
  return append(std::move(node));
}

int Graph::upsample(const std::string& name, int x, int height, int width) {
  const Shape in = at(x, name).out;
  check_range(name, "height", height, in.h, kMaxSize);
  check_range(name, "width", width, in.w, kMaxSize);
  return append({NodeKind::upsample, name, {x}, {height, width, in.c}, {}});
}

void Graph::output(int x) {
  (void)at(x, "output");
  outputs_.push_back(x);
}

}  // namespace sepconv
