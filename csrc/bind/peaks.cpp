#include "ops/peaks.h"

#include "bind/bind.h"
#include "cpu/features.h"
#include "cpu/topology.h"

namespace sepconv::bind {

void add_peaks(py::module_& module) {
  using py::arg;
  module.def("measure_fma",
             [](const std::string& isa, int threads, double seconds) {
               const KernelTable& table = kernels(isa);
               const py::gil_scoped_release released;
               return measure_fma(table, threads, seconds);
             },
             arg("isa"), arg("threads"), arg("seconds"));
  module.def("measure_read",
             [](const std::string& isa, std::size_t bytes, int threads, double seconds) {
               const KernelTable& table = kernels(isa);
               const py::gil_scoped_release released;
               return measure_read(table, bytes, threads, seconds);
             },
             arg("isa"), arg("bytes"), arg("threads"), arg("seconds"));
  module.def("l2_bytes", &l2_bytes);
}

}  // namespace sepconv::bind
