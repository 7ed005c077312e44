// Small networks with random weights, layer by layer.
#pragma once

#include <string>
#include <vector>

#include "graph/graph.h"
#include "kernel_testing.h"

namespace sepconv::test {

class Network {
 public:
  explicit Network(const std::string& isa, std::uint32_t seed = 1) : graph_(kernels(isa)), random_(seed) {}

  int input(Shape shape) { return graph_.input("input", shape); }

  int conv(int x, int kernel, int stride, int outputs, Activation activation = Activation::relu6) {
    const std::array<int, 4> dims{kernel, kernel, graph_.shape(x).c, outputs};
    const std::vector<float> w = weights(dims), bias = draw(random_, outputs, Values::real);
    const VectorView b = vector(bias);
    return graph_.conv2d(name("conv"), x, view(w, dims), &b, nullptr, window(kernel, stride), activation);
  }

  int depthwise(int x, int kernel, int stride, int multiplier = 1, Activation activation = Activation::relu) {
    const std::array<int, 4> dims{kernel, kernel, graph_.shape(x).c, multiplier};
    const std::vector<float> w = weights(dims);
    return graph_.depthwise_conv2d(name("depthwise"), x, view(w, dims), nullptr, nullptr, window(kernel, stride), activation);
  }

  int inverted_residual(int x) {
    const int expanded = conv(x, 1, 1, 2 * graph_.shape(x).c + 3);
    const int projected = conv(depthwise(expanded, 3, 1), 1, 1, graph_.shape(x).c, Activation::none);
    return graph_.add(name("add"), x, projected, Activation::none);
  }

  int fully_connected(int x, int outputs) {
    const std::array<int, 4> dims{1, 1, static_cast<int>(graph_.shape(x).elements()), outputs};
    const std::vector<float> w = weights(dims);
    return graph_.fully_connected(name("logits"), x, view(w, dims), nullptr, Activation::none);
  }

  int prelu(int x) {
    const std::vector<float> slope = weights({1, 1, 1, graph_.shape(x).c});
    return graph_.prelu(name("prelu"), x, vector(slope));
  }

  int layer_norm(int x) {
    const std::vector<float> scale = weights({1, 1, 1, graph_.shape(x).c}), bias = weights({1, 1, 1, graph_.shape(x).c});
    const VectorView views[] = {vector(scale), vector(bias)};
    return graph_.layer_norm(name("norm"), x, &views[0], &views[1], 1e-3);
  }

  static WeightView view(const std::vector<float>& w, const std::array<int, 4>& d) {
    const std::ptrdiff_t n = sizeof(float);
    return {reinterpret_cast<const char*>(w.data()), {n * d[1] * d[2] * d[3], n * d[2] * d[3], n * d[3], n}, d};
  }
  static VectorView vector(const std::vector<float>& v) {
    return {reinterpret_cast<const char*>(v.data()), sizeof(float), static_cast<std::int64_t>(v.size())};
  }
  static Window window(int kernel, int stride) {
    const int before = (kernel - 1) / 2, after = kernel / 2;
    return {kernel, kernel, stride, stride, 1, 1, {before, after, before, after}};
  }

  std::string name(const char* kind) { return kind + std::to_string(graph_.nodes().size()); }
  Graph& graph() { return graph_; }
  Random& random() { return random_; }

 private:
  std::vector<float> weights(const std::array<int, 4>& d) {
    std::vector<float> w = draw(random_, std::size_t{1} * d[0] * d[1] * d[2] * d[3], Values::real);
    for (float& x : w) x *= 0.3f;
    return w;
  }

  Graph graph_;
  Random random_;
};

}  // namespace sepconv::test
