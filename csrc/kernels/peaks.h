// What the machine can do at most, for `sepconv peaks` and shares of it: independent multiply-adds on registers, and reads.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// More chains than any CPU has multiply-adds in flight: two pipes of latency 4 or 5, four on some of Arm's. With a factor of one half and
// a term of one each converges to 2: nothing overflows or goes denormal. Returns a sum of all, so that none is dropped.
SEPCONV_INLINE float fma_peak(std::int64_t iterations, float factor, float term) {
  constexpr int kChains = kRegisters >= 32 ? 16 : 12;
  const vf factors = broadcast(factor), terms = broadcast(term);
  vf acc[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) acc[i] = broadcast(static_cast<float>(i));
  for (std::int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 4
    for (int step = 0; step < kFmaPerIteration / kChains; ++step) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) acc[i] = fmadd(acc[i], factors, terms);
    }
  }
  vf sum = acc[0];
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) sum = add(sum, acc[i]);
  float lanes[kLanes];
  store(lanes, sum);
  return lanes[0];
}

// Reads n floats front to back, n a multiple of 8·V. Returns a sum, so that no read is dropped.
SEPCONV_INLINE float read_peak(const float* p, std::int64_t n) {
  constexpr int kChains = 8;
  vf acc[kChains];
#pragma GCC unroll 8
  for (int i = 0; i < kChains; ++i) acc[i] = broadcast(0.0f);
  for (const float* const end = p + n; p != end; p += kChains * kLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < kChains; ++i) acc[i] = add(acc[i], load(p + i * kLanes));
  }
  vf sum = acc[0];
#pragma GCC unroll 8
  for (int i = 1; i < kChains; ++i) sum = add(sum, acc[i]);
  float lanes[kLanes];
  store(lanes, sum);
  return lanes[0];
}

}  // namespace sepconv::SEPCONV_ISA
