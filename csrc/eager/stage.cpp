#include "eager/stage.h"

#include <algorithm>
#include <cstdint>

#include "runtime/kept_memory.h"

namespace sepconv {
namespace {

Affine affine(const float* bias, int first, int outputs) {
  Affine result{{}, std::vector<double>(outputs, 0.0)};
  if (bias) std::copy(bias + first, bias + first + outputs, result.shift.begin());
  return result;
}

// Of weights that were packed for one call.
constinit KeptMemory weight_memory{std::size_t{32} << 20};

AlignedBuffer memory_for(WeightKind kind, const WeightView& w, int groups, int vector) {
  const auto [kh, kw, channels, last] = w.dims;
  const std::size_t window = std::size_t{1} * kh * kw;
  const auto blocks = [&](int n) { return (static_cast<std::size_t>(n) + vector - 1) / vector; };
  const std::size_t floats = kind == WeightKind::depthwise ? (window + 1) * blocks(channels) * vector
                                                           : ((window * channels + 1) * blocks(last / groups) * vector + 15) * groups;
  const std::size_t bytes = floats * sizeof(float) + kAlignment;
  // What is kept for good should not be much larger than what it holds.
  return weight_memory.take(bytes, bytes > SIZE_MAX / 4 ? SIZE_MAX : 4 * bytes);
}

// Weights are rather packed by parts, which stay in L2 until they are multiplied and which threads divide among
// themselves, though each strip of rows packs them anew. Of 960 × 320 on 7×7 pixels and two threads that takes 50 µs where
// all at once take 150.
constexpr std::int64_t kFewPixels = 1024;
constexpr std::size_t kManyWeights = 80 << 10;

bool packed_later(WeightKind kind, const WeightView& w, std::int64_t pixels) {
  return kind == WeightKind::pointwise && pixels > 0 && pixels <= kFewPixels &&
         static_cast<std::size_t>(w.dims[2]) * w.dims[3] >= kManyWeights;
}

}  // namespace

EagerWeights::~EagerWeights() {
  weight_memory.give(store_.release());
  for (auto& shifted : shifted_) delete shifted.load(std::memory_order_relaxed);
}

EagerWeights::EagerWeights(WeightKind k, const WeightView& w, const float* bias, int group_count, std::int64_t pixels,
                           const KernelTable& table, bool (*interrupted)())
    : kind(k), kh(w.dims[0]), kw(w.dims[1]), inputs(k == WeightKind::depthwise ? 0 : w.dims[2] * group_count),
      outputs(w.dims[k == WeightKind::depthwise ? 2 : 3]), groups(group_count),
      store_(packed_later(k, w, pixels) ? AlignedBuffer() : memory_for(k, w, group_count, table.vector)) {
  if (packed_later(kind, w, pixels)) {
    gemm.push_back(std::make_unique<PackedGemm>(w, affine(bias, 0, outputs), table));
    return;
  }
  if (kind == WeightKind::depthwise) {
    depthwise = std::make_unique<PackedDepthwise>(w, affine(bias, 0, outputs), table, store_, true, interrupted);
    return;
  }
  const int each = outputs / groups;
  for (int g = 0; g < groups; ++g) {
    WeightView part = w;
    part.data += g * each * w.strides[3];
    part.dims[3] = each;
    gemm.push_back(std::make_unique<PackedGemm>(part, affine(bias, g * each, each), table, store_, interrupted));
  }
}

const float* EagerWeights::depthwise_with_second_at(int second) const noexcept {
  std::atomic<AlignedBuffer*>& kept = shifted_[static_cast<std::size_t>(second)];
  AlignedBuffer* there = kept.load(std::memory_order_acquire);
  if (there) return there->floats();
  try {
    auto made = std::make_unique<AlignedBuffer>(depthwise->with_second_at(second));
    if (!kept.compare_exchange_strong(there, made.get(), std::memory_order_acq_rel)) return there->floats();
    return made.release()->floats();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

Stage::Stage(Shape shape, std::shared_ptr<const EagerWeights> weights, const Window& w, Activation activation,
             const KernelTable& table)
    : in(shape), window(w), table_(table), weights_(std::move(weights)), epilogue_(activation) {
  out = {w.out_h(in.h), w.out_w(in.w), weights_->outputs};
  part_channels = out.c;
  for (const auto& packed : weights_->gemm) weight_bytes += packed->bytes();
}

RowRange Stage::input_rows(int y0, int y1) const {
  const int first = y0 * window.stride_h - window.padding.top;
  const int last = (y1 - 1) * window.stride_h - window.padding.top + (window.kh - 1) * window.dilation_h + 1;
  return {std::clamp(first, 0, in.h), std::clamp(last, 0, in.h)};
}

void Stage::activate(float* pixels, std::ptrdiff_t pixel, std::int64_t count, int channels) const noexcept {
  if (epilogue_.pass == Activation::none) return;
  for (std::int64_t i = 0; i < count; ++i) {
    table_.activate_f32(epilogue_.pass, pixels + i * pixel, pixels + i * pixel, channels);
  }
}

}  // namespace sepconv
