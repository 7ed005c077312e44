// Products of matrices, on the kernels that convolutions use.
#include <algorithm>

#include "nd/operators.h"
#include "nd/pieces_of_product.h"
#include "ops/gemm_panels.h"
#include "runtime/scratch.h"

namespace sepconv::nd {
namespace {

// Of a matrix that is no constant, packed at a time: what L2 keeps beside the rows that meet it.
constexpr std::size_t kPackedBytes = 128 << 10;

// No scales: elements are copied as they are.
Affine plain_columns(std::int64_t n, const float* bias) {
  Affine affine{{}, std::vector<double>(static_cast<std::size_t>(n), 0.0)};
  if (bias) std::copy(bias, bias + n, affine.shift.begin());
  return affine;
}

WeightView view_of(const char* data, std::int64_t k, std::int64_t n, std::ptrdiff_t k_stride, std::ptrdiff_t n_stride) {
  return {data, {0, 0, k_stride, n_stride}, {1, 1, static_cast<int>(k), static_cast<int>(n)}};
}

// One row: full panels side by side, as streams.
void multiply_row(const PackedMatrix& b, const float* a, int panel, int end, float* c) {
  const KernelTable& t = b.table();
  const PackedGemm& packed = b.gemm();
  const Segment all{0, b.k()};
  const auto floats = static_cast<std::ptrdiff_t>(packed.panel_bytes() / sizeof(float));
  const int full = std::min(end, static_cast<int>(b.n() / (2 * t.vector)) - (packed.vectors(packed.panels() - 1) > 2));
  for (int p = panel; p < full; p += kMaxGemvPanels) {
    t.gemv_f32({a, &all, 1, packed.panel(p), floats, std::min(kMaxGemvPanels, full - p),
                c + std::ptrdiff_t{1} * packed.first_block(p) * t.vector, t.vector, -__builtin_inff(), __builtin_inff(), false});
  }
  const int rest = std::max(panel, full);
  if (rest >= end) return;
  const PanelProduct product{t, packed, 1, b.k(), b.n(), a, b.k(), c, b.n()};
  multiply_panels(product, rest, end, packed.panel(rest), false, [](float*, std::int64_t, int) { return false; });
}

}  // namespace

PackedMatrix::PackedMatrix(const KernelTable& table, const char* data, std::int64_t k, std::int64_t n,
                           std::ptrdiff_t k_stride, std::ptrdiff_t n_stride, const float* bias)
    : table_(&table), k_(static_cast<int>(k)), n_(static_cast<int>(n)), store_(0) {
  gemm_ = std::make_unique<PackedGemm>(view_of(data, k, n, k_stride, n_stride), plain_columns(n, bias), table, store_);
}

void matmul(const float* a, std::int64_t m, const PackedMatrix& b, float* c, int threads) {
  if (m == 0) return;
  const PackedGemm& packed = b.gemm();
  const int used = threads_for(m * b.n() * b.k() / 16, threads);
  // Weights that are much more than what they meet are shared, else rows.
  const std::size_t operand = sizeof(float) * static_cast<std::size_t>(m * b.k());
  const bool few_rows = packed.bytes() > std::max(kResidentWeights, 3 * operand);
  const PiecesOfProduct pieces(m, packed.panels(), std::int64_t{1} * b.k() * b.table().panel_vectors * b.table().vector,
                               used == 1 ? 1 : 4 * used, few_rows, packed.panels());
  for_pieces(used, pieces.count(), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const PieceOfProduct piece = pieces[i];
      const float* const from = a + piece.row * b.k();
      float* const to = c + piece.row * b.n();
      if (piece.rows == 1 && b.table().panel_vectors == 2) {
        multiply_row(b, from, piece.panel, piece.end_panel, to);
        continue;
      }
      const PanelProduct product{b.table(), packed, piece.rows, b.k(), b.n(), from, b.k(), to, b.n()};
      multiply_panels(product, piece.panel, piece.end_panel, packed.panel(piece.panel), false,
                      [](float*, std::int64_t, int) { return false; });
    }
  });
}

void products(const KernelTable& table, const Array& a, const Array& b, float* c, int threads) {
  int batch_axes = a.rank - 2;
  const int rows = batch_axes, columns = batch_axes + 1;
  std::int64_t m = a.dims[rows];
  const std::int64_t k = b.dims[rows], n = b.dims[columns];
  // Rows of several matrices that meet the same b are those of one.
  while (batch_axes > 0 && b.strides[batch_axes - 1] == 0 && a.strides[batch_axes - 1] == a.strides[rows] * m) {
    m *= a.dims[--batch_axes];
  }
  std::int64_t batch = 1;
  for (int i = 0; i < batch_axes; ++i) batch *= a.dims[i];
  const Affine plain = plain_columns(n, nullptr);
  const WeightView first = view_of(b.data, k, n, b.strides[rows], b.strides[columns]);
  const PackedGemm packed(first, Affine{}, table);
  const int together = static_cast<int>(std::clamp<std::size_t>(kPackedBytes / packed.panel_bytes(), 1, packed.panels()));
  const int used = threads_for(batch * m * n * k / 16, threads);
  const std::int64_t wanted = used == 1 ? 1 : (4 * used + batch - 1) / batch;
  const PiecesOfProduct pieces(m, packed.panels(), k * table.panel_vectors * table.vector, wanted, true, together);
  const std::size_t floats = (packed.floats(together) + 15) / 16 * 16;
  Scratch scratch(floats * static_cast<std::size_t>(used));
  for_pieces(used, batch * pieces.count(), [&](std::int64_t begin, std::int64_t end, int thread) {
    WeightView view = first;
    float* const panels = scratch.floats() + floats * static_cast<std::size_t>(thread);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / pieces.count();
      const PieceOfProduct piece = pieces[i % pieces.count()];
      view.data = b.data + offset_of(image, batch_axes, a.dims, b.strides);
      const char* const from = a.data + offset_of(image, batch_axes, a.dims, a.strides) + piece.row * a.strides[rows];
      if (i == begin || piece.row == 0) packed.pack(view, plain, piece.panel, piece.end_panel - piece.panel, panels);
      const PanelProduct product{table, packed, piece.rows, static_cast<int>(k), static_cast<int>(n),
                                 reinterpret_cast<const float*>(from), a.strides[rows] / static_cast<std::ptrdiff_t>(sizeof(float)),
                                 c + (image * m + piece.row) * n, n};
      multiply_panels(product, piece.panel, piece.end_panel, panels, true, [](float*, std::int64_t, int) { return false; });
    }
  });
}

}  // namespace sepconv::nd
