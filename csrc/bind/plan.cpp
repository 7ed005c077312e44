#include "bind/bind.h"
#include "bind/gil.h"
#include "graph/plan.h"

namespace sepconv::bind {
namespace {

using Array = py::array_t<float, py::array::c_style>;

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
    if (x.ndim() != 4 || x.shape(0) != images || images < 1 || x.shape(1) != in[i].h || x.shape(2) != in[i].w ||
        x.shape(3) != in[i].c) {
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

  py::class_<Plan>(module, "Plan")
      .def("__init__", constructor(+[](const Graph& graph, const std::string& fusion) {
             return std::make_unique<Plan>(graph, to_fusion(fusion));
           }),
           NewStyle(), arg("graph"), arg("fusion") = "automatic")
      .def("run", [](const Plan& plan, const std::vector<Array>& inputs, int threads) { return run(plan, inputs, threads, nullptr); },
           arg("inputs"), arg("threads"))
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
}

}  // namespace sepconv::bind
