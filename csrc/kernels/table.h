// One KernelTable an ISA: what operators may call, and the tile sizes that packing and planning follow.
//
// Layout inside a plan. V is the ISA's vector width in floats. An activation of h×w×c is stored as
// ceil(c/V) planes of h·w·V floats, [c/V][h][w][V]; the lanes past c are padding, ignored by consumers.
// There is no halo: kernels take a row of zeros for rows outside, and a vector of zeros for columns outside.
// All pointers may be unaligned. Every kernel reads and writes exactly what its arguments describe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/elementwise.h"
#include "base/tensor.h"

namespace sepconv {

inline constexpr int kMaxGemmRows = 28;
inline constexpr int kMaxGemmVectors = 3;
inline constexpr int kMaxPairRows = 16;
inline constexpr int kMaxGemvPanels = 4;
inline constexpr int kImageStep = 6;        // from every second pixel of three channels to the next
inline constexpr int kFmaPerIteration = 48;  // vectors of multiply-adds, in fma_peak

// A run of `count` consecutive k of the A operand, `offset` floats from the row's start.
struct Segment {
  std::ptrdiff_t offset;
  int count;
};

// Floats from one row to the next. A tile that does not say it does not compile.
struct RowStep {
  std::ptrdiff_t floats;
  constexpr RowStep(std::ptrdiff_t n) : floats(n) {}
  constexpr operator std::ptrdiff_t() const { return floats; }
};

// One output tile of C = clamp(bias + A·B + residual): `rows` pixels × `vectors`·V channels.
struct GemmTile {
  const float* a;             // element k of row i: a[i*a_step + segment.offset + (k - segment's first k)]
  std::ptrdiff_t a_step;      // floats from one row to the next
  const Segment* segments;    // in order of k
  int segment_count;
  const float* b;             // packed panel: bias[vectors*V], then for each k: vectors*V weights
  bool sums = false;          // whether C holds what earlier k came to, in place of the bias, which b then does not begin with
  const float* residual;      // added before the clamp, addressed as c but with residual_plane; or nullptr
  std::ptrdiff_t residual_plane;
  float* c;                   // lane l of vector j of row i: c[j*c_plane + i*c_step + l]; c_plane is V where C is NHWC
  std::ptrdiff_t c_plane;
  RowStep c_step, residual_step;  // read by gemm_strided alone; V for the others
  int last_lanes = 0;         // of the last vector, 0 for all V; read by gemm_strided alone
  float lo, hi;               // -inf, +inf for none; NaN passes through
  bool hard_swish = false;    // in place of the clamp
  int tiles = 1;              // one below the other: so many times the kernel's rows
  const void* prefetch;       // what to bring into L2 meanwhile: a line each step, prefetch_step bytes further each k; any address
  std::ptrdiff_t prefetch_step;
};
using GemmKernel = void (*)(const GemmTile&);

// One row of C = clamp(bias + A·B): one pixel × several panels, each of two vectors.
struct GemvTask {
  const float* a;             // with segments as in GemmTile
  const Segment* segments;
  int segment_count;
  const float* b;             // packed panels, b_panel floats apart
  std::ptrdiff_t b_panel;
  int panels;                 // 1 to kMaxGemvPanels
  float* c;                   // lane l of vector j of panel p: c[(2*p + j)*c_plane + l]
  std::ptrdiff_t c_plane;
  float lo, hi;
  bool hard_swish;
};

// Rows of one plane (V channels) of a depthwise convolution.
struct DepthwiseRows {
  const float* const* rows;   // input row of output row y, tap r: rows[y*row_step + r]; a row of zeros where outside
  int row_step;
  const float* zeros;         // V zeros, read for columns outside
  int in_w, out_w, out_rows;
  int pad_left;
  const float* w;             // bias[V], then [kh][kw][V]
  float* out;                 // [out_rows][out_w][V], rows out_step floats apart
  std::ptrdiff_t out_step;
  float lo, hi;
  bool hard_swish = false;    // in place of the clamp
  int kh, kw, stride_w, dilation_w;  // read by depthwise_any alone; the fast ones have theirs in their name
};
using DepthwiseKernel = void (*)(const DepthwiseRows&);

// Rows of one plane of the gradient of a depthwise convolution's weights.
struct DepthwiseGradRows {
  const float* dy;            // gradient of output pixel x of row y: dy[y*dy_row + x*dy_step + lane]
  std::ptrdiff_t dy_row, dy_step;
  const float* x;             // input that tap (0, 0) of output pixel (0, 0) meets; a plane with zeros around the image
  std::ptrdiff_t x_row;
  int out_w, out_rows;
  int stride_h, stride_w;
  float* sums;                // bias[V], then [kh][kw][V]: what is found is added
  int kh, kw, dilation_h, dilation_w;  // read by depthwise_grad_any alone
};
using DepthwiseGradKernel = void (*)(const DepthwiseGradRows&);

// Some rows of a depthwise convolution over pixels of any distance, as in NHWC: `blocks` vectors of channels, one after
// the other in each pixel.
struct DepthwisePixels {
  const float* const* rows;     // column 0 of input row of output row y, tap r: rows[y*stride + r]; `zeros` where outside
  const std::ptrdiff_t* steps;  // of each of those rows, floats from one column to the next; 0 where outside
  const float* zeros;           // blocks*V zeros
  int in_w, out_w, out_rows;    // out_rows: one or two; one for depthwise_pixels_any
  int pad_left, blocks;
  int second, last;             // channels where the second and the last block begin; the third is V after the second
  int last_lanes;               // of the last block, 0 for all V; read by depthwise_pixels_any alone
  const float* w;               // for each block: bias[V], then [kh][kw][V]
  float* out;
  std::ptrdiff_t out_row, out_pixel;  // floats from one output row, and pixel, to the next
  float lo, hi;
  int kh, kw, stride_w, dilation_w;   // read by depthwise_pixels_any alone; the fast ones have theirs in their name
};
using DepthwisePixelsKernel = void (*)(const DepthwisePixels&);

// One output row of one plane of a pooling. Columns and rows outside take no part.
struct PoolRow {
  const float* const* rows;   // the row_count input rows that lie inside
  int row_count;
  int in_w, out_w;
  int kw, stride_w, pad_left;
  float* out;                 // [out_w][V]
  float divisor;              // average: 0 divides by the number of columns and rows inside, else by this
};
using PoolKernel = void (*)(const PoolRow&);

// Vectors of one output plane whose lanes come from lanes of several planes.
struct ChannelVectors {
  const float* const* planes;  // of each source
  const std::int32_t* lanes;   // [source_count][V]: which lane of the source each output lane takes; -1 for none
  int source_count;            // lanes that no source gives are zero
  float* out;
  std::int64_t n;              // vectors
};

enum class SumKind { plain, absolute, squares };

struct KernelTable {
  const char* isa;            // "avx512"
  int vector;                 // V
  int panel_vectors;          // of a panel
  int gemm_vectors;           // of the last panel at most: more, where a panel of what is left over would waste loads
  int gemm_rows[kMaxGemmVectors];  // [vectors-1]: rows of the highest tile that is so many vectors wide
  int pair_rows;              // rows of the highest gemm_pairs tile; 0 where there are none

  // gemm_f32[vectors-1][rows-1]: rows of A lie V floats apart (a plane of an activation).
  GemmKernel gemm_f32[kMaxGemmVectors][kMaxGemmRows];
  // The same with any a_step and c_step, and a last vector that need not be full: dense convolution, and NHWC.
  GemmKernel gemm_strided_f32[kMaxGemmVectors][kMaxGemmRows];
  // Rows of A lie kImageStep floats apart: a network's first layer, which mostly sees RGB at stride 2.
  GemmKernel gemm_image_f32[kMaxGemmVectors][kMaxGemmRows];
  // gemm_pairs_f32[rows-1], for outputs of half a vector: a row is two pixels, whose floats lie in pairs: element k of row i is
  // a[2*(i*kImageStep + k) + segment.offset] and the float after it. b: bias and weights, each twice in a row. The second
  // pixel's V results lie c_plane (residual_plane) floats behind the first's; lanes past V/2 get what those before have.
  GemmKernel gemm_pairs_f32[kMaxPairRows];
  // out[2*i] = a[i], out[2*i + 1] = b[i], i < n. Where there are gemm_pairs, as they read it.
  void (*interleave_f32)(const float* a, const float* b, float* out, std::int64_t n);

  void (*gemv_f32)(const GemvTask&);

  DepthwiseKernel depthwise_3x3_s1_f32, depthwise_3x3_s2_f32, depthwise_5x5_s1_f32, depthwise_5x5_s2_f32,
      depthwise_7x7_s1_f32, depthwise_7x7_s2_f32;
  DepthwiseKernel depthwise_any_f32;

  DepthwiseGradKernel depthwise_grad_3x3_f32, depthwise_grad_5x5_f32, depthwise_grad_any_f32;
  DepthwisePixelsKernel depthwise_pixels_3x3_s1_f32, depthwise_pixels_3x3_s2_f32;
  DepthwisePixelsKernel depthwise_pixels_5x5_s1_f32, depthwise_pixels_5x5_s2_f32;
  DepthwisePixelsKernel depthwise_pixels_7x7_s1_f32, depthwise_pixels_7x7_s2_f32;
  DepthwisePixelsKernel depthwise_pixels_any_f32;

  PoolKernel average_pool_f32, max_pool_f32;
  // out[V] = mean over n vectors of a plane.
  void (*global_average_f32)(const float* in, std::int64_t n, float* out);
  // out = clamp(a + b); n floats. out may be a or b.
  void (*add_f32)(const float* a, const float* b, float* out, std::int64_t n, float lo, float hi);
  // out = clamp(a·b); n floats. out may be a or b.
  void (*mul_f32)(const float* a, const float* b, float* out, std::int64_t n, float lo, float hi);
  // out = clamp(a·factors), the V factors for each of n vectors. out may be a.
  void (*scale_f32)(const float* a, const float* factors, float* out, std::int64_t n, float lo, float hi);
  // out = a < 0 ? slopes·a : a, the V slopes for each of n vectors. out may be a.
  void (*prelu_f32)(const float* a, const float* slopes, float* out, std::int64_t n);
  void (*channels_f32)(const ChannelVectors&);
  // out = activation(in); n floats. out may be in.
  void (*activate_f32)(Activation, const float* in, float* out, std::int64_t n);
  // out[x*out_step + y] = in[y*in_step + x] for y < rows, x < columns: between NCHW and NHWC.
  void (*transpose_f32)(const float* in, std::ptrdiff_t in_step, float* out, std::ptrdiff_t out_step, std::int64_t rows,
                        std::int64_t columns);
  // out = softmax(beta·in) over n floats (n not a multiple of V is fine). out may be in.
  void (*softmax_f32)(const float* in, float* out, std::int64_t n, float beta);
  // The sum over n floats, in double; squares: of in - shift.
  double (*sum_f32)(SumKind, const float* in, std::int64_t n, double shift);
  // out[c] = the sum over in[r*step + c] for r < n, in double, for c < columns.
  void (*sum_columns_f32)(SumKind, const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns, double* out);
  // The greatest of factor·in over n floats, -inf of none; a NaN stays. And for each column.
  float (*greatest_f32)(const float* in, std::int64_t n, float factor);
  void (*greatest_columns_f32)(const float* in, std::ptrdiff_t step, std::int64_t n, std::int64_t columns, float factor,
                               float* out);
  // out[i] = (in[i] - mean)·factor·scale[i·step] + bias[i·step]; n ≥ 1 floats, step 0 or 1, bias may be nullptr.
  // out must not be in.
  void (*normalize_f32)(const float* in, std::int64_t n, double mean, double factor, const float* scale, const float* bias,
                        int step, float* out);
  // out = kind(in; a, b); n floats. out may be in.
  void (*unary_f32)(UnaryKind, const float* in, float* out, std::int64_t n, float a, float b);
  // out[i] = kind(a[i·a_step], b[i·b_step]); n ≥ 1 floats, steps 0 or 1. Only the first kVectorBinaryKinds.
  void (*binary_f32)(BinaryKind, const float* a, int a_step, const float* b, int b_step, float* out, std::int64_t n);

  // For measuring the machine. kFmaPerIteration·V multiply-adds an iteration, acc·factor + term; the result says nothing.
  float (*fma_peak_f32)(std::int64_t iterations, float factor, float term);
  // Reads n floats, n a multiple of 8·V; the result is a sum of some.
  float (*read_peak_f32)(const float* in, std::int64_t n);
};

// Defined in isa/<name>.cpp, for the ISAs of the architecture that is built.
const KernelTable& scalar_table();
#if defined(__x86_64__) || defined(_M_X64)
const KernelTable& avx2_table();
const KernelTable& avx512_table();
#elif defined(__aarch64__) || defined(_M_ARM64)
const KernelTable& neon_table();
#endif

}  // namespace sepconv
