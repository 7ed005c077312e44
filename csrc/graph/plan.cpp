#include "graph/plan.h"

#include <stdexcept>

#include "cpu/topology.h"
#include "graph/node_ops.h"
#include "runtime/arena.h"

namespace sepconv {
namespace {

// Activations are often a multiple of 4 KB long. Were they to lie so far apart, loads from one would be taken to depend on
// stores to the other, which the CPU compares by their address in a page.
constexpr std::size_t kStagger = 2048 + 64;

constexpr std::int64_t kHeavy = 128;  // multiply-adds an element

// Whether to stream `op` ahead of a chain, its result taking `bytes`: where the result would crowd L2, and the weights that
// every strip of rows goes through still fit beside the rings. A result of many multiply-adds an element waits little for
// L2, and the rows that two threads both compute cost it more. Below the small L2 of Zen lies a near L3, which holds up
// little.
bool worth_streaming(std::size_t bytes, std::size_t chain_weights, const RowOp& op, Fusion fusion) {
  if (fusion == Fusion::never || !op.streams) return false;
  if (fusion == Fusion::always) return true;
  const bool heavy = op.macs >= kHeavy * op.out.elements();
  const std::size_t l2 = l2_bytes();
  const std::size_t most = l2 < kLargeL2 ? 2 * l2 : heavy ? l2 / 2 : l2 / 4;
  return bytes > most && chain_weights + op.weight_bytes <= l2 / 4;
}

// Whether a depthwise convolution goes into one step with the pointwise one that reads it although nothing crowds L2: where
// threads share rows of both, each works on what it made itself, and one wait falls away.
bool worth_joining(const Node& depthwise, const Node& reader, const RowOp& depthwise_op, const RowOp& reader_op,
                   const KernelTable& table, Fusion fusion) {
  return fusion == Fusion::automatic && depthwise.kind == NodeKind::depthwise && reader.kind == NodeKind::conv &&
         reader.window.pointwise() && reader_op.split == Split::rows &&
         blocked_floats(depthwise_op.in, table) * sizeof(float) <= l2_bytes() / 2;
}

// Has operators with fetches to spare bring in weights that others wait for: the nearest one's first, and no more than half
// of L2 at a time. `ops`: in order of execution.
void share_fetches(const std::vector<RowOp*>& ops) {
  struct Wanted {
    const RowOp* op;
    double rest;  // of each thread's share, what nobody fetches yet
  };
  std::vector<Wanted> wanted;
  std::size_t room = l2_bytes() / 2;
  for (auto i = ops.rbegin(); i != ops.rend(); ++i) {
    RowOp& op = **i;
    if (!wanted.empty() && op.spare_fetches > 0) {
      Wanted& next = wanted.back();
      const auto bytes = static_cast<double>(next.op->weight_bytes);
      const double begin = std::max(0.0, next.rest - static_cast<double>(op.spare_fetches) / bytes);
      op.ahead = {next.op->weights, next.op->weight_bytes, begin, next.rest};
      room += static_cast<std::size_t>((next.rest - begin) * bytes);
      next.rest = begin;
      if (begin == 0) wanted.pop_back();
    }
    if (op.waits_for_weights && op.weight_bytes > 0 && room > 0) {
      const std::size_t bytes = std::min(room, op.weight_bytes);
      wanted.push_back({&op, static_cast<double>(bytes) / static_cast<double>(op.weight_bytes)});
      room -= bytes;
    }
  }
}

}  // namespace

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
  struct Members {
    std::vector<int> nodes;
    bool stream;
  };
  std::vector<Members> chains;
  for (int i = static_cast<int>(nodes.size()) - 1; i >= 0; --i) {
    if (taken[i] || !ops[i]) continue;
    std::vector<int> chain{i};
    std::size_t weights = ops[i]->weight_bytes;
    bool joined = false;
    while (static_cast<int>(chain.size()) < kMaxChain) {
      const int last = chain.back();
      if (nodes[last].inputs.empty() || !ops[last]->streams) break;
      const int before = nodes[last].inputs[0];
      if (!ops[before] || uses[before] != 1) break;
      const std::size_t bytes = blocked_floats(nodes[before].out, table_) * sizeof(float);
      if (!joined && !worth_streaming(bytes, weights, *ops[before], fusion)) {
        joined = chain.size() == 1 && worth_joining(nodes[before], nodes[last], *ops[before], *ops[last], table_, fusion);
        if (!joined) break;
      } else if (joined) {
        break;
      }
      weights += ops[before]->weight_bytes;
      chain.push_back(before);
    }
    for (const int node : chain) taken[node] = true;
    chains.push_back({{chain.rbegin(), chain.rend()}, !joined});
  }

  for (auto chain = chains.rbegin(); chain != chains.rend(); ++chain) {
    std::vector<RowOpPtr> chain_ops;
    std::vector<int> others;
    std::vector<Node> chain_nodes;
    for (const int i : chain->nodes) {
      chain_ops.push_back(std::move(ops[i]));
      const std::vector<int>& inputs = nodes[i].inputs;
      if (nodes[i].kind == NodeKind::channels) others.assign(inputs.begin() + 1, inputs.end());  // a chain by itself
      else others.push_back(inputs.size() > 1 ? inputs[1] : nodes[i].residual);
      chain_nodes.push_back(nodes[i]);
      chain_nodes.back().gemm = nullptr;
      chain_nodes.back().depthwise = nullptr;
    }
    steps_.push_back({Chain(std::move(chain_ops), table_, chain->stream), nodes[chain->nodes.front()].inputs[0], std::move(others), chain->nodes.back(),
                      std::move(chain_nodes)});
  }

  std::vector<RowOp*> in_order;
  for (const Step& step : steps_) {
    for (const RowOpPtr& op : step.chain.ops()) in_order.push_back(op.get());
  }
  share_fetches(in_order);

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
  // What a group of images needs at once, and what each image needs for itself.
  group_floats_ = lay_out(nodes, true);
  arena_floats_ = lay_out(nodes, false);
}

std::size_t Plan::lay_out(const std::vector<Node>& nodes, bool grouped) {
  std::vector<Lifetime> lifetimes;
  std::vector<int> owners;
  for (int s = 0; s < steps(); ++s) {
    const int node = steps_[s].out;
    if (places_[node].where != Place::arena || places_[node].grouped != grouped) continue;
    int last = s;
    for (int reader = s + 1; reader < steps(); ++reader) {
      const Step& step = steps_[reader];
      if (step.in == node || std::find(step.others.begin(), step.others.end(), node) != step.others.end()) last = reader;
    }
    const std::size_t bytes = blocked_floats(nodes[node].out, table_) * sizeof(float);
    // The images of a group come here one after the other, each through all the steps before.
    lifetimes.push_back({(grouped ? bytes * kGroup : bytes) + kStagger, grouped ? 0 : s, last});
    owners.push_back(node);
  }
  const ArenaPlan arena = plan_arena(lifetimes);
  for (std::size_t i = 0; i < owners.size(); ++i) places_[owners[i]].offset = arena.offsets[i] / sizeof(float);
  return arena.size / sizeof(float);
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
