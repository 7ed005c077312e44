// Graphs of hostile arguments: the bytes say which layers. What the graph takes must run, within its buffers, to the same
// bits on any number of threads and however it is fused; all else must be refused with std::invalid_argument.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/features.h"
#include "graph/graph.h"
#include "graph/plan.h"
#include "fuzzing.h"

namespace sepconv {
namespace {

// Weights that repeat: the stride of the last dimension is real, so that dimensions may claim more than is there.
struct Weights {
  std::vector<float> values;
  WeightView view;

  Weights(Bytes& in, std::array<int, 4> dims) {
    const int outputs = dims[3] > 0 && dims[3] <= 64 ? dims[3] : 1;
    values.resize(outputs);
    for (int i = 0; i < outputs; ++i) values[i] = static_cast<float>((i * 7 + static_cast<int>(in.byte() % 32)) % 13 - 6) / 8;
    const std::ptrdiff_t step = outputs == dims[3] ? sizeof(float) : 0;
    view = {reinterpret_cast<const char*>(values.data()), {0, 0, 0, step}, dims};
  }
};

// Appends one layer to node x; -1 where it would be legal and too much work.
int add_layer(Graph& g, Bytes& in, int x, const std::string& name) {
  const Shape shape = g.shape(x);
  const unsigned kind = in.byte() % 16;
  Window w;
  if (kind <= 3) {
    w = {in.extent(5), in.extent(5), in.extent(3), in.extent(3), in.extent(2), in.extent(2), in.padding()};
    if (kind >= 2) w.dilation_h = w.dilation_w = 1;
  }
  const auto affordable = [&](std::int64_t outputs) {
    return product({w.kh, w.kw, shape.c, outputs}) <= kMaxWork;
  };
  const bool wrong = in.byte() == 255;  // channels that do not fit
  const int channels = shape.c + wrong;
  switch (kind) {
    case 0: {
      const std::array<int, 4> dims{w.kh, w.kw, channels, in.size(40)};
      if (!wrong && dims[3] > 0 && !affordable(dims[3])) return -1;
      const Weights weights(in, dims);
      const float bias_values[64] = {0.5f, -1.0f};
      const VectorView bias{reinterpret_cast<const char*>(bias_values), 4, in.byte() < 250 ? dims[3] : in.size(64)};
      const BatchNormView norm{bias, bias, bias, bias, 2.0};
      const bool small = bias.size <= 64;
      return g.conv2d(name, x, weights.view, small && in.byte() % 2 ? &bias : nullptr,
                      small && in.byte() % 4 == 0 ? &norm : nullptr, w, in.activation());
    }
    case 1: {
      const std::array<int, 4> dims{w.kh, w.kw, channels, in.size(3)};
      if (!wrong && dims[3] > 0 && !affordable(dims[3])) return -1;
      const Weights weights(in, dims);
      return g.depthwise_conv2d(name, x, weights.view, nullptr, nullptr, w, in.activation());
    }
    case 2: return g.average_pool2d(name, x, w, in.byte() % 2, in.activation());
    case 3: return g.max_pool2d(name, x, w, in.activation());
    case 4: {
      const std::int64_t rows = shape.elements() + wrong;
      const int outputs = in.size(30);
      if (rows > kMaxWork || product({rows, outputs}) > kMaxWork) return -1;
      const Weights weights(in, {1, 1, static_cast<int>(rows), outputs});
      return g.fully_connected(name, x, weights.view, nullptr, in.activation());
    }
    case 5: return g.add(name, x, in.byte() % 4 ? x : in.size(static_cast<int>(g.nodes().size())), in.activation());
    case 6: return g.global_average_pool(name, x);
    case 7: return g.activation(name, x, in.activation());
    case 8: return g.softmax(name, x, static_cast<float>(in.size(4)) / 2);
    case 9: return g.pad(name, x, in.padding());
    case 10: return g.mul(name, x, in.byte() % 4 ? x : in.size(static_cast<int>(g.nodes().size())), in.activation());
    case 11: {
      std::vector<int> inputs(in.byte() % 20);
      for (int& input : inputs) input = in.byte() % 4 ? x : in.size(x);
      return g.concat(name, inputs);
    }
    case 12: return g.channel_slice(name, x, in.size(shape.c), in.size(shape.c));
    case 13: return g.channel_shuffle(name, x, in.size(shape.c));
    case 14: return g.upsample(name, x, in.size(20), in.size(20));
    default: {
      const Shape to{in.extent(8), in.extent(8), in.extent(40)};
      if (in.byte() % 4) return g.reshape(name, x, {shape.c, shape.h, shape.w});
      return g.reshape(name, x, to);
    }
  }
}

std::vector<std::vector<float>> run(const Graph& graph, Fusion fusion, std::int64_t images, int threads) {
  const Plan plan(graph, fusion);
  std::vector<std::vector<float>> inputs, outputs;
  std::vector<const float*> from;
  std::vector<float*> to;
  for (const Shape& s : plan.input_shapes()) {
    std::vector<float>& x = inputs.emplace_back(images * s.elements());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 5 % 17) / 8 - 1;
    from.push_back(x.data());
  }
  for (const Shape& s : plan.output_shapes()) to.push_back(outputs.emplace_back(images * s.elements(), kUnwritten).data());
  if (!plan.run(from.data(), to.data(), images, threads, nullptr)) std::abort();
  return outputs;
}

}  // namespace

bool try_graph(Bytes in) {
  static const std::vector<std::string> isas = supported_isas();
  const std::string& isa = isas[in.byte() % isas.size()];
  const unsigned how = in.byte();
  Graph graph(kernels(isa));
  int x = graph.input("x", {in.extent(9), in.extent(9), in.extent(40)});
  const int layers = 1 + static_cast<int>(in.byte() % 4);
  for (int i = 0; i < layers; ++i) {
    x = add_layer(graph, in, x, "y" + std::to_string(i));
    if (x < 0) return false;
    // Legal, but more than an execution can take: great images and great windows.
    const Shape before = graph.shape(graph.nodes()[x].inputs[0]), after = graph.shape(x);
    const Window& w = graph.nodes()[x].window;
    if (product({before.h, before.w, before.c}) > 64 * kMaxWork || product({after.h, after.w, after.c}) > kMaxWork ||
        product({after.h, after.w, after.c, w.kh, w.kw}) > 16 * kMaxWork) {
      return false;
    }
  }
  graph.output(x);
  const std::int64_t images = 1 + how % 3;
  const auto expected = run(graph, Fusion::never, images, 1);
  for (const float y : expected[0]) require(y != kUnwritten, "an output was not written");
  if (how % 8 == 0) {
    const auto fused = run(graph, how % 16 ? Fusion::always : Fusion::automatic, images, how % 64 ? 1 : 3);
    require(std::memcmp(fused[0].data(), expected[0].data(), expected[0].size() * sizeof(float)) == 0,
            "other bits, fused or on threads");
  }
  return true;
}

}  // namespace sepconv
