#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/fork_lock.h"
#include "runtime/thread_pool.h"

#if defined(__has_feature)
#define SEPCONV_HAS_FEATURE(x) __has_feature(x)
#else
#define SEPCONV_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_THREAD__) || SEPCONV_HAS_FEATURE(thread_sanitizer)
#define SKIP_UNDER_TSAN() GTEST_SKIP() << "ThreadSanitizer starts no threads in a child of a threaded process"
#else
#define SKIP_UNDER_TSAN() (void)0
#endif
#if defined(__SANITIZE_ADDRESS__) || SEPCONV_HAS_FEATURE(address_sanitizer)
#define SKIP_UNDER_ASAN(why) GTEST_SKIP() << "AddressSanitizer " why
#else
#define SKIP_UNDER_ASAN(why) (void)0
#endif

namespace sepconv {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

template <typename Fn>
void parallel(int threads, Fn fn) {
  run_parallel(
      threads, [](void* arg, int index, int count) { (*static_cast<Fn*>(arg))(index, count); }, &fn);
}

// The same, and the caller stays until every thread has come: one without a CPU would otherwise be done without.
template <typename Fn>
void together(int threads, Fn fn) {
  std::atomic<int> here{0};
  parallel(threads, [&](int index, int count) {
    here.fetch_add(1);
    fn(index, count);
    while (index == 0 && here.load() < count) std::this_thread::yield();
  });
}

// True if every index below the count ran exactly once, and the count lies in [1, threads].
bool covers(int threads) {
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(threads));
  std::atomic<int> count{0};
  together(threads, [&](int index, int thread_count) {
    runs[static_cast<std::size_t>(index)].fetch_add(1);
    count = thread_count;
  });
  if (count < 1 || count > threads) return false;
  for (int i = 0; i < threads; ++i) {
    if (runs[static_cast<std::size_t>(i)] != (i < count ? 1 : 0)) return false;
  }
  return true;
}

int count_of(int threads) {
  int count = 0;
  parallel(threads, [&](int index, int thread_count) {
    if (index == 0) count = thread_count;
  });
  return count;
}

// Whether body() returned true in a forked child that neither crashed nor hung.
template <typename Body>
::testing::AssertionResult in_child(Body body) {
  std::fflush(nullptr);  // else a child that calls exit() prints it again
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return ::testing::AssertionFailure() << "no child";
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "child's wait status is " << status;
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

TEST(ThreadPool, EveryIndexRunsOnce) {
  for (int threads = 1; threads <= 16; ++threads) {
    for (int round = 0; round < 50; ++round) ASSERT_TRUE(covers(threads)) << threads;
    EXPECT_EQ(count_of(threads), threads);
  }
  for (int threads : {16, 1, 3, 2, 9}) EXPECT_TRUE(covers(threads)) << threads;
}

TEST(ThreadPool, ThreadCountOutsideTheRangeIsClamped) {
  for (int threads : {0, -1, -1000}) {
    int calls = 0;
    parallel(threads, [&](int index, int count) {
      EXPECT_EQ(index, 0);
      EXPECT_EQ(count, 1);
      ++calls;
    });
    EXPECT_EQ(calls, 1);
  }
}

TEST(ThreadPool, TheCallerIsIndexZeroAndSeesTheResults) {
  const auto caller = std::this_thread::get_id();
  std::vector<long> results(4);
  for (long round = 1; round <= 2000; ++round) {
    together(4, [&](int index, int) {
      if (index == 0) {
        EXPECT_EQ(std::this_thread::get_id(), caller);
      }
      results[static_cast<std::size_t>(index)] += round;
    });
    for (long result : results) ASSERT_EQ(result, round * (round + 1) / 2);
  }
}

TEST(ThreadPool, WaitsForSlowWorkersAndWakesSleepingOnes) {
  for (int round = 0; round < 10; ++round) {
    std::atomic<int> done{0};
    together(3, [&](int index, int) {
      if (index != 0) std::this_thread::sleep_for(2ms);
      done.fetch_add(1);
    });
    EXPECT_EQ(done, 3);
    std::this_thread::sleep_for(2ms);  // longer than they spin
  }
}

TEST(ThreadPool, NestedCallsRunAlone) {
  std::atomic<int> outer{0}, inner{0};
  together(4, [&](int, int) {
    outer.fetch_add(1);
    parallel(4, [&](int index, int count) {
      EXPECT_EQ(index, 0);
      EXPECT_EQ(count, 1);
      inner.fetch_add(1);
    });
  });
  EXPECT_EQ(outer, 4);
  EXPECT_EQ(inner, 4);
}

TEST(ThreadPool, ManyCallersAtOnce) {
  std::atomic<int> failures{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 8; ++c) {
    callers.emplace_back([&failures, c] {
      for (int round = 0; round < 500; ++round) {
        if (!covers(1 + (c + round) % 4)) failures.fetch_add(1);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failures, 0);
  EXPECT_EQ(count_of(4), 4);
}

TEST(ThreadPool, MoreThreadsThanCpusFinishQuickly) {
  Progress progress;
  const auto begin = Clock::now();
  for (int round = 0; round < 100; ++round) {
    progress.reset(16);
    together(16, [&](int, int count) {
      for (int phase = 1; phase <= 5; ++phase) {
        progress.add(1);
        progress.wait(static_cast<std::uint32_t>(phase * count));
      }
    });
  }
  EXPECT_LT(Clock::now() - begin, 10s);
}

TEST(ThreadPool, AThreadThatComesTooLateIsDoneWithout) {
  for (int round = 0; round < 500; ++round) {
    std::vector<std::atomic<int>> runs(16);
    parallel(16, [&](int index, int) { runs[static_cast<std::size_t>(index)].fetch_add(1); });
    ASSERT_EQ(runs[0], 1);
    for (const std::atomic<int>& run : runs) ASSERT_LE(run, 1);
  }
  EXPECT_TRUE(covers(16));
}

TEST(ThreadPool, IdleWorkersUseNoCpu) {
  EXPECT_TRUE(covers(8));
  std::this_thread::sleep_for(20ms);
  const double before = cpu_seconds();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(cpu_seconds() - before, 0.02);
}

TEST(ThreadPool, WorkersFlushDenormalsAndLeaveSignalsToTheProgram) {
  together(4, [&](int index, int) {
    volatile float tiny = 1e-40f;
    volatile float one = 1.0f;
#if defined(__x86_64__) || defined(__aarch64__)
    const float product = tiny * one;
    EXPECT_EQ(product == 0.0f, index != 0) << index;
#endif
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    EXPECT_EQ(sigismember(&mask, SIGINT), index != 0) << index;
    EXPECT_EQ(sigismember(&mask, SIGSEGV), 0) << index;
  });
}

TEST(ThreadPool, TooFewThreadsGrantedMeansFewerAreUsed) {
  SKIP_UNDER_TSAN();
  SKIP_UNDER_ASAN("needs more address space than the test leaves");
  EXPECT_TRUE(in_child([] {
    std::vector<std::atomic<int>> runs(64);  // before the limit
    const rlimit none{1 << 20, 1 << 20};     // less than is mapped: no thread's stack can be
    if (setrlimit(RLIMIT_AS, &none) != 0) return false;
    std::atomic<int> calls{0}, count{0};
    together(64, [&](int, int thread_count) {
      calls.fetch_add(1);
      count = thread_count;
    });
    return calls == count && count < 64;
  }));
}

TEST(ThreadPool, AForkedChildHasAPoolOfItsOwn) {
  SKIP_UNDER_TSAN();
  EXPECT_TRUE(covers(4));
  EXPECT_TRUE(in_child([] { return covers(4) && count_of(4) == 4; }));
  // Again in the child's child, and the parent's is as it was.
  EXPECT_TRUE(in_child([] { return covers(3) && in_child([] { return count_of(5) == 5; }); }));
  EXPECT_EQ(count_of(4), 4);
}

TEST(ThreadPool, ForkWhileAnotherThreadRunsTasks) {
  SKIP_UNDER_TSAN();
  SKIP_UNDER_ASAN("leaves its allocator locked in a child, where another thread allocated during the fork");
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) EXPECT_TRUE(covers(3));
  });
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(in_child([] { return covers(4) && count_of(4) == 4; })) << round;
  }
  stop = true;
  busy.join();
}

TEST(ThreadPool, ForkInsideATask) {
  SKIP_UNDER_TSAN();
  const pid_t parent = getpid();
  pid_t child = -1;
  parallel(3, [&](int index, int) {
    if (index == 0) child = fork();
  });
  if (getpid() != parent) {
    alarm(20);
    _exit(covers(3) && count_of(3) == 3 ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(count_of(3), 3);
}

TEST(ThreadPool, AForkedChildDoesNotWaitForWhatItsParentsThreadsTook) {
  SKIP_UNDER_TSAN();
  const pid_t parent = getpid();
  pid_t child = -1;
  Progress progress;
  progress.reset(2);
  std::atomic<bool> taken{false}, forked{false};
  parallel(2, [&](int index, int) {
    if (index != 0) {
      taken = true;
      while (!forked) std::this_thread::yield();
      progress.add(1);
      return;
    }
    while (!taken) std::this_thread::yield();
    EXPECT_FALSE(lost_threads());
    child = fork();
    if (child == 0) {
      alarm(20);
      if (!lost_threads() || !covers(3) || !lost_threads()) _exit(1);
    }
    forked = true;
    progress.wait(1);
  });
  if (getpid() != parent) _exit(!lost_threads() && covers(3) ? 0 : 2);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(lost_threads());
}

TEST(ThreadPool, TheProcessExitsWhileWorkersSpin) {
  SKIP_UNDER_TSAN();
  for (int round = 0; round < 10; ++round) {
    EXPECT_TRUE(in_child([]() -> bool {
      if (covers(4)) std::exit(0);
      return false;
    }));
  }
}

TEST(ThreadPool, NumThreads) {
  EXPECT_GE(num_threads(), 1);
  const int before = num_threads();
  for (int n : {0, -3, 1025}) {
    try {
      set_num_threads(n);
      ADD_FAILURE() << n;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(std::string(error.what()),
                "set_num_threads: n must be between 1 and 1024, got " + std::to_string(n));
    }
  }
  EXPECT_EQ(num_threads(), before);
  for (int n : {1, 5, 1024, before}) {
    set_num_threads(n);
    EXPECT_EQ(num_threads(), n);
  }
}

TEST(Progress, NobodyPassesBeforeThePiecesAreDone) {
  Progress progress;
  for (int threads : {1, 2, 3, 8}) {
    progress.reset(threads);
    constexpr int kPhases = 200;
    std::vector<std::atomic<int>> done(kPhases);
    together(threads, [&](int index, int count) {
      for (int phase = 0; phase < kPhases; ++phase) {
        if (index == phase % count && phase % 50 == 0) std::this_thread::sleep_for(1ms);  // let the others sleep
        done[static_cast<std::size_t>(phase)].fetch_add(1, std::memory_order_relaxed);
        progress.add(1);
        progress.wait(static_cast<std::uint32_t>((phase + 1) * count));
        EXPECT_EQ(done[static_cast<std::size_t>(phase)].load(std::memory_order_relaxed), count);
      }
    });
  }
}

TEST(Progress, WorkThatIsDoneWaitsForNoThread) {
  Progress progress;
  progress.reset(8);
  parallel(8, [&](int index, int) {
    if (index == 0) progress.add(5);
    progress.wait(5);
  });
}

TEST(ForkLock, AChildFindsItFreeAndWhatItGuardsWhole) {
  long first = 0, second = 0;
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) {
      with_fork_safe_lock([&] {
        ++first;
        for (int i = 0; i < 100; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
        ++second;
      });
    }
  });
  for (int round = 0; round < 50; ++round) {
    ASSERT_TRUE(in_child([&] { return with_fork_safe_lock([&] { return first == second; }); })) << round;
  }
  stop = true;
  writer.join();
}

TEST(ForkLock, PassesResultsAndExceptionsOn) {
  int value = 3;
  static_assert(std::is_same_v<decltype(with_fork_safe_lock([&]() -> int& { return value; })), int&>);
  EXPECT_EQ(&with_fork_safe_lock([&]() -> int& { return value; }), &value);
  EXPECT_THROW(with_fork_safe_lock([] { throw std::runtime_error("x"); }), std::runtime_error);
  EXPECT_EQ(with_fork_safe_lock([] { return 7; }), 7);
}

}  // namespace
}  // namespace sepconv
