#include "graph/fuse.h"

#include <algorithm>

namespace sepconv {
namespace {

constexpr int kDead = -1;

// Nodes under rewriting: a node replaced by another forwards to it; dead ones are dropped at the end.
class Rewriter {
 public:
  explicit Rewriter(const Graph& graph) : nodes_(graph.nodes()), outputs_(graph.outputs()) {
    live_.assign(nodes_.size(), true);
    count_uses();
  }

  void drop_identity(int i) {
    const Node& node = nodes_[i];
    const bool same = node.kind == NodeKind::reshape && node.out == nodes_[node.inputs[0]].out;
    const bool nothing = node.kind == NodeKind::activation && node.activation == Activation::none;
    bool whole = node.kind == NodeKind::channels && node.out == nodes_[node.inputs[0]].out;
    for (int c = 0; whole && c < node.out.c; ++c) whole = node.sources[c].input == 0 && node.sources[c].channel == c;
    if ((same || nothing || whole) && nodes_[node.inputs[0]].kind != NodeKind::input) replace(i, node.inputs[0]);
  }

  // Channels of channels come straight from where those have theirs.
  void fuse_channels(int i) {
    Node& node = nodes_[i];
    if (node.kind != NodeKind::channels) return;
    std::vector<int> inputs;
    std::vector<ChannelSource> sources;
    for (const ChannelSource& source : node.sources) {
      int input = node.inputs[source.input], channel = source.channel;
      if (nodes_[input].kind == NodeKind::channels) {
        const ChannelSource& inner = nodes_[input].sources[channel];
        input = nodes_[input].inputs[inner.input];
        channel = inner.channel;
      }
      const auto known = std::find(inputs.begin(), inputs.end(), input);
      sources.push_back({static_cast<int>(known - inputs.begin()), channel});
      if (known == inputs.end()) inputs.push_back(input);
    }
    if (static_cast<int>(inputs.size()) > kMaxChannelInputs) return;
    for (const int input : node.inputs) {
      if (nodes_[input].kind == NodeKind::channels) node.fused.push_back(nodes_[input].name);
    }
    node.inputs = inputs;
    node.sources = sources;
  }

  void fuse_pad(int i) {
    Node& node = nodes_[i];
    if (node.kind != NodeKind::conv && node.kind != NodeKind::depthwise) return;
    const int before = node.inputs[0];
    if (nodes_[before].kind != NodeKind::pad || uses_[before] != 1) return;
    const Padding& p = nodes_[before].window.padding;
    Padding& q = node.window.padding;
    q = {q.top + p.top, q.bottom + p.bottom, q.left + p.left, q.right + p.right};
    node.inputs[0] = nodes_[before].inputs[0];
    node.fused.push_back(nodes_[before].name);
    live_[before] = false;
  }

  void fuse_activation(int i) {
    const Node& node = nodes_[i];
    if (node.kind != NodeKind::activation) return;
    Node& before = nodes_[node.inputs[0]];
    const bool takes = before.kind == NodeKind::conv || before.kind == NodeKind::depthwise || before.kind == NodeKind::add ||
                       before.kind == NodeKind::mul ||
                       before.kind == NodeKind::average_pool || before.kind == NodeKind::max_pool;
    if (!takes || before.activation != Activation::none || uses_[node.inputs[0]] != 1) return;
    before.activation = node.activation;
    before.fused.push_back(node.name);
    replace(i, node.inputs[0]);
  }

  // The convolution moves to the place of the add, where the other addend is known. Of two, the later one.
  void fuse_add(int i) {
    const Node add = nodes_[i];
    if (add.kind != NodeKind::add || add.inputs[0] == add.inputs[1]) return;
    const auto takes = [&](int x) {
      return nodes_[x].kind == NodeKind::conv && nodes_[x].activation == Activation::none && nodes_[x].residual == -1 &&
             uses_[x] == 1;
    };
    const int late = std::max(add.inputs[0], add.inputs[1]), early = std::min(add.inputs[0], add.inputs[1]);
    const int conv = takes(late) ? late : takes(early) ? early : kDead;
    if (conv == kDead) return;
    const int other = conv == late ? early : late;
    if (nodes_[other].kind == NodeKind::input) return;  // which is not blocked
    live_[conv] = false;
    nodes_[i] = nodes_[conv];
    nodes_[i].residual = other;
    nodes_[i].activation = add.activation;
    nodes_[i].fused.push_back(add.name);
  }

  // What no output depends on is not executed.
  void drop_dead() {
    std::vector<bool> needed(nodes_.size(), false);
    for (const int output : outputs_) needed[output] = true;
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      const Node& node = nodes_[i];
      live_[i] = live_[i] && (needed[i] || node.kind == NodeKind::input);
      if (!live_[i]) continue;
      for (const int input : node.inputs) needed[input] = true;
      if (node.residual != -1) needed[node.residual] = true;
    }
  }

  std::vector<Node> finish() {
    drop_dead();
    std::vector<Node> result;
    std::vector<int> place(nodes_.size(), kDead);
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      if (!live_[i]) continue;
      Node node = nodes_[i];
      for (int& input : node.inputs) {
        input = place[input];
        const Node& source = result[input];
        if (source.kind == NodeKind::input && node.kind != NodeKind::conv) input = blocked(result, input, node.kind);
      }
      if (node.residual != -1) node.residual = place[node.residual];
      place[i] = static_cast<int>(result.size());
      result.push_back(std::move(node));
    }
    for (const int output : outputs_) {
      int source = place[output];
      if (result[source].kind == NodeKind::input) source = blocked(result, source, NodeKind::to_nhwc);
      result.push_back({NodeKind::to_nhwc, result[source].name, {source}, result[source].out, {}});
    }
    return result;
  }

  int size() const { return static_cast<int>(nodes_.size()); }
  bool live(int i) const { return live_[i]; }

  // By the nodes that an output depends on. What no output depends on is dead.
  void count_uses() {
    uses_.assign(nodes_.size(), 0);
    for (const int output : outputs_) ++uses_[output];
    for (std::size_t i = nodes_.size(); i-- > 0;) {
      live_[i] = live_[i] && (uses_[i] != 0 || nodes_[i].kind == NodeKind::input);
      if (!live_[i]) continue;
      for (const int input : nodes_[i].inputs) ++uses_[input];
    }
  }

 private:
  void replace(int node, int by) {
    for (Node& other : nodes_) std::replace(other.inputs.begin(), other.inputs.end(), node, by);
    std::replace(outputs_.begin(), outputs_.end(), node, by);
    uses_[by] += uses_[node] - 1;
    live_[node] = false;
  }

  // Arithmetic takes denormals for zero. What moves or compares elements would let them through, on some ISAs.
  static bool lets_denormals_through(NodeKind kind) {
    switch (kind) {
      case NodeKind::max_pool:
      case NodeKind::activation:
      case NodeKind::prelu:
      case NodeKind::pad:
      case NodeKind::reshape:
      case NodeKind::channels:
      case NodeKind::upsample:
      case NodeKind::to_nhwc: return true;
      default: return false;
    }
  }

  // The input as a blocked activation, for a reader of this kind.
  static int blocked(std::vector<Node>& result, int input, NodeKind reader) {
    std::size_t i = 0;
    while (i < result.size() && !(result[i].kind == NodeKind::from_nhwc && result[i].inputs[0] == input)) ++i;
    if (i == result.size()) result.push_back({NodeKind::from_nhwc, result[input].name, {input}, result[input].out, {}});
    result[i].flushes |= lets_denormals_through(reader);
    return static_cast<int>(i);
  }

  std::vector<Node> nodes_;
  std::vector<int> outputs_;
  std::vector<bool> live_;
  std::vector<int> uses_;
};

}  // namespace

std::vector<Node> rewrite(const Graph& graph, Fusion fusion) {
  Rewriter rewriter(graph);
  for (int i = 0; i < rewriter.size(); ++i) {
    if (rewriter.live(i)) rewriter.drop_identity(i);
  }
  if (fusion != Fusion::never) {
    for (int i = 0; i < rewriter.size(); ++i) {
      if (rewriter.live(i)) rewriter.fuse_channels(i);
    }
    rewriter.count_uses();
    for (int i = 0; i < rewriter.size(); ++i) {
      if (rewriter.live(i)) rewriter.fuse_pad(i);
      if (rewriter.live(i)) rewriter.fuse_activation(i);
    }
    for (int i = 0; i < rewriter.size(); ++i) {
      if (rewriter.live(i)) rewriter.fuse_add(i);
      if (rewriter.live(i)) rewriter.fuse_activation(i);
    }
  }
  return rewriter.finish();
}

}  // namespace sepconv
