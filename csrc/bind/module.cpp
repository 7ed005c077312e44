#include "bind/bind.h"
#include "cpu/features.h"
#include "runtime/thread_pool.h"

namespace {

namespace py = pybind11;

// An unusable SEPCONV_ISA is an error of the import. Its octets may be no UTF-8, which Python's messages are.
void choose_isa() {
  try {
    sepconv::kernels();
  } catch (const std::runtime_error& error) {
    const std::string text = error.what();
    PyObject* const shown = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace");
    if (shown == nullptr) throw py::error_already_set();
    throw py::import_error(py::reinterpret_steal<py::str>(shown).cast<std::string>());
  }
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  using namespace sepconv;
  module.doc() = "The C++ core of sepconv. Its names are not a public interface.";
  module.attr("__version__") = SEPCONV_VERSION;
  choose_isa();

  module.def(
      "isa", [] { return std::string(kernels().isa); },
      "The instruction set that all runs on: the best that this machine has, or what SEPCONV_ISA asks for.");
  module.def("supported_isas", &supported_isas, "The instruction sets that this machine has, the best one last.");
  module.def("vector_lanes", [] { return kernels().vector; });
  module.def("set_num_threads", &set_num_threads, py::arg("n"));
  module.def("num_threads", &num_threads,
             "How many threads a call runs on that does not say otherwise: what set_num_threads() was given, else "
             "one for each CPU that this process may use.");
  module.def("default_threads", &default_threads);
  module.attr("MAX_THREADS") = kMaxThreads;
  bind::add_dlpack_export(module);
  bind::add_dlpack_import(module);
  bind::add_grad(module);
  bind::add_eager(module);
  bind::add_graph(module);
  bind::add_nd(module);
  bind::add_peaks(module);
  bind::add_plan(module);
  bind::add_ref(module);
}
