// The parts of the extension module, one a file.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/aligned.h"
#include "base/tensor.h"
#include "runtime/thread_pool.h"

namespace sepconv::bind {

namespace py = pybind11;

using Pair = std::array<int, 2>;
using PaddingPairs = std::array<Pair, 2>;  // ((top, bottom), (left, right))

inline Padding to_padding(const PaddingPairs& p) { return {p[0][0], p[0][1], p[1][0], p[1][1]}; }

inline Window to_window(const Pair& kernel, const Pair& stride, const PaddingPairs& padding, const Pair& dilation) {
  return {kernel[0], kernel[1], stride[0], stride[1], dilation[0], dilation[1], to_padding(padding)};
}

inline Activation to_activation(const std::string& name) {
  static constexpr const char* kNames[] = {"none",    "relu", "relu6", "hard_swish", "hard_sigmoid",
                                           "sigmoid", "silu", "gelu",  "gelu_tanh"};
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (name == kNames[i]) return static_cast<Activation>(i);
  }
  throw std::invalid_argument("activation is '" + name +
                              "', must be one of none, relu, relu6, hard_swish, hard_sigmoid, sigmoid, silu, gelu, gelu_tanh");
}

// A constructor, for class_::def with NewStyle. py::init frees an object twice, once by its holder and once by the
// instance, where no memory is left to note it in pybind11's table: here the instance lets go of it first.
using NewStyle = py::detail::is_new_style_constructor;
template <class Holder, class... Args>
auto constructor(Holder (*make)(Args...)) {
  return [make](py::detail::value_and_holder& instance, Args... args) {
    Holder made = make(std::forward<Args>(args)...);
    instance.value_ptr() = const_cast<void*>(static_cast<const void*>(made.get()));
    try {
      instance.type->init_instance(instance.inst, &made);
    } catch (...) {
      instance.value_ptr() = nullptr;
      throw;
    }
  };
}

inline void check_threads(int threads, int least = 1) {
  if (threads >= least && threads <= kMaxThreads) return;
  throw std::invalid_argument("threads is " + std::to_string(threads) + ", must be between " + std::to_string(least) + " and " +
                              std::to_string(kMaxThreads));
}

// Whether the array's type is float32, in an object of its own too, as unpickled arrays have.
inline bool is_float32(const py::array& array) {
  const py::dtype own = array.dtype(), float32 = py::dtype::of<float>();
  return own.is(float32) || own.equal(float32);
}

// A new array in C's order, or of strides that permute it. From a page on it begins on a cache line, or `phase` bytes past one:
// numpy's are 16 bytes past one, so that every other vector stored touches two (depthwise 56×56×128 takes 40 % longer). Its
// memory is then its base's, which numpy has allocated, and traces.
inline py::array new_array(const py::dtype& type, const std::vector<py::ssize_t>& shape,
                           const std::vector<py::ssize_t>& strides = {}, std::size_t phase = 0) {
  constexpr py::ssize_t kLeast = 4096, kMost = PTRDIFF_MAX / 2;
  py::ssize_t bytes = type.itemsize();
  for (const py::ssize_t size : shape) bytes = size <= 0 || bytes > kMost / size ? 0 : bytes * size;
  if (bytes < kLeast) return py::array(type, shape, strides);  // also where numpy refuses the shape
  py::array_t<std::uint8_t> memory;
  try {
    memory = py::array_t<std::uint8_t>(bytes + static_cast<py::ssize_t>(kAlignment) - 1);
  } catch (const py::error_already_set& error) {
    if (!error.matches(PyExc_MemoryError)) throw;
    return py::array(type, shape, strides);  // whose error tells of this array
  }
  const auto at = reinterpret_cast<std::uintptr_t>(memory.data());
  return py::array(type, shape, strides, memory.data() + (phase - at) % kAlignment, memory);
}

inline Shape to_shape(const std::array<int, 3>& s) { return {s[0], s[1], s[2]}; }
inline py::tuple from_shape(const Shape& s) { return py::make_tuple(s.h, s.w, s.c); }

void add_dlpack_export(py::module_& module);
void add_dlpack_import(py::module_& module);
void add_grad(py::module_& module);
void add_eager(py::module_& module);
void add_graph(py::module_& module);
void add_nd(py::module_& module);
void add_peaks(py::module_& module);
void add_plan(py::module_& module);
void add_ref(py::module_& module);

}  // namespace sepconv::bind
