// Every GEMM tile of every ISA against the oracle, at all odd sizes of its operands.
#include <type_traits>

#include "gemm_problem.h"

namespace sepconv::test {
namespace {

// Whoever makes a tile says how far apart its rows lie.
static_assert(!std::is_default_constructible_v<GemmTile>);

// How far apart a kernel's rows lie: as the pixels of a plane, of every second column of an RGB image, or anyhow.
enum class Rows { plane, image, strided };

struct TileId {
  KernelId id;
  Rows kind;
  int rows, vectors;
  GemmKernel kernel() const {
    const KernelTable& t = id.table();
    const auto& kernels = kind == Rows::plane   ? t.gemm_f32
                          : kind == Rows::image ? t.gemm_image_f32
                                                : t.gemm_strided_f32;
    return kernels[vectors - 1][rows - 1];
  }
  friend void PrintTo(const TileId& tile, std::ostream* os) { PrintTo(tile.id, os); }
};

std::vector<TileId> tiles() {
  std::vector<TileId> out;
  for (const std::string& isa : supported_isas()) {
    const KernelTable& t = kernels(isa);
    for (const auto& [kind, name] : {std::pair{Rows::plane, "gemm_f32_"}, {Rows::image, "gemm_image_f32_"},
                                     {Rows::strided, "gemm_strided_f32_"}})
      for (int vectors = 1; vectors <= t.gemm_vectors; ++vectors)
        for (int rows = 1; rows <= t.gemm_rows[vectors - 1]; ++rows) {
          const std::string size = std::to_string(rows) + "x" + std::to_string(vectors * t.vector);
          out.push_back({{name + size, isa}, kind, rows, vectors});
        }
  }
  return out;
}

class Gemm : public ::testing::TestWithParam<TileId> {
 protected:
  const TileId& tile = GetParam();
  const KernelTable& table = tile.id.table();
  const int lanes = table.vector;
  const int columns = tile.vectors * lanes;
  Random random{1};

  // Planes of `rows` pixels and a bit, cut into segments of `cut` channels: cut < V also where a plane is not full.
  GemmLayout planes(int depth, int cut) const {
    GemmLayout layout{lanes, {}};
    const std::ptrdiff_t plane = (tile.rows + 3) * static_cast<std::ptrdiff_t>(lanes);
    for (int k = 0, p = 0; k < depth; k += cut, ++p) layout.segments.push_back({p * plane, std::min(cut, depth - k)});
    return layout;
  }

  // Whole planes, and after every three of them a plane of one channel, as where several inputs follow each other.
  GemmLayout uneven_planes(int depth) const {
    GemmLayout layout{lanes, {}};
    for (int k = 0, p = 0; k < depth; k += layout.segments.back().count, ++p)
      layout.segments.push_back({p * (tile.rows + 3) * static_cast<std::ptrdiff_t>(lanes), std::min(p % 4 == 3 ? 1 : lanes, depth - k)});
    return layout;
  }

  // NHWC pixels, a dense convolution's rows (which overlap where the step is small), and rows anywhere in memory.
  std::vector<GemmLayout> strided_layouts(int depth) const {
    std::vector<GemmLayout> out;
    for (const int step : {depth, 3, 6, 17, lanes, depth + 5}) out.push_back({step, {{0, depth}}});
    if (depth % 3 == 0) {
      const int run = depth / 3;
      out.push_back({run, {{0, run}, {20 * run, run}, {40 * run, run}}});
      out.push_back({2, {{1000, run}, {-500, run}, {7, run}}});
    }
    return out;
  }

  // Rows of a window, one below the other, each from pixels that overlap the next row's.
  std::vector<GemmLayout> image_layouts(int depth) const {
    std::vector<GemmLayout> out{{kImageStep, {{0, depth}}}};
    if (depth % 3 == 0) out.push_back({kImageStep, {{0, depth / 3}, {301, depth / 3}, {602, depth / 3}}});
    return out;
  }

  std::vector<GemmLayout> layouts(int depth) const {
    if (tile.kind == Rows::strided) return strided_layouts(depth);
    if (tile.kind == Rows::image) return image_layouts(depth);
    std::vector<GemmLayout> out{planes(depth, lanes), uneven_planes(depth)};
    if (lanes > 3) out.push_back(planes(depth, 3));
    return out;
  }

  void check_all(Values values) {
    unsigned turn = 0;
    for (int depth = 1; depth <= 40; ++depth)
      for (const GemmLayout& layout : layouts(depth))
        for (const Flush flush : kBothEnds) {
          // Integers are for the arithmetic: one end an operand does.
          if (values == Values::integer && (flush == Flush::head) != (depth % 2 == 0)) continue;
          GemmProblem problem(tile.rows, columns, layout, random.below(2) == 1, random, values);
          if (turn % 3 == 1) problem.clamp = {0.0f, 6.0f};
          if (turn % 3 == 2) problem.clamp = {-0.75f, 0.5f};
          ASSERT_NO_FATAL_FAILURE(problem.check(tile.kernel(), lanes, flush, turn % 5 ? 0 : 7, values));
          ++turn;
        }
  }
};

TEST_P(Gemm, IsInTheTable) { ASSERT_NE(tile.kernel(), nullptr); }

TEST_P(Gemm, IsCloseToTheOracle) { check_all(Values::real); }

TEST_P(Gemm, IsExactOnSmallIntegers) { check_all(Values::integer); }

TEST_P(Gemm, HoldsItsBoundOverALongSum) {
  for (const int depth : {257, 1024}) {
    const GemmLayout layout = tile.kind == Rows::plane ? planes(depth, lanes) : layouts(depth)[0];
    const GemmProblem problem(tile.rows, columns, layout, false, random, Values::real);
    ASSERT_NO_FATAL_FAILURE(problem.check(tile.kernel(), lanes, Flush::tail, 0));
  }
}

// Results may not depend on how an output was cut into tiles, so that they are the same at any number of threads.
TEST_P(Gemm, GivesTheBitsOfTheOneByOneTile) {
  const GemmKernel smallest = table.gemm_strided_f32[0][0];
  for (const int depth : {1, 7, 24, 40})
    for (const GemmLayout& layout : layouts(depth)) {
      GemmProblem problem(tile.rows, columns, layout, depth % 2, random, Values::real);
      problem.clamp = {-0.9f, kInf};
      const std::vector<float> whole = problem.run(tile.kernel(), lanes, Flush::tail);
      for (int i = 0; i < tile.rows; ++i)
        for (int n = 0; n < columns; n += lanes) {
          const std::vector<float> part = problem.slice(i, n, lanes).run(smallest, lanes, Flush::tail);
          for (int l = 0; l < lanes; ++l)
            ASSERT_PRED2(same_bits, whole[static_cast<std::size_t>(i) * columns + n + l], part[l])
                << "row " << i << ", column " << n + l << ", K = " << depth;
        }
    }
}

TEST_P(Gemm, GivesTheSameBitsHoweverKIsCut) {
  const GemmKernel kernel = tile.kernel();
  const int depth = 24;
  // One row's elements side by side, so that the same memory can be described as one segment or as many.
  const GemmLayout whole{tile.kind == Rows::plane ? lanes : layouts(depth)[0].a_step, {{0, depth}}};
  const GemmProblem problem(tile.rows, columns, whole, false, random, Values::real);
  GemmProblem cut = problem;
  cut.layout.segments = {{0, 16}, {16, 1}, {17, 7}};
  const std::vector<float> a = problem.run(kernel, lanes, Flush::tail), b = cut.run(kernel, lanes, Flush::tail);
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_PRED2(same_bits, a[i], b[i]) << "element " << i;
}

TEST_P(Gemm, GoesOnFromTheSumsOfEarlierK) {
  for (const GemmLayout& layout : layouts(33)) {
    if (layout.segments.size() < 2) continue;
    for (const Flush flush : kBothEnds)
      for (const int tiles : {1, 3}) {
        GemmProblem problem(tiles * tile.rows, columns, layout, true, random, Values::real);
        problem.tiles = tiles;
        problem.clamp = {-0.75f, kInf};
        const auto runs = [&](int apart, int cut) {
          problem.apart = apart;
          return tile.kind == Rows::strided ? problem.run_nhwc(tile.kernel(), lanes, flush, 3, cut)
                                            : problem.run(tile.kernel(), lanes, flush, 7);
        };
        for (const int cut : {0, 1, lanes - 1})
          for (const int apart : {1, static_cast<int>(layout.segments.size()) - 1}) {
            const std::vector<float> whole = runs(0, cut), parts = runs(apart, cut);
            for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_PRED2(same_bits, parts[i], whole[i]) << "element " << i;
          }
      }
  }
}

TEST_P(Gemm, GoesThroughTilesThatLieOneBelowTheOther) {
  for (const int depth : {1, 18, 33})
    for (const GemmLayout& layout : layouts(depth))
      for (const Flush flush : kBothEnds) {
        GemmProblem problem(3 * tile.rows, columns, layout, depth % 2, random, Values::real);
        problem.tiles = 3;
        problem.clamp = {-0.75f, kInf};
        ASSERT_NO_FATAL_FAILURE(problem.check(tile.kernel(), lanes, flush, depth % 2 ? 0 : 7));
        if (tile.kind != Rows::strided) continue;
        const std::vector<float> planes = problem.run(tile.kernel(), lanes, flush);
        const std::vector<float> rows = problem.run_nhwc(tile.kernel(), lanes, flush, 3, 0);
        for (std::size_t i = 0; i < planes.size(); ++i) ASSERT_PRED2(same_bits, rows[i], planes[i]) << "element " << i;
      }
}

// NHWC differs in where results go, not in what they are: also where the last vector is partly there.
TEST_P(Gemm, WritesRowsOfChannels) {
  if (tile.kind != Rows::strided) return;
  for (const int cut : {0, 1, lanes / 2, lanes - 1})
    for (const Flush flush : kBothEnds)
      for (const int depth : {1, 9}) {
        GemmProblem problem(tile.rows, columns, {depth, {{0, depth}}}, cut % 2 == 0, random, Values::real);
        problem.clamp = {-0.75f, kInf};
        const std::vector<float> planes = problem.run(tile.kernel(), lanes, flush);
        const std::vector<float> rows = problem.run_nhwc(tile.kernel(), lanes, flush, depth % 2 ? 3 : 0, cut);
        const int width = columns - cut;
        for (int i = 0; i < tile.rows; ++i)
          for (int n = 0; n < width; ++n)
            ASSERT_PRED2(same_bits, rows[i * width + n], planes[static_cast<std::size_t>(i) * columns + n])
                << "row " << i << ", column " << n << ", cut " << cut;
      }
}

TEST_P(Gemm, LetsSpecialValuesThrough) {
  const int depth = 5;
  const GemmLayout layout = layouts(depth)[0];
  const Clamp clamps[] = {{}, {0.0f, 6.0f}, {0.0f, kInf}};
  unsigned first_clamp = 0;
  for (const float special : {kNaN, -kNaN, kInf, -kInf, -0.0f, 0.0f, kDenormal, -kDenormal, 3e38f}) {
    unsigned turn = first_clamp++;  // so that neighbours have different clamps, as have NaN and -NaN at one place
    const auto check = [&](auto place) {
      GemmProblem problem(tile.rows, columns, layout, true, random, Values::real);
      problem.clamp = clamps[turn++ % 3];
      place(problem);
      problem.check(tile.kernel(), lanes, Flush::tail, 0);
    };
    for (int i = 0; i < tile.rows; ++i)
      ASSERT_NO_FATAL_FAILURE(check([&](GemmProblem& p) { p.a[p.layout.index(i, i % depth)] = special; }));
    for (int n = 0; n < columns; ++n) {
      ASSERT_NO_FATAL_FAILURE(check([&](GemmProblem& p) { p.b[n % depth * columns + n] = special; }));
      ASSERT_NO_FATAL_FAILURE(check([&](GemmProblem& p) { p.bias[n] = special; }));
      ASSERT_NO_FATAL_FAILURE(check([&](GemmProblem& p) { p.residual[p.residual.size() - 1 - n] = special; }));
    }
  }
}

TEST_P(Gemm, MakesNaNOfZeroTimesInfinityAndOfInfinitiesThatCancel) {
  const GemmLayout layout = layouts(3)[0];
  for (const float other : {0.0f, -0.0f}) {
    GemmProblem problem(tile.rows, columns, layout, false, random, Values::real);
    problem.clamp = {0.0f, 6.0f};
    std::fill(problem.a.begin(), problem.a.end(), other);
    std::fill(problem.b.begin(), problem.b.end(), kInf);
    for (const float x : problem.run(tile.kernel(), lanes, Flush::tail)) ASSERT_TRUE(std::isnan(x));
  }
  GemmProblem problem(tile.rows, columns, layout, true, random, Values::real);
  std::fill(problem.bias.begin(), problem.bias.end(), kInf);
  std::fill(problem.residual.begin(), problem.residual.end(), -kInf);
  for (const float x : problem.run(tile.kernel(), lanes, Flush::tail)) ASSERT_TRUE(std::isnan(x));
}

TEST_P(Gemm, KeepsNegativeZeroAndDenormalsExactly) {
  const GemmLayout layout = layouts(1)[0];
  GemmProblem problem(tile.rows, columns, layout, false, random, Values::real);
  std::fill(problem.a.begin(), problem.a.end(), 1.0f);
  for (const float value : {-0.0f, kDenormal, -kDenormal}) {
    std::fill(problem.b.begin(), problem.b.end(), value);
    std::fill(problem.bias.begin(), problem.bias.end(), -0.0f);
    for (const float x : problem.run(tile.kernel(), lanes, Flush::tail)) ASSERT_PRED2(same_bits, x, value);
  }
}

std::string tile_name(const ::testing::TestParamInfo<TileId>& info) {
  return info.param.id.kernel + "__" + info.param.id.isa;
}

// The bits of the sum's own pass through the activation.
TEST_P(Gemm, AppliesHardSwishAsTheActivationDoes) {
  for (const bool with_residual : {false, true}) {
    GemmProblem problem(tile.rows, columns, tile.kind == Rows::plane ? planes(9, 4) : layouts(9).back(), with_residual, random, Values::real);
    for (float& value : problem.bias) value *= 4.0f;
    problem.bias[0] = kNaN;
    std::vector<float> expected = problem.run(tile.kernel(), lanes, Flush::tail);
    table.activate_f32(Activation::hard_swish, expected.data(), expected.data(), static_cast<std::int64_t>(expected.size()));
    problem.hard_swish = true;
    const std::vector<float> actual = problem.run(tile.kernel(), lanes, Flush::tail, 5);
    for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_TRUE(same_bits(expected[i], actual[i])) << "element " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Gemm, ::testing::ValuesIn(tiles()), tile_name);

class Gemv : public ::testing::TestWithParam<KernelId> {};

// One row of several panels has the bits that each panel's own tile gives it.
TEST_P(Gemv, GivesTheBitsOfOneRowOfTiles) {
  const KernelTable& table = GetParam().table();
  const int v = table.vector, width = 2 * v;
  ASSERT_EQ(table.panel_vectors, 2);
  Random random{7};
  for (int panels = 1; panels <= kMaxGemvPanels; ++panels)
    for (const int depth : {1, 2, v, v + 1, 50})
      for (const Flush flush : kBothEnds)
        for (const bool hard_swish : {false, true}) {
          std::vector<Segment> segments;
          for (int k = 0; k < depth; k += v) segments.push_back({3 * k, std::min(v, depth - k)});
          std::vector<float> values(segments.back().offset + segments.back().count, kNaN);
          for (const Segment& s : segments)
            for (int k = 0; k < s.count; ++k) values[s.offset + k] = random.unit();
          const std::ptrdiff_t stride = std::ptrdiff_t{1} * (depth + 1) * width;
          GuardedBuffer<float> a(values, flush), b(draw(random, panels * stride, Values::real), flush);
          GuardedBuffer<Segment> guarded_segments(segments, flush);
          const std::ptrdiff_t plane = v + 3;
          const std::size_t size = (2 * panels - 1) * plane + v;
          GuardedBuffer<float> c = unwritten(size, flush), expected = unwritten(size, flush);
          const int count = static_cast<int>(segments.size());
          table.gemv_f32({a.data(), guarded_segments.data(), count, b.data(), stride, panels, c.data(), plane, -0.5f, 0.75f,
                          hard_swish});
          for (int p = 0; p < panels; ++p) {
            GemmTile tile{.a = a.data(), .a_step = v, .segments = segments.data(), .segment_count = count,
                          .b = b.data() + p * stride, .residual = nullptr, .residual_plane = 0,
                          .c = expected.data() + 2 * p * plane, .c_plane = plane, .c_step = v, .residual_step = v, .lo = -0.5f, .hi = 0.75f,
                          .hard_swish = hard_swish, .prefetch = nullptr, .prefetch_step = 0};
            table.gemm_f32[1][0](tile);
          }
          for (std::size_t i = 0; i < size; ++i)
            ASSERT_TRUE(same_bits(expected.values()[i], c.values()[i])) << "element " << i << " of " << panels << " panels";
          ASSERT_TRUE(c.slack_intact());
        }
}

INSTANTIATE_TEST_SUITE_P(Kernels, Gemv, ::testing::ValuesIn(on_each_isa({"gemv_f32"})), test_name);

}  // namespace
}  // namespace sepconv::test
