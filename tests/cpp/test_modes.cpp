// The caller's floating-point mode: after a run it is what it was, to the bit, and it changes no bit of a result, on any
// number of threads: neither its rounding, nor what it takes for zero, nor exceptions that trap.
#include <gtest/gtest.h>

#include <cfenv>
#include <functional>

#include "eager/block.h"
#include "grad/grad.h"
#include "graph/plan.h"
#include "kernel_testing.h"
#include "network.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace sepconv::test {
namespace {

#if defined(__x86_64__)
using Mode = std::uint32_t;
Mode mode() { return _mm_getcsr(); }
void set_mode(Mode m) { _mm_setcsr(m); }
// Rounding down, up, to zero; FTZ; DAZ; both; invalid operations, divisions by zero and overflows trap, all but inexact
// results trap; sticky flags raised.
constexpr Mode kModes[] = {0x3f80, 0x5f80, 0x7f80, 0x9f80, 0x1fc0, 0x9fc0, 0x1900, 0x1000, 0x7040, 0x1fbf};
#elif defined(__aarch64__)
using Mode = std::uint64_t;
Mode mode() {
  Mode m;
  asm volatile("mrs %0, fpcr" : "=r"(m) : : "memory");
  return m;
}
void set_mode(Mode m) { asm volatile("msr fpcr, %0" : : "r"(m) : "memory"); }
// Rounding up, down, to zero; flush to zero; default NaN; both and up.
constexpr Mode kModes[] = {1u << 22, 2u << 22, 3u << 22, 1u << 24, 1u << 25, 7u << 24 | 1u << 22};
#else
using Mode = int;
Mode mode() { return std::fegetround(); }
void set_mode(Mode m) { std::fesetround(m); }
constexpr Mode kModes[] = {FE_TONEAREST};
#endif

using Floats = std::vector<float>;

class ModesOnIsa : public ::testing::TestWithParam<std::string> {
 protected:
  const KernelTable& table = kernels(GetParam());
  Random random{1};

  // That work(threads) gives the same bits in every mode and on several threads, and leaves the mode alone.
  void check(const std::function<Floats(int)>& work) {
    const Mode before = mode();
    const Floats expected = work(1);
    const auto same = [&](const Floats& result) {
      return result.size() == expected.size() &&
             std::memcmp(result.data(), expected.data(), expected.size() * sizeof(float)) == 0;
    };
    for (const Mode m : kModes)
      for (const int threads : {1, 2, 5}) {
        set_mode(m);
        const Floats result = work(threads);
        const Mode after = mode();
        set_mode(before);
        ASSERT_EQ(after, m);
        ASSERT_TRUE(same(result)) << "mode " << m << ", " << threads << " threads";
      }
  }

  // Numbers of all magnitudes, denormals and values that overflow among them.
  Floats numbers(std::size_t n) {
    Floats x = draw(random, n, Values::real);
    for (std::size_t i = 0; i < n; ++i) {
      if (i % 7 == 3) x[i] *= kDenormal;
      if (i % 97 == 5) x[i] = 3e38f;
    }
    return x;
  }
};

TEST_P(ModesOnIsa, Plans) {
  Network n(GetParam());
  int x = n.inverted_residual(n.conv(n.input({21, 19, 3}), 3, 2, 20, Activation::hard_swish));
  x = n.graph().add("add", x, n.depthwise(x, 5, 1, 1, Activation::silu), Activation::relu);
  x = n.graph().average_pool2d("pool", x, Network::window(3, 2), false, Activation::none);
  n.graph().output(n.graph().softmax("shares", n.fully_connected(x, 9), 1.0f));
  n.graph().output(x);
  const Plan plan(n.graph());
  for (const int images : {1, 5}) {
    const Floats in = numbers(images * plan.input_shapes()[0].elements());
    check([&](int threads) {
      Floats first(images * plan.output_shapes()[0].elements()), second(images * plan.output_shapes()[1].elements());
      const float* const from[] = {in.data()};
      float* const to[] = {first.data(), second.data()};
      EXPECT_TRUE(plan.run(from, to, images, threads, nullptr));
      first.insert(first.end(), second.begin(), second.end());
      return first;
    });
  }
}

TEST_P(ModesOnIsa, InterruptedRuns) {
  Network n(GetParam());
  n.graph().output(n.conv(n.conv(n.input({64, 64, 16}), 3, 1, 32), 3, 1, 32));
  const Plan plan(n.graph());
  constexpr int kImages = 400;
  const Floats in(kImages * plan.input_shapes()[0].elements(), 0.5f);
  Floats out(kImages * plan.output_shapes()[0].elements());
  const float* const from[] = {in.data()};
  float* const to[] = {out.data()};
  const Mode before = mode();
  for (const int threads : {1, 3}) {
    set_mode(kModes[0]);
    const bool finished = plan.run(from, to, kImages, threads, [] { return true; });
    const Mode after = mode();
    set_mode(before);
    EXPECT_FALSE(finished);
    EXPECT_EQ(after, kModes[0]);
  }
}

TEST_P(ModesOnIsa, Operators) {
  const int channels = 2 * table.vector + 3;
  const Shape shape{9, 11, channels};
  const Floats in = numbers(2 * shape.elements()), depthwise = draw(random, 9 * channels, Values::real);
  const Floats pointwise = draw(random, 7 * channels, Values::real), dense = draw(random, 9 * channels * 5, Values::real);
  const auto weights = [&](WeightKind kind, const Floats& w, std::array<int, 4> dims) {
    return std::make_shared<EagerWeights>(kind, Network::view(w, dims), nullptr, 1, 0, table);
  };
  const StageSpec first{weights(WeightKind::depthwise, depthwise, {3, 3, channels, 1}), Network::window(3, 1), Activation::relu6};
  const StageSpec second{weights(WeightKind::pointwise, pointwise, {1, 1, channels, 7}), Window{}, Activation::silu};
  const StageSpec whole{weights(WeightKind::dense, dense, {3, 3, channels, 5}), Network::window(3, 2), Activation::none};
  for (const std::vector<StageSpec>& stages : {std::vector<StageSpec>{first, second}, std::vector<StageSpec>{whole}}) {
    const EagerBlock block(shape, stages, table);
    const Shape to = block.out();
    check([&](int threads) {
      Floats out(2 * to.elements());
      const std::ptrdiff_t row = shape.w * shape.c, to_row = to.w * to.c;
      EXPECT_TRUE(block.run({in.data(), shape.h * row, row, shape.c, 1}, {},
                            {out.data(), to.h * to_row, to_row, to.c, 1}, 2, threads, nullptr));
      return out;
    });
  }
}

TEST_P(ModesOnIsa, Gradients) {
  const int channels = table.vector + 3, outputs = table.vector + 5;
  const Shape in{7, 9, channels};
  const Window window = Network::window(3, 2);
  const Shape out{window.out_h(in.h), window.out_w(in.w), channels};
  const Floats x = numbers(3 * in.elements()), dy = numbers(3 * out.elements()), w = numbers(9 * channels);
  check([&](int threads) {
    Floats dx(x.size()), dw(w.size()), db(channels);
    depthwise_grad({in, window, 1, 3, x.data(), w.data(), dy.data(), dx.data(), dw.data(), db.data()}, threads, table);
    dx.insert(dx.end(), dw.begin(), dw.end());
    dx.insert(dx.end(), db.begin(), db.end());
    return dx;
  });
  const std::int64_t pixels = 300;
  const Floats px = numbers(pixels * channels), pdy = numbers(pixels * outputs), pw = numbers(channels * outputs);
  check([&](int threads) {
    Floats dx(px.size()), dw(pw.size()), db(outputs);
    pointwise_grad({pixels, channels, outputs, px.data(), pw.data(), pdy.data(), dx.data(), dw.data(), db.data()}, threads,
                   table);
    dx.insert(dx.end(), dw.begin(), dw.end());
    dx.insert(dx.end(), db.begin(), db.end());
    return dx;
  });
}

INSTANTIATE_TEST_SUITE_P(Isas, ModesOnIsa, ::testing::ValuesIn(supported_isas()), [](const auto& isa) { return isa.param; });

}  // namespace
}  // namespace sepconv::test
