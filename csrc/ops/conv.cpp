// Dense convolution as an implicit GEMM: k runs over (row, column, channel) of the window, one segment for each run of k
// that lies together. The rows at hand are first copied with their padding, some rows of output at a time.
#include <cstring>
#include <vector>

#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

constexpr int kStripPixels = 128;  // output pixels for which one panel of weights is used while in L1

int strip_rows(const Shape& out) { return std::min(out.h, std::max(1, kStripPixels / out.w)); }

class Conv final : public GemmOp {
 public:
  Conv(Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
       const KernelTable& t)
      : GemmOp("conv", shape, w, std::move(packed), outputs, activation, t) {
    split = Split::rows;
    k_ = w.kh * w.kw * in.c;
    planes_ = blocks_of(in.c, t);
    pixel_ = t.vector;
    row_ = std::ptrdiff_t{1} * (in.w + w.padding.left + w.padding.right) * pixel_;
    strip_rows_ = strip_rows(out);
    const int rows = input_span(strip_rows_);
    plane_ = rows * row_;
    scratch_floats = static_cast<std::size_t>(planes_ * plane_);

    for (int r = 0; r < w.kh; ++r) {
      const std::ptrdiff_t row = r * w.dilation_h * row_;
      for (int s = 0; s < w.kw; ++s) {
        for (int b = 0; b < planes_; ++b) {
          segments_.push_back({row + s * w.dilation_w * pixel_ + b * plane_, std::min(t.vector, in.c - b * t.vector)});
        }
      }
    }
  }

  void run(const RowTask& task) const noexcept override {
    for (int y = task.y0; y < task.y1; y += strip_rows_) {
      const int rows = std::min(strip_rows_, task.y1 - y);
      copy_padded(task, y, rows);
      for (int p = task.part0; p < task.part1; ++p) {
        for (int i = 0; i < rows; ++i) multiply_row(task, p, y, i);
      }
    }
  }

 private:
  int input_span(int rows) const { return (rows - 1) * window.stride_h + (window.kh - 1) * window.dilation_h + 1; }

  void copy_padded(const RowTask& task, int y, int rows) const noexcept {
    const std::ptrdiff_t left = window.padding.left * pixel_, middle = std::ptrdiff_t{1} * in.w * pixel_;
    const std::ptrdiff_t right = window.padding.right * pixel_;
    const int first = y * window.stride_h - window.padding.top;
    for (int b = 0; b < planes_; ++b) {
      for (int i = 0; i < input_span(rows); ++i) {
        float* to = task.scratch + b * plane_ + i * row_;
        if (first + i < 0 || first + i >= in.h) {
          std::memset(to, 0, sizeof(float) * row_);
          continue;
        }
        std::memset(to, 0, sizeof(float) * left);
        std::memcpy(to + left, task.in.at(b, first + i), sizeof(float) * middle);
        std::memset(to + left + middle, 0, sizeof(float) * right);
      }
    }
  }

  void multiply_row(const RowTask& task, int p, int y, int i) const noexcept {
    const Tiles tiles(out.w, tile_rows_);
    const Prefetch prefetch = weight_prefetch(packed_->panel_bytes(), tiles.count(), k_);
    const std::ptrdiff_t a_step = std::ptrdiff_t{1} * window.stride_w * pixel_;
    GemmTile g = tile_of(task, segments_.data(), static_cast<int>(segments_.size()), a_step);
    for (int tile = 0; tile < tiles.count(); ++tile) {
      const std::ptrdiff_t first = tiles.begin(tile), to = first * table_.vector;
      g.a = task.scratch + i * window.stride_h * row_ + first * a_step;
      prefetch.set(g, packed_->panel(p + 1), tile);
      const float* const residual = task.other.data ? task.other.at(0, y + i) + to : nullptr;
      multiply(g, task, p, tiles.height(tile), task.out.at(0, y + i) + to, residual);
    }
  }

  std::vector<Segment> segments_;
  int k_, planes_, pixel_, strip_rows_;
  std::ptrdiff_t row_, plane_;  // of the padded copy, in floats
};

}  // namespace

RowOpPtr make_conv(Shape in, const Window& window, std::shared_ptr<const PackedGemm> packed, int outputs,
                   Activation activation, const KernelTable& table) {
  const Window& w = window;
  const double pixel = double{1} * blocks_of(in.c, table) * table.vector;
  const int strip = strip_rows({w.out_h(in.h), w.out_w(in.w), 1});
  const double rows = (strip - 1.0) * w.stride_h + (w.kh - 1.0) * w.dilation_h + 1;
  const double padded = rows * (double{1} * in.w + w.padding.left + w.padding.right) * pixel;
  if (worth_gathering(padded, pixel * in.h * in.w, pixel * w.kh * w.kw)) {
    return make_gathered_conv(in, window, std::move(packed), outputs, activation, false, table);
  }
  return std::make_unique<Conv>(in, window, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
