#include "runtime/thread_pool.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "base/fp_env.h"
#include "cpu/topology.h"
#include "runtime/park.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#define SEPCONV_POSIX 1
#endif

namespace sepconv {
namespace {

using Task = void (*)(void*, int, int);

// A worker's state is the one word that hands it a task and tells of its end.
//   idle → called: the caller, on a new task      called → run: the worker, which takes it up
//   called → idle: the caller, done without it    run → idle: the worker, task done
//   idle → parked: the worker, tired of spinning  parked → called: the caller, which wakes it
//   run → awaited: the caller, tired of spinning  awaited → idle: the worker, which wakes the caller
enum State : std::uint32_t { kIdle, kCalled, kRun, kParked, kAwaited };

// Two cache lines: the adjacent-line prefetcher would have neighbours share.
struct alignas(128) Worker {
  std::atomic<std::uint32_t> state;
  // Written by the caller while the worker is idle or parked; the change of state to called publishes them.
  Task task;
  void* arg;
  int thread_count;
  bool spin;
};

// Trivially destructible and without a constructor that runs: workers may outlive every static destructor, and a
// forked child makes it new by storing to it.
struct Pool {
  std::atomic<bool> busy;
  std::atomic<std::uint32_t> forks;
  int started;              // workers that have a thread; guarded by busy
  Worker workers[kMaxThreads - 1];
};
constinit Pool pool{};

// Of the calling thread, inside a task with workers: pool.forks as the task began. Else -1.
constinit thread_local std::int64_t forks_at_start = -1;

constinit std::atomic<int> requested_threads{0};
constinit std::atomic<int> granted_threads{0};  // default_threads(), kept; 0 until asked

int granted() {
  int n = granted_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = std::min(default_threads(), kMaxThreads);
    granted_threads.store(n, std::memory_order_relaxed);
  }
  return n;
}

#if defined(SEPCONV_POSIX)
// The child has the forking thread alone. It may have been forked in the middle of a task, so nothing here waits, and
// the next run_parallel starts threads of its own.
void reset_in_child() noexcept {
  for (Worker& worker : pool.workers) {
    if (worker.state.load(std::memory_order_relaxed) != kIdle) worker.state.store(kIdle, std::memory_order_relaxed);
  }
  pool.started = 0;
  pool.busy.store(false, std::memory_order_relaxed);
  pool.forks.fetch_add(1, std::memory_order_relaxed);
  granted_threads.store(0, std::memory_order_relaxed);  // the child may be given other CPUs
}
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, reset_in_child);

// Signals go to the program's own threads, so that Ctrl-C interrupts its main thread. Faults stay where they happen.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t blocked;
    sigfillset(&blocked);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT}) sigdelset(&blocked, fault);
    pthread_sigmask(SIG_BLOCK, &blocked, &saved_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t saved_;
};
#else
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {}
};
#endif

[[noreturn]] void work(Worker& self, int thread_index) noexcept {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "sepconv");
#endif
  const FlushDenormals flush;
  const auto idle = [&] { return self.state.load(std::memory_order_acquire) == kIdle; };
  bool spin = true;
  for (;;) {
    if (!spin || !spin_while(idle)) {
      std::uint32_t expected = kIdle;
      if (self.state.compare_exchange_strong(expected, kParked, std::memory_order_acq_rel)) {
        park_while(self.state, kParked);
      }
    }
    std::uint32_t called = kCalled;
    if (!self.state.compare_exchange_strong(called, kRun, std::memory_order_acq_rel)) {
      spin = true;
      continue;  // the caller no longer needs it
    }
    spin = self.spin;
    self.task(self.arg, thread_index, self.thread_count);
    if (self.state.exchange(kIdle, std::memory_order_acq_rel) == kAwaited) unpark(self.state);
  }
}

// Starts workers up to `wanted`; returns how many there are for this task. The caller holds pool.busy.
int start_workers(int wanted) noexcept {
  if (pool.started < wanted) {
    const SignalsBlocked blocked;
    try {
      for (; pool.started < wanted; ++pool.started) {
        std::thread(work, std::ref(pool.workers[pool.started]), pool.started + 1).detach();
      }
    } catch (const std::exception&) {
      // No more threads or memory for one: fewer will do, and the next task tries again.
    }
  }
  return std::min(pool.started, wanted);
}

void start(Worker& worker, Task task, void* arg, int thread_count, bool spin) noexcept {
  worker.task = task;
  worker.arg = arg;
  worker.thread_count = thread_count;
  worker.spin = spin;
  if (worker.state.exchange(kCalled, std::memory_order_acq_rel) == kParked) unpark(worker.state);
}

void join(Worker& worker, bool spin) noexcept {
  std::uint32_t called = kCalled;
  if (worker.state.compare_exchange_strong(called, kIdle, std::memory_order_acq_rel)) return;
  const auto running = [&] { return worker.state.load(std::memory_order_acquire) == kRun; };
  if (spin ? spin_while(running) : !running()) return;
  std::uint32_t expected = kRun;
  if (worker.state.compare_exchange_strong(expected, kAwaited, std::memory_order_acq_rel)) {
    park_while(worker.state, kAwaited);
  }
}

}  // namespace

void run_parallel(int threads, void (*fn)(void* arg, int thread_index, int thread_count), void* arg) {
  threads = std::clamp(threads, 1, kMaxThreads);
  const int cpus = granted();  // here, since it may throw: below, the pool would stay busy
  if (threads == 1 || pool.busy.exchange(true, std::memory_order_acquire)) {
    fn(arg, 0, 1);
    return;
  }
  const std::uint32_t forks = pool.forks.load(std::memory_order_relaxed);
  const int workers = start_workers(threads - 1);
  const bool spin = workers < cpus;
  for (int i = 0; i < workers; ++i) start(pool.workers[i], fn, arg, workers + 1, spin);
  const std::int64_t outer = std::exchange(forks_at_start, workers > 0 ? std::int64_t{forks} : -1);
  fn(arg, 0, workers + 1);
  forks_at_start = outer;  // a child, forked inside a task, may run tasks of its own before it leaves that one
  // Forked by fn itself: the child returns from here too, with no workers to join and a pool that is not its own.
  if (pool.forks.load(std::memory_order_relaxed) != forks) return;
  for (int i = 0; i < workers; ++i) join(pool.workers[i], spin);
  pool.busy.store(false, std::memory_order_release);
}

bool lost_threads() noexcept {
  return forks_at_start >= 0 && forks_at_start != pool.forks.load(std::memory_order_relaxed);
}

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) {
    throw std::invalid_argument("set_num_threads: n must be between 1 and " + std::to_string(kMaxThreads) + ", got " +
                                std::to_string(n));
  }
  requested_threads.store(n, std::memory_order_relaxed);
}

int num_threads() {
  const int n = requested_threads.load(std::memory_order_relaxed);
  return n != 0 ? n : granted();
}

void Progress::reset(int threads) {
  done_.store(0, std::memory_order_relaxed);
  sleepers_.store(0, std::memory_order_relaxed);  // a forked child's copy may count some that it does not have
  spin_ = threads <= granted();
}

std::uint32_t Progress::add(std::uint32_t pieces) {
  // Both sequentially consistent, here and below: either this sees the sleeper, or the sleeper sees the new count.
  const std::uint32_t done = done_.fetch_add(pieces, std::memory_order_seq_cst) + pieces;
  if (sleepers_.load(std::memory_order_seq_cst) != 0) unpark(done_);
  return done;
}

bool Progress::soon(std::uint32_t pieces) const {
  constexpr int kChecks = 24;  // some microseconds
  for (int i = 0; spin_ && missing(pieces) && i < kChecks; ++i) cpu_pause();
  return !missing(pieces);
}

void Progress::wait(std::uint32_t pieces) {
  const auto waiting = [&] { return missing(pieces); };
  if (!waiting() || lost_threads() || (spin_ && spin_while(waiting))) return;
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  for (std::uint32_t done; static_cast<std::int32_t>((done = done_.load(std::memory_order_seq_cst)) - pieces) < 0;) {
    park_while(done_, done);
  }
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

}  // namespace sepconv
