#include "bind/bind.h"
#include "cpu/features.h"
#include "graph/graph.h"

namespace sepconv::bind {
namespace {

using FloatArray = py::array_t<float, 0>;  // float32, any strides
using BatchNormTuple = std::tuple<FloatArray, FloatArray, FloatArray, FloatArray, double>;

WeightView to_weight(const FloatArray& w) {
  if (w.ndim() != 4) throw std::invalid_argument("weight has rank " + std::to_string(w.ndim()) + ", must have 4");
  WeightView view{reinterpret_cast<const char*>(w.data()), {}, {}};
  for (int i = 0; i < 4; ++i) {
    if (w.shape(i) > (1 << 30)) throw std::invalid_argument("weight has a dimension of over 2^30");
    view.strides[i] = w.strides(i);
    view.dims[i] = static_cast<int>(w.shape(i));
  }
  return view;
}

VectorView to_vector(const FloatArray& v) {
  if (v.ndim() != 1) throw std::invalid_argument("a per-channel array has rank " + std::to_string(v.ndim()) + ", must have 1");
  return {reinterpret_cast<const char*>(v.data()), v.strides(0), v.shape(0)};
}

// Keeps the views that a convolution needs together; the arrays outlive it in the caller's arguments.
struct ConvArguments {
  WeightView weight;
  std::optional<VectorView> bias;
  std::optional<BatchNormView> norm;

  ConvArguments(const FloatArray& w, const std::optional<FloatArray>& b, const std::optional<BatchNormTuple>& n)
      : weight(to_weight(w)) {
    if (b) bias = to_vector(*b);
    if (n) {
      norm = BatchNormView{to_vector(std::get<0>(*n)), to_vector(std::get<1>(*n)), to_vector(std::get<2>(*n)),
                           to_vector(std::get<3>(*n)), std::get<4>(*n)};
    }
  }
  const VectorView* bias_or_null() const { return bias ? &*bias : nullptr; }
  const BatchNormView* norm_or_null() const { return norm ? &*norm : nullptr; }
};

using ConvMethod = int (Graph::*)(const std::string&, int, const WeightView&, const VectorView*, const BatchNormView*,
                                  const Window&, Activation);

template <ConvMethod Method>
int add_conv(Graph& graph, const std::string& name, int x, const FloatArray& weight, const std::optional<FloatArray>& bias,
             const std::optional<BatchNormTuple>& batch_norm, const Pair& stride, const PaddingPairs& padding,
             const Pair& dilation, const std::string& activation) {
  const ConvArguments a(weight, bias, batch_norm);
  const Window window = to_window({a.weight.dims[0], a.weight.dims[1]}, stride, padding, dilation);
  return (graph.*Method)(name, x, a.weight, a.bias_or_null(), a.norm_or_null(), window, to_activation(activation));
}

}  // namespace

void add_graph(py::module_& module) {
  using py::arg;
  py::class_<Graph>(module, "Graph")
      .def("__init__", constructor(+[](const std::optional<std::string>& isa, std::size_t weight_bytes) {
             return std::make_unique<Graph>(isa ? kernels(*isa) : kernels(), weight_bytes);
           }),
           NewStyle(), arg("isa") = py::none(), arg("weight_bytes") = 0)
      .def("input", [](Graph& g, const std::string& name, const std::array<int, 3>& shape) { return g.input(name, to_shape(shape)); },
           arg("name"), arg("shape"))
      .def("conv2d", &add_conv<&Graph::conv2d>, arg("name"), arg("x"), arg("weight"), arg("bias"), arg("batch_norm"),
           arg("stride"), arg("padding"), arg("dilation"), arg("activation"))
      .def("depthwise_conv2d", &add_conv<&Graph::depthwise_conv2d>, arg("name"), arg("x"), arg("weight"), arg("bias"),
           arg("batch_norm"), arg("stride"), arg("padding"), arg("dilation"), arg("activation"))
      .def("fully_connected",
           [](Graph& g, const std::string& name, int x, const FloatArray& weight, const std::optional<FloatArray>& bias,
              const std::string& activation) {
             const ConvArguments a(weight, bias, std::nullopt);
             return g.fully_connected(name, x, a.weight, a.bias_or_null(), to_activation(activation));
           },
           arg("name"), arg("x"), arg("weight"), arg("bias"), arg("activation"))
      .def("add", [](Graph& g, const std::string& name, int a, int b,
                     const std::string& activation) { return g.add(name, a, b, to_activation(activation)); },
           arg("name"), arg("a"), arg("b"), arg("activation"))
      .def("mul", [](Graph& g, const std::string& name, int a, int b,
                     const std::string& activation) { return g.mul(name, a, b, to_activation(activation)); },
           arg("name"), arg("a"), arg("b"), arg("activation"))
      .def("average_pool2d",
           [](Graph& g, const std::string& name, int x, const Pair& kernel, const Pair& stride, const PaddingPairs& padding,
              bool include_padding, const std::string& activation) {
             return g.average_pool2d(name, x, to_window(kernel, stride, padding, {1, 1}), include_padding,
                                     to_activation(activation));
           },
           arg("name"), arg("x"), arg("kernel"), arg("stride"), arg("padding"), arg("include_padding"), arg("activation"))
      .def("max_pool2d",
           [](Graph& g, const std::string& name, int x, const Pair& kernel, const Pair& stride, const PaddingPairs& padding,
              const std::string& activation) {
             return g.max_pool2d(name, x, to_window(kernel, stride, padding, {1, 1}), to_activation(activation));
           },
           arg("name"), arg("x"), arg("kernel"), arg("stride"), arg("padding"), arg("activation"))
      .def("global_average_pool", &Graph::global_average_pool, arg("name"), arg("x"))
      .def("activation", [](Graph& g, const std::string& name, int x,
                            const std::string& activation) { return g.activation(name, x, to_activation(activation)); },
           arg("name"), arg("x"), arg("activation"))
      .def("softmax", &Graph::softmax, arg("name"), arg("x"), arg("beta"))
      .def("prelu", [](Graph& g, const std::string& name, int x,
                       const FloatArray& slope) { return g.prelu(name, x, to_vector(slope)); },
           arg("name"), arg("x"), arg("slope"))
      .def("layer_norm",
           [](Graph& g, const std::string& name, int x, const std::optional<FloatArray>& scale,
              const std::optional<FloatArray>& bias, double epsilon) {
             const std::optional<VectorView> s = scale ? std::optional(to_vector(*scale)) : std::nullopt;
             const std::optional<VectorView> b = bias ? std::optional(to_vector(*bias)) : std::nullopt;
             return g.layer_norm(name, x, s ? &*s : nullptr, b ? &*b : nullptr, epsilon);
           },
           arg("name"), arg("x"), arg("scale"), arg("bias"), arg("epsilon"))
      .def("pad", [](Graph& g, const std::string& name, int x,
                     const PaddingPairs& padding) { return g.pad(name, x, to_padding(padding)); },
           arg("name"), arg("x"), arg("padding"))
      .def("reshape", [](Graph& g, const std::string& name, int x,
                         const std::array<int, 3>& shape) { return g.reshape(name, x, to_shape(shape)); },
           arg("name"), arg("x"), arg("shape"))
      .def("concat", &Graph::concat, arg("name"), arg("inputs"))
      .def("channel_slice", &Graph::channel_slice, arg("name"), arg("x"), arg("begin"), arg("end"))
      .def("channel_shuffle", &Graph::channel_shuffle, arg("name"), arg("x"), arg("groups"))
      .def("upsample", [](Graph& g, const std::string& name, int x, const Pair& size) { return g.upsample(name, x, size[0], size[1]); },
           arg("name"), arg("x"), arg("size"))
      .def("output", &Graph::output, arg("x"))
      .def("shape", [](const Graph& g, int node) { return from_shape(g.shape(node)); }, arg("node"));
}

}  // namespace sepconv::bind
