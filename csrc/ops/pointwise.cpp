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

class Pointwise final : public RowOp {
 public:
  Pointwise(Shape shape, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation, const KernelTable& t)
      : table_(t), packed_(std::move(packed)), epilogue_(activation) {
    kernel = gemm_name("gemm", *packed_, t);
    in = shape;
    out = {shape.h, shape.w, outputs};
    parts = packed_->panels();
    macs = out.elements() * in.c;
    weight_bytes = packed_->bytes();
    // Segments, which are 4 floats long each.
    scratch_floats = static_cast<std::size_t>(blocks_of(in.c, t)) * sizeof(Segment) / sizeof(float);
    streams = true;
    split = weight_bytes > kResidentWeights ? Split::channels : Split::rows;
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
      multiply(task, y, run * in.w, segments, segment_count);
      y += run;
    }
  }

 private:
  void multiply(const RowTask& task, int y, int pixels, const Segment* segments, int segment_count) const noexcept {
    const int v = table_.vector;
    const Tiles tiles(pixels, tile_rows(*packed_, table_));
    const Prefetch prefetch = weight_prefetch(packed_->panel_bytes(), tiles.count(), in.c);
    const float* const a = task.in.at(0, y);
    float* const c = task.out.at(0, y);
    const float* const residual = task.other.data ? task.other.at(0, y) : nullptr;
    GemmTile g;
    g.a_step = v;
    g.segments = segments;
    g.segment_count = segment_count;
    g.c_plane = task.out.plane;
    g.residual = nullptr;
    g.residual_plane = task.other.plane;
    g.lo = epilogue_.lo;
    g.hi = epilogue_.hi;
    const auto tile = [&](int p, int i) {
      const std::ptrdiff_t first = std::ptrdiff_t{1} * tiles.begin(i) * v;
      const int rows = tiles.height(i), vectors = packed_->vectors(p), block = packed_->first_block(p);
      g.a = a + first;
      g.b = packed_->panel(p);
      g.c = c + block * task.out.plane + first;
      if (residual) g.residual = residual + block * task.other.plane + first;
      prefetch.set(g, weights_ahead(g.b, tiles.count()), i);
      table_.gemm_f32[vectors - 1][rows - 1](g);
      activate_tile(table_, epilogue_.pass, g, rows, vectors);
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

  const KernelTable& table_;
  std::shared_ptr<const PackedGemm> packed_;
  Epilogue epilogue_;
};

}  // namespace

RowOpPtr make_pointwise(Shape in, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
                        const KernelTable& table) {
  return std::make_unique<Pointwise>(in, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
