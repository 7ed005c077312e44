// Poolings over any number of axes against a loop over all taps, between guard pages.
#include <functional>

#include "kernel_testing.h"
#include "nd/operators.h"

namespace sepconv::test {
namespace {

// f(offset in the plane) for each tap of output `index` inside the image, in order.
void for_taps(const nd::Geometry& g, std::int64_t index, const std::function<void(std::int64_t)>& f) {
  for (std::int64_t tap = 0; tap < g.taps(); ++tap) {
    std::int64_t rest = tap, out = index, offset = 0, size = 1;
    bool inside = true;
    for (int i = g.rank - 1; i >= 0; --i) {
      const std::int64_t at = out % g.out[i] * g.stride[i] - g.pad[i] + rest % g.kernel[i] * g.dilation[i];
      rest /= g.kernel[i];
      out /= g.out[i];
      inside &= at >= 0 && at < g.in[i];
      offset += at * size;
      size *= g.in[i];
    }
    if (inside) f(offset);
  }
}

TEST(NdPool, IsWhatALoopOverAllTapsGives) {
  Random random{17};
  for (int round = 0; round < 120; ++round) {
    nd::Geometry g;
    g.rank = 1 + random.below(3);
    std::array<std::int64_t, nd::kMaxRank> end{};
    for (int i = 0; i < g.rank; ++i) {
      g.kernel[i] = 1 + random.below(3);
      g.stride[i] = 1 + random.below(3);
      g.dilation[i] = 1 + random.below(2);
      g.in[i] = (g.kernel[i] - 1) * g.dilation[i] + 1 + random.below(i == g.rank - 1 && round % 8 == 0 ? 700 : 7);
      g.pad[i] = g.kernel[i] > 1 ? random.below(2) : 0;
      end[i] = g.pad[i];
      g.out[i] = (g.in[i] + 2 * g.pad[i] - (g.kernel[i] - 1) * g.dilation[i] - 1) / g.stride[i] + 1;
    }
    const std::int64_t planes = 1 + random.below(4), in = g.in_size(), out = g.out_size();
    std::vector<float> x = draw(random, static_cast<std::size_t>(planes * in), round % 2 ? Values::real : Values::integer);
    if (round % 5 == 0) x[static_cast<std::size_t>(random.below(static_cast<int>(planes * in)))] = kNaN;
    GuardedBuffer<float> from(x, round % 2 ? Flush::head : Flush::tail);
    const auto outputs = static_cast<std::size_t>(planes * out);
    GuardedBuffer<float> average = unwritten(outputs, Flush::tail), most = unwritten(outputs, Flush::head);
    GuardedBuffer<float> placed = unwritten(outputs, Flush::tail);
    std::vector<std::int64_t> places(outputs);
    const int threads = 1 + round % 3;
    nd::pool(nd::PoolKind::average, from.data(), planes, g, end, average.data(), nullptr, threads);
    nd::pool(nd::PoolKind::max, from.data(), planes, g, end, most.data(), nullptr, threads);
    nd::pool(nd::PoolKind::max, from.data(), planes, g, end, placed.data(), places.data(), threads);
    ASSERT_TRUE(average.slack_intact() && most.slack_intact() && placed.slack_intact());
    for (std::int64_t o = 0; o < planes * out; ++o) {
      double sum = 0.0, count = 0.0;
      float greatest = -kInf;
      std::int64_t place = -1;
      for_taps(g, o % out, [&](std::int64_t offset) {
        const float value = x[static_cast<std::size_t>(o / out * in + offset)];
        sum += double{value};
        count += 1.0;
        if (place < 0 || value > greatest || (std::isnan(value) && !std::isnan(greatest))) {
          greatest = value;
          place = o / out * in + offset;
        }
      });
      const auto at = static_cast<std::size_t>(o);
      ASSERT_TRUE(same_bits(average.values()[at], static_cast<float>(sum / count)) || std::isnan(sum)) << "round " << round;
      ASSERT_EQ(std::isnan(average.values()[at]), std::isnan(sum));
      ASSERT_TRUE(most.values()[at] == greatest || (std::isnan(greatest) && std::isnan(most.values()[at])));
      ASSERT_PRED2(same_bits, placed.values()[at], greatest);
      ASSERT_EQ(places[at], place);
    }
  }
}

}  // namespace
}  // namespace sepconv::test
