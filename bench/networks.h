// The shapes that MobileNet V1, V2 (1.0-224) and EfficientNet-Lite0 are made of, by the tables of their papers.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/tensor.h"

namespace sepconv::bench {

enum class Kind { conv, depthwise, pointwise, add, pool, classifier };

struct Layer {
  Kind kind;
  Shape in;
  Window window;
  int outputs;
  friend bool operator==(const Layer& a, const Layer& b) {
    return a.kind == b.kind && a.in == b.in && a.outputs == b.outputs && a.window.kh == b.window.kh &&
           a.window.stride_h == b.window.stride_h;
  }
};

struct Network {
  std::string name;
  std::vector<Layer> layers;
};

// TensorFlow's SAME: the odd element after.
inline Window same_window(const Shape& in, int kernel, int stride) {
  const auto pad = [&](int size) { return std::max(((size + stride - 1) / stride - 1) * stride + kernel - size, 0); };
  const int y = pad(in.h), x = pad(in.w);
  return {.kh = kernel, .kw = kernel, .stride_h = stride, .stride_w = stride,
          .padding = {.top = y / 2, .bottom = y - y / 2, .left = x / 2, .right = x - x / 2}};
}

class NetworkBuilder {
 public:
  explicit NetworkBuilder(std::string name) : network_{std::move(name), {}} {}

  void conv(int kernel, int channels, int stride) {
    append(kernel == 1 ? Kind::pointwise : Kind::conv, kernel, channels, stride);
  }
  void depthwise(int kernel, int stride) { append(Kind::depthwise, kernel, shape_.c, stride); }

  void inverted_residual(int expansion, int channels, int kernel, int stride) {
    const int inputs = shape_.c;
    if (expansion > 1) conv(1, inputs * expansion, 1);
    depthwise(kernel, stride);
    conv(1, channels, 1);
    if (stride == 1 && channels == inputs) append(Kind::add, 1, channels, 1);
  }

  Network finish(int classes = 1000) {
    network_.layers.push_back({Kind::pool, shape_, {.kh = shape_.h, .kw = shape_.w}, shape_.c});
    network_.layers.push_back({Kind::classifier, {1, 1, shape_.c}, {}, classes});
    return std::move(network_);
  }

 private:
  void append(Kind kind, int kernel, int channels, int stride) {
    const Window window = same_window(shape_, kernel, stride);
    network_.layers.push_back({kind, shape_, window, channels});
    shape_ = {window.out_h(shape_.h), window.out_w(shape_.w), channels};
  }

  Network network_;
  Shape shape_{224, 224, 3};
};

struct Stage {
  int expansion, channels, repeats, stride, kernel;
};

inline Network inverted_residuals(const std::string& name, const std::vector<Stage>& stages) {
  NetworkBuilder net(name);
  net.conv(3, 32, 2);
  for (const Stage& s : stages) {
    for (int i = 0; i < s.repeats; ++i) net.inverted_residual(s.expansion, s.channels, s.kernel, i == 0 ? s.stride : 1);
  }
  net.conv(1, 1280, 1);
  return net.finish();
}

inline std::vector<Network> networks() {
  NetworkBuilder v1("v1");
  v1.conv(3, 32, 2);
  const int blocks[][2] = {{64, 1},  {128, 2}, {128, 1}, {256, 2}, {256, 1},  {512, 2}, {512, 1},
                           {512, 1}, {512, 1}, {512, 1}, {512, 1}, {1024, 2}, {1024, 1}};
  for (const auto& [channels, stride] : blocks) {
    v1.depthwise(3, stride);
    v1.conv(1, channels, 1);
  }
  return {v1.finish(),
          inverted_residuals("v2", {{1, 16, 1, 1, 3},
                                    {6, 24, 2, 2, 3},
                                    {6, 32, 3, 2, 3},
                                    {6, 64, 4, 2, 3},
                                    {6, 96, 3, 1, 3},
                                    {6, 160, 3, 2, 3},
                                    {6, 320, 1, 1, 3}}),
          inverted_residuals("lite0", {{1, 16, 1, 1, 3},
                                       {6, 24, 2, 2, 3},
                                       {6, 40, 2, 2, 5},
                                       {6, 80, 3, 2, 3},
                                       {6, 112, 3, 1, 5},
                                       {6, 192, 4, 2, 5},
                                       {6, 320, 1, 1, 3}})};
}

// Each network's layers of one kind, every shape once.
inline std::vector<Layer> distinct(const Network& network, Kind kind) {
  std::vector<Layer> found;
  for (const Layer& layer : network.layers) {
    if (layer.kind == kind && std::find(found.begin(), found.end(), layer) == found.end()) found.push_back(layer);
  }
  return found;
}

}  // namespace sepconv::bench
