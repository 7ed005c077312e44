// Arrays of any rank, as the N-d operators see them: an address, sizes, and strides in bytes of any sign.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/pieces.h"

namespace sepconv::nd {

inline constexpr int kMaxRank = 10;

enum class Type { f32, f64, i8, u8, i32, i64, boolean };

struct Array {
  char* data = nullptr;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> dims{};
  std::array<std::ptrdiff_t, kMaxRank> strides{};

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
};

// Below so many elements a second thread costs more than it gives.
inline constexpr std::int64_t kSerial = 1 << 14;
inline int threads_for(std::int64_t elements, int threads) { return elements < 2 * kSerial ? 1 : threads; }

// The offset in bytes of the `index`-th combination of the first `count` coordinates, the last of them fastest.
inline std::ptrdiff_t offset_of(std::int64_t index, int count, const std::array<std::int64_t, kMaxRank>& dims,
                                const std::array<std::ptrdiff_t, kMaxRank>& strides) {
  std::ptrdiff_t offset = 0;
  for (int i = count - 1; i >= 0; --i) {
    offset += (index % dims[i]) * strides[i];
    index /= dims[i];
  }
  return offset;
}

}  // namespace sepconv::nd
