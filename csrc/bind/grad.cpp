// Gradients. What the arrays must look like is checked here; the operators in grad/ take it for granted.
#include "bind/bind.h"
#include "bind/gil.h"
#include "cpu/features.h"
#include "grad/grad.h"

namespace sepconv::bind {
namespace {

template <class T>
using Packed = py::array_t<T, py::array::c_style>;
using Floats = Packed<float>;

std::string text(const std::vector<py::ssize_t>& shape) {
  std::string s = "(";
  for (const py::ssize_t n : shape) s += (s.size() > 1 ? ", " : "") + std::to_string(n);
  return s + ")";
}

template <class T>
void check_shape(const char* name, const Packed<T>& array, const std::vector<py::ssize_t>& must) {
  const std::vector<py::ssize_t> was(array.shape(), array.shape() + array.ndim());
  if (was != must) throw std::invalid_argument(std::string(name) + " had shape " + text(was) + ", must have " + text(must));
}

int size_of(const char* name, py::ssize_t n) {
  if (n < 1 || n > kMaxSize) {
    throw std::invalid_argument(std::string("a dimension of ") + name + " is " + std::to_string(n) + ", must be between 1 and " +
                                std::to_string(kMaxSize));
  }
  return static_cast<int>(n);
}

void check_window(const Window& w, const Shape& in) {
  const int least = std::min({w.stride_h, w.stride_w, w.dilation_h, w.dilation_w});
  const Padding& p = w.padding;
  if (least < 1 || std::min({p.top, p.bottom, p.left, p.right}) < 0) {
    throw std::invalid_argument("stride, dilation or padding is too small, must be at least 1, 1 and 0");
  }
  const int most = std::max({w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, p.top, p.bottom, p.left, p.right});
  const std::int64_t h = std::int64_t{w.kh - 1} * w.dilation_h + 1, width = std::int64_t{w.kw - 1} * w.dilation_w + 1;
  if (most > kMaxSize || h > in.h + p.top + p.bottom || width > in.w + p.left + p.right) {
    throw std::invalid_argument("the window does not fit the padded input");
  }
}

// `out`, which must have the shape of `array`, or where there is none a new array of it.
template <class T>
Packed<T> result_like(const Packed<T>& array, const std::optional<Packed<T>>& out) {
  const std::vector<py::ssize_t> shape(array.shape(), array.shape() + array.ndim());
  if (out) check_shape("out", *out, shape);
  return out ? *out : Packed<T>(shape);
}

// Gives a task its arrays, and returns the new ones: the gradients of x, into `out` where it is there, and of weight and
// bias, or None for those that `needs` leaves out.
template <class Task>
py::tuple connect(Task& task, const Floats& x, const Floats& weight, const Floats& dy, const std::array<bool, 2>& needs,
                  const std::optional<Floats>& out = {}) {
  task.x = x.data();
  task.weights = weight.data();
  task.dy = dy.data();
  py::object dx = py::none(), dweight = py::none(), dbias = py::none();
  if (needs[0]) {
    Floats array = result_like(x, out);
    task.dx = array.mutable_data();
    dx = array;
  }
  if (needs[1]) {
    Floats array = result_like(weight, {}), bias(weight.shape(0));
    task.dweights = array.mutable_data();
    task.dbias = bias.mutable_data();
    dweight = array;
    dbias = bias;
  }
  return py::make_tuple(dx, dweight, dbias);
}

// x [n, h, w, C], weight [C*M, 1, kh, kw], dy [n, oh, ow, C*M]; `needs`: of x, of weight and bias.
py::tuple depthwise(const Floats& x, const Floats& weight, const Floats& dy, const Pair& stride, const PaddingPairs& padding,
                    const Pair& dilation, const std::array<bool, 2>& needs, int threads) {
  check_threads(threads);
  if (x.ndim() != 4 || weight.ndim() != 4) throw std::invalid_argument("x and weight must have 4 dimensions");
  DepthwiseGrad task{};
  task.images = x.shape(0);
  task.in = {size_of("x", x.shape(1)), size_of("x", x.shape(2)), size_of("x", x.shape(3))};
  const int outputs = size_of("weight", weight.shape(0));
  task.window = to_window({size_of("weight", weight.shape(2)), size_of("weight", weight.shape(3))}, stride, padding, dilation);
  if (outputs % task.in.c != 0) throw std::invalid_argument("weight's first dimension must be a multiple of x's channels");
  task.multiplier = outputs / task.in.c;
  check_shape("weight", weight, {outputs, 1, task.window.kh, task.window.kw});
  check_window(task.window, task.in);
  check_shape("dy", dy, {x.shape(0), task.window.out_h(task.in.h), task.window.out_w(task.in.w), outputs});
  py::tuple gradients = connect(task, x, weight, dy, needs);
  interruptibly([&] { depthwise_grad(task, threads, kernels()); });
  return gradients;
}

// x [pixels, C], weight [N, C], dy [pixels, N]; `needs` as above.
py::tuple pointwise(const Floats& x, const Floats& weight, const Floats& dy, const std::array<bool, 2>& needs, int threads,
                    const std::optional<Floats>& out) {
  check_threads(threads);
  if (x.ndim() != 2 || weight.ndim() != 2) throw std::invalid_argument("x and weight must have 2 dimensions");
  PointwiseGrad task{};
  task.pixels = x.shape(0);
  task.channels = size_of("x", x.shape(1));
  task.outputs = size_of("weight", weight.shape(0));
  check_shape("weight", weight, {task.outputs, task.channels});
  check_shape("dy", dy, {x.shape(0), task.outputs});
  py::tuple gradients = connect(task, x, weight, dy, needs, out);
  interruptibly([&] { pointwise_grad(task, threads, kernels()); });
  return gradients;
}

// [n, rows, columns] as [n, columns, rows], into `into` where it is there.
Floats transposed(const Floats& in, int threads, const std::optional<Floats>& into) {
  check_threads(threads);
  if (in.ndim() != 3) throw std::invalid_argument("in must have 3 dimensions");
  const std::vector<py::ssize_t> shape{in.shape(0), in.shape(2), in.shape(1)};
  if (into) check_shape("out", *into, shape);
  Floats out = into ? *into : Floats(shape);
  const float* const from = in.data();
  float* const to = out.mutable_data();
  interruptibly([&] { transpose_images(from, to, in.shape(0), in.shape(1), in.shape(2), threads, kernels()); });
  return out;
}

template <class T>
Packed<T> activation(const std::string& name, const Packed<T>& value, const Packed<T>& dy, int threads,
                     const std::optional<Packed<T>>& into) {
  check_threads(threads);
  check_shape("dy", dy, std::vector<py::ssize_t>(value.shape(), value.shape() + value.ndim()));
  Packed<T> out = result_like(value, into);
  const T* const from = value.data();
  const T* const gradient = dy.data();
  T* const to = out.mutable_data();
  const py::ssize_t size = out.size();
  const Activation kind = to_activation(name);
  interruptibly([&] { activation_grad(kind, from, gradient, to, size, threads); });
  return out;
}

}  // namespace

void add_grad(py::module_& module) {
  using py::arg;
  module.def("depthwise_grad", &depthwise, arg("x").noconvert(), arg("weight").noconvert(), arg("dy").noconvert(),
             arg("stride"), arg("padding"), arg("dilation"), arg("needs"), arg("threads"));
  module.def("pointwise_grad", &pointwise, arg("x").noconvert(), arg("weight").noconvert(), arg("dy").noconvert(),
             arg("needs"), arg("threads"), arg("out").noconvert() = py::none());
  module.def("transposed", &transposed, arg("x").noconvert(), arg("threads"), arg("out").noconvert() = py::none());
  module.def("activation_grad", &activation<float>, arg("activation"), arg("value").noconvert(), arg("dy").noconvert(),
             arg("threads"), arg("out").noconvert() = py::none());
  module.def("activation_grad", &activation<double>, arg("activation"), arg("value").noconvert(), arg("dy").noconvert(),
             arg("threads"), arg("out").noconvert() = py::none());
}

}  // namespace sepconv::bind
