// Elementwise functions: floats by the vector kernels where there is one, all else by plain loops.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <type_traits>

#include "nd/operators.h"

namespace sepconv::nd {
namespace {

struct NamedKind {
  std::string_view name;
  UnaryKind kind;
};
constexpr NamedKind kVector[] = {
    {"relu", UnaryKind::relu},         {"leaky_relu", UnaryKind::leaky_relu}, {"clip", UnaryKind::clip},
    {"affine", UnaryKind::affine},     {"hard_sigmoid", UnaryKind::hard_sigmoid}, {"hard_swish", UnaryKind::hard_swish},
    {"sigmoid", UnaryKind::sigmoid},   {"swish", UnaryKind::swish},           {"tanh", UnaryKind::tanh},
    {"elu", UnaryKind::elu},           {"selu", UnaryKind::selu},             {"celu", UnaryKind::celu},
    {"softplus", UnaryKind::softplus}, {"mish", UnaryKind::mish},             {"gelu", UnaryKind::gelu},
    {"gelu_tanh", UnaryKind::gelu_tanh}, {"exp", UnaryKind::exp},
};

using Function = float (*)(float x, float a, float b);
struct NamedFunction {
  std::string_view name;
  Function function;
};
// Without a vector kernel: they are rare in networks, or libm is what makes them precise.
constexpr NamedFunction kOther[] = {
    {"abs", [](float x, float, float) { return std::fabs(x); }},
    {"neg", [](float x, float, float) { return -x; }},
    {"reciprocal", [](float x, float, float) { return 1.0f / x; }},
    {"sqrt", [](float x, float, float) { return std::sqrt(x); }},
    {"log", [](float x, float, float) { return std::log(x); }},
    {"floor", [](float x, float, float) { return std::floor(x); }},
    {"ceil", [](float x, float, float) { return std::ceil(x); }},
    {"round", [](float x, float, float) { return std::nearbyint(x); }},  // ties to even
    {"sign", [](float x, float, float) { return x > 0 ? 1.0f : x < 0 ? -1.0f : x; }},
    {"erf", [](float x, float, float) { return std::erf(x); }},
    {"softsign", [](float x, float, float) { return x / (1.0f + std::fabs(x)); }},
    {"thresholded_relu", [](float x, float a, float) { return x > a ? x : 0.0f; }},
    {"shrink", [](float x, float a, float b) { return x < -a ? x + b : x > a ? x - b : 0.0f; }},
    {"sin", [](float x, float, float) { return std::sin(x); }},
    {"cos", [](float x, float, float) { return std::cos(x); }},
    {"tan", [](float x, float, float) { return std::tan(x); }},
    {"asin", [](float x, float, float) { return std::asin(x); }},
    {"acos", [](float x, float, float) { return std::acos(x); }},
    {"atan", [](float x, float, float) { return std::atan(x); }},
    {"sinh", [](float x, float, float) { return std::sinh(x); }},
    {"cosh", [](float x, float, float) { return std::cosh(x); }},
    {"asinh", [](float x, float, float) { return std::asinh(x); }},
    {"acosh", [](float x, float, float) { return std::acosh(x); }},
    {"atanh", [](float x, float, float) { return std::atanh(x); }},
};

template <class Table>
auto find(const Table& table, std::string_view name) {
  return std::find_if(std::begin(table), std::end(table), [&](const auto& entry) { return entry.name == name; });
}

// f(begin, end) over runs of [0, n).
template <class F>
void for_runs(std::int64_t n, int threads, const F& f) {
  for_pieces(threads_for(n, threads), (n + kSerial - 1) / kSerial,
             [&](std::int64_t begin, std::int64_t end, int) { f(begin * kSerial, std::min(end * kSerial, n)); });
}

// --- Two operands

template <class T>
T divide(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return a / b;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return static_cast<T>(0 - static_cast<std::make_unsigned_t<T>>(a));
    }
    return static_cast<T>(a / b);
  }
}

template <class T>
T power(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    return std::pow(a, b);
  } else {
    using U = std::uint64_t;
    if constexpr (std::is_signed_v<T>) {
      if (b < 0) return a == 1 ? T{1} : a == T{-1} ? (b % 2 == 0 ? T{1} : T{-1}) : T{0};
    }
    U result = 1, base = static_cast<U>(a);
    for (auto left = static_cast<U>(b); left != 0; left >>= 1, base *= base) {
      if (left & 1) result *= base;
    }
    return static_cast<T>(result);
  }
}

// With the sign of the divisor, as Python's; truncated: that of the dividend.
template <class T>
T remainder(T a, T b, bool truncated) {
  if constexpr (std::is_floating_point_v<T>) {
    const T r = std::fmod(a, b);
    return truncated || r == 0 || (r < 0) == (b < 0) ? r : r + b;
  } else {
    if (b == 0) return 0;
    if constexpr (std::is_signed_v<T>) {
      if (b == -1) return 0;
    }
    const T r = static_cast<T>(a % b);
    return truncated || r == 0 || (r < 0) == (b < 0) ? r : static_cast<T>(r + b);
  }
}

template <class T>
T extreme(T a, T b, bool greatest) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a)) return a;
    if (std::isnan(b)) return b;
  }
  return (greatest ? a > b : a < b) ? a : b;
}

template <class T>
T wrapped(T a, T b, BinaryKind kind) {
  if constexpr (std::is_floating_point_v<T>) {
    return kind == BinaryKind::add ? a + b : kind == BinaryKind::sub ? a - b : a * b;
  } else {
    const auto x = static_cast<std::uint64_t>(a), y = static_cast<std::uint64_t>(b);
    return static_cast<T>(kind == BinaryKind::add ? x + y : kind == BinaryKind::sub ? x - y : x * y);
  }
}

// As it lies in memory: of a bool any byte but 0 is true, as to numpy.
template <class T>
using Stored = std::conditional_t<std::is_same_v<T, bool>, std::uint8_t, T>;

struct Row {
  const char *a, *b;
  std::ptrdiff_t a_step, b_step;
  char* to;
  std::int64_t n;
};

template <class T, class R, class Op>
void loop(const Row& row, Op op) {
  const auto* a = reinterpret_cast<const Stored<T>*>(row.a);
  const auto* b = reinterpret_cast<const Stored<T>*>(row.b);
  auto* to = reinterpret_cast<R*>(row.to);
  for (std::int64_t i = 0; i < row.n; ++i) {
    to[i] = static_cast<R>(op(static_cast<T>(a[i * row.a_step]), static_cast<T>(b[i * row.b_step])));
  }
}

// One row. False where the kind does not exist for T.
template <class T>
bool binary_row(BinaryKind kind, const Row& row) {
  constexpr bool logical = std::is_same_v<T, bool>;
  switch (kind) {
    case BinaryKind::equal: return loop<T, bool>(row, [](T a, T b) { return a == b; }), true;
    case BinaryKind::logical_and: return loop<T, bool>(row, [](T a, T b) { return a && b; }), logical;
    case BinaryKind::logical_or: return loop<T, bool>(row, [](T a, T b) { return a || b; }), logical;
    case BinaryKind::logical_xor: return loop<T, bool>(row, [](T a, T b) { return !a != !b; }), logical;
    default: break;
  }
  if constexpr (!logical) {
    switch (kind) {
      case BinaryKind::add:
      case BinaryKind::sub:
      case BinaryKind::mul: return loop<T, T>(row, [kind](T a, T b) { return wrapped(a, b, kind); }), true;
      case BinaryKind::div: return loop<T, T>(row, [](T a, T b) { return divide(a, b); }), true;
      case BinaryKind::pow: return loop<T, T>(row, [](T a, T b) { return power(a, b); }), true;
      case BinaryKind::mod: return loop<T, T>(row, [](T a, T b) { return remainder(a, b, false); }), true;
      case BinaryKind::fmod: return loop<T, T>(row, [](T a, T b) { return remainder(a, b, true); }), true;
      case BinaryKind::max: return loop<T, T>(row, [](T a, T b) { return extreme(a, b, true); }), true;
      case BinaryKind::min: return loop<T, T>(row, [](T a, T b) { return extreme(a, b, false); }), true;
      case BinaryKind::less: return loop<T, bool>(row, [](T a, T b) { return a < b; }), true;
      case BinaryKind::less_equal: return loop<T, bool>(row, [](T a, T b) { return a <= b; }), true;
      case BinaryKind::greater: return loop<T, bool>(row, [](T a, T b) { return a > b; }), true;
      case BinaryKind::greater_equal: return loop<T, bool>(row, [](T a, T b) { return a >= b; }), true;
      default: break;
    }
  }
  return false;
}

// f(value of the type).
template <class F>
auto with_type(Type type, const F& f) {
  switch (type) {
    case Type::f32: return f(float{});
    case Type::f64: return f(double{});
    case Type::i8: return f(std::int8_t{});
    case Type::u8: return f(std::uint8_t{});
    case Type::i32: return f(std::int32_t{});
    case Type::i64: return f(std::int64_t{});
    default: return f(bool{});
  }
}

// Joins axes that lie behind each other in both operands.
void collapse(Array& to, Array& a, Array& b) {
  int rank = 0;
  for (int i = 0; i < to.rank; ++i) {
    if (to.dims[i] == 1 && to.rank > 1) continue;
    const int p = rank - 1;
    if (rank > 0 && a.strides[p] == a.strides[i] * to.dims[i] && b.strides[p] == b.strides[i] * to.dims[i]) {
      to.dims[p] *= to.dims[i];
      a.strides[p] = a.strides[i];
      b.strides[p] = b.strides[i];
    } else {
      to.dims[rank] = to.dims[i];
      a.strides[rank] = a.strides[i];
      b.strides[rank++] = b.strides[i];
    }
  }
  to.rank = rank;
}

template <class To, class From>
To converted(From x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != From{0};
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To>) {
    // Out of range is undefined in C++: the nearest there is, and 0 for NaN.
    if (x != x) return 0;
    const double wide = static_cast<double>(x);
    if (wide <= static_cast<double>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
    if (wide >= static_cast<double>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

}  // namespace

bool has_unary(const std::string& name) {
  return find(kVector, name) != std::end(kVector) || find(kOther, name) != std::end(kOther);
}

void unary(const std::string& name, const KernelTable& table, const float* in, float* out, std::int64_t n, float a, float b,
           int threads) {
  if (const auto* vector = find(kVector, name); vector != std::end(kVector)) {
    return for_runs(n, threads, [&](std::int64_t begin, std::int64_t end) {
      table.unary_f32(vector->kind, in + begin, out + begin, end - begin, a, b);
    });
  }
  const Function function = find(kOther, name)->function;
  for_runs(n, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) out[i] = function(in[i], a, b);
  });
}

bool binary(BinaryKind kind, Type type, const KernelTable& table, const Array& to_array, const Array& a_array,
            const Array& b_array, int threads) {
  Array to = to_array, a = a_array, b = b_array;
  if (kind == BinaryKind::prelu && type != Type::f32) return false;
  const bool known = with_type(type, [&](auto element) {
    const Row nothing{nullptr, nullptr, 0, 0, nullptr, 0};
    return kind == BinaryKind::prelu || binary_row<decltype(element)>(kind, nothing);
  });
  const std::int64_t elements = to.elements();
  if (!known || elements == 0) return known;
  collapse(to, a, b);
  const int last = to.rank - 1;
  const std::int64_t columns = to.rank == 0 ? 1 : to.dims[last];
  const std::int64_t runs = (columns + kSerial - 1) / kSerial;
  with_type(type, [&](auto element) {
    using T = decltype(element);
    const auto size = static_cast<std::ptrdiff_t>(sizeof(T));
    const bool gives_bool = kind >= BinaryKind::equal;
    const auto step = [&](const Array& x) { return std::ptrdiff_t{to.rank == 0 || x.strides[last] == 0 ? 0 : 1}; };
    for_pieces(threads_for(elements, threads), elements / columns * runs, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t outer = i / runs, first = i % runs * kSerial;
        const Row row{a.data + offset_of(outer, last, to.dims, a.strides) + first * step(a) * size,
                      b.data + offset_of(outer, last, to.dims, b.strides) + first * step(b) * size,
                      step(a), step(b),
                      to.data + (outer * columns + first) * (gives_bool ? 1 : size),
                      std::min(kSerial, columns - first)};
        if constexpr (std::is_same_v<T, float>) {
          if (static_cast<int>(kind) < kVectorBinaryKinds) {
            table.binary_f32(kind, reinterpret_cast<const float*>(row.a), static_cast<int>(row.a_step),
                             reinterpret_cast<const float*>(row.b), static_cast<int>(row.b_step),
                             reinterpret_cast<float*>(row.to), row.n);
            continue;
          }
        }
        binary_row<T>(kind, row);
      }
    });
    return true;
  });
  return true;
}

void cast(Type to_type, char* to, Type from_type, const char* from, std::int64_t n, int threads) {
  with_type(to_type, [&](auto to_element) {
    with_type(from_type, [&](auto from_element) {
      using To = decltype(to_element);
      using From = decltype(from_element);
      for_runs(n, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          reinterpret_cast<To*>(to)[i] = converted<To>(static_cast<From>(reinterpret_cast<const Stored<From>*>(from)[i]));
        }
      });
      return true;
    });
    return true;
  });
}

}  // namespace sepconv::nd
