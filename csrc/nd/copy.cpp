// Moving elements without arithmetic (but on the kernel that transposes floats): transposed and sliced copies, padding and
// nearest neighbours by index tables.
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

// Where the last axis lies dense in both and is as long as an element of some size, it becomes part of the element.
void widen_elements(Array& a, Array& b, int& size) {
  if (a.rank == 0 || a.strides[a.rank - 1] != size || b.strides[b.rank - 1] != size) return;
  const std::int64_t bytes = a.dims[a.rank - 1] * size;
  if (bytes != 2 && bytes != 4 && bytes != 8 && bytes != 16) return;
  size = static_cast<int>(bytes);
  a.rank = --b.rank;
}

struct Plane {
  std::int64_t rows, columns;
  std::ptrdiff_t to_row, to_column, from_row, from_column;
};

constexpr std::int64_t kBlock = 16;      // cache lines of a transposed block, on either side
constexpr std::int64_t kLongest = 4 * kSerial;  // columns of a piece: longer rows are shared
constexpr std::int64_t kTileRows = 64;   // of floats that the kernel transposes at a time
constexpr std::int64_t kShortest = 8;    // rows of the target: of shorter ones the kernel would write partial vectors alone
constexpr std::int64_t kDealt = 4;       // but of up to so many, side by side, whole ones

// Whether the plane is a matrix of floats and its copy the transposed one.
bool is_transposition(const char* to, const char* from, const Plane& p, int size) {
  constexpr auto kFloat = static_cast<std::ptrdiff_t>(sizeof(float));
  const auto whole = [](std::ptrdiff_t n) { return n % kFloat == 0; };
  const bool fills = p.columns >= kShortest || (p.columns <= kDealt && p.to_row == p.columns * kFloat);
  return size == kFloat && fills && p.to_column == kFloat && p.from_row == kFloat && whole(p.to_row) &&
         whole(p.from_column) && whole(reinterpret_cast<std::intptr_t>(to)) && whole(reinterpret_cast<std::intptr_t>(from));
}

void transpose_plane(const KernelTable& table, char* to, const char* from, const Plane& p) {
  constexpr auto kFloat = static_cast<std::ptrdiff_t>(sizeof(float));
  const std::int64_t block = p.columns <= kDealt ? p.rows : kBlock, tile = p.rows <= kDealt ? p.columns : kTileRows;
  for (std::int64_t r = 0; r < p.rows; r += block) {
    for (std::int64_t c = 0; c < p.columns; c += tile) {
      table.transpose_f32(reinterpret_cast<const float*>(from + c * p.from_column) + r, p.from_column / kFloat,
                          reinterpret_cast<float*>(to + r * p.to_row) + c, p.to_row / kFloat,
                          std::min(tile, p.columns - c), std::min(block, p.rows - r));
    }
  }
}

// Short runs without a call, which is dearer than they are.
void copy_run(char* to, const char* from, std::size_t bytes) {
  if (bytes > 256 || bytes % 16 != 0) {
    std::memcpy(to, from, bytes);
    return;
  }
  for (std::size_t i = 0; i < bytes; i += 16) std::memcpy(to + i, from + i, 16);
}

// Not inlined into the lambdas that call it: there GCC 12 runs out of registers for these loops. The plane by value: what is
// written could else be it.
template <class T>
[[gnu::noinline]] void copy_plane(char* to, const char* from, const Plane p) {
  const auto size = static_cast<std::ptrdiff_t>(sizeof(T));
  if (p.to_column == size && p.from_column == size) {
    for (std::int64_t r = 0; r < p.rows; ++r) {
      copy_run(to + r * p.to_row, from + r * p.from_row, static_cast<std::size_t>(p.columns) * sizeof(T));
    }
    return;
  }
  if (p.columns < kShortest && p.to_row == p.columns * size) {  // pixels of a few channels: long loops along the rows
    for (std::int64_t r0 = 0; r0 < p.rows; r0 += kBlock * kBlock) {
      const std::int64_t r1 = std::min(r0 + kBlock * kBlock, p.rows);
      for (std::int64_t c = 0; c < p.columns; ++c) {
        char* const target = to + c * p.to_column;
        const char* const source = from + c * p.from_column;
        for (std::int64_t r = r0; r < r1; ++r) move<T>(target + r * p.to_row, source + r * p.from_row);
      }
    }
    return;
  }
  for (std::int64_t r0 = 0; r0 < p.rows; r0 += kBlock) {
    const std::int64_t r1 = std::min(r0 + kBlock, p.rows);
    for (std::int64_t c0 = 0; c0 < p.columns; c0 += kBlock) {
      const std::int64_t c1 = std::min(c0 + kBlock, p.columns);
      for (std::int64_t r = r0; r < r1; ++r) {
        char* target = to + r * p.to_row + c0 * p.to_column;
        const char* source = from + r * p.from_row + c0 * p.from_column;
        for (std::int64_t c = c0; c < c1; ++c, target += p.to_column, source += p.from_column) move<T>(target, source);
      }
    }
  }
}

}  // namespace

void copy(const KernelTable& table, const Array& to_array, const Array& from_array, int size, int threads) {
  Array to = to_array, from = from_array;
  const std::int64_t elements = to.elements();
  if (elements == 0) return;
  collapse(to, from);
  widen_elements(to, from, size);
  if (to.rank == 0) {
    std::memcpy(to.data, from.data, static_cast<std::size_t>(size));
    return;
  }
  // The plane: the last axis, and of the others the one along which the source is nearest to dense; where the last one is
  // dense in both, the one before it.
  const int last = to.rank - 1;
  const bool runs = to.strides[last] == size && from.strides[last] == size;
  int row = runs ? last - 1 : -1;
  for (int i = 0; i < last && !runs; ++i) {
    if (row < 0 || std::abs(from.strides[i]) < std::abs(from.strides[row])) row = i;
  }
  Plane plane{1, to.dims[last], 0, to.strides[last], 0, from.strides[last]};
  std::int64_t strips = 1, strip = 1;
  if (row >= 0) {
    strip = std::min(std::max(kSerial / plane.columns, kBlock), to.dims[row]);
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
  const std::int64_t rows = row >= 0 ? to.dims[row] : 1, columns = plane.columns;
  const std::int64_t across = (columns + kLongest - 1) / kLongest;
  with_size(size, [&](auto element) {
    for_pieces(threads_for(elements, threads), planes * strips * across, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t column = i % across * kLongest, first = i / across % strips * strip, at = i / across / strips;
        Plane part = plane;
        part.rows = std::min(strip, rows - first);
        part.columns = std::min(kLongest, columns - column);
        char* const target = to.data + offset_of(at, outer, outer_to.dims, outer_to.strides) + first * plane.to_row +
                             column * plane.to_column;
        const char* const source = from.data + offset_of(at, outer, outer_to.dims, outer_from.strides) +
                                   first * plane.from_row + column * plane.from_column;
        if (is_transposition(target, source, part, size)) {
          transpose_plane(table, target, source, part);
        } else {
          copy_plane<decltype(element)>(target, source, part);
        }
      }
    });
  });
}

namespace {

// What a row of a gather takes: elements of the source that lie `step` bytes apart, from place on; place -1: the fill.
struct Piece {
  std::int64_t at, place, count;
};

// Elements first to end of a row in pieces of neighbours.
std::vector<Piece> pieces_of(const std::vector<std::int64_t>& table, std::int64_t first, std::int64_t end) {
  if (table.empty()) return {{first, first, end - first}};
  std::vector<Piece> pieces;
  for (std::int64_t j = first; j < end; ++j) {
    const std::int64_t place = std::max<std::int64_t>(table[static_cast<std::size_t>(j)], -1);
    const Piece before = pieces.empty() ? Piece{0, -2, 0} : pieces.back();
    const bool follows = place < 0 ? before.place == -1 : before.place >= 0 && place == before.place + before.count;
    if (follows) ++pieces.back().count;
    else pieces.push_back({j, place, 1});
  }
  return pieces;
}

template <class T>
void fill_run(char* to, const void* value, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) move<T>(to + i * static_cast<std::int64_t>(sizeof(T)), static_cast<const char*>(value));
}

template <class T>
[[gnu::noinline]] void gather_row(char* to, const char* source, std::ptrdiff_t step, const std::vector<Piece>& pieces,
                                  const void* fill) {
  constexpr auto kSize = static_cast<std::ptrdiff_t>(sizeof(T));
  for (const Piece& p : pieces) {
    char* const target = to + p.at * kSize;
    if (p.place < 0) {
      fill_run<T>(target, fill, p.count);
      continue;
    }
    const char* const from = source + p.place * step;
    if (p.count == 1) {
      move<T>(target, from);
    } else if (step == kSize) {
      copy_run(target, from, static_cast<std::size_t>(p.count) * sizeof(T));
    } else {
      for (std::int64_t j = 0; j < p.count; ++j) move<T>(target + j * kSize, from + j * step);
    }
  }
}

}  // namespace

void gather(const Array& to, const Array& from, const std::vector<std::vector<std::int64_t>>& index, const void* fill,
            int size, int threads) {
  const std::int64_t elements = to.elements();
  if (elements == 0) return;
  const int last = to.rank - 1;
  const std::int64_t columns = to.dims[last], across = (columns + kLongest - 1) / kLongest;
  std::vector<std::vector<Piece>> pieces;  // of each part of a row
  for (std::int64_t first = 0; first < columns; first += kLongest) {
    pieces.push_back(pieces_of(index[static_cast<std::size_t>(last)], first, std::min(first + kLongest, columns)));
  }
  with_size(size, [&](auto element) {
    using T = decltype(element);
    for_pieces(threads_for(elements, threads), elements / columns * across, [&](std::int64_t begin, std::int64_t end, int) {
      const char* before = nullptr;  // what the row before this one, of one part, was taken from
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t part = i % across, first = part * kLongest;
        char* const row = to.data + i / across * columns * size;
        const char* source = from.data;
        bool outside = false;
        std::int64_t rest = i / across;
        for (int axis = last - 1; axis >= 0 && !outside; --axis) {
          const std::int64_t at = rest % to.dims[axis];
          rest /= to.dims[axis];
          const auto& places = index[static_cast<std::size_t>(axis)];
          const std::int64_t place = places.empty() ? at : places[static_cast<std::size_t>(at)];
          outside = place < 0;
          if (!outside) source += place * from.strides[axis];
        }
        if (outside) {
          fill_run<T>(row + first * size, fill, std::min(kLongest, columns - first));
        } else if (source == before && i > begin && across == 1) {
          copy_run(row, row - columns * size, static_cast<std::size_t>(columns * size));
        } else {
          gather_row<T>(row, source, from.strides[last], pieces[static_cast<std::size_t>(part)], fill);
        }
        before = outside ? nullptr : source;
      }
    });
  });
}

void select(char* to, const std::uint8_t* condition, const char* a, const char* b, std::int64_t n, int size, int threads) {
  with_size(size, [&](auto element) {
    for_pieces(threads_for(n, threads), (n + kSerial - 1) / kSerial, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin * kSerial; i < std::min(end * kSerial, n); ++i) {
        move<decltype(element)>(to + i * size, (condition[i] != 0 ? a : b) + i * size);
      }
    });
  });
}

}  // namespace sepconv::nd
