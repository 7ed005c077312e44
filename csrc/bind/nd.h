// What the bindings of the N-d operators share: arrays as views, results, checks.
#pragma once

#include "base/fp_env.h"
#include "bind/bind.h"
#include "bind/gil.h"
#include "cpu/features.h"
#include "nd/operators.h"

namespace sepconv::bind {

using Sizes = std::vector<std::int64_t>;
using Floats = py::array_t<float, py::array::c_style>;

inline constexpr std::int64_t kMaxBytes = std::int64_t{1} << 40;

[[noreturn]] inline void fail(const std::string& what) { throw std::invalid_argument(what); }

// work() without the GIL and with denormals flushed, as on the pool's threads. Ctrl-C stops it.
template <class Work>
void compute(Work work) {
  interruptibly([&] {
    const FlushDenormals flush;
    work();
  });
}

inline nd::Type type_of(const py::dtype& type) {
  const char kind = type.kind();
  const auto size = type.itemsize();
  if (type.byteorder() != '>') {
    if (kind == 'f' && size == 4) return nd::Type::f32;
    if (kind == 'f' && size == 8) return nd::Type::f64;
    if (kind == 'i' && size == 1) return nd::Type::i8;
    if (kind == 'u' && size == 1) return nd::Type::u8;
    if (kind == 'i' && size == 4) return nd::Type::i32;
    if (kind == 'i' && size == 8) return nd::Type::i64;
    if (kind == 'b') return nd::Type::boolean;
  }
  fail("the array has dtype " + py::str(type).cast<std::string>() +
       ", must have one of float32, float64, int8, uint8, int32, int64, bool");
}

inline int element_size(const py::array& x) {
  const auto size = static_cast<int>(x.itemsize());
  if (size != 1 && size != 2 && size != 4 && size != 8 && size != 16) fail("elements must have 1, 2, 4, 8 or 16 bytes");
  if (x.dtype().attr("hasobject").cast<bool>()) fail("arrays of objects are not possible");
  return size;
}

inline nd::Array view(const py::array& x) {
  if (x.ndim() > nd::kMaxRank) {
    fail("the array has rank " + std::to_string(x.ndim()) + ", must have at most " + std::to_string(nd::kMaxRank));
  }
  nd::Array array;
  array.data = static_cast<char*>(const_cast<void*>(x.data()));
  array.rank = static_cast<int>(x.ndim());
  for (int i = 0; i < array.rank; ++i) {
    array.dims[i] = x.shape(i);
    array.strides[i] = x.strides(i);
  }
  return array;
}

inline void check_dense(const py::array& x) {
  if (!(x.flags() & py::array::c_style)) fail("the array must be C-contiguous");
}

inline std::vector<py::ssize_t> checked_shape(const Sizes& sizes, std::int64_t element) {
  if (sizes.size() > nd::kMaxRank) fail("the result would have rank " + std::to_string(sizes.size()));
  std::int64_t bytes = element;
  for (const std::int64_t size : sizes) {
    if (size < 0 || (size > 0 && bytes > kMaxBytes / size)) fail("the result would be larger than 2^40 bytes");
    bytes *= size == 0 ? 1 : size;
  }
  return {sizes.begin(), sizes.end()};
}

inline py::array empty(const py::dtype& type, const Sizes& sizes) {
  return new_array(type, checked_shape(sizes, type.itemsize()));
}
inline Floats floats(const Sizes& sizes) { return empty(py::dtype::of<float>(), sizes); }

inline Sizes shape_of(const py::array& x) { return {x.shape(), x.shape() + x.ndim()}; }
inline char* bytes_of(py::array& x) { return static_cast<char*>(x.mutable_data()); }

using MatrixPtr = std::shared_ptr<nd::PackedMatrix>;

void add_nd_windows(py::module_& m);

}  // namespace sepconv::bind
