// Packed weights against the layout that pack.h describes, spelled out element by element.
#include "pack/pack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "graph/graph.h"
#include "guarded.h"
#include "kernel_testing.h"

namespace sepconv {
namespace {

using namespace test;

constexpr float kSmallestNormal = std::numeric_limits<float>::min();

// Weights [d0, d1, d2, d3] in memory of some order and direction.
struct Weights {
  std::vector<float> memory;
  WeightView view;

  Weights(std::array<int, 4> dims, Random& random) {
    const std::size_t count = std::size_t{1} * dims[0] * dims[1] * dims[2] * dims[3];
    memory = draw(random, 2 * count, Values::real);
    std::array<int, 4> order{0, 1, 2, 3};
    for (int i = 3; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
    view.dims = dims;
    std::ptrdiff_t step = sizeof(float) * (1 + random.below(2)), start = 0;
    for (const int axis : order) {
      const bool backwards = random.below(2) == 1;
      view.strides[axis] = backwards ? -step : step;
      if (backwards) start += (dims[axis] - 1) * step;
      step *= dims[axis];
    }
    view.data = reinterpret_cast<const char*>(memory.data()) + start;
  }

  float at(int r, int s, int c, int n) const {
    float x;
    const auto& step = view.strides;
    std::memcpy(&x, view.data + r * step[0] + s * step[1] + c * step[2] + n * step[3], sizeof x);
    return x;
  }
};

Affine draw_affine(int channels, Random& random) {
  Affine affine;
  for (int i = 0; i < channels; ++i) {
    affine.scale.push_back(random.unit() * 1.7);
    affine.shift.push_back(random.unit() / 3.0);
  }
  return affine;
}

class PackOnIsa : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Isas, PackOnIsa, ::testing::ValuesIn(supported_isas()), [](const auto& isa) { return isa.param; });

TEST_P(PackOnIsa, GemmPanels) {
  const KernelTable& table = kernels(GetParam());
  const int v = table.vector;
  Random random(7);
  WeightStore store;
  for (int round = 0; round < 60; ++round) {
    const int kh = 1 + random.below(3), kw = 1 + random.below(3), channels = 1 + random.below(20);
    const int outputs = 1 + random.below(3 * table.gemm_vectors * v);
    const Weights w({kh, kw, channels, outputs}, random);
    const Affine affine = draw_affine(outputs, random);
    const PackedGemm packed(w.view, affine, table, store);

    const int blocks = (outputs + v - 1) / v;
    const int whole = blocks / table.panel_vectors, left = blocks % table.panel_vectors;
    const bool joined = whole > 0 && left > 0 && table.panel_vectors + left <= table.gemm_vectors;
    ASSERT_EQ(packed.panels(), whole + (left > 0 && !joined));
    std::size_t floats = 0;
    for (int p = 0; p < packed.panels(); ++p) {
      ASSERT_EQ(packed.first_block(p), p * table.panel_vectors);
      const int rest = blocks - packed.first_block(p);
      ASSERT_EQ(packed.vectors(p), p + 1 == packed.panels() ? rest : table.panel_vectors);
      ASSERT_LE(packed.vectors(p), table.gemm_vectors);
      const int width = packed.vectors(p) * v, first = packed.first_block(p) * v;
      const float* element = packed.panel(p);
      const auto expect = [&](int n, double value) {
        const float expected = n < outputs ? static_cast<float>(value) : 0.0f;
        ASSERT_TRUE(same_bits(*element++, expected)) << "output " << n << " of " << outputs;
      };
      for (int n = first; n < first + width; ++n) expect(n, n < outputs ? affine.shift[n] : 0.0);
      for (int r = 0; r < kh; ++r)
        for (int s = 0; s < kw; ++s)
          for (int c = 0; c < channels; ++c)
            for (int n = first; n < first + width; ++n) expect(n, n < outputs ? w.at(r, s, c, n) * affine.scale[n] : 0.0);
      floats += static_cast<std::size_t>(element - packed.panel(p));
    }
    EXPECT_EQ(packed.bytes(), floats * sizeof(float));
  }
}

TEST_P(PackOnIsa, PanelsThatAreNeededLaterFitTheirMemoryWhereverTheyBegin) {
  const KernelTable& table = kernels(GetParam());
  const int v = table.vector, channels = 9;
  Random random(8);
  for (int blocks = 1; blocks <= 11; ++blocks) {
    const Weights w({1, 1, channels, blocks * v - random.below(v)}, random);
    const Affine affine = draw_affine(w.view.dims[3], random);
    WeightStore store;
    const PackedGemm at_once(w.view, affine, table, store), later(w.view, affine, table);
    ASSERT_TRUE(later.later());
    for (int count = 1; count <= later.panels(); ++count)
      for (int first = 0; first + count <= later.panels(); ++first) {
        GuardedBuffer<float> memory(later.floats(count), Flush::tail);
        later.pack(first, count, memory.data());
        const int last = first + count - 1;
        const int vectors = at_once.first_block(last) + at_once.vectors(last) - at_once.first_block(first);
        const std::size_t bytes = sizeof(float) * vectors * v * (channels + 1);
        ASSERT_EQ(std::memcmp(memory.data(), at_once.panel(first), bytes), 0) << count << " panels from " << first << " on";
      }
  }
}

TEST_P(PackOnIsa, DepthwiseBlocks) {
  const KernelTable& table = kernels(GetParam());
  const int v = table.vector;
  Random random(8);
  WeightStore store;
  for (int round = 0; round < 60; ++round) {
    const int kh = 1 + random.below(5), kw = 1 + random.below(5);
    const int channels = 1 + random.below(40), multiplier = 1 + random.below(3);
    const int outputs = channels * multiplier;
    const Weights w({kh, kw, channels, multiplier}, random);
    const Affine affine = draw_affine(outputs, random);
    const bool overlapping = round % 2 == 1;
    const PackedDepthwise packed(w.view, affine, table, store, overlapping);

    const int blocks = (outputs + v - 1) / v;
    for (int b = 0; b < blocks; ++b) {
      const float* element = packed.block(b);
      const int first = overlapping && b > 0 ? std::min(b * v, outputs - v) : b * v;
      for (int lane = 0; lane < v; ++lane) {
        const int n = first + lane;
        ASSERT_TRUE(same_bits(*element++, n < outputs ? static_cast<float>(affine.shift[n]) : 0.0f));
      }
      for (int r = 0; r < kh; ++r)
        for (int s = 0; s < kw; ++s)
          for (int lane = 0; lane < v; ++lane) {
            const int n = first + lane;
            const double value = n < outputs ? w.at(r, s, n / multiplier, n % multiplier) * affine.scale[n] : 0.0;
            ASSERT_TRUE(same_bits(*element++, static_cast<float>(value))) << "output " << n << " of " << outputs;
          }
    }
    EXPECT_EQ(packed.bytes(), std::size_t{1} * blocks * (kh * kw + 1) * v * sizeof(float));
  }
}

// One weight, again and again, which takes longer than it may take until someone asks.
TEST_P(PackOnIsa, IsInterrupted) {
  const float one = 1.0f;
  WeightView view{reinterpret_cast<const char*>(&one), {}, {512, 512, 64, 1}};
  const KernelTable& table = kernels(GetParam());
  const Affine affine{{}, std::vector<double>(64)};
  WeightStore store;
  EXPECT_THROW(PackedDepthwise(view, affine, table, store, false, [] { return true; }), Interrupted);
  view.dims = {64, 512, 1, 512};
  const Affine dense{{}, std::vector<double>(512)};
  EXPECT_THROW(PackedGemm(view, dense, table, store, [] { return true; }), Interrupted);
}

// What a weight becomes, and a shift, whose zeros have no sign.
TEST_P(PackOnIsa, DenormalsBecomeZerosOfTheirSign) {
  const KernelTable& table = kernels(GetParam());
  WeightStore store;
  const struct {
    float weight;
    double scale, shift;
    float packed_weight, packed_shift;
  } cases[] = {
      {kDenormal, 1.0, 1e-40, 0.0f, 0.0f},
      {-kDenormal, 1.0, -1e-40, -0.0f, 0.0f},
      {kDenormal, 1e30, 1e30 * 1e-40, static_cast<float>(static_cast<double>(kDenormal) * 1e30), 1e-10f},
      {1.0f, 1e-39, 0.0, 0.0f, 0.0f},
      {kSmallestNormal, 1.0, kSmallestNormal, kSmallestNormal, kSmallestNormal},
      {kSmallestNormal, -0.5, -0.5 * kSmallestNormal, -0.0f, 0.0f},
      {-0.0f, 1.0, -0.0, -0.0f, 0.0f},
      {kInf, 1.0, kInf, kInf, kInf},
      {3e38f, 10.0, -1e39, kInf, -kInf},
  };
  for (const auto& c : cases) {
    const WeightView view{reinterpret_cast<const char*>(&c.weight), {4, 4, 4, 4}, {1, 1, 1, 1}};
    const Affine affine{{c.scale}, {c.shift}};
    const PackedGemm gemm(view, affine, table, store);
    const PackedDepthwise depthwise(view, affine, table, store);
    EXPECT_TRUE(same_bits(gemm.panel(0)[gemm.vectors(0) * table.vector], c.packed_weight)) << c.weight;
    EXPECT_TRUE(same_bits(depthwise.block(0)[table.vector], c.packed_weight)) << c.weight;
    EXPECT_TRUE(same_bits(gemm.panel(0)[0], c.packed_shift)) << c.shift;
    EXPECT_TRUE(same_bits(depthwise.block(0)[0], c.packed_shift)) << c.shift;
  }
  const float nan = kNaN;
  const PackedGemm gemm({reinterpret_cast<const char*>(&nan), {4, 4, 4, 4}, {1, 1, 1, 1}}, {{1.0}, {kNaN}}, table, store);
  EXPECT_TRUE(std::isnan(gemm.panel(0)[0]));
  EXPECT_TRUE(std::isnan(gemm.panel(0)[gemm.vectors(0) * table.vector]));
}

TEST(WeightStore, GivesAlignedMemoryOneAfterTheOther) {
  WeightStore store;
  const float* const first = store.take(1);
  const float* const second = store.take(100);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % kAlignment, 0u);
  EXPECT_EQ(second - first, 16);
  EXPECT_EQ(store.take(1) - second, 112);
  float* const large = store.take(std::size_t{20} << 20);  // more than a block
  large[0] = large[(std::size_t{20} << 20) - 1] = 1.0f;
  EXPECT_THROW(store.take(SIZE_MAX / 2), std::bad_alloc);
}

TEST(WeightStore, GivesANetworkOneBlockWhateverItsLayersTake) {
  constexpr std::size_t kFloats = std::size_t{1} << 20;
  WeightStore store = WeightStore::of_network(5 * kFloats * sizeof(float));
  const float* const first = store.take(kFloats);
  for (int i = 1; i < 5; ++i) EXPECT_EQ(store.take(kFloats) - first, static_cast<std::ptrdiff_t>(i * kFloats));
  // More than was said, as where channels are filled up to whole vectors.
  float* const more = store.take(3 * kFloats);
  more[0] = more[3 * kFloats - 1] = 1.0f;
}

// --- BatchNorm and bias, folded by the graph in float64

TEST_P(PackOnIsa, FoldsBatchNormInDouble) {
  const KernelTable& table = kernels(GetParam());
  const int v = table.vector;
  Random random(9);
  for (int round = 0; round < 20; ++round) {
    const int channels = 1 + random.below(10), outputs = 1 + random.below(40);
    const Weights w({1, 1, channels, outputs}, random), d({3, 3, channels, 1}, random);
    const int count = std::max(channels, outputs);
    // Every second element, backwards: strides of any sign.
    std::vector<float> memory[5];
    const auto value = [&](int which, int i) { return static_cast<double>(memory[which][2 * (count - 1 - i)]); };
    for (auto& values : memory) values = draw(random, 2 * count, Values::real);
    for (float& x : memory[4]) x = x * x + 1e-3f;  // variance
    const auto view = [&](int which, int n) {
      const std::ptrdiff_t stride = -2 * static_cast<std::ptrdiff_t>(sizeof(float));
      return VectorView{reinterpret_cast<const char*>(&memory[which][2 * (count - 1)]), stride, n};
    };
    const double epsilon = round % 2 ? 1e-3 : 1e-5;
    const bool biased = round % 3 > 0, normed = round % 4 > 0;
    const auto expected = [&](int n) {
      const double scale = normed ? value(1, n) / std::sqrt(value(4, n) + epsilon) : 1.0;
      double shift = biased ? value(0, n) : 0.0;
      if (normed) shift = (shift - value(3, n)) * scale + value(2, n);
      return std::pair{scale, static_cast<float>(shift)};
    };

    Graph graph(table);
    const int x = graph.input("x", {4, 4, channels});
    const auto add = [&](bool dense) {
      const int n = dense ? outputs : channels;
      const VectorView bias = view(0, n);
      const BatchNormView norm{view(1, n), view(2, n), view(3, n), view(4, n), epsilon};
      const VectorView* const b = biased ? &bias : nullptr;
      const BatchNormView* const bn = normed ? &norm : nullptr;
      return dense ? graph.conv2d("dense", x, w.view, b, bn, {}, Activation::none)
                   : graph.depthwise_conv2d("depthwise", x, d.view, b, bn, {3, 3}, Activation::none);
    };
    const Node dense = graph.nodes()[add(true)], depthwise = graph.nodes()[add(false)];
    for (int n = 0; n < outputs; ++n) {
      const auto [scale, shift] = expected(n);
      const int p = std::min(n / v / table.panel_vectors, dense.gemm->panels() - 1);
      const int lane = n - dense.gemm->first_block(p) * v, width = dense.gemm->vectors(p) * v;
      ASSERT_TRUE(same_bits(dense.gemm->panel(p)[lane], shift));
      for (int c = 0; c < channels; ++c) {
        ASSERT_TRUE(same_bits(dense.gemm->panel(p)[(1 + c) * width + lane], static_cast<float>(w.at(0, 0, c, n) * scale)));
      }
    }
    for (int n = 0; n < channels; ++n) {
      const auto [scale, shift] = expected(n);
      const float* const block = depthwise.depthwise->block(n / v) + n % v;
      ASSERT_TRUE(same_bits(*block, shift));
      for (int tap = 0; tap < 9; ++tap) {
        ASSERT_TRUE(same_bits(block[(1 + tap) * v], static_cast<float>(d.at(tap / 3, tap % 3, n, 0) * scale)));
      }
    }
  }
}

}  // namespace
}  // namespace sepconv
