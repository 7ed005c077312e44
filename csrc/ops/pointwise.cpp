// Pointwise convolution: rows of pixels × packed panels.
//
// Loop order: where the weights fit a quarter of a megabyte they stay in L2 and the tile of pixels is outermost, so that
// it is read once; otherwise the panel is outermost, so that weights are read once.
#include <climits>

#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

constexpr std::size_t kResidentWeights = 256 << 10;

class Pointwise final : public GemmOp {
 public:
  Pointwise(Shape shape, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation, const KernelTable& t)
      : GemmOp("gemm", shape, Window{}, std::move(packed), outputs, activation, t) {
    // Sharing channels, threads read each other's activations; sharing rows, each reads all weights.
    const std::size_t activations = sizeof(float) * static_cast<std::size_t>(in.elements());
    split = weight_bytes > std::max(kResidentWeights, 3 * activations) ? Split::channels : Split::rows;
    few_pieces = split == Split::rows && weight_bytes > kResidentWeights;
    // Segments, which are 4 floats long each.
    scratch_floats = static_cast<std::size_t>(blocks_of(in.c, t)) * sizeof(Segment) / sizeof(float);
  }

  void run(const RowTask& task) const noexcept override {
    const int v = table_.vector;
    auto* const segments = reinterpret_cast<Segment*>(task.scratch);
    const int segment_count = blocks_of(in.c, table_);
    for (int b = 0; b < segment_count; ++b) segments[b] = {b * task.in.plane, std::min(v, in.c - b * v)};

    // Rows lie side by side until one of the rings wraps.
    const int other_ring = task.other.data ? task.other.ring : INT_MAX;
    for (int y = task.y0; y < task.y1;) {
      const int run = std::min({task.y1 - y, task.in.ring - y % task.in.ring, task.out.ring - y % task.out.ring,
                                other_ring - y % other_ring});
      multiply_pixels(task, y, run * in.w, segments, segment_count);
      y += run;
    }
  }

 private:
  // Panels by fours; one of a single vector comes last.
  void multiply_one(const RowTask& task, const float* a, float* c, const Segment* segments, int segment_count) const noexcept {
    GemmTile g = tile_of(task, segments, segment_count, table_.vector);
    g.a = a;
    g.prefetch = nullptr;
    g.prefetch_step = 0;
    for (int p = task.part0; p < task.part1;) {
      int panels = 0;
      while (panels < kMaxGemvPanels && p + panels < task.part1 && packed_->vectors(p + panels) == 2) ++panels;
      if (panels == 0) {
        multiply(g, task, p++, 1, c, nullptr);
        continue;
      }
      float* const to = c + packed_->first_block(p) * task.out.plane;
      const auto panel = static_cast<std::ptrdiff_t>(packed_->panel_bytes() / sizeof(float));
      table_.gemv_f32({a, segments, segment_count, packed_->panel(p), panel, panels, to, task.out.plane, epilogue_.lo,
                       epilogue_.hi, epilogue_.hard_swish});
      for (int j = 0; j < 2 * panels && epilogue_.pass != Activation::none; ++j) {
        table_.activate_f32(epilogue_.pass, to + j * task.out.plane, to + j * task.out.plane, table_.vector);
      }
      p += panels;
    }
  }

  void multiply_pixels(const RowTask& task, int y, int pixels, const Segment* segments, int segment_count) const noexcept {
    const int v = table_.vector;
    const Tiles tiles(pixels, tile_rows_);
    // What comes behind these weights is read for one pixel, faster than memory gives it: it comes along with them.
    const bool ahead = ahead_bytes > 0 && task.part1 == parts && tiles.count() > 1;
    const std::int64_t all_tiles = std::int64_t{1} * (task.part1 - task.part0) * tiles.count();
    const std::size_t own_bytes = (task.part1 - task.part0) * packed_->panel_bytes();
    const Prefetch prefetch = ahead ? Prefetch::at_most_a_line(own_bytes + ahead_bytes, all_tiles, in.c)
                                    : weight_prefetch(packed_->panel_bytes(), tiles.count(), in.c);
    int number = 0;
    const float* const a = task.in.at(0, y);
    float* const c = task.out.at(0, y);
    const float* const residual = task.other.data ? task.other.at(0, y) : nullptr;
    if (pixels == 1 && !residual && table_.gemm_vectors == 2) {
      multiply_one(task, a, c, segments, segment_count);
      return;
    }
    GemmTile g = tile_of(task, segments, segment_count, v);
    const auto tile = [&](int p, int i) {
      const std::ptrdiff_t first = std::ptrdiff_t{1} * tiles.begin(i) * v;
      g.a = a + first;
      if (ahead) prefetch.set(g, packed_->panel(task.part0 + 1), number++);
      else prefetch.set(g, packed_->panel(p + 1), i);
      multiply(g, task, p, tiles.height(i), c + first, residual ? residual + first : nullptr);
    };
    if (weight_bytes <= kResidentWeights) {
      for (int i = 0; i < tiles.count(); ++i) {
        for (int p = task.part0; p < task.part1; ++p) tile(p, i);
      }
    } else {
      for (int p = task.part0; p < task.part1; ++p) {
        for (int i = 0; i < tiles.count(); ++i) tile(p, i);
      }
    }
  }
};

}  // namespace

RowOpPtr make_pointwise(Shape in, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
                        const KernelTable& table) {
  return std::make_unique<Pointwise>(in, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
