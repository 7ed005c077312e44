// A matrix transposed, V×V at a time in registers; at its edges, partial vectors.
//
// Registers: V rows of V (all 16 of AVX2's file, so some pass through the stack; half of AVX-512's). Loop order: blocks of
// columns outermost, so that each output row is written front to back.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

SEPCONV_INLINE void transpose_matrix(const float* in, std::ptrdiff_t in_step, float* out, std::ptrdiff_t out_step,
                                     std::int64_t rows, std::int64_t columns) {
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
