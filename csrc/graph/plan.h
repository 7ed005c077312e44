// A network compiled: steps, where each activation lies, and their execution on threads.
//
// A batch goes image after image, so that activations stay in cache and the arena small; with as many images as threads,
// each thread has images of its own. But a classifier's weights are megabytes that are read for one pixel: the last steps,
// those on 1×1 activations, run once for a group of images, whose vectors lie side by side as if they were a row of pixels.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned.h"
#include "graph/chain.h"
#include "graph/fuse.h"
#include "runtime/thread_pool.h"

namespace sepconv {

// One operator as Plan::describe() tells it.
struct OperatorInfo {
  int step;                         // operators of one step stream their rows to each other
  std::string layer;
  std::vector<std::string> fused;   // layers whose work it also does
  std::string kernel;
  Shape in, out;
  std::int64_t macs;
  std::size_t weight_bytes;
};

class Plan {
 public:
  // Throws std::invalid_argument if the graph has no input or no output; std::bad_alloc.
  explicit Plan(const Graph& graph, Fusion fusion = Fusion::automatic);
  ~Plan();
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;

  // images × inputs: `inputs[i]` points at the NHWC images of the i-th input, one after the other; outputs likewise.
  // Allocates nothing once it has run with as many threads, on as many threads at a time. May be called from several
  // threads at once. `interrupted` (or nullptr) is asked now and then, on the calling thread; true stops the run.
  // `step_seconds` (or nullptr) collects the time of each step, from the end of the one before, so all of a run's. Returns
  // false if it was stopped. Throws std::bad_alloc.
  bool run(const float* const* inputs, float* const* outputs, std::int64_t images, int threads, bool (*interrupted)(),
           std::vector<double>* step_seconds = nullptr) const;

  std::vector<OperatorInfo> describe() const;
  const std::vector<Shape>& input_shapes() const { return input_shapes_; }
  const std::vector<Shape>& output_shapes() const { return output_shapes_; }
  std::size_t arena_bytes() const { return (group_floats_ + arena_floats_) * sizeof(float); }
  std::size_t weight_bytes() const;
  int steps() const { return static_cast<int>(steps_.size()); }
  // The first of the steps that run for kGroup images at once, where there are so many.
  int tail() const { return tail_; }

  static constexpr int kGroup = 8;

 private:
  struct Place {            // of a node's result
    enum { arena, input, output } where = arena;
    int index = 0;          // of the input or output
    std::size_t offset = 0;  // floats into the arena, or into the group's memory
    Shape shape;
    bool grouped = false;    // whether it has room for a group of images
  };
  struct Step {
    Chain chain;
    int in;
    std::vector<int> others;  // one an operator, or -1
    int out;
    std::vector<Node> nodes;  // what describe() tells, one an operator
  };
  class Share;
  class Worker;
  struct Context;  // what one run needs for itself: arenas and each thread's scratch
  struct Run;
  struct WorkEnd;
  struct DeleteContext {
    void operator()(Context* context) const noexcept;
  };
  using ContextPtr = std::unique_ptr<Context, DeleteContext>;

  void add_steps(const std::vector<Node>& nodes, Fusion fusion);
  void group_tail(std::vector<Node> nodes);
  void lay_out(const std::vector<Node>& nodes);
  std::size_t lay_out(const std::vector<Node>& nodes, bool grouped);
  // `slot`: the image's place in the run's groups.
  StepViews views(const Step& step, const Run& run, std::int64_t image, int slot, float* arena) const;
  ConstRowView read(int node, const Run& run, std::int64_t image, int slot, float* arena) const;
  RowView blocked(const Place& place, const Run& run, int slot, float* arena) const;
  ContextPtr take_context(int threads, int arenas, int groups) const;
  void give_context(ContextPtr context) const;

  const KernelTable& table_;
  std::shared_ptr<const WeightStore> store_;
  std::vector<Step> steps_;
  int tail_ = 0;
  std::vector<Chain> wide_tail_;  // the same for a whole group
  std::vector<Place> places_;
  std::vector<Shape> input_shapes_, output_shapes_;
  std::size_t group_floats_ = 0, arena_floats_ = 0, scratch_floats_ = 0;
  mutable ContextPtr free_;  // a list of contexts; guarded by ForkSafeLock
};

}  // namespace sepconv
