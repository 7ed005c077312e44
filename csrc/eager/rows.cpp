#include "eager/rows.h"

namespace sepconv {

void load_rows(const ConstPixels& image, const Rows& to, int y0, int y1, const Shape& in, int repeat, const KernelTable& table) {
  for (int y = y0; y < y1;) {
    int count = to.together(y, y1 - y, in.w);
    if (image.row != in.w * image.pixel) count = 1;
    const std::int64_t pixels = std::int64_t{1} * count * in.w;
    const float* const from = image.at(y, 0);
    float* const rows = to.at(y);
    if (image.pixel == 1 && repeat == 1) {
      table.transpose_f32(from, image.channel, rows, to.pixel, in.c, pixels);
    } else {
      for (std::int64_t x = 0; x < pixels; ++x) {
        float* out = rows + x * to.pixel;
        for (int c = 0; c < in.c; ++c) {
          for (int m = 0; m < repeat; ++m) *out++ = from[x * image.pixel + c * image.channel];
        }
      }
    }
    y += count;
  }
}

void store_rows(const ConstRows& from, const Pixels& image, int y0, int y1, const Shape& out, const KernelTable& table) {
  for (int y = y0; y < y1;) {
    int count = from.together(y, y1 - y, out.w);
    if (image.row != out.w * image.pixel) count = 1;
    const std::int64_t pixels = std::int64_t{1} * count * out.w;
    const float* const rows = from.at(y);
    float* const to = image.at(y, 0);
    if (image.pixel == 1) {
      table.transpose_f32(rows, from.pixel, to, image.channel, pixels, out.c);
    } else {
      for (std::int64_t x = 0; x < pixels; ++x) {
        for (int c = 0; c < out.c; ++c) to[x * image.pixel + c * image.channel] = rows[x * from.pixel + c];
      }
    }
    y += count;
  }
}

}  // namespace sepconv
