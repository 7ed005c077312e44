// Gradients of a pointwise convolution: two products of matrices, by the packed GEMM.
//
// dX = dY·W: pixels of dY, read where they are, times panels of W, whose rows are already in the order of k: packing
// copies vectors. Tiles are written to scratch, and from there to NHWC.
//
// dW = dYᵀ·X, sums over all pixels: outputs take the place of pixels. Rows of A are outputs, k are pixels, and panels of B are vectors of X,
// copied out of NHWC for kChunk pixels at a time so that they lie in L2. A is read from dY where it is: the outputs of a
// pixel lie side by side, so that each step of k is a segment of its own. A tile's sums so far come in as its residual.
#include <cstring>
#include <vector>

#include "base/aligned.h"
#include "grad/grad.h"
#include "grad/pieces.h"

namespace sepconv {
namespace {

constexpr int kChunk = 384;        // pixels a panel
constexpr int kMaxGroups = 16;     // of chunks, whose sums are kept apart
constexpr int kEnoughPanels = 16;  // where there are so many, threads have enough with panels alone

constexpr int kTilesAtOnce = 8;    // of pixels, for which dX goes through all panels of W

class InputGrad {
 public:
  InputGrad(const PointwiseGrad& task, int threads, const KernelTable& table)
      : t_(task), table_(table), v_(table.vector), blocks_((task.channels + v_ - 1) / v_),
        panels_((blocks_ + table.gemm_vectors - 1) / table.gemm_vectors),
        panel_floats_(std::size_t{1} * (task.outputs + 1) * table.gemm_vectors * v_),
        pixels_at_once_(kTilesAtOnce * table.gemm_rows[table.gemm_vectors - 1]), segment_{0, task.outputs} {
    packed_ = AlignedBuffer::of_floats(panels_ * panel_floats_);
    for (int i = 0; i < threads; ++i) {
      tiles_.push_back(AlignedBuffer::of_floats(std::size_t{1} * kMaxGemmRows * kMaxGemmVectors * v_));
    }
  }

  void run(int threads) {
    for_pieces(panels_, threads, [&](std::int64_t panel, int) { pack(static_cast<int>(panel)); });
    for_pieces((t_.pixels + pixels_at_once_ - 1) / pixels_at_once_, threads, [&](std::int64_t piece, int thread) {
      const std::int64_t begin = piece * pixels_at_once_, end = std::min(t_.pixels, begin + pixels_at_once_);
      for (int panel = 0; panel < panels_; ++panel) {
        const int highest = table_.gemm_rows[vectors(panel) - 1];
        for (std::int64_t pixel = begin; pixel < end; pixel += highest) {
          tile(panel, pixel, static_cast<int>(std::min<std::int64_t>(highest, end - pixel)), tiles_[thread].floats());
        }
      }
    });
  }

 private:
  int vectors(int panel) const { return std::min(table_.gemm_vectors, blocks_ - panel * table_.gemm_vectors); }
  int lanes(int block) const { return std::min(v_, t_.channels - block * v_); }

  void pack(int panel) {
    float* const to = packed_.floats() + panel * panel_floats_;
    const std::ptrdiff_t width = std::ptrdiff_t{1} * vectors(panel) * v_;
    std::memset(to, 0, sizeof(float) * width);  // the bias
    for (int j = 0; j < vectors(panel); ++j) {
      const int block = panel * table_.gemm_vectors + j;
      copy_vectors(t_.weights + block * v_, t_.channels, lanes(block), to + width + j * v_, width, t_.outputs, v_);
    }
  }

  void tile(int panel, std::int64_t pixel, int rows, float* scratch) {
    GemmTile g{.c_step = v_, .residual_step = v_};
    g.a = t_.dy + pixel * t_.outputs;
    g.a_step = t_.outputs;
    g.segments = &segment_;
    g.segment_count = 1;
    g.b = packed_.floats() + panel * panel_floats_;
    g.residual = nullptr;
    g.residual_plane = 0;
    g.c = scratch;
    g.c_plane = std::ptrdiff_t{1} * rows * v_;
    g.lo = -__builtin_inff();
    g.hi = __builtin_inff();
    g.prefetch = g.b;
    g.prefetch_step = 0;
    table_.gemm_strided_f32[vectors(panel) - 1][rows - 1](g);
    for (int j = 0; j < vectors(panel); ++j) {
      const int block = panel * table_.gemm_vectors + j;
      float* to = t_.dx + pixel * t_.channels + block * v_;
      const float* from = scratch + j * g.c_plane;
      if (lanes(block) == v_) {
        copy_vectors(from, v_, v_, to, t_.channels, rows, v_);
      } else {
        for (int i = 0; i < rows; ++i, from += v_, to += t_.channels) std::memcpy(to, from, sizeof(float) * lanes(block));
      }
    }
  }

  const PointwiseGrad& t_;
  const KernelTable& table_;
  int v_, blocks_, panels_;
  std::size_t panel_floats_;
  int pixels_at_once_;
  Segment segment_;
  AlignedBuffer packed_;
  std::vector<AlignedBuffer> tiles_;  // one a thread
};

class WeightGrad {
 public:
  WeightGrad(const PointwiseGrad& task, int threads, const KernelTable& table)
      : t_(task), table_(table), v_(table.vector), blocks_((task.channels + v_ - 1) / v_),
        panels_((blocks_ + table.gemm_vectors - 1) / table.gemm_vectors), chunks_((task.pixels + kChunk - 1) / kChunk),
        groups_(panels_ >= kEnoughPanels ? 1 : static_cast<int>(std::min<std::int64_t>(chunks_, kMaxGroups))) {
    for (int i = 0; i < std::min<std::int64_t>(kChunk, t_.pixels); ++i) segments_.push_back({std::ptrdiff_t{1} * i * t_.outputs, 1});
    const std::size_t panel_floats = std::size_t{1} * (kChunk + 1) * table.gemm_vectors * v_;
    for (int i = 0; i < threads; ++i) {
      panels_of_x_.push_back(AlignedBuffer::of_floats(panel_floats));
      std::memset(panels_of_x_.back().bytes(), 0, panel_floats * sizeof(float));
    }
    sums_ = AlignedBuffer::of_floats(std::size_t{1} * groups_ * blocks_ * t_.outputs * v_);
    bias_sums_.resize(t_.dbias ? std::size_t{1} * groups_ * t_.outputs : 0);
  }

  void run(int threads) {
    for_pieces(std::int64_t{1} * groups_ * panels_, threads, [&](std::int64_t piece, int thread) {
      const int group = static_cast<int>(piece / panels_), panel = static_cast<int>(piece % panels_);
      const Range chunks(chunks_, groups_, group);
      for (std::int64_t chunk = chunks.begin; chunk < chunks.end; ++chunk) {
        multiply(group, panel, chunk, chunk == chunks.begin, panels_of_x_[thread].floats());
      }
      if (panel == 0 && t_.dbias) add_bias(group, chunks);
    });
    for_pieces(blocks_, threads, [&](std::int64_t block, int) { gather(static_cast<int>(block)); });
    if (t_.dbias) {
      for (int n = 0; n < t_.outputs; ++n) {
        float sum = 0.0f;
        for (int g = 0; g < groups_; ++g) sum += bias_sums_[std::size_t{1} * g * t_.outputs + n];
        t_.dbias[n] = sum;
      }
    }
  }

 private:
  // [block][output][V] of a group.
  float* sums(int group, int block) { return sums_.floats() + (std::size_t{1} * group * blocks_ + block) * t_.outputs * v_; }

  void multiply(int group, int panel, std::int64_t chunk, bool first, float* x) {
    const std::int64_t pixel = chunk * kChunk;
    const int count = static_cast<int>(std::min<std::int64_t>(kChunk, t_.pixels - pixel));
    const int block = panel * table_.gemm_vectors, vectors = std::min(table_.gemm_vectors, blocks_ - block);
    const std::ptrdiff_t width = std::ptrdiff_t{1} * vectors * v_;
    std::memset(x, 0, sizeof(float) * width);  // the bias
    for (int j = 0; j < vectors; ++j) {
      const int lanes = std::min(v_, t_.channels - (block + j) * v_);
      const float* const from = t_.x + pixel * t_.channels + (block + j) * v_;
      copy_vectors(from, t_.channels, lanes, x + width + j * v_, width, count, v_);
    }
    GemmTile g{.c_step = v_, .residual_step = v_};
    g.a_step = 1;
    g.segments = segments_.data();
    g.segment_count = count;
    g.b = x;
    g.residual_plane = g.c_plane = std::ptrdiff_t{1} * t_.outputs * v_;
    g.lo = -__builtin_inff();
    g.hi = __builtin_inff();
    g.prefetch = x;
    g.prefetch_step = 0;
    const int highest = table_.gemm_rows[vectors - 1];
    for (int n = 0; n < t_.outputs; n += highest) {
      const int rows = std::min(highest, t_.outputs - n);
      g.a = t_.dy + pixel * t_.outputs + n;
      g.c = sums(group, block) + std::ptrdiff_t{1} * n * v_;
      g.residual = first ? nullptr : g.c;
      table_.gemm_strided_f32[vectors - 1][rows - 1](g);
    }
  }

  void add_bias(int group, const Range& chunks) {
    float* const sums = bias_sums_.data() + std::size_t{1} * group * t_.outputs;
    std::memset(sums, 0, sizeof(float) * t_.outputs);
    const std::int64_t end = std::min(chunks.end * kChunk, t_.pixels);
    for (std::int64_t pixel = chunks.begin * kChunk; pixel < end; ++pixel) {
      const float* const dy = t_.dy + pixel * t_.outputs;
      for (int n = 0; n < t_.outputs; ++n) sums[n] += dy[n];
    }
  }

  // The groups' sums, in order, as [outputs][channels].
  void gather(int block) {
    const int lanes = std::min(v_, t_.channels - block * v_);
    for (int n = 0; n < t_.outputs; ++n) {
      float* const to = t_.dweights + std::int64_t{1} * n * t_.channels + block * v_;
      for (int i = 0; i < lanes; ++i) {
        float sum = 0.0f;
        for (int g = 0; g < groups_; ++g) sum += sums(g, block)[std::ptrdiff_t{1} * n * v_ + i];
        to[i] = sum;
      }
    }
  }

  const PointwiseGrad& t_;
  const KernelTable& table_;
  int v_, blocks_, panels_;
  std::int64_t chunks_;
  int groups_;
  std::vector<Segment> segments_;
  std::vector<AlignedBuffer> panels_of_x_;  // one a thread
  AlignedBuffer sums_;
  std::vector<float> bias_sums_;
};

}  // namespace

void pointwise_grad(const PointwiseGrad& task, int threads, const KernelTable& table) {
  const FlushDenormals flush;
  if (task.dx) InputGrad(task, threads, table).run(threads);
  if (task.dweights) WeightGrad(task, threads, table).run(threads);
}

}  // namespace sepconv
