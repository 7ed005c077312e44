#include "ops/peaks.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <string>

#include "base/aligned.h"
#include "runtime/thread_pool.h"

namespace sepconv {
namespace {

constexpr double kBurst = 5e-4;  // seconds: long against the start of threads, short against what disturbs

// work(thread, repeats) on several threads at a time; keeps what it returns, so that no compiler drops it.
template <class Work>
class Bursts {
 public:
  Bursts(Work work, int threads) : work_(work), threads_(threads) {}

  // Units of work a second in each burst, `units` being that of one repeat on one thread.
  std::vector<double> measure(double units, double seconds) {
    while (burst() < kBurst && repeats_ < std::int64_t{1} << 40) repeats_ *= 2;
    std::vector<double> rates;
    for (double spent = 0; spent < seconds || rates.empty();) {
      const double t = burst();
      spent += t;
      rates.push_back(units * static_cast<double>(repeats_) * ran_ / t);
    }
    return rates;
  }

 private:
  double burst() {
    const auto start = std::chrono::steady_clock::now();
    run_parallel(
        threads_,
        [](void* self, int thread, int count) {
          auto& bursts = *static_cast<Bursts*>(self);
          if (thread == 0) bursts.ran_ = count;
          [[maybe_unused]] volatile float kept = bursts.work_(thread, bursts.repeats_);
        },
        this);
    return std::max(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 1e-9);
  }

  Work work_;
  int threads_;
  int ran_ = 1;
  std::int64_t repeats_ = 1;
};

void check(int threads, double seconds) {
  if (threads < 1 || threads > kMaxThreads) {
    throw std::invalid_argument("threads is " + std::to_string(threads) + ", must be between 1 and " +
                                std::to_string(kMaxThreads));
  }
  if (!(seconds >= 0 && seconds <= 3600)) {
    throw std::invalid_argument("seconds is " + std::to_string(seconds) + ", must be between 0 and 3600");
  }
}

}  // namespace

std::vector<double> measure_fma(const KernelTable& table, int threads, double seconds) {
  check(threads, seconds);
  constexpr std::int64_t kIterations = 64;
  const auto work = [&](int, std::int64_t repeats) { return table.fma_peak_f32(repeats * kIterations, 0.5f, 1.0f); };
  return Bursts(work, threads).measure(2.0 * kIterations * kFmaPerIteration * table.vector, seconds);
}

std::vector<double> measure_read(const KernelTable& table, std::size_t bytes, int threads, double seconds) {
  check(threads, seconds);
  const std::size_t unit = 8 * sizeof(float) * table.vector;
  if (bytes < unit) {
    throw std::invalid_argument("bytes is " + std::to_string(bytes) + ", must be at least " + std::to_string(unit));
  }
  bytes = bytes / unit * unit;
  std::vector<AlignedBuffer> buffers;
  for (int i = 0; i < threads; ++i) {
    buffers.emplace_back(bytes);
    std::fill_n(buffers.back().floats(), bytes / sizeof(float), 1.0f);
  }
  const auto work = [&](int thread, std::int64_t repeats) {
    float sum = 0;
    for (std::int64_t i = 0; i < repeats; ++i) sum += table.read_peak_f32(buffers[thread].floats(), bytes / sizeof(float));
    return sum;
  };
  return Bursts(work, threads).measure(static_cast<double>(bytes), seconds);
}

}  // namespace sepconv
