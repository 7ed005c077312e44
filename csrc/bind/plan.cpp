#include "bind/nd.h"
#include "graph/plan.h"

namespace sepconv::bind {
namespace {

using Array = py::array_t<float, py::array::c_style>;

// Whether it has images of this shape, one at least.
bool holds_images(const py::array& x, const Shape& s) {
  return x.ndim() == 4 && x.shape(0) >= 1 && x.shape(1) == s.h && x.shape(2) == s.w && x.shape(3) == s.c;
}

std::vector<Array> run(const Plan& plan, const std::vector<Array>& inputs, int threads, std::vector<double>* step_seconds) {
  const auto& in = plan.input_shapes();
  if (inputs.size() != in.size()) {
    throw std::invalid_argument("got " + std::to_string(inputs.size()) + " inputs, must be " + std::to_string(in.size()));
  }
  check_threads(threads);
  const py::ssize_t images = inputs.empty() || inputs[0].ndim() != 4 ? 0 : inputs[0].shape(0);
  std::vector<const float*> from;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Array& x = inputs[i];
    if (!holds_images(x, in[i]) || x.shape(0) != images) {
      throw std::invalid_argument("input " + std::to_string(i) + " does not have the plan's shape, batch first");
    }
    from.push_back(x.data());
  }
  std::vector<Array> outputs;
  std::vector<float*> to;
  for (const Shape& s : plan.output_shapes()) {
    outputs.emplace_back(new_array(py::dtype::of<float>(), {images, s.h, s.w, s.c}));
    to.push_back(outputs.back().mutable_data());
  }
  const bool finished =
      without_gil([&] { return plan.run(from.data(), to.data(), images, threads, interrupted, step_seconds); });
  if (!finished) throw py::error_already_set();
  return outputs;
}

// The result of a plan of one input and one output, [n, c] where it is a `vector`; None where the array cannot be read as it
// lies, or another argument is none that this takes. In one call from Python: after a run, the code of others is no longer in
// the caches, which took 7 microseconds.
py::object call(const Plan& plan, const py::handle& x, const py::handle& threads, bool vector) {
  if (plan.input_shapes().size() != 1 || plan.output_shapes().size() != 1) return py::none();
  if (Py_TYPE(x.ptr()) != py::detail::npy_api::get().PyArray_Type_) return py::none();
  const py::array images = py::reinterpret_borrow<py::array>(x);
  const Shape& s = plan.output_shapes()[0];
  if (vector && s.h * s.w != 1) return py::none();
  constexpr int kReadable = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
  if ((images.flags() & kReadable) != kReadable || !is_float32(images)) return py::none();
  if (!holds_images(images, plan.input_shapes()[0])) return py::none();
  int overflow = 0;
  long count = 0;
  if (PyLong_CheckExact(threads.ptr())) count = PyLong_AsLongAndOverflow(threads.ptr(), &overflow);
  else if (threads.is_none()) count = num_threads();
  if (count < 1 || count > kMaxThreads || overflow != 0) return py::none();

  const py::ssize_t n = images.shape(0);
  py::array result = vector ? new_array(py::dtype::of<float>(), {n, s.c}) : new_array(py::dtype::of<float>(), {n, s.h, s.w, s.c});
  const auto* const from = static_cast<const float*>(images.data());
  auto* const to = static_cast<float*>(result.mutable_data());
  if (!without_gil([&] { return plan.run(&from, &to, n, static_cast<int>(count), interrupted, nullptr); })) {
    throw py::error_already_set();
  }
  return result;
}

// A plan for values whose channels come first, as those of ONNX and torch: of rank 2 to 4, [n, c, h, w] without h, or h and
// w. In one call from Python, as each other would take longer than a small plan.
class ChannelsFirst {
 public:
  struct Result {
    int output;                      // of the plan
    std::vector<py::ssize_t> image;  // one image's sizes: c; c, w; or c, h, w
    bool lent;                       // as a view of the plan's own result, whose channels are last
  };

  ChannelsFirst(std::shared_ptr<Plan> plan, std::vector<Result> results) : plan_(std::move(plan)), results_(std::move(results)) {
    for (const Result& r : results_) {
      const bool known = r.output >= 0 && r.output < static_cast<int>(plan_->output_shapes().size());
      if (!known) fail("a result must be an output of the plan");
      if (!fits(r.image.data(), std::ssize(r.image), plan_->output_shapes()[static_cast<std::size_t>(r.output)])) {
        fail("a result must have the sizes of its output, and rank 2 to 4 with the batch");
      }
    }
  }

  std::vector<py::array> run(const std::vector<py::array_t<float, 0>>& inputs, int threads) const {
    check_threads(threads);
    if (inputs.size() != plan_->input_shapes().size()) fail("there must be one array for each input of the plan");
    std::vector<Array> images;
    for (std::size_t i = 0; i < inputs.size(); ++i) images.push_back(channels_last(inputs[i], plan_->input_shapes()[i], threads));
    const std::vector<Array> outputs = bind::run(*plan_, images, threads, nullptr);
    std::vector<py::array> values;
    for (const Result& r : results_) values.push_back(value(outputs[static_cast<std::size_t>(r.output)], r, threads));
    return values;
  }

 private:
  // Whether an image of these sizes, the channels first, is what a plan calls `s`.
  static bool fits(const py::ssize_t* image, py::ssize_t rank, const Shape& s) {
    return rank >= 1 && rank <= 3 && image[0] == s.c && (rank < 3 ? 1 : image[1]) == s.h &&
           (rank < 2 ? 1 : image[rank - 1]) == s.w;
  }

  static Array channels_last(const py::array_t<float, 0>& x, const Shape& s, int threads) {
    if (!fits(x.ndim() > 0 ? x.shape() + 1 : nullptr, x.ndim() - 1, s)) fail("an array does not have the sizes of the plan's input");
    const py::ssize_t rank = x.ndim(), n = sizeof(float);
    const std::vector<py::ssize_t> shape{x.shape(0), s.h, s.w, s.c};
    const py::ssize_t row = rank == 4 ? x.strides(2) : n, column = rank > 2 ? x.strides(rank - 1) : n;
    const py::array moved(x.dtype(), shape, {x.strides(0), row, column, x.strides(1)}, x.data(), x);
    return (moved.flags() & py::array::c_style) != 0 ? Array(moved) : copied(moved, shape, threads);
  }

  static Array copied(const py::array& from, const std::vector<py::ssize_t>& shape, int threads) {
    py::array to = new_array(from.dtype(), shape);
    const nd::Array target = view(to), source = view(from);
    compute([&] { nd::copy(kernels(), target, source, sizeof(float), threads); });
    return to;
  }

  static py::array value(const Array& image, const Result& r, int threads) {
    std::vector<py::ssize_t> shape{image.shape(0)}, strides{image.strides(0), image.strides(3)};
    shape.insert(shape.end(), r.image.begin(), r.image.end());
    for (std::size_t axis = 2; axis < shape.size(); ++axis) {
      strides.push_back(image.strides(static_cast<py::ssize_t>(axis + 3 - shape.size())));
    }
    const py::array moved(image.dtype(), shape, strides, image.data(), image);
    if (r.lent) return moved;
    if ((moved.flags() & py::array::c_style) == 0) return copied(moved, shape, threads);
    // Of one channel or one pixel: with the strides of such an order, by which torch tells it from channels that are last.
    return py::array(image.dtype(), shape, image.data(), image);
  }

  std::shared_ptr<Plan> plan_;
  std::vector<Result> results_;
};

Fusion to_fusion(const std::string& name) {
  if (name == "automatic") return Fusion::automatic;
  if (name == "always") return Fusion::always;
  if (name == "never") return Fusion::never;
  throw std::invalid_argument("fusion is '" + name + "', must be one of automatic, always, never");
}

}  // namespace

void add_plan(py::module_& module) {
  using py::arg;
  // Tuples: where there is no memory left to note an object of a class, pybind11 frees it without destroying it.
  const py::object namedtuple = py::module_::import("collections").attr("namedtuple");
  module.attr("OperatorInfo") = namedtuple(
      "OperatorInfo", "step layer fused kernel input_shape output_shape macs weight_bytes", arg("module") = "sepconv._core");

  py::class_<Plan, std::shared_ptr<Plan>>(module, "Plan")
      .def("__init__", constructor(+[](const Graph& graph, const std::string& fusion) {
             return std::make_shared<Plan>(graph, to_fusion(fusion));
           }),
           NewStyle(), arg("graph"), arg("fusion") = "automatic")
      .def("run", [](const Plan& plan, const std::vector<Array>& inputs, int threads) { return run(plan, inputs, threads, nullptr); },
           arg("inputs"), arg("threads"))
      .def("call", &call, arg("x"), arg("threads"), arg("vector"))
      .def("run_timed",
           [](const Plan& plan, const std::vector<Array>& inputs, int threads) {
             std::vector<double> seconds;
             std::vector<Array> outputs = run(plan, inputs, threads, &seconds);
             return py::make_tuple(std::move(outputs), std::move(seconds));
           },
           arg("inputs"), arg("threads"))
      .def("describe",
           [](const Plan& plan) {
             const py::object make = py::module_::import("sepconv._core").attr("OperatorInfo");
             py::list result;
             for (const OperatorInfo& op : plan.describe()) {
               result.append(make(op.step, op.layer, op.fused, op.kernel, from_shape(op.in), from_shape(op.out), op.macs,
                                  op.weight_bytes));
             }
             return result;
           })
      .def_property_readonly("arena_bytes", &Plan::arena_bytes)
      .def_property_readonly("weight_bytes", &Plan::weight_bytes)
      .def_property_readonly("steps", &Plan::steps)
      .def_property_readonly("tail", &Plan::tail)
      .def_property_readonly_static("GROUP", [](const py::object&) { return Plan::kGroup; });

  py::class_<ChannelsFirst>(module, "ChannelsFirst")
      .def("__init__", constructor(+[](const std::shared_ptr<Plan>& plan, const std::vector<std::tuple<int, std::vector<py::ssize_t>, bool>>& results) {
             std::vector<ChannelsFirst::Result> all;
             for (const auto& [output, image, lent] : results) all.push_back({output, image, lent});
             return std::make_unique<ChannelsFirst>(plan, std::move(all));
           }),
           NewStyle(), arg("plan"), arg("results"))
      .def("run", &ChannelsFirst::run, arg("inputs"), arg("threads"));
}

}  // namespace sepconv::bind
