// Gradients against the oracle on every ISA, between guard pages, the same bits at any number of threads.
#include <functional>

#include "grad/grad.h"
#include "kernel_testing.h"
#include "ref/grad.h"

namespace sepconv::test {
namespace {

using Bits = std::vector<float>;

// Results within the bound of a sum of that many products; exact for integers.
void expect_close(const std::vector<double>& expected, const std::vector<double>& magnitude, std::span<const float> actual,
                  int products, Values values, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double bound = values == Values::integer ? 0.0 : sum_bound(expected[i], products, magnitude[i]);
    ASSERT_TRUE(close(expected[i], actual[i], bound)) << what << ", element " << i;
  }
}

struct DepthwiseCase {
  Shape in;
  Window window;
  int multiplier, images;

  std::string text() const {
    const Window& w = window;
    return std::to_string(images) + "x" + std::to_string(in.h) + "x" + std::to_string(in.w) + "x" + std::to_string(in.c) +
           ", kernel " + std::to_string(w.kh) + "x" + std::to_string(w.kw) + ", stride " + std::to_string(w.stride_h) + "," +
           std::to_string(w.stride_w) + ", dilation " + std::to_string(w.dilation_h) + "," + std::to_string(w.dilation_w) +
           ", padding " + std::to_string(w.padding.top) + "," + std::to_string(w.padding.bottom) + "," +
           std::to_string(w.padding.left) + "," + std::to_string(w.padding.right) + ", multiplier " + std::to_string(multiplier);
  }
};

class Gradients : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{4};

  DepthwiseCase any_depthwise() {
    for (;;) {
      const int square = random.below(3) == 0 ? 5 : 3;
      const bool fast = random.below(2) == 0;
      Window w;
      w.kh = fast ? square : 1 + random.below(4);
      w.kw = fast ? square : 1 + random.below(4);
      w.stride_h = 1 + random.below(3);
      w.stride_w = fast ? w.stride_h : 1 + random.below(7);  // also past all of the image
      w.dilation_h = fast ? 1 : 1 + random.below(5);
      w.dilation_w = fast ? 1 : 1 + random.below(5);
      const auto pad = [&] { return random.below(fast ? square : 10); };  // also wider than the window reaches
      w.padding = {pad(), pad(), pad(), pad()};
      const Shape in{1 + random.below(12), 1 + random.below(20), 1 + random.below(2 * table.vector + 3)};
      if (in.h + w.padding.top + w.padding.bottom < (w.kh - 1) * w.dilation_h + 1) continue;
      if (in.w + w.padding.left + w.padding.right < (w.kw - 1) * w.dilation_w + 1) continue;
      const int multiplier = random.below(3) == 0 ? 2 + random.below(3) : 1;
      return {in, w, multiplier, 1 + random.below(3) * (random.below(4) == 0 ? 9 : 1)};
    }
  }

  // dx, dweights and dbias one behind the other.
  void check(const DepthwiseCase& c, Values values, Flush flush) {
    const int outputs = c.in.c * c.multiplier, taps = c.window.kh * c.window.kw;
    const Shape out{c.window.out_h(c.in.h), c.window.out_w(c.in.w), outputs};
    const auto guarded = [&](std::int64_t n) { return GuardedBuffer<float>(draw(random, n, values), flush); };
    GuardedBuffer<float> x = guarded(c.images * c.in.elements()), dy = guarded(c.images * out.elements());
    GuardedBuffer<float> weights = guarded(std::int64_t{1} * outputs * taps);
    Bits first;
    for (const int threads : {1, 3}) {
      GuardedBuffer<float> dx = unwritten(x.size(), flush), dw = unwritten(weights.size(), flush), db = unwritten(outputs, flush);
      depthwise_grad({c.in, c.window, c.multiplier, c.images, x.data(), weights.data(), dy.data(), dx.data(), dw.data(), db.data()},
                     threads, table);
      ASSERT_TRUE(dx.slack_intact() && dw.slack_intact() && db.slack_intact()) << c.text();
      Bits all(dx.values().begin(), dx.values().end());
      all.insert(all.end(), dw.values().begin(), dw.values().end());
      all.insert(all.end(), db.values().begin(), db.values().end());
      if (threads == 1) first = all;
      for (std::size_t i = 0; i < all.size(); ++i) ASSERT_TRUE(same_bits(all[i], first[i])) << c.text();
    }
    // Each half alone gives the same.
    GuardedBuffer<float> dx = unwritten(x.size(), flush), dw = unwritten(weights.size(), flush);
    depthwise_grad({c.in, c.window, c.multiplier, c.images, nullptr, weights.data(), dy.data(), dx.data(), nullptr, nullptr}, 2, table);
    depthwise_grad({c.in, c.window, c.multiplier, c.images, x.data(), nullptr, dy.data(), nullptr, dw.data(), nullptr}, 2, table);
    for (std::size_t i = 0; i < dx.size(); ++i) ASSERT_TRUE(same_bits(dx.values()[i], first[i])) << c.text();
    for (std::size_t i = 0; i < dw.size(); ++i) ASSERT_TRUE(same_bits(dw.values()[i], first[x.size() + i])) << c.text();
    compare(c, out, x.values(), weights.values(), dy.values(), first, values);
  }

  void compare(const DepthwiseCase& c, const Shape& out, std::span<const float> x, std::span<const float> weights,
               std::span<const float> dy, const Bits& actual, Values values) {
    const int outputs = out.c, taps = c.window.kh * c.window.kw;
    std::vector<double> filters(weights.size());  // [kh][kw][C][M]
    for (int n = 0; n < outputs; ++n)
      for (int tap = 0; tap < taps; ++tap) filters[std::size_t(tap) * outputs + n] = weights[std::size_t(n) * taps + tap];
    std::vector<double> dx, dx_magnitude, dw(weights.size()), dw_magnitude(weights.size()), db(outputs), db_magnitude(outputs);
    for (int image = 0; image < c.images; ++image) {
      ref::Tensor one(c.in), gradient(out);
      one.data = widen(x.subspan(image * c.in.elements(), c.in.elements()));
      gradient.data = widen(dy.subspan(image * out.elements(), out.elements()));
      const ref::ConvGrad g = ref::depthwise_grad(one, filters, gradient, c.window);
      dx.insert(dx.end(), g.x.data.begin(), g.x.data.end());
      dx_magnitude.insert(dx_magnitude.end(), g.x_magnitude.data.begin(), g.x_magnitude.data.end());
      for (int n = 0; n < outputs; ++n) {
        db[n] += g.bias[n];
        db_magnitude[n] += g.bias_magnitude[n];
        for (int tap = 0; tap < taps; ++tap) {
          dw[std::size_t(n) * taps + tap] += g.weights[std::size_t(tap) * outputs + n];
          dw_magnitude[std::size_t(n) * taps + tap] += g.weights_magnitude[std::size_t(tap) * outputs + n];
        }
      }
    }
    const std::span<const float> all = actual;
    const int pixels = c.images * out.h * out.w;
    expect_close(dx, dx_magnitude, all.first(dx.size()), taps * c.multiplier, values, "dx of " + c.text());
    expect_close(dw, dw_magnitude, all.subspan(dx.size(), dw.size()), pixels, values, "dweights of " + c.text());
    expect_close(db, db_magnitude, all.subspan(dx.size() + dw.size()), pixels, values, "dbias of " + c.text());
  }

  void check_pointwise(int pixels, int channels, int outputs, Values values, Flush flush) {
    const std::string what = std::to_string(pixels) + " pixels, " + std::to_string(channels) + " to " + std::to_string(outputs);
    const std::size_t size = std::size_t(channels) * outputs;
    GuardedBuffer<float> x(draw(random, std::size_t(pixels) * channels, values), flush);
    GuardedBuffer<float> dy(draw(random, std::size_t(pixels) * outputs, values), flush);
    GuardedBuffer<float> weights(draw(random, size, values), flush);
    Bits first;
    for (const int threads : {1, 3}) {
      GuardedBuffer<float> dx = unwritten(x.size(), flush), dw = unwritten(size, flush), db = unwritten(outputs, flush);
      pointwise_grad({pixels, channels, outputs, x.data(), weights.data(), dy.data(), dx.data(), dw.data(), db.data()}, threads, table);
      ASSERT_TRUE(dx.slack_intact() && dw.slack_intact() && db.slack_intact()) << what;
      Bits all(dx.values().begin(), dx.values().end());
      all.insert(all.end(), dw.values().begin(), dw.values().end());
      all.insert(all.end(), db.values().begin(), db.values().end());
      if (threads == 1) first = all;
      for (std::size_t i = 0; i < all.size(); ++i) ASSERT_TRUE(same_bits(all[i], first[i])) << what;
    }
    ref::Tensor rows({1, pixels, channels}), gradient({1, pixels, outputs});
    rows.data = widen(x.values());
    gradient.data = widen(dy.values());
    std::vector<double> matrix(size), dw(size), magnitude(size);  // matrix [C][N]
    const auto transposed = [&](int c, int n) { return std::size_t(n) * channels + c; };
    for (int c = 0; c < channels; ++c)
      for (int n = 0; n < outputs; ++n) matrix[std::size_t(c) * outputs + n] = weights.values()[transposed(c, n)];
    const ref::ConvGrad g = ref::pointwise_grad(rows, matrix, gradient);
    for (int c = 0; c < channels; ++c)
      for (int n = 0; n < outputs; ++n) {
        dw[transposed(c, n)] = g.weights[std::size_t(c) * outputs + n];
        magnitude[transposed(c, n)] = g.weights_magnitude[std::size_t(c) * outputs + n];
      }
    const std::span<const float> all = first;
    expect_close(g.x.data, g.x_magnitude.data, all.first(x.size()), outputs, values, "dx of " + what);
    expect_close(dw, magnitude, all.subspan(x.size(), size), pixels, values, "dweights of " + what);
    expect_close(g.bias, g.bias_magnitude, all.subspan(x.size() + size), pixels, values, "dbias of " + what);
  }
};

TEST_P(Gradients, OfDepthwiseAreCloseToTheOracle) {
  for (int i = 0; i < 300 && !HasFailure(); ++i) check(any_depthwise(), Values::real, kBothEnds[i % 2]);
}

TEST_P(Gradients, OfDepthwiseAreExactOnSmallIntegers) {
  for (int i = 0; i < 150 && !HasFailure(); ++i) check(any_depthwise(), Values::integer, kBothEnds[i % 2]);
}

TEST_P(Gradients, OfDepthwiseInManyStripsAndImages) {
  for (const int kernel : {3, 5}) {
    const Window window{kernel, kernel, 2, 2, 1, 1, {kernel / 2, kernel / 2, kernel / 2, kernel / 2}};
    check({{45, 31, table.vector + 1}, window, 1, 37}, Values::real, Flush::tail);
  }
}

TEST_P(Gradients, OfDepthwiseTakeMemoryForWhatMeetsTheImageAlone) {
  constexpr int kFar = 1 << 20;
  const auto window = [](int kernel, int stride, int dilation, int padding) {
    return Window{kernel, kernel, stride, stride, dilation, dilation, {padding, padding, padding, padding}};
  };
  for (const Window& w : {window(3, kFar / 2, 1, kFar), window(3, 1, kFar, kFar), window(5, kFar, kFar / 2, kFar), window(1, kFar, 1, 1),
                          window(2, 1, kFar, kFar / 2), window(3, 2, 1, 50), Window{3, 3, 1, 7, 1, 1, {1, 1, 90, 0}}}) {
    for (const int multiplier : {1, 2}) check({{3, 2, table.vector + 1}, w, multiplier, 2}, Values::integer, Flush::tail);
  }
}

TEST_P(Gradients, OfPointwiseAreCloseToTheOracle) {
  for (int i = 0; i < 60 && !HasFailure(); ++i) {
    const int pixels = 1 + random.below(i % 5 == 0 ? 1500 : 40);
    check_pointwise(pixels, 1 + random.below(70), 1 + random.below(40), i % 3 ? Values::real : Values::integer, kBothEnds[i % 2]);
  }
  // So many channels that threads share them rather than pixels; and more pixels than there are groups of chunks.
  if (!HasFailure()) check_pointwise(800, 16 * 2 * table.vector + 3, 3, Values::real, Flush::tail);
  if (!HasFailure()) check_pointwise(384 * 40 + 1, 5, 3, Values::real, Flush::tail);
}

TEST_P(Gradients, OfPointwiseBiasesKeepTheirDigits) {
  for (const int outputs : {1, 8 * 16 * table.gemm_rows[1]}) {  // in many groups of pixels, and in one
    const int pixels = outputs == 1 ? 1 << 20 : 1 << 15;
    const std::vector<float> x(pixels, 1.0f), dy(std::size_t(pixels) * outputs, 0.1f);
    std::vector<float> dw(outputs), db(outputs);
    pointwise_grad({pixels, 1, outputs, x.data(), nullptr, dy.data(), nullptr, dw.data(), db.data()}, 1, table);
    for (const float sum : db) ASSERT_NEAR(sum / pixels, 0.1f, 3e-6) << outputs;
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, Gradients, ::testing::ValuesIn(on_each_isa({"grad_f32"})), test_name);

TEST(ActivationGrad, IsTheSlopeOfTheActivation) {
  const double step = 1e-6;
  const std::function<double(double)> functions[] = {
      [](double x) { return x; },
      [](double x) { return std::max(x, 0.0); },
      [](double x) { return std::min(std::max(x, 0.0), 6.0); },
      [](double x) { return x * std::min(std::max(x + 3, 0.0), 6.0) / 6; },
      [](double x) { return std::min(std::max(x + 3, 0.0), 6.0) / 6; },
      [](double x) { return 1 / (1 + std::exp(-x)); },
      [](double x) { return x / (1 + std::exp(-x)); },
      [](double x) { return x * std::erfc(-x * std::sqrt(0.5)) / 2; },
      [](double x) { return x / 2 * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); },
  };
  for (int a = 0; a < static_cast<int>(std::size(functions)); ++a) {
    std::vector<double> values;
    for (double x = -8.05; x < 8; x += 0.1) values.push_back(x);
    const std::vector<float> narrow(values.begin(), values.end()), twos(values.size(), 2.0f);
    std::vector<double> slopes(values.size());
    std::vector<float> doubled(values.size());
    const std::vector<double> ones(values.size(), 1.0);
    activation_grad(static_cast<Activation>(a), values.data(), ones.data(), slopes.data(), values.size(), 2);
    activation_grad(static_cast<Activation>(a), narrow.data(), twos.data(), doubled.data(), values.size(), 1);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double slope = (functions[a](values[i] + step) - functions[a](values[i] - step)) / (2 * step);
      ASSERT_NEAR(slopes[i], slope, 1e-8) << a << " at " << values[i];
      ASSERT_NEAR(doubled[i], 2 * slope, 1e-5) << a << " at " << values[i];
    }
  }
  const float kinks[] = {0.0f, 6.0f, kNaN}, ones[] = {1.0f, 1.0f, 1.0f};
  float slopes[3];
  activation_grad(Activation::relu6, kinks, ones, slopes, 3, 1);
  EXPECT_EQ(slopes[0], 0.0f);
  EXPECT_EQ(slopes[1], 0.0f);
  activation_grad(Activation::silu, kinks, ones, slopes, 3, 1);
  EXPECT_TRUE(std::isnan(slopes[2]));
  const float large[] = {-1e16f, 3e19f, kNaN};  // whose cubes are infinite
  activation_grad(Activation::gelu_tanh, large, ones, slopes, 3, 1);
  EXPECT_EQ(slopes[0], 0.0f);
  EXPECT_EQ(slopes[1], 1.0f);
  EXPECT_TRUE(std::isnan(slopes[2]));
}

}  // namespace
}  // namespace sepconv::test
