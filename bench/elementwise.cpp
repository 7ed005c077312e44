// Sums with a shortcut, activations that are no clamp (over the same shapes), and the softmax over the classes.
#include "support.h"

namespace sepconv::bench {
namespace {

const bool registered = [] {
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_add(layer.in, Activation::none, table), table, false, true);
  });
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_activation(layer.in, Activation::hard_swish, table), table);
  }, "hard_swish");
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_activation(layer.in, Activation::silu, table), table);
  }, "silu");
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_activation(layer.in, Activation::gelu, table), table);
  }, "gelu");
  register_layers(Kind::classifier, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_softmax({1, 1, layer.outputs}, 1.0f, table), table);
  });
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
