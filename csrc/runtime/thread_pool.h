// One pool of threads for the process. A worker that has nothing to do spins for kSpinTime (park.h), since the next task of
// a network usually follows at once, then sleeps.
#pragma once

#include <atomic>
#include <cstdint>

namespace sepconv {

inline constexpr int kMaxThreads = 1024;

// Runs fn(arg, thread_index, thread_count) on `threads` threads at once, the caller being index 0; returns when all
// have returned. fn must not throw. thread_count may be less than asked where the system grants no more threads, and
// is 1 where another caller has the pool or this is called from inside a task: fn must take its share from
// thread_count. A thread that gets no CPU until the others have returned does not call fn at all: fn must not wait for a
// thread, only for work (see Progress). Workers flush denormals; the caller's floating-point mode is its own.
void run_parallel(int threads, void (*fn)(void* arg, int thread_index, int thread_count), void* arg);

// Whether the calling thread has forked inside a task with other threads: this is the child, which has none of them, and
// what they took of the work is not done. fn must leave the rest.
bool lost_threads() noexcept;

// What callers that are not told a number use. Throws std::invalid_argument if n < 1 or n > kMaxThreads.
void set_num_threads(int n);

// As set; else default_threads() of cpu/topology.h.
int num_threads();

// Pieces of work done, counted by the threads of one task, which wait here until what they need is done. A thread that
// lost its CPU before it took a piece holds nobody up.
class Progress {
 public:
  explicit Progress() = default;
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // Before a task of up to `threads` threads, while nobody waits: nothing is done. More threads than CPUs do not spin.
  void reset(int threads);

  // Returns how many are done in all.
  std::uint32_t add(std::uint32_t pieces);

  // Whether `pieces` in all are done, after a moment's wait: about as long as threads that began together may be apart.
  bool soon(std::uint32_t pieces) const;

  // Returns when `pieces` in all are done, or at once where those who took them are lost (lost_threads). Counts wrap
  // around; waiters must be within 2^31 of what is done.
  void wait(std::uint32_t pieces);

 private:
  bool missing(std::uint32_t pieces) const {
    return static_cast<std::int32_t>(done_.load(std::memory_order_acquire) - pieces) < 0;
  }

  alignas(64) std::atomic<std::uint32_t> done_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  bool spin_ = true;
};

}  // namespace sepconv
