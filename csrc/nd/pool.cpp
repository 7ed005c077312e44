// Poolings over any number of axes: one output row at a time, tap after tap, each added to all outputs that it reaches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "nd/operators.h"

namespace sepconv::nd {
namespace {

constexpr std::int64_t kChunk = 256;  // outputs of a row whose sums lie on the stack

// Taps along the last axis, for outputs first to end of one row. An output o takes in[o·stride + shift] from tap to tap.
struct Run {
  std::int64_t first, end;
};

Run reached(const Geometry& g, std::int64_t shift, Run all) {
  const int last = g.rank - 1;
  const std::int64_t stride = g.stride[last], room = g.in[last] - 1 - shift;
  if (room < 0) return {all.first, all.first};
  if (stride == 1) return {std::max(all.first, -shift), std::min(all.end, room + 1)};
  const std::int64_t first = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
  return {std::max(all.first, first), std::min(all.end, room / stride + 1)};
}

// Taps of an axis from `begin` on, before `end`.
struct Taps {
  std::int64_t begin, end;
};

// Those that can lie inside for windows that begin at places from first to last.
Taps taps_inside(const Geometry& g, int axis, std::int64_t first, std::int64_t last) {
  const std::int64_t dilation = g.dilation[axis], room = g.in[axis] - 1 - first;
  const std::int64_t begin = last >= 0 ? 0 : (-last + dilation - 1) / dilation;
  return {begin, std::max(begin, room < 0 ? 0 : std::min(g.kernel[axis], room / dilation + 1))};
}

// f(what output 0 takes, counted from an image's row; the run of outputs) for the taps along the last axis, an output's in
// their order. No more of them are looked at than can lie inside.
template <class F>
void for_last_taps(const Geometry& g, Run all, const F& f) {
  const int last = g.rank - 1;
  const std::int64_t dilation = g.dilation[last], pad = g.pad[last], stride = g.stride[last];
  const auto place = [&](std::int64_t o) { return o * stride - pad; };
  const Taps taps = taps_inside(g, last, place(all.first), place(all.end - 1));
  const std::int64_t of_each = (all.end - all.first) * ((g.in[last] - 1) / dilation + 1);
  if (taps.end - taps.begin > of_each) {  // windows far apart
    for (std::int64_t o = all.first; o < all.end; ++o) {
      const Taps own = taps_inside(g, last, place(o), place(o));
      for (std::int64_t t = own.begin; t < own.end; ++t) f(t * dilation - pad, Run{o, o + 1});
    }
    return;
  }
  for (std::int64_t t = taps.begin; t < taps.end; ++t) {
    const std::int64_t shift = t * dilation - pad;
    const Run run = reached(g, shift, all);
    if (run.first < run.end) f(shift, run);
  }
}

// f(offset in the input image of what output 0 takes, the run of outputs) for the taps of output row `row`, in their
// order. Returns how many taps of the axes before the last lie inside.
template <class F>
std::int64_t for_tap_runs(const Geometry& g, std::int64_t row, Run all, const F& f) {
  const int last = g.rank - 1;
  std::array<std::int64_t, kMaxRank> first, count;  // places of the first tap inside, and how many there are
  std::int64_t taps = 1;
  for (int i = last - 1; i >= 0; --i) {
    const std::int64_t origin = row % g.out[i] * g.stride[i] - g.pad[i];
    const Taps inside = taps_inside(g, i, origin, origin);
    row /= g.out[i];
    first[i] = origin + inside.begin * g.dilation[i];
    count[i] = inside.end - inside.begin;
    taps *= count[i];
  }
  for (std::int64_t tap = 0; tap < taps; ++tap) {
    std::int64_t rest = tap, offset = 0, size = g.in[last];
    for (int i = last - 1; i >= 0; --i) {
      offset += (first[i] + rest % count[i] * g.dilation[i]) * size;
      rest /= count[i];
      size *= g.in[i];
    }
    for_last_taps(g, all, [&](std::int64_t shift, Run run) { f(offset + shift, run); });
  }
  return taps;
}

// f(plane, output row, its chunk) of all planes, on threads.
template <class F>
void for_chunks(const Geometry& g, std::int64_t planes, int threads, const F& f) {
  const std::int64_t width = g.out[g.rank - 1], rows = g.out_size() / width, chunks = (width + kChunk - 1) / kChunk;
  for_pieces(threads_for(planes * g.out_size() * std::min(g.taps(), kSerial), threads), planes * rows * chunks,
             [&](std::int64_t begin, std::int64_t end, int) {
               for (std::int64_t i = begin; i < end; ++i) {
                 const std::int64_t first = i % chunks * kChunk, row = i / chunks;
                 f(row / rows, row % rows, Run{first, std::min(first + kChunk, width)});
               }
             });
}

// op(output, what it takes) over a run; stride 1 as a loop of its own, which vectorises.
template <class T, class Op>
void take(const T* image, std::int64_t offset, std::int64_t stride, Run run, const Op& op) {
  if (stride == 1) {
    for (std::int64_t o = run.first; o < run.end; ++o) op(o, image[offset + o]);
  } else {
    for (std::int64_t o = run.first; o < run.end; ++o) op(o, image[offset + o * stride]);
  }
}

// The taps of output `o` of an axis that lie before `end`, from the first one on.
std::int64_t taps_before(const Geometry& g, int axis, std::int64_t o, std::int64_t end) {
  const std::int64_t room = end + g.pad[axis] - o * g.stride[axis];
  return std::min(g.kernel[axis], (room + g.dilation[axis] - 1) / g.dilation[axis]);
}

// A last window that ceil_mode adds may reach beyond the padding: those taps do not count.
std::int64_t padded_taps(const Geometry& g, const std::array<std::int64_t, kMaxRank>& end_pad, std::int64_t row) {
  std::int64_t count = 1;
  for (int i = g.rank - 2; i >= 0; --i) {
    count *= taps_before(g, i, row % g.out[i], g.in[i] + end_pad[i]);
    row /= g.out[i];
  }
  return count;
}

void sum_pool(PoolKind kind, const float* x, std::int64_t planes, const Geometry& g,
              const std::array<std::int64_t, kMaxRank>& end_pad, float* y, int threads) {
  const int last = g.rank - 1;
  const std::int64_t stride = g.stride[last], width = g.out[last];
  for_chunks(g, planes, threads, [&](std::int64_t plane, std::int64_t row, Run chunk) {
    double sums[kChunk] = {};
    double taps[kChunk] = {};
    const float* const image = x + plane * g.in_size();
    const std::int64_t rows = for_tap_runs(g, row, chunk, [&](std::int64_t offset, Run run) {
      take(image, offset, stride, run,
           [&](std::int64_t o, float value) { sums[o - chunk.first] += static_cast<double>(value); });
    });
    double factor = 1.0;
    if (kind == PoolKind::average) {
      factor = static_cast<double>(rows);
      for_last_taps(g, chunk, [&](std::int64_t, Run run) {
        for (std::int64_t o = run.first; o < run.end; ++o) taps[o - chunk.first] += 1.0;
      });
    } else if (kind == PoolKind::average_padded) {
      factor = static_cast<double>(padded_taps(g, end_pad, row));
      for (std::int64_t o = chunk.first; o < chunk.end; ++o) {
        taps[o - chunk.first] = static_cast<double>(taps_before(g, last, o, g.in[last] + end_pad[last]));
      }
    } else {
      std::fill(taps, taps + kChunk, 1.0);
    }
    float* const to = y + plane * g.out_size() + row * width;
    for (std::int64_t o = chunk.first; o < chunk.end; ++o) {
      to[o] = static_cast<float>(sums[o - chunk.first] / (factor * taps[o - chunk.first]));
    }
  });
}

// The first of equals; a NaN stays.
template <class T>
void max_pool(const T* x, std::int64_t planes, const Geometry& g, T least, T* y, int threads) {
  const std::int64_t stride = g.stride[g.rank - 1], width = g.out[g.rank - 1];
  for_chunks(g, planes, threads, [&](std::int64_t plane, std::int64_t row, Run chunk) {
    T* const to = y + plane * g.out_size() + row * width;
    std::fill(to + chunk.first, to + chunk.end, least);
    const T* const image = x + plane * g.in_size();
    for_tap_runs(g, row, chunk, [&](std::int64_t offset, Run run) {
      take(image, offset, stride, run, [=](std::int64_t o, T value) {
        const bool taken = static_cast<int>(value > to[o]) | static_cast<int>(value != value);
        to[o] = taken ? value : to[o];
      });
    });
  });
}

void max_pool_with_places(const float* x, std::int64_t planes, const Geometry& g, float* y, std::int64_t* indices,
                          int threads) {
  const std::int64_t stride = g.stride[g.rank - 1], width = g.out[g.rank - 1];
  for_chunks(g, planes, threads, [&](std::int64_t plane, std::int64_t row, Run chunk) {
    float* const to = y + plane * g.out_size() + row * width;
    std::int64_t* const places = indices + plane * g.out_size() + row * width;
    std::fill(places + chunk.first, places + chunk.end, std::int64_t{-1});
    const std::int64_t first = plane * g.in_size();
    for_tap_runs(g, row, chunk, [&](std::int64_t offset, Run run) {
      take(x, first + offset, stride, run, [=](std::int64_t o, float value) {
        if (places[o] >= 0 && !(value > to[o]) && !(std::isnan(value) && !std::isnan(to[o]))) return;
        to[o] = value;
        places[o] = first + offset + o * stride;
      });
    });
  });
}

}  // namespace

void pool(PoolKind kind, const float* x, std::int64_t planes, const Geometry& g,
          const std::array<std::int64_t, kMaxRank>& end_pad, float* y, std::int64_t* indices, int threads) {
  if (kind != PoolKind::max) {
    sum_pool(kind, x, planes, g, end_pad, y, threads);
  } else if (indices) {
    max_pool_with_places(x, planes, g, y, indices, threads);
  } else {
    max_pool(x, planes, g, -std::numeric_limits<float>::infinity(), y, threads);
  }
}

template <class T>
void max_pool_integers(const T* x, std::int64_t planes, const Geometry& g, T* y, int threads) {
  max_pool(x, planes, g, std::numeric_limits<T>::min(), y, threads);
}

template void max_pool_integers(const std::int8_t*, std::int64_t, const Geometry&, std::int8_t*, int);
template void max_pool_integers(const std::uint8_t*, std::int64_t, const Geometry&, std::uint8_t*, int);

}  // namespace sepconv::nd
