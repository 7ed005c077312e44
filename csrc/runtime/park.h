// Waiting for a word of memory to change: first spinning, then asleep. For the pool and those who wait for work to be done.
#pragma once

#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace sepconv {

inline void cpu_pause() noexcept {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
  asm volatile("isb" : : : "memory");  // yield is a no-op on most cores
#endif
}

// To wake a sleeper takes some 50 µs. This is long enough for what a program does between two calls of a small network,
// and short enough not to be seen as load.
inline constexpr std::chrono::microseconds kSpinTime{200};

// Spins while `waiting()`, for kSpinTime at most. False if it still waits.
template <typename Waiting>
bool spin_while(Waiting waiting) noexcept {
  constexpr int kChecksPerClock = 64;
  // The first round goes without the clock: a hot join is shorter than reading it.
  for (int i = 0; i < kChecksPerClock; ++i) {
    if (!waiting()) return true;
    cpu_pause();
  }
  const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
  do {
    for (int i = 0; i < kChecksPerClock; ++i) {
      if (!waiting()) return true;
      cpu_pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  return !waiting();
}

// Sleeps while word == value. The futex itself on Linux: std::atomic::wait spins and yields on its own account first,
// and libstdc++ 11's can miss a notification.
inline void park_while(const std::atomic<std::uint32_t>& word, std::uint32_t value) noexcept {
  static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
  while (word.load(std::memory_order_acquire) == value) {
#if defined(__linux__)
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
    word.wait(value, std::memory_order_acquire);
#endif
  }
}

// Wakes all who sleep on the word, after it changed.
inline void unpark(std::atomic<std::uint32_t>& word) noexcept {
#if defined(__linux__)
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
  word.notify_all();
#endif
}

}  // namespace sepconv
