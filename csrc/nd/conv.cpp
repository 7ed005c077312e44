// Transposed convolutions over any number of axes. A plan's are faster: these serve 3-D, groups, and whatever else the
// layer list does not say.
#include <algorithm>

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

}  // namespace sepconv::nd
