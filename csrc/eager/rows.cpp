#include "eager/rows.h"

#include <algorithm>

namespace sepconv {
namespace {

// How many channels are transposed at a time: whole tiles of every ISA. In an array that was never touched each begins a
// page of its own, perhaps a huge one, which takes the time of so many multiply-adds.
constexpr int kChannels = 16;
constexpr std::int64_t kPage = 1 << 18;

}  // namespace

void load_rows(const ConstPixels& image, const Rows& to, int y0, int y1, const Shape& in, int repeat, const KernelTable& table,
               Watch& watch) {
  for (int y = y0; y < y1;) {
    int count = to.together(y, y1 - y, in.w);
    if (image.row != in.w * image.pixel) count = 1;
    const std::int64_t pixels = std::int64_t{1} * count * in.w;
    const float* const from = image.at(y, 0);
    float* const rows = to.at(y);
    if (image.pixel == 1 && repeat == 1) {
      for (int c = 0; c < in.c; c += kChannels) {
        const int channels = std::min(kChannels, in.c - c);
        table.transpose_f32(from + c * image.channel, image.channel, rows + c, to.pixel, channels, pixels);
        if (watch.leave(channels * kPage, channels * pixels)) return;
      }
    } else if (image.channel == 1 && repeat == 1) {
      for (std::int64_t x = 0; x < pixels; ++x) {
        std::copy_n(from + x * image.pixel, in.c, rows + x * to.pixel);
        if (watch.leave(0, in.c)) return;
      }
    } else {
      for (std::int64_t x = 0; x < pixels; ++x) {
        float* out = rows + x * to.pixel;
        for (int c = 0; c < in.c; ++c) {
          for (int m = 0; m < repeat; ++m) *out++ = from[x * image.pixel + c * image.channel];
        }
        if (watch.leave(0, std::int64_t{1} * in.c * repeat)) return;
      }
    }
    y += count;
  }
}

void store_rows(const ConstRows& from, const Pixels& image, int y0, int y1, const Shape& out, const KernelTable& table,
                Watch& watch) {
  for (int y = y0; y < y1;) {
    int count = from.together(y, y1 - y, out.w);
    if (image.row != out.w * image.pixel) count = 1;
    const std::int64_t pixels = std::int64_t{1} * count * out.w;
    const float* const rows = from.at(y);
    float* const to = image.at(y, 0);
    if (image.pixel == 1) {
      for (int c = 0; c < out.c; c += kChannels) {
        const int channels = std::min(kChannels, out.c - c);
        table.transpose_f32(rows + c, from.pixel, to + c * image.channel, image.channel, pixels, channels);
        if (watch.leave(channels * kPage, channels * pixels)) return;
      }
    } else {
      for (std::int64_t x = 0; x < pixels; ++x) {
        for (int c = 0; c < out.c; ++c) to[x * image.pixel + c * image.channel] = rows[x * from.pixel + c];
        if (watch.leave(0, out.c)) return;
      }
    }
    y += count;
  }
}

}  // namespace sepconv
