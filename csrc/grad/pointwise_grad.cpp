// Gradients of a pointwise convolution: two products of matrices, by the packed GEMM.
//
// dX = dY·W: pixels of dY, read where they are, times panels of W, whose rows are already in the order of k: packing
// copies vectors. Tiles go straight to NHWC.
//
// dW = dYᵀ·X, sums over all pixels: outputs take the place of pixels, and pixels that of k. For kChunk pixels at a time a
// part of dY is transposed, so that k lie together, and vectors of X are copied into panels; both lie in L2. A tile's sums
// so far come in as its residual. A piece of work is a group of chunks for some of the outputs.
#include <cstring>

#include "base/fp_env.h"
#include "grad/grad.h"
#include "grad/pieces.h"
#include "runtime/scratch.h"

namespace sepconv {
namespace {

constexpr int kChunk = 384;              // pixels a panel
constexpr int kChunkStep = kChunk + 16;  // of the transposed dY: rows of a tile should not share sets of L1
constexpr int kPieces = 16;              // enough for the threads
constexpr int kTilesAtOnce = 8;          // of pixels, for which dX goes through all panels of W, and of outputs in a piece of dW
constexpr float kInfinity = __builtin_inff();

// Panels of a matrix's columns, each up to table.panel_vectors vectors wide: a row of zeros for the bias, then the rows.
struct Panels {
  const KernelTable& table;
  int columns;

  int blocks() const { return (columns + table.vector - 1) / table.vector; }
  int count() const { return (blocks() + table.panel_vectors - 1) / table.panel_vectors; }
  int vectors(int panel) const { return std::min(table.panel_vectors, blocks() - panel * table.panel_vectors); }
  int first(int panel) const { return panel * table.panel_vectors * table.vector; }
  std::size_t floats(int rows) const { return (std::size_t{1} * rows + 1) * table.panel_vectors * table.vector; }

  // Rows of `columns` floats, one after the other.
  void pack(int panel, const float* matrix, int rows, float* to) const {
    const int v = table.vector;
    const std::ptrdiff_t width = std::ptrdiff_t{1} * vectors(panel) * v;
    std::memset(to, 0, sizeof(float) * width);
    for (int j = 0; j < vectors(panel); ++j) {
      const int column = first(panel) + j * v;
      copy_vectors(matrix + column, columns, std::min(v, columns - column), to + width + j * v, width, rows, v);
    }
  }

  // c[i·columns + panel's columns] = Σ a[i·a_step + k]·panel (+ what c holds) for i < rows, whole tiles in one call.
  void multiply(int panel, const float* packed, int k, const float* a, std::ptrdiff_t a_step, std::int64_t rows, float* c,
                bool add) const {
    const Segment segment{0, k};
    const int last = std::min(vectors(panel) * table.vector, columns - first(panel)) % table.vector;
    const int highest = table.gemm_rows[vectors(panel) - 1];
    for (std::int64_t i = 0; i < rows;) {
      const int height = static_cast<int>(std::min<std::int64_t>(highest, rows - i));
      GemmTile g{.c_step = columns, .residual_step = columns};
      g.tiles = static_cast<int>((rows - i) / height);
      g.a = a + i * a_step;
      g.a_step = a_step;
      g.segments = &segment;
      g.segment_count = 1;
      g.b = packed;
      g.c = c + i * columns + first(panel);
      g.residual = add ? g.c : nullptr;
      g.residual_plane = g.c_plane = table.vector;
      g.last_lanes = last;
      g.lo = -kInfinity;
      g.hi = kInfinity;
      g.prefetch = packed;
      g.prefetch_step = 0;
      table.gemm_strided_f32[vectors(panel) - 1][height - 1](g);
      i += std::int64_t{1} * g.tiles * height;
    }
  }
};

void input_grad(const PointwiseGrad& t, int threads, const KernelTable& table) {
  const Panels panels{table, t.channels};
  const std::size_t panel_floats = panels.floats(t.outputs);
  Scratch packed(panels.count() * panel_floats);
  for_each_piece(panels.count(), threads, [&](std::int64_t p, int, const Stop&) {
    panels.pack(static_cast<int>(p), t.weights, t.outputs, packed.floats() + p * panel_floats);
  });
  const std::int64_t at_once = std::int64_t{kTilesAtOnce} * table.gemm_rows[table.panel_vectors - 1];
  for_each_piece((t.pixels + at_once - 1) / at_once, threads, [&](std::int64_t piece, int, const Stop& stop) {
    const std::int64_t first = piece * at_once, count = std::min(at_once, t.pixels - first);
    for (int p = 0; p < panels.count() && !stop(); ++p) {
      panels.multiply(p, packed.floats() + p * panel_floats, t.outputs, t.dy + first * t.outputs, t.outputs, count,
                      t.dx + first * t.channels, false);
    }
  });
}

class WeightGrad {
 public:
  WeightGrad(const PointwiseGrad& task, int threads, const KernelTable& table)
      : t_(task), table_(table), panels_{table, task.channels}, chunks_((task.pixels + kChunk - 1) / kChunk),
        splits_(std::max(1, task.outputs / (kTilesAtOnce * table.gemm_rows[table.panel_vectors - 1]))),
        groups_(static_cast<int>(std::clamp<std::int64_t>(chunks_, 1, std::max(1, kPieces / splits_)))),
        matrix_(std::size_t{1} * task.outputs * task.channels),
        panel_(std::size_t{1} * ((task.outputs + splits_ - 1) / splits_) * kChunkStep),
        thread_floats_(panel_ + panels_.floats(kChunk)),
        scratch_(threads * thread_floats_ + groups_ * (matrix_ + task.outputs)), sums_(scratch_.floats() + threads * thread_floats_),
        bias_sums_(sums_ + groups_ * matrix_) {}

  void run(int threads) {
    if (t_.pixels == 0) std::memset(t_.dweights, 0, sizeof(float) * matrix_);
    for_each_piece(std::int64_t{1} * groups_ * splits_, threads, [&](std::int64_t piece, int thread, const Stop& stop) {
      const int group = static_cast<int>(piece / splits_);
      const Range outputs(t_.outputs, splits_, piece % splits_), chunks(chunks_, groups_, group);
      float* const scratch = scratch_.floats() + thread * thread_floats_;
      for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
        multiply(sums(group), outputs, chunk, chunk > chunks.begin, scratch, stop);
        if (stop()) return;
      }
      if (t_.dbias) add_bias(bias_sums_ + std::size_t{1} * group * t_.outputs, outputs, chunks, scratch);
    });
    if (groups_ > 1) {
      for_each_piece(t_.outputs, threads, [&](std::int64_t n, int, const Stop&) {
        add_up(sums_ + n * t_.channels, matrix_, t_.channels, t_.dweights + n * t_.channels);
      });
    }
    if (t_.dbias) add_up(bias_sums_, t_.outputs, t_.outputs, t_.dbias);
  }

 private:
  // [outputs][channels] of a group.
  float* sums(int group) { return groups_ > 1 ? sums_ + group * matrix_ : t_.dweights; }

  void multiply(float* sums, const Range& outputs, std::int64_t chunk, bool add, float* scratch, const Stop& stop) {
    const std::int64_t pixel = chunk * kChunk, wanted = outputs.end - outputs.begin;
    const int count = static_cast<int>(std::min<std::int64_t>(kChunk, t_.pixels - pixel));
    table_.transpose_f32(t_.dy + pixel * t_.outputs + outputs.begin, t_.outputs, scratch, kChunkStep, count, wanted);
    for (int p = 0; p < panels_.count() && !stop(); ++p) {
      panels_.pack(p, t_.x + pixel * t_.channels, count, scratch + panel_);
      panels_.multiply(p, scratch + panel_, count, scratch, kChunkStep, wanted, sums + outputs.begin * t_.channels, add);
    }
  }

  // Chunk by chunk: one sum over all pixels would lose digits.
  void add_bias(float* sums, const Range& outputs, const Range& chunks, float* scratch) {
    const std::int64_t wanted = outputs.end - outputs.begin;
    sums += outputs.begin;
    std::fill_n(sums, wanted, 0.0f);
    for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
      std::fill_n(scratch, wanted, 0.0f);
      for (std::int64_t pixel = chunk * kChunk; pixel < std::min((chunk + 1) * kChunk, t_.pixels); ++pixel) {
        const float* const dy = t_.dy + pixel * t_.outputs + outputs.begin;
        for (std::int64_t n = 0; n < wanted; ++n) scratch[n] += dy[n];
      }
      for (std::int64_t n = 0; n < wanted; ++n) sums[n] += scratch[n];
    }
  }

  // The groups' sums, `step` floats apart, in order.
  void add_up(const float* from, std::size_t step, int count, float* to) const {
    std::memcpy(to, from, sizeof(float) * count);
    for (int g = 1; g < groups_; ++g) {
      for (int i = 0; i < count; ++i) to[i] += from[g * step + i];
    }
  }

  const PointwiseGrad& t_;
  const KernelTable& table_;
  Panels panels_;
  std::int64_t chunks_;
  int splits_, groups_;  // of the outputs; of the chunks
  std::size_t matrix_, panel_, thread_floats_;
  Scratch scratch_;  // a thread's part of dY, transposed, and from panel_ on a panel of X; then sums
  float *sums_, *bias_sums_;
};

}  // namespace

void pointwise_grad(const PointwiseGrad& task, int threads, const KernelTable& table) {
  const FlushDenormals flush;
  if (task.dx) input_grad(task, threads, table);
  if (task.dweights) WeightGrad(task, threads, table).run(threads);
}

}  // namespace sepconv
