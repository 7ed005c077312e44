// Arrays of any rank, as the N-d operators see them: an address, sizes, and strides in bytes of any sign.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "runtime/interruptible.h"
#include "runtime/thread_pool.h"

namespace sepconv::nd {

inline constexpr int kMaxRank = 10;

enum class Type { f32, f64, i8, u8, i32, i64, boolean };

struct Array {
  char* data = nullptr;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> dims{};
  std::array<std::ptrdiff_t, kMaxRank> strides{};

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= dims[i];
    return n;
  }
};

using Clock = Interruptible::Clock;

// f(begin, end, thread) over [0, pieces), shared among threads in runs of pieces, each twice as many as the one before
// until a run takes a millisecond. f must not throw.
template <class F>
void for_pieces(int threads, std::int64_t pieces, const F& f) {
  Interruptible* const interruptible = Interruptible::current();
  if (pieces <= 0 || (interruptible && interruptible->stopped())) return;
  if (pieces == 1) return f(std::int64_t{0}, pieces, 0);
  struct Task {
    const F& f;
    Interruptible* interruptible;
    std::int64_t pieces, most;
    std::atomic<std::int64_t> next{0};

    void work(int thread) {
      Clock::time_point before = Clock::now();
      for (std::int64_t run = 1;;) {
        const std::int64_t begin = next.fetch_add(run, std::memory_order_relaxed);
        if (begin >= pieces || (interruptible && interruptible->stopped())) return;
        f(begin, std::min(begin + run, pieces), thread);
        const Clock::time_point now = Clock::now();
        if (interruptible && thread == 0) interruptible->ask(now);
        if (now - before < std::chrono::milliseconds(1)) run = std::min(2 * run, most);
        before = now;
      }
    }
  } task{f, interruptible, pieces, std::max<std::int64_t>(1, pieces / (std::max(threads, 1) * std::int64_t{4}))};
  if (threads <= 1) return task.work(0);
  run_parallel(threads, [](void* arg, int thread, int) { static_cast<Task*>(arg)->work(thread); }, &task);
}

// Below so many elements a second thread costs more than it gives.
inline constexpr std::int64_t kSerial = 1 << 14;
inline int threads_for(std::int64_t elements, int threads) { return elements < 2 * kSerial ? 1 : threads; }

// The offset in bytes of the `index`-th combination of the first `count` coordinates, the last of them fastest.
inline std::ptrdiff_t offset_of(std::int64_t index, int count, const std::array<std::int64_t, kMaxRank>& dims,
                                const std::array<std::ptrdiff_t, kMaxRank>& strides) {
  std::ptrdiff_t offset = 0;
  for (int i = count - 1; i >= 0; --i) {
    offset += (index % dims[i]) * strides[i];
    index /= dims[i];
  }
  return offset;
}

}  // namespace sepconv::nd
