// What pointwise and dense convolutions share: names, and how many rows each tile of a range gets.
#pragma once

#include <string>

#include "ops/row_op.h"
#include "pack/pack.h"

namespace sepconv {

inline std::string gemm_name(const KernelTable& t, const char* kind) {
  return std::string(kind) + "_f32_" + std::to_string(t.gemm_rows) + "x" + std::to_string(t.gemm_vectors * t.vector) + "__" +
         t.isa;
}

// Tiles of nearly equal height, none above gemm_rows: a last tile of one row would wait for its multiply-adds.
class Tiles {
 public:
  Tiles(int rows, const KernelTable& t) : rows_(rows), count_((rows + t.gemm_rows - 1) / t.gemm_rows) {}
  int count() const { return count_; }
  int begin(int tile) const { return static_cast<int>(std::int64_t{1} * rows_ * tile / count_); }

 private:
  int rows_, count_;
};

// Spreads the prefetch of what is needed next, `next`, over the tiles of this panel: fetching it all during the first one
// would take every fill buffer. A single tile leaves a sequential read to the hardware.
inline void set_prefetch(GemmTile& g, const void* next, std::size_t panel_bytes, int tile, int tiles, int k) {
  const bool ahead = tiles > 1 && next != nullptr;
  g.prefetch_step = ahead ? static_cast<std::ptrdiff_t>(panel_bytes / (static_cast<std::size_t>(tiles) * k)) : 0;
  g.prefetch = ahead ? static_cast<const char*>(next) + g.prefetch_step * tile * k : static_cast<const void*>(g.b);
}

// A kernel applies clamps; any other activation takes a pass over the tile while it is in L1.
inline void activate_tile(const KernelTable& t, Activation pass, const GemmTile& tile, int rows, int vectors) {
  if (pass == Activation::none) return;
  for (int j = 0; j < vectors; ++j) {
    float* c = tile.c + j * tile.c_plane;
    t.activate_f32(pass, c, c, std::int64_t{1} * rows * t.vector);
  }
}

}  // namespace sepconv
