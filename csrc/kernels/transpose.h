// A matrix transposed, V×V at a time in registers; at its edges, partial vectors. Few rows, as an image's colours, would leave
// most of each block empty: their lanes are dealt out to as many whole vectors, and collected from these on the way back.
//
// Registers: V rows of V (all 16 of AVX2's file, so some pass through the stack; half of AVX-512's). Of few rows: a vector each,
// the lanes that each vector takes of each row, a result. Loop order: blocks of columns outermost, so that each output row is
// written front to back.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Which lane of vector j every lane of vector i of the result takes; -1 for none. Dealt: of[i][row], collected: of[row][j].
template <int Rows, bool Dealt>
struct FewLanes {
  std::int32_t of[Rows][Rows][kLanes] = {};

  constexpr FewLanes() {
    for (int i = 0; i < Rows * Rows * kLanes; ++i) of[i / kLanes / Rows][i / kLanes % Rows][i % kLanes] = -1;
    for (int i = 0; i < Rows * kLanes; ++i) {  // where column x of a row lies among those that lie together
      const int row = i % Rows, x = i / Rows, vector = i / kLanes, lane = i % kLanes;
      if constexpr (Dealt) of[vector][row][lane] = x;
      else of[row][vector][x] = lane;
    }
  }
};

// Vector i of the result.
template <int Rows>
SEPCONV_INLINE vf merge_few(const vf (&in)[Rows], const std::int32_t (&lanes)[Rows][kLanes]) {
  vf v = in[0];
#pragma GCC unroll 4
  for (int j = 0; j < Rows; ++j) v = merge_lanes(v, in[j], load_lanes(lanes[j]));
  return v;
}

// out[x*Rows + y] = in[y*in_step + x].
template <int Rows>
SEPCONV_INLINE void deal_rows(const float* in, std::ptrdiff_t in_step, float* out, std::int64_t columns) {
  static constexpr FewLanes<Rows, true> kFrom;
  std::int64_t x = 0;
  for (; columns - x >= kLanes; x += kLanes, out += Rows * kLanes) {
    vf rows[Rows];
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) rows[r] = load(in + r * in_step + x);
#pragma GCC unroll 4
    for (int j = 0; j < Rows; ++j) store(out + j * kLanes, merge_few(rows, kFrom.of[j]));
  }
  for (; x < columns; ++x) {
    for (int r = 0; r < Rows; ++r) *out++ = in[r * in_step + x];
  }
}

// out[y*out_step + x] = in[x*Rows + y].
template <int Rows>
SEPCONV_INLINE void collect_rows(const float* in, float* out, std::ptrdiff_t out_step, std::int64_t columns) {
  static constexpr FewLanes<Rows, false> kFrom;
  std::int64_t x = 0;
  for (; columns - x >= kLanes; x += kLanes, in += Rows * kLanes) {
    vf together[Rows];
#pragma GCC unroll 4
    for (int j = 0; j < Rows; ++j) together[j] = load(in + j * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < Rows; ++r) store(out + r * out_step + x, merge_few(together, kFrom.of[r]));
  }
  for (; x < columns; ++x) {
    for (int r = 0; r < Rows; ++r) out[r * out_step + x] = *in++;
  }
}

SEPCONV_INLINE void transpose_matrix(const float* in, std::ptrdiff_t in_step, float* out, std::ptrdiff_t out_step,
                                     std::int64_t rows, std::int64_t columns) {
  if (out_step == rows && rows == 2) return deal_rows<2>(in, in_step, out, columns);
  if (out_step == rows && rows == 3) return deal_rows<3>(in, in_step, out, columns);
  if (out_step == rows && rows == 4) return deal_rows<4>(in, in_step, out, columns);
  if (in_step == columns && columns == 2) return collect_rows<2>(in, out, out_step, rows);
  if (in_step == columns && columns == 3) return collect_rows<3>(in, out, out_step, rows);
  if (in_step == columns && columns == 4) return collect_rows<4>(in, out, out_step, rows);
  for (std::int64_t x = 0; x < columns; x += kLanes) {
    const int wide = columns - x < kLanes ? static_cast<int>(columns - x) : 0;
    for (std::int64_t y = 0; y < rows; y += kLanes) {
      const int high = rows - y < kLanes ? static_cast<int>(rows - y) : 0;
      const float* const from = in + y * in_step + x;
      float* const to = out + x * out_step + y;
      vf v[kLanes];
      if (!wide && !high) {
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) v[i] = load(from + i * in_step);
        transpose(v);
#pragma GCC unroll 16
        for (int i = 0; i < kLanes; ++i) store(to + i * out_step, v[i]);
        continue;
      }
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        v[i] = high && i >= high ? broadcast(0.0f) : wide ? load_some(from + i * in_step, wide) : load(from + i * in_step);
      }
      transpose(v);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if (wide && i >= wide) continue;
        if (high) {
          store_some(to + i * out_step, v[i], high);
        } else {
          store(to + i * out_step, v[i]);
        }
      }
    }
  }
}

}  // namespace sepconv::SEPCONV_ISA
