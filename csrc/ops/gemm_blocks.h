// What pointwise and dense convolutions share.
#pragma once

#include <algorithm>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "cpu/topology.h"
#include "ops/row_op.h"
#include "pack/pack.h"

namespace sepconv {

// Tiles of nearly equal height, none above `highest`: a last tile of one row would wait for its multiply-adds.
class Tiles {
 public:
  Tiles(int rows, int highest)
      : count_((rows + highest - 1) / highest), height_(rows / count_), higher_(rows - height_ * count_) {}
  int count() const { return count_; }
  int begin(int tile) const { return tile * height_ + std::min(tile, higher_); }
  int height(int tile) const { return height_ + (tile < higher_); }
  // Of the tiles [begin, end) the first that has another height than begin.
  int same_height(int tile, int end) const { return tile < higher_ ? std::min(higher_, end) : end; }

 private:
  int count_, height_, higher_;  // the first higher_ tiles have a row more
};

// Brings bytes into L2 while tiles are at work: spread over all of them, and a line each k at most, since fetching them at
// once would take every fill buffer.
class Prefetch {
 public:
  Prefetch() = default;  // of nothing
  // `bytes` over `tiles` tiles of k steps each.
  Prefetch(std::size_t bytes, std::int64_t tiles, int k)
      : step_(tiles > 0 ? static_cast<std::ptrdiff_t>(std::min(kLine, bytes / (static_cast<std::size_t>(tiles) * k))) : 0),
        tile_(step_ * k) {}

  // While this tile is at work, its part of what begins at `next`.
  void set(GemmTile& g, const void* next, std::int64_t tile) const {
    g.prefetch_step = step_;
    g.prefetch = static_cast<const char*>(next) + tile_ * tile;
  }

  static constexpr std::size_t kLine = 64;

 private:
  std::ptrdiff_t step_ = 0, tile_ = 0;
};

// Weights are read once an image, so each read would wait for L3 or memory: while one panel is at work, as much as it has
// comes into L2 from behind it, the next panel or what follows the last. A single tile reads on so fast that the
// hardware's own prefetch does better.
inline Prefetch weight_prefetch(std::size_t panel_bytes, int tiles, int k) {
  return Prefetch(tiles > 1 ? panel_bytes : 0, tiles, k);
}

// Weights that stay in L2 while pixels pass through. Of more, block after block of pixels goes through all.
inline constexpr std::size_t kResidentWeights = 256 << 10;

// Whether threads had better share channels than pixels: sharing pixels each reads all weights, here far more than there are
// activations, of so many floats.
inline bool outweigh(std::size_t weight_bytes, double activations) {
  return static_cast<double>(weight_bytes) > std::max<double>(kResidentWeights, 3 * sizeof(float) * activations);
}

// Bytes of activations that stay in L2 while more weights than it keeps pass through: half of it, as the next block comes
// in while this one is read, less what a large L2 keeps for the weights.
inline std::size_t passed_block_bytes() {
  const std::size_t l2 = l2_bytes();
  return std::max(l2 / 4, (std::max(l2, kResidentWeights) - kResidentWeights) / 2);
}

// How many tiles of so many pixels have these bytes; one at least.
inline int tiles_in(std::size_t bytes, int channels, int rows) {
  return static_cast<int>(std::clamp<std::size_t>(bytes / (sizeof(float) * channels * rows), 1, INT_MAX));
}

// Whether a dense convolution gathers its pixels tap by tap: where the copy of its rows with their padding, of `padded`
// floats, would be much larger than the image, and than what is gathered for a pixel. All may be beyond any integer.
inline bool worth_gathering(double padded, double image, double gathered) {
  constexpr double kSmall = 1 << 16;
  return padded > kSmall && padded > 2 * image && padded > gathered;
}

// How many pixels are gathered at a time, of `gathered` floats each.
inline int gathered_rows(int most, double gathered) {
  constexpr double kGathered = 1 << 16;  // a quarter of a megabyte
  return static_cast<int>(std::clamp(kGathered / gathered, 1.0, double{1} * most));
}

// What the window meets of an image whose channels lie together, with zeros outside, as rows of `to` that lie to_row floats
// apart: from row `top` on `columns` pixels from `left` on. row(y): the image's row y, whose pixels lie `pixel` floats apart.
template <class Row>
void copy_patch(const Window& w, const Shape& in, Row row, std::ptrdiff_t pixel, int top, int left, int columns, float* to,
                std::ptrdiff_t to_row) {
  const int begin = std::clamp(-left, 0, columns), end = std::clamp(in.w - left, begin, columns);
  for (int r = 0; r < w.kh; ++r, to += to_row) {
    const int y = top + r * w.dilation_h;
    const bool inside = y >= 0 && y < in.h && begin < end;
    const int first = inside ? begin : columns, last = inside ? end : columns;
    float* const pixels = to + std::ptrdiff_t{1} * first * in.c;
    std::fill(to, pixels, 0.0f);
    std::fill(to + std::ptrdiff_t{1} * last * in.c, to + std::ptrdiff_t{1} * columns * in.c, 0.0f);
    if (!inside) continue;
    const float* const from = row(y) + (std::ptrdiff_t{1} * left + first) * pixel;
    if (pixel == in.c) {
      std::copy(from, from + std::ptrdiff_t{1} * (last - first) * in.c, pixels);
    } else {
      for (std::ptrdiff_t i = 0; i < last - first; ++i) std::copy_n(from + i * pixel, in.c, pixels + i * in.c);
    }
  }
}

// Packed weights, the epilogue, and the tiles that both work on.
class GemmOp : public RowOp {
 protected:
  GemmOp(const char* kind, Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs,
         Activation activation, const KernelTable& t)
      : table_(t), packed_(std::move(packed)), epilogue_(activation, true), tile_rows_(t.gemm_rows[packed_->vectors(0) - 1]) {
    kernel = std::string(kind) + "_f32_" + std::to_string(tile_rows_) + "x" + std::to_string(packed_->vectors(0) * t.vector) +
             "__" + t.isa;
    in = shape;
    window = w;
    out = {w.out_h(in.h), w.out_w(in.w), outputs};
    parts = packed_->panels();
    macs = out.elements() * w.kh * w.kw * in.c;
    weight_bytes = packed_->bytes();
    weights = reinterpret_cast<const char*>(packed_->panel(0));
    streams = true;
  }

  // A tile as far as it is the same for all of a task.
  GemmTile tile_of(const RowTask& task, const Segment* segments, int segment_count, std::ptrdiff_t a_step) const {
    GemmTile g{.c_step = table_.vector, .residual_step = table_.vector};
    g.a_step = a_step;
    g.segments = segments;
    g.segment_count = segment_count;
    g.residual = nullptr;
    g.residual_plane = task.other.plane;
    g.c_plane = task.out.plane;
    g.last_lanes = 0;
    g.lo = epilogue_.lo;
    g.hi = epilogue_.hi;
    g.hard_swish = epilogue_.hard_swish;
    return g;
  }

  // Computes panel p of the g.tiles tiles from g.a on: `rows` pixels each, whose results lie at `c` (and residual) in the first plane.
  void multiply(GemmTile& g, const RowTask& task, int p, int rows, float* c, const float* residual) const {
    g.b = packed_->panel(p);
    multiply_part(g, task, p, rows, c, residual);
    activate(g, p, rows);
  }

  // The same from g.b on, for the k of g's segments; what comes after all k is the caller's.
  void multiply_part(GemmTile& g, const RowTask& task, int p, int rows, float* c, const float* residual) const {
    const int vectors = packed_->vectors(p), block = packed_->first_block(p);
    g.c = c + block * task.out.plane;
    if (residual) g.residual = residual + block * task.other.plane;
    const auto& kernels = g.a_step == table_.vector ? table_.gemm_f32
                          : g.a_step == kImageStep  ? table_.gemm_image_f32
                                                    : table_.gemm_strided_f32;
    kernels[vectors - 1][rows - 1](g);
  }

  // A kernel applies clamps; any other activation takes a pass over the tile while it is in L1.
  void activate(const GemmTile& g, int p, int rows) const {
    if (epilogue_.pass == Activation::none) return;
    for (int j = 0; j < packed_->vectors(p); ++j) {
      float* const row = g.c + j * g.c_plane;
      table_.activate_f32(epilogue_.pass, row, row, std::int64_t{1} * g.tiles * rows * table_.vector);
    }
  }

  const KernelTable& table_;
  std::shared_ptr<const PackedGemm> packed_;
  Epilogue epilogue_;
  int tile_rows_;  // of the highest tile: where one vector is all there is, it leaves registers for more rows
};

}  // namespace sepconv
