// Pointwise convolution: rows of pixels × packed panels.
//
// Loop order: blocks of pixels, then panels, then tiles. Where the weights fit a quarter of a megabyte they stay in L2 and a
// block is what L1 and L2 keep beside them; otherwise it is what L2 keeps while weights and results pass through.
#include <climits>
#include <span>

#include "cpu/topology.h"
#include "ops/gemm_blocks.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

constexpr std::size_t kBlockBytes = 128 << 10;

class Pointwise final : public GemmOp {
 public:
  Pointwise(Shape shape, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation, const KernelTable& t)
      : GemmOp("gemm", shape, Window{}, std::move(packed), outputs, activation, t) {
    // Sharing channels, threads read each other's activations; sharing rows, each reads all weights, and a depthwise
    // layer that follows meets rows of both. Before that of an expansion there are few activations: where cores share a
    // near L3, channels take 2.5 % less of MobileNet V2 on two threads.
    const bool expands = l2_bytes() < kLargeL2 && out.c > 2 * in.c;
    split = expands || outweigh(weight_bytes, static_cast<double>(in.elements())) ? Split::channels : Split::rows;
    few_pieces = split == Split::rows && weight_bytes > kResidentWeights;
    block_tiles_ = tiles_in(weight_bytes <= kResidentWeights ? kBlockBytes : passed_block_bytes(), in.c, tile_rows_);
    const auto tiles = static_cast<int>((std::int64_t{1} * out.h * out.w + tile_rows_ - 1) / tile_rows_);
    waits_for_weights = tiles <= 2;
    spare_fetches = static_cast<std::size_t>(parts) * (tiles - own_tiles(Tiles(tiles, block_tiles_))) * tile_fetches();
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
      multiply_pixels(task, y, run, segments, segment_count);
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

  // Bytes that a tile can fetch: a line each k.
  std::size_t tile_fetches() const { return Prefetch::kLine * in.c; }

  // Of a panel's tiles in one block, how many it takes to fetch the next panel.
  int own_tiles(int tiles) const {
    const std::size_t wanted = (packed_->panel_bytes() + tile_fetches() / 2) / tile_fetches();
    return tiles == 1 ? 0 : static_cast<int>(std::min<std::size_t>(tiles, wanted));
  }

  // The same in all blocks, of that many tiles each.
  int own_tiles(const Tiles& blocks) const {
    int own = 0;
    for (int i = 0; i < blocks.count(); ++i) own += own_tiles(blocks.height(i));
    return own;
  }

  // What rows [y0, y1) of a task's channels fetch for another operator.
  std::span<const char> ahead_of(const RowTask& task, int y0, int y1) const {
    if (ahead.bytes == 0) return {};
    const double part = 1.0 / parts, rows = (task.part1 - task.part0) * part / out.h;
    const double share = static_cast<double>(ahead.bytes) * rows * (y1 - y0);
    const double first = static_cast<double>(ahead.bytes) * (task.part0 * part + rows * y0) + share * ahead.begin;
    return {ahead.weights + static_cast<std::size_t>(first), static_cast<std::size_t>(share * (ahead.end - ahead.begin))};
  }

  void multiply_pixels(const RowTask& task, int y, int rows, const Segment* segments, int segment_count) const noexcept {
    const int v = table_.vector, pixels = rows * in.w;
    const float* const a = task.in.at(0, y);
    float* const c = task.out.at(0, y);
    const float* const residual = task.other.data ? task.other.at(0, y) : nullptr;
    if (pixels == 1 && !residual && table_.panel_vectors == 2) {
      multiply_one(task, a, c, segments, segment_count);
      return;
    }
    const Tiles tiles(pixels, tile_rows_), blocks(tiles.count(), block_tiles_);
    // A panel's tiles fetch the next one; where it is time for what lies ahead, only the first do, and the others that.
    const std::span<const char> ahead_bytes = ahead_of(task, y, y + rows);
    const int others = ahead_bytes.empty() ? 0 : tiles.count() - own_tiles(blocks);
    // As late as it can be: of what came early, the weights in between would drive most out again.
    const std::int64_t slots = std::int64_t{1} * (task.part1 - task.part0) * others;
    const std::int64_t used = std::min<std::int64_t>(slots, (ahead_bytes.size() + tile_fetches() - 1) / tile_fetches());
    const std::int64_t skipped = std::max<std::int64_t>(0, slots - used - others);
    const Prefetch ahead_prefetch(ahead_bytes.size(), slots - skipped, in.c);
    std::int64_t slot = 0;

    GemmTile g = tile_of(task, segments, segment_count, v);
    for (int block = 0; block < blocks.count(); ++block) {
      const int begin = blocks.begin(block), end = begin + blocks.height(block);
      const int spare = ahead_bytes.empty() ? 0 : end - begin - own_tiles(end - begin);
      const Prefetch all = weight_prefetch(packed_->panel_bytes(), end - begin, in.c);
      const Prefetch first_ones(packed_->panel_bytes(), end - begin - spare, in.c);
      for (int p = task.part0; p < task.part1; ++p) {
        const int next = p + 1 == task.part1 && block + 1 < blocks.count() ? task.part0 : p + 1;
        const int own = slot + spare > skipped ? end - spare : end;
        if (own == end) slot += spare;
        for (int i = begin; i < end; i += g.tiles) {
          const std::ptrdiff_t first = std::ptrdiff_t{1} * tiles.begin(i) * v;
          g.a = a + first;
          g.tiles = tiles.same_height(i, end) - i;
          if (i < own) {
            g.tiles = std::min(g.tiles, own - i);
            (own == end ? all : first_ones).set(g, packed_->panel(next), i - begin);
          } else {
            (slot < skipped ? Prefetch() : ahead_prefetch).set(g, ahead_bytes.data(), slot - skipped);
            slot += g.tiles;
          }
          multiply(g, task, p, tiles.height(i), c + first, residual ? residual + first : nullptr);
        }
      }
    }
  }

  int block_tiles_;  // at most
};

}  // namespace

RowOpPtr make_pointwise(Shape in, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
                        const KernelTable& table) {
  return std::make_unique<Pointwise>(in, std::move(packed), outputs, activation, table);
}

}  // namespace sepconv
