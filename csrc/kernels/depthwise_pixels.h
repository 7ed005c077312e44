// Depthwise convolution of pixels that lie any distance apart: NHWC, or a buffer of rows.
//
// Registers: acc[Rows][Tile] (2×7 of 32, 2×4 of 16), the taps of the input row at hand for each output row, one input
// vector. Loop order: tiles of columns, blocks of V channels, input rows, input columns, taps. Blocks are inside columns:
// so each step touches the next cache line of every pixel of the tile, a pattern that hardware prefetches, where one
// block over a whole row would jump by a pixel's length and keep few of its lines in L1. Two output rows share the loads
// of the rows between them. Columns outside come from zeros, as in depthwise.h.
// Each output is one chain of multiply-adds in order of (row, column) of the taps: the bits of depthwise.h.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Edge: columns may lie outside.
template <int K, int Stride, int Rows, int Tile, bool Edge>
SEPCONV_INLINE void depthwise_pixels_tile(const DepthwisePixels& d, int x, vf lo, vf hi) {
  constexpr int kInRows = (Rows - 1) * Stride + K;
  constexpr int kColumns = (Tile - 1) * Stride + K;
  constexpr int kEdge = K / 2;
  const int first = x * Stride - d.pad_left;
  const float* w = d.w;
  float* const out = d.out + x * d.out_pixel;
  const std::ptrdiff_t floats = std::ptrdiff_t{1} * d.blocks * kLanes, out_row = d.out_row, out_pixel = d.out_pixel;
  for (std::ptrdiff_t c = 0; c < floats; c += kLanes, w += (1 + K * K) * kLanes) {
    vf acc[Rows][Tile];
    const vf bias = load(w);
#pragma GCC unroll 2
    for (int o = 0; o < Rows; ++o) {
#pragma GCC unroll 7
      for (int i = 0; i < Tile; ++i) acc[o][i] = bias;
    }
#pragma GCC unroll 7
    for (int r = 0; r < kInRows; ++r) {
      const std::ptrdiff_t step = d.steps[r];
      const float* p = d.rows[r] + first * step + c;
#pragma GCC unroll 17
      for (int i = 0; i < kColumns; ++i, p += step) {
        const float* from = p;
        if (Edge && i < kEdge) from = first + i < 0 ? d.zeros : from;
        if (Edge && i >= kColumns - kEdge) from = first + i >= d.in_w ? d.zeros : from;
        const vf v = load_once(from);
#pragma GCC unroll 2
        for (int o = 0; o < Rows; ++o) {
          const int tap_row = r - o * Stride;
#pragma GCC unroll 5
          for (int s = 0; s < K; ++s) {
            const int column = i - s;
            if (tap_row >= 0 && tap_row < K && column >= 0 && column % Stride == 0 && column / Stride < Tile) {
              acc[o][column / Stride] = fmadd(v, load(w + (1 + tap_row * K + s) * kLanes), acc[o][column / Stride]);
            }
          }
        }
      }
    }
#pragma GCC unroll 2
    for (int o = 0; o < Rows; ++o) {
      float* to = out + o * out_row + c;
#pragma GCC unroll 7
      for (int i = 0; i < Tile; ++i, to += out_pixel) store(to, clamp(acc[o][i], lo, hi));
    }
  }
}

// Widest tile first; the remainder in one narrower tile.
template <int K, int Stride, int Rows>
SEPCONV_INLINE void depthwise_pixels_rows(const DepthwisePixels& d) {
  constexpr int kTile = kRegisters >= 32 ? 7 : 4;
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

// Any window: Tile columns of one output row at a time, each tap's weights loaded once for all. Lanes: of the block, 0 for V.
template <int Tile>
SEPCONV_INLINE void depthwise_pixels_any_tile(const DepthwisePixels& d, int x, int block, int lanes, vf lo, vf hi) {
  const std::ptrdiff_t c = std::ptrdiff_t{1} * block * kLanes;
  const float* w = d.w + c * (1 + d.kh * d.kw);
  vf acc[Tile];
  const vf bias = load(w);
#pragma GCC unroll 4
  for (int i = 0; i < Tile; ++i) acc[i] = bias;
  for (int r = 0; r < d.kh; ++r) {
    for (int s = 0; s < d.kw; ++s) {
      w += kLanes;
      const vf tap = load(w);
#pragma GCC unroll 4
      for (int i = 0; i < Tile; ++i) {
        const int column = (x + i) * d.stride_w - d.pad_left + s * d.dilation_w;
        const bool inside = column >= 0 && column < d.in_w;
        const float* const p = inside ? d.rows[r] + column * d.steps[r] + c : d.zeros;
        acc[i] = fmadd(lanes ? load_some(p, lanes) : load(p), tap, acc[i]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Tile; ++i) {
    float* const to = d.out + (x + i) * d.out_pixel + c;
    const vf result = clamp(acc[i], lo, hi);
    if (lanes) {
      store_some(to, result, lanes);
    } else {
      store(to, result);
    }
  }
}

SEPCONV_INLINE void depthwise_pixels_any(const DepthwisePixels& d) {
  constexpr int kTile = 4;
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  for (int x = 0; x < d.out_w;) {
    const bool whole = x + kTile <= d.out_w;
    for (int b = 0; b < d.blocks; ++b) {
      const int lanes = b + 1 == d.blocks ? d.last_lanes : 0;
      if (whole) {
        depthwise_pixels_any_tile<kTile>(d, x, b, lanes, lo, hi);
      } else {
        depthwise_pixels_any_tile<1>(d, x, b, lanes, lo, hi);
      }
    }
    x += whole ? kTile : 1;
  }
}

}  // namespace sepconv::SEPCONV_ISA
