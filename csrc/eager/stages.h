// The kinds of stages, each a file of its own.
#pragma once

#include <algorithm>
#include <numeric>

#include "eager/stage.h"

namespace sepconv {

std::unique_ptr<Stage> make_depthwise_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                            const KernelTable&);
std::unique_ptr<Stage> make_pointwise_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                            const KernelTable&);
std::unique_ptr<Stage> make_dense_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                        const KernelTable&);

// Rows of output that a fast depthwise kernel takes at a time of pixels so far apart. Two, where vectors are whole cache lines,
// which are then needed but once. Of less, unless a tile's pixels would drive each other out of L1, which keeps eight lines or
// some more that are a multiple of 4 KB apart: one where its pixels do not, and it reads whole lines; 0 where a copy with other
// distances is better (28×28×512 takes half the time on Zen 3).
inline int depthwise_rows(const Window& w, std::ptrdiff_t pixel, const KernelTable& table) {
  constexpr std::int64_t kSpan = 4096;
  constexpr int kLines = 10, kWholeLines = 14;  // measured: up to so many cost less than copying
  constexpr int kColumns = 4;                   // of a tile, or more
  const std::int64_t places = kSpan / std::gcd(kSpan, pixel * std::int64_t{sizeof(float)});
  const auto fit = [&](int rows, int lines) {
    return (std::int64_t{rows - 1} * w.stride_h + w.kh) * (std::int64_t{kColumns - 1} * w.stride_w + w.kw) <= lines * places;
  };
  if (table.vector == 16 || fit(2, kLines)) return 2;
  return w.stride_w == 2 && table.vector == 8 && fit(1, kWholeLines) ? 1 : 0;
}

}  // namespace sepconv
