// Depthwise convolution of pixels that lie any distance apart: NHWC, or a buffer of rows.
//
// Registers: acc[Rows][Tile] (2×7 of 32, 2×4 of 16; 2×4 of AVX-512 for 3×3 at stride 2 too, where seven columns read 75 lines at a
// time; one row of AVX2, whose vectors are half a cache line, takes two blocks at once: 1×4×2), the taps of the input row at
// hand for each output row, one input vector.
// Loop order: tiles of columns, blocks of V channels, input rows, input columns, taps. Blocks are inside columns:
// so each step touches the next cache line of every pixel of the tile, a pattern that hardware prefetches, where one
// block over a whole row would jump by a pixel's length and keep few of its lines in L1. Two output rows share the loads
// of the rows between them. Columns outside come from zeros, as in depthwise.h.
// Each output is one chain of multiply-adds in order of (row, column) of the taps: the bits of depthwise.h.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Where block b's channels begin.
SEPCONV_INLINE std::ptrdiff_t depthwise_pixels_channel(const DepthwisePixels& d, int b) {
  const std::ptrdiff_t c = d.second + std::ptrdiff_t{1} * (b - 1) * kLanes;
  return b == 0 ? 0 : c < d.last ? c : d.last;
}

// The first block after b that does not begin where the one before it ends, or the number of blocks.
SEPCONV_INLINE int depthwise_pixels_gap(const DepthwisePixels& d, int b) {
  if (b == 0 && d.second != kLanes) return 1;
  const bool overlaps = d.last < d.second + std::ptrdiff_t{1} * (d.blocks - 2) * kLanes;
  return overlaps && b + 1 < d.blocks ? d.blocks - 1 : d.blocks;
}

// Edge: columns may lie outside. Blocks that follow each other, Vectors at a time, as long as so many are left: from `block`
// on, whose channels begin at c, up to channel `end`.
template <int K, int Stride, int Rows, int Tile, bool Edge, int Vectors>
SEPCONV_INLINE void depthwise_pixels_blocks(const DepthwisePixels& d, int x, int block, std::ptrdiff_t c, std::ptrdiff_t end,
                                            vf lo, vf hi) {
  constexpr int kInRows = (Rows - 1) * Stride + K;
  constexpr int kColumns = (Tile - 1) * Stride + K;
  static_assert(kColumns <= 19, "the loop over columns must be unrolled");
  constexpr int kEdge = K / 2;
  constexpr int kWeights = (1 + K * K) * kLanes;  // of a block
  const int first = x * Stride - d.pad_left;
  const float* w = d.w + std::ptrdiff_t{1} * block * kWeights;
  float* const out = d.out + x * d.out_pixel;
  const std::ptrdiff_t out_row = d.out_row, out_pixel = d.out_pixel;
  for (; c + (Vectors - 1) * kLanes < end; c += Vectors * kLanes, w += Vectors * kWeights) {
    vf acc[Rows][Tile][Vectors];
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) {
      const vf bias = load(w + j * kWeights);
#pragma GCC unroll 2
      for (int o = 0; o < Rows; ++o) {
#pragma GCC unroll 7
        for (int i = 0; i < Tile; ++i) acc[o][i][j] = bias;
      }
    }
    // Input row r, which meets the first output row, the second, or both.
    const auto meet = [&](int r, bool meets_first, bool meets_second) __attribute__((always_inline)) {
      const std::ptrdiff_t step = d.steps[r];
      const float* p = d.rows[r] + first * step + c;
#pragma GCC unroll 19
      for (int i = 0; i < kColumns; ++i, p += step) {
        const float* from = p;
        if (Edge && i < kEdge) from = first + i < 0 ? d.zeros : from;
        if (Edge && i >= kColumns - kEdge) from = first + i >= d.in_w ? d.zeros : from;
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) {
          const vf v = load_once(from + j * kLanes);
#pragma GCC unroll 2
          for (int o = 0; o < Rows; ++o) {
            if (!(o == 0 ? meets_first : meets_second)) continue;
#pragma GCC unroll 7
            for (int s = 0; s < K; ++s) {
              const int column = i - s;
              if (column >= 0 && column % Stride == 0 && column / Stride < Tile) {
                vf& sum = acc[o][column / Stride][j];
                sum = fmadd(v, load(w + j * kWeights + (1 + (r - o * Stride) * K + s) * kLanes), sum);
              }
            }
          }
        }
      }
    };
    if constexpr (K < 7) {
#pragma GCC unroll 7
      for (int r = 0; r < kInRows; ++r) meet(r, r < K, r >= Stride);
    } else {  // all at once would be much code
      constexpr int kAlone = Rows == 2 ? Stride : K;
      for (int r = 0; r < kAlone; ++r) meet(r, true, false);
      for (int r = kAlone; r < K; ++r) meet(r, true, true);
      for (int r = K; r < kInRows; ++r) meet(r, false, true);
    }
#pragma GCC unroll 2
    for (int o = 0; o < Rows; ++o) {
      float* to = out + o * out_row + c;
#pragma GCC unroll 7
      for (int i = 0; i < Tile; ++i, to += out_pixel) {
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) store(to + j * kLanes, clamp(acc[o][i][j], lo, hi));
      }
    }
  }
}

// One row of output leaves registers for two blocks, a whole cache line, where vectors have half of one.
template <int K, int Stride, int Rows, int Tile, bool Edge>
SEPCONV_INLINE void depthwise_pixels_tile(const DepthwisePixels& d, int x, vf lo, vf hi) {
  constexpr bool kPairs = Rows == 1 && kLanes == 8;
  for (int block = 0; block < d.blocks;) {
    const int gap = depthwise_pixels_gap(d, block), paired = kPairs ? (gap - block) & ~1 : 0;
    const std::ptrdiff_t c = depthwise_pixels_channel(d, block), end = c + std::ptrdiff_t{1} * (gap - block) * kLanes;
    if constexpr (kPairs) depthwise_pixels_blocks<K, Stride, Rows, Tile, Edge, 2>(d, x, block, c, end, lo, hi);
    depthwise_pixels_blocks<K, Stride, Rows, Tile, Edge, 1>(d, x, block + paired, c + paired * kLanes, end, lo, hi);
    block = gap;
  }
}

// Widest tile first; the remainder in one narrower tile.
template <int K, int Stride, int Rows>
SEPCONV_INLINE void depthwise_pixels_rows(const DepthwisePixels& d) {
  constexpr int kTile = kRegisters < 32 || (kLanes == 16 && K == 3 && Stride == 2) ? 4 : 7;
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  int x = 0;
  for (; x + kTile <= d.out_w; x += kTile) {
    const int first = x * Stride - d.pad_left;
    if (first >= 0 && first + (kTile - 1) * Stride + K <= d.in_w) {
      depthwise_pixels_tile<K, Stride, Rows, kTile, false>(d, x, lo, hi);
    } else {
      depthwise_pixels_tile<K, Stride, Rows, kTile, true>(d, x, lo, hi);
    }
  }
  switch (d.out_w - x) {
    case 1: depthwise_pixels_tile<K, Stride, Rows, 1, true>(d, x, lo, hi); break;
    case 2: depthwise_pixels_tile<K, Stride, Rows, 2, true>(d, x, lo, hi); break;
    case 3: depthwise_pixels_tile<K, Stride, Rows, 3, true>(d, x, lo, hi); break;
    case 4: if constexpr (kTile > 4) depthwise_pixels_tile<K, Stride, Rows, 4, true>(d, x, lo, hi); break;
    case 5: if constexpr (kTile > 4) depthwise_pixels_tile<K, Stride, Rows, 5, true>(d, x, lo, hi); break;
    case 6: if constexpr (kTile > 4) depthwise_pixels_tile<K, Stride, Rows, 6, true>(d, x, lo, hi); break;
    default: break;
  }
}

template <int K, int Stride>
void depthwise_pixels(const DepthwisePixels& d) {
  if (d.out_rows == 2) {
    depthwise_pixels_rows<K, Stride, 2>(d);
  } else {
    depthwise_pixels_rows<K, Stride, 1>(d);
  }
}

// Any window: Tile columns of one output row. Lanes: of the block, 0 for V.
template <int Tile, bool Edge>
SEPCONV_INLINE void depthwise_pixels_any_tile(const DepthwisePixels& d, int x, int block, int lanes, vf lo, vf hi) {
  const std::ptrdiff_t c = depthwise_pixels_channel(d, block);
  const float* const w = d.w + std::ptrdiff_t{1} * block * kLanes * (1 + d.kh * d.kw);
  float* to = d.out + x * d.out_pixel + c;
  const auto step = [&](int r) { return d.steps[r]; };
  vf acc[Tile];
  if (lanes == 0) {
    depthwise_any_window<Tile, Edge>(d, d.rows, step, c, x, w, acc, [](const float* p) { return load(p); });
#pragma GCC unroll 8
    for (int i = 0; i < Tile; ++i, to += d.out_pixel) store(to, clamp(acc[i], lo, hi));
  } else {
    depthwise_any_window<Tile, Edge>(d, d.rows, step, c, x, w, acc, [&](const float* p) { return load_some(p, lanes); });
#pragma GCC unroll 8
    for (int i = 0; i < Tile; ++i, to += d.out_pixel) store_some(to, clamp(acc[i], lo, hi), lanes);
  }
}

SEPCONV_INLINE void depthwise_pixels_any(const DepthwisePixels& d) {
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  depthwise_any_tiles(d, [&](auto tile, auto edge, int x) __attribute__((always_inline)) {
    for (int b = 0; b < d.blocks; ++b) {
      depthwise_pixels_any_tile<tile.value, edge.value>(d, x, b, b + 1 == d.blocks ? d.last_lanes : 0, lo, hi);
    }
  });
}

}  // namespace sepconv::SEPCONV_ISA
