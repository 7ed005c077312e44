// Rows that lie any distance apart times packed panels, to rows that lie any distance apart: what pointwise convolutions of
// arrays and products of matrices share.
#pragma once

#include "ops/gemm_blocks.h"

namespace sepconv {

// The highest tile for rows of A that lie so far apart: those that share the sets of L1 with each other must stay in it.
inline int tile_rows(int highest, std::ptrdiff_t step) {
  constexpr int kAliased = 10;  // measured: of 14 rows a multiple of 4 KB apart each load would miss
  return step * static_cast<std::ptrdiff_t>(sizeof(float)) % 4096 == 0 ? std::min(highest, kAliased) : highest;
}

// C = clamp(bias + A·B + residual), of `rows` rows of A.
struct PanelProduct {
  const KernelTable& table;
  const PackedGemm& packed;  // the sizes of B
  int rows, k, columns;      // columns: of all panels together
  const float* a;
  std::ptrdiff_t a_step;     // floats from one row to the next
  float* c;
  std::ptrdiff_t c_step;
  const float* residual = nullptr;  // as c
  std::ptrdiff_t residual_step = 0;
  float lo = -__builtin_inff(), hi = __builtin_inff();
};

// The columns of panels [first_panel, end_panel), of which the first lies at `panels`; `fresh`: they were just packed, and so
// are in L2. Blocks of rows, then panels, then tiles: of panels that stay in L2, a block of rows that stays in L1 meets all.
// Where panels stay in L1 themselves, but not in L2 what they meet, each tile meets all, so that results are written in order,
// and what lies some tiles below is fetched: rows with the first panel, and with the others the lines of results.
// done(c, rows, columns) comes after each run of tiles, and leaves off where it says true. False where it did.
template <class Done>
bool multiply_panels(const PanelProduct& t, int first_panel, int end_panel, const float* panels, bool fresh, const Done& done) {
  constexpr std::size_t kPassedL1 = 16 << 10;  // of rows: half of an L1
  constexpr std::ptrdiff_t kTilesBelow = 4;
  const int v = t.table.vector;
  const Tiles tiles(t.rows, tile_rows(t.table.gemm_rows[t.packed.vectors(0) - 1], t.a_step));
  const std::size_t panel_floats = t.packed.panel_bytes() / sizeof(float);
  const Segment segment{0, t.k};
  GemmTile g{.c_step = t.c_step, .residual_step = t.residual_step};
  g.a_step = t.a_step;
  g.segments = &segment;
  g.segment_count = 1;
  g.residual_plane = g.c_plane = v;
  g.lo = t.lo;
  g.hi = t.hi;
  const int count = end_panel - first_panel;
  const std::size_t weight_bytes = count * t.packed.panel_bytes();
  const bool resident = weight_bytes <= kResidentWeights;
  const bool passing = weight_bytes <= kPassedL1 && sizeof(float) * t.rows * (t.a_step + t.c_step) > l2_bytes() / 2;
  const int block = passing ? 1 : tiles_in(resident ? kPassedL1 : passed_block_bytes(), t.k, tiles.height(0));
  const std::size_t column_bytes = sizeof(float) * tiles.height(0);  // of a tile
  const Prefetch rows_below(column_bytes * t.a_step, 1, t.k), results_below(column_bytes * t.c_step, count - 1, t.k);
  for (int begin = 0; begin < tiles.count();) {
    const int end = begin + std::min(block, tiles.count() - begin);
    const Prefetch prefetch = weight_prefetch(fresh ? 0 : t.packed.panel_bytes(), end - begin, t.k);
    for (int p = first_panel; p < end_panel; ++p) {
      const int vectors = t.packed.vectors(p), column = t.packed.first_block(p) * v;
      const int columns = std::min(vectors * v, t.columns - column);
      g.b = panels + (p - first_panel) * panel_floats;
      g.last_lanes = columns % v;
      for (int i = begin; i < end; i += g.tiles) {
        const std::ptrdiff_t first = tiles.begin(i);
        const int height = tiles.height(i);
        g.tiles = tiles.same_height(i, end) - i;
        g.a = t.a + first * t.a_step;
        g.c = t.c + first * t.c_step + column;
        g.residual = t.residual ? t.residual + first * t.residual_step + column : nullptr;
        if (!passing) {
          prefetch.set(g, g.b + panel_floats, i - begin);
        } else if (p == first_panel) {
          rows_below.set(g, g.a + kTilesBelow * height * t.a_step, 0);
        } else {
          results_below.set(g, t.c + (first + kTilesBelow * height) * t.c_step, p - first_panel - 1);
        }
        t.table.gemm_strided_f32[vectors - 1][height - 1](g);
        if (done(g.c, std::int64_t{1} * g.tiles * height, columns)) return false;
      }
    }
    begin = end;
  }
  return true;
}

}  // namespace sepconv
