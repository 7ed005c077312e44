// DLPack capsules of any producer as numpy arrays over the producer's memory. Nothing in a capsule is trusted but its
// pointers: every number is checked before it is used.
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "bind/bind.h"
#include "bind/dlpack.h"

namespace sepconv::bind {
namespace {

using dlpack::LegacyTensor;
using dlpack::Tensor;
using dlpack::VersionedTensor;

constexpr int kMaxAxes = 32;  // numpy's limit before 2.0
constexpr std::uint64_t kAddresses = std::numeric_limits<std::intptr_t>::max();

// What a consumed capsule held. The producer's deleter is called once, when this dies, with the GIL held.
struct Lent {
  LegacyTensor* legacy = nullptr;
  VersionedTensor* versioned = nullptr;

  Lent() = default;
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  ~Lent() {
    const py::error_scope keep;  // a deleter may run Python, which must not see an error that is under way
    if (legacy && legacy->deleter) legacy->deleter(legacy);
    if (versioned && versioned->deleter) versioned->deleter(versioned);
  }
};

// Takes the tensor out of the capsule, which from here on is a used one, whatever becomes of the tensor.
std::unique_ptr<Lent> consume(const std::string& argument, const py::object& capsule) {
  auto lent = std::make_unique<Lent>();
  PyObject* const object = capsule.ptr();
  if (PyCapsule_IsValid(object, dlpack::kVersionedName)) {
    lent->versioned = static_cast<VersionedTensor*>(PyCapsule_GetPointer(object, dlpack::kVersionedName));
    PyCapsule_SetName(object, dlpack::kVersionedUsed);
  } else if (PyCapsule_IsValid(object, dlpack::kLegacyName)) {
    lent->legacy = static_cast<LegacyTensor*>(PyCapsule_GetPointer(object, dlpack::kLegacyName));
    PyCapsule_SetName(object, dlpack::kLegacyUsed);
  } else {
    std::string was = "a " + std::string(Py_TYPE(object)->tp_name);
    if (PyCapsule_CheckExact(object)) {
      const char* const name = PyCapsule_GetName(object);
      was = "a capsule named '" + std::string(name ? name : "") + "'";
    }
    throw py::buffer_error(argument + " gave " + was + " by __dlpack__(), must give a capsule named 'dltensor' or " +
                           "'dltensor_versioned', which nobody used before");
  }
  return lent;
}

std::string type_name(const dlpack::DataType& type) {
  static constexpr const char* kNames[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  std::string name = type.code < 7 ? kNames[type.code] : "DLPack type " + std::to_string(type.code) + " of bits ";
  name += std::to_string(type.bits);
  return type.lanes == 1 ? name : name + " in vectors of " + std::to_string(type.lanes);
}

// The numpy type of the elements; bfloat16, which numpy does not have, as uint16.
py::dtype element_type(const std::string& argument, const dlpack::DataType& type) {
  if (type.lanes == 1 && type.code == dlpack::kFloat) {
    if (type.bits == 16) return py::dtype("float16");
    if (type.bits == 32) return py::dtype("float32");
    if (type.bits == 64) return py::dtype("float64");
  }
  if (type.lanes == 1 && type.code == dlpack::kBfloat && type.bits == 16) return py::dtype("uint16");
  throw py::type_error(argument + " had dtype " + type_name(type) + ", must have float32, float16, bfloat16 or float64");
}

struct Extent {
  std::vector<py::ssize_t> shape, strides;  // strides in bytes
  std::uint64_t below = 0, above = 0;       // how far elements begin before and after the first, in bytes
  bool empty = false;
};

// Shape and strides, all of whose products fit; ValueError otherwise.
Extent extent(const std::string& argument, const Tensor& tensor, std::int64_t item) {
  const auto refuse = [&](const std::string& what) { throw std::invalid_argument(argument + " " + what); };
  if (tensor.ndim < 0 || tensor.ndim > kMaxAxes) {
    refuse("had " + std::to_string(tensor.ndim) + " dimensions, must have 0 to " + std::to_string(kMaxAxes));
  }
  if (tensor.ndim > 0 && !tensor.shape) refuse("had a shape of null, must have one");
  Extent e;
  e.shape.assign(tensor.shape, tensor.shape + tensor.ndim);
  for (const py::ssize_t size : e.shape) {
    if (size < 0) refuse("had a dimension of " + std::to_string(size) + ", must be at least 0");
    e.empty |= size == 0;
  }
  e.strides.resize(e.shape.size());
  std::int64_t dense = item;
  for (std::size_t axis = e.shape.size(); axis-- > 0;) {
    const std::int64_t size = e.empty ? 1 : e.shape[axis];
    std::int64_t stride = dense;
    bool fits = !__builtin_mul_overflow(dense, size, &dense);
    if (tensor.strides && !e.empty) {
      stride = tensor.strides[axis];
      fits &= size == 1 || !__builtin_mul_overflow(stride, item, &stride);
      if (size == 1) stride = item;  // leads nowhere, and may be any number
    }
    std::int64_t reach = 0;
    fits &= !__builtin_mul_overflow(stride, size - 1, &reach);
    e.strides[axis] = stride;
    std::uint64_t& side = reach < 0 ? e.below : e.above;
    const std::uint64_t bytes = reach < 0 ? 0 - static_cast<std::uint64_t>(reach) : static_cast<std::uint64_t>(reach);
    fits &= !__builtin_add_overflow(side, bytes, &side) && side <= kAddresses;
    if (!fits) refuse("had a shape and strides that reach further than there is memory");
  }
  return e;
}

// A capsule's array: (values, whether they are bfloat16, whether the producer copied, whether it has DLPack 1).
py::tuple import_dlpack(const std::string& argument, const py::object& capsule) {
  std::unique_ptr<Lent> lent = consume(argument, capsule);
  std::uint64_t flags = 0;
  const bool versioned = lent->versioned != nullptr;
  if (versioned) {
    const dlpack::Version version = lent->versioned->version;
    if (version.major != dlpack::kVersion.major) {
      throw py::buffer_error(argument + " was given as DLPack " + std::to_string(version.major) + "." +
                             std::to_string(version.minor) + ", must be of version 1");
    }
    flags = lent->versioned->flags;
  }
  const Tensor tensor = versioned ? lent->versioned->tensor : lent->legacy->tensor;
  const std::int32_t device = tensor.device.type;
  if (device != dlpack::kCpu && device != dlpack::kCudaHost && device != dlpack::kRocmHost) {
    throw std::invalid_argument(argument + " was a tensor on DLPack device (" + std::to_string(device) + ", " +
                                std::to_string(tensor.device.id) + "), must be in CPU memory: (1, 0)");
  }
  const py::dtype type = element_type(argument, tensor.dtype);
  Extent e = extent(argument, tensor, tensor.dtype.bits / 8);
  static constexpr char kNothing[8] = {};  // where an empty array lies: numpy would allocate for null
  std::uint64_t first = reinterpret_cast<std::uintptr_t>(kNothing);
  if (!e.empty) {
    if (!tensor.data) throw std::invalid_argument(argument + " had data of null, must have memory for its elements");
    first = reinterpret_cast<std::uintptr_t>(tensor.data);
    std::uint64_t end = 0;
    if (__builtin_add_overflow(first, tensor.byte_offset, &first) || first < e.below ||
        __builtin_add_overflow(first, e.above + tensor.dtype.bits / 8, &end)) {
      throw std::invalid_argument(argument + " had a byte offset, shape and strides that reach out of memory");
    }
  }
  py::capsule owner(lent.get(), [](void* held) { delete static_cast<Lent*>(held); });
  lent.release();
  py::array values(type, std::move(e.shape), std::move(e.strides), reinterpret_cast<const void*>(first), owner);
  // A producer before 1.0 cannot say that its memory is immutable, as JAX's is: what it lends is only read.
  if (!versioned || (flags & dlpack::kReadOnly)) values.attr("setflags")(py::arg("write") = false);
  return py::make_tuple(values, tensor.dtype.code == dlpack::kBfloat, (flags & dlpack::kCopied) != 0, versioned);
}

}  // namespace

void add_dlpack_import(py::module_& module) {
  module.def("import_dlpack", &import_dlpack, py::arg("argument"), py::arg("capsule"));
}

}  // namespace sepconv::bind
