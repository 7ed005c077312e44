// Dense convolution, of all channels or of groups: an implicit GEMM that reads rows where they lie, tap after tap. A tile
// whose window leaves the image runs on a small zero-padded copy of what it sees, as in ops/image_conv.cpp. Of large weights,
// or rows that fill no tiles, strips of rows are copied as in ops/conv.cpp.
#include <cstring>
#include <optional>

#include "eager/stages.h"
#include "ops/conv_strip.h"

namespace sepconv {
namespace {

// Of tiles that go together, as Watch weighs them, for each output channel: some milliseconds for a panel.
constexpr std::int64_t kMostWork = 1 << 18;

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
    if (!gathers_ && weights_->groups == 1) strip_ = strip_of_image(in, out, w, *packed_[0], table);
    if (strip_) {
      parts = packed_[0]->panels();
      part_channels = table.panel_vectors * table.vector;
      scratch_floats = strip_->floats();
      return;
    }
    const std::size_t patch = gathers_ ? highest_ * segments_ * in.c : static_cast<std::size_t>(w.kh) * patch_row_;
    scratch_floats = segments_ * (sizeof(Segment) / sizeof(float)) + patch;
  }

  void run(const ConstRows& from, const ConstRows&, const Rows& to, int y0, int y1, Parts wanted, float* scratch,
           Watch& watch) const noexcept override {
    if (strip_) {
      for (int y = y0; y < y1; y += strip_->rows()) {
        if (!multiply_strip(from, to, y, std::min(strip_->rows(), y1 - y), wanted, scratch, watch)) return;
      }
      return;
    }
    auto* const segments = reinterpret_cast<Segment*>(scratch);
    float* const patch = scratch + segments_ * (sizeof(Segment) / sizeof(float));
    const Tiles tiles(out.w, highest_);
    for (int y = y0; y < y1; ++y) {
      for (int i = 0; i < tiles.count();) {
        const int done = multiply_tiles(from, to, y, tiles, i, segments, patch, watch);
        if (done == 0) return;
        i += done;
      }
    }
  }

 private:
  // Rows [y, y + rows) of the wanted panels' channels. False where it left off.
  bool multiply_strip(const ConstRows& from, const Rows& to, int y, int rows, Parts wanted, float* scratch,
                      Watch& watch) const noexcept {
    const PackedGemm& packed = *packed_[0];
    strip_->copy(y, rows, from.pixel, false, [&](int b, int row) { return from.at(row) + b * table_.vector; }, scratch);
    GemmTile g{.c_step = to.pixel, .residual_step = 0};
    g.a_step = strip_->a_step();
    g.residual = nullptr;
    g.residual_plane = g.c_plane = table_.vector;
    g.lo = epilogue_.lo;
    g.hi = epilogue_.hi;
    const std::int64_t pixel_macs = static_cast<std::int64_t>(segments_) * in.c / strip_->parts();
    const auto compute = [&](GemmTile& tile, int p, int line, int pixel, int height, bool all) {
      const int channel = packed.first_block(p) * table_.vector;
      const int channels = std::min(packed.vectors(p) * table_.vector, out.c - channel);
      const std::int64_t pixels = std::int64_t{1} * tile.tiles * height, written = pixels * channels;
      tile.c = to.at(y + line) + pixel * to.pixel + channel;
      tile.last_lanes = channels % table_.vector;
      table_.gemm_strided_f32[packed.vectors(p) - 1][height - 1](tile);
      if (all) activate(tile.c, to.pixel, pixels, channels);
      return !watch.leave(written * pixel_macs, written);
    };
    return strip_->multiply(g, packed, scratch, rows, to.together(y, rows, out.w) == rows, wanted.first, wanted.end, compute);
  }

  // Tile i of row y and those after it that can go with it. Returns how many, 0 where it left off.
  int multiply_tiles(const ConstRows& from, const Rows& to, int y, const Tiles& tiles, int i, Segment* segments, float* patch,
                     Watch& watch) const noexcept {
    const int first = tiles.begin(i), rows = tiles.height(i);
    const int top = y * window.stride_h - window.padding.top, left = first * window.stride_w - window.padding.left;
    const int columns = (rows - 1) * window.stride_w + (window.kw - 1) * window.dilation_w + 1;
    const bool inside = top >= 0 && top + (window.kh - 1) * window.dilation_h < in.h && left >= 0 && left + columns <= in.w;
    const int further = inside ? (in.w - left - columns) / (rows * window.stride_w) : 0;
    const bool gathered = !inside && gathers_;
    if (gathered) {
      gather(from, top, left, rows, patch);
    } else if (!inside) {
      copy_patch(window, in, [&](int row) { return from.at(row); }, from.pixel, top, left, columns, patch, patch_row_);
    }
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
    const std::int64_t pixel_macs = static_cast<std::int64_t>(segments_) * group_;  // an output channel
    g.tiles = std::min(1 + further, tiles.same_height(i, tiles.count()) - i);
    g.tiles = static_cast<int>(std::clamp<std::int64_t>(kMostWork / (rows * (pixel_macs + Watch::kWrite)), 1, g.tiles));
    const int pixels = g.tiles * rows;
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
        const std::int64_t written = std::int64_t{1} * pixels * channels;
        if (watch.leave(written * pixel_macs, written)) return 0;
      }
    }
    activate(c, to.pixel, pixels, out.c);
    return g.tiles;
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

  const std::vector<std::unique_ptr<const PackedGemm>>& packed_;
  std::optional<ConvStrip> strip_;
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
