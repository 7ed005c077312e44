// Weights and blocks of the eager operators. Arrays come in NHWC order, whatever their strides.
#include "bind/bind.h"
#include "bind/gil.h"
#include "cpu/features.h"
#include "eager/block.h"
#include "eager/check.h"
#include "runtime/thread_pool.h"

namespace sepconv::bind {
namespace {

using FloatArray = py::array_t<float, 0>;  // float32, any strides
using StageTuple = std::tuple<std::shared_ptr<EagerWeights>, Pair, PaddingPairs, Pair, std::string>;

WeightKind to_kind(const std::string& name) {
  if (name == "depthwise") return WeightKind::depthwise;
  if (name == "pointwise") return WeightKind::pointwise;
  if (name == "conv") return WeightKind::dense;
  throw std::invalid_argument("kind is '" + name + "', must be one of depthwise, pointwise, conv");
}

// Weights packed during their call read the caller's array until then: only these keep it. (A keep_alive of pybind11 would
// lose the array where no memory is left to note it.)
struct WeightsOfArray {
  template <class... Args>
  explicit WeightsOfArray(const FloatArray& w, Args&&... args) : weights(std::forward<Args>(args)...) {
    if (!weights.gemm.empty() && weights.gemm.front()->later()) array = w;
  }
  py::object array;
  EagerWeights weights;
};

std::shared_ptr<EagerWeights> make_weights(const std::string& kind, const FloatArray& w,
                                           const std::optional<py::array_t<float, py::array::c_style>>& bias, int groups,
                                           std::int64_t pixels, const std::optional<std::string>& isa) {
  if (w.ndim() != 4) throw std::invalid_argument("weight has rank " + std::to_string(w.ndim()) + ", must have 4");
  WeightView view{reinterpret_cast<const char*>(w.data()), {}, {}};
  if (bias && bias->ndim() != 1) throw std::invalid_argument("bias has rank " + std::to_string(bias->ndim()) + ", must have 1");
  check_weights(to_kind(kind), {w.shape(0), w.shape(1), w.shape(2), w.shape(3)}, groups, bias ? bias->shape(0) : -1);
  for (int i = 0; i < 4; ++i) {
    view.strides[i] = w.strides(i);
    view.dims[i] = static_cast<int>(w.shape(i));
  }
  try {
    const auto made = std::make_shared<WeightsOfArray>(w, to_kind(kind), view, bias ? bias->data() : nullptr, groups, pixels,
                                                       isa ? kernels(*isa) : kernels(), interrupted);
    return {made, &made->weights};
  } catch (const Interrupted&) {
    throw py::error_already_set();
  }
}

// Where the caller's array lies, its axes in the order given; nothing unless it is aligned float32 of the block's shape.
// Aligned as numpy says: what no element is reached by may be anything.
template <class T>
bool view(const py::handle& object, const Shape& s, bool channels_first, BasicPixels<T>* pixels, py::ssize_t* images) {
  if (!py::isinstance<py::array>(object)) return false;
  const py::array array = py::reinterpret_borrow<py::array>(object);
  if (array.ndim() != 4 || !is_float32(array)) return false;
  const int h = channels_first ? 2 : 1, w = h + 1, c = channels_first ? 1 : 3;
  if (array.shape(h) != s.h || array.shape(w) != s.w || array.shape(c) != s.c) return false;
  if (*images >= 0 && array.shape(0) != *images) return false;
  *images = array.shape(0);
  py::ssize_t low = reinterpret_cast<std::uintptr_t>(array.data());
  for (int i = 0; i < 4; ++i) low |= array.shape(i) > 1 ? array.strides(i) : 0;
  if (array.size() > 0 && low % sizeof(float)) return false;
  constexpr py::ssize_t kFloat = sizeof(float);
  pixels->data = static_cast<T*>(const_cast<void*>(array.data()));
  pixels->image = array.strides(0) / kFloat;
  pixels->row = array.strides(h) / kFloat;
  pixels->pixel = array.strides(w) / kFloat;
  pixels->channel = s.c == 1 ? 1 : array.strides(c) / kFloat;
  return true;
}

void run(const EagerBlock& block, const ConstPixels& in, const ConstPixels& addend, const Pixels& out, py::ssize_t images,
         int threads) {
  check_threads(threads, 0);
  const bool finished = without_gil(
      [&] { return block.run(in, addend, out, images, threads == 0 ? num_threads() : threads, interrupted); });
  if (!finished) throw py::error_already_set();
}

// Whether equal arguments are of the same types, in tuples too: 1, True and 1.0 are equal, and one of them is a size.
bool same_types(const py::handle& a, const py::handle& b) {
  if (a.is(b)) return true;
  if (Py_TYPE(a.ptr()) != Py_TYPE(b.ptr())) return false;
  if (!PyTuple_Check(a.ptr())) return true;
  const py::ssize_t size = PyTuple_GET_SIZE(a.ptr());
  if (size != PyTuple_GET_SIZE(b.ptr())) return false;
  for (py::ssize_t i = 0; i < size; ++i) {
    if (!same_types(PyTuple_GET_ITEM(a.ptr(), i), PyTuple_GET_ITEM(b.ptr(), i))) return false;
  }
  return true;
}

// The first byte of an array that is not empty, and the one past its last, whatever the signs of its strides.
std::pair<const char*, const char*> extent(const py::array& array) {
  const char *first = static_cast<const char*>(array.data()), *last = first;
  for (py::ssize_t i = 0; i < array.ndim(); ++i) {
    (array.strides(i) < 0 ? first : last) += (array.shape(i) - 1) * array.strides(i);
  }
  return {first, last + array.itemsize()};
}

bool may_overlap(const py::handle& a, const py::handle& b) {
  const auto [a_first, a_end] = extent(py::reinterpret_borrow<py::array>(a));
  const auto [b_first, b_end] = extent(py::reinterpret_borrow<py::array>(b));
  return a_first < b_end && b_first < a_end;
}

// Whether results can go to an array as they come: writable, whole in C's order, apart from what is read.
bool takes_results(const py::handle& out, const py::handle& x, const py::handle& addend) {
  const py::array array = py::reinterpret_borrow<py::array>(out);
  return array.writeable() && (array.flags() & py::array::c_style) != 0 && array.size() > 0 && !may_overlap(out, x) &&
         (addend.is_none() || !may_overlap(out, addend));
}

// The result in `out`, or a new array, in memory as x is; None where an array is not what can be read or written in place,
// or the call's key equals the one that was checked but is not of its types.
py::object call(const EagerBlock& block, const py::handle& x, const py::handle& addend, const py::handle& out,
                bool channels_first, int threads, const py::handle& key, const py::handle& checked) {
  if (!same_types(key, checked)) return py::none();
  ConstPixels in, added;
  Pixels to;
  py::ssize_t images = -1;
  if (!view(x, block.in(), channels_first, &in, &images)) return py::none();
  const Shape s = block.out();
  if (!addend.is_none() && !view(addend, s, channels_first, &added, &images)) return py::none();
  if (!out.is_none()) {
    if (!view(out, s, channels_first, &to, &images) || !takes_results(out, x, addend)) return py::none();
    run(block, in, added, to, images, threads);
    return py::reinterpret_borrow<py::object>(out);
  }
  const bool planes = channels_first && !(in.channel == 1 && block.in().c > 1 && (in.pixel != 1 || block.in().w == 1));
  std::vector<py::ssize_t> shape{images, s.h, s.w, s.c}, strides;
  if (channels_first) shape = {images, s.c, s.h, s.w};
  constexpr py::ssize_t kFloat = sizeof(float);
  if (channels_first && !planes) {
    strides = {kFloat * s.h * s.w * s.c, kFloat, kFloat * s.w * s.c, kFloat * s.c};
  }
  const py::array result = new_array(py::dtype::of<float>(), shape, strides, block.out_phase(in));
  view(result, s, channels_first, &to, &images);
  run(block, in, added, to, images, threads);
  return result;
}

void call_into(const EagerBlock& block, const py::handle& x, const py::object& addend, const py::handle& out, int threads) {
  ConstPixels in, added;
  Pixels to;
  py::ssize_t images = -1;
  if (!view(x, block.in(), false, &in, &images) || !view(out, block.out(), false, &to, &images) ||
      (!addend.is_none() && !view(addend, block.out(), false, &added, &images))) {
    throw std::invalid_argument("an array is not aligned float32 of the block's shape");
  }
  run(block, in, added, to, images, threads);
}

}  // namespace

void add_eager(py::module_& module) {
  using py::arg;
  py::class_<EagerWeights, std::shared_ptr<EagerWeights>>(module, "Weights")
      .def("__init__", constructor(&make_weights), NewStyle(), arg("kind"), arg("weight"), arg("bias"), arg("groups"),
           arg("pixels") = 0, arg("isa") = py::none());

  module.def("empty", [](const std::vector<py::ssize_t>& shape) { return new_array(py::dtype::of<float>(), shape); }, arg("shape"));
  module.def("same_types", &same_types, arg("a"), arg("b"));

  py::class_<EagerBlock>(module, "Block")
      .def("__init__", constructor(+[](const std::array<int, 3>& shape, const std::vector<StageTuple>& stages,
                                       const std::optional<std::string>& isa) {
             std::vector<StageSpec> specs;
             for (const auto& [weights, stride, padding, dilation, activation] : stages) {
               specs.push_back({weights, to_window({weights->kh, weights->kw}, stride, padding, dilation), to_activation(activation)});
             }
             check_stages(to_shape(shape), specs);
             return std::make_unique<EagerBlock>(to_shape(shape), specs, isa ? kernels(*isa) : kernels());
           }),
           NewStyle(), arg("shape"), arg("stages"), arg("isa") = py::none())
      .def("call", &call, arg("x"), arg("addend"), arg("out"), arg("channels_first"), arg("threads"), arg("key"), arg("checked"))
      .def("call_into", &call_into, arg("x"), arg("addend"), arg("out"), arg("threads"))
      .def_property_readonly("kernels", &EagerBlock::kernels);
}

}  // namespace sepconv::bind
