// Pieces of work for a few threads, each done by whoever comes first.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "runtime/interruptible.h"
#include "runtime/thread_pool.h"

namespace sepconv {

// f(begin, end, thread) over [0, pieces), on at most `threads` threads, in runs of pieces, each twice as many as the one
// before until a run takes a millisecond. f must not throw. Interrupted, it leaves the rest.
template <class F>
void for_pieces(int threads, std::int64_t pieces, const F& f) {
  using Clock = Interruptible::Clock;
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
  threads = static_cast<int>(std::min<std::int64_t>(threads, pieces));
  if (threads <= 1) return task.work(0);
  run_parallel(threads, [](void* arg, int thread, int) { static_cast<Task*>(arg)->work(thread); }, &task);
}

}  // namespace sepconv
