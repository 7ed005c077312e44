// What the eager operators take for granted, checked: every error is a std::invalid_argument.
#pragma once

#include <cstdint>
#include <vector>

#include "eager/block.h"

namespace sepconv {

// `dims`: of the weights, as EagerWeights takes them; `bias`: how many numbers it has, or -1 for none.
void check_weights(WeightKind kind, const std::array<std::int64_t, 4>& dims, std::int64_t groups, std::int64_t bias);

// Whether a block can be made of these stages: sizes, windows, channels, and which follows which.
void check_stages(const Shape& in, const std::vector<StageSpec>& stages);

}  // namespace sepconv
