#include "graph/plan.h"

#include <atomic>
#include <chrono>
#include <stdexcept>

#include "base/fp_env.h"
#include "cpu/topology.h"
#include "graph/node_ops.h"
#include "runtime/arena.h"
#include "runtime/fork_lock.h"

namespace sepconv {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kInterruptPeriod = std::chrono::milliseconds(50);
// Activations are often a multiple of 4 KB long. Were they to lie so far apart, loads from one would be taken to depend on
// stores to the other, which the CPU compares by their address in a page.
constexpr std::size_t kStagger = 2048 + 64;
constexpr int kGroup = 8;  // images whose last steps run at once

// Whether to stream `op` behind a chain whose last result takes `bytes`: where the result would crowd L2, and the
// weights that every strip of rows goes through still fit beside the rings.
bool worth_streaming(std::size_t bytes, std::size_t chain_weights, const RowOp& op, Fusion fusion) {
  if (fusion == Fusion::never || !op.streams) return false;
  if (fusion == Fusion::always) return true;
  return bytes > l2_bytes() / 4 && chain_weights + op.weight_bytes <= l2_bytes() / 4;
}

}  // namespace

// A thread's share of the pieces of a step: the step's number in the run, and how many of them are taken. A thread that
// comes late finds a later number there, and takes nothing; one that comes first puts the number there.
class alignas(64) Plan::Share {
 public:
  void reset() { word_.store(0, std::memory_order_relaxed); }

  // The next of `count` pieces in step `number` (from 1), or -1 when all are taken.
  int take(std::uint64_t number, int count) {
    std::uint64_t word = word_.load(std::memory_order_acquire);
    for (;;) {
      if (word >> kBits > number) return -1;
      const std::uint64_t taken = word >> kBits == number ? word & kMask : 0;
      if (taken >= static_cast<std::uint64_t>(count)) return -1;
      if (word_.compare_exchange_weak(word, number << kBits | (taken + 1), std::memory_order_acq_rel)) {
        return static_cast<int>(taken);
      }
    }
  }

 private:
  static constexpr int kBits = 24;
  static constexpr std::uint64_t kMask = (std::uint64_t{1} << kBits) - 1;
  std::atomic<std::uint64_t> word_{0};
};

struct Plan::Context {
  AlignedBuffer memory;                             // the arena, then each thread's scratch
  int threads = 0;                                  // for so many
  std::unique_ptr<Share[]> shares;                  // one a thread, of the step at work
  Progress progress;
  std::unique_ptr<Context> next;                    // in the free list
};

struct Plan::Run {
  const float* const* inputs;
  float* const* outputs;
  std::int64_t images;
  Context* context;
  bool (*interrupted)();
  std::vector<double>* step_seconds;
  Clock::time_point next_look;
  std::atomic<std::int64_t> end;      // images to go through
  std::atomic<bool> stopped{false};
};

Plan::Plan(const Graph& graph, Fusion fusion) : table_(graph.table()), store_(graph.store()) {
  const std::vector<Node> nodes = rewrite(graph, fusion);
  places_.resize(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    places_[i].shape = nodes[i].out;
    if (nodes[i].kind == NodeKind::input) {
      places_[i].where = Place::input;
      places_[i].index = static_cast<int>(input_shapes_.size());
      input_shapes_.push_back(nodes[i].out);
    } else if (nodes[i].kind == NodeKind::to_nhwc) {
      places_[i].where = Place::output;
      places_[i].index = static_cast<int>(output_shapes_.size());
      output_shapes_.push_back(nodes[i].out);
    }
  }
  if (input_shapes_.empty()) throw std::invalid_argument("graph: has no input, must have at least one");
  if (output_shapes_.empty()) throw std::invalid_argument("graph: has no output, must have at least one");
  add_steps(nodes, fusion);
  group_tail(nodes);
  lay_out(nodes);
}

Plan::~Plan() {
  // A long list must not recurse.
  while (free_) free_ = std::move(free_->next);
}

void Plan::add_steps(const std::vector<Node>& nodes, Fusion fusion) {
  std::vector<int> uses(nodes.size(), 0);
  for (const Node& node : nodes) {
    for (const int input : node.inputs) ++uses[input];
    if (node.residual != -1) ++uses[node.residual];
  }
  std::vector<RowOpPtr> ops(nodes.size());
  for (std::size_t i = 0; i < nodes.size(); ++i) ops[i] = make_op(nodes[i], nodes, table_);

  // Chains are cut from the back: a node joins the one that reads it. They execute where their last node stands, so that
  // every residual is there.
  std::vector<bool> taken(nodes.size(), false);
  std::vector<std::vector<int>> chains;
  for (int i = static_cast<int>(nodes.size()) - 1; i >= 0; --i) {
    if (taken[i] || !ops[i]) continue;
    std::vector<int> chain{i};
    std::size_t weights = ops[i]->weight_bytes;
    while (static_cast<int>(chain.size()) < kMaxChain) {
      const int last = chain.back();
      if (nodes[last].inputs.empty() || !ops[last]->streams) break;
      const int before = nodes[last].inputs[0];
      if (!ops[before] || uses[before] != 1) break;
      const std::size_t bytes = blocked_floats(nodes[before].out, table_) * sizeof(float);
      if (!worth_streaming(bytes, weights, *ops[before], fusion)) break;
      weights += ops[before]->weight_bytes;
      chain.push_back(before);
    }
    for (const int node : chain) taken[node] = true;
    chains.emplace_back(chain.rbegin(), chain.rend());
  }

  for (auto chain = chains.rbegin(); chain != chains.rend(); ++chain) {
    std::vector<RowOpPtr> chain_ops;
    std::vector<int> others;
    std::vector<Node> chain_nodes;
    for (const int i : *chain) {
      chain_ops.push_back(std::move(ops[i]));
      const std::vector<int>& inputs = nodes[i].inputs;
      if (nodes[i].kind == NodeKind::channels) others.assign(inputs.begin() + 1, inputs.end());  // a chain by itself
      else others.push_back(inputs.size() > 1 ? inputs[1] : nodes[i].residual);
      chain_nodes.push_back(nodes[i]);
      chain_nodes.back().gemm = nullptr;
      chain_nodes.back().depthwise = nullptr;
    }
    steps_.push_back({Chain(std::move(chain_ops), table_), nodes[chain->front()].inputs[0], std::move(others), chain->back(),
                      std::move(chain_nodes)});
  }

  // What is read for one pixel, up to half of L2, comes along with the weights of the last step that has time for it.
  std::size_t ahead = 0;
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    for (std::size_t i = step->nodes.size(); i-- > 0;) {
      RowOp& op = *step->chain.ops()[i];
      if (step->nodes[i].kind == NodeKind::conv && op.out.h * op.out.w > 1) {
        op.ahead_bytes = std::min(ahead, l2_bytes() / 2);
        ahead = 0;
      } else {
        ahead += op.weight_bytes;
      }
    }
  }

  std::vector<Split> splits(nodes.size(), Split::rows);
  for (Step& step : steps_) {
    splits[step.out] = step.chain.settle_split(splits[step.in]);
    scratch_floats_ = std::max(scratch_floats_, step.chain.scratch_floats());
  }
}

void Plan::group_tail(std::vector<Node> nodes) {
  const std::vector<Node> single = nodes;
  const auto groups = [&](const Step& step) {
    return step.nodes.size() == 1 && is_pixelwise(single[step.out], single);
  };
  tail_ = steps();
  while (tail_ > 0 && groups(steps_[tail_ - 1])) --tail_;
  for (int s = tail_; s < steps(); ++s) {
    const Step& step = steps_[s];
    for (const int node : {step.in, step.others[0], step.out}) {
      if (node == -1) continue;
      places_[node].grouped = places_[node].where == Place::arena;
      nodes[node].out.w = kGroup;
    }
  }
  for (int s = tail_; s < steps(); ++s) {
    std::vector<RowOpPtr> ops;
    ops.push_back(make_op(nodes[steps_[s].out], nodes, table_));
    wide_tail_.emplace_back(std::move(ops), table_);
    wide_tail_.back().settle_split(Split::channels);
    scratch_floats_ = std::max(scratch_floats_, wide_tail_.back().scratch_floats());
  }
}

void Plan::lay_out(const std::vector<Node>& nodes) {
  std::vector<Lifetime> lifetimes;
  std::vector<int> owners;
  for (int s = 0; s < steps(); ++s) {
    const int node = steps_[s].out;
    if (places_[node].where != Place::arena) continue;
    int last = s;
    for (int reader = s + 1; reader < steps(); ++reader) {
      const Step& step = steps_[reader];
      if (step.in == node || std::find(step.others.begin(), step.others.end(), node) != step.others.end()) last = reader;
    }
    const std::size_t bytes = blocked_floats(nodes[node].out, table_) * sizeof(float);
    // The images of a group come here one after the other, each through all the steps before.
    const bool grouped = places_[node].grouped;
    lifetimes.push_back({(grouped ? bytes * kGroup : bytes) + kStagger, grouped ? 0 : s, last});
    owners.push_back(node);
  }
  const ArenaPlan arena = plan_arena(lifetimes);
  for (std::size_t i = 0; i < owners.size(); ++i) places_[owners[i]].offset = arena.offsets[i] / sizeof(float);
  arena_floats_ = arena.size / sizeof(float);
}

std::unique_ptr<Plan::Context> Plan::take_context(int threads) const {
  std::unique_ptr<Context> context;
  {
    ForkSafeLock lock;
    context = std::move(free_);
    if (context) free_ = std::move(context->next);
  }
  if (!context) context = std::make_unique<Context>();
  if (context->threads < threads) {
    context->threads = 0;
    // One block, of whole huge pages where that does not waste most of one.
    std::size_t bytes = sizeof(float) * (arena_floats_ + static_cast<std::size_t>(threads) * scratch_floats_);
    if (bytes % kHugePage > kHugePage / 2) bytes += kHugePage - bytes % kHugePage;
    context->memory = AlignedBuffer(bytes);
    advise_huge_pages(context->memory.bytes(), bytes);
    context->shares = std::make_unique<Share[]>(threads);
    context->threads = threads;
  }
  return context;
}

void Plan::give_context(std::unique_ptr<Context> context) const {
  ForkSafeLock lock;
  context->next = std::move(free_);
  free_ = std::move(context);
}

bool Plan::run(const float* const* inputs, float* const* outputs, std::int64_t images, int threads, bool (*interrupted)(),
               std::vector<double>* step_seconds) const {
  if (step_seconds) step_seconds->assign(steps_.size(), 0.0);
  std::unique_ptr<Context> context = take_context(threads);
  for (int i = 0; i < threads; ++i) context->shares[i].reset();
  context->progress.reset(threads);
  Run run{inputs, outputs, images, context.get(), interrupted, step_seconds, Clock::now() + kInterruptPeriod, images};
  struct Job {
    const Plan* plan;
    Run* run;
  } job{this, &run};
  run_parallel(
      threads,
      [](void* arg, int thread, int thread_count) {
        const Job* const j = static_cast<Job*>(arg);
        j->plan->work(*j->run, thread, thread_count);
      },
      &job);
  give_context(std::move(context));
  return !run.stopped;
}

void Plan::work(Run& run, int thread, int thread_count) const {
  const FlushDenormals flush;
  float* const scratch = run.context->memory.floats() + arena_floats_ + static_cast<std::size_t>(thread) * scratch_floats_;
  // Ends the run at this image. Called before this thread's pieces count as done, so that no thread can have gone on.
  const auto look = [&](std::int64_t image) {
    if (thread != 0 || !run.interrupted || Clock::now() < run.next_look) return;
    run.next_look = Clock::now() + kInterruptPeriod;
    if (run.stopped || !run.interrupted()) return;
    run.stopped = true;
    run.end = image + 1;
  };
  std::uint64_t number = 0;   // of the step in the run
  std::uint32_t needed = 0;   // pieces of the steps up to it
  const auto execute = [&](int s, const Chain& chain, std::int64_t image, int slot) {
    const auto start = run.step_seconds && thread == 0 ? Clock::now() : Clock::time_point{};
    const Chain::Grid grid = chain.grid(thread_count);
    const int pieces = grid.pieces();
    const StepViews view = views(steps_[s], run, image, slot);
    ++number;
    // Each thread begins with its own share, the same part of every image, which its cache knows; then it helps the
    // others.
    const auto share_begin = [&](int owner) {
      return static_cast<int>((std::int64_t{1} * pieces * owner + thread_count - 1) / thread_count);
    };
    std::uint32_t finished = 0;
    for (int i = 0; i < thread_count; ++i) {
      const int owner = (thread + i) % thread_count, begin = share_begin(owner), count = share_begin(owner + 1) - begin;
      for (int piece; (piece = run.context->shares[owner].take(number, count)) >= 0; ++finished) {
        if (!run.stopped.load(std::memory_order_relaxed)) chain.run(view, begin + piece, grid, scratch);
        look(image);
      }
    }
    needed += static_cast<std::uint32_t>(pieces);
    run.context->progress.add(finished);
    run.context->progress.wait(needed);
    if (run.step_seconds && thread == 0) {
      (*run.step_seconds)[s] += std::chrono::duration<double>(Clock::now() - start).count();
    }
  };
  for (std::int64_t image = 0; image < run.end;) {
    const int count = tail_ < steps() && run.images - image >= kGroup ? kGroup : 1;
    for (int slot = 0; slot < count; ++slot) {
      for (int s = 0; s < tail_; ++s) execute(s, steps_[s].chain, image + slot, slot);
    }
    for (int s = tail_; s < steps(); ++s) execute(s, count > 1 ? wide_tail_[s - tail_] : steps_[s].chain, image, 0);
    image += count;
  }
}

RowView Plan::blocked(const Place& place, const Run& run, int slot) const {
  const Shape& s = place.shape;
  const std::ptrdiff_t row = std::ptrdiff_t{1} * s.w * table_.vector;
  float* const data = run.context->memory.floats() + place.offset;
  if (place.grouped) return {data + slot * table_.vector, kGroup * row, kGroup * row, 1};
  return {data, s.h * row, row, s.h};
}

ConstRowView Plan::read(int node, const Run& run, std::int64_t image, int slot) const {
  const Place& place = places_[node];
  const Shape& s = place.shape;
  if (place.where == Place::input) {
    return {run.inputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  }
  const RowView view = blocked(place, run, slot);
  return {view.data, view.plane, view.row, view.ring};
}

StepViews Plan::views(const Step& step, const Run& run, std::int64_t image, int slot) const {
  StepViews v;
  v.in = read(step.in, run, image, slot);
  for (std::size_t i = 0; i < step.others.size(); ++i) {
    if (step.others[i] != -1) v.others[i] = read(step.others[i], run, image, slot);
  }
  const Place& place = places_[step.out];
  const Shape& s = place.shape;
  if (place.where == Place::output) {
    v.out = {run.outputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  } else {
    v.out = blocked(place, run, slot);
  }
  return v;
}

std::vector<OperatorInfo> Plan::describe() const {
  std::vector<OperatorInfo> result;
  for (int s = 0; s < steps(); ++s) {
    const auto ops = steps_[s].chain.ops();
    for (std::size_t i = 0; i < ops.size(); ++i) {
      const Node& node = steps_[s].nodes[i];
      result.push_back({s, node.name, node.fused, ops[i]->kernel, ops[i]->in, ops[i]->out, ops[i]->macs, ops[i]->weight_bytes});
    }
  }
  return result;
}

std::size_t Plan::weight_bytes() const {
  std::size_t bytes = 0;
  for (const OperatorInfo& op : describe()) bytes += op.weight_bytes;
  return bytes;
}

}  // namespace sepconv
