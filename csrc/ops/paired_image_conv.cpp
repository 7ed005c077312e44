// Dense convolution of an NHWC image to as few channels as half a vector has: the pixels of the left half of an output row,
// each in a vector with its counterpart of the right half (kernels/gemm_pairs.h). Rows of input are interleaved likewise, with
// their padding, each once as long as windows meet it.
#include <algorithm>
#include <vector>

#include "base/aligned.h"
#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

constexpr int kMaxRows = 8;  // of a window

class PairedImageConv final : public GemmOp {
 public:
  PairedImageConv(Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
                  const KernelTable& t)
      : GemmOp("conv", shape, w, std::move(packed), outputs, activation, t) {
    const int channels = t.vector / 2;
    kernel = "conv_pairs_f32_" + std::to_string(2 * t.pair_rows) + "x" + std::to_string(channels) + "__" + t.isa;
    split = Split::rows;
    pairs_ = (out.w + 1) / 2;
    to_second_ = out.w - pairs_;
    run_ = w.kw * in.c;
    length_ = std::ptrdiff_t{1} * (pairs_ - 1) * kImageStep + run_;
    row_ = (2 * length_ + kCacheLine - 1) / kCacheLine * kCacheLine;
    scratch_floats = static_cast<std::size_t>(w.kh * row_);

    const std::ptrdiff_t lines = 1 + std::ptrdiff_t{1} * w.kh * run_;
    twice_ = AlignedBuffer::of_floats(lines * t.vector);
    for (std::ptrdiff_t line = 0; line < lines; ++line) {
      const float* const from = packed_->panel(0) + line * t.vector;
      t.interleave_f32(from, from, twice_.floats() + line * t.vector, channels);
    }
  }

  void run(const RowTask& task) const noexcept override {
    const Tiles tiles(pairs_, table_.pair_rows);
    Segment segments[kMaxRows];
    GemmTile g = tile_of(task, segments, window.kh, 0);
    g.b = twice_.floats();
    g.c_plane = g.residual_plane = std::ptrdiff_t{1} * to_second_ * table_.vector;
    // The image is new to the caches: during one row of output, the rows that the next one sees first.
    const Prefetch prefetch(sizeof(float) * window.stride_h * in.w * in.c, tiles.count(), window.kh * run_);
    int done = 0;  // rows of the image, with its padding, that were interleaved
    for (int y = task.y0; y < task.y1; ++y) {
      const int top = y * window.stride_h;
      for (int r = std::max(done, top); r < top + window.kh; ++r) interleave(task, r, slot(task, r));
      done = top + window.kh;
      for (int r = 0; r < window.kh; ++r) segments[r] = {slot(task, top + r) - task.scratch, run_};
      for (int i = 0; i < tiles.count(); i += g.tiles) {
        const std::ptrdiff_t first = tiles.begin(i);
        g.tiles = tiles.same_height(i, tiles.count()) - i;
        g.a = task.scratch + first * 2 * kImageStep;
        g.c = task.out.at(0, y) + first * table_.vector;
        if (task.other.data) g.residual = task.other.at(0, y) + first * table_.vector;
        prefetch.set(g, task.in.data + std::ptrdiff_t{1} * (done - window.padding.top) * in.w * in.c, i);
        table_.gemm_pairs_f32[tiles.height(i) - 1](g);
      }
      if (epilogue_.pass != Activation::none) {
        float* const row = task.out.at(0, y);
        table_.activate_f32(epilogue_.pass, row, row, std::int64_t{1} * out.w * table_.vector);
      }
    }
  }

 private:
  static constexpr int kCacheLine = 16;  // floats

  float* slot(const RowTask& task, int row) const { return task.scratch + row % window.kh * row_; }

  // Row `row` of the image with its padding: what the pixels of the left half meet, and those of the right half.
  void interleave(const RowTask& task, int row, float* to) const noexcept {
    const int y = row - window.padding.top;
    if (y < 0 || y >= in.h) {
      std::fill_n(to, 2 * length_, 0.0f);
      return;
    }
    const float* const from = task.in.at(0, y);
    const std::ptrdiff_t left = std::ptrdiff_t{1} * window.padding.left * in.c, width = std::ptrdiff_t{1} * in.w * in.c;
    const std::ptrdiff_t apart = std::ptrdiff_t{1} * to_second_ * kImageStep;
    const auto value = [&](std::ptrdiff_t i) { return i < left || i >= left + width ? 0.0f : from[i - left]; };
    const std::ptrdiff_t begin = std::min(left, length_), end = std::clamp(left + width - apart, begin, length_);
    const auto edge = [&](std::ptrdiff_t i, std::ptrdiff_t last) {
      for (; i < last; ++i) {
        to[2 * i] = value(i);
        to[2 * i + 1] = value(i + apart);
      }
    };
    edge(0, begin);
    table_.interleave_f32(from + begin - left, from + begin - left + apart, to + 2 * begin, end - begin);
    edge(end, length_);
  }

  int pairs_, to_second_, run_;    // pairs of an output row; pixels from a pair's first to its second; k of a window's row
  std::ptrdiff_t length_, row_;    // floats of the image that a row's left half meets; of an interleaved row
  AlignedBuffer twice_;            // bias and weights, each in two lanes
};

}  // namespace

RowOpPtr make_paired_image_conv(Shape in, const Window& window, std::shared_ptr<const PackedGemm> packed, int outputs,
                                Activation activation, const KernelTable& table) {
  const bool fits = table.pair_rows > 0 && 2 * outputs <= table.vector && in.c * window.stride_w == kImageStep && window.kh <= kMaxRows &&
                    window.dilation_h == 1 && window.dilation_w == 1;
  if (!fits) return nullptr;
  return std::make_unique<PairedImageConv>(in, window, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
