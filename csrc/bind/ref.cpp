// The oracles, in float64, for model.verify() and the tests. Images are [h, w, c].
#include "bind/bind.h"
#include "ref/channels.h"
#include "ref/conv.h"
#include "ref/elementwise.h"
#include "ref/grad.h"
#include "ref/pool.h"

namespace sepconv::bind {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

ref::Tensor to_tensor(const Doubles& x) {
  if (x.ndim() != 3) throw std::invalid_argument("x has rank " + std::to_string(x.ndim()) + ", must have 3: [h, w, c]");
  ref::Tensor tensor({static_cast<int>(x.shape(0)), static_cast<int>(x.shape(1)), static_cast<int>(x.shape(2))});
  std::copy(x.data(), x.data() + x.size(), tensor.data.begin());
  return tensor;
}

Doubles to_array(const Shape& s, const std::vector<double>& data) {
  Doubles out(std::vector<py::ssize_t>{s.h, s.w, s.c});
  std::copy(data.begin(), data.end(), out.mutable_data());
  return out;
}

Doubles to_array(const ref::Tensor& t) { return to_array(t.shape, t.data); }

std::span<const double> values(const Doubles& a) { return {a.data(), static_cast<std::size_t>(a.size())}; }

// The oracles hold the GIL; between output rows they let signal handlers run.
const ref::Poll kPoll{[](void*) { return PyErr_CheckSignals() == 0; }, nullptr};

template <class Oracle>
auto interruptible(Oracle oracle) {
  try {
    return oracle();
  } catch (const ref::Interrupted&) {
    throw py::error_already_set();
  }
}

using ConvOracle = ref::Tensor (*)(const ref::Tensor&, std::span<const double>, std::span<const double>, const Window&,
                                   std::vector<double>*, const ref::Poll&);

// Returns (result, Σ|x·w| + |bias|).
template <ConvOracle Oracle>
py::tuple conv(const Doubles& x, const Doubles& weight, const Doubles& bias, const Pair& stride, const PaddingPairs& padding,
               const Pair& dilation) {
  if (weight.ndim() != 4) throw std::invalid_argument("weight has rank " + std::to_string(weight.ndim()) + ", must have 4");
  const Pair kernel{static_cast<int>(weight.shape(0)), static_cast<int>(weight.shape(1))};
  std::vector<double> magnitude;
  const ref::Tensor y = interruptible([&] {
    return Oracle(to_tensor(x), values(weight), values(bias), to_window(kernel, stride, padding, dilation), &magnitude, kPoll);
  });
  return py::make_tuple(to_array(y), to_array(y.shape, magnitude));
}

py::tuple grad(const ref::ConvGrad& g, const std::vector<py::ssize_t>& weight_shape) {
  Doubles weight(weight_shape), bias(static_cast<py::ssize_t>(g.bias.size()));
  std::copy(g.weights.begin(), g.weights.end(), weight.mutable_data());
  std::copy(g.bias.begin(), g.bias.end(), bias.mutable_data());
  return py::make_tuple(to_array(g.x), weight, bias);
}

}  // namespace

void add_ref(py::module_& module) {
  using py::arg;
  py::module_ m = module.def_submodule("ref", "Naive oracles in float64 over one image [h, w, c].");
  m.def("conv2d", &conv<&ref::conv2d>, arg("x"), arg("weight"), arg("bias"), arg("stride"), arg("padding"), arg("dilation"));
  m.def("depthwise_conv2d", &conv<&ref::depthwise_conv2d>, arg("x"), arg("weight"), arg("bias"), arg("stride"),
        arg("padding"), arg("dilation"));
  // Each returns the gradients with respect to (x, weight, bias).
  m.def("depthwise_grad",
        [](const Doubles& x, const Doubles& weight, const Doubles& dy, const Pair& stride, const PaddingPairs& padding,
           const Pair& dilation) {
          if (weight.ndim() != 4) throw std::invalid_argument("weight must have 4 dimensions");
          const Pair kernel{static_cast<int>(weight.shape(0)), static_cast<int>(weight.shape(1))};
          const Window window = to_window(kernel, stride, padding, dilation);
          const ref::ConvGrad g = interruptible(
              [&] { return ref::depthwise_grad(to_tensor(x), values(weight), to_tensor(dy), window, kPoll); });
          return grad(g, {weight.shape(0), weight.shape(1), weight.shape(2), weight.shape(3)});
        },
        arg("x"), arg("weight"), arg("dy"), arg("stride"), arg("padding"), arg("dilation"));
  m.def("pointwise_grad",
        [](const Doubles& x, const Doubles& weight, const Doubles& dy) {
          if (weight.ndim() != 2) throw std::invalid_argument("weight must have 2 dimensions");
          const ref::ConvGrad g =
              interruptible([&] { return ref::pointwise_grad(to_tensor(x), values(weight), to_tensor(dy), kPoll); });
          return grad(g, {weight.shape(0), weight.shape(1)});
        },
        arg("x"), arg("weight"), arg("dy"));
  m.def("average_pool2d",
        [](const Doubles& x, const Pair& kernel, const Pair& stride, const PaddingPairs& padding, bool include_padding) {
          return to_array(interruptible([&] {
            return ref::average_pool(to_tensor(x), to_window(kernel, stride, padding, {1, 1}), include_padding, kPoll);
          }));
        },
        arg("x"), arg("kernel"), arg("stride"), arg("padding"), arg("include_padding"));
  m.def("max_pool2d",
        [](const Doubles& x, const Pair& kernel, const Pair& stride, const PaddingPairs& padding) {
          return to_array(
              interruptible([&] { return ref::max_pool(to_tensor(x), to_window(kernel, stride, padding, {1, 1}), kPoll); }));
        },
        arg("x"), arg("kernel"), arg("stride"), arg("padding"));
  m.def("global_average_pool",
        [](const Doubles& x) { return to_array(interruptible([&] { return ref::global_average_pool(to_tensor(x), kPoll); })); },
        arg("x"));
  m.def("activate",
        [](const std::string& activation, const Doubles& x) { return to_array(ref::activate(to_activation(activation), to_tensor(x))); },
        arg("activation"), arg("x"));
  m.def("mul", [](const Doubles& a, const Doubles& b) { return to_array(ref::mul(to_tensor(a), to_tensor(b))); }, arg("a"), arg("b"));
  m.def("concat",
        [](const std::vector<Doubles>& inputs) {
          std::vector<ref::Tensor> tensors;
          for (const Doubles& x : inputs) tensors.push_back(to_tensor(x));
          return to_array(ref::concat(tensors));
        },
        arg("inputs"));
  m.def("channel_slice",
        [](const Doubles& x, int begin, int end) { return to_array(ref::channel_slice(to_tensor(x), begin, end)); },
        arg("x"), arg("begin"), arg("end"));
  m.def("channel_shuffle", [](const Doubles& x, int groups) { return to_array(ref::channel_shuffle(to_tensor(x), groups)); },
        arg("x"), arg("groups"));
  m.def("upsample", [](const Doubles& x, const Pair& size) { return to_array(ref::upsample(to_tensor(x), size[0], size[1])); },
        arg("x"), arg("size"));
  m.def("layer_norm",
        [](const Doubles& x, const std::vector<double>& scale, const std::vector<double>& bias, double epsilon) {
          return to_array(ref::layer_norm(to_tensor(x), scale, bias, epsilon));
        },
        arg("x"), arg("scale"), arg("bias"), arg("epsilon"));
  m.def("softmax", [](const Doubles& x, double beta) { return to_array(ref::softmax(to_tensor(x), beta)); }, arg("x"), arg("beta"));
}

}  // namespace sepconv::bind
