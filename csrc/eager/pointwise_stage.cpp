// Pointwise rows: tiles of pixels × panels of weights, in the order of ops/pointwise.cpp, from and to rows of channels.
#include "eager/stages.h"
#include "ops/gemm_blocks.h"

namespace sepconv {
namespace {

// Packed at once: half a megabyte of 1024 channels, a quarter of an L2. Where others bring their panels from the same
// L3 fewer are better.
constexpr int kPanelsTogether = 4, kPanelsBesideOthers = 2;

// Of pixels, while weights that stay in L2 pass through: half of an L1.
constexpr std::size_t kPassedL1 = 16 << 10;

class PointwiseStage final : public Stage {
 public:
  PointwiseStage(Shape shape, std::shared_ptr<const EagerWeights> weights, const Window& w, Activation activation,
                 const KernelTable& table)
      : Stage(shape, std::move(weights), w, activation, table), packed_(*weights_->gemm[0]) {
    highest_ = table.gemm_rows[packed_.vectors(0) - 1];
    kernel = "gemm_strided_f32_" + std::to_string(highest_) + "x" + std::to_string(packed_.vectors(0) * table.vector) + "__" +
             table.isa;
    packs = packed_.later();
    parts = packed_.panels();
    part_channels = table.panel_vectors * table.vector;
    if (packs) scratch_floats = packed_.floats(std::min(kPanelsTogether, packed_.panels()));
  }

  void run(const ConstRows& from, const ConstRows& addend, const Rows& to, int y0, int y1, Parts wanted, float* scratch,
           Watch& watch) const noexcept override {
    // False where it left off.
    const auto panels = [&](int first, int end, const float* packed) {
      for (int y = y0; y < y1;) {
        int count = std::min(from.together(y, y1 - y, in.w), to.together(y, y1 - y, in.w));
        if (addend.data) count = std::min(count, addend.together(y, y1 - y, in.w));
        if (!multiply(from, addend, to, y, count * in.w, first, end, packed, watch)) return false;
        y += count;
      }
      return true;
    };
    if (!packs) {
      panels(wanted.first, wanted.end, packed_.panel(wanted.first));
      return;
    }
    const int together = wanted.end - wanted.first < packed_.panels() ? kPanelsBesideOthers : kPanelsTogether;
    for (int p = wanted.first; p < wanted.end; p += together) {
      const int end = std::min(p + together, wanted.end);
      packed_.pack(p, end - p, scratch);
      if (!panels(p, end, scratch)) return;
    }
  }

 private:
  // By panels [first_panel, end_panel), of which the first lies at `packed`. False where it left off.
  bool multiply(const ConstRows& from, const ConstRows& addend, const Rows& to, int y, int pixels, int first_panel, int end_panel,
                const float* packed, Watch& watch) const noexcept {
    const int v = table_.vector;
    const Tiles tiles(pixels, tile_rows(highest_, from.pixel));
    const std::size_t panel_floats = packed_.panel_bytes() / sizeof(float);
    const Segment segment{0, in.c};
    const float* const a = from.at(y);
    float* const c = to.at(y);
    const float* const residual = addend.data ? addend.at(y) : nullptr;
    GemmTile g{.c_step = to.pixel, .residual_step = addend.pixel};
    g.a_step = from.pixel;
    g.segments = &segment;
    g.segment_count = 1;
    g.residual_plane = g.c_plane = v;
    g.lo = epilogue_.lo;
    g.hi = epilogue_.hi;
    const bool resident = (end_panel - first_panel) * packed_.panel_bytes() <= kResidentWeights;
    const int block = tiles_in(resident ? kPassedL1 : passed_block_bytes(), in.c, tiles.height(0));
    for (int begin = 0; begin < tiles.count(); begin += block) {
      const int end = std::min(begin + block, tiles.count());
      // What was just packed is in L2 already.
      const Prefetch prefetch = weight_prefetch(packs ? 0 : packed_.panel_bytes(), end - begin, in.c);
      for (int p = first_panel; p < end_panel; ++p) {
        const int vectors = packed_.vectors(p), channel = packed_.first_block(p) * v;
        const int channels = std::min(vectors * v, out.c - channel);
        g.b = packed + (p - first_panel) * panel_floats;
        g.last_lanes = channels % v;
        for (int i = begin; i < end; i += g.tiles) {
          const std::ptrdiff_t first = tiles.begin(i);
          const int rows = tiles.height(i);
          g.tiles = tiles.same_height(i, end) - i;
          g.a = a + first * from.pixel;
          g.c = c + first * to.pixel + channel;
          g.residual = residual ? residual + first * addend.pixel + channel : nullptr;
          prefetch.set(g, g.b + panel_floats, i - begin);
          table_.gemm_strided_f32[vectors - 1][rows - 1](g);
          const std::int64_t pixels_done = std::int64_t{1} * g.tiles * rows;
          activate(g.c, to.pixel, pixels_done, channels);
          if (watch.leave(pixels_done * channels * in.c, pixels_done * channels)) return false;
        }
      }
    }
    return true;
  }

  const PackedGemm& packed_;
  int highest_;
};

}  // namespace

std::unique_ptr<Stage> make_pointwise_stage(Shape in, std::shared_ptr<const EagerWeights> weights, const Window& window,
                                            Activation activation, const KernelTable& table) {
  return std::make_unique<PointwiseStage>(in, std::move(weights), window, activation, table);
}

std::unique_ptr<Stage> make_stage(Shape in, std::shared_ptr<const EagerWeights> weights, const Window& window,
                                  Activation activation, const KernelTable& table) {
  const WeightKind kind = weights->kind;
  if (kind == WeightKind::depthwise) return make_depthwise_stage(in, std::move(weights), window, activation, table);
  if (window.pointwise() && weights->groups == 1) {
    return make_pointwise_stage(in, std::move(weights), window, activation, table);
  }
  return make_dense_stage(in, std::move(weights), window, activation, table);
}

}  // namespace sepconv
