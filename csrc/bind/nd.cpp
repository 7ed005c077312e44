// The N-d operators over NumPy arrays. Arguments are checked here; nd/operators.h says what each computes.
#include <optional>

#include "bind/nd.h"

namespace sepconv::bind {
namespace {

// --- Moving

void copy(py::array& to, const py::array& from, int threads) {
  if (shape_of(to) != shape_of(from)) fail("the arrays must have the same shape");
  if (!to.dtype().equal(from.dtype())) fail("the arrays must have the same dtype");
  if (!to.writeable()) fail("the target must be writeable");
  const nd::Array target = view(to), source = view(from);
  const int size = element_size(to);
  check_threads(threads);
  compute([&] { nd::copy(kernels(), target, source, size, threads); });
}

py::array dense(const py::array& x, int threads) {
  py::array to = empty(x.dtype(), shape_of(x));
  copy(to, x, threads);
  return to;
}

py::array gather(const py::array& x, const std::vector<Sizes>& index, const py::array& fill, int threads) {
  if (static_cast<py::ssize_t>(index.size()) != x.ndim()) fail("index must have a table for each axis");
  if (x.ndim() == 0) fail("the array must have at least one axis");
  if (!fill.dtype().equal(x.dtype()) || fill.size() != 1) fail("fill must be one element of the array's dtype");
  Sizes sizes = shape_of(x);
  for (std::size_t axis = 0; axis < index.size(); ++axis) {
    if (index[axis].empty()) continue;
    for (const std::int64_t place : index[axis]) {
      if (place < x.shape(static_cast<py::ssize_t>(axis))) continue;
      fail("index " + std::to_string(place) + " lies outside axis " + std::to_string(axis));
    }
    sizes[axis] = static_cast<std::int64_t>(index[axis].size());
  }
  const int size = element_size(x);
  py::array to = empty(x.dtype(), sizes);
  const nd::Array target = view(to), source = view(x);
  check_threads(threads);
  compute([&] { nd::gather(target, source, index, fill.data(), size, threads); });
  return to;
}

py::array select(const py::array& condition, const py::array& a, const py::array& b, int threads) {
  for (const auto* x : {&condition, &a, &b}) check_dense(*x);
  if (condition.dtype().kind() != 'b') fail("condition must be bool");
  if (!a.dtype().equal(b.dtype()) || shape_of(a) != shape_of(b) || shape_of(a) != shape_of(condition)) {
    fail("the arrays must have one shape, and a and b one dtype");
  }
  const int size = element_size(a);
  py::array to = empty(a.dtype(), shape_of(a));
  char* const out = bytes_of(to);
  check_threads(threads);
  compute([&] {
    nd::select(out, static_cast<const std::uint8_t*>(condition.data()), static_cast<const char*>(a.data()),
               static_cast<const char*>(b.data()), a.size(), size, threads);
  });
  return to;
}

// --- Elementwise

Floats unary(const std::string& name, const Floats& x, float a, float b, int threads) {
  if (!nd::has_unary(name)) fail("there is no function '" + name + "'");
  Floats y = floats(shape_of(x));
  float* const out = y.mutable_data();
  check_threads(threads);
  compute([&] { nd::unary(name, kernels(), x.data(), out, x.size(), a, b, threads); });
  return y;
}

BinaryKind to_binary(const std::string& name) {
  static constexpr const char* kNames[] = {"add", "sub", "mul", "div", "max", "prelu", "min", "pow", "mod", "fmod", "equal",
                                           "less", "less_equal", "greater", "greater_equal", "and", "or", "xor"};
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (name == kNames[i]) return static_cast<BinaryKind>(i);
  }
  fail("there is no function '" + name + "' of two arrays");
}

py::array binary(const std::string& name, const py::array& a, const py::array& b, int threads) {
  const BinaryKind kind = to_binary(name);
  check_dense(a);
  check_dense(b);
  if (!a.dtype().equal(b.dtype())) fail("the two arrays must have one dtype");
  const nd::Type type = type_of(a.dtype());
  const auto rank = static_cast<std::size_t>(std::max(a.ndim(), b.ndim()));
  if (rank > nd::kMaxRank) fail("the rank must be at most " + std::to_string(nd::kMaxRank));
  Sizes sizes(rank, 1);
  const auto aligned = [&](const py::array& x) {
    nd::Array array;
    array.data = static_cast<char*>(const_cast<void*>(x.data()));
    array.rank = static_cast<int>(rank);
    for (std::size_t i = 0; i < rank; ++i) {
      const auto axis = static_cast<py::ssize_t>(i + static_cast<std::size_t>(x.ndim())) - static_cast<py::ssize_t>(rank);
      const std::int64_t n = axis < 0 ? 1 : x.shape(axis);
      array.strides[i] = n == 1 ? 0 : x.strides(axis);
      if (n == 1) continue;
      if (sizes[i] != 1 && sizes[i] != n) fail("the shapes do not broadcast");
      sizes[i] = n;
    }
    return array;
  };
  const nd::Array left = aligned(a), right = aligned(b);
  const bool comparison = kind >= BinaryKind::equal;
  py::array to = empty(comparison ? py::dtype::of<bool>() : a.dtype(), sizes);
  nd::Array target = view(to);
  target.data = bytes_of(to);
  check_threads(threads);
  bool known = false;
  compute([&] { known = nd::binary(kind, type, kernels(), target, left, right, threads); });
  if (!known) fail("'" + name + "' does not exist for " + py::str(a.dtype()).cast<std::string>());
  return to;
}

py::array cast(const py::array& x, const py::dtype& type, int threads) {
  check_dense(x);
  const nd::Type from = type_of(x.dtype()), to_type = type_of(type);
  py::array to = empty(type, shape_of(x));
  char* const out = bytes_of(to);
  check_threads(threads);
  compute([&] { nd::cast(to_type, out, from, static_cast<const char*>(x.data()), x.size(), threads); });
  return to;
}

// --- Products

MatrixPtr pack(const py::array_t<float, 0>& matrix, const std::optional<Floats>& bias) {
  if (matrix.ndim() != 2) fail("the matrix has rank " + std::to_string(matrix.ndim()) + ", must have 2");
  constexpr py::ssize_t kMost = 1 << 26;
  if (matrix.shape(0) < 1 || matrix.shape(1) < 1 || matrix.shape(0) > kMost || matrix.shape(1) > kMost) {
    fail("each side of the matrix must be between 1 and 2^26");
  }
  if (bias && (bias->ndim() != 1 || bias->shape(0) != matrix.shape(1))) fail("bias must have an element for each column");
  return std::make_shared<nd::PackedMatrix>(kernels(), reinterpret_cast<const char*>(matrix.data()), matrix.shape(0),
                                            matrix.shape(1), matrix.strides(0), matrix.strides(1),
                                            bias ? bias->data() : nullptr);
}

Floats matmul(const Floats& a, const MatrixPtr& b, int threads) {
  if (a.ndim() != 2 || a.shape(1) != b->k()) fail("a must be [m, k] with k = " + std::to_string(b->k()));
  Floats c = floats({a.shape(0), b->n()});
  float* const out = c.mutable_data();
  check_threads(threads);
  compute([&] { nd::matmul(a.data(), a.shape(0), *b, out, threads); });
  return c;
}

Floats products(const py::array& a, const py::array& b, int threads) {
  for (const auto* x : {&a, &b}) {
    if (type_of(x->dtype()) != nd::Type::f32) fail("products need float32");
    if (x->ndim() < 2 || x->ndim() > nd::kMaxRank) {
      fail("a matrix has rank " + std::to_string(x->ndim()) + ", must have 2 to " + std::to_string(nd::kMaxRank));
    }
  }
  const Sizes shape_a = shape_of(a), shape_b = shape_of(b);
  const std::int64_t m = shape_a.end()[-2], k = shape_a.end()[-1], n = shape_b.end()[-1];
  if (shape_b.end()[-2] != k) {
    fail("the matrices do not fit: " + std::to_string(k) + " columns, " + std::to_string(shape_b.end()[-2]) + " rows");
  }
  constexpr std::int64_t kMost = 1 << 26;
  if (k > kMost || n > kMost) fail("each side of the second matrix must be at most 2^26");
  const std::size_t rank = std::max(shape_a.size(), shape_b.size());
  Sizes sizes(rank, 1);
  const auto broadcast = [&](const Sizes& shape) {
    for (std::size_t i = 0; i + 2 < shape.size(); ++i) {
      std::int64_t& size = sizes[i + rank - shape.size()];
      if (shape[i] == 1) continue;
      if (size != 1 && size != shape[i]) fail("the shapes do not broadcast");
      size = shape[i];
    }
  };
  broadcast(shape_a);
  broadcast(shape_b);
  sizes[rank - 2] = m;
  sizes[rank - 1] = n;
  Floats c = floats(sizes);
  float* const out = c.mutable_data();
  check_threads(threads);
  if (c.size() == 0 || k == 0) {
    std::fill(out, out + c.size(), 0.0f);
    return c;
  }
  // What the kernels cannot read where it lies is copied: rows of a whose elements do not lie side by side, parts of floats.
  const auto readable = [&](const py::array& x, bool rows) {
    bool fits = reinterpret_cast<std::uintptr_t>(x.data()) % alignof(float) == 0;
    for (py::ssize_t i = 0; i < x.ndim(); ++i) fits = fits && x.strides(i) % static_cast<py::ssize_t>(sizeof(float)) == 0;
    return fits && (!rows || k == 1 || x.strides(x.ndim() - 1) == sizeof(float)) ? x : dense(x, threads);
  };
  const py::array left = readable(a, true), right = readable(b, false);
  const auto aligned = [&](const py::array& x) {
    nd::Array array;
    array.data = static_cast<char*>(const_cast<void*>(x.data()));
    array.rank = static_cast<int>(rank);
    for (py::ssize_t i = 0; i < x.ndim(); ++i) {
      const std::size_t axis = static_cast<std::size_t>(i) + rank - static_cast<std::size_t>(x.ndim());
      array.strides[axis] = x.shape(i) == 1 && axis + 2 < rank ? 0 : x.strides(i);
    }
    std::copy(sizes.begin(), sizes.end() - 2, array.dims.begin());
    array.dims[rank - 2] = x.shape(x.ndim() - 2);
    array.dims[rank - 1] = x.shape(x.ndim() - 1);
    return array;
  };
  const nd::Array from_a = aligned(left), from_b = aligned(right);
  compute([&] { nd::products(kernels(), from_a, from_b, out, threads); });
  return c;
}

// --- Rows

nd::ReduceKind to_reduce(const std::string& name) {
  static constexpr const char* kNames[] = {"sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum",
                                           "log_sum_exp"};
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (name == kNames[i]) return static_cast<nd::ReduceKind>(i);
  }
  fail("there is no reduction '" + name + "'");
}

void check_rows(const py::array& x) {
  check_dense(x);
  if (x.ndim() != 2) fail("x must be [rows, n]");
}

py::array reduce(const std::string& name, const py::array& x, int threads) {
  const nd::ReduceKind kind = to_reduce(name);
  check_dense(x);
  if (x.ndim() != 2 && x.ndim() != 3) fail("x must be [rows, n] or [outer, n, inner]");
  const nd::Type type = type_of(x.dtype());
  const bool whole = kind != nd::ReduceKind::mean && kind != nd::ReduceKind::l2 && kind < nd::ReduceKind::log_sum;
  if (type == nd::Type::boolean || type == nd::Type::f64 || (type != nd::Type::f32 && !whole)) {
    fail("'" + name + "' does not exist for " + py::str(x.dtype()).cast<std::string>());
  }
  const bool columns = x.ndim() == 3;
  const bool by_rows = type != nd::Type::f32 || kind == nd::ReduceKind::prod || kind == nd::ReduceKind::log_sum_exp;
  if (columns && by_rows) fail("'" + name + "' of " + py::str(x.dtype()).cast<std::string>() + " needs [rows, n]");
  py::array y = empty(x.dtype(), columns ? Sizes{x.shape(0), x.shape(2)} : Sizes{x.shape(0)});
  char* const to = bytes_of(y);
  const void* const from = x.data();
  const std::int64_t rows = x.shape(0), n = x.shape(1), inner = columns ? x.shape(2) : 1;
  check_threads(threads);
  compute([&] {
    const auto run = [&](auto element) {
      using T = decltype(element);
      nd::reduce_integers(kind, static_cast<const T*>(from), rows, n, reinterpret_cast<T*>(to), threads);
    };
    switch (type) {
      case nd::Type::f32:
        return nd::reduce(kind, kernels(), static_cast<const float*>(from), rows, n, inner, reinterpret_cast<float*>(to),
                          threads);
      case nd::Type::i8: return run(std::int8_t{});
      case nd::Type::u8: return run(std::uint8_t{});
      case nd::Type::i32: return run(std::int32_t{});
      default: return run(std::int64_t{});
    }
  });
  return y;
}

Floats softmax(const Floats& x, bool logarithm, int threads) {
  check_rows(x);
  if (x.shape(1) < 1) fail("a row must have at least one element");
  Floats y = floats(shape_of(x));
  float* const to = y.mutable_data();
  check_threads(threads);
  compute([&] { nd::softmax(kernels(), x.data(), x.shape(0), x.shape(1), logarithm, to, threads); });
  return y;
}

// Without a scale it is 1; `run` elements after each other share one (see nd::Scaling).
py::tuple normalize(const Floats& x, double epsilon, bool center, int threads, const std::optional<Floats>& scale,
                    const std::optional<Floats>& bias, std::int64_t run) {
  check_rows(x);
  if (x.shape(1) < 1) fail("a row must have at least one element");
  if (run < 1) fail("run must be at least 1");
  for (const auto* factors : {&scale, &bias}) {
    if (*factors && ((*factors)->ndim() != 1 || (*factors)->size() < 1)) fail("scale and bias must have one axis");
  }
  if (bias && (!scale || bias->size() != scale->size())) fail("bias must have as many elements as scale");
  constexpr float kOne = 1.0f;
  const bool one = !scale || scale->size() == 1;
  const nd::Scaling scaling{scale ? scale->data() : &kOne, bias ? bias->data() : nullptr, one ? 1 : scale->size(),
                            one ? x.shape(1) : run};
  Floats y = floats(shape_of(x)), mean = floats({x.shape(0)}), inverse = floats({x.shape(0)});
  float *const to = y.mutable_data(), *const m = mean.mutable_data(), *const i = inverse.mutable_data();
  check_threads(threads);
  compute([&] { nd::normalize(kernels(), x.data(), x.shape(0), x.shape(1), epsilon, center, scaling, to, m, i, threads); });
  return py::make_tuple(y, mean, inverse);
}

Floats resample(const Floats& x, const py::array_t<std::int64_t, py::array::c_style>& index, const Floats& weight,
                int threads) {
  check_dense(x);
  if (x.ndim() != 3) fail("x must be [outer, in, inner]");
  if (index.ndim() != 2 || index.shape(1) < 1 || shape_of(index) != shape_of(weight)) {
    fail("index and weight must be [out, taps]");
  }
  for (py::ssize_t i = 0; i < index.size(); ++i) {
    if (index.data()[i] < 0 || index.data()[i] >= x.shape(1)) fail("index lies outside the axis");
  }
  Floats y = floats({x.shape(0), index.shape(0), x.shape(2)});
  float* const to = y.mutable_data();
  check_threads(threads);
  compute([&] {
    nd::resample(x.data(), x.shape(0), x.shape(1), x.shape(2), index.shape(0), index.shape(1), index.data(), weight.data(), to,
                 threads);
  });
  return y;
}

}  // namespace

void add_nd(py::module_& module) {
  using py::arg;
  py::module_ m = module.def_submodule("nd", "Operators over arrays of any rank; see csrc/nd/operators.h.");
  py::class_<nd::PackedMatrix, MatrixPtr>(m, "PackedMatrix")
      .def("__init__", constructor(&pack), NewStyle(), arg("matrix"), arg("bias") = py::none())
      .def_property_readonly("k", &nd::PackedMatrix::k)
      .def_property_readonly("n", &nd::PackedMatrix::n);
  m.def("copy", [](py::array to, const py::array& from, int threads) { copy(to, from, threads); }, arg("to"), arg("source"),
        arg("threads"));
  m.def("dense", &dense, arg("x"), arg("threads"));
  m.def("gather", &gather, arg("x"), arg("index"), arg("fill"), arg("threads"));
  m.def("select", &select, arg("condition"), arg("a"), arg("b"), arg("threads"));
  m.def("unary", &unary, arg("name"), arg("x"), arg("a"), arg("b"), arg("threads"));
  m.def("has_unary", &nd::has_unary, arg("name"));
  m.def("binary", &binary, arg("name"), arg("a"), arg("b"), arg("threads"));
  m.def("cast", &cast, arg("x"), arg("dtype"), arg("threads"));
  m.def("matmul", &matmul, arg("a"), arg("b"), arg("threads"));
  m.def("products", &products, arg("a"), arg("b"), arg("threads"));
  m.def("reduce", &reduce, arg("name"), arg("x"), arg("threads"));
  m.def("softmax", &softmax, arg("x"), arg("logarithm"), arg("threads"));
  m.def("normalize", &normalize, arg("x"), arg("epsilon"), arg("center"), arg("threads"), arg("scale") = py::none(),
        arg("bias") = py::none(), arg("run") = 1);
  m.def("resample", &resample, arg("x"), arg("index"), arg("weight"), arg("threads"));
  add_nd_windows(m);
}

}  // namespace sepconv::bind
