// Plans: what a run allocates, reads and writes; being interrupted; being run by many threads.
#include "graph/plan.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "allocation_watch.h"
#include "base/aligned.h"
#include "graph/chain.h"
#include "kernel_testing.h"
#include "network.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

using namespace test;

constexpr Fusion kFusions[] = {Fusion::never, Fusion::automatic, Fusion::always};

// Every kind of layer, two inputs, outputs at the end and in the middle.
void add_every_layer(Network& n, int height, int width) {
  Graph& g = n.graph();
  const int image = n.input({height, width, 3}), other = n.input({height, width, 5});
  int x = n.conv(image, 3, 2, 20);
  x = n.inverted_residual(n.conv(n.depthwise(x, 3, 1), 1, 1, 19));
  g.output(x);
  x = g.pad(n.name("pad"), x, {1, 2, 0, 1});
  x = n.depthwise(x, 5, 2, 2, Activation::hard_swish);
  x = g.average_pool2d(n.name("average"), x, Network::window(2, 1), false, Activation::none);
  x = g.max_pool2d(n.name("max"), x, Network::window(3, 1), Activation::relu);
  const Shape s = g.shape(x);
  x = g.reshape(n.name("reshape"), x, {s.w, s.h, s.c});
  x = n.fully_connected(g.global_average_pool(n.name("mean"), x), 11);
  g.output(g.softmax(n.name("shares"), x, 1.0f));
  const int squeezed = n.conv(g.global_average_pool(n.name("squeeze"), other), 1, 1, 5, Activation::hard_sigmoid);
  const int scaled = g.mul(n.name("excite"), other, squeezed, Activation::hard_swish);
  const int mixed = g.channel_shuffle(n.name("shuffle"), g.concat(n.name("concat"), {scaled, other}), 2);
  g.output(g.upsample(n.name("up"), g.channel_slice(n.name("slice"), mixed, 1, 8), height + 5, 2 * width));
  g.output(n.layer_norm(n.prelu(mixed)));
  const int y = g.activation(n.name("active"), n.depthwise(other, 7, 1), Activation::silu);
  g.output(g.add(n.name("sum"), y, other, Activation::relu6));
}

// Images for a plan, and what it gives.
struct Buffers {
  std::vector<std::vector<float>> inputs, outputs;

  Buffers(const Plan& plan, int images, Random& random) {
    for (const Shape& s : plan.input_shapes()) {
      const std::vector<float> few = draw(random, std::min(images, 3) * s.elements(), Values::real);
      std::vector<float>& all = inputs.emplace_back(images * s.elements());
      for (std::size_t i = 0; i < all.size(); ++i) all[i] = few[i % few.size()];
    }
    for (const Shape& s : plan.output_shapes()) outputs.emplace_back(images * s.elements(), kNaN);
  }

  bool run(const Plan& plan, int images, int threads, bool (*interrupted)() = nullptr) {
    const float* from[8];
    float* to[8];
    for (std::size_t i = 0; i < inputs.size(); ++i) from[i] = inputs[i].data();
    for (std::size_t i = 0; i < outputs.size(); ++i) to[i] = outputs[i].data();
    return plan.run(from, to, images, threads, interrupted);
  }
};

class PlanOnIsa : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Isas, PlanOnIsa, ::testing::ValuesIn(supported_isas()), [](const auto& isa) { return isa.param; });

TEST_P(PlanOnIsa, RunAllocatesNothing) {
  if (!allocations_watched()) GTEST_SKIP() << "malloc is not this binary's own here";
  Network network(GetParam());
  add_every_layer(network, 37, 41);
  for (const Fusion fusion : kFusions) {
    const Plan plan(network.graph(), fusion);
    Buffers buffers(plan, 3, network.random());
    for (const int threads : {1, 2, 5}) {
      buffers.run(plan, 3, threads);  // makes what later runs use
      start_counting();
      for (int i = 0; i < 5; ++i) buffers.run(plan, 3, threads, [] { return false; });
      for (int fewer = 1; fewer <= threads; ++fewer) buffers.run(plan, 1, fewer);
      EXPECT_EQ(stop_counting(), 0) << threads << " threads";
    }
  }
}

TEST(AllocationWatch, CountsWhatIsAllocated) {
  if (!allocations_watched()) GTEST_SKIP() << "malloc is not this binary's own here";
  start_counting();
  auto small = std::make_unique<std::vector<int>>(10);
  const AlignedBuffer aligned(100), large(std::size_t{3} << 20);
  EXPECT_EQ(stop_counting(), 4);
}

// Every buffer of a plan between guard pages, in turn at its head and its tail; results finite, and the same in each case.
void expect_inside(const Graph& graph, std::uint32_t seed) {
  std::vector<std::vector<float>> expected;
  for (const Fusion fusion : kFusions) {
    for (const Flush flush : kBothEnds) {
      const GuardedAllocations guarded(flush);
      const Plan plan(graph, fusion);
      Random random(seed);
      std::vector<GuardedBuffer<float>> in, out;
      std::vector<const float*> from;
      std::vector<float*> to;
      for (const Shape& s : plan.input_shapes()) {
        from.push_back(in.emplace_back(draw(random, 2 * s.elements(), Values::real), flush).data());
      }
      for (const Shape& s : plan.output_shapes()) to.push_back(out.emplace_back(unwritten(2 * s.elements(), flush)).data());
      for (const int threads : {1, 3}) {
        ASSERT_TRUE(plan.run(from.data(), to.data(), 2, threads, nullptr));
        for (std::size_t i = 0; i < out.size(); ++i) {
          EXPECT_TRUE(out[i].slack_intact());
          const std::vector<float> values(out[i].values().begin(), out[i].values().end());
          for (const float x : values) ASSERT_TRUE(std::isfinite(x)) << "output " << i << " is " << x;
          if (expected.size() <= i) expected.push_back(values);
          ASSERT_EQ(std::memcmp(values.data(), expected[i].data(), values.size() * sizeof(float)), 0) << "output " << i;
        }
      }
      if (allocations_watched()) {
        EXPECT_GT(guarded.count(), 0);
      }
    }
  }
}

TEST_P(PlanOnIsa, StaysInsideOfItsMemory) {
  for (int size = 1; size <= 23; size += size < 8 ? 1 : 5) {
    SCOPED_TRACE(size);
    Network network(GetParam(), size);
    add_every_layer(network, size, 24 - size);
    expect_inside(network.graph(), size);
  }
}

// Alone, since the scratch memory of a large operator would hide that a small one asks for too little.
TEST_P(PlanOnIsa, EachLayerStaysInsideOfItsMemory) {
  const std::function<int(Network&, int)> layers[] = {
      [](Network& n, int x) { return n.conv(x, 1, 1, 7); },
      [](Network& n, int x) { return n.conv(x, 1, 2, 70); },
      [](Network& n, int x) { return n.conv(x, 3, 1, 20, Activation::sigmoid); },
      [](Network& n, int x) { return n.conv(x, 5, 2, 5); },
      [](Network& n, int x) { return n.conv(x, 3, 2, 2); },
      [](Network& n, int x) { return n.depthwise(x, 3, 1); },
      [](Network& n, int x) { return n.depthwise(x, 3, 2); },
      [](Network& n, int x) { return n.depthwise(x, 5, 1, 1, Activation::silu); },
      [](Network& n, int x) { return n.depthwise(x, 5, 2); },
      [](Network& n, int x) { return n.depthwise(x, 4, 3, 2); },
      [](Network& n, int x) { return n.fully_connected(x, 9); },
      [](Network& n, int x) { return n.graph().add("add", x, x, Activation::relu); },
      [](Network& n, int x) { return n.graph().average_pool2d("pool", x, Network::window(3, 2), false, Activation::none); },
      [](Network& n, int x) { return n.graph().average_pool2d("pool", x, Network::window(11, 1), true, Activation::relu); },
      [](Network& n, int x) { return n.graph().max_pool2d("pool", x, Network::window(7, 2), Activation::none); },
      [](Network& n, int x) { return n.graph().global_average_pool("mean", x); },
      [](Network& n, int x) { return n.graph().activation("active", x, Activation::hard_sigmoid); },
      [](Network& n, int x) { return n.graph().softmax("shares", x, 0.5f); },
      [](Network& n, int x) { return n.graph().pad("pad", x, {1, 0, 2, 3}); },
      [](Network& n, int x) {
        const Shape s = n.graph().shape(x);
        return n.graph().reshape("reshape", x, {s.c, s.h, s.w});
      },
      [](Network& n, int x) { return n.graph().mul("mul", x, x, Activation::relu); },
      [](Network& n, int x) { return n.graph().concat("concat", {x, x}); },
      [](Network& n, int x) { return n.graph().channel_slice("slice", x, 0, (n.graph().shape(x).c + 1) / 2); },
      [](Network& n, int x) { return n.graph().channel_shuffle("shuffle", x, n.graph().shape(x).c); },
      [](Network& n, int x) { return n.graph().upsample("up", x, 2 * n.graph().shape(x).h, n.graph().shape(x).w + 1); },
      [](Network& n, int x) { return n.prelu(x); },
      [](Network& n, int x) { return n.layer_norm(x); },
  };
  for (std::size_t i = 0; i < std::size(layers); ++i) {
    for (const Shape shape : {Shape{1, 1, 1}, Shape{1, 9, 17}, Shape{13, 5, 4}, Shape{9, 37, 3}, Shape{6, 31, 33}}) {
      for (const bool after_another : {false, true}) {  // reads an image, or blocks
        SCOPED_TRACE("layer " + std::to_string(i) + " of height " + std::to_string(shape.h));
        Network n(GetParam());
        int x = n.input(shape);
        if (after_another) x = n.graph().activation("first", x, Activation::relu);
        n.graph().output(layers[i](n, x));
        expect_inside(n.graph(), 3);
      }
    }
  }
}

// Threads share an image, or have images of their own, and the last steps run for groups of eight: all give the same bits.
TEST_P(PlanOnIsa, EachImageOfABatchIsAsAlone) {
  Network network(GetParam());
  add_every_layer(network, 17, 12);
  const Plan plan(network.graph());
  constexpr int kMost = 19;
  Buffers all(plan, kMost, network.random());
  for (int image = 0; image < kMost; ++image) {
    const float* from[8];
    float* to[8];
    for (std::size_t i = 0; i < all.inputs.size(); ++i) from[i] = all.inputs[i].data() + image * plan.input_shapes()[i].elements();
    for (std::size_t i = 0; i < all.outputs.size(); ++i) to[i] = all.outputs[i].data() + image * plan.output_shapes()[i].elements();
    ASSERT_TRUE(plan.run(from, to, 1, 1, nullptr));
  }
  for (const int images : {2, 3, 7, 8, 9, 15, 16, kMost}) {
    for (const int threads : {1, 2, 3, 8, 9}) {
      SCOPED_TRACE(std::to_string(images) + " images, " + std::to_string(threads) + " threads");
      Buffers batch = all;
      for (auto& output : batch.outputs) std::fill(output.begin(), output.end(), kNaN);
      ASSERT_TRUE(batch.run(plan, images, threads));
      for (std::size_t i = 0; i < all.outputs.size(); ++i) {
        const std::size_t bytes = sizeof(float) * images * plan.output_shapes()[i].elements();
        EXPECT_EQ(std::memcmp(batch.outputs[i].data(), all.outputs[i].data(), bytes), 0) << "output " << i;
      }
    }
  }
}

TEST_P(PlanOnIsa, ManyThreadsRunOnePlan) {
  Network network(GetParam());
  add_every_layer(network, 30, 29);
  const Plan plan(network.graph());
  Buffers first(plan, 2, network.random());
  ASSERT_TRUE(first.run(plan, 2, 1));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      Buffers own = first;
      for (int i = 0; i < 30; ++i) {
        for (auto& output : own.outputs) std::fill(output.begin(), output.end(), kNaN);
        wrong += !own.run(plan, 2, 1 + (t + i) % 4) || own.outputs != first.outputs;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

// --- Interruption

std::atomic<int> asked{0};
std::thread::id asked_on;

TEST_P(PlanOnIsa, AnInterruptedRunStopsAndTheNextIsRight) {
  Network network(GetParam());
  add_every_layer(network, 20, 20);
  for (const Fusion fusion : {Fusion::never, Fusion::always}) {
    const Plan plan(network.graph(), fusion);
    constexpr int kImages = 20'000;  // seconds, were it not stopped
    Buffers many(plan, kImages, network.random());
    Buffers one(plan, 1, network.random());
    one.run(plan, 1, 1);
    const auto expected = one.outputs;
    for (const int threads : {1, 2, 5}) {
      asked = 0;
      const bool finished = many.run(plan, kImages, threads, [] {
        asked_on = std::this_thread::get_id();
        return ++asked == 2;
      });
      EXPECT_FALSE(finished);
      EXPECT_EQ(asked, 2) << "asked again after the answer";
      EXPECT_EQ(asked_on, std::this_thread::get_id());
      EXPECT_TRUE(std::isnan(many.outputs.back().back()));  // the last image was never reached
      std::fill(many.outputs.back().begin(), many.outputs.back().end(), kNaN);
      for (auto& output : one.outputs) std::fill(output.begin(), output.end(), kNaN);
      EXPECT_TRUE(one.run(plan, 1, threads));
      EXPECT_EQ(one.outputs, expected);
    }
  }
}

TEST(Plan, ARunThatIsNotInterruptedIsAskedAndFinishes) {
  Network network("scalar");
  network.graph().output(network.conv(network.input({64, 64, 8}), 3, 1, 16));
  const Plan plan(network.graph());
  Buffers buffers(plan, 400, network.random());
  asked = 0;
  EXPECT_TRUE(buffers.run(plan, 400, 1, [] { return ++asked < 0; }));
  EXPECT_GT(asked, 0);
  for (const float x : buffers.outputs[0]) ASSERT_TRUE(std::isfinite(x));
}

// Ctrl-C is looked for between pieces, and memory that nobody touched before can take seconds a gigabyte.
TEST_P(PlanOnIsa, PiecesAreShortAlsoWhereMemoryIsNew) {
  const KernelTable& table = kernels(GetParam());
  for (const Shape shape : {Shape{2500, 2000, 3}, Shape{9000, 1000, 1}, Shape{1000, 1000, 64}}) {
    std::vector<RowOpPtr> ops;
    ops.push_back(make_from_nhwc(shape, false, table));
    Chain chain(std::move(ops), table);
    chain.settle_split(Split::rows);
    const double megabytes = static_cast<double>(blocked_floats(shape, table)) * sizeof(float) / (1 << 20);
    for (const int threads : {1, 2, 16}) EXPECT_LT(megabytes / chain.grid(threads).pieces(), 16) << shape.h << ' ' << threads;
  }
}

// --- What a plan tells

TEST(Plan, ActivationsShareMemory) {
  Network network("scalar");
  int x = network.input({16, 16, 32});
  for (int i = 0; i < 20; ++i) x = network.conv(x, 1, 1, 32);
  network.graph().output(x);
  const std::size_t one = 16 * 16 * 32 * sizeof(float);
  const std::size_t page = 4096;  // more than what staggers them
  EXPECT_LE(Plan(network.graph(), Fusion::never).arena_bytes(), 2 * (one + page));
}

TEST(Plan, DescribesEveryOperator) {
  Network network("scalar");
  add_every_layer(network, 20, 20);
  for (const Fusion fusion : kFusions) {
    const Plan plan(network.graph(), fusion);
    int last = 0;
    std::size_t fused = 0, bytes = 0;
    for (const OperatorInfo& op : plan.describe()) {
      EXPECT_TRUE(op.step == last || op.step == last + 1) << op.layer;
      EXPECT_FALSE(op.kernel.empty()) << op.layer;
      EXPECT_GT(op.out.elements(), 0) << op.layer;
      last = op.step;
      fused += op.fused.size();
      bytes += op.weight_bytes;
    }
    EXPECT_EQ(last + 1, plan.steps());
    EXPECT_EQ(bytes, plan.weight_bytes());
    EXPECT_EQ(fused > 0, fusion != Fusion::never);
  }
  EXPECT_LT(Plan(network.graph(), Fusion::always).steps(), Plan(network.graph(), Fusion::never).steps());
}

TEST(Plan, TimesEveryStep) {
  Network network("scalar");
  add_every_layer(network, 20, 20);
  const Plan plan(network.graph());
  Buffers b(plan, 1, network.random());
  const float* from[] = {b.inputs[0].data(), b.inputs[1].data()};
  std::vector<float*> to;
  for (std::vector<float>& output : b.outputs) to.push_back(output.data());
  std::vector<double> seconds;
  ASSERT_TRUE(plan.run(from, to.data(), 1, 2, nullptr, &seconds));
  ASSERT_EQ(seconds.size(), static_cast<std::size_t>(plan.steps()));
  for (const double s : seconds) EXPECT_GE(s, 0.0);
  EXPECT_GT(std::accumulate(seconds.begin(), seconds.end(), 0.0), 0.0);
}

TEST(Plan, OutlivesItsGraph) {
  auto network = std::make_unique<Network>("scalar");
  add_every_layer(*network, 12, 12);
  const Plan plan(network->graph()), again(network->graph());
  Buffers b(plan, 1, network->random()), c = b;
  EXPECT_TRUE(c.run(again, 1, 1));
  network.reset();
  EXPECT_TRUE(b.run(plan, 1, 1));
  EXPECT_EQ(b.outputs, c.outputs);
}

TEST(Plan, RefusesGraphsWithoutEnds) {
  Network network("scalar");
  EXPECT_THROW(Plan(network.graph()), std::invalid_argument);
  network.input({1, 1, 1});
  EXPECT_THROW(Plan(network.graph()), std::invalid_argument);
}

// 2^31 pixels are more than an int counts.
TEST_P(PlanOnIsa, TilesOfTheLargestImageAreMany) {
  const KernelTable& table = kernels(GetParam());
  const float weight = 1;
  WeightStore store(kAlignment * 8);
  const WeightView view{reinterpret_cast<const char*>(&weight), {4, 4, 4, 4}, {1, 1, 1, 1}};
  const auto packed = std::make_shared<PackedGemm>(view, Affine{{}, {0.0}}, table, store);
  EXPECT_FALSE(make_pointwise({1 << 16, 1 << 15, 1}, packed, 1, Activation::none, table)->waits_for_weights);
}

// Threads' scratch lies together, and operators keep pointers in theirs.
TEST_P(PlanOnIsa, TheScratchOfEachThreadIsAligned) {
  const KernelTable& table = kernels(GetParam());
  for (int channels = 1; channels < 20; ++channels) {
    std::vector<RowOpPtr> ops;
    ops.push_back(make_softmax({1, 1, channels}, 1.0f, table));
    EXPECT_EQ(Chain(std::move(ops), table).scratch_floats() * sizeof(float) % kAlignment, 0u) << channels;
  }
}

}  // namespace
}  // namespace sepconv
