// A network as nodes in order of execution, each with its packed weights. Adding a node checks everything about it;
// every error is a std::invalid_argument that names the layer and the argument.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "ops/operators.h"
#include "pack/pack.h"

namespace sepconv {

enum class NodeKind {
  input, conv, depthwise, add, mul, average_pool, max_pool, global_average, activation, softmax,
  layer_norm, prelu, pad, reshape, channels, upsample,
  from_nhwc, to_nhwc
};

struct Node {
  NodeKind kind;
  std::string name;
  std::vector<int> inputs;             // of nodes; for add and mul two, for channels any number
  Shape out;
  Window window;                       // conv, depthwise, pools; pad keeps its padding here
  Activation activation = Activation::none;
  bool include_padding = false;        // average_pool
  int multiplier = 1;                  // depthwise
  float beta = 1.0f;                   // softmax
  bool flushes = false;                // from_nhwc: whether denormals become zeros there
  int residual = -1;                   // conv: a node to add before the activation; set by fusion
  std::vector<std::string> fused{};    // names of the layers whose work fusion moved into this node
  std::vector<ChannelSource> sources{};  // channels: where each of its channels comes from
  std::shared_ptr<const PackedGemm> gemm{};
  std::shared_ptr<const PackedDepthwise> depthwise{};
  std::shared_ptr<const LayerNorm> norm{};  // layer_norm
  std::shared_ptr<const std::vector<float>> slopes{};  // prelu
};

// Per-channel float arrays, strides in bytes.
struct VectorView {
  const char* data;
  std::ptrdiff_t stride;
  std::int64_t size;
  double at(std::int64_t i) const;
};

struct BatchNormView {
  VectorView gamma, beta, mean, variance;
  double epsilon;
};

class Graph {
 public:
  // `weight_bytes`: what its convolutions' weights take at least, so that they get memory together.
  explicit Graph(const KernelTable& table, std::size_t weight_bytes = 0)
      : table_(&table), store_(std::make_shared<WeightStore>(WeightStore::of_network(weight_bytes))) {}

  // Each returns the new node's index, which later nodes refer to.
  int input(const std::string& name, Shape shape);
  int conv2d(const std::string& name, int x, const WeightView& weight, const VectorView* bias, const BatchNormView* norm,
             const Window& window, Activation activation);
  int depthwise_conv2d(const std::string& name, int x, const WeightView& weight, const VectorView* bias,
                       const BatchNormView* norm, const Window& window, Activation activation);
  int fully_connected(const std::string& name, int x, const WeightView& weight, const VectorView* bias, Activation activation);
  int add(const std::string& name, int a, int b, Activation activation);
  int mul(const std::string& name, int a, int b, Activation activation);  // b: of a's shape, or 1×1×c
  int average_pool2d(const std::string& name, int x, const Window& window, bool include_padding, Activation activation);
  int max_pool2d(const std::string& name, int x, const Window& window, Activation activation);
  int global_average_pool(const std::string& name, int x);
  int activation(const std::string& name, int x, Activation activation);
  int softmax(const std::string& name, int x, float beta);
  int prelu(const std::string& name, int x, const VectorView& slope);  // of each channel
  // Over channels; scale and bias may be nullptr.
  int layer_norm(const std::string& name, int x, const VectorView* scale, const VectorView* bias, double epsilon);
  int pad(const std::string& name, int x, const Padding& padding);
  int reshape(const std::string& name, int x, Shape shape);
  int concat(const std::string& name, const std::vector<int>& inputs);
  int channel_slice(const std::string& name, int x, int begin, int end);
  int channel_shuffle(const std::string& name, int x, int groups);
  int upsample(const std::string& name, int x, int height, int width);
  void output(int x);

  const KernelTable& table() const { return *table_; }
  const std::shared_ptr<WeightStore>& store() const { return store_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<int>& outputs() const { return outputs_; }
  Shape shape(int node) const { return at(node, "shape").out; }

 private:
  const Node& at(int node, const std::string& layer) const;
  int append(Node node);
  Shape windowed(const std::string& name, const Shape& in, const Window& window) const;

  const KernelTable* table_;
  std::shared_ptr<WeightStore> store_;
  std::vector<Node> nodes_;
  std::vector<int> outputs_;
};

}  // namespace sepconv
