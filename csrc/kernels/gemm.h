// GEMM tiles: Rows × Vectors·V outputs each of clamp(bias + A·B + residual), one pass over k.
//
// Registers: acc[Rows][Vectors] (14×2 or 28×1 of AVX-512's 32, 6×2 or 12×1 of AVX2's 16, 11×2 or 22×1 of NEON's 32), the
// weights of a step, kLoads rows' scalars of A.
// Loop order: tiles, then segments of k, then steps of kScalars k, then kLoads rows, then k, rows, vectors. Each k reads Vectors·V packed
// weights, which stream, and one float a row: the rows of a plane lie V floats apart, so V k use up one cache line a row. At
// least two k go together: the hardware's prefetch then runs two ahead on the weights, and does not lag where they come from
// L2 (6 % of all time). A plane of few lanes is one straight piece: its eight k end before a loop has paid (4 % with AVX2).
// Each output is one chain of multiply-adds in order of k, whatever the tile: the same bits for every tiling.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Some rows' part of a step: their scalars from the I-th on, each times the weights of that k.
template <int Rows, int Vectors, int I = 0>
SEPCONV_INLINE void multiply_rows(const scalars (&x)[Rows], const vf (&w)[kScalars][Vectors], vf (*acc)[Vectors]) {
#pragma GCC unroll 2
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd_scalar<I>(x[i], w[I][j], acc[i][j]);
  }
  if constexpr (I + 1 < kScalars) multiply_rows<Rows, Vectors, I + 1>(x, w, acc);
}

// The tile from row `first` on. Returns where to prefetch next. Never inlined: what is the same for all tiles would take
// registers that the accumulators need.
// Step: floats from one row of A to the next, 0 for a tile's own a_step. A step that is known leaves all registers for
// addresses to the loop.
template <int Rows, int Vectors, int Step>
[[gnu::noinline]] const char* gemm_tile(const GemmTile& t, std::ptrdiff_t first, const char* ahead) {
  constexpr bool kStrided = Step == 0;
  constexpr int kBases = kStrided ? (Rows + 6) / 7 : 1;
  const std::ptrdiff_t step = kStrided ? t.a_step : Step;
  const float* const first_row = t.a + first * step;
  const float* b = t.b;
  const std::ptrdiff_t ahead_step = kScalars * t.prefetch_step;
  vf acc[Rows][Vectors];
#pragma GCC unroll 2
  for (int j = 0; j < Vectors; ++j) {
    const vf bias = load(b);
    b += kLanes;
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) acc[i][j] = bias;
  }

  // One step: the kScalars k from the k-th on.
  const auto multiply = [&](const float* const (&base)[kBases], int k) __attribute__((always_inline)) {
    vf w[kScalars][Vectors];
#pragma GCC unroll 4
    for (int i = 0; i < kScalars; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) w[i][j] = load(b + ((k + i) * Vectors + j) * kLanes);
    }
    __builtin_prefetch(ahead, 0, 2);
    ahead += ahead_step;
    const auto row = [&](int i) __attribute__((always_inline)) {
      return load_scalars(kStrided ? base[i / 7] + i % 7 * step + k : base[0] + i * step + k);
    };
    constexpr int kFirst = Rows % kLoads;
    if constexpr (kFirst != 0) multiply_rows<1>({row(0)}, w, acc);
#pragma GCC unroll 28
    for (int i = kFirst; i < Rows; i += kLoads) {
      scalars x[kLoads];
#pragma GCC unroll 2
      for (int r = 0; r < kLoads; ++r) x[r] = row(i + r);
      multiply_rows<kLoads>(x, w, acc + i);
    }
  };
  constexpr int kTogether = kScalars > 1 ? kScalars : 2;
  const Segment* const end = t.segments + t.segment_count;
  for (const Segment* s = t.segments; s != end; ++s) {
    const float* a = first_row + s->offset;
    // A base pointer for every seven rows: fewer multiples of a run-time step must stay in registers.
    const float* base[kBases];
#pragma GCC unroll 4
    for (int i = 0; i < kBases; ++i) base[i] = a + 7 * i * step;
    const auto advance = [&](int k) __attribute__((always_inline)) {
      b += k * Vectors * kLanes;
#pragma GCC unroll 4
      for (const float*& pointer : base) pointer += k;
    };
    int k = s->count;
    if constexpr (Step == kLanes && (kScalars == kLanes || kLanes == 8)) {
      if (k == kLanes) [[likely]] {  // a whole plane at once
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; i += kScalars) multiply(base, i);
        advance(kLanes);
        continue;
      }
    }
    for (; k >= kTogether; k -= kTogether, advance(kTogether)) {
#pragma GCC unroll 2
      for (int i = 0; i < kTogether; i += kScalars) multiply(base, i);
    }
    for (; k > 0; --k, advance(1)) {
      if constexpr (kScalars == 1) {
        multiply(base, 0);
      } else {  // k that fill no step
        vf w[Vectors];
#pragma GCC unroll 2
        for (int j = 0; j < Vectors; ++j) w[j] = load(b + j * kLanes);
#pragma GCC unroll 28
        for (int i = 0; i < Rows; ++i) {
          const vf x = broadcast(kStrided ? base[i / 7][i % 7 * step] : base[0][i * step]);
#pragma GCC unroll 2
          for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd(x, w[j], acc[i][j]);
        }
      }
    }
  }

  if (t.residual) {
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) {
      const float* const from = t.residual + (first + i) * (kStrided ? t.residual_step.floats : kLanes);
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) {
        const float* const p = from + j * t.residual_plane;
        acc[i][j] = add(acc[i][j], kStrided && j + 1 == Vectors && t.last_lanes ? load_some(p, t.last_lanes) : load(p));
      }
    }
  }
  const auto put = [&](float* p, vf result, int j) __attribute__((always_inline)) {
    if (kStrided && j + 1 == Vectors && t.last_lanes) {
      store_some(p, result, t.last_lanes);
    } else {
      store(p, result);
    }
  };
  const std::ptrdiff_t c_step = kStrided ? t.c_step.floats : kLanes;
  float* const c = t.c + first * c_step;
  if (t.hard_swish) {
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Vectors; ++j) put(c + j * t.c_plane + i * c_step, hard_swish(acc[i][j]), j);
    }
    return ahead;
  }
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < Vectors; ++j) put(c + j * t.c_plane + i * c_step, clamp(acc[i][j], lo, hi), j);
  }
  return ahead;
}

template <int Rows, int Vectors, int Step>
void gemm(const GemmTile& t) {
  const char* ahead = static_cast<const char*>(t.prefetch);
  for (int tile = 0; tile < t.tiles; ++tile) ahead = gemm_tile<Rows, Vectors, Step>(t, tile * Rows, ahead);
}

}  // namespace sepconv::SEPCONV_ISA
