// Rewrites of the node list that save passes over memory. Each keeps every result, to the bit.
#pragma once

#include <vector>

#include "graph/graph.h"

namespace sepconv {

// Whether chains of operators stream through ring buffers: where it pays, everywhere, or nowhere (the last two for tests).
enum class Fusion { automatic, always, never };

// The nodes to execute, in order, indices rewritten. Outputs are the graph's, followed through the rewrites; they are
// last, as to_nhwc nodes. An input node is read by convolutions as it is, in NHWC, and by others through from_nhwc.
//   pad        before a convolution or depthwise convolution becomes part of its padding
//   activation after a convolution, depthwise convolution, add or pooling becomes part of it
//   add        of a convolution's result and another becomes the convolution's residual
//   reshape    that changes nothing disappears
std::vector<Node> rewrite(const Graph& graph, Fusion fusion);

}  // namespace sepconv
