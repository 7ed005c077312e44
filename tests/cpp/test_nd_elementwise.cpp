// The elementwise kernels of the N-d operators, of every ISA: at every length of a tail, flush against guard pages, with
// special values in every lane, against libm in float64.
#include <algorithm>
#include <bit>
#include <functional>

#include "base/fp_env.h"
#include "kernel_testing.h"

namespace sepconv::test {
namespace {

struct Unary {
  const char* name;
  UnaryKind kind;
  float a, b;
  std::function<double(double)> oracle;
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double elu(double x, double a) { return x < 0 ? a * std::expm1(x) : x; }
// By its bits: where denormals are flushed, one equals 0.
bool is_zero(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) == 0; }
double clamp01(double x) { return std::min(1.0, std::max(0.0, x)); }

std::vector<Unary> functions() {
  const double a = 0.3f, b = 0.2f;
  return {
      {"relu", UnaryKind::relu, 0, 0, [](double x) { return std::max(x, 0.0); }},
      {"leaky_relu", UnaryKind::leaky_relu, 0.3f, 0, [=](double x) { return x < 0 ? a * x : x; }},
      {"clip", UnaryKind::clip, -1.5f, 2, [](double x) { return std::min(2.0, std::max(-1.5, x)); }},
      {"affine", UnaryKind::affine, 0.3f, 0.2f, [=](double x) { return a * x + b; }},
      {"hard_sigmoid", UnaryKind::hard_sigmoid, 0.3f, 0.2f, [=](double x) { return clamp01(a * x + b); }},
      {"hard_swish", UnaryKind::hard_swish, 0, 0, [](double x) { return x * clamp01(x / 6 + 0.5); }},
      {"sigmoid", UnaryKind::sigmoid, 0, 0, sigmoid},
      {"swish", UnaryKind::swish, 0.3f, 0, [=](double x) { return x * sigmoid(a * x); }},
      {"tanh", UnaryKind::tanh, 0, 0, [](double x) { return std::tanh(x); }},
      {"elu", UnaryKind::elu, 0.3f, 0, [=](double x) { return elu(x, a); }},
      {"selu", UnaryKind::selu, 0.3f, 0.2f, [=](double x) { return b * elu(x, a); }},
      {"celu", UnaryKind::celu, 0.3f, 0, [=](double x) { return x < 0 ? a * std::expm1(x / a) : x; }},
      {"softplus", UnaryKind::softplus, 0, 0, softplus},
      {"mish", UnaryKind::mish, 0, 0, [](double x) { return x * std::tanh(softplus(x)); }},
      {"gelu", UnaryKind::gelu, 0, 0, [](double x) { return x * (std::erfc(-x * std::sqrt(0.5)) / 2); }},
      {"gelu_tanh", UnaryKind::gelu_tanh, 0, 0,
       [](double x) { return x * sigmoid(2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)); }},
      {"exp", UnaryKind::exp, 0, 0, [](double x) { return std::exp(x); }},
  };
}

// A few roundings of the result, and of the argument of an exponential, which scales with x. Those that take a difference
// lose what is far below 1; the exponential itself, and the sigmoid of it, do not.
double bound(UnaryKind kind, double x, double y) {
  const double lost = kind == UnaryKind::exp || kind == UnaryKind::sigmoid ? 0 : 1e-7 * 0x1p-3;
  return kEpsilon * ((10 + 4 * std::abs(x)) * std::abs(y)) + lost;
}

class NdUnary : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{31};

  std::vector<float> run(const Unary& f, const std::vector<float>& x, Flush flush, bool in_place) {
    GuardedBuffer<float> in(x, flush), out = unwritten(x.size(), flush);
    if (in_place) std::ranges::copy(x, out.data());
    table.unary_f32(f.kind, in_place ? out.data() : in.data(), out.data(), static_cast<std::int64_t>(x.size()), f.a, f.b);
    EXPECT_TRUE(out.slack_intact());
    return {out.values().begin(), out.values().end()};
  }
};

TEST_P(NdUnary, IsCloseToLibmForEveryLength) {
  for (const Unary& f : functions()) {
    for (std::size_t n = 1; n <= 37; ++n) {
      for (const Flush flush : kBothEnds) {
        std::vector<float> x = draw(random, n, Values::real);
        for (float& value : x) value *= n % 3 == 0 ? 20.0f : n % 3 == 1 ? 2.0f : 1e-3f;
        const std::vector<float> y = run(f, x, flush, n % 2 == 0);
        for (std::size_t i = 0; i < n; ++i) {
          const double want = f.oracle(double{x[i]});
          ASSERT_TRUE(close(want, y[i], bound(f.kind, double{x[i]}, want))) << f.name << " of " << x[i] << ", element " << i << " of " << n;
        }
      }
    }
  }
}

TEST_P(NdUnary, LetsNaNThroughInEveryLane) {
  const auto n = static_cast<std::size_t>(2 * table.vector + 3);
  for (const Unary& f : functions()) {
    for (std::size_t at = 0; at < n; ++at) {
      std::vector<float> x = draw(random, n, Values::real);
      x[at] = kNaN;
      const std::vector<float> y = run(f, x, Flush::tail, false);
      for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(std::isnan(y[i]), i == at) << f.name << ", element " << i;
    }
  }
}

TEST_P(NdUnary, GoesToItsLimits) {
  const std::vector<std::pair<const char*, std::pair<float, float>>> limits = {
      {"sigmoid", {0, 1}}, {"tanh", {-1, 1}}, {"softplus", {0, kInf}}, {"exp", {0, kInf}}, {"hard_sigmoid", {0, 1}}, {"relu", {0, kInf}}};
  for (const Unary& f : functions()) {
    for (const auto& [name, ends] : limits) {
      if (std::string(name) != f.name) continue;
      for (const float far : {1e4f, 3e38f, kInf}) {
        const std::vector<float> y = run(f, {-far, far}, Flush::head, false);
        ASSERT_NEAR(y[0], ends.first, 1e-30) << name;
        if (std::isinf(ends.second)) {
          ASSERT_TRUE(y[1] > 9e3f) << name;
        } else {
          ASSERT_EQ(y[1], ends.second) << name;
        }
      }
    }
  }
}

// Where they only choose, values are as they were, to the bit: an infinite factor below 0 is nothing to those above.
TEST_P(NdUnary, OnlyWhatIsBelowZeroHasAFactor) {
  const std::vector<float> x = {0.0f, -0.0f, 1.0f, 3e38f, kInf, kNaN, 1.0f, 2.0f, 3.0f};
  for (const UnaryKind kind : {UnaryKind::leaky_relu, UnaryKind::elu, UnaryKind::celu}) {
    for (const float a : {kInf, -kInf, kNaN, 3.0f}) {
      const std::vector<float> y = run({"", kind, a, 0, {}}, x, Flush::tail, false);
      for (std::size_t i = 0; i < x.size(); ++i) {
        ASSERT_TRUE(std::isnan(x[i]) ? std::isnan(y[i]) : same_bits(x[i], y[i])) << x[i] << " gives " << y[i] << ", a " << a;
      }
    }
    ASSERT_EQ(run({"", UnaryKind::leaky_relu, kInf, 0, {}}, {-1.0f}, Flush::head, false)[0], -kInf);
  }
}

// In a run, a denormal is the zero of its sign on every ISA, also where values are only compared.
TEST_P(NdUnary, TakesDenormalsForZero) {
  const FlushDenormals flush;
  const auto n = static_cast<std::size_t>(table.vector + 3);
  const Unary chosen[] = {
      {"relu", UnaryKind::relu, 0, 0, {}},           {"leaky_relu", UnaryKind::leaky_relu, 3, 0, {}},
      {"clip", UnaryKind::clip, -1, 1, {}},          {"clip to a denormal", UnaryKind::clip, kDenormal, 1, {}},
      {"elu", UnaryKind::elu, 2, 0, {}},             {"selu", UnaryKind::selu, 2, 2, {}},
      {"celu", UnaryKind::celu, 2, 0, {}},
  };
  for (const Unary& f : chosen) {
    for (const float tiny : {kDenormal, -kDenormal}) {
      const std::vector<float> y = run(f, std::vector<float>(n, tiny), Flush::tail, false);
      const std::vector<float> zero = run(f, std::vector<float>(n, std::copysign(0.0f, tiny)), Flush::tail, false);
      for (std::size_t i = 0; i < n; ++i) ASSERT_TRUE(is_zero(y[i]) && same_bits(y[i], zero[i])) << f.name << " of " << tiny;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, NdUnary, ::testing::ValuesIn(on_each_isa({"unary_f32"})), test_name);

class NdBinary : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{32};

  static float oracle(BinaryKind kind, float a, float b) {
    switch (kind) {
      case BinaryKind::add: return a + b;
      case BinaryKind::sub: return a - b;
      case BinaryKind::mul: return a * b;
      case BinaryKind::div: return a / b;
      case BinaryKind::max: return std::isnan(a) || std::isnan(b) ? kNaN : std::max(a, b);
      default: return a < 0 ? b * a : a;
    }
  }
};

TEST_P(NdBinary, EqualsTheScalarForEveryLengthStepAndPlace) {
  for (int kind = 0; kind < kVectorBinaryKinds; ++kind) {
    for (std::size_t n = 1; n <= 37; ++n) {
      for (const int a_step : {0, 1}) {
        for (const int b_step : {0, 1}) {
          for (const Flush flush : kBothEnds) {
            std::vector<float> x = draw(random, a_step ? n : 1, Values::real), y = draw(random, b_step ? n : 1, Values::real);
            if (n % 5 == 0) x[x.size() / 2] = kNaN;
            if (n % 7 == 0) y[y.size() / 2] = kInf;
            GuardedBuffer<float> a(x, flush), b(y, flush), out = unwritten(n, flush);
            table.binary_f32(static_cast<BinaryKind>(kind), a.data(), a_step, b.data(), b_step, out.data(),
                             static_cast<std::int64_t>(n));
            ASSERT_TRUE(out.slack_intact());
            for (std::size_t i = 0; i < n; ++i) {
              const float p = x[a_step ? i : 0], q = y[b_step ? i : 0];
              const double want = double{oracle(static_cast<BinaryKind>(kind), p, q)};
              ASSERT_TRUE(close(want, out.values()[i], 0.0)) << "kind " << kind << ", element " << i << " of " << n;
            }
          }
        }
      }
    }
  }
}

TEST_P(NdBinary, TakesDenormalsForZero) {
  const FlushDenormals flush;
  const auto n = static_cast<std::size_t>(table.vector + 3);
  for (const BinaryKind kind : {BinaryKind::max, BinaryKind::prelu}) {
    for (const auto& [p, q] : {std::pair{kDenormal, -1.0f}, {kDenormal, -0.0f}, {-kDenormal, -1.0f}, {-0.0f, kDenormal}}) {
      const std::vector<float> x(n, p), y(n, q);
      std::vector<float> out(n);
      table.binary_f32(kind, x.data(), 1, y.data(), 1, out.data(), static_cast<std::int64_t>(n));
      for (const float value : out) ASSERT_TRUE(is_zero(value)) << p << ", " << q << ", kind " << static_cast<int>(kind);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, NdBinary, ::testing::ValuesIn(on_each_isa({"binary_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
