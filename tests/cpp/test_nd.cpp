// The N-d operators that move: copies and gathers between guard pages.
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
      nd::copy(kernels(), to, from, sizeof(T), threads);
      ASSERT_TRUE(out.slack_intact());
      for (std::size_t i = 0; i < n; ++i) {
        const char* at = from.data;
        std::size_t rest = i;
        for (int a = from.rank - 1; a >= 0; rest /= static_cast<std::size_t>(from.dims[a--])) {
          at += static_cast<std::int64_t>(rest % static_cast<std::size_t>(from.dims[a])) * from.strides[a];
        }
        T want;
        std::memcpy(&want, at, sizeof(T));
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
  // Runs that together are an element of another size, runs of whole vectors, and rows too short for a transposition.
  for (const Sizes& dims : {Sizes{5, 3, 2}, Sizes{5, 3, 4}, Sizes{3, 5, 8}, Sizes{4, 9, 32}, Sizes{3, 150}, Sizes{20, 7, 16}})
    ASSERT_NO_FATAL_FAILURE(check_permutations<float>(dims, 1));
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
  nd::copy(kernels(), dense(out.data(), {3, 3, 4}, 4), from, 4, 1);
  for (int i = 0; i < 36; ++i) ASSERT_EQ(out.values()[i], values[11 - (i / 12 * 4 + i % 4)]);
}

// So long that parts of a row are shared: one row, some, transposed ones; by index tables as well.
TEST(NdCopy, SharesLongRows) {
  constexpr std::int64_t n = 8 * nd::kSerial + 3;
  std::vector<float> values(3 * n);
  std::iota(values.begin(), values.end(), 0.0f);
  GuardedBuffer<float> in(values, Flush::tail);
  std::vector<std::int64_t> backwards(n, -1);
  for (std::int64_t i = 0; i + 1 < n; ++i) backwards[static_cast<std::size_t>(i)] = n - 1 - i;
  const float fill = -1.0f;
  for (const int threads : {1, 3}) {
    GuardedBuffer<float> out(n, Flush::head), all(3 * n, Flush::head);
    Array column = dense(in.data(), {n}, 4);
    column.strides[0] = 12;
    nd::copy(kernels(), dense(out.data(), {n}, 4), column, 4, threads);
    for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(out.values()[i], values[3 * i]);
    nd::copy(kernels(), dense(all.data(), {3, n}, 4), permuted(dense(in.data(), {n, 3}, 4), {1, 0}), 4, threads);
    for (std::size_t i = 0; i < 3 * n; ++i) ASSERT_EQ(all.values()[i], values[i % n * 3 + i / n]);
    nd::gather(dense(all.data(), {3, n}, 4), dense(in.data(), {3, n}, 4), {{1, -1, 1}, backwards}, &fill, 4, threads);
    for (std::size_t i = 0; i < 3 * n; ++i) {
      ASSERT_EQ(all.values()[i], i / n == 1 || i % n == n - 1 ? fill : values[n + n - 1 - i % n]);
    }
    nd::gather(dense(all.data(), {3, n}, 4), dense(in.data(), {3, n}, 4), {{2, 2, 0}, {}}, &fill, 4, threads);
    for (std::size_t i = 0; i < 3 * n; ++i) ASSERT_EQ(all.values()[i], values[(i / n == 2 ? 0 : 2 * n) + i % n]);
    ASSERT_TRUE(out.slack_intact() && all.slack_intact());
  }
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

TEST(NdGather, TakesRunsRepeatedRowsAndAnyStrideAsElementsOneByOne) {
  Random random{9};
  for (int round = 0; round < 200; ++round) {
    const Sizes in = {1 + random.below(3), 1 + random.below(5), 1 + random.below(40)};
    std::vector<std::vector<std::int64_t>> index(3);
    Sizes out = in;
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (random.below(3) == 0) continue;  // no table: its elements as they are
      const int pattern = random.below(3);
      out[axis] = 1 + random.below(static_cast<int>(2 * in[axis] + 3));
      for (std::int64_t j = 0; j < out[axis]; ++j) {
        const std::int64_t at = pattern == 0 ? j - 1 : pattern == 1 ? j / 2 : random.below(static_cast<int>(in[axis]) + 1) - 1;
        index[axis].push_back(at < in[axis] ? at : -1);
      }
    }
    std::vector<float> values(static_cast<std::size_t>(in[0] * in[1] * in[2]));
    std::iota(values.begin(), values.end(), 1.0f);
    const auto n = static_cast<std::size_t>(out[0] * out[1] * out[2]);
    GuardedBuffer<float> source(values, Flush::tail), result(n, round % 2 ? Flush::head : Flush::tail);
    Array from = dense(source.data(), in, 4);
    if (round % 4 == 0) from = permuted(dense(source.data(), {in[1], in[2], in[0]}, 4), {2, 0, 1});
    const float fill = -7.0f;
    nd::gather(dense(result.data(), out, 4), from, index, &fill, 4, 1 + round % 3);
    ASSERT_TRUE(result.slack_intact());
    for (std::size_t i = 0; i < n; ++i) {
      const char* at = from.data;
      bool inside = true;
      auto rest = static_cast<std::int64_t>(i);
      for (int axis = 2; axis >= 0; --axis) {
        const auto& table = index[static_cast<std::size_t>(axis)];
        const std::int64_t j = rest % out[static_cast<std::size_t>(axis)];
        rest /= out[static_cast<std::size_t>(axis)];
        const std::int64_t place = table.empty() ? j : table[static_cast<std::size_t>(j)];
        inside &= place >= 0;
        if (inside) at += place * from.strides[axis];
      }
      float want = fill;
      if (inside) std::memcpy(&want, at, sizeof want);
      ASSERT_EQ(result.values()[i], want) << "round " << round << ", element " << i;
    }
  }
}

}  // namespace
}  // namespace sepconv::test
