#include "pack/pack.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/fp_env.h"

namespace sepconv {
namespace {

constexpr int kPanelsTogether = 8;

// A product that is denormal is zero, as it is to a run.
float fold(float weight, double scale) {
  return without_denormal(static_cast<float>(static_cast<double>(weight) * scale));
}

float float_at(const char* address) {
  float x;
  std::memcpy(&x, address, sizeof x);
  return x;
}

// -0 becomes 0, or a clamp would make that of it on some ISAs and not on others.
float packed_bias(double shift) {
  const float bias = without_denormal(static_cast<float>(shift));
  return bias == 0.0f ? 0.0f : bias;
}

// Whether elements along this axis lie side by side.
bool together(const WeightView& w, int axis) { return w.strides[axis] == static_cast<std::ptrdiff_t>(sizeof(float)); }

// Rows of `width` weights, of which `real` have a scale.
void scale_rows(const double* scale, std::int64_t rows, int real, int width, float* weights) {
  for (std::int64_t r = 0; r < rows; ++r, weights += width) {
    for (int i = 0; i < real; ++i) weights[i] = fold(weights[i], scale[i]);
  }
}

// Copies of a size that the compiler knows are no calls.
template <std::size_t Bytes>
void copy_rows(const char* from, std::ptrdiff_t step, int rows, char* to, std::size_t panel_bytes, int panels) {
  for (int c = 0; c < rows; ++c, from += step, to += Bytes) {
    for (int p = 0; p < panels; ++p) std::memcpy(to + p * panel_bytes, from + p * Bytes, Bytes);
  }
}

// Rows of weights whose outputs lie side by side, into as many full panels. Row by row: a column of panels would meet a
// new page with each row, and no prefetch.
void copy_panels(const WeightView& w, int first, int panels, std::size_t panel_bytes, std::size_t width, char* to) {
  const char* const from = w.address(0, 0, 0, 0) + first * width;
  const int rows = w.dims[2];
  switch (width) {
    case 16: return copy_rows<16>(from, w.strides[2], rows, to, panel_bytes, panels);
    case 32: return copy_rows<32>(from, w.strides[2], rows, to, panel_bytes, panels);
    case 64: return copy_rows<64>(from, w.strides[2], rows, to, panel_bytes, panels);
    case 128: return copy_rows<128>(from, w.strides[2], rows, to, panel_bytes, panels);
    default: break;
  }
  for (int c = 0; c < rows; ++c, to += width) {
    for (int p = 0; p < panels; ++p) std::memcpy(to + p * panel_bytes, from + c * w.strides[2] + p * width, width);
  }
}

// Weights of the outputs [first, first + real), `side_by_side` or not, as rows of `width`, a tap each.
void copy_taps(const WeightView& w, int first, int real, bool side_by_side, int width, float* out) {
  const auto [kh, kw, channels, multiplier] = w.dims;
  for (int r = 0; r < kh; ++r) {
    for (int s = 0; s < kw; ++s, out += width) {
      if (side_by_side) {
        std::memcpy(out, w.address(r, s, first, 0), sizeof(float) * real);
        continue;
      }
      for (int i = 0; i < width; ++i) {
        const int n = first + i;
        out[i] = i < real ? float_at(w.address(r, s, n / multiplier, n % multiplier)) : 0.0f;
      }
    }
  }
}

// Asks every 20 ms whether packing was interrupted.
class Interruptions {
 public:
  explicit Interruptions(bool (*interrupted)()) : interrupted_(interrupted), next_(Clock::now() + kPeriod) {}

  void look() {
    if (!interrupted_ || Clock::now() < next_) return;
    if (interrupted_()) throw Interrupted();
    next_ = Clock::now() + kPeriod;
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr auto kPeriod = std::chrono::milliseconds(20);
  bool (*interrupted_)();
  Clock::time_point next_;
};

const float* as_floats(const char* address) { return reinterpret_cast<const float*>(address); }

}  // namespace

void PackedGemm::lay_out(const WeightView& w) {
  const int v = table_.vector;
  const auto [kh, kw, channels, outputs] = w.dims;
  const std::size_t k = std::size_t{1} * kh * kw * channels;
  blocks_ = (outputs + v - 1) / v;
  panel_vectors_ = table_.panel_vectors;
  panels_ = 1 + std::max(0, blocks_ - table_.gemm_vectors + panel_vectors_ - 1) / panel_vectors_;
  panel_stride_ = (k + 1) * panel_vectors_ * v;
  bytes_ = (k + 1) * blocks_ * v * sizeof(float);
}

PackedGemm::PackedGemm(const WeightView& w, const Affine& affine, const KernelTable& table, WeightStore& store,
                       bool (*interrupted)())
    : table_(table) {
  lay_out(w);
  data_ = store.take(bytes_ / sizeof(float));
  Interruptions interruptions(interrupted);
  for (int p = 0; p < panels(); p += kPanelsTogether) {
    pack(w, affine, p, std::min(kPanelsTogether, panels() - p), data_ + p * panel_stride_);
    interruptions.look();
  }
}

PackedGemm::PackedGemm(const WeightView& w, Affine affine, const KernelTable& table)
    : table_(table), source_(w), affine_(std::move(affine)) {
  lay_out(w);
}

void PackedGemm::pack(const WeightView& w, const Affine& affine, int first_panel, int count, float* to) const {
  const int v = table_.vector;
  const auto [kh, kw, channels, outputs] = w.dims;
  // Full panels of a 1×1 window, their outputs side by side.
  const int end = first_panel + count;
  const int alike = outputs / (panel_vectors_ * v) - (vectors(panels_ - 1) > panel_vectors_);
  const int full = kh * kw == 1 && together(w, 3) ? std::min(end, alike) : 0;
  for (int p = first_panel; p < full; p += kPanelsTogether) {
    copy_panels(w, p, std::min(kPanelsTogether, full - p), panel_bytes(), sizeof(float) * panel_vectors_ * v,
                reinterpret_cast<char*>(to + (p - first_panel) * panel_stride_ + panel_vectors_ * v));
  }
  for (int p = first_panel; p < end; ++p) {
    const int width = vectors(p) * v;
    const int first = first_block(p) * v;
    const int real = std::min(width, outputs - first);
    float* const out = to + (p - first_panel) * panel_stride_;
    for (int i = 0; i < width; ++i) out[i] = i < real ? packed_bias(affine.shift[first + i]) : 0.0f;
    if (p >= full) pack_panel(w, first, real, width, out + width);
    if (affine.scale.empty()) continue;
    scale_rows(affine.scale.data() + first, std::int64_t{1} * kh * kw * channels, real, width, out + width);
  }
}

// Outputs [first, first + real) as a panel of `width`, unscaled.
void PackedGemm::pack_panel(const WeightView& w, int first, int real, int width, float* out) const {
  const auto [kh, kw, channels, outputs] = w.dims;
  constexpr auto kFloat = static_cast<std::ptrdiff_t>(sizeof(float));
  const bool by_outputs = together(w, 3), by_channels = together(w, 2) && w.strides[3] % kFloat == 0;
  for (int r = 0; r < kh; ++r) {
    for (int s = 0; s < kw; ++s) {
      if (by_channels && !by_outputs) {
        table_.transpose_f32(as_floats(w.address(r, s, 0, first)), w.strides[3] / kFloat, out, width, real, channels);
      }
      for (int c = 0; c < channels; ++c, out += width) {
        const char* const source = w.address(r, s, c, first);
        if (by_outputs) {
          std::memcpy(out, source, sizeof(float) * real);
        } else if (!by_channels) {
          for (int i = 0; i < real; ++i) out[i] = float_at(source + i * w.strides[3]);
        }
        if (real < width) std::memset(out + real, 0, sizeof(float) * (width - real));
      }
    }
  }
}

PackedDepthwise::PackedDepthwise(const WeightView& w, const Affine& affine, const KernelTable& table, WeightStore& store,
                                 bool overlapping, bool (*interrupted)()) {
  const int v = vector_ = table.vector;
  const auto [kh, kw, channels, multiplier] = w.dims;
  const int outputs = channels * multiplier;
  const int blocks = (outputs + v - 1) / v;
  const std::size_t taps = std::size_t{1} * kh * kw;
  block_stride_ = (taps + 1) * v;
  bytes_ = block_stride_ * blocks * sizeof(float);
  data_ = store.take(block_stride_ * blocks);

  Interruptions interruptions(interrupted);
  float* out = data_;
  for (int b = 0; b < blocks; ++b) {
    interruptions.look();
    const int first = overlapping && outputs >= v ? std::min(b * v, outputs - v) : b * v;
    for (int i = 0; i < v; ++i, ++out) {
      const int n = first + i;
      *out = n < outputs ? packed_bias(affine.shift[n]) : 0.0f;
    }
    const int real = std::min(v, outputs - first);
    const bool whole = multiplier == 1 && real == v;
    float* const begin = out;
    out += taps * v;
    if (whole && together(w, 1) && w.strides[0] == kw * w.strides[1] && w.strides[2] % w.strides[1] == 0) {
      table.transpose_f32(as_floats(w.address(0, 0, first, 0)), w.strides[2] / w.strides[1], begin, v, v, kh * kw);
    } else {
      copy_taps(w, first, real, whole && together(w, 2), v, begin);
    }
    if (!affine.scale.empty()) scale_rows(affine.scale.data() + first, kh * kw, real, v, begin);
  }
}

AlignedBuffer PackedDepthwise::with_second_at(int second) const {
  const auto v = static_cast<std::size_t>(vector_), from = static_cast<std::size_t>(second);
  const std::size_t rows = block_stride_ / v, blocks = bytes_ / sizeof(float) / block_stride_;
  AlignedBuffer memory = AlignedBuffer::of_floats((blocks + 1) * block_stride_);
  std::copy_n(data_, block_stride_, memory.floats());
  for (std::size_t b = 0; b + 1 < blocks; ++b) {
    for (std::size_t r = 0; r < rows; ++r) {
      const float* const left = data_ + b * block_stride_ + r * v;
      float* const to = memory.floats() + (b + 1) * block_stride_ + r * v;
      std::copy_n(left + from, v - from, to);
      std::copy_n(left + block_stride_, from, to + v - from);
    }
  }
  std::copy_n(data_ + (blocks - 1) * block_stride_, block_stride_, memory.floats() + blocks * block_stride_);
  return memory;
}

}  // namespace sepconv
