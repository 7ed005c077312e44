// Leaving off in the middle of long work, for Ctrl-C.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace sepconv {

// One thread's watch over a call. Where it says to leave, the caller returns at once: nobody looks at what it computed.
class Watch {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::int64_t kWrite = 64;  // what a float that is written weighs in multiply-adds

  // `stopped` is the call's; `interrupted` is asked every 20 ms, on the calling thread: nullptr on all others.
  Watch(std::atomic<bool>& stopped, bool (*interrupted)()) : stopped_(stopped), interrupted_(interrupted) {}

  // After each part of the work: its multiply-adds, and how many floats it wrote, of which each may be a page's first.
  bool leave(std::int64_t macs, std::int64_t written) {
    constexpr std::int64_t kLook = 4 << 20;  // some milliseconds, where there are no vectors
    work_ += macs + kWrite * written;
    return work_ >= kLook && look();
  }

  bool look() {
    work_ = 0;
    if (stopped_.load(std::memory_order_relaxed)) return true;
    if (!interrupted_ || Clock::now() < next_) return false;
    next_ = Clock::now() + kPeriod;
    if (!interrupted_()) return false;
    stopped_.store(true, std::memory_order_relaxed);
    return true;
  }

  // Whether the call has lasted so long already that it asked.
  bool long_running() const { return interrupted_ && Clock::now() >= begin_ + kPeriod; }

 private:
  static constexpr auto kPeriod = std::chrono::milliseconds(20);

  std::atomic<bool>& stopped_;
  bool (*interrupted_)();
  Clock::time_point begin_ = Clock::now(), next_ = begin_ + kPeriod;
  std::int64_t work_ = 0;
};

}  // namespace sepconv
