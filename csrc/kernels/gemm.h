// GEMM tile: Rows × Vectors·V outputs of clamp(bias + A·B + residual), one pass over k.
//
// Registers: acc[Rows][Vectors] (14×2 or 28×1 of AVX-512's 32, 6×2 or 12×1 of AVX2's 16), Vectors weights, one broadcast
// of A.
// Loop order: segments of k, then k, then rows, then vectors. A k step reads Vectors·V packed weights, which stream, and
// one float a row: the rows of a plane lie V floats apart, so V steps use up one cache line a row. Two k steps go together:
// the hardware's prefetch then runs two ahead on the weights, and does not lag where they come from L2 (6 % of all time).
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
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) acc[i][j] = bias;
  }

  const Segment* const end = t.segments + t.segment_count;
  for (const Segment* s = t.segments; s != end; ++s) {
    const float* a = t.a + s->offset;
    // A base pointer for every seven rows: fewer multiples of a run-time step must stay in registers.
    const float* base[(Rows + 6) / 7];
#pragma GCC unroll 4
    for (int i = 0; i < (Rows + 6) / 7; ++i) base[i] = a + 7 * i * step;
    const auto multiply_add = [&](int k) __attribute__((always_inline)) {
      vf w[Vectors];
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) w[j] = load(b + (k * Vectors + j) * kLanes);
      __builtin_prefetch(ahead, 0, 2);
      ahead += t.prefetch_step;
#pragma GCC unroll 28
      for (int i = 0; i < Rows; ++i) {
        const vf x = broadcast(Strided ? base[i / 7][i % 7 * step + k] : base[0][i * step + k]);
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd(x, w[j], acc[i][j]);
      }
    };
    const auto advance = [&](int k) __attribute__((always_inline)) {
      b += k * Vectors * kLanes;
#pragma GCC unroll 4
      for (const float*& pointer : base) pointer += k;
    };
    int k = s->count;
    for (; k >= 2; k -= 2, advance(2)) {
      multiply_add(0);
      multiply_add(1);
    }
    if (k > 0) {
      multiply_add(0);
      advance(1);
    }
  }

  if (t.residual) {
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) acc[i][j] = add(acc[i][j], load(t.residual + j * t.residual_plane + i * kLanes));
    }
  }
  if (t.hard_swish) {
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) store(t.c + j * t.c_plane + i * kLanes, hard_swish(acc[i][j]));
    }
    return;
  }
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) store(t.c + j * t.c_plane + i * kLanes, min(hi, max(lo, acc[i][j])));
  }
}

}  // namespace sepconv::SEPCONV_ISA
