// What pointwise and dense convolutions share: names, and how many rows each tile of a range gets.
#pragma once

#include <algorithm>
#include <string>

#include "ops/row_op.h"
#include "pack/pack.h"

namespace sepconv {

// The highest tile for these weights: where one vector is all there is, it leaves registers for more rows.
inline int tile_rows(const PackedGemm& packed, const KernelTable& t) { return t.gemm_rows[packed.vectors(0) - 1]; }

inline std::string gemm_name(const char* kind, const PackedGemm& packed, const KernelTable& t) {
  return std::string(kind) + "_f32_" + std::to_string(tile_rows(packed, t)) + "x" + std::to_string(packed.vectors(0) * t.vector) + "__" +
         t.isa;
}

// Tiles of nearly equal height, none above `highest`: a last tile of one row would wait for its multiply-adds.
class Tiles {
 public:
  Tiles(int rows, int highest)
      : count_((rows + highest - 1) / highest), height_(rows / count_), higher_(rows - height_ * count_) {}
  int count() const { return count_; }
  int begin(int tile) const { return tile * height_ + std::min(tile, higher_); }
  int height(int tile) const { return height_ + (tile < higher_); }

 private:
  int count_, height_, higher_;  // the first higher_ tiles have a row more
};

// Brings bytes into L2 while tiles are at work: spread over all of them, since fetching them at once would take every
// fill buffer.
class Prefetch {
 public:
  // `bytes` over `tiles` tiles of k steps each.
  Prefetch(std::size_t bytes, int tiles, int k)
      : step_(static_cast<std::ptrdiff_t>(bytes / (static_cast<std::size_t>(tiles) * k))), tile_(step_ * k) {}

  // While this tile is at work, its part of what begins at `next`.
  void set(GemmTile& g, const void* next, int tile) const {
    g.prefetch_step = step_;
    g.prefetch = static_cast<const char*>(next) + tile_ * tile;
  }

 private:
  std::ptrdiff_t step_, tile_;
};

// Weights are read once an image, so each read would wait for L3 or memory. While one panel is at work, what lies this
// far behind it comes into L2. A single tile reads on so fast that the hardware's own prefetch does better.
inline constexpr std::ptrdiff_t kPrefetchDistance = 256 << 10;

inline const void* weights_ahead(const float* panel, int tiles) {
  return reinterpret_cast<const char*>(panel) + (tiles > 1 ? kPrefetchDistance : 0);
}

inline Prefetch weight_prefetch(std::size_t panel_bytes, int tiles, int k) {
  return Prefetch(tiles > 1 ? panel_bytes : 0, tiles, k);
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
