// Depthwise convolution of one plane (V channels), a row of Tile output columns at a time.
//
// Registers: acc[Tile], the taps of the row at hand (all K·K of them where registers allow, hoisted by the compiler), one
// input vector. Loop order: output rows, tiles of columns, input rows, input columns, taps: each input vector is loaded
// once a row and feeds every tap that meets it. Of a tile's input columns only the first and last K/2 can lie outside:
// they come through pointers of their own, turned to a vector of zeros there, so that padding costs no branch.
// Each output is one chain of multiply-adds in order of (row, column) of the taps, whatever the tile.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int K, int Stride, int Tile>
SEPCONV_INLINE void depthwise_tile(const DepthwiseRows& d, const float* const* rows, int x, float* out, vf lo, vf hi) {
  constexpr int kColumns = (Tile - 1) * Stride + K;
  constexpr int kEdge = K / 2;
  const int first = x * Stride - d.pad_left;
  vf acc[Tile];
  const vf bias = load(d.w);
#pragma GCC unroll 7
  for (int i = 0; i < Tile; ++i) acc[i] = bias;
#pragma GCC unroll 7
  for (int r = 0; r < K; ++r) {
    const float* const row = rows[r] + static_cast<std::ptrdiff_t>(first) * kLanes;
    vf w[K];
#pragma GCC unroll 7
    for (int s = 0; s < K; ++s) w[s] = load(d.w + (1 + r * K + s) * kLanes);
#pragma GCC unroll 19
    for (int i = 0; i < kColumns; ++i) {
      const float* p = row + i * kLanes;
      if (i < kEdge) p = first + i < 0 ? d.zeros : p;
      if (i >= kColumns - kEdge) p = first + i >= d.in_w ? d.zeros : p;
      const vf v = load_once(p);
#pragma GCC unroll 7
      for (int s = 0; s < K; ++s) {
        const int o = i - s;
        if (o >= 0 && o % Stride == 0 && o / Stride < Tile) acc[o / Stride] = fmadd(v, w[s], acc[o / Stride]);
      }
    }
  }
  if (d.hard_swish) {
#pragma GCC unroll 7
    for (int i = 0; i < Tile; ++i) store(out + i * kLanes, hard_swish(acc[i]));
    return;
  }
#pragma GCC unroll 7
  for (int i = 0; i < Tile; ++i) store(out + i * kLanes, min(hi, max(lo, acc[i])));
}

// Widest tile first; the remainder in one narrower tile.
template <int K, int Stride>
void depthwise(const DepthwiseRows& d) {
  constexpr int kTile = kRegisters >= 32 ? 7 : K == 3 ? 7 : 4;
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  for (int y = 0; y < d.out_rows; ++y) {
    const float* const* rows = d.rows + static_cast<std::ptrdiff_t>(y) * d.row_step;
    float* out = d.out + y * d.out_step;
    int x = 0;
    for (; x + kTile <= d.out_w; x += kTile) depthwise_tile<K, Stride, kTile>(d, rows, x, out + x * kLanes, lo, hi);
    float* const tail = out + x * kLanes;
    switch (d.out_w - x) {
      case 1: depthwise_tile<K, Stride, 1>(d, rows, x, tail, lo, hi); break;
      case 2: depthwise_tile<K, Stride, 2>(d, rows, x, tail, lo, hi); break;
      case 3: depthwise_tile<K, Stride, 3>(d, rows, x, tail, lo, hi); break;
      case 4: depthwise_tile<K, Stride, 4>(d, rows, x, tail, lo, hi); break;
      case 5: depthwise_tile<K, Stride, 5>(d, rows, x, tail, lo, hi); break;
      case 6: depthwise_tile<K, Stride, 6>(d, rows, x, tail, lo, hi); break;
      default: break;
    }
  }
}

// Any window: one output at a time, columns outside read as zeros.
SEPCONV_INLINE void depthwise_any(const DepthwiseRows& d) {
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  for (int y = 0; y < d.out_rows; ++y) {
    const float* const* rows = d.rows + static_cast<std::ptrdiff_t>(y) * d.row_step;
    for (int x = 0; x < d.out_w; ++x) {
      const float* w = d.w;
      vf acc = load(w);
      for (int r = 0; r < d.kh; ++r) {
        for (int s = 0; s < d.kw; ++s) {
          const int column = x * d.stride_w - d.pad_left + s * d.dilation_w;
          const bool inside = column >= 0 && column < d.in_w;
          w += kLanes;
          acc = fmadd(load(inside ? rows[r] + static_cast<std::ptrdiff_t>(column) * kLanes : d.zeros), load(w), acc);
        }
      }
      const vf v = d.hard_swish ? hard_swish(acc) : min(hi, max(lo, acc));
      store(d.out + y * d.out_step + static_cast<std::ptrdiff_t>(x) * kLanes, v);
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA
