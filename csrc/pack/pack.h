// Weights as the kernels read them: biases and weights of one tile side by side, BatchNorm folded in. Biases and what is
// folded have no denormals.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/table.h"
#include "pack/weight_store.h"

namespace sepconv {

// float32 weights somewhere in memory: dense [kh, kw, C, N], depthwise [kh, kw, C, M]. Strides in bytes, of any sign.
struct WeightView {
  const char* data;
  std::array<std::ptrdiff_t, 4> strides;
  std::array<int, 4> dims;

  const char* address(int r, int s, int c, int n) const {
    return data + r * strides[0] + s * strides[1] + c * strides[2] + n * strides[3];
  }
};

// What a convolution adds to its sums, an output channel each: out = scale·Σ(w·x) + shift. From bias and BatchNorm. Without
// scales weights are taken as they are, which is fast where they are float-aligned and channels or taps lie together.
struct Affine {
  std::vector<double> scale, shift;
};

struct Interrupted {};  // thrown where packing was interrupted

// Panels of panel_vectors·V output channels: bias, then for each k = (r, s, c) the panel's weights. The last has those that
// are left, up to gemm_vectors·V. The store must outlive it, as it must PackedDepthwise.
class PackedGemm {
 public:
  // `interrupted` (or nullptr) is asked now and then; true ends it by Interrupted. Throws std::bad_alloc.
  PackedGemm(const WeightView& weights, const Affine& affine, const KernelTable& table, WeightStore& store,
             bool (*interrupted)() = nullptr);
  // Packs nothing: pack() does when a panel is needed, from the same weights, which must still be there.
  PackedGemm(const WeightView& weights, Affine affine, const KernelTable& table);

  bool later() const { return data_ == nullptr; }
  // Panels [first, first + count) to `to`, panel_bytes() apart.
  void pack(int first, int count, float* to) const { pack(source_, affine_, first, count, to); }
  // The same of any other weights of these sizes.
  void pack(const WeightView& weights, const Affine& affine, int first_panel, int count, float* to) const;

  int panels() const { return panels_; }
  int vectors(int panel) const { return panel + 1 < panels_ ? panel_vectors_ : blocks_ - panel * panel_vectors_; }
  const float* panel(int p) const { return data_ + p * panel_stride_; }
  int first_block(int panel) const { return panel * panel_vectors_; }
  std::size_t panel_bytes() const { return panel_stride_ * sizeof(float); }
  // What pack() writes at most for so many panels: the last one can be longer than the others, or shorter.
  std::size_t floats(int count) const {
    return (count - 1) * panel_stride_ + std::max(panel_stride_, bytes_ / sizeof(float) - (panels_ - 1) * panel_stride_);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  void lay_out(const WeightView& weights);
  void pack_panel(const WeightView& weights, int first, int real, int width, float* out) const;

  const KernelTable& table_;
  int blocks_, panels_, panel_vectors_;
  std::size_t panel_stride_, bytes_;
  float* data_ = nullptr;
  WeightView source_{};
  Affine affine_;
};

// One block of V output channels after the other: bias[V], then [kh][kw][V]. The last begins where the one before ends, or
// (`overlapping`, where there are V channels) V before the end.
class PackedDepthwise {
 public:
  // Throws std::bad_alloc, and Interrupted as PackedGemm does.
  PackedDepthwise(const WeightView& weights, const Affine& affine, const KernelTable& table, WeightStore& store,
                  bool overlapping = false, bool (*interrupted)() = nullptr);

  const float* block(int b) const { return data_ + b * block_stride_; }
  std::size_t bytes() const { return bytes_; }

  // Of whole blocks alone: the same channels in one block more, of which the second begins at channel `second`, between 0 and
  // V, and the last V before the end.
  AlignedBuffer with_second_at(int second) const;

 private:
  int vector_;
  std::size_t block_stride_, bytes_;
  float* data_;
};

}  // namespace sepconv
