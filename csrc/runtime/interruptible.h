// Leaving off in the middle of work that threads share, for Ctrl-C.
#pragma once

#include <atomic>
#include <chrono>

namespace sepconv {

// While one of these lives, work on the thread that made it asks `poll` now and then. Once that says so, the work leaves
// whatever is left: nobody looks at the results.
class Interruptible {
 public:
  using Clock = std::chrono::steady_clock;

  explicit Interruptible(bool (*poll)()) : poll_(poll), outer_(current()) { current() = this; }
  ~Interruptible() { current() = outer_; }
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

  // The calling thread's, or nullptr. Work that other threads take part in hands it to them.
  static Interruptible*& current() {
    static thread_local Interruptible* innermost = nullptr;
    return innermost;
  }
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }
  // On the thread that made it alone.
  void ask(Clock::time_point now) {
    if (now < next_) return;
    next_ = now + kPeriod;
    if (poll_()) stopped_.store(true, std::memory_order_relaxed);
  }

 private:
  static constexpr auto kPeriod = std::chrono::milliseconds(20);

  bool (*poll_)();
  Interruptible* outer_;
  Clock::time_point next_ = Clock::now() + kPeriod;
  std::atomic<bool> stopped_{false};
};

}  // namespace sepconv
