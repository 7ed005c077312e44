// Depthwise convolutions, input and output in the cache that holds them: 4.5 cycles for 16 outputs of 3×3 is the least.
#include "support.h"

#include <array>

namespace sepconv::bench {
namespace {

const bool registered = [] {
  register_layers(
      Kind::depthwise, [](const Layer& layer, const KernelTable& table) { return Problem(depthwise(layer, table), table); },
      "", true);
  // 7×7 at both strides, dilated 3×3, and the kernel for any size: windows of newer networks.
  for (const KernelTable* table : tables()) {
    for (const Shape in : {Shape{56, 56, 96}, Shape{14, 14, 384}}) {
      for (const auto& [kernel, stride, dilation] : {std::array{7, 1, 1}, {7, 2, 1}, {3, 1, 2}, {4, 1, 1}}) {
        Layer layer{Kind::depthwise, in, same_window(in, (kernel - 1) * dilation + 1, stride), in.c};
        layer.window.kh = layer.window.kw = kernel;
        layer.window.dilation_h = layer.window.dilation_w = dilation;
        register_one(depthwise(layer, *table)->kernel + "/" + describe(layer), [=](benchmark::State& state) {
          std::vector<Problem> problems;
          problems.emplace_back(depthwise(layer, *table), *table);
          run_all(state, problems, *table, true);
        });
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
