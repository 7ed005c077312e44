// One pixel's fully connected layer: 1 × (Panels·2·V) outputs of clamp(bias + a·B), several panels side by side.
//
// Registers: acc[Panels][2], as many chains as hide the latency of a multiply-add, and one broadcast of a.
// Loop order: segments of k, then k, then panels, then vectors. Weights are read once, mostly from L3: as several streams,
// each fetched ahead, they come faster than as one.
// Each output is one chain of multiply-adds in order of k, as in gemm.h: the same bits.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int Panels>
SEPCONV_INLINE void gemv_panels(const GemvTask& t) {
  constexpr int kAhead = 2048 / sizeof(float);  // of a stream; the first lines of a page are not fetched by hardware
  const float* b[Panels];
  vf acc[Panels][2];
#pragma GCC unroll 4
  for (int p = 0; p < Panels; ++p) {
    b[p] = t.b + p * t.b_panel;
    acc[p][0] = load(b[p]);
    acc[p][1] = load(b[p] + kLanes);
    b[p] += 2 * kLanes;
  }
  for (const Segment* s = t.segments; s != t.segments + t.segment_count; ++s) {
    const float* const a = t.a + s->offset;
    for (int k = 0; k < s->count; ++k) {
      const vf x = broadcast(a[k]);
#pragma GCC unroll 4
      for (int p = 0; p < Panels; ++p) {
        for (int line = 0; line < 2 * kLanes; line += 16) __builtin_prefetch(b[p] + kAhead + line, 0, 2);
        acc[p][0] = fmadd(x, load(b[p]), acc[p][0]);
        acc[p][1] = fmadd(x, load(b[p] + kLanes), acc[p][1]);
        b[p] += 2 * kLanes;
      }
    }
  }
  const vf lo = broadcast(t.lo), hi = broadcast(t.hi);
#pragma GCC unroll 4
  for (int p = 0; p < Panels; ++p) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const vf v = t.hard_swish ? hard_swish(acc[p][j]) : clamp(acc[p][j], lo, hi);
      store(t.c + (2 * p + j) * t.c_plane, v);
    }
  }
}

SEPCONV_INLINE void gemv(const GemvTask& t) {
  switch (t.panels) {
    case 1: return gemv_panels<1>(t);
    case 2: return gemv_panels<2>(t);
    case 3: return gemv_panels<3>(t);
    default: return gemv_panels<4>(t);
  }
}

}  // namespace sepconv::SEPCONV_ISA
