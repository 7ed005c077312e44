#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <type_traits>

#include "base/fp_env.h"
#include "grad/grad.h"
#include "grad/pieces.h"

namespace sepconv {
namespace {

constexpr std::int64_t kPiece = 1 << 14;  // numbers

// out[i] = inside(value[i]) ? dy[i] : 0, without a branch, which every second number would mispredict. NaN is inside, as in
// torch: a gradient of 0 would hide it from what looks for NaN there.
template <class T, class Inside>
void mask(const T* value, const T* dy, T* out, std::int64_t n, Inside inside) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  for (std::int64_t i = 0; i < n; ++i) {
    const Bits keep = Bits{0} - static_cast<Bits>(inside(value[i]));
    out[i] = std::bit_cast<T>(std::bit_cast<Bits>(dy[i]) & keep);
  }
}

template <class T, class Slope>
void scale(const T* value, const T* dy, T* out, std::int64_t n, Slope slope) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = slope(value[i]) * dy[i];
}

template <class T>
void piece(Activation activation, const T* value, const T* dy, T* out, std::int64_t n) {
  const auto sigmoid = [](T x) { return 1 / (1 + std::exp(-x)); };
  switch (activation) {
    case Activation::none: std::copy(dy, dy + n, out); break;
    case Activation::relu:
      mask(value, dy, out, n, [](T x) { return !(x <= 0); });
      break;
    case Activation::relu6:
      mask(value, dy, out, n, [](T x) { return !((x <= 0) | (x >= 6)); });
      break;
    case Activation::hard_sigmoid:
      scale(value, dy, out, n, [](T x) { return ((x > -3) & (x < 3)) ? T(1) / 6 : T(0); });
      break;
    case Activation::hard_swish:
      scale(value, dy, out, n, [](T x) { return x <= -3 ? T(0) : x < 3 ? x / 3 + T(0.5) : T(1); });
      break;
    case Activation::sigmoid:
      scale(value, dy, out, n, [&](T x) {
        const T s = sigmoid(x);
        return s * (1 - s);
      });
      break;
    case Activation::silu:
      scale(value, dy, out, n, [&](T x) {
        const T s = sigmoid(x);
        return s * (1 + x * (1 - s));
      });
      break;
    case Activation::gelu:  // Φ(x) + x·Φ'(x)
      scale(value, dy, out, n, [](T x) {
        const T density = std::exp(x * x / -2) * static_cast<T>(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
        return std::erfc(x * static_cast<T>(-std::numbers::sqrt2 / 2)) / 2 + x * density;
      });
      break;
    case Activation::gelu_tanh:  // x·sigmoid(y) with y = k·(x + c·x³)
      scale(value, dy, out, n, [&](T given) {
        const T x = std::clamp(given, T(-1e4), T(1e4));  // where s is 0 or 1, and the cube finite
        const T k = static_cast<T>(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi), c = T(0.044715);
        const T s = sigmoid(k * (x + c * x * x * x));
        return s * (1 + x * (1 - s) * k * (1 + 3 * c * x * x));
      });
      break;
  }
}

template <class T>
void run(Activation activation, const T* value, const T* dy, T* out, std::int64_t n, int threads) {
  const FlushDenormals flush;
  for_each_piece((n + kPiece - 1) / kPiece, threads, [&](std::int64_t i, int, const Stop&) {
    const std::int64_t begin = i * kPiece;
    piece(activation, value + begin, dy + begin, out + begin, std::min(kPiece, n - begin));
  });
}

}  // namespace

void activation_grad(Activation activation, const float* value, const float* dy, float* out, std::int64_t n, int threads) {
  run(activation, value, dy, out, n, threads);
}

void activation_grad(Activation activation, const double* value, const double* dy, double* out, std::int64_t n,
                     int threads) {
  run(activation, value, dy, out, n, threads);
}

}  // namespace sepconv
