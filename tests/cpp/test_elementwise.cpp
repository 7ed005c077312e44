// Addition, products, lanes put together, the activations and the softmax of every ISA against the oracles, at every length of a tail.
#include <algorithm>

#include "kernel_testing.h"
#include "ref/elementwise.h"

namespace sepconv::test {
namespace {

// Where the output goes.
enum class Into { other, first, second };

constexpr Activation kActivations[] = {Activation::none,         Activation::relu,    Activation::relu6,
                                       Activation::hard_swish,   Activation::sigmoid, Activation::silu,
                                       Activation::hard_sigmoid, Activation::gelu,   Activation::gelu_tanh};

// What a function of e^x may be wrong by, relative to it: 4 roundings.
constexpr double kRelative = 4 * kEpsilon;
constexpr double kLeastNormal = std::numeric_limits<float>::min();

// The bound of an activation's error: kRelative (gelu's polynomial rounds twice as often; gelu_tanh's argument of e^x is
// rounded three times), and all of a sigmoid that is below float32's normal numbers (silu and gelu multiply it by x, up to
// where the sigmoid is 0 in float32). The ones without e^x or a division are exact.
double activation_bound(Activation activation, double x, double expected) {
  if (activation == Activation::none || activation == Activation::relu || activation == Activation::relu6) return 0.0;
  double relative = kRelative;
  if (activation == Activation::gelu) relative *= 2;
  if (activation == Activation::gelu_tanh) relative += kEpsilon * 3 * std::min(1.6 * std::abs(x) * (1 + 0.0447 * x * x), 104.0);
  const double scale = activation >= Activation::silu ? std::min(std::abs(x), 104.0) + 1.0 : 1.0;
  return relative * std::abs(expected) + kLeastNormal * scale;
}

// The bound of a softmax's result p = e^(t - max)/Σ: kRelative, the roundings of t = beta·x and of t - max, which
// scale e^(t - max) and Σ by e^error, and n roundings of Σ.
double softmax_bound(double p, double t, double largest, int n) {
  return p * (kRelative + kEpsilon * (3 * std::abs(t) + 3 * std::abs(largest) + n)) + kLeastNormal;
}

class Add : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{4};

  // One float32 addition has one right answer.
  void check(const std::vector<float>& a, const std::vector<float>& b, Clamp clamp, Flush flush, Into into) {
    GuardedBuffer<float> other = unwritten(a.size(), flush), first = writable(a, flush), second = writable(b, flush);
    GuardedBuffer<float> read_a(a, flush), read_b(b, flush);
    float* const out = into == Into::other ? other.data() : into == Into::first ? first.data() : second.data();
    table.add_f32(into == Into::first ? out : read_a.data(), into == Into::second ? out : read_b.data(), out,
                  static_cast<std::int64_t>(a.size()), clamp.lo, clamp.hi);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const double expected = ref::clamp(double{a[i] + b[i]}, double{clamp.lo}, double{clamp.hi});
      ASSERT_TRUE(close(expected, out[i], 0.0)) << "element " << i << " of " << a.size();
    }
    for (const auto* buffer : {&other, &first, &second}) ASSERT_TRUE(buffer->slack_intact());
  }

  static GuardedBuffer<float> writable(const std::vector<float>& values, Flush flush) {
    GuardedBuffer<float> buffer(values.size(), flush);
    std::ranges::copy(values, buffer.data());
    return buffer;
  }
};

TEST_P(Add, EqualsTheFloatSumForEveryLengthAndPlace) {
  ASSERT_NE(table.add_f32, nullptr);
  for (std::size_t n = 1; n <= 70; ++n)
    for (const Flush flush : kBothEnds)
      for (const Clamp clamp : {Clamp{}, Clamp{0.0f, kInf}, Clamp{-0.25f, 0.5f}})
        for (const Into into : {Into::other, Into::first, Into::second})
          ASSERT_NO_FATAL_FAILURE(
              check(draw(random, n, Values::real), draw(random, n, Values::real), clamp, flush, into));
}

TEST_P(Add, LetsSpecialValuesThroughAtEveryElement) {
  const std::size_t n = 2 * table.vector + 3;
  for (const float special : {kNaN, -kNaN, kInf, -kInf, -0.0f, kDenormal, 3e38f})
    for (const float other : {special, -special, 1.0f})
      for (const Clamp clamp : {Clamp{}, Clamp{0.0f, 6.0f}, Clamp{0.0f, kInf}})
        for (std::size_t at = 0; at < n; ++at) {
          std::vector<float> a = draw(random, n, Values::real), b = draw(random, n, Values::real);
          a[at] = special;
          b[at] = other;
          ASSERT_NO_FATAL_FAILURE(check(a, b, clamp, Flush::tail, Into::other));
          ASSERT_NO_FATAL_FAILURE(check(b, a, clamp, Flush::tail, Into::other));
        }
}

TEST_P(Add, SoDoesTheProduct) {
  for (std::size_t n = 1; n <= 70; ++n)
    for (const Flush flush : kBothEnds)
      for (const Clamp clamp : {Clamp{}, Clamp{0.0f, kInf}, Clamp{-0.25f, 0.5f}}) {
        std::vector<float> a = draw(random, n, Values::real), b = draw(random, n, Values::real);
        const float specials[] = {kNaN, kInf, -0.0f, 3e38f};
        if (n % 3 == 0) a[n / 2] = specials[n % 4];
        GuardedBuffer<float> read_a(a, flush), read_b(b, flush), out = unwritten(n, flush);
        table.mul_f32(read_a.data(), read_b.data(), out.data(), static_cast<std::int64_t>(n), clamp.lo, clamp.hi);
        for (std::size_t i = 0; i < n; ++i) {
          const double expected = ref::clamp(double{a[i] * b[i]}, double{clamp.lo}, double{clamp.hi});
          ASSERT_TRUE(close(expected, out.data()[i], 0.0)) << "element " << i << " of " << n;
        }
        ASSERT_TRUE(out.slack_intact());
      }
}

TEST_P(Add, SoDoFactorsOfAPlane) {
  const std::size_t v = table.vector;
  for (std::size_t n = 1; n <= 20; ++n)
    for (const Flush flush : kBothEnds)
      for (const Clamp clamp : {Clamp{}, Clamp{0.0f, 6.0f}}) {
        const std::vector<float> a = draw(random, n * v, Values::real), factors = draw(random, v, Values::real);
        GuardedBuffer<float> read_a(a, flush), read_factors(factors, flush), out = unwritten(n * v, flush);
        table.scale_f32(read_a.data(), read_factors.data(), out.data(), static_cast<std::int64_t>(n), clamp.lo, clamp.hi);
        for (std::size_t i = 0; i < n * v; ++i) {
          const double expected = ref::clamp(double{a[i] * factors[i % v]}, double{clamp.lo}, double{clamp.hi});
          ASSERT_TRUE(close(expected, out.data()[i], 0.0)) << "element " << i << " of " << n << " vectors";
        }
        ASSERT_TRUE(out.slack_intact());
      }
}

TEST_P(Add, SoDoesTheSlopeOfAPlane) {
  const std::size_t v = table.vector;
  for (std::size_t n = 1; n <= 20; ++n)
    for (const Flush flush : kBothEnds)
      for (const float special : {1.0f, kNaN, kInf, -kInf, -0.0f}) {
        std::vector<float> a = draw(random, n * v, Values::real), slopes = draw(random, v, Values::real);
        a[random.below(static_cast<int>(n * v))] = special;
        if (n % 4 == 0) slopes[random.below(static_cast<int>(v))] = special;
        GuardedBuffer<float> read_a(a, flush), read_slopes(slopes, flush), out = unwritten(n * v, flush);
        table.prelu_f32(read_a.data(), read_slopes.data(), out.data(), static_cast<std::int64_t>(n));
        for (std::size_t i = 0; i < n * v; ++i) {
          const float expected = a[i] < 0.0f ? slopes[i % v] * a[i] : a[i];
          ASSERT_TRUE(close(double{expected}, out.data()[i], 0.0)) << "element " << i << " of " << n << " vectors";
        }
        ASSERT_TRUE(out.slack_intact());
      }
}

// Lanes from any number of planes, none among them: bits are moved, whatever they mean.
TEST_P(Add, ChannelsComeAsTheyAre) {
  const int v = table.vector;
  for (int sources = 1; sources <= v + 1; ++sources)
    for (int n = 1; n <= 9; ++n)
      for (const Flush flush : kBothEnds) {
        std::vector<GuardedBuffer<float>> planes;
        std::vector<const float*> pointers;
        for (int s = 0; s < sources; ++s) {
          std::vector<float> values = draw(random, static_cast<std::size_t>(n) * v, Values::real);
          values[random.below(n * v)] = kNaN;
          planes.emplace_back(values, flush);
          pointers.push_back(planes.back().data());
        }
        std::vector<std::int32_t> lanes(static_cast<std::size_t>(sources) * v, -1);
        std::vector<int> from(v, -1);
        for (int l = 0; l < v; ++l) {
          if (random.below(8) == 0) continue;
          from[l] = random.below(sources);
          lanes[from[l] * v + l] = random.below(v);
        }
        GuardedBuffer<std::int32_t> read_lanes(lanes, flush);
        GuardedBuffer<float> out = unwritten(static_cast<std::size_t>(n) * v, flush);
        table.channels_f32({pointers.data(), read_lanes.data(), sources, out.data(), n});
        for (int i = 0; i < n; ++i)
          for (int l = 0; l < v; ++l) {
            const float expected = from[l] < 0 ? 0.0f : pointers[from[l]][i * v + lanes[from[l] * v + l]];
            ASSERT_TRUE(same_bits(expected, out.data()[i * v + l])) << "lane " << l << " of vector " << i;
          }
        ASSERT_TRUE(out.slack_intact());
      }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Add, ::testing::ValuesIn(on_each_isa({"add_f32"})), test_name);

class Activate : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{5};

  std::vector<float> run(Activation activation, const std::vector<float>& x, Flush flush, bool in_place = false) {
    GuardedBuffer<float> in(x, flush), out = unwritten(x.size(), flush);
    if (in_place) std::ranges::copy(x, out.data());
    table.activate_f32(activation, in_place ? out.data() : in.data(), out.data(), static_cast<std::int64_t>(x.size()));
    EXPECT_TRUE(out.slack_intact());
    return {out.values().begin(), out.values().end()};
  }

  void check(Activation activation, const std::vector<float>& x, const std::vector<float>& actual) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double wide = double{x[i]}, expected = ref::activate(activation, wide);
      ASSERT_TRUE(close(expected, actual[i], activation_bound(activation, wide, expected)))
          << "activation " << static_cast<int>(activation) << " of " << x[i] << ", element " << i << " of " << x.size();
    }
  }
};

TEST_P(Activate, IsCloseToTheOracleForEveryLength) {
  ASSERT_NE(table.activate_f32, nullptr);
  for (const Activation activation : kActivations)
    for (std::size_t n = 1; n <= 70; ++n)
      for (const Flush flush : kBothEnds)
        for (const bool in_place : {false, true}) {
          std::vector<float> x = draw(random, n, Values::real);
          for (float& value : x) value *= 10.0f;
          ASSERT_NO_FATAL_FAILURE(check(activation, x, run(activation, x, flush, in_place)));
        }
}

TEST_P(Activate, IsCloseToTheOracleOverTheWholeRange) {
  std::vector<float> x;
  for (float value = 1e-42f; value < 1e38f; value *= 1.07f) x.insert(x.end(), {value, -value});
  for (int i = -12000; i <= 12000; ++i) x.push_back(static_cast<float>(i) * 0.01f);
  for (const float value : {0.0f, 3.0f, 6.0f, 87.3f, 88.0f, 88.7f, 88.8f, 103.9f, 104.0f, 1e30f, 3.4e38f, kInf})
    x.insert(x.end(), {value, -value});
  for (const Activation activation : kActivations)
    ASSERT_NO_FATAL_FAILURE(check(activation, x, run(activation, x, Flush::tail)));
}

TEST_P(Activate, HasItsLimits) {
  const auto one = [&](Activation activation, float x) { return run(activation, {x}, Flush::tail)[0]; };
  for (const float x : {-1e30f, -kInf}) EXPECT_EQ(one(Activation::sigmoid, x), 0.0f);
  for (const float x : {1e30f, kInf}) EXPECT_EQ(one(Activation::sigmoid, x), 1.0f);
  EXPECT_EQ(one(Activation::silu, -1e30f), 0.0f);
  EXPECT_EQ(one(Activation::silu, kInf), kInf);
  EXPECT_EQ(one(Activation::hard_swish, kInf), kInf);
  EXPECT_EQ(one(Activation::relu6, kInf), 6.0f);
  // x·0 at x = -inf, as the formulas are written
  EXPECT_TRUE(std::isnan(one(Activation::silu, -kInf)));
  EXPECT_TRUE(std::isnan(one(Activation::hard_swish, -kInf)));
  for (const Activation gelu : {Activation::gelu, Activation::gelu_tanh}) {
    EXPECT_EQ(one(gelu, -1e30f), 0.0f);
    EXPECT_EQ(one(gelu, kInf), kInf);
    EXPECT_TRUE(std::isnan(one(gelu, -kInf)));
  }
}

TEST_P(Activate, LetsSpecialValuesThroughAtEveryElement) {
  const std::size_t n = 2 * table.vector + 3;
  for (const Activation activation : kActivations)
    for (const float special : {kNaN, -kNaN, kInf, -kInf, -0.0f, kDenormal, -kDenormal})
      for (std::size_t at = 0; at < n; ++at) {
        std::vector<float> x = draw(random, n, Values::real);
        x[at] = special;
        const std::vector<float> actual = run(activation, x, Flush::tail);
        ASSERT_NO_FATAL_FAILURE(check(activation, x, actual));
        ASSERT_EQ(std::isnan(actual[at]), std::isnan(ref::activate(activation, double{special})));
      }
}

// Elements may not depend on where a range was cut.
TEST_P(Activate, GivesTheSameBitsInAVectorAndInATail) {
  std::vector<float> x = draw(random, 70, Values::real);
  for (float& value : x) value *= 20.0f;
  for (const Activation activation : kActivations) {
    const std::vector<float> all = run(activation, x, Flush::tail);
    for (std::size_t i = 0; i < x.size(); ++i)
      ASSERT_PRED2(same_bits, run(activation, {x[i]}, Flush::tail)[0], all[i]) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Activate, ::testing::ValuesIn(on_each_isa({"activate_f32"})), test_name);

class Softmax : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{6};

  std::vector<float> run(const std::vector<float>& x, float beta, Flush flush, bool in_place = false) {
    GuardedBuffer<float> in(x, flush), out = unwritten(x.size(), flush);
    if (in_place) std::ranges::copy(x, out.data());
    table.softmax_f32(in_place ? out.data() : in.data(), out.data(), static_cast<std::int64_t>(x.size()), beta);
    EXPECT_TRUE(out.slack_intact());
    return {out.values().begin(), out.values().end()};
  }

  void check(const std::vector<float>& x, float beta, const std::vector<float>& actual) {
    const int n = static_cast<int>(x.size());
    ref::Tensor wide({1, 1, n});
    wide.data = widen(x);
    const ref::Tensor expected = ref::softmax(wide, double{beta});
    double largest = -std::numeric_limits<double>::infinity();
    for (const double value : wide.data) largest = std::fmax(largest, value * double{beta});
    for (int i = 0; i < n; ++i) {
      const double p = expected.data[i], t = wide.data[i] * double{beta};
      // An infinite t has no rounding, and gives 0 or NaN.
      const double bound = std::isfinite(t) ? softmax_bound(p, t, largest, n) : kLeastNormal;
      ASSERT_TRUE(close(p, actual[i], bound)) << "element " << i << " of " << n << ", beta = " << beta;
    }
  }
};

TEST_P(Softmax, IsCloseToTheOracleForEveryLength) {
  ASSERT_NE(table.softmax_f32, nullptr);
  std::vector<int> lengths(70);
  for (int i = 0; i < 70; ++i) lengths[i] = i + 1;
  lengths.insert(lengths.end(), {1000, 1001});
  for (const int n : lengths)
    for (const float beta : {1.0f, 0.1f, 2.5f, -1.0f, 0.0f})
      for (const Flush flush : kBothEnds) {
        std::vector<float> x = draw(random, n, Values::real);
        for (float& value : x) value *= 15.0f;
        ASSERT_NO_FATAL_FAILURE(check(x, beta, run(x, beta, flush)));
        ASSERT_NO_FATAL_FAILURE(check(x, beta, run(x, beta, flush, true)));
      }
}

TEST_P(Softmax, HandlesLargeValuesAndInfinities) {
  const std::size_t n = 2 * table.vector + 3;
  for (const float special : {kNaN, kInf, -kInf, 1e30f, -1e30f, 88.0f, 104.0f, -104.0f, -0.0f, kDenormal})
    for (std::size_t at = 0; at < n; ++at) {
      std::vector<float> x = draw(random, n, Values::real);
      x[at] = special;
      ASSERT_NO_FATAL_FAILURE(check(x, 1.0f, run(x, 1.0f, Flush::tail)));
      if (std::isnan(special) || special == kInf) {
        for (const float p : run(x, 1.0f, Flush::tail)) ASSERT_TRUE(std::isnan(p));
      }
    }
  for (const float p : run(std::vector<float>(n, -kInf), 1.0f, Flush::tail)) ASSERT_TRUE(std::isnan(p));
  for (const float p : run(std::vector<float>(4, 1e30f), 1.0f, Flush::tail)) ASSERT_EQ(p, 0.25f);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Softmax, ::testing::ValuesIn(on_each_isa({"softmax_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
