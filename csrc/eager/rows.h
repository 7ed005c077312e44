// What the eager operators work on: pixels in the caller's memory, at any strides, and rows of pixels whose channels lie
// together, in the caller's memory or in a buffer.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>

#include "base/aligned.h"
#include "base/tensor.h"
#include "eager/watch.h"
#include "kernels/table.h"

namespace sepconv {

// How many floats past the beginning of a cache line `data` lies, and with it all that is any of these strides away; 0 also
// where not all of that lies alike.
template <class... Strides>
int line_phase(const float* data, Strides... strides) {
  constexpr auto kLine = static_cast<std::ptrdiff_t>(kAlignment / sizeof(float));
  const bool alike = ((strides % kLine == 0) && ...);
  return alike ? static_cast<int>(reinterpret_cast<std::uintptr_t>(data) % kAlignment / sizeof(float)) : 0;
}

// A batch of images; all strides in floats.
template <class T>
struct BasicPixels {
  T* data = nullptr;
  std::ptrdiff_t image = 0, row = 0, pixel = 0, channel = 1;

  BasicPixels of_image(std::int64_t n) const { return {data + n * image, image, row, pixel, channel}; }
  BasicPixels from_channel(int c) const { return {data + c * channel, image, row, pixel, channel}; }
  T* at(std::ptrdiff_t y, std::ptrdiff_t x) const { return data + y * row + x * pixel; }
  int phase() const { return channel == 1 ? line_phase(data, image, row, pixel) : 0; }
};
using ConstPixels = BasicPixels<const float>;
using Pixels = BasicPixels<float>;

// Row y starts at data + (y mod ring)·row.
template <class T>
struct BasicRows {
  T* data = nullptr;
  std::ptrdiff_t row = 0, pixel = 0;
  int ring = INT_MAX;

  BasicRows() = default;
  BasicRows(T* d, std::ptrdiff_t r, std::ptrdiff_t p, int n) : data(d), row(r), pixel(p), ring(n) {}
  explicit BasicRows(const BasicPixels<T>& image) : data(image.data), row(image.row), pixel(image.pixel) {}
  operator BasicRows<const T>() const { return {data, row, pixel, ring}; }
  BasicRows from_channel(int c) const { return {data + c, row, pixel, ring}; }

  T* at(int y) const { return data + std::ptrdiff_t{1} * (y % ring) * row; }
  int phase() const { return line_phase(data, row, pixel); }
  // How many rows from y on, of w pixels each, are as one long row; `most` at most.
  int together(int y, int most, int w) const {
    if (row != w * pixel) return 1;
    const int until_wrap = ring - y % ring;
    return most < until_wrap ? most : until_wrap;
  }
};
using ConstRows = BasicRows<const float>;
using Rows = BasicRows<float>;

// Rows [y0, y1) of an image into rows of channels, each channel `repeat` times: what the kernels can read.
void load_rows(const ConstPixels& image, const Rows& to, int y0, int y1, const Shape& in, int repeat, const KernelTable&,
               Watch&);

// Rows [y0, y1) to an image of any strides. Both return early where the watch says so.
void store_rows(const ConstRows& from, const Pixels& image, int y0, int y1, const Shape& out, const KernelTable&, Watch&);

}  // namespace sepconv
