// Pointwise rows: tiles of pixels × panels of weights, in the order of ops/pointwise.cpp, from and to rows of channels.
#include "eager/stages.h"
#include "ops/gemm_panels.h"

namespace sepconv {
namespace {

// Packed at once: half a megabyte of 1024 channels, a quarter of an L2. Where others bring their panels from the same
// L3 fewer are better.
constexpr int kPanelsTogether = 4, kPanelsBesideOthers = 2;

class PointwiseStage final : public Stage {
 public:
  PointwiseStage(Shape shape, std::shared_ptr<const EagerWeights> weights, const Window& w, Activation activation,
                 const KernelTable& table)
      : Stage(shape, std::move(weights), w, activation, table), packed_(*weights_->gemm[0]) {
    const int vectors = packed_.vectors(0);
    kernel = "gemm_strided_f32_" + std::to_string(table.gemm_rows[vectors - 1]) + "x" + std::to_string(vectors * table.vector) +
             "__" + table.isa;
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
    PanelProduct product{table_, packed_, pixels, in.c, out.c, from.at(y), from.pixel, to.at(y), to.pixel};
    if (addend.data) {
      product.residual = addend.at(y);
      product.residual_step = addend.pixel;
    }
    product.lo = epilogue_.lo;
    product.hi = epilogue_.hi;
    return multiply_panels(product, first_panel, end_panel, packed, packs, [&](float* c, std::int64_t done, int channels) {
      activate(c, to.pixel, done, channels);
      return watch.leave(done * channels * in.c, done * channels);
    });
  }

  const PackedGemm& packed_;
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
