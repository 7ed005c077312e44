// What the fuzzer's targets share: arguments from its bytes, and how they fail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>

#include "base/tensor.h"

namespace sepconv {

constexpr std::int64_t kMaxWork = 4'000;  // multiply-adds and elements of a layer that is run
constexpr float kUnwritten = -1234.5f;     // what results hold before a run

// Numbers from the fuzzer's bytes; zeros once they are used up.
class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  unsigned byte() { return at_ < size_ ? data_[at_++] : 0; }
  // Mostly small; the rest at the limits of the graph and of int.
  int size(int most) {
    const unsigned b = byte();
    if (b < 250) return static_cast<int>(b) % (most + 1);
    constexpr int kEdges[] = {-1, 1 << 20, (1 << 20) + 1, 1 << 30, 0x7fffffff, -0x7fffffff - 1};
    return kEdges[b - 250];
  }
  int extent(int most) {
    const int n = size(most);
    return n == 0 ? 1 : n;
  }
  Padding padding() { return {size(3), size(3), size(3), size(3)}; }
  Activation activation() { return static_cast<Activation>(byte() % 7); }
  bool empty() const { return at_ >= size_; }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

// The product, or more than any limit: dimensions may be negative or overflow.
inline std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t p = 1;
  for (const std::int64_t f : factors) {
    if (f < 0 || __builtin_mul_overflow(p, f, &p)) return std::int64_t{1} << 62;
  }
  return p;
}

inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

// The targets: true where the bytes made something that ran; std::invalid_argument where they were refused.
bool try_graph(Bytes in);
bool try_call(Bytes in);
bool try_gradient(Bytes in);

}  // namespace sepconv
