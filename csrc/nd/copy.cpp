// Moving elements without arithmetic: transposed and sliced copies, padding and nearest neighbours by index tables.
#include <algorithm>
#include <cstring>

#include "nd/operators.h"

namespace sepconv::nd {
namespace {

struct Bytes16 {
  std::uint64_t low, high;
};

// f(value of a type of so many bytes).
template <class F>
void with_size(int size, const F& f) {
  switch (size) {
    case 1: return f(std::uint8_t{});
    case 2: return f(std::uint16_t{});
    case 4: return f(std::uint32_t{});
    case 8: return f(std::uint64_t{});
    default: return f(Bytes16{});
  }
}

template <class T>
void move(char* to, const char* from) {
  std::memcpy(to, from, sizeof(T));
}

// Drops axes of one element and joins axes that lie behind each other in both.
void collapse(Array& a, Array& b) {
  int rank = 0;
  for (int i = 0; i < a.rank; ++i) {
    if (a.dims[i] == 1) continue;
    if (rank > 0 && a.strides[rank - 1] == a.strides[i] * a.dims[i] && b.strides[rank - 1] == b.strides[i] * a.dims[i]) {
      a.dims[rank - 1] *= a.dims[i];
      a.strides[rank - 1] = a.strides[i];
      b.strides[rank - 1] = b.strides[i];
    } else {
      a.dims[rank] = a.dims[i];
      a.strides[rank] = a.strides[i];
      b.strides[rank] = b.strides[i];
      ++rank;
    }
  }
  a.rank = b.rank = rank;
  b.dims = a.dims;
}

struct Plane {
  std::int64_t rows, columns;
  std::ptrdiff_t to_row, to_column, from_row, from_column;
};

constexpr std::int64_t kBlock = 16;  // cache lines of a transposed block, on either side

template <class T>
void copy_plane(char* to, const char* from, const Plane& p) {
  const auto size = static_cast<std::ptrdiff_t>(sizeof(T));
  if (p.to_column == size && p.from_column == size) {
    for (std::int64_t r = 0; r < p.rows; ++r) {
      std::memcpy(to + r * p.to_row, from + r * p.from_row, static_cast<std::size_t>(p.columns) * sizeof(T));
    }
    return;
  }
  for (std::int64_t r0 = 0; r0 < p.rows; r0 += kBlock) {
    const std::int64_t r1 = std::min(r0 + kBlock, p.rows);
    for (std::int64_t c0 = 0; c0 < p.columns; c0 += kBlock) {
      const std::int64_t c1 = std::min(c0 + kBlock, p.columns);
      for (std::int64_t r = r0; r < r1; ++r) {
        for (std::int64_t c = c0; c < c1; ++c) {
          move<T>(to + r * p.to_row + c * p.to_column, from + r * p.from_row + c * p.from_column);
        }
      }
    }
  }
}

}  // namespace

void copy(const Array& to_array, const Array& from_array, int size, int threads) {
  Array to = to_array, from = from_array;
  const std::int64_t elements = to.elements();
  if (elements == 0) return;
  collapse(to, from);
  if (to.rank == 0) {
    std::memcpy(to.data, from.data, static_cast<std::size_t>(size));
    return;
  }
  // The plane: the last axis, and of the others the one along which the source is nearest to dense.
  const int last = to.rank - 1;
  int row = -1;
  for (int i = 0; i < last; ++i) {
    if (row < 0 || std::abs(from.strides[i]) < std::abs(from.strides[row])) row = i;
  }
  Plane plane{1, to.dims[last], 0, to.strides[last], 0, from.strides[last]};
  std::int64_t strips = 1, strip = 1;
  if (row >= 0) {
    strip = std::clamp<std::int64_t>(kSerial / std::max<std::int64_t>(plane.columns, 1), kBlock, to.dims[row]);
    if (strip > to.dims[row]) strip = to.dims[row];
    strips = (to.dims[row] + strip - 1) / strip;
    plane.to_row = to.strides[row];
    plane.from_row = from.strides[row];
  }
  Array outer_to = to, outer_from = from;  // without the plane's axes
  int outer = 0;
  for (int i = 0; i < last; ++i) {
    if (i == row) continue;
    outer_to.dims[outer] = to.dims[i];
    outer_to.strides[outer] = to.strides[i];
    outer_from.strides[outer++] = from.strides[i];
  }
  std::int64_t planes = 1;
  for (int i = 0; i < outer; ++i) planes *= outer_to.dims[i];
  const std::int64_t rows = row >= 0 ? to.dims[row] : 1;
  with_size(size, [&](auto element) {
    for_pieces(threads_for(elements, threads), planes * strips, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = i % strips * strip;
        Plane part = plane;
        part.rows = std::min(strip, rows - first);
        copy_plane<decltype(element)>(
            to.data + offset_of(i / strips, outer, outer_to.dims, outer_to.strides) + first * plane.to_row,
            from.data + offset_of(i / strips, outer, outer_to.dims, outer_from.strides) + first * plane.from_row, part);
      }
    });
  });
}

void gather(const Array& to, const Array& from, const std::vector<std::vector<std::int64_t>>& index, const void* fill,
            int size, int threads) {
  const std::int64_t elements = to.elements();
  if (elements == 0) return;
  const int last = to.rank - 1;
  const std::int64_t columns = to.dims[last];
  const std::vector<std::int64_t>& table = index[static_cast<std::size_t>(last)];
  with_size(size, [&](auto element) {
    using T = decltype(element);
    for_pieces(threads_for(elements, threads), elements / columns, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        char* const row = to.data + i * columns * size;
        const char* source = from.data;
        bool outside = false;
        std::int64_t rest = i;
        for (int axis = last - 1; axis >= 0; --axis) {
          const std::int64_t at = rest % to.dims[axis];
          rest /= to.dims[axis];
          const auto& places = index[static_cast<std::size_t>(axis)];
          const std::int64_t place = places.empty() ? at : places[static_cast<std::size_t>(at)];
          outside |= place < 0;
          source += place * from.strides[axis];
        }
        for (std::int64_t j = 0; j < columns; ++j) {
          const std::int64_t place = table.empty() ? j : table[static_cast<std::size_t>(j)];
          const bool filled = outside || place < 0;
          move<T>(row + j * size, filled ? static_cast<const char*>(fill) : source + place * from.strides[last]);
        }
      }
    });
  });
}

void select(char* to, const bool* condition, const char* a, const char* b, std::int64_t n, int size, int threads) {
  with_size(size, [&](auto element) {
    for_pieces(threads_for(n, threads), (n + kSerial - 1) / kSerial, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin * kSerial; i < std::min(end * kSerial, n); ++i) {
        move<decltype(element)>(to + i * size, (condition[i] ? a : b) + i * size);
      }
    });
  });
}

}  // namespace sepconv::nd
