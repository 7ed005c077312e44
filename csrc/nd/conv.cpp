// Transposed convolutions and poolings over any number of axes. A plan's are faster: these serve 3-D, groups, and whatever
// else the layer list does not say.
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/aligned.h"
#include "nd/operators.h"

namespace sepconv::nd {
namespace {

// Walks the taps of the output at `index`: f(tap, offset in the input image) for those inside it.
template <class F>
void for_taps(const Geometry& g, std::int64_t index, const F& f) {
  std::array<std::int64_t, kMaxRank> origin;
  for (int i = g.rank - 1; i >= 0; --i) {
    origin[i] = index % g.out[i] * g.stride[i] - g.pad[i];
    index /= g.out[i];
  }
  const std::int64_t taps = g.taps();
  for (std::int64_t tap = 0; tap < taps; ++tap) {
    std::int64_t rest = tap, offset = 0, size = 1;
    bool inside = true;
    for (int i = g.rank - 1; i >= 0; --i) {
      const std::int64_t at = origin[i] + rest % g.kernel[i] * g.dilation[i];
      rest /= g.kernel[i];
      inside &= at >= 0 && at < g.in[i];
      offset += at * size;
      size *= g.in[i];
    }
    if (inside) f(tap, offset);
  }
}

}  // namespace

void conv_transpose(const float* x, std::int64_t n, const std::vector<const PackedMatrix*>& groups, std::int64_t outputs,
                    const float* bias, const Geometry& g, float* y, int threads) {
  // Geometry of the convolution whose transpose this is: its output is our input.
  Geometry back = g;
  std::swap(back.in, back.out);
  const std::int64_t pixels = g.in_size(), taps = g.taps(), plane = g.out_size();
  const std::int64_t count = static_cast<std::int64_t>(groups.size());
  const std::int64_t columns = outputs * taps;
  AlignedBuffer spread = AlignedBuffer::of_floats(static_cast<std::size_t>(pixels * columns));
  for (std::int64_t image = 0; image < n * count; ++image) {
    const PackedMatrix& weights = *groups[static_cast<std::size_t>(image % count)];
    matmul(x + image * pixels * weights.k(), pixels, weights, spread.floats(), threads);
    for_pieces(threads_for(pixels * columns, threads), outputs, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t o = begin; o < end; ++o) {
        float* const to = y + (image * outputs + o) * plane;
        std::fill(to, to + plane, bias ? bias[image % count * outputs + o] : 0.0f);
        for (std::int64_t p = 0; p < pixels; ++p) {
          const float* const from = spread.floats() + p * columns + o * taps;
          for_taps(back, p, [&](std::int64_t tap, std::int64_t offset) { to[offset] += from[tap]; });
        }
      }
    });
  }
}

void pool(PoolKind kind, const float* x, std::int64_t planes, const Geometry& g,
          const std::array<std::int64_t, kMaxRank>& end_pad, float* y, std::int64_t* indices, int threads) {
  const std::int64_t in = g.in_size(), out = g.out_size();
  for_pieces(threads_for(planes * out * g.taps(), threads), planes, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t p = begin; p < end; ++p) {
      const float* const from = x + p * in;
      for (std::int64_t o = 0; o < out; ++o) {
        double sum = 0;
        float greatest = -std::numeric_limits<float>::infinity();
        std::int64_t count = 0, place = -1;
        for_taps(g, o, [&](std::int64_t, std::int64_t offset) {
          const float value = from[offset];
          sum += static_cast<double>(value);
          ++count;
          // The first of equals; a NaN stays.
          if (place < 0 || value > greatest || (std::isnan(value) && !std::isnan(greatest))) {
            greatest = value;
            place = offset;
          }
        });
        if (kind == PoolKind::sum) count = 1;
        if (kind == PoolKind::average_padded) {
          count = 1;
          std::int64_t rest = o;
          for (int i = g.rank - 1; i >= 0; --i) {
            // A last window that ceil_mode adds may reach beyond the padding: those taps do not count.
            const std::int64_t first = rest % g.out[i] * g.stride[i];
            rest /= g.out[i];
            const std::int64_t room = g.in[i] + g.pad[i] + end_pad[i] - first;
            count *= std::min(g.kernel[i], (room + g.dilation[i] - 1) / g.dilation[i]);
          }
        }
        const std::int64_t at = p * out + o;
        y[at] = kind == PoolKind::max ? greatest : static_cast<float>(sum / static_cast<double>(count));
        if (indices) indices[at] = p * in + place;
      }
    }
  });
}

template <class T>
void max_pool_integers(const T* x, std::int64_t planes, const Geometry& g, T* y, int threads) {
  const std::int64_t in = g.in_size(), out = g.out_size();
  for_pieces(threads_for(planes * out * g.taps(), threads), planes, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin * out; i < end * out; ++i) {
      const T* const from = x + i / out * in;
      T greatest = std::numeric_limits<T>::min();
      for_taps(g, i % out, [&](std::int64_t, std::int64_t offset) { greatest = std::max(greatest, from[offset]); });
      y[i] = greatest;
    }
  });
}

template void max_pool_integers(const std::int8_t*, std::int64_t, const Geometry&, std::int8_t*, int);
template void max_pool_integers(const std::uint8_t*, std::int64_t, const Geometry&, std::uint8_t*, int);

}  // namespace sepconv::nd
