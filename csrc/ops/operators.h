// The operators of a plan; each is a file of its own. All throw std::bad_alloc only: shapes were checked in graph/.
#pragma once

#include <memory>
#include <vector>

#include "ops/row_op.h"
#include "pack/pack.h"

namespace sepconv {

using RowOpPtr = std::unique_ptr<RowOp>;

// 1×1 convolution at stride 1 without padding: a GEMM over all pixels. The residual, if a task brings one, is added
// before the activation.
RowOpPtr make_pointwise(Shape in, std::shared_ptr<const PackedGemm>, int outputs, Activation, const KernelTable&);

// Any dense convolution, as an implicit GEMM over a zero-padded copy of the input rows at hand; `image`: of an NHWC image rather
// than a blocked activation.
RowOpPtr make_conv(Shape in, const Window&, std::shared_ptr<const PackedGemm>, int outputs, Activation, bool image,
                   const KernelTable&);

// The same over an NHWC image that is read where it lies, but where make_conv finds a copy better.
RowOpPtr make_image_conv(Shape in, const Window&, std::shared_ptr<const PackedGemm>, int outputs, Activation,
                         const KernelTable&);

// The same to as few outputs as half a vector has; nullptr where image or window are none that it takes.
RowOpPtr make_paired_image_conv(Shape in, const Window&, std::shared_ptr<const PackedGemm>, int outputs, Activation,
                                const KernelTable&);

// What both do themselves where padded rows would be far larger than the image; `image`: of an NHWC one.
RowOpPtr make_gathered_conv(Shape in, const Window&, std::shared_ptr<const PackedGemm>, int outputs, Activation,
                            bool image, const KernelTable&);

// Depthwise convolution, out.c = in.c · multiplier.
RowOpPtr make_depthwise(Shape in, const Window&, std::shared_ptr<const PackedDepthwise>, int multiplier, Activation,
                        const KernelTable&);

enum class PoolKind { average, average_with_padding, max };
RowOpPtr make_pool(Shape in, const Window&, PoolKind, Activation, const KernelTable&);
RowOpPtr make_global_average(Shape in, const KernelTable&);

RowOpPtr make_add(Shape, Activation, const KernelTable&);
// a·b, b of the same shape or (`scales`) one pixel that scales each channel of a.
RowOpPtr make_mul(Shape, bool scales, Activation, const KernelTable&);
RowOpPtr make_activation(Shape, Activation, const KernelTable&);
// x < 0 ? slope·x : x, a slope for each channel.
RowOpPtr make_prelu(Shape, const std::vector<float>& slopes, const KernelTable&);
RowOpPtr make_softmax(Shape, float beta, const KernelTable&);
// (x - mean)/√(variance + epsilon)·scale + bias over the channels of each pixel.
struct LayerNorm {
  std::vector<float> scale, bias;
  double epsilon;
};
RowOpPtr make_layer_norm(Shape, std::shared_ptr<const LayerNorm>, const KernelTable&);

// Between layouts, and what moves elements about. `flush`: denormals become zeros of their sign.
RowOpPtr make_from_nhwc(Shape, bool flush, const KernelTable&);
RowOpPtr make_to_nhwc(Shape, const KernelTable&);
RowOpPtr make_pad(Shape in, const Padding&, const KernelTable&);
RowOpPtr make_reshape(Shape in, Shape out, const KernelTable&);
RowOpPtr make_upsample(Shape in, int height, int width, const KernelTable&);

// Channels put together from those of several inputs: a concatenation, a slice, a shuffle, or any of them in sequence.
inline constexpr int kMaxChannelInputs = 16;
struct ChannelSource {
  int input, channel;
};
RowOpPtr make_channels(Shape out, const std::vector<ChannelSource>&, const KernelTable&);

}  // namespace sepconv
