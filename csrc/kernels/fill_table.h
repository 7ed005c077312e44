// Fills an ISA's KernelTable from the kernels above it in the same translation unit.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <int Vectors, int Step, int Rows>
SEPCONV_INLINE constexpr void fill_gemm(GemmKernel (&row)[kMaxGemmRows]) {
  row[Rows - 1] = gemm<Rows, Vectors, Step>;
  if constexpr (Rows > 1) fill_gemm<Vectors, Step, Rows - 1>(row);
}

SEPCONV_INLINE constexpr KernelTable make_table(const char* isa) {
  constexpr int kRows = kRegisters >= 32 ? (kScalars > 1 ? 11 : 14) : kLanes == 8 ? 6 : 4;
  constexpr int kNarrowRows = kScalars > 1 ? 20 : 2 * kRows;
  KernelTable t{};
  t.isa = isa;
  t.vector = kLanes;
  t.panel_vectors = t.gemm_vectors = 2;
  t.gemm_rows[0] = kNarrowRows;
  t.gemm_rows[1] = kRows;
  fill_gemm<1, kLanes, kNarrowRows>(t.gemm_f32[0]);
  fill_gemm<2, kLanes, kRows>(t.gemm_f32[1]);
  fill_gemm<1, 0, kNarrowRows>(t.gemm_strided_f32[0]);
  fill_gemm<2, 0, kRows>(t.gemm_strided_f32[1]);
  fill_gemm<1, kImageStep, kNarrowRows>(t.gemm_image_f32[0]);
  fill_gemm<2, kImageStep, kRows>(t.gemm_image_f32[1]);
  // AVX2's broadcasts take loads: a panel of one vector has more of them than it may have beside its multiply-adds.
  if constexpr (kLanes == 8) {
    t.gemm_vectors = 3;
    t.gemm_rows[2] = kRows;
    fill_gemm<3, kLanes, kRows>(t.gemm_f32[2]);
    fill_gemm<3, 0, kRows>(t.gemm_strided_f32[2]);
    fill_gemm<3, kImageStep, kRows>(t.gemm_image_f32[2]);
  }
  t.gemv_f32 = [](const GemvTask& task) { gemv(task); };
  t.depthwise_3x3_s1_f32 = depthwise<3, 1>;
  t.depthwise_3x3_s2_f32 = depthwise<3, 2>;
  t.depthwise_5x5_s1_f32 = depthwise<5, 1>;
  t.depthwise_5x5_s2_f32 = depthwise<5, 2>;
  t.depthwise_7x7_s1_f32 = depthwise<7, 1>;
  t.depthwise_7x7_s2_f32 = depthwise<7, 2>;
  t.depthwise_any_f32 = [](const DepthwiseRows& d) { depthwise_any(d); };
  t.depthwise_grad_3x3_f32 = depthwise_grad<3>;
  t.depthwise_grad_5x5_f32 = depthwise_grad<5>;
  t.depthwise_grad_any_f32 = [](const DepthwiseGradRows& d) { depthwise_grad_any(d); };
  t.depthwise_pixels_3x3_s1_f32 = depthwise_pixels<3, 1>;
  t.depthwise_pixels_3x3_s2_f32 = depthwise_pixels<3, 2>;
  t.depthwise_pixels_5x5_s1_f32 = depthwise_pixels<5, 1>;
  t.depthwise_pixels_5x5_s2_f32 = depthwise_pixels<5, 2>;
  t.depthwise_pixels_7x7_s1_f32 = depthwise_pixels<7, 1>;
  t.depthwise_pixels_7x7_s2_f32 = depthwise_pixels<7, 2>;
  t.depthwise_pixels_any_f32 = [](const DepthwisePixels& d) { depthwise_pixels_any(d); };
  t.average_pool_f32 = pool<false>;
  t.max_pool_f32 = pool<true>;
  t.global_average_f32 = [](const float* in, std::int64_t n, float* out) { global_average(in, n, out); };
  t.add_f32 = [](const float* a, const float* b, float* out, std::int64_t n, float lo, float hi) {
    add(a, b, out, n, lo, hi);
  };
  t.mul_f32 = [](const float* a, const float* b, float* out, std::int64_t n, float lo, float hi) {
    mul(a, b, out, n, lo, hi);
  };
  t.scale_f32 = [](const float* a, const float* factors, float* out, std::int64_t n, float lo, float hi) {
    scale(a, factors, out, n, lo, hi);
  };
  t.prelu_f32 = [](const float* a, const float* slopes, float* out, std::int64_t n) { prelu(a, slopes, out, n); };
  t.channels_f32 = [](const ChannelVectors& c) { channels(c); };
  t.activate_f32 = [](Activation activation, const float* in, float* out, std::int64_t n) {
    activate(activation, in, out, n);
  };
  t.unary_f32 = [](UnaryKind kind, const float* in, float* out, std::int64_t n, float a, float b) {
    unary(kind, in, out, n, a, b);
  };
  t.binary_f32 = [](BinaryKind kind, const float* a, int a_step, const float* b, int b_step, float* out,
                    std::int64_t n) { binary(kind, a, a_step, b, b_step, out, n); };
  t.transpose_f32 = [](const float* in, std::ptrdiff_t in_step, float* out, std::ptrdiff_t out_step, std::int64_t rows,
                       std::int64_t columns) { transpose_matrix(in, in_step, out, out_step, rows, columns); };
  t.softmax_f32 = [](const float* in, float* out, std::int64_t n, float beta) { softmax(in, out, n, beta); };
  t.sum_f32 = [](SumKind kind, const float* in, std::int64_t n, double shift) { return sum_row(kind, in, n, shift); };
  t.sum_columns_f32 = [](SumKind kind, const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns,
                         double* out) { sum_columns(kind, in, step, n, columns, out); };
  t.greatest_f32 = [](const float* in, std::int64_t n, float factor) { return greatest_of_row(in, n, factor); };
  t.greatest_columns_f32 = [](const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns, float factor,
                              float* out) { greatest_of_columns(in, step, n, columns, factor, out); };
  t.normalize_f32 = [](const float* in, std::int64_t n, double mean, double factor, const float* scale, const float* bias,
                       int step, float* out) {
    if (step) return normalize_row<true>(in, n, mean, factor, scale, bias, out);
    normalize_row<false>(in, n, mean, factor, scale, bias, out);
  };
  t.fma_peak_f32 = [](std::int64_t iterations, float factor, float term) { return fma_peak(iterations, factor, term); };
  t.read_peak_f32 = [](const float* in, std::int64_t n) { return read_peak(in, n); };
  return t;
}

}  // namespace sepconv::SEPCONV_ISA
