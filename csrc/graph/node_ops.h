// The operator of each kind of node.
#pragma once

#include <vector>

#include "graph/graph.h"
#include "ops/operators.h"

namespace sepconv {

// nullptr for an input.
RowOpPtr make_op(const Node& node, const std::vector<Node>& nodes, const KernelTable& table);

// Whether a node treats each pixel by itself, and its activations are of one pixel.
bool is_pixelwise(const Node& node, const std::vector<Node>& nodes);

}  // namespace sepconv
