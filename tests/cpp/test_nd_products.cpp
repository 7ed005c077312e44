// The N-d operators that multiply: products and convolutions against plain loops, between guard pages, and the same bits at
// any number of threads.
#include <algorithm>

#include "kernel_testing.h"
#include "nd/operators.h"

namespace sepconv::test {
namespace {

using nd::Array;

class NdProducts : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{33};
};

TEST_P(NdProducts, MultiplyAsPlainLoopsDo) {
  for (const int m : {1, 2, 13, 14, 15, 29, 70}) {
    for (const int k : {1, 2, 7, 33}) {
      for (const int n : {1, 3, 15, 16, 17, 33, 70}) {
        const auto count = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
        GuardedBuffer<float> a(draw(random, count(m, k), Values::integer), Flush::tail);
        GuardedBuffer<float> b(draw(random, count(k, n), Values::integer), Flush::head);
        const std::vector<float> bias = draw(random, static_cast<std::size_t>(n), Values::integer);
        const nd::PackedMatrix packed(table, reinterpret_cast<const char*>(b.data()), k, n, 4 * n, 4, bias.data());
        for (const int threads : {1, 2}) {
          GuardedBuffer<float> c = unwritten(count(m, n), Flush::tail);
          nd::matmul(a.data(), m, packed, c.data(), threads);
          ASSERT_TRUE(c.slack_intact());
          for (int i = 0; i < m; ++i)
            for (int j = 0; j < n; ++j) {
              float want = bias[static_cast<std::size_t>(j)];
              for (int x = 0; x < k; ++x) want += a.data()[i * k + x] * b.data()[x * n + j];
              ASSERT_EQ(c.data()[i * n + j], want) << m << "×" << k << "×" << n << " at " << i << ", " << j;
            }
        }
      }
    }
  }
}

// A matrix of a batch as the operators see it: axes [outer][inner][rows][columns] with these strides in floats.
Array matrices(float* data, const std::array<std::int64_t, 4>& dims, const std::array<std::ptrdiff_t, 4>& strides) {
  Array x;
  x.data = reinterpret_cast<char*>(data);
  x.rank = 4;
  for (std::size_t i = 0; i < 4; ++i) {
    x.dims[i] = dims[i];
    x.strides[i] = strides[i] * static_cast<std::ptrdiff_t>(sizeof(float));
  }
  return x;
}

TEST_P(NdProducts, MultiplyBatchesOfAnyStrides) {
  for (int round = 0; round < 120; ++round) {
    const std::int64_t outer = 1 + random.below(3), inner = 1 + random.below(3);
    const std::int64_t m = 1 + random.below(40), k = 1 + random.below(40), n = 1 + random.below(60);
    // a: rows of a larger matrix, all axes in any order but the last; b: dense, transposed, backwards or broadcast.
    const bool apart = random.below(2) == 0, shared = random.below(3) == 0;
    const std::int64_t heads = apart ? inner : 1;  // rows of all matrices of a batch side by side
    GuardedBuffer<float> a(draw(random, static_cast<std::size_t>(outer * inner * m * k), Values::integer), Flush::tail);
    const Array from_a = matrices(a.data(), {outer, inner, m, k}, {inner * m * k, apart ? k : m * k, heads * k, 1});
    const int kind = random.below(3);
    const std::int64_t size = k * n, count = shared ? 1 : outer * inner;
    const std::vector<float> numbers = draw(random, static_cast<std::size_t>(count * size), Values::integer);
    GuardedBuffer<float> b(numbers, round % 2 ? Flush::tail : Flush::head);
    Array from_b = matrices(b.data(), {outer, inner, k, n},
                            {shared ? 0 : inner * size, shared ? 0 : size, kind == 0 ? n : 1, kind == 0 ? 1 : k});
    if (kind == 2) {  // rows from the last to the first
      from_b.data += (k - 1) * from_b.strides[2];
      from_b.strides[2] = -from_b.strides[2];
    }
    GuardedBuffer<float> c = unwritten(static_cast<std::size_t>(outer * inner * m * n), Flush::tail);
    nd::products(table, from_a, from_b, c.data(), 1 + round % 3);
    ASSERT_TRUE(c.slack_intact());
    const auto at = [](const Array& x, std::int64_t o, std::int64_t i, std::int64_t r, std::int64_t s) {
      return *reinterpret_cast<const float*>(x.data + o * x.strides[0] + i * x.strides[1] + r * x.strides[2] + s * x.strides[3]);
    };
    for (std::int64_t i = 0; i < outer * inner * m * n; ++i) {
      const std::int64_t column = i % n, row = i / n % m, matrix = i / n / m;
      float want = 0;
      for (std::int64_t x = 0; x < k; ++x) {
        want += at(from_a, matrix / inner, matrix % inner, row, x) * at(from_b, matrix / inner, matrix % inner, x, column);
      }
      ASSERT_EQ(c.data()[i], want) << "round " << round << ", element " << i;
    }
  }
}

// One row or column, few columns, sums of one run and of several: packed or not, dense either way or not at all.
TEST_P(NdProducts, MultiplyVectorsOfAnyLength) {
  for (const std::int64_t k : {1, 15, 16, 37, 2048, 4133})
    for (const auto& [m, n] : std::vector<std::array<std::int64_t, 2>>{{1, 1}, {1, 3}, {1, 16}, {1, 530}, {21, 1}, {3, 2}})
      for (const int kind : {0, 1, 2}) {  // b dense, transposed, with gaps
        const auto count = [](std::int64_t x) { return static_cast<std::size_t>(x); };
        GuardedBuffer<float> a(draw(random, count(2 * m * k), Values::integer), Flush::tail);
        const std::int64_t gap = kind == 2 ? 2 : 1;
        GuardedBuffer<float> b(draw(random, count(2 * n * k * gap), Values::integer), Flush::tail);
        const Array from_a = matrices(a.data(), {2, 1, m, k}, {m * k, 0, k, 1});
        const Array from_b = matrices(b.data(), {2, 1, k, n}, {n * k * gap, 0, kind == 1 ? 1 : n * gap, kind == 1 ? k : gap});
        for (const int threads : {1, 3}) {
          GuardedBuffer<float> c = unwritten(count(2 * m * n), Flush::head);
          nd::products(table, from_a, from_b, c.data(), threads);
          ASSERT_TRUE(c.slack_intact());
          for (std::int64_t i = 0; i < 2 * m * n; ++i) {
            double want = 0.0;
            const std::int64_t image = i / n / m, row = i / n % m, column = i % n;
            const float* const right = b.data() + image * n * k * gap + column * from_b.strides[3] / 4;
            for (std::int64_t x = 0; x < k; ++x) {
              want += double{a.data()[(image * m + row) * k + x]} * double{right[x * from_b.strides[2] / 4]};
            }
            ASSERT_EQ(double{c.data()[i]}, want) << m << "×" << k << "×" << n << ", kind " << kind << ", at " << i;
          }
        }
      }
}

// A convolution in groups by the definition; integers, so without rounding. Each row of w begins with its bias.
std::vector<float> naive_conv(const std::vector<float>& x, const std::vector<float>& w, const nd::Geometry& g, std::int64_t n,
                              std::int64_t channels, std::int64_t outputs, std::int64_t groups) {
  const std::int64_t taps = g.taps(), pixels = g.out_size(), k = 1 + channels * taps;
  std::vector<float> y(static_cast<std::size_t>(n * groups * outputs * pixels));
  for (std::int64_t i = 0; i < n * groups * outputs * pixels; ++i) {
    const std::int64_t output = i / pixels % (groups * outputs), image = i / pixels / outputs;
    float sum = w[static_cast<std::size_t>(output * k)];
    for (std::int64_t t = 0; t < taps; ++t) {
      std::int64_t pixel = i % pixels, tap = t, place = 0, size = 1;
      bool inside = true;
      for (int axis = g.rank - 1; axis >= 0; --axis) {
        const std::int64_t at = pixel % g.out[axis] * g.stride[axis] - g.pad[axis] + tap % g.kernel[axis] * g.dilation[axis];
        inside = inside && at >= 0 && at < g.in[axis];
        place += at * size;
        pixel /= g.out[axis];
        tap /= g.kernel[axis];
        size *= g.in[axis];
      }
      for (std::int64_t c = 0; inside && c < channels; ++c) {
        const auto weight = static_cast<std::size_t>(output * k + 1 + c * taps + t);
        sum += w[weight] * x[static_cast<std::size_t>((image * channels + c) * size + place)];
      }
    }
    y[static_cast<std::size_t>(i)] = sum;
  }
  return y;
}

TEST_P(NdProducts, ConvolveInGroupsAsPlainLoopsDo) {
  for (int round = 0; round < 120; ++round) {
    nd::Geometry g;
    g.rank = 1 + round % 3;
    for (int i = 0; i < g.rank; ++i) {
      // Wide ones are cut into parts of rows, far taps and great padding lie outside.
      g.in[i] = 1 + random.below(g.rank == 1 ? 3000 : i + 1 == g.rank ? 40 : 7);
      g.kernel[i] = 1 + random.below(4);
      g.stride[i] = 1 + random.below(3);
      g.dilation[i] = 1 + random.below(round % 7 == 0 ? 50 : 3);
      g.pad[i] = random.below(round % 5 != 0 ? 3 : g.rank == 3 ? 6 : 60) - 1;
      const std::int64_t extent = (g.kernel[i] - 1) * g.dilation[i] + 1;
      std::int64_t room = g.in[i] + 2 * g.pad[i] - extent;
      if (room < 0) {
        g.pad[i] += (1 - room) / 2;
        room = g.in[i] + 2 * g.pad[i] - extent;
      }
      g.out[i] = room / g.stride[i] + 1;
    }
    const int n = 1 + random.below(2), groups = 1 + random.below(3), channels = 1 + random.below(4);
    // Many only of small images: the oracle takes its time.
    const int outputs = 1 + random.below(round % 4 == 0 && g.out_size() < 1000 ? 80 : 6);
    const std::size_t k = static_cast<std::size_t>(1 + channels * g.taps());
    const std::vector<float> x = draw(random, static_cast<std::size_t>(n * groups * channels * g.in_size()), Values::integer);
    const std::vector<float> w = draw(random, static_cast<std::size_t>(groups * outputs) * k, Values::integer);
    const std::vector<float> want = naive_conv(x, w, g, n, channels, outputs, groups);
    GuardedBuffer<float> in(x, round % 2 ? Flush::head : Flush::tail), weights(w, Flush::tail);
    GuardedBuffer<float> out = unwritten(want.size(), Flush::tail);
    nd::conv(table, in.data(), n, channels, weights.data(), groups, outputs, g, out.data(), 1 + round % 3);
    ASSERT_TRUE(out.slack_intact());
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(out.data()[i], want[i]) << "round " << round << ", element " << i;
  }
}

TEST_P(NdProducts, AreTheSameBitsAtAnyNumberOfThreads) {
  const int m = 300, k = 40, n = 100;
  std::vector<float> a = draw(random, std::size_t{300} * 40, Values::real), b = draw(random, std::size_t{40} * 100, Values::real);
  const nd::PackedMatrix packed(table, reinterpret_cast<const char*>(b.data()), k, n, 4 * n, 4, nullptr);
  nd::Geometry g;  // the same numbers as an image and weights
  g.rank = 2;
  g.in = g.out = {30, 40};
  g.kernel = {3, 3};
  g.stride = g.pad = g.dilation = {1, 1};
  std::vector<std::vector<float>> first;
  for (const int threads : {1, 2, 3, 5}) {
    std::vector<std::vector<float>> results(4);
    results[0].resize(std::size_t{300} * 100);
    nd::matmul(a.data(), m, packed, results[0].data(), threads);
    results[1].resize(results[0].size());
    nd::products(table, matrices(a.data(), {1, 1, m, k}, {0, 0, k, 1}), matrices(b.data(), {1, 1, k, n}, {0, 0, n, 1}),
                 results[1].data(), threads);
    results[2].resize(results[0].size());
    for (int i = 0; i < m; ++i) nd::matmul(a.data() + i * k, 1, packed, results[2].data() + i * n, threads);
    results[3].resize(std::size_t{10} * 20 * 1200);
    nd::conv(table, a.data(), 2, 1, b.data(), 5, 20, g, results[3].data(), threads);
    ASSERT_TRUE(std::ranges::equal(results[0], results[1], same_bits));
    ASSERT_TRUE(std::ranges::equal(results[0], results[2], same_bits));
    if (first.empty()) first = results;
    for (std::size_t i = 0; i < results.size(); ++i) ASSERT_TRUE(std::ranges::equal(results[i], first[i], same_bits));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, NdProducts, ::testing::ValuesIn(on_each_isa({"nd"})), test_name);

}  // namespace
}  // namespace sepconv::test
