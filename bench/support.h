// What the kernels' benchmarks share: an operator with memory to run on, and a benchmark of it on every ISA.
#pragma once

#include <benchmark/benchmark.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "networks.h"
#include "kernels/table.h"
#include "ops/operators.h"

namespace sepconv::bench {

// An operator with input and output of its own, blocked (or, for an image, NHWC), and random weights.
class Problem {
 public:
  Problem(RowOpPtr op, const KernelTable& table, bool image = false, bool with_other = false);

  const RowOp& op() const { return *op_; }
  void run() noexcept { op_->run(task_); }
  // Reads and writes there instead: floats enough for the blocked input and output.
  void place(float* in, float* out) { task_.in.data = in, task_.out.data = out; }

 private:
  RowOpPtr op_;
  std::vector<AlignedBuffer> buffers_;
  RowTask task_;
};

// Operators over random weights. Those of one `store` lie side by side, as a network's do; without, each has its own.
RowOpPtr dense(const Layer& layer, bool image, const KernelTable& table, std::shared_ptr<WeightStore> store = nullptr);
RowOpPtr depthwise(const Layer& layer, const KernelTable& table);

// Runs all problems in order, an iteration each time. Counts: GFLOP/s, their share of the peak that was measured when the
// program started, and GB/s of input, output and weights, each once. `cycles`: also cycles for 16 outputs, for a processor
// of two multiply-adds a cycle.
void run_all(benchmark::State& state, std::vector<Problem>& problems, const KernelTable& table, bool cycles = false);

// One benchmark a layer and ISA, "<kernel>__<isa>/<network>/<shape>", and "/<variant>" where one kernel has several; `make`
// gives the problem.
using Make = Problem (*)(const Layer&, const KernelTable&);
void register_layers(Kind kind, Make make, const std::string& variant = "", bool cycles = false);
// Adds a benchmark that takes a tenth of a second or so.
void register_one(const std::string& name, const std::function<void(benchmark::State&)>& run);

std::string describe(const Layer& layer);

// Every ISA that runs here.
std::vector<const KernelTable*> tables();

}  // namespace sepconv::bench
