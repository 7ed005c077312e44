#include "bind/bind.h"
#include "cpu/features.h"
#include "runtime/thread_pool.h"

PYBIND11_MODULE(_core, module) {
  namespace py = pybind11;
  using namespace sepconv;
  module.doc() = "The C++ core of sepconv. Its names are not a public interface.";
  module.attr("__version__") = SEPCONV_VERSION;
  kernels();  // an unusable SEPCONV_ISA is an error of the import

  module.def("isa", [] { return std::string(kernels().isa); });
  module.def("supported_isas", &supported_isas);
  module.def("vector_lanes", [] { return kernels().vector; });
  module.def("set_num_threads", &set_num_threads, py::arg("n"));
  module.def("num_threads", &num_threads);
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
