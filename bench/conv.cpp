// The first convolution, which reads the NHWC image; and what it would take over a blocked activation.
#include "support.h"

namespace sepconv::bench {
namespace {

const bool registered = [] {
  register_layers(Kind::conv, [](const Layer& layer, const KernelTable& table) {
    return Problem(dense(layer, true, table), table, true);
  }, "image");
  register_layers(Kind::conv, [](const Layer& layer, const KernelTable& table) {
    return Problem(dense(layer, false, table), table);
  }, "blocked");
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
