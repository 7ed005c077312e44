// Products of dense matrices, on the kernels that convolutions use.
#include <algorithm>
#include <cstring>

#include "base/aligned.h"
#include "nd/operators.h"

namespace sepconv::nd {
namespace {

Affine column_bias(std::int64_t n, const float* bias) {
  Affine affine{std::vector<double>(static_cast<std::size_t>(n), 1.0), std::vector<double>(static_cast<std::size_t>(n), 0.0)};
  if (bias) std::copy(bias, bias + n, affine.shift.begin());
  return affine;
}

}  // namespace

PackedMatrix::PackedMatrix(const KernelTable& table, const char* data, std::int64_t k, std::int64_t n,
                           std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, const float* bias)
    : table_(&table), k_(static_cast<int>(k)), n_(static_cast<int>(n)) {
  const WeightView view{data, {0, 0, k_stride, n_stride}, {1, 1, k_, n_}};
  gemm_ = std::make_unique<PackedGemm>(view, column_bias(n, bias), table, store_);
}

std::size_t PackedMatrix::tile_floats() const {
  return static_cast<std::size_t>(kMaxGemmRows) * static_cast<std::size_t>(gemm_->vectors(0) * table_->vector);
}

void multiply_tile(const PackedMatrix& b, int panel, const float* a, std::ptrdiff_t a_step, int rows, float* tile) {
  const KernelTable& t = b.table();
  const Segment all{0, b.k()};
  GemmTile g{.c_step = t.vector, .residual_step = t.vector};
  g.a = a;
  g.a_step = a_step;
  g.segments = &all;
  g.segment_count = 1;
  g.b = b.gemm().panel(panel);
  g.residual = nullptr;
  g.residual_plane = 0;
  g.c = tile;
  g.c_plane = std::ptrdiff_t{1} * rows * t.vector;
  g.lo = -__builtin_inff();
  g.hi = __builtin_inff();
  g.prefetch = g.b;
  g.prefetch_step = 0;
  t.gemm_strided_f32[b.gemm().vectors(panel) - 1][rows - 1](g);
}

void matmul(const float* a, std::int64_t m, const PackedMatrix& b, float* c, int threads) {
  if (m == 0) return;
  const int v = b.table().vector, height = b.tile_rows(), panels = b.gemm().panels();
  const std::int64_t tiles = (m + height - 1) / height;
  const int used = threads_for(m * b.n() * b.k() / 16, threads);
  AlignedBuffer scratch = AlignedBuffer::of_floats(b.tile_floats() * static_cast<std::size_t>(used));
  for_pieces(used, tiles * panels, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* const tile = scratch.floats() + b.tile_floats() * static_cast<std::size_t>(thread);
    for (std::int64_t i = begin; i < end; ++i) {
      // Tiles innermost: a panel is read from memory once.
      const int panel = static_cast<int>(i / tiles);
      const std::int64_t first = i % tiles * height;
      const int rows = static_cast<int>(std::min<std::int64_t>(height, m - first));
      multiply_tile(b, panel, a + first * b.k(), b.k(), rows, tile);
      for (int j = 0; j < b.gemm().vectors(panel); ++j) {
        const std::int64_t column = std::int64_t{1} * (b.gemm().first_block(panel) + j) * v;
        const auto width = static_cast<std::size_t>(std::min<std::int64_t>(v, b.n() - column)) * sizeof(float);
        for (int r = 0; r < rows; ++r) {
          std::memcpy(c + (first + r) * b.n() + column, tile + (std::ptrdiff_t{1} * j * rows + r) * v, width);
        }
      }
    }
  });
}

}  // namespace sepconv::nd
