// Oracles of the poolings. Pixels outside the image take no part, except in the average with include_padding.
#pragma once

#include "ref/tensor.h"

namespace sepconv::ref {

// include_padding: the divisor is kh*kw everywhere, else the number of pixels inside. A window that lies wholly in
// the padding is 0/0 = NaN without include_padding.
Tensor average_pool(const Tensor& x, const Window& window, bool include_padding = false, const Poll& poll = {});

// A NaN under the window gives NaN. A window that lies wholly in the padding gives -inf.
Tensor max_pool(const Tensor& x, const Window& window, const Poll& poll = {});

// [h][w][c] -> [1][1][c].
Tensor global_average_pool(const Tensor& x, const Poll& poll = {});

}  // namespace sepconv::ref
