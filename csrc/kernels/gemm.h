// GEMM tiles: Rows × Vectors·V outputs each of clamp(bias + A·B + residual), one pass over k.
//
// Registers: acc[Rows][Vectors] (14×2 or 28×1 of AVX-512's 32, 6×2, 3×3 or 12×1 of AVX2's 16, 11×2 or 20×1 of NEON's 32),
// the weights of a step, kLoads rows' scalars of A.
// Loop order: tiles, then segments of k, then steps of kScalars k, then kLoads rows, then k, rows, vectors. NEON's narrow
// tile goes two loads a row at a time: else it had a load for every four multiply-adds. Each k reads Vectors·V packed
// weights, which stream, and one float a row: the rows of a plane lie V floats apart, so V k use up one cache line a row. At
// least two k go together: the hardware's prefetch then runs two ahead on the weights, and does not lag where they come from
// L2 (6 % of all time). A plane of few lanes is one straight piece: its eight k end before a loop has paid (4 % with AVX2).
// Each output is one chain of multiply-adds in order of k, whatever the tile: the same bits for every tiling.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// Some rows' part of a step: their scalars from the I-th on, each times the weights of that k.
template <int Rows, int Vectors, int Loads, int I = 0>
SEPCONV_INLINE void multiply_rows(const scalars (&x)[Rows][Loads], const vf (&w)[Loads * kScalars][Vectors],
                                  vf (*acc)[Vectors]) {
#pragma GCC unroll 2
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd_scalar<I % kScalars>(x[i][I / kScalars], w[I][j], acc[i][j]);
  }
  if constexpr (I + 1 < Loads * kScalars) multiply_rows<Rows, Vectors, Loads, I + 1>(x, w, acc);
}

// One step: Loads·kScalars k, whose weights begin at b, and a line of what comes next. load_rows(i, x) brings the scalars of
// the rows from the i-th on.
template <int Loads, int Rows, int Vectors, class LoadRows>
SEPCONV_INLINE void multiply_step(const float* b, const char* ahead, vf (&acc)[Rows][Vectors], LoadRows load_rows) {
  vf w[Loads * kScalars][Vectors];
#pragma GCC unroll 8
  for (int i = 0; i < Loads * kScalars; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < Vectors; ++j) w[i][j] = load(b + (i * Vectors + j) * kLanes);
  }
  __builtin_prefetch(ahead, 0, 2);
  constexpr int kFirst = Rows % kLoads;
  if constexpr (kFirst != 0) {
    scalars x[1][Loads];
    load_rows(0, x);
    multiply_rows(x, w, acc);
  }
#pragma GCC unroll 28
  for (int i = kFirst; i < Rows; i += kLoads) {
    scalars x[kLoads][Loads];
    load_rows(i, x);
    multiply_rows(x, w, acc + i);
  }
}

// What earlier k came to.
template <bool Strided, int Rows, int Vectors>
SEPCONV_INLINE void load_sums(const GemmTile& t, std::ptrdiff_t first, vf (&acc)[Rows][Vectors]) {
  const std::ptrdiff_t c_step = Strided ? t.c_step.floats : kLanes;
  const float* c = t.c + first * c_step;
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i, c += c_step) {
#pragma GCC unroll 3
    for (int j = 0; j < Vectors; ++j) {
      const float* const from = c + j * t.c_plane;
      acc[i][j] = Strided && j + 1 == Vectors && t.last_lanes ? load_some(from, t.last_lanes) : load(from);
    }
  }
}

// A tile's sums, from row `first` on, to C: the residual added, clamped. load_part(p, j) and store_part(p, x, j): vector j of a
// row.
template <bool Strided, int Rows, int Vectors, class LoadPart, class StorePart>
SEPCONV_INLINE void finish_tile(const GemmTile& t, std::ptrdiff_t first, vf (&acc)[Rows][Vectors], LoadPart load_part,
                                StorePart store_part) {
  if (t.residual) {
    const std::ptrdiff_t residual_step = Strided ? t.residual_step.floats : kLanes, plane = t.residual_plane;
    const float* from = t.residual + first * residual_step;
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i, from += residual_step) {
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) acc[i][j] = add(acc[i][j], load_part(from + j * plane, j));
    }
  }
  // c_plane is read anew for each row: so stores stay among the clamps, beside which they cost nothing.
  const std::ptrdiff_t c_step = Strided ? t.c_step.floats : kLanes;
  float* c = t.c + first * c_step;
  if (t.hard_swish) {
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i, c += c_step) {
#pragma GCC unroll 3
      for (int j = 0; j < Vectors; ++j) store_part(c + j * t.c_plane, hard_swish(acc[i][j]), j);
    }
    return;
  }
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i, c += c_step) {
#pragma GCC unroll 3
    for (int j = 0; j < Vectors; ++j) store_part(c + j * t.c_plane, clamp(acc[i][j], lo, hi), j);
  }
}

// The tile from row `first` on. Returns where to prefetch next. Never inlined: what is the same for all tiles would take
// registers that the accumulators need.
// Step: floats from one row of A to the next, 0 for a tile's own a_step. A step that is known leaves all registers for
// addresses to the loop.
template <int Rows, int Vectors, int Step>
[[gnu::noinline]] const char* gemm_tile(const GemmTile& t, std::ptrdiff_t first, const char* ahead) {
  constexpr bool kStrided = Step == 0;
  constexpr bool kTwice = kScalars > 1 && Vectors == 1;  // two loads a row in a step
  constexpr bool kWalking = kTwice && Step != kLanes;  // each row has a pointer, which its loads move on
  // A base pointer for some rows of a run-time step: fewer multiples of it must stay in registers. With few registers for
  // sums, what an address can add: none, once or twice.
  constexpr bool kFewRegisters = kRegisters == 16;
  constexpr int kBaseRows = kWalking ? 1 : !kStrided ? Rows : kFewRegisters ? 3 : 7;
  constexpr int kBases = (Rows + kBaseRows - 1) / kBaseRows;
  const std::ptrdiff_t step = kStrided ? t.a_step : Step;
  const float* const first_row = t.a + first * step;
  const float* b = t.b;
  const std::ptrdiff_t ahead_step = kScalars * t.prefetch_step;
  vf acc[Rows][Vectors];
  if (t.sums) {
    load_sums<kStrided>(t, first, acc);
  } else {
#pragma GCC unroll 3
    for (int j = 0; j < Vectors; ++j) {
      const vf bias = load(b);
      b += kLanes;
#pragma GCC unroll 28
      for (int i = 0; i < Rows; ++i) acc[i][j] = bias;
    }
  }

  // A step of one load a row: the kScalars k from the k-th on.
  const auto multiply = [&](const float* const (&base)[kBases], int k) __attribute__((always_inline)) {
    multiply_step<1>(b + k * Vectors * kLanes, ahead, acc, [&](int i, auto& x) __attribute__((always_inline)) {
      for (auto& row : x) {
        row[0] = load_scalars(base[i / kBaseRows] + i % kBaseRows * step + k);
        ++i;
      }
    });
    ahead += ahead_step;
  };
  // A step of two.
  [[maybe_unused]] const auto multiply_twice = [&](auto load_rows) __attribute__((always_inline)) {
    multiply_step<2>(b, ahead, acc, load_rows);
    b += 2 * kScalars * kLanes;
    ahead += 2 * ahead_step;
  };
  constexpr int kTogether = kScalars > 1 ? kScalars : 2;
  const Segment* const end = t.segments + t.segment_count;
  for (const Segment* s = t.segments; s != end; ++s) {
    if constexpr (kTwice && Step == kLanes) {  // two whole planes
      for (; end - s > 1 && (s[0].count == kLanes) & (s[1].count == kLanes); s += 2) {
        const float* const planes[] = {anchor(first_row + s[0].offset), anchor(first_row + s[1].offset)};
        multiply_twice([&](int i, auto& x) __attribute__((always_inline)) {
#pragma GCC unroll 2
          for (int plane = 0; plane < 2; ++plane) {
            int row = i;
            for (auto& loads : x) loads[plane] = load_scalars(planes[plane] + row++ * step);
          }
        });
      }
      if (s == end) break;
    }
    const float* a = first_row + s->offset;
    const float* base[kBases];
#pragma GCC unroll 28
    for (int i = 0; i < kBases; ++i) base[i] = a + kBaseRows * i * step;
    const auto advance = [&](int k) __attribute__((always_inline)) {
      b += k * Vectors * kLanes;
#pragma GCC unroll 28
      for (const float*& pointer : base) pointer += k;
    };
    int k = s->count;
    if constexpr (kWalking) {
      for (; k >= 2 * kScalars; k -= 2 * kScalars) {
        multiply_twice([&](int i, auto& x) __attribute__((always_inline)) {
          for (auto& row : x) load_scalars_twice(base[i++], row);
        });
      }
    }
    if constexpr (Step == kLanes && (kScalars == kLanes || kLanes == 8)) {
      if (k == kLanes) [[likely]] {  // a whole plane at once
#pragma GCC unroll 8
        for (int i = 0; i < kLanes; i += kScalars) multiply(base, i);
        advance(kLanes);
        continue;
      }
    }
    if constexpr (kStrided && kFewRegisters) {
      // Pointers that move on each k, unseen: else each row would have two offsets in registers, one a k.
      for (; k >= 2; k -= 2) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          multiply(base, 0);
          advance(1);
#pragma GCC unroll 28
          for (const float*& pointer : base) pointer = anchor(pointer);
        }
      }
    } else {
      for (; k >= kTogether; k -= kTogether, advance(kTogether)) {
#pragma GCC unroll 2
        for (int i = 0; i < kTogether; i += kScalars) multiply(base, i);
      }
    }
    for (; k > 0; --k, advance(1)) {
      if constexpr (kScalars == 1) {
        multiply(base, 0);
      } else {  // k that fill no step
        vf w[Vectors];
#pragma GCC unroll 3
        for (int j = 0; j < Vectors; ++j) w[j] = load(b + j * kLanes);
#pragma GCC unroll 28
        for (int i = 0; i < Rows; ++i) {
          const vf x = broadcast(base[i / kBaseRows][i % kBaseRows * step]);
#pragma GCC unroll 3
          for (int j = 0; j < Vectors; ++j) acc[i][j] = fmadd(x, w[j], acc[i][j]);
        }
      }
    }
  }

  // With 32 registers one pass serves both: two would make NEON's narrow tile keep sums on the stack.
  if (!kStrided || (kFewRegisters && t.last_lanes == 0)) {
    finish_tile<kStrided>(t, first, acc, [](const float* p, int) { return load(p); },
                          [](float* p, vf result, int) { store(p, result); });
  } else {
    const auto partly = [&](int j) { return j + 1 == Vectors && t.last_lanes; };
    finish_tile<kStrided>(t, first, acc,
                          [&](const float* p, int j) { return partly(j) ? load_some(p, t.last_lanes) : load(p); },
                          [&](float* p, vf result, int j) {
                            if (partly(j)) {
                              store_some(p, result, t.last_lanes);
                            } else {
                              store(p, result);
                            }
                          });
  }
  return ahead;
}

template <int Rows, int Vectors, int Step>
void gemm(const GemmTile& t) {
  // What registers do not hold at once goes in two halves, which fetch the same.
  constexpr bool kWhole = (Rows + 1) * Vectors + 1 <= kRegisters;
  constexpr int kUpper = kWhole ? Rows : (Rows + 1) / 2;
  const char* ahead = static_cast<const char*>(t.prefetch);
  for (int tile = 0; tile < t.tiles; ++tile) {
    if constexpr (!kWhole) gemm_tile<Rows - kUpper, Vectors, Step>(t, tile * Rows + kUpper, ahead);
    ahead = gemm_tile<kUpper, Vectors, Step>(t, tile * Rows, ahead);
  }
}

}  // namespace sepconv::SEPCONV_ISA
