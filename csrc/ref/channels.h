// Oracles of the operators that move channels or pixels as they are.
#pragma once

#include "ref/tensor.h"

namespace sepconv::ref {

// The channels of all inputs, one input's after the other's. Heights and widths must be equal.
Tensor concat(const std::vector<Tensor>& inputs);

// Channels [begin, end).
Tensor channel_slice(const Tensor& x, int begin, int end);

// Output channel j*groups + g is input channel g*(c/groups) + j; groups must divide the channels.
Tensor channel_shuffle(const Tensor& x, int groups);

// Row y is the input's row floor(y*h/height), columns alike.
Tensor upsample(const Tensor& x, int height, int width);

}  // namespace sepconv::ref
