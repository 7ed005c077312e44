// Depthwise convolutions, input and output in the cache that holds them: 4.5 cycles for 16 outputs of 3×3 is the least.
#include "support.h"

namespace sepconv::bench {
namespace {

const bool registered = [] {
  register_layers(
      Kind::depthwise, [](const Layer& layer, const KernelTable& table) { return Problem(depthwise(layer, table), table); },
      "", true);
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
