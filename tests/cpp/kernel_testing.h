// What the kernel tests share: which tables to test, random values, and how near a result must come to the oracle.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cpu/features.h"
#include "guarded.h"
#include "kernels/table.h"

namespace sepconv::test {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kDenormal = 1e-40f;
inline constexpr double kEpsilon = 0x1p-24;  // half the gap above 1: the relative error of one float32 rounding
// What outputs hold before a kernel writes them: a NaN that no computation makes.
inline constexpr std::uint32_t kUnwritten = 0x7fabcdef;

struct Clamp {
  float lo = -kInf, hi = kInf;
};

// A kernel of one ISA, named as everywhere: gemm_f32_14x32__avx512.
struct KernelId {
  std::string kernel, isa;
  const KernelTable& table() const { return kernels(isa); }
  friend void PrintTo(const KernelId& id, std::ostream* os) { *os << id.kernel << "__" << id.isa; }
};

inline std::string test_name(const ::testing::TestParamInfo<KernelId>& info) {
  return info.param.kernel + "__" + info.param.isa;
}

// Every one of these kernels on every ISA that this CPU runs.
inline std::vector<KernelId> on_each_isa(const std::vector<std::string>& names) {
  std::vector<KernelId> ids;
  for (const std::string& isa : supported_isas())
    for (const std::string& name : names) ids.push_back({name, isa});
  return ids;
}

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  float unit() { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(engine_); }
  float integer(int limit = 8) { return static_cast<float>(below(2 * limit + 1) - limit); }
  int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(engine_); }

 private:
  std::mt19937 engine_;
};

// How values are drawn: small integers give sums without rounding.
enum class Values { real, integer };
inline std::vector<float> draw(Random& random, std::size_t n, Values values) {
  std::vector<float> out(n);
  for (float& x : out) x = values == Values::real ? random.unit() : random.integer();
  return out;
}

inline std::vector<double> widen(std::span<const float> x) { return {x.begin(), x.end()}; }

inline bool same_bits(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

// The gap between float32 numbers at x.
inline double ulp(double x) {
  const float magnitude = std::fabs(static_cast<float>(x));
  return std::isinf(magnitude) ? 0.0 : static_cast<double>(std::nextafter(magnitude, kInf)) - double{magnitude};
}

// (K + 4)·2^-24·Σ|x·w| + 1 ulp, K the products in the sum. Where a term is infinite or NaN, so is the sum: no bound.
inline double sum_bound(double expected, int products, double magnitude) {
  return std::isfinite(magnitude) ? (products + 4) * kEpsilon * magnitude + ulp(expected) : 0.0;
}

// NaN for NaN, the same infinity for an infinity, and else a distance of at most `bound`.
inline ::testing::AssertionResult close(double expected, float actual, double bound) {
  const double wide = actual;
  const bool good = std::isnan(expected)                          ? std::isnan(actual)
                    : std::isinf(static_cast<float>(expected))    ? actual == static_cast<float>(expected)
                    : bound == 0.0                                ? wide == expected
                                                                  : std::abs(wide - expected) <= bound;
  if (good) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "is " << wide << ", must be " << expected << " within " << bound;
}

// An output buffer full of kUnwritten.
inline GuardedBuffer<float> unwritten(std::size_t count, Flush flush) {
  GuardedBuffer<float> buffer(count, flush);
  for (float& x : buffer.values()) std::memcpy(&x, &kUnwritten, sizeof x);
  return buffer;
}
inline bool is_unwritten(const float& x) { return std::memcmp(&x, &kUnwritten, sizeof x) == 0; }

}  // namespace sepconv::test
