// Pointwise convolutions and classifiers: each shape with its weights warm, and each network's in sequence with weights of
// their own, as they come in the network.
#include "support.h"

#include <algorithm>

namespace sepconv::bench {
namespace {

Problem pointwise(const Layer& layer, const KernelTable& table) { return {dense(layer, false, table), table}; }

void register_sequences() {
  for (const KernelTable* table : tables()) {
    for (const Network& network : networks()) {
      register_one("gemm_sequence__" + std::string(table->isa) + "/" + network.name, [=](benchmark::State& state) {
        std::vector<Problem> problems;
        const auto store = std::make_shared<WeightStore>();
        std::int64_t most = 0;
        for (const Layer& layer : network.layers) {
          if (layer.kind != Kind::pointwise) continue;
          problems.emplace_back(dense(layer, false, *table, store), *table);
          most = std::max({most, blocked_floats(layer.in, *table), blocked_floats(problems.back().op().out, *table)});
        }
        // Each reads what the one before wrote, or at least where it wrote.
        AlignedBuffer even = AlignedBuffer::of_floats(most), odd = AlignedBuffer::of_floats(most);
        std::fill_n(even.floats(), most, 1.0f);
        for (Problem& problem : problems) {
          problem.place(even.floats(), odd.floats());
          std::swap(even, odd);
        }
        run_all(state, problems, *table);
      });
    }
  }
}

const bool registered = [] {
  register_layers(Kind::pointwise, pointwise);
  register_layers(Kind::classifier, pointwise);
  register_sequences();
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
