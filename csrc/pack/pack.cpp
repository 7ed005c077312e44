#include "pack/pack.h"

#include <cstring>

#include "base/fp_env.h"

namespace sepconv {
namespace {

float fold(const char* weight, double scale) {
  float w;
  std::memcpy(&w, weight, sizeof w);
  // A denormal weight would slow down every product it meets, and a run takes it for zero anyway.
  return without_denormal(static_cast<float>(static_cast<double>(w) * scale));
}

}  // namespace

PackedGemm::PackedGemm(const WeightView& w, const Affine& affine, const KernelTable& table, WeightStore& store) {
  const int v = table.vector;
  const auto [kh, kw, channels, outputs] = w.dims;
  const std::size_t k = std::size_t{1} * kh * kw * channels;
  blocks_ = (outputs + v - 1) / v;
  panel_vectors_ = table.gemm_vectors;
  panel_stride_ = (k + 1) * panel_vectors_ * v;
  const std::size_t floats = (k + 1) * blocks_ * v;
  bytes_ = floats * sizeof(float);
  data_ = store.take(floats);

  for (int p = 0; p < panels(); ++p) {
    const int width = vectors(p) * v;
    const int first = first_block(p) * v;
    const int real = std::min(width, outputs - first);
    float* out = data_ + p * panel_stride_;
    for (int i = 0; i < width; ++i) out[i] = i < real ? without_denormal(static_cast<float>(affine.shift[first + i])) : 0.0f;
    out += width;
    for (int r = 0; r < kh; ++r) {
      for (int s = 0; s < kw; ++s) {
        for (int c = 0; c < channels; ++c, out += width) {
          const char* source = w.address(r, s, c, first);
          for (int i = 0; i < real; ++i) out[i] = fold(source + i * w.strides[3], affine.scale[first + i]);
          for (int i = real; i < width; ++i) out[i] = 0.0f;
        }
      }
    }
  }
}

PackedDepthwise::PackedDepthwise(const WeightView& w, const Affine& affine, const KernelTable& table, WeightStore& store) {
  const int v = table.vector;
  const auto [kh, kw, channels, multiplier] = w.dims;
  const int outputs = channels * multiplier;
  const int blocks = (outputs + v - 1) / v;
  const std::size_t taps = std::size_t{1} * kh * kw;
  block_stride_ = (taps + 1) * v;
  bytes_ = block_stride_ * blocks * sizeof(float);
  data_ = store.take(block_stride_ * blocks);

  float* out = data_;
  for (int b = 0; b < blocks; ++b) {
    for (int i = 0; i < v; ++i, ++out) {
      const int n = b * v + i;
      *out = n < outputs ? without_denormal(static_cast<float>(affine.shift[n])) : 0.0f;
    }
    for (int r = 0; r < kh; ++r) {
      for (int s = 0; s < kw; ++s) {
        for (int i = 0; i < v; ++i, ++out) {
          const int n = b * v + i;
          *out = n < outputs ? fold(w.address(r, s, n / multiplier, n % multiplier), affine.scale[n]) : 0.0f;
        }
      }
    }
  }
}

}  // namespace sepconv
