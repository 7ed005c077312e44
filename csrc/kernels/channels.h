// Channels of several planes put together: concatenations, slices and shuffles that do not fall on whole blocks.
//
// Registers: the vector under way; of up to four sources their lanes' numbers, hoisted by the compiler. Loop order:
// sources by fours, then vectors, then sources: each lends the lanes that it has, the others keep theirs.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int Sources>
SEPCONV_INLINE void merge_channels(const ChannelVectors& c, int first) {
  const float* planes[Sources];
  vi lanes[Sources];
#pragma GCC unroll 4
  for (int s = 0; s < Sources; ++s) {
    planes[s] = c.planes[first + s];
    lanes[s] = load_lanes(c.lanes + static_cast<std::ptrdiff_t>(first + s) * kLanes);
  }
  for (std::int64_t i = 0; i < c.n; ++i) {
    float* const out = c.out + i * kLanes;
    vf v = first == 0 ? broadcast(0.0f) : load(out);
#pragma GCC unroll 4
    for (int s = 0; s < Sources; ++s) v = merge_lanes(v, load(planes[s] + i * kLanes), lanes[s]);
    store(out, v);
  }
}

SEPCONV_INLINE void channels(const ChannelVectors& c) {
  int first = 0;
  for (; first + 4 <= c.source_count; first += 4) merge_channels<4>(c, first);
  switch (c.source_count - first) {
    case 1: merge_channels<1>(c, first); break;
    case 2: merge_channels<2>(c, first); break;
    case 3: merge_channels<3>(c, first); break;
    default: break;
  }
}

}  // namespace sepconv::SEPCONV_ISA
