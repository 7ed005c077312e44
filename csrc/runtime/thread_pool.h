// One pool of threads for the process. A worker that has nothing to do spins for some microseconds, since the next
// task of a network usually follows at once, then sleeps.
#pragma once

#include <atomic>
#include <cstdint>

namespace sepconv {

inline constexpr int kMaxThreads = 1024;

// Runs fn(arg, thread_index, thread_count) on `threads` threads at once, the caller being index 0; returns when all
// have returned. fn must not throw. thread_count may be less than asked where the system grants no more threads, and
// is 1 where another caller has the pool or this is called from inside a task: fn must take its share from
// thread_count. Workers flush denormals; the caller's floating-point mode is its own.
void run_parallel(int threads, void (*fn)(void* arg, int thread_index, int thread_count), void* arg);

// What callers that are not told a number use. Throws std::invalid_argument if n < 1 or n > kMaxThreads.
void set_num_threads(int n);

// As set; else default_threads() of cpu/topology.h.
int num_threads();

// Where the threads of one task wait for each other; reusable. Spins briefly, then sleeps.
class Barrier {
 public:
  explicit Barrier() = default;
  Barrier(const Barrier&) = delete;
  Barrier& operator=(const Barrier&) = delete;

  // Before a task of up to n threads, while nobody waits. More threads than CPUs do not spin.
  void reset(int n);

  // Returns when thread_count threads have called it: the count that the task was given, the same for all.
  void wait(int thread_count);

 private:
  // One cache line: who arrives last has it already when it turns the phase (250 → 140 ns for two threads).
  alignas(64) std::atomic<std::uint32_t> arrived_{0};
  std::atomic<std::uint32_t> phase_{0};
  std::atomic<std::uint32_t> sleepers_{0};
  bool spin_ = true;
};

}  // namespace sepconv
