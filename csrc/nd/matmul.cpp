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

// Products of a vector, without packing: so many elements of a sum at a time, which are then added as doubles, in order.
constexpr std::int64_t kDepth = 2048, kColumns = 512, kFewColumns = 16;

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
    float* const to = c + std::ptrdiff_t{1} * packed.first_block(p) * t.vector;
    t.gemv_f32({a, &all, 1, packed.panel(p), floats, std::min(kMaxGemvPanels, full - p), to, t.vector, -__builtin_inff(),
                __builtin_inff(), false});
  }
  const int rest = std::max(panel, full);
  if (rest >= end) return;
  const PanelProduct product{t, packed, 1, b.k(), b.n(), a, b.k(), c, b.n()};
  multiply_panels(product, rest, end, packed.panel(rest), false, [](float*, std::int64_t, int) { return false; });
}

// Sixteen sums side by side, whatever the alignment.
float dot(const float* a, const float* b, std::int64_t n) {
  constexpr std::int64_t kSums = 16;
  std::int64_t i = 0;
  if (n < kSums) {
    float sum = 0.0f;
    for (; i < n; ++i) sum += a[i] * b[i];
    return sum;
  }
  float sums[kSums] = {};
  for (; i + kSums <= n; i += kSums) {
    for (std::int64_t j = 0; j < kSums; ++j) sums[j] += a[i + j] * b[i + j];
  }
  for (std::int64_t j = 0; i + j < n; ++j) sums[j] += a[i + j] * b[i + j];
  for (std::int64_t half = kSums / 2; half > 0; half /= 2) {
    for (std::int64_t j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

// c = a·b of some images, m, n and k as in products(): where they lie, and the parts of long sums.
struct ThinProducts {
  const Array &a, &b;
  float* c;
  std::int64_t m, n, k, batch;
  int batch_axes, threads;

  std::ptrdiff_t a_row() const { return stride(a, a.rank - 2); }
  std::ptrdiff_t b_row() const { return stride(b, b.rank - 2); }
  std::ptrdiff_t b_column() const { return stride(b, b.rank - 1); }
  static std::ptrdiff_t stride(const Array& x, int axis) {
    return x.strides[axis] / static_cast<std::ptrdiff_t>(sizeof(float));
  }
  const float* image_of(const Array& x, std::int64_t image) const {
    return reinterpret_cast<const float*>(x.data + offset_of(image, batch_axes, a.dims, x.strides));
  }

  // sum(image, part, first element of the sums, elements, to) for each part of each image and each run of kDepth elements.
  // It gives what belongs to its part of [m, n] at `to`.
  template <class Sum>
  void run(std::int64_t parts, const Sum& sum) const {
    const std::int64_t runs = (k + kDepth - 1) / kDepth, size = m * n;
    Scratch partial(runs == 1 ? 0 : static_cast<std::size_t>(batch * runs * size));
    float* const sums = runs == 1 ? c : partial.floats();
    const int used = threads_for(batch * size * k / 16, threads);
    for_pieces(used, batch * parts * runs, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t depth = i % runs, part = i / runs % parts, image = i / runs / parts;
        sum(image, part, depth * kDepth, std::min(kDepth, k - depth * kDepth), sums + (image * runs + depth) * size);
      }
    });
    for (std::int64_t i = 0; i < batch * size && runs > 1; ++i) {
      double total = 0.0;
      for (std::int64_t r = 0; r < runs; ++r) total += static_cast<double>(sums[(i / size * runs + r) * size + i % size]);
      c[i] = static_cast<float>(total);
    }
  }

  // Few columns, or such as lie dense: each meets some rows.
  void by_columns() const {
    const std::int64_t depth = std::min(k, kDepth), rows = std::clamp<std::int64_t>((1 << 18) / depth, 1, m);
    const std::int64_t columns = std::clamp<std::int64_t>((1 << 18) / (depth * rows), 1, n);
    const std::int64_t across = (n + columns - 1) / columns;
    const std::int64_t parts = (m + rows - 1) / rows * across;
    run(parts, [&](std::int64_t image, std::int64_t part, std::int64_t first, std::int64_t count, float* to) {
      const std::int64_t row = part / across * rows, column = part % across * columns;
      const float* const left = image_of(a, image) + first;
      float dense[kDepth];
      for (std::int64_t j = column; j < std::min(column + columns, n); ++j) {
        const float* right = image_of(b, image) + first * b_row() + j * b_column();
        if (b_row() != 1) {
          for (std::int64_t i = 0; i < count; ++i) dense[i] = right[i * b_row()];
          right = dense;
        }
        for (std::int64_t i = row; i < std::min(row + rows, m); ++i) to[i * n + j] = dot(left + i * a_row(), right, count);
      }
    });
  }

  // One row: each element times a dense row of b.
  void by_rows() const {
    run((n + kColumns - 1) / kColumns,
        [&](std::int64_t image, std::int64_t part, std::int64_t first, std::int64_t count, float* to) {
          const std::int64_t column = part * kColumns, columns = std::min(kColumns, n - column);
          const float* const left = image_of(a, image) + first;
          const float* right = image_of(b, image) + first * b_row() + column;
          float sums[kColumns] = {};
          std::int64_t i = 0;
          for (; i + 4 <= count; i += 4, right += 4 * b_row()) {
            const float *const r0 = right, *const r1 = r0 + b_row(), *const r2 = r1 + b_row(), *const r3 = r2 + b_row();
            const float a0 = left[i], a1 = left[i + 1], a2 = left[i + 2], a3 = left[i + 3];
            for (std::int64_t j = 0; j < columns; ++j) sums[j] += (a0 * r0[j] + a1 * r1[j]) + (a2 * r2[j] + a3 * r3[j]);
          }
          for (; i < count; ++i, right += b_row()) {
            for (std::int64_t j = 0; j < columns; ++j) sums[j] += left[i] * right[j];
          }
          std::copy_n(sums, columns, to + column);
        });
  }
};

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
  const ThinProducts thin{a, b, c, m, n, k, batch, batch_axes, threads};
  const bool dense_columns = thin.b_row() == 1;
  if (m == 1 && n >= kFewColumns && !dense_columns && thin.b_column() == 1) return thin.by_rows();
  // Packed, a panel would be more than both operands.
  const bool few = n < table.vector && m + n < std::int64_t{1} * table.panel_vectors * table.vector;
  if (n == 1 || (m == 1 && (n < kFewColumns || dense_columns)) || (few && k > kDepth)) return thin.by_columns();
  const Affine plain = plain_columns(n, nullptr);
  const WeightView first = view_of(b.data, k, n, b.strides[rows], b.strides[columns]);
  const PackedGemm packed(first, Affine{}, table);
  const int together = static_cast<int>(std::clamp<std::size_t>(kPackedBytes / packed.panel_bytes(), 1, packed.panels()));
  const int used = threads_for(batch * m * n * k / 16, threads);
  const std::int64_t wanted = used == 1 ? 1 : (4 * used + batch - 1) / batch;
  const PiecesOfProduct pieces(m, packed.panels(), k * table.panel_vectors * table.vector, wanted, true, together);
  const std::size_t floats = (packed.floats(together) + 15) / 16 * 16;
  const std::int64_t workers = std::min<std::int64_t>(used, batch * pieces.count());
  Scratch scratch(floats * static_cast<std::size_t>(workers));
  for_pieces(static_cast<int>(workers), batch * pieces.count(), [&](std::int64_t begin, std::int64_t end, int thread) {
    WeightView view = first;
    float* const panels = scratch.floats() + floats * static_cast<std::size_t>(thread);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / pieces.count();
      const PieceOfProduct piece = pieces[i % pieces.count()];
      view.data = b.data + offset_of(image, batch_axes, a.dims, b.strides);
      const char* const from = a.data + offset_of(image, batch_axes, a.dims, a.strides) + piece.row * a.strides[rows];
      if (i == begin || piece.row == 0) packed.pack(view, plain, piece.panel, piece.end_panel - piece.panel, panels);
      const PanelProduct product{table, packed, piece.rows, static_cast<int>(k), static_cast<int>(n),
                                 reinterpret_cast<const float*>(from), thin.a_row(),
                                 c + (image * m + piece.row) * n, n};
      multiply_panels(product, piece.panel, piece.end_panel, panels, true, [](float*, std::int64_t, int) { return false; });
    }
  });
}

}  // namespace sepconv::nd
