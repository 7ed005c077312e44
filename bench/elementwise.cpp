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
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_prelu(layer.in, std::vector<float>(static_cast<std::size_t>(layer.in.c), 0.1f), table), table);
  }, "prelu");
  register_layers(Kind::add, [](const Layer& layer, const KernelTable& table) {
    const std::vector<float> ones(static_cast<std::size_t>(layer.in.c), 1.0f);
    return Problem(make_layer_norm(layer.in, std::make_shared<const LayerNorm>(LayerNorm{ones, ones, 1e-5}), table), table);
  }, "layer_norm");
  register_layers(Kind::classifier, [](const Layer& layer, const KernelTable& table) {
    return Problem(make_softmax({1, 1, layer.outputs}, 1.0f, table), table);
  });
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
