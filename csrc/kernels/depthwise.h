// Depthwise convolution of one plane (V channels), a row of Tile output columns at a time.
//
// Registers: acc[Tile], kLoads input vectors, bias and all taps where registers allow (3x3 with 32 of them), else the taps
// of the row at hand. Loop order: output rows, tiles of columns, input rows, input columns, taps: each input vector is
// loaded once a row and feeds every tap that meets it. Of a tile's input columns only the first and last K/2 can lie
// outside: where some do, these come through pointers of their own, turned to a vector of zeros there, so that padding
// costs no branch. Each output is one chain of multiply-adds in order of (row, column) of the taps, whatever the tile.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// The bias (0) and taps (from 1 on) of a plane: held in registers, or loaded where they are used.
template <int K>
class DepthwiseTaps {
 public:
  [[gnu::always_inline]] explicit DepthwiseTaps(const float* w) : w_(w) {
#pragma GCC unroll 10
    for (int i = 0; i < kHeld; ++i) held_[i] = load(w + i * kLanes);
  }
  [[gnu::always_inline]] vf operator[](int i) const { return i < kHeld ? held_[i] : load(w_ + i * kLanes); }

 private:
  static constexpr int kHeld = K == 3 && kRegisters >= 32 ? 1 + K * K : 1;
  const float* w_;
  vf held_[kHeld];
};

// A tile whose first tap's column is `first`. Edge: columns may lie outside.
template <int K, int Stride, int Tile, bool Edge>
SEPCONV_INLINE void depthwise_tile(const DepthwiseRows& d, const DepthwiseTaps<K>& taps, const float* const (&rows)[K],
                                   int first, float* out, vf lo, vf hi) {
  constexpr int kColumns = (Tile - 1) * Stride + K;
  constexpr int kEdge = K / 2;
  vf acc[Tile];
  const vf bias = taps[0];
#pragma GCC unroll 14
  for (int i = 0; i < Tile; ++i) acc[i] = bias;
#pragma GCC unroll 7
  for (int r = 0; r < K; ++r) {
    const float* const row = anchor(rows[r] + static_cast<std::ptrdiff_t>(first) * kLanes);
    vf w[K];
#pragma GCC unroll 7
    for (int s = 0; s < K; ++s) w[s] = taps[1 + r * K + s];
    const auto column = [&](int i) {
      const float* p = row + i * kLanes;
      if (Edge && i < kEdge) p = first + i < 0 ? d.zeros : p;
      if (Edge && i >= kColumns - kEdge) p = first + i >= d.in_w ? d.zeros : p;
      return load_once(p);
    };
    const auto multiply = [&](int i, vf v) {
#pragma GCC unroll 7
      for (int s = 0; s < K; ++s) {
        const int o = i - s;
        if (o >= 0 && o % Stride == 0 && o / Stride < Tile) acc[o / Stride] = fmadd(v, w[s], acc[o / Stride]);
      }
    };
    constexpr int kSingle = kColumns % kLoads;
    if constexpr (kSingle != 0) multiply(0, column(0));
#pragma GCC unroll 33
    for (int i = kSingle; i < kColumns; i += kLoads) {
      vf v[kLoads];
#pragma GCC unroll 2
      for (int j = 0; j < kLoads; ++j) v[j] = column(i + j);
#pragma GCC unroll 2
      for (int j = 0; j < kLoads; ++j) multiply(i + j, v[j]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < Tile; ++i) store(out + i * kLanes, clamp(acc[i], lo, hi));
}

// The `width` < Tile columns that are left of a row, in one tile.
template <int K, int Stride, int Tile>
SEPCONV_INLINE void depthwise_tail(const DepthwiseRows& d, const DepthwiseTaps<K>& taps, const float* const (&rows)[K],
                                   int width, int first, float* out, vf lo, vf hi) {
  if constexpr (Tile > 1) {
    if (width == Tile - 1) {
      depthwise_tile<K, Stride, Tile - 1, true>(d, taps, rows, first, out, lo, hi);
    } else {
      depthwise_tail<K, Stride, Tile - 1>(d, taps, rows, width, first, out, lo, hi);
    }
  }
}

// Widest tile first; the remainder in one narrower tile.
template <int K, int Stride>
void depthwise(const DepthwiseRows& d) {
  // Wide where vectors are short: bias, addresses and the loop take a smaller part.
  constexpr int kTile = kRegisters >= 32 ? (kLanes == 4 ? 14 : 7) : 8;
  constexpr int kColumns = (kTile - 1) * Stride + K, kStep = kTile * Stride;
  const float infinity = __builtin_inff();
  const vf lo = broadcast(d.hard_swish ? -infinity : d.lo), hi = broadcast(d.hard_swish ? infinity : d.hi);
  const DepthwiseTaps<K> taps(d.w);
  // Tiles [inner, inner_end) see no column outside.
  const int tiles = d.out_w / kTile, room = d.in_w + d.pad_left - kColumns;
  const int inner = d.pad_left > 0, fitting = room < 0 ? 0 : room / kStep + 1;
  const int inner_end = fitting < tiles ? fitting : tiles;
  for (int y = 0; y < d.out_rows; ++y) {
    const float* rows[K];
#pragma GCC unroll 7
    for (int r = 0; r < K; ++r) rows[r] = d.rows[static_cast<std::ptrdiff_t>(y) * d.row_step + r];
    float* out = d.out + y * d.out_step;
    int first = -d.pad_left;
    const auto advance = [&] {
      first += kStep;
      out += kTile * kLanes;
    };
    for (int t = 0; t < tiles; ++t, advance()) {
      if (t == inner && t < inner_end) {
        for (int n = inner_end - t; n > 0; --n, advance()) {
          depthwise_tile<K, Stride, kTile, false>(d, taps, rows, first, out, lo, hi);
        }
        t = inner_end;
        if (t == tiles) break;
      }
      depthwise_tile<K, Stride, kTile, true>(d, taps, rows, first, out, lo, hi);
    }
    depthwise_tail<K, Stride, kTile>(d, taps, rows, d.out_w - tiles * kTile, first, out, lo, hi);
    if (d.hard_swish) {  // on the finished row: its constants would take registers from the tiles
      float* const row = d.out + y * d.out_step;
      for (int x = 0; x < d.out_w * kLanes; x += kLanes) store(row + x, hard_swish(load(row + x)));
    }
  }
}

template <auto Value>
struct Constant {
  static constexpr auto value = Value;
};

// Any window: the sums of Tile output columns from x on, each tap's weights loaded once for all; channels from c on. w: bias,
// then taps. step(r): floats from one column of row r to the next. Edge: columns may lie outside, read as zeros.
template <int Tile, bool Edge, class Rows, class Step, class Load>
SEPCONV_INLINE void depthwise_any_window(const Rows& d, const float* const* rows, Step step, std::ptrdiff_t c, int x,
                                         const float* w, vf (&acc)[Tile], Load load_input) {
  const vf bias = load(w);
#pragma GCC unroll 8
  for (int i = 0; i < Tile; ++i) acc[i] = bias;
  const int first = x * d.stride_w - d.pad_left, kh = d.kh, kw = d.kw, dilation = d.dilation_w;
  for (int r = 0; r < kh; ++r) {
    const std::ptrdiff_t next_column = step(r), next_output = d.stride_w * next_column, next_tap = dilation * next_column;
    const float* p = rows[r] + first * next_column + c;
    for (int s = 0; s < kw; ++s, p += next_tap) {
      w += kLanes;
      const vf tap = load(w);
      const float* from = p;
#pragma GCC unroll 8
      for (int i = 0; i < Tile; ++i, from += next_output) {
        const int column = first + i * d.stride_w + s * dilation;
        const bool outside = Edge && (column < 0 || column >= d.in_w);
        acc[i] = fmadd(load_input(outside ? d.zeros : from), tap, acc[i]);
      }
    }
  }
}

// Fewer than 2·Tile columns, from x on.
template <int Tile, class Rows, class Compute>
SEPCONV_INLINE void depthwise_any_tail(const Rows& d, int x, Compute compute) {
  if constexpr (Tile > 0) {
    if (x + Tile <= d.out_w) {
      compute(Constant<Tile>(), Constant<true>(), x);
      x += Tile;
    }
    depthwise_any_tail<Tile / 2>(d, x, compute);
  }
}

// A row in tiles of eight columns; what is left in tiles of 4, 2 and 1. compute(Constant<columns>, Constant<edge>, x).
template <class Rows, class Compute>
SEPCONV_INLINE void depthwise_any_tiles(const Rows& d, Compute compute) {
  constexpr int kTile = 8;
  int x = 0;
  for (; x + kTile <= d.out_w; x += kTile) {
    const int first = x * d.stride_w - d.pad_left, last = first + (kTile - 1) * d.stride_w + (d.kw - 1) * d.dilation_w;
    if (first >= 0 && last < d.in_w) {
      compute(Constant<kTile>(), Constant<false>(), x);
    } else {
      compute(Constant<kTile>(), Constant<true>(), x);
    }
  }
  depthwise_any_tail<kTile / 2>(d, x, compute);
}

SEPCONV_INLINE void depthwise_any(const DepthwiseRows& d) {
  const vf lo = broadcast(d.lo), hi = broadcast(d.hi);
  for (int y = 0; y < d.out_rows; ++y) {
    const float* const* const rows = d.rows + static_cast<std::ptrdiff_t>(y) * d.row_step;
    float* const out = d.out + y * d.out_step;
    depthwise_any_tiles(d, [&](auto tile, auto edge, int x) __attribute__((always_inline)) {
      constexpr int kTile = tile.value;
      vf acc[kTile];
      depthwise_any_window<kTile, edge.value>(d, rows, [](int) { return std::ptrdiff_t{kLanes}; }, 0, x, d.w, acc,
                                              [](const float* p) { return load(p); });
      float* const to = out + static_cast<std::ptrdiff_t>(x) * kLanes;
#pragma GCC unroll 8
      for (int i = 0; i < kTile; ++i) store(to + i * kLanes, d.hard_swish ? hard_swish(acc[i]) : clamp(acc[i], lo, hi));
    });
  }
}

}  // namespace sepconv::SEPCONV_ISA
