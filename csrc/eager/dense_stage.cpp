// Dense convolution, of all channels or of groups: an implicit GEMM that reads rows where they lie, tap after tap. A tile
// whose window leaves the image runs on a small zero-padded copy of what it sees, as in ops/image_conv.cpp.
#include <cstring>

#include "eager/stages.h"
#include "ops/gemm_blocks.h"

namespace sepconv {
namespace {

class DenseStage final : public Stage {
 public:
  DenseStage(Shape shape, std::shared_ptr<const EagerWeights> weights, const Window& w, Activation activation,
             const KernelTable& table)
      : Stage(shape, std::move(weights), w, activation, table), packed_(weights_->gemm) {
    highest_ = table.gemm_rows[packed_[0]->vectors(0) - 1];
    kernel = "gemm_strided_f32_" + std::to_string(highest_) + "x" + std::to_string(packed_[0]->vectors(0) * table.vector) +
             "__" + table.isa;
    group_ = in.c / weights_->groups;
    patch_columns_ = (std::min(highest_, out.w) - 1) * w.stride_w + (w.kw - 1) * w.dilation_w + 1;
    patch_row_ = std::ptrdiff_t{1} * patch_columns_ * in.c;
    segments_ = static_cast<std::size_t>(w.kh) * w.kw;
    const double all_taps = static_cast<double>(segments_) * in.c;
    gathers_ = worth_gathering(double{1} * w.kh * patch_columns_ * in.c, double{1} * in.h * in.w * in.c, all_taps);
    if (gathers_) highest_ = gathered_rows(std::min(highest_, out.w), all_taps);
    const std::size_t patch = gathers_ ? highest_ * segments_ * in.c : static_cast<std::size_t>(w.kh) * patch_row_;
    scratch_floats = segments_ * (sizeof(Segment) / sizeof(float)) + patch;
  }

  void run(const ConstRows& from, const ConstRows&, const Rows& to, int y0, int y1, Parts, float* scratch,
           Watch& watch) const noexcept override {
    auto* const segments = reinterpret_cast<Segment*>(scratch);
    float* const patch = scratch + segments_ * (sizeof(Segment) / sizeof(float));
    const Tiles tiles(out.w, highest_);
    for (int y = y0; y < y1; ++y) {
      for (int i = 0; i < tiles.count(); ++i) {
        if (!tile(from, to, y, tiles.begin(i), tiles.height(i), segments, patch, watch)) return;
      }
    }
  }

 private:
  // False where it left off.
  bool tile(const ConstRows& from, const Rows& to, int y, int first, int rows, Segment* segments, float* patch,
            Watch& watch) const noexcept {
    const int top = y * window.stride_h - window.padding.top, left = first * window.stride_w - window.padding.left;
    const int columns = (rows - 1) * window.stride_w + (window.kw - 1) * window.dilation_w + 1;
    const bool inside = top >= 0 && top + (window.kh - 1) * window.dilation_h < in.h && left >= 0 && left + columns <= in.w;
    const bool gathered = !inside && gathers_;
    if (gathered) gather(from, top, left, rows, patch);
    else if (!inside) copy_patch(from, top, left, columns, patch);
    const float* const a = inside ? from.at(top) + left * from.pixel : patch;
    const std::ptrdiff_t pixel = inside ? from.pixel : in.c;
    const int count = gathered ? gathered_segments(segments) : find_segments(from, top, inside, pixel, segments);
    GemmTile g{.c_step = to.pixel, .residual_step = 0};
    g.a_step = gathered ? static_cast<std::ptrdiff_t>(segments_) * in.c : window.stride_w * pixel;
    g.segments = segments;
    g.segment_count = count;
    g.residual = nullptr;
    g.residual_plane = g.c_plane = table_.vector;
    g.lo = epilogue_.lo;
    g.hi = epilogue_.hi;
    g.prefetch = a;
    g.prefetch_step = 0;
    float* const c = to.at(y) + first * to.pixel;
    const int outputs = out.c / weights_->groups;
    for (int group = 0; group < weights_->groups; ++group) {
      const PackedGemm& packed = *packed_[group];
      g.a = a + std::ptrdiff_t{1} * group * group_;
      for (int p = 0; p < packed.panels(); ++p) {
        const int channel = packed.first_block(p) * table_.vector;
        const int channels = std::min(packed.vectors(p) * table_.vector, outputs - channel);
        g.b = packed.panel(p);
        g.c = c + group * outputs + channel;
        g.last_lanes = channels % table_.vector;
        table_.gemm_strided_f32[packed.vectors(p) - 1][rows - 1](g);
        const std::int64_t written = std::int64_t{1} * rows * channels;
        if (watch.leave(written * static_cast<std::int64_t>(segments_) * group_, written)) return false;
      }
    }
    activate(c, to.pixel, rows, out.c);
    return true;
  }

  // The runs of k of one output pixel: a tap each, or a row of taps where nothing lies between their channels.
  int find_segments(const ConstRows& from, int top, bool inside, std::ptrdiff_t pixel, Segment* segments) const noexcept {
    const bool together = window.dilation_w == 1 && pixel == group_;
    int count = 0;
    for (int r = 0; r < window.kh; ++r) {
      const std::ptrdiff_t row = inside ? from.at(top + r * window.dilation_h) - from.at(top) : r * patch_row_;
      for (int s = 0; s < (together ? 1 : window.kw); ++s) {
        segments[count++] = {row + s * window.dilation_w * pixel, together ? window.kw * group_ : group_};
      }
    }
    return count;
  }

  int gathered_segments(Segment* segments) const noexcept {
    for (std::size_t tap = 0; tap < segments_; ++tap) segments[tap] = {static_cast<std::ptrdiff_t>(tap) * in.c, group_};
    return static_cast<int>(segments_);
  }

  // The pixels that the windows of `rows` outputs meet, as in ops/gathered_conv.cpp.
  void gather(const ConstRows& from, int top, int left, int rows, float* to) const noexcept {
    for (int i = 0; i < rows; ++i) {
      for (int r = 0; r < window.kh; ++r) {
        const int row = top + r * window.dilation_h;
        for (int s = 0; s < window.kw; ++s, to += in.c) {
          const int column = left + i * window.stride_w + s * window.dilation_w;
          const bool there = row >= 0 && row < in.h && column >= 0 && column < in.w;
          if (there) std::memcpy(to, from.at(row) + column * from.pixel, sizeof(float) * in.c);
          else std::memset(to, 0, sizeof(float) * in.c);
        }
      }
    }
  }

  void copy_patch(const ConstRows& from, int top, int left, int columns, float* patch) const noexcept {
    const int begin = std::clamp(-left, 0, columns), end = std::clamp(in.w - left, begin, columns);
    for (int r = 0; r < window.kh; ++r) {
      const int row = top + r * window.dilation_h;
      float* const to = patch + r * patch_row_;
      std::memset(to, 0, sizeof(float) * columns * in.c);
      if (row < 0 || row >= in.h) continue;
      for (int x = begin; x < end; ++x) {
        std::memcpy(to + std::ptrdiff_t{1} * x * in.c, from.at(row) + (left + x) * from.pixel, sizeof(float) * in.c);
      }
    }
  }

  const std::vector<std::unique_ptr<const PackedGemm>>& packed_;
  bool gathers_;
  int highest_, group_, patch_columns_;
  std::ptrdiff_t patch_row_;
  std::size_t segments_;
};

}  // namespace

std::unique_ptr<Stage> make_dense_stage(Shape in, std::shared_ptr<const EagerWeights> weights, const Window& window,
                                        Activation activation, const KernelTable& table) {
  return std::make_unique<DenseStage>(in, std::move(weights), window, activation, table);
}

}  // namespace sepconv
