// The kinds of stages, each a file of its own.
#pragma once

#include <algorithm>

#include "eager/stage.h"

namespace sepconv {

std::unique_ptr<Stage> make_depthwise_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                            const KernelTable&);
std::unique_ptr<Stage> make_pointwise_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                            const KernelTable&);
std::unique_ptr<Stage> make_dense_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation,
                                        const KernelTable&);

// The highest tile for rows of A that lie so far apart: those that share the sets of L1 with each other must stay in it.
inline int tile_rows(int highest, std::ptrdiff_t pixel) {
  constexpr int kAliased = 10;  // measured: of 14 rows a multiple of 4 KB apart each load would miss
  return pixel * static_cast<std::ptrdiff_t>(sizeof(float)) % 4096 == 0 ? std::min(highest, kAliased) : highest;
}

}  // namespace sepconv
