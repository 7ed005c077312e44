// The average over all pixels before the classifier, and 3×3 windows over the same activations.
#include "support.h"

namespace sepconv::bench {
namespace {

const bool registered = [] {
  register_layers(Kind::pool, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_global_average(layer.in, table), table);
  });
  register_layers(Kind::pool, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_pool(layer.in, same_window(layer.in, 3, 2), PoolKind::average, Activation::none, table), table);
  });
  register_layers(Kind::pool, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_pool(layer.in, same_window(layer.in, 3, 2), PoolKind::max, Activation::none, table), table);
  });
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
