#include "graph/node_ops.h"

namespace sepconv {

RowOpPtr make_op(const Node& n, const std::vector<Node>& nodes, const KernelTable& t) {
  const Node* const source = n.inputs.empty() ? nullptr : &nodes[n.inputs[0]];
  const Shape in = source ? source->out : n.out;
  const Window& w = n.window;
  switch (n.kind) {
    case NodeKind::input: return nullptr;
    case NodeKind::conv: {
      const bool image = source->kind == NodeKind::input;
      return w.pointwise() && !image ? make_pointwise(in, n.gemm, n.out.c, n.activation, t)
                                     : make_conv(in, w, n.gemm, n.out.c, n.activation, image, t);
    }
    case NodeKind::depthwise: return make_depthwise(in, w, n.depthwise, n.multiplier, n.activation, t);
    case NodeKind::add: return make_add(n.out, n.activation, t);
    case NodeKind::mul: return make_mul(n.out, !(nodes[n.inputs[1]].out == n.out), n.activation, t);
    case NodeKind::average_pool:
      return make_pool(in, w, n.include_padding ? PoolKind::average_with_padding : PoolKind::average, n.activation, t);
    case NodeKind::max_pool: return make_pool(in, w, PoolKind::max, n.activation, t);
    case NodeKind::global_average: return make_global_average(in, t);
    case NodeKind::activation: return make_activation(n.out, n.activation, t);
    case NodeKind::softmax: return make_softmax(n.out, n.beta, t);
    case NodeKind::layer_norm: return make_layer_norm(n.out, n.norm, t);
    case NodeKind::prelu: return make_prelu(n.out, *n.slopes, t);
    case NodeKind::pad: return make_pad(in, w.padding, t);
    case NodeKind::reshape: return make_reshape(in, n.out, t);
    case NodeKind::channels: return make_channels(n.out, n.sources, t);
    case NodeKind::upsample: return make_upsample(in, n.out.h, n.out.w, t);
    case NodeKind::from_nhwc: return make_from_nhwc(n.out, n.flushes, t);
    case NodeKind::to_nhwc: return make_to_nhwc(n.out, t);
  }
  return nullptr;
}

bool is_pixelwise(const Node& node, const std::vector<Node>& nodes) {
  const auto single = [](const Shape& s) { return s.h == 1 && s.w == 1; };
  if (node.inputs.empty() || !single(node.out)) return false;
  for (const int input : node.inputs) {
    if (nodes[input].kind == NodeKind::input || !single(nodes[input].out)) return false;
  }
  switch (node.kind) {
    case NodeKind::conv: return node.window.pointwise();
    case NodeKind::add:
    case NodeKind::mul:
    case NodeKind::activation:
    case NodeKind::softmax:
    case NodeKind::layer_norm:
    case NodeKind::prelu:
    case NodeKind::to_nhwc: return true;
    default: return false;
  }
}

}  // namespace sepconv
