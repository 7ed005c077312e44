// Pooling over the rows and columns of one plane (V channels). What lies outside takes no part.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

template <bool Max>
void pool(const PoolRow& p) {
  for (int x = 0; x < p.out_w; ++x) {
    const int start = x * p.stride_w - p.pad_left;
    const int first = start < 0 ? 0 : start;
    const int last = start + p.kw > p.in_w ? p.in_w : start + p.kw;
    vf acc = broadcast(Max ? -__builtin_inff() : 0.0f);
    for (int r = 0; r < p.row_count; ++r) {
      for (int column = first; column < last; ++column) {
        const vf v = load(p.rows[r] + static_cast<std::ptrdiff_t>(column) * kLanes);
        acc = Max ? max_nan(acc, v) : add(acc, v);
      }
    }
    if (!Max) {
      const float inside = static_cast<float>(last > first ? last - first : 0) * static_cast<float>(p.row_count);
      acc = div(acc, broadcast(p.divisor != 0 ? p.divisor : inside));
    }
    store(p.out + static_cast<std::ptrdiff_t>(x) * kLanes, acc);
  }
}

// Four chains hide the adder's latency; the order of the sum depends on n alone.
SEPCONV_INLINE vf sum_vectors(const float* in, std::int64_t n) {
  vf acc[4] = {broadcast(0.0f), broadcast(0.0f), broadcast(0.0f), broadcast(0.0f)};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[j] = add(acc[j], load(in + (i + j) * kLanes));
  }
  for (; i < n; ++i) acc[0] = add(acc[0], load(in + i * kLanes));
  return add(add(acc[0], acc[1]), add(acc[2], acc[3]));
}

// Of a large image one sum would lose digits: its parts are added up in double.
SEPCONV_INLINE void global_average(const float* in, std::int64_t n, float* out) {
  constexpr std::int64_t kPart = 256;
  vf sum;
  if (n <= kPart) {
    sum = sum_vectors(in, n);
  } else {
    vd total = broadcast_double(0.0);
    for (std::int64_t i = 0; i < n; i += kPart) {
      total = add(total, widen(sum_vectors(in + i * kLanes, n - i < kPart ? n - i : kPart)));
    }
    sum = narrow(total);
  }
  store(out, div(sum, broadcast(static_cast<float>(n))));
}

}  // namespace sepconv::SEPCONV_ISA
