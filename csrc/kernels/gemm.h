// GEMM tile: Rows × Vectors·V outputs of clamp(bias + A·B + residual), one pass over k.
//
// Registers: acc[Rows][Vectors] (14×2 of AVX-512's 32, 6×2 of AVX2's 16), Vectors weights, one broadcast of A.
// Loop order: segments of k, then k, then rows, then vectors. A k step reads Vectors·V packed weights, which stream, and
// one float a row: the rows of a plane lie V floats apart, so V steps use up one cache line a row.
// Each output is one chain of multiply-adds in order of k, whatever the tile: the same bits for every tiling.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int Rows, int Vectors, bool Strided>
void gemm(const GemmTile& t) {
  const std::ptrdiff_t step = Strided ? t.a_step : kLanes;
  const float* b = t.b;
  const char* ahead = static_cast<const char*>(t.prefetch);
  vf acc[Rows][Vectors];
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; ++j) {
    const vf bias = load(b);
    b += kLanes;
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) acc[i][j] = bias;
  }

  const Segment* const end = t.segments + t.segment_count;
  for (const Segment* s = t.segments; s != end; ++s) {
    const float* a = t.a + s->offset;
    // A second base pointer halves the multiples of a run-time step that must stay in registers.
    const float* a_high = a + 7 * step;
    for (int k = s->count; k > 0; --k) {
      vf w[Vectors];
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) w[j] = load(b + j * kLanes);
      b += Vectors * kLanes;
      __builtin_prefetch(ahead, 0, 2);
      ahead += t.prefetch_step;
#pragma GCC unroll 14
      for (int i = 0; i < Rows; ++i) {
        const vf x = broadcast(Strided && i >= 7 ? a_high[(i - 7) * step] : a[i * step]);
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd(x, w[j], acc[i][j]);
      }
      ++a;
      ++a_high;
    }
  }

  if (t.residual) {
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) acc[i][j] = add(acc[i][j], load(t.residual + j * t.residual_plane + i * kLanes));
    }
  }
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) store(t.c + j * t.c_plane + i * kLanes, min(hi, max(lo, acc[i][j])));
  }
}

}  // namespace sepconv::SEPCONV_ISA
