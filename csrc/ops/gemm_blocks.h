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

// Brings `bytes` from `next` on into L2 while the `tiles` of some rows or panel, of k steps each, are at work: spread over
// all of them, since fetching them at once would take every fill buffer.
inline void set_prefetch(GemmTile& g, const void* next, std::size_t bytes, int tile, int tiles, int k) {
  g.prefetch_step = static_cast<std::ptrdiff_t>(bytes / (static_cast<std::size_t>(tiles) * k));
  g.prefetch = static_cast<const char*>(next) + g.prefetch_step * tile * k;
}

// Weights are read once an image, so each read would wait for L3 or memory. While one panel is at work, what lies this
// far behind it comes into L2. A single tile reads on so fast that the hardware's own prefetch does better.
inline constexpr std::ptrdiff_t kPrefetchDistance = 256 << 10;

inline void prefetch_weights(GemmTile& g, std::size_t panel_bytes, int tile, int tiles, int k) {
  const bool ahead = tiles > 1;
  set_prefetch(g, reinterpret_cast<const char*>(g.b) + (ahead ? kPrefetchDistance : 0), ahead ? panel_bytes : 0, tile, tiles, k);
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
