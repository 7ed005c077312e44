// Tiles of two pixels a vector, against the one by one tile of other products, which is held against the oracle: to the bit.
#include "gemm_problem.h"

namespace sepconv::test {
namespace {

struct PairsId {
  std::string isa;
  int rows;
  friend void PrintTo(const PairsId& id, std::ostream* os) { *os << "gemm_pairs_f32_" << id.rows << "__" << id.isa; }
};

std::vector<PairsId> all_heights() {
  std::vector<PairsId> out;
  for (const std::string& isa : supported_isas())
    for (int rows = 1; rows <= kernels(isa).pair_rows; ++rows) out.push_back({isa, rows});
  return out;
}

class GemmPairs : public ::testing::TestWithParam<PairsId> {
 protected:
  const KernelTable& table = kernels(GetParam().isa);
  const int lanes = table.vector, channels = lanes / 2;
  Random random{1};

  // 2·half pixels, `tiles` tiles below each other, the second half of them `gap` vectors behind the first in C.
  void check(const GemmProblem& p, int tiles, int gap, Flush flush) {
    const int half = GetParam().rows * tiles, depth = p.layout.depth();
    std::vector<float> a;
    std::vector<Segment> segments;
    for (const Segment& s : p.layout.segments) {
      segments.push_back({static_cast<std::ptrdiff_t>(a.size()), s.count});
      for (int i = 0; i < (half - 1) * kImageStep + s.count; ++i) {
        const std::ptrdiff_t from = s.offset - p.layout.lowest() + i;
        for (const std::ptrdiff_t of : {from, from + std::ptrdiff_t{1} * half * kImageStep}) a.push_back(p.a[of]);
      }
    }
    std::vector<float> b;
    for (int k = -1; k < depth; ++k)
      for (int l = 0; l < lanes; ++l) b.push_back(k < 0 ? p.bias[l / 2] : p.b[k * p.columns + l / 2]);
    const std::ptrdiff_t plane = std::ptrdiff_t{1} * (half + gap) * lanes, residual_plane = plane + lanes;
    std::vector<float> addend(p.residual.empty() ? 0 : residual_plane + std::ptrdiff_t{1} * half * lanes, kNaN);
    for (int i = 0; !p.residual.empty() && i < 2 * half; ++i)
      for (int n = 0; n < channels; ++n)
        addend[i / half * residual_plane + i % half * lanes + n] = p.residual[i * p.columns + n];
    GuardedBuffer<float> guarded_a(a, flush), guarded_b(b, flush), guarded_residual(addend, flush);
    GuardedBuffer<Segment> guarded_segments(segments, flush);
    GuardedBuffer<float> c = unwritten(plane + std::ptrdiff_t{1} * half * lanes, flush);
    GemmTile t{.c_step = lanes, .residual_step = lanes};
    t.a = guarded_a.data();
    t.segments = guarded_segments.data();
    t.segment_count = static_cast<int>(segments.size());
    t.b = guarded_b.data();
    t.residual = p.residual.empty() ? nullptr : guarded_residual.data();
    t.residual_plane = residual_plane;
    t.c = c.data();
    t.c_plane = plane;
    t.lo = p.clamp.lo;
    t.hi = p.clamp.hi;
    t.hard_swish = p.hard_swish;
    t.tiles = tiles;
    table.gemm_pairs_f32[GetParam().rows - 1](t);

    EXPECT_TRUE(c.slack_intact());
    for (int i = half * lanes; i < plane; ++i) ASSERT_TRUE(is_unwritten(c.values()[i])) << "between the halves";
    for (int i = 0; i < 2 * half; ++i) {
      const std::vector<float> expected = p.slice(i, 0, lanes).run(table.gemm_strided_f32[0][0], lanes, Flush::tail);
      for (int n = 0; n < channels; ++n)
        ASSERT_PRED2(same_bits, expected[n], c.values()[i / half * plane + i % half * lanes + n])
            << "pixel " << i << " of " << 2 * half << ", channel " << n << ", K = " << depth;
    }
  }
};

TEST_P(GemmPairs, GivesTheBitsOfOtherTiles) {
  unsigned turn = 0;
  for (const int run : {1, 2, 3, 9, 15})
    for (const int segment_count : {1, 3})
      for (const Flush flush : kBothEnds) {
        const int tiles = 1 + turn % 3 / 2, pixels = 2 * tiles * GetParam().rows;
        GemmLayout layout{kImageStep, {}};
        for (int r = 0; r < segment_count; ++r) layout.segments.push_back({r * (pixels * kImageStep + 11), run});
        GemmProblem p(pixels, lanes, layout, turn % 2, random, Values::real);
        if (turn % 4 == 1) p.clamp = {0.0f, 6.0f};
        p.hard_swish = turn % 4 == 2;
        ASSERT_NO_FATAL_FAILURE(check(p, tiles, turn % 3, flush));
        ++turn;
      }
}

TEST_P(GemmPairs, LetsThroughWhatIsNotFinite) {
  for (const float special : {kNaN, kInf, -kInf, kDenormal}) {
    GemmProblem p(2 * GetParam().rows, lanes, {kImageStep, {{0, 9}}}, false, random, Values::real);
    p.clamp = {0.0f, 6.0f};
    for (std::size_t i = 0; i < p.a.size(); i += 5) p.a[i] = special;
    ASSERT_NO_FATAL_FAILURE(check(p, 1, 0, Flush::tail));
  }
}

// Only x86-64 has such ISAs.
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GemmPairs);
INSTANTIATE_TEST_SUITE_P(Kernels, GemmPairs, ::testing::ValuesIn(all_heights()), [](const auto& tile) {
  return "gemm_pairs_f32_" + std::to_string(tile.param.rows) + "__" + tile.param.isa;
});

std::vector<std::string> isas_with_pairs() {
  std::vector<std::string> out = supported_isas();
  std::erase_if(out, [](const std::string& isa) { return kernels(isa).pair_rows == 0; });
  return out;
}

class Interleave : public ::testing::TestWithParam<std::string> {};

TEST_P(Interleave, PutsElementsSideBySide) {
  const KernelTable& t = kernels(GetParam());
  Random random(2);
  for (int n = 0; n <= 3 * t.vector + 1; ++n)
    for (const Flush flush : kBothEnds) {
      GuardedBuffer<float> a(draw(random, n, Values::real), flush), b(draw(random, n, Values::real), flush);
      GuardedBuffer<float> out = unwritten(2 * n, flush);
      t.interleave_f32(a.data(), b.data(), out.data(), n);
      EXPECT_TRUE(out.slack_intact());
      for (int i = 0; i < n; ++i) {
        ASSERT_PRED2(same_bits, out.values()[2 * i], a.values()[i]);
        ASSERT_PRED2(same_bits, out.values()[2 * i + 1], b.values()[i]);
      }
    }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Interleave);
INSTANTIATE_TEST_SUITE_P(Isas, Interleave, ::testing::ValuesIn(isas_with_pairs()),
                         [](const auto& isa) { return isa.param; });

}  // namespace
}  // namespace sepconv::test
