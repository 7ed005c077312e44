// Dense convolution whose zero-padded rows would be far larger than the image: of great padding, strides or dilation.
// The pixels that the windows of a tile meet are gathered tap by tap, [pixel][kh][kw][plane][channel], so that scratch
// follows the weights and not the padding. The order of k, and so each bit, is that of the other convolutions.
#include <cstring>
#include <vector>

#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

class GatheredConv final : public GemmOp {
 public:
  // `image`: of an NHWC image, whose channels are one plane of pixels.
  GatheredConv(Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs,
               Activation activation, bool image, const KernelTable& t)
      : GemmOp("conv", shape, w, std::move(packed), outputs, activation, t) {
    split = Split::rows;
    planes_ = image ? 1 : blocks_of(in.c, t);
    pixel_ = image ? in.c : t.vector;
    tap_ = std::ptrdiff_t{1} * planes_ * pixel_;
    a_step_ = tap_ * w.kh * w.kw;
    height_ = gathered_rows(std::min(tile_rows_, out.w), static_cast<double>(a_step_));
    scratch_floats = static_cast<std::size_t>(height_ * a_step_);
    for (int tap = 0; tap < w.kh * w.kw; ++tap) {
      for (int b = 0; b < planes_; ++b) {
        segments_.push_back({tap * tap_ + b * pixel_, std::min(pixel_, in.c - b * pixel_)});
      }
    }
  }

  void run(const RowTask& task) const noexcept override {
    const Tiles tiles(out.w, height_);
    GemmTile g = tile_of(task, segments_.data(), static_cast<int>(segments_.size()), a_step_);
    g.a = task.scratch;
    g.prefetch = task.scratch;
    g.prefetch_step = 0;
    for (int y = task.y0; y < task.y1; ++y) {
      for (int i = 0; i < tiles.count(); ++i) {
        gather(task, y, tiles.begin(i), tiles.height(i));
        const std::ptrdiff_t to = std::ptrdiff_t{1} * tiles.begin(i) * table_.vector;
        const float* const residual = task.other.data ? task.other.at(0, y) + to : nullptr;
        float* const c = task.out.at(0, y) + to;
        for (int p = task.part0; p < task.part1; ++p) multiply(g, task, p, tiles.height(i), c, residual);
      }
    }
  }

 private:
  void gather(const RowTask& task, int y, int first, int pixels) const noexcept {
    float* to = task.scratch;
    for (int i = first; i < first + pixels; ++i) {
      for (int r = 0; r < window.kh; ++r) {
        const int row = y * window.stride_h - window.padding.top + r * window.dilation_h;
        for (int s = 0; s < window.kw; ++s, to += tap_) {
          const int column = i * window.stride_w - window.padding.left + s * window.dilation_w;
          if (row < 0 || row >= in.h || column < 0 || column >= in.w) {
            std::memset(to, 0, sizeof(float) * tap_);
            continue;
          }
          const std::ptrdiff_t at = std::ptrdiff_t{1} * column * pixel_;
          for (int b = 0; b < planes_; ++b) {
            std::memcpy(to + b * pixel_, task.in.at(b, row) + at, sizeof(float) * pixel_);
          }
        }
      }
    }
  }

  std::vector<Segment> segments_;
  int planes_, pixel_, height_;
  std::ptrdiff_t tap_, a_step_;  // floats of a tap, and of all taps of a pixel
};

}  // namespace

RowOpPtr make_gathered_conv(Shape in, const Window& window, std::shared_ptr<const PackedGemm> packed, int outputs,
                            Activation activation, bool image, const KernelTable& table) {
  return std::make_unique<GatheredConv>(in, window, std::move(packed), outputs, activation, image, table);
}

}  // namespace sepconv
