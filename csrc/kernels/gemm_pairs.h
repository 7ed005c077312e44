// GEMM tiles for as few output channels as half a vector has: two pixels share one, channel c of the first in lane 2c, of the
// second in lane 2c + 1, so that no lane idles. Rows are pairs of pixels; their floats lie side by side (interleave_f32).
//
// For ISAs whose loads broadcast a pair as they do one float; NEON would need an instruction more for each multiply-add.
// Registers: acc[Rows] (16 of AVX-512's 32, 12 of AVX2's 16), the weights of a k, each twice, and a row's pair.
// Loop order: tiles, segments of k, k, rows. Each output is one chain of multiply-adds in order of k, as in gemm.h: the same
// bits.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

inline constexpr int kPairRows = kRegisters >= 32 ? 16 : 12;
static_assert(kPairRows <= kMaxPairRows);

// out[2i] = a[i], out[2i + 1] = b[i], for i < n.
SEPCONV_INLINE void interleave_rows(const float* a, const float* b, float* out, std::int64_t n) {
  for (; n >= kLanes; n -= kLanes, a += kLanes, b += kLanes, out += 2 * kLanes) {
    vf low = load(a), high = load(b);
    interleave(low, high);
    store(out, low);
    store(out + kLanes, high);
  }
  for (; n > 0; --n, out += 2) {
    out[0] = *a++;
    out[1] = *b++;
  }
}

// act(acc) of each row to its two pixels. The lanes past half a vector get what those before have.
template <int Rows, class Act>
SEPCONV_INLINE void store_pairs(const GemmTile& t, float* c, const vf (&acc)[Rows], Act act) {
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i, c += kLanes) {
    const vf v = act(acc[i]);
    store(c, evens(v));
    store(c + t.c_plane, odds(v));
  }
}

template <int Rows>
SEPCONV_INLINE void pairs_tile(const GemmTile& t, const float* a, std::ptrdiff_t to, const char*& ahead) {
  vf acc[Rows];
  const float* b = t.b;
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i) acc[i] = load(b);
  b += kLanes;
  for (const Segment* s = t.segments; s != t.segments + t.segment_count; ++s) {
    const float* x = a + s->offset;
    for (int k = 0; k < s->count; ++k, x += 2, b += kLanes, ahead += t.prefetch_step) {
      const vf w = load(b);
      __builtin_prefetch(ahead);
#pragma GCC unroll 16
      for (int i = 0; i < Rows; ++i) acc[i] = fmadd(broadcast_pair(x + i * 2 * kImageStep), w, acc[i]);
    }
  }
  if (t.residual) {
    const float* from = t.residual + to;
#pragma GCC unroll 16
    for (int i = 0; i < Rows; ++i, from += kLanes) {
      vf first = load(from), second = load(from + t.residual_plane);
      interleave(first, second);
      acc[i] = add(acc[i], first);
    }
  }
  float* const c = t.c + to;
  if (t.hard_swish) return store_pairs(t, c, acc, [](vf v) { return hard_swish(v); });
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
  store_pairs(t, c, acc, [=](vf v) { return clamp(v, lo, hi); });
}

template <int Rows>
void gemm_pairs(const GemmTile& t) {
  const char* ahead = static_cast<const char*>(t.prefetch);
  for (std::ptrdiff_t i = 0; i < t.tiles; ++i) pairs_tile<Rows>(t, t.a + i * Rows * 2 * kImageStep, i * Rows * kLanes, ahead);
}

template <int Rows>
SEPCONV_INLINE constexpr void fill_gemm_pairs(GemmKernel (&row)[kMaxPairRows]) {
  row[Rows - 1] = gemm_pairs<Rows>;
  if constexpr (Rows > 1) fill_gemm_pairs<Rows - 1>(row);
}

SEPCONV_INLINE constexpr KernelTable with_pairs(KernelTable t) {
  t.pair_rows = kPairRows;
  fill_gemm_pairs<kPairRows>(t.gemm_pairs_f32);
  t.interleave_f32 = [](const float* a, const float* b, float* out, std::int64_t n) { interleave_rows(a, b, out, n); };
  return t;
}

}  // namespace sepconv::SEPCONV_ISA
