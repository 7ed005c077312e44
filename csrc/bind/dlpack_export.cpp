// Results as DLPack capsules, for from_dlpack() of the caller's library.
#include <memory>
#include <vector>

#include "bind/bind.h"
#include "bind/dlpack.h"
#include "bind/gil.h"

namespace sepconv::bind {
namespace {

using dlpack::LegacyTensor;
using dlpack::VersionedTensor;

// A tensor that is lent out, with what it points to.
template <class Managed>
struct Loan {
  Managed managed{};
  std::vector<std::int64_t> shape, strides;
  PyObject* array = nullptr;  // whose memory it is; one reference
};

// The consumer's last act, on any thread, with the GIL or without.
template <class Managed>
void give_back(Managed* managed) {
  auto* const loan = static_cast<Loan<Managed>*>(managed->context);
  if (Py_IsInitialized() && !finalizing()) {  // later, the memory goes with the process
    const PyGILState_STATE state = take_gil(PyGILState_Ensure);
    Py_DECREF(loan->array);
    PyGILState_Release(state);
  }
  delete loan;
}

// Of a capsule that dies: one that nobody consumed still owns its tensor.
template <class Managed>
void drop(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  give_back(static_cast<Managed*>(PyCapsule_GetPointer(capsule, name)));
}
void drop_legacy(PyObject* capsule) { drop<LegacyTensor>(capsule, dlpack::kLegacyName); }
void drop_versioned(PyObject* capsule) { drop<VersionedTensor>(capsule, dlpack::kVersionedName); }

template <class Managed>
py::object lend(const py::array& array, dlpack::DataType type, const char* name, PyCapsule_Destructor destructor,
                std::unique_ptr<Loan<Managed>> loan) {
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    loan->shape.push_back(array.shape(axis));
    loan->strides.push_back(array.strides(axis) / array.itemsize());
  }
  loan->managed.context = loan.get();
  loan->managed.deleter = &give_back<Managed>;
  loan->managed.tensor = {const_cast<void*>(array.data()), {dlpack::kCpu, 0}, static_cast<std::int32_t>(array.ndim()), type,
                          loan->shape.data(), loan->strides.data(), 0};
  PyObject* const capsule = PyCapsule_New(&loan->managed, name, destructor);
  if (!capsule) throw py::error_already_set();
  loan->array = py::object(array).release().ptr();
  loan.release();  // the capsule's, then the consumer's
  return py::reinterpret_steal<py::object>(capsule);
}

// An array with DLPack's two methods, whose numbers are bfloat16 where it is of uint16.
class DLPackArray {
 public:
  explicit DLPackArray(py::array array) : array_(std::move(array)) {
    const char kind = array_.dtype().kind();
    const py::ssize_t item = array_.itemsize();
    if (kind == 'f' && (item == 2 || item == 4 || item == 8)) {
      type_ = {dlpack::kFloat, static_cast<std::uint8_t>(8 * item), 1};
    } else if (kind == 'u' && item == 2) {
      type_ = {dlpack::kBfloat, 16, 1};
    } else {
      throw py::type_error("array has a dtype that is not one of float16, float32, float64 and uint16");
    }
    for (py::ssize_t axis = 0; axis < array_.ndim(); ++axis) {
      if (array_.strides(axis) % item) throw std::invalid_argument("array has strides that are not whole elements");
    }
  }

  static std::pair<int, int> device() { return {dlpack::kCpu, 0}; }

  py::object capsule(const py::object& stream, const std::optional<std::pair<int, int>>& max_version,
                     const std::optional<std::pair<int, int>>& device, const std::optional<bool>& copy) const {
    if (!stream.is_none()) throw std::invalid_argument("stream was given, must be None for memory of the CPU");
    if (device && *device != DLPackArray::device()) {
      throw py::buffer_error("dl_device was (" + std::to_string(device->first) + ", " + std::to_string(device->second) +
                             "), must be (1, 0) or None");
    }
    const bool copied = copy.value_or(false);
    const py::array array = copied ? py::reinterpret_steal<py::array>(array_.attr("copy")("K").release()) : array_;
    if (!max_version || max_version->first < 1) {
      if (!array.writeable()) throw py::buffer_error("the array is read-only, which DLPack before 1.0 cannot tell");
      return lend(array, type_, dlpack::kLegacyName, &drop_legacy, std::make_unique<Loan<LegacyTensor>>());
    }
    auto loan = std::make_unique<Loan<VersionedTensor>>();
    loan->managed.version = dlpack::kVersion;
    loan->managed.flags = (array.writeable() ? 0 : dlpack::kReadOnly) | (copied ? dlpack::kCopied : 0);
    return lend(array, type_, dlpack::kVersionedName, &drop_versioned, std::move(loan));
  }

 private:
  py::array array_;
  dlpack::DataType type_{};
};

}  // namespace

void add_dlpack_export(py::module_& module) {
  using py::arg;
  py::class_<DLPackArray>(module, "DLPackArray")
      .def("__init__", constructor(+[](const py::array& array) { return std::make_unique<DLPackArray>(array); }), NewStyle(),
           arg("array"))
      .def_static("__dlpack_device__", &DLPackArray::device)
      .def("__dlpack__", &DLPackArray::capsule, py::kw_only(), arg("stream") = py::none(), arg("max_version") = py::none(),
           arg("dl_device") = py::none(), arg("copy") = py::none());
}

}  // namespace sepconv::bind
