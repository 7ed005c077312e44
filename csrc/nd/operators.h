// The N-d operators: what runs of a network that the layer list does not say. Results go to dense arrays that the caller
// allocates; sizes are the caller's to check (bind/nd.cpp). Each output is computed in an order that no thread changes.
#pragma once

#include <memory>
#include <string>

#include "base/elementwise.h"
#include "kernels/table.h"
#include "nd/array.h"
#include "pack/pack.h"

namespace sepconv::nd {

// --- copy.cpp: elements of `size` bytes, 1, 2, 4, 8 or 16

// to = from, both of the same dims.
void copy(const KernelTable& table, const Array& to, const Array& from, int size, int threads);
// to[i, j, ...] = from[index[0][i], index[1][j], ...]; a negative index, anywhere, gives *fill. An axis without a table
// keeps its place. `to` is dense.
void gather(const Array& to, const Array& from, const std::vector<std::vector<std::int64_t>>& index, const void* fill,
            int size, int threads);
// to[i] = condition[i] ? a[i] : b[i], all dense.
void select(char* to, const std::uint8_t* condition, const char* a, const char* b, std::int64_t n, int size, int threads);

// --- elementwise.cpp

// Whether there is a function of this name; see kOther in elementwise.cpp and base/elementwise.h.
bool has_unary(const std::string& name);
void unary(const std::string& name, const KernelTable& table, const float* in, float* out, std::int64_t n, float a, float b,
           int threads);
// Operands broadcast to `to`: same rank, stride 0 where they have one element. The innermost stride is 0 or an element.
// Comparisons and logical kinds give bool. Integers wrap; a quotient by 0 is 0. False: no such kind for this type.
bool binary(BinaryKind kind, Type type, const KernelTable& table, const Array& to, const Array& a, const Array& b, int threads);
void cast(Type to_type, char* to, Type from_type, const char* from, std::int64_t n, int threads);

// --- matmul.cpp

// A matrix [k, n] packed for the kernels, with what is added to each column of a product.
class PackedMatrix {
 public:
  // Strides in bytes. bias: n floats or nullptr. Throws std::bad_alloc.
  PackedMatrix(const KernelTable& table, const char* data, std::int64_t k, std::int64_t n, std::ptrdiff_t k_stride,
               std::ptrdiff_t n_stride, const float* bias);
  int k() const { return k_; }
  int n() const { return n_; }
  const KernelTable& table() const { return *table_; }
  const PackedGemm& gemm() const { return *gemm_; }

 private:
  const KernelTable* table_;
  int k_, n_;
  WeightStore store_;
  std::unique_ptr<PackedGemm> gemm_;
};

// c[m, n] = a[m, k]·b, a and c dense.
void matmul(const float* a, std::int64_t m, const PackedMatrix& b, float* c, int threads);
// c[batch..., m, n] = a[batch..., m, k]·b[batch..., k, n]; c is dense, no size is 0. Strides are multiples of a float; the
// last of a is one. Axes of the batch have stride 0 in an operand that broadcasts.
void products(const KernelTable& table, const Array& a, const Array& b, float* c, int threads);

// --- grouped_conv.cpp, conv.cpp (transposed convolutions) and pool.cpp: images [c, spatial...] without a batch

struct Geometry {
  int rank = 0;  // of space
  std::array<std::int64_t, kMaxRank> in{}, out{}, kernel{}, stride{}, pad{}, dilation{};
  std::int64_t in_size() const { return product(in); }
  std::int64_t out_size() const { return product(out); }
  std::int64_t taps() const { return product(kernel); }
  // Of sizes up to 2^31: what is no less than that need not be exact, but does not wrap around.
  std::int64_t product(const std::array<std::int64_t, kMaxRank>& sizes) const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n = std::min(n, std::int64_t{1} << 31) * sizes[i];
    return n;
  }
};

// y[n][groups·outputs][out] from x[n][groups·channels][in]. weights: a row for each output channel, its bias before
// [channels][taps].
void conv(const KernelTable& table, const float* x, std::int64_t n, std::int64_t channels, const float* weights,
          std::int64_t groups, std::int64_t outputs, const Geometry& g, float* y, int threads);
// groups[g] is [channels, outputs·taps]; x is [n][groups][pixels][channels], each input pixel's taps are added to y
// [n][groups·outputs][out], which starts at bias (or 0). In and out of g are those of the transposed convolution.
void conv_transpose(const float* x, std::int64_t n, const std::vector<const PackedMatrix*>& groups, std::int64_t outputs,
                    const float* bias, const Geometry& g, float* y, int threads);

enum class PoolKind { average, average_padded, max, sum };
// y[planes][out] from x[planes][in]. average_padded divides by the taps inside the padded image, sum by nothing. `end` is the
// padding after each axis, at least 0 as that before. `indices`, for max alone, may be nullptr: where in x the greatest is.
void pool(PoolKind kind, const float* x, std::int64_t planes, const Geometry& g,
          const std::array<std::int64_t, kMaxRank>& end, float* y, std::int64_t* indices, int threads);
template <class T>
void max_pool_integers(const T* x, std::int64_t planes, const Geometry& g, T* y, int threads);

// --- rows.cpp: dense x[rows][n]

enum class ReduceKind { sum, mean, max, min, prod, l1, l2, sum_square, log_sum, log_sum_exp };
// y[outer][inner] of x[outer][n][inner]. prod and log_sum_exp: inner is 1.
void reduce(ReduceKind kind, const KernelTable& table, const float* x, std::int64_t outer, std::int64_t n, std::int64_t inner,
            float* y, int threads);
// sum, max, min, prod, l1 and sum_square.
template <class T>
void reduce_integers(ReduceKind kind, const T* x, std::int64_t rows, std::int64_t n, T* y, int threads);
void softmax(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, bool logarithm, float* y,
             int threads);
// Element i of an array is multiplied by scale[i/run % count]; then bias, where there is one, is added likewise.
struct Scaling {
  const float *scale, *bias;
  std::int64_t count, run;
};
// y = (x - mean)/√(variance + epsilon) of each row; `center` false: x/√(mean of x² + epsilon). mean, inverse: [rows].
void normalize(const KernelTable& table, const float* x, std::int64_t rows, std::int64_t n, double epsilon, bool center,
               const Scaling& scaling, float* y, float* mean, float* inverse, int threads);
// y[outer][out][inner] = Σ_t weight[o·taps + t]·x[outer][index[o·taps + t]][inner].
void resample(const float* x, std::int64_t outer, std::int64_t in, std::int64_t inner, std::int64_t out, std::int64_t taps,
              const std::int64_t* index, const float* weight, float* y, int threads);

}  // namespace sepconv::nd
