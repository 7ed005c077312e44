// The N-d operators: copies and gathers between guard pages, products and convolutions against plain loops, and the same
// bits at any number of threads.
#include <algorithm>
#include <numeric>

#include "kernel_testing.h"
#include "nd/operators.h"

namespace sepconv::test {
namespace {

using nd::Array;
using Sizes = std::vector<std::int64_t>;

// A dense array of so many bytes an element.
Array dense(void* data, const Sizes& dims, std::ptrdiff_t size) {
  Array x;
  x.data = static_cast<char*>(data);
  x.rank = static_cast<int>(dims.size());
  std::ptrdiff_t stride = size;
  for (int i = x.rank - 1; i >= 0; --i) {
    x.dims[i] = dims[static_cast<std::size_t>(i)];
    x.strides[i] = stride;
    stride *= x.dims[i];
  }
  return x;
}

Array permuted(const Array& x, const std::vector<int>& order) {
  Array y = x;
  for (int i = 0; i < x.rank; ++i) {
    y.dims[i] = x.dims[order[static_cast<std::size_t>(i)]];
    y.strides[i] = x.strides[order[static_cast<std::size_t>(i)]];
  }
  return y;
}

template <class T>
void check_permutations(const Sizes& dims, int threads) {
  const auto n = static_cast<std::size_t>(std::accumulate(dims.begin(), dims.end(), std::int64_t{1}, std::multiplies<>()));
  std::vector<T> values(n);
  std::iota(values.begin(), values.end(), T{1});
  std::vector<int> order(dims.size());
  std::iota(order.begin(), order.end(), 0);
  do {
    for (const Flush flush : kBothEnds) {
      GuardedBuffer<T> in(values, flush), out(n, flush);
      const Array from = permuted(dense(in.data(), dims, sizeof(T)), order);
      Sizes shape(from.dims.begin(), from.dims.begin() + from.rank);
      const Array to = dense(out.data(), shape, sizeof(T));
      nd::copy(to, from, sizeof(T), threads);
      ASSERT_TRUE(out.slack_intact());
      for (std::size_t i = 0; i < n; ++i) {
        T want;
        std::memcpy(&want, from.data + nd::offset_of(static_cast<std::int64_t>(i), from.rank, from.dims, from.strides), sizeof(T));
        ASSERT_EQ(out.values()[i], want) << "element " << i;
      }
    }
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST(NdCopy, PermutesAxesOfEverySize) {
  for (const Sizes& dims : {Sizes{5}, Sizes{1, 7}, Sizes{3, 17}, Sizes{2, 3, 5}, Sizes{2, 1, 17, 19}, Sizes{3, 2, 4, 2, 3}}) {
    ASSERT_NO_FATAL_FAILURE(check_permutations<std::uint8_t>(dims, 1));
    ASSERT_NO_FATAL_FAILURE(check_permutations<std::uint16_t>(dims, 1));
    ASSERT_NO_FATAL_FAILURE(check_permutations<float>(dims, 2));
    ASSERT_NO_FATAL_FAILURE(check_permutations<double>(dims, 2));
  }
  ASSERT_NO_FATAL_FAILURE(check_permutations<float>({40, 33, 50}, 3));  // enough for several threads
}

TEST(NdCopy, FollowsNegativeAndZeroStrides) {
  std::vector<float> values(12);
  std::iota(values.begin(), values.end(), 0.0f);
  GuardedBuffer<float> in(values, Flush::tail), out(36, Flush::head);
  Array from = dense(in.data(), {3, 4}, 4);
  from.data += 11 * 4;  // from the last element backwards, each row three times
  from.rank = 3;
  from.dims = {3, 3, 4};
  from.strides = {-16, 0, -4};
  nd::copy(dense(out.data(), {3, 3, 4}, 4), from, 4, 1);
  for (int i = 0; i < 36; ++i) ASSERT_EQ(out.values()[i], values[11 - (i / 12 * 4 + i % 4)]);
}

TEST(NdGather, TakesPlacesAndFills) {
  std::vector<std::int64_t> values(15);
  std::iota(values.begin(), values.end(), 100);
  for (const Flush flush : kBothEnds) {
    GuardedBuffer<std::int64_t> in(values, flush), out(12, flush);
    const std::int64_t fill = -7;
    nd::gather(dense(out.data(), {4, 3}, 8), dense(in.data(), {3, 5}, 8), {{2, -1, 0, 2}, {4, 0, -1}}, &fill, 8, 1);
    const std::vector<std::int64_t> want = {114, 110, -7, -7, -7, -7, 104, 100, -7, 114, 110, -7};
    ASSERT_TRUE(std::ranges::equal(out.values(), want));
    ASSERT_TRUE(out.slack_intact());
  }
}

class NdProducts : public ::testing::TestWithParam<KernelId> {
 protected:
  const KernelTable& table = GetParam().table();
  Random random{33};
};

TEST_P(NdProducts, MultiplyAsPlainLoopsDo) {
  for (const int m : {1, 2, 13, 14, 15, 29}) {
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

// A 2-D convolution in groups by the definition; integers, so without rounding.
std::vector<float> naive_conv(const std::vector<float>& x, const std::vector<float>& w, const nd::Geometry& g, int channels,
                              int outputs, int groups) {
  const std::int64_t oh = g.out[0], ow = g.out[1], kh = g.kernel[0], kw = g.kernel[1];
  std::vector<float> y(static_cast<std::size_t>(groups * outputs * oh * ow));
  for (std::int64_t o = 0; o < groups * outputs; ++o)
    for (std::int64_t p = 0; p < oh * ow; ++p) {
      float sum = 0;
      for (std::int64_t c = 0; c < channels; ++c)
        for (std::int64_t t = 0; t < kh * kw; ++t) {
          const std::int64_t r = p / ow * g.stride[0] - g.pad[0] + t / kw * g.dilation[0];
          const std::int64_t s = p % ow * g.stride[1] - g.pad[1] + t % kw * g.dilation[1];
          if (r < 0 || s < 0 || r >= g.in[0] || s >= g.in[1]) continue;
          sum += w[static_cast<std::size_t>((o * channels + c) * kh * kw + t)] *
                 x[static_cast<std::size_t>(((o / outputs * channels + c) * g.in[0] + r) * g.in[1] + s)];
        }
      y[static_cast<std::size_t>(o * oh * ow + p)] = sum;
    }
  return y;
}

TEST_P(NdProducts, ConvolveInGroupsAsPlainLoopsDo) {
  for (int round = 0; round < 60; ++round) {
    nd::Geometry g;
    g.rank = 2;
    for (int i = 0; i < 2; ++i) {
      g.in[i] = 1 + random.below(9);
      g.kernel[i] = 1 + random.below(3);
      g.stride[i] = 1 + random.below(2);
      g.dilation[i] = 1 + random.below(2);
      g.pad[i] = random.below(3);
      const std::int64_t room = g.in[i] + 2 * g.pad[i] - (g.kernel[i] - 1) * g.dilation[i] - 1;
      if (room < 0) g.pad[i] += 3;
      g.out[i] = (g.in[i] + 2 * g.pad[i] - (g.kernel[i] - 1) * g.dilation[i] - 1) / g.stride[i] + 1;
    }
    const int groups = 1 + random.below(3), channels = 1 + random.below(4), outputs = 1 + random.below(20);
    const int k = static_cast<int>(channels * g.taps());
    const std::vector<float> x = draw(random, static_cast<std::size_t>(groups * channels * g.in_size()), Values::integer);
    const std::vector<float> w = draw(random, static_cast<std::size_t>(groups * outputs * k), Values::integer);
    std::vector<std::unique_ptr<nd::PackedMatrix>> packed;
    std::vector<const nd::PackedMatrix*> pointers;
    for (int i = 0; i < groups; ++i) {
      packed.push_back(std::make_unique<nd::PackedMatrix>(
          table, reinterpret_cast<const char*>(w.data() + std::ptrdiff_t{1} * i * outputs * k), k, outputs, 4, 4 * k, nullptr));
      pointers.push_back(packed.back().get());
    }
    const std::vector<float> want = naive_conv(x, w, g, channels, outputs, groups);
    GuardedBuffer<float> in(x, round % 2 ? Flush::head : Flush::tail), out = unwritten(want.size(), Flush::tail);
    nd::conv(in.data(), 1, channels, pointers, g, out.data(), 1 + round % 2);
    ASSERT_TRUE(out.slack_intact());
    for (std::size_t i = 0; i < want.size(); ++i) ASSERT_EQ(out.data()[i], want[i]) << "round " << round << ", element " << i;
  }
}

TEST_P(NdProducts, AreTheSameBitsAtAnyNumberOfThreads) {
  const int m = 300, k = 40, n = 100;
  const std::vector<float> a = draw(random, std::size_t{300} * 40, Values::real), b = draw(random, std::size_t{40} * 100, Values::real);
  const nd::PackedMatrix packed(table, reinterpret_cast<const char*>(b.data()), k, n, 4 * n, 4, nullptr);
  std::vector<float> first(std::size_t{300} * 100);
  nd::matmul(a.data(), m, packed, first.data(), 1);
  for (const int threads : {2, 3, 5}) {
    std::vector<float> c(first.size());
    nd::matmul(a.data(), m, packed, c.data(), threads);
    for (std::size_t i = 0; i < c.size(); ++i) ASSERT_TRUE(same_bits(c[i], first[i]));
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, NdProducts, ::testing::ValuesIn(on_each_isa({"nd"})), test_name);

}  // namespace
}  // namespace sepconv::test
