#include "graph/plan.h"

#include <atomic>
#include <chrono>
#include <stdexcept>

#include "base/fp_env.h"
#include "cpu/topology.h"
#include "runtime/arena.h"
#include "runtime/fork_lock.h"

namespace sepconv {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kInterruptPeriod = std::chrono::milliseconds(50);

RowOpPtr make_op(const Node& n, const std::vector<Node>& nodes, const KernelTable& t) {
  const Node* const source = n.inputs.empty() ? nullptr : &nodes[n.inputs[0]];
  const Shape in = source ? source->out : n.out;
  const Window& w = n.window;
  switch (n.kind) {
    case NodeKind::input: return nullptr;
    case NodeKind::conv: {
      if (source->kind == NodeKind::input) return make_image_conv(in, w, n.gemm, n.out.c, n.activation, t);
      const bool pointwise = w.kh == 1 && w.kw == 1 && w.stride_h == 1 && w.stride_w == 1 && !w.padding.any();
      return pointwise ? make_pointwise(in, n.gemm, n.out.c, n.activation, t)
                       : make_conv(in, w, n.gemm, n.out.c, n.activation, t);
    }
    case NodeKind::depthwise: return make_depthwise(in, w, n.depthwise, n.multiplier, n.activation, t);
    case NodeKind::add: return make_add(n.out, n.activation, t);
    case NodeKind::average_pool:
      return make_pool(in, w, n.include_padding ? PoolKind::average_with_padding : PoolKind::average, n.activation, t);
    case NodeKind::max_pool: return make_pool(in, w, PoolKind::max, n.activation, t);
    case NodeKind::global_average: return make_global_average(in, t);
    case NodeKind::activation: return make_activation(n.out, n.activation, t);
    case NodeKind::softmax: return make_softmax(n.out, n.beta, t);
    case NodeKind::pad: return make_pad(in, w.padding, t);
    case NodeKind::reshape: return make_reshape(in, n.out, t);
    case NodeKind::from_nhwc: return make_from_nhwc(n.out, t);
    case NodeKind::to_nhwc: return make_to_nhwc(n.out, t);
  }
  return nullptr;
}

// Whether to stream `op` behind a chain whose last result takes `bytes`: where the result would crowd L2, and the
// weights that every strip of rows goes through still fit beside the rings.
bool worth_streaming(std::size_t bytes, std::size_t chain_weights, const RowOp& op, Fusion fusion) {
  if (fusion == Fusion::never || !op.streams) return false;
  if (fusion == Fusion::always) return true;
  return bytes > l2_bytes() / 4 && chain_weights + op.weight_bytes <= l2_bytes() / 4;
}

}  // namespace

struct Plan::Context {
  AlignedBuffer arena;
  std::vector<AlignedBuffer> scratch;               // one a thread
  std::unique_ptr<std::atomic<std::int64_t>[]> tickets;  // pieces handed out so far: [step][thread]
  std::size_t ticket_count = 0;
  Barrier barrier;
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
      others.push_back(nodes[i].kind == NodeKind::add ? nodes[i].inputs[1] : nodes[i].residual);
      chain_nodes.push_back(nodes[i]);
      chain_nodes.back().gemm = nullptr;
      chain_nodes.back().depthwise = nullptr;
    }
    steps_.push_back({Chain(std::move(chain_ops), table_), nodes[chain->front()].inputs[0], std::move(others), chain->back(),
                      std::move(chain_nodes)});
  }

  for (const Step& step : steps_) {
    scratch_floats_ = std::max(scratch_floats_, step.chain.scratch_floats());
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
    lifetimes.push_back({blocked_floats(nodes[node].out, table_) * sizeof(float), s, last});
    owners.push_back(node);
  }
  const ArenaPlan arena = plan_arena(lifetimes);
  for (std::size_t i = 0; i < owners.size(); ++i) places_[owners[i]].offset = arena.offsets[i] / sizeof(float);
  arena_bytes_ = arena.size;
}

std::unique_ptr<Plan::Context> Plan::take_context(int threads) const {
  std::unique_ptr<Context> context;
  {
    ForkSafeLock lock;
    context = std::move(free_);
    if (context) free_ = std::move(context->next);
  }
  if (!context) {
    context = std::make_unique<Context>();
    context->arena = AlignedBuffer(arena_bytes_);
  }
  while (static_cast<int>(context->scratch.size()) < threads) {
    context->scratch.push_back(AlignedBuffer::of_floats(scratch_floats_));
  }
  if (context->ticket_count < steps_.size() * threads) {
    context->ticket_count = steps_.size() * threads;
    context->tickets = std::make_unique<std::atomic<std::int64_t>[]>(context->ticket_count);
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
  for (std::size_t i = 0; i < context->ticket_count; ++i) context->tickets[i].store(0, std::memory_order_relaxed);
  context->barrier.reset(threads);
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
  float* const scratch = run.context->scratch[thread].floats();
  const auto look = [&](std::int64_t image) {
    if (thread != 0 || !run.interrupted || Clock::now() < run.next_look) return;
    run.next_look = Clock::now() + kInterruptPeriod;
    if (!run.interrupted()) return;
    // All threads must leave at the same image, and some may have begun the next: they go through it without working.
    run.end = std::min(run.images, image + 2);
    run.stopped = true;
  };
  for (std::int64_t image = 0; image < run.end; ++image) {
    for (int s = 0; s < steps(); ++s) {
      const Step& step = steps_[s];
      const auto start = run.step_seconds && thread == 0 ? Clock::now() : Clock::time_point{};
      const int pieces = step.chain.pieces(thread_count);
      const StepViews view = views(step, run, image);
      // Each thread begins with its own share, the same part of every image, which its cache knows; then it helps the
      // others. On each share every thread draws one ticket too many, so an image uses up share + thread_count of them.
      for (int i = 0; i < thread_count; ++i) {
        const int owner = (thread + i) % thread_count;
        const std::int64_t begin = std::int64_t{1} * pieces * owner / thread_count;
        const std::int64_t end = std::int64_t{1} * pieces * (owner + 1) / thread_count;
        std::atomic<std::int64_t>& tickets = run.context->tickets[s * thread_count + owner];
        const std::int64_t base = image * (end - begin + thread_count);
        for (;;) {
          const std::int64_t piece = begin + tickets.fetch_add(1, std::memory_order_relaxed) - base;
          if (piece >= end) break;
          if (!run.stopped.load(std::memory_order_relaxed)) step.chain.run(view, static_cast<int>(piece), pieces, scratch);
          look(image);
        }
      }
      if (thread_count > 1) run.context->barrier.wait(thread_count);
      if (run.step_seconds && thread == 0) {
        (*run.step_seconds)[s] += std::chrono::duration<double>(Clock::now() - start).count();
      }
    }
  }
}

ConstRowView Plan::read(int node, const Run& run, std::int64_t image) const {
  const Place& place = places_[node];
  const Shape& s = place.shape;
  if (place.where == Place::input) {
    return {run.inputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  }
  const std::ptrdiff_t row = std::ptrdiff_t{1} * s.w * table_.vector;
  return {run.context->arena.floats() + place.offset, s.h * row, row, s.h};
}

StepViews Plan::views(const Step& step, const Run& run, std::int64_t image) const {
  StepViews v;
  v.in = read(step.in, run, image);
  for (std::size_t i = 0; i < step.others.size(); ++i) {
    if (step.others[i] != -1) v.others[i] = read(step.others[i], run, image);
  }
  const Place& place = places_[step.out];
  const Shape& s = place.shape;
  if (place.where == Place::output) {
    v.out = {run.outputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  } else {
    const std::ptrdiff_t row = std::ptrdiff_t{1} * s.w * table_.vector;
    v.out = {run.context->arena.floats() + place.offset, s.h * row, row, s.h};
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
