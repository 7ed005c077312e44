// Dense convolution of an NHWC image, as a network's first layer: an implicit GEMM that reads the image where it lies. Of
// the pixels of a tile each row of the window is one run of k (several where dilation parts the columns). A tile whose
// window leaves the image runs on a small zero-padded copy of what it sees.
#include <vector>

#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

class ImageConv final : public GemmOp {
 public:
  ImageConv(Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
            const KernelTable& t)
      : GemmOp("conv", shape, w, std::move(packed), outputs, activation, t) {
    split = Split::rows;
    patch_columns_ = (tile_rows_ - 1) * w.stride_w + (w.kw - 1) * w.dilation_w + 1;
    patch_row_ = std::ptrdiff_t{1} * patch_columns_ * in.c;
    scratch_floats = static_cast<std::size_t>(w.kh) * patch_row_;
    in_image_ = segments(std::ptrdiff_t{1} * w.dilation_h * in.w * in.c);
    in_patch_ = segments(patch_row_);
  }

  void run(const RowTask& task) const noexcept override {
    const Tiles tiles(out.w, tile_rows_);
    // The image is new to the caches: during one row of output, the rows that the next one sees first.
    const Prefetch prefetch(sizeof(float) * window.stride_h * in.w * in.c, tiles.count(), window.kh * window.kw * in.c);
    for (int y = task.y0; y < task.y1; ++y) {
      for (int i = 0; i < tiles.count();) i += multiply_tiles(task, y, tiles, prefetch, i);
    }
  }

 private:
  std::vector<Segment> segments(std::ptrdiff_t row) const {
    const bool together = window.dilation_w == 1;
    std::vector<Segment> result;
    for (int r = 0; r < window.kh; ++r) {
      for (int s = 0; s < (together ? 1 : window.kw); ++s) {
        result.push_back({r * row + std::ptrdiff_t{1} * s * window.dilation_w * in.c, (together ? window.kw : 1) * in.c});
      }
    }
    return result;
  }

  // Tile i of row y and those after it that can go with it. Returns how many.
  int multiply_tiles(const RowTask& task, int y, const Tiles& tiles, const Prefetch& prefetch, int i) const noexcept {
    const int first = tiles.begin(i), rows = tiles.height(i);
    const int top = y * window.stride_h - window.padding.top, left = first * window.stride_w - window.padding.left;
    const int columns = (rows - 1) * window.stride_w + (window.kw - 1) * window.dilation_w + 1;
    const bool inside = top >= 0 && top + (window.kh - 1) * window.dilation_h < in.h && left >= 0 && left + columns <= in.w;
    const int further = inside ? (in.w - left - columns) / (rows * window.stride_w) : 0;
    if (!inside) {
      copy_patch(window, in, [&](int row) { return task.in.at(0, row); }, in.c, top, left, columns, task.scratch, patch_row_);
    }
    const std::vector<Segment>& segments = inside ? in_image_ : in_patch_;
    const std::ptrdiff_t a_step = std::ptrdiff_t{1} * window.stride_w * in.c;
    GemmTile g = tile_of(task, segments.data(), static_cast<int>(segments.size()), a_step);
    g.tiles = std::min(1 + further, tiles.same_height(i, tiles.count()) - i);
    g.a = inside ? task.in.at(0, top) + std::ptrdiff_t{1} * left * in.c : task.scratch;
    prefetch.set(g, task.in.data + std::ptrdiff_t{1} * (top + window.kh) * in.w * in.c, i);
    const std::ptrdiff_t to = std::ptrdiff_t{1} * first * table_.vector;
    float* const c = task.out.at(0, y) + to;
    const float* const residual = task.other.data ? task.other.at(0, y) + to : nullptr;
    for (int p = task.part0; p < task.part1; ++p) multiply(g, task, p, rows, c, residual);
    return g.tiles;
  }

  std::vector<Segment> in_image_, in_patch_;
  int patch_columns_;
  std::ptrdiff_t patch_row_;
};

}  // namespace

RowOpPtr make_image_conv(Shape in, const Window& window, std::shared_ptr<const PackedGemm> packed, int outputs,
                         Activation activation, const KernelTable& table) {
  const Window& w = window;
  const double columns = (table.gemm_rows[packed->vectors(0) - 1] - 1.0) * w.stride_w + (w.kw - 1.0) * w.dilation_w + 1;
  if (worth_gathering(w.kh * columns * in.c, double{1} * in.h * in.w * in.c, double{1} * w.kh * w.kw * in.c)) {
    return make_gathered_conv(in, window, std::move(packed), outputs, activation, true, table);
  }
  RowOpPtr paired = make_paired_image_conv(in, window, packed, outputs, activation, table);
  if (paired) return paired;
  return std::make_unique<ImageConv>(in, window, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
