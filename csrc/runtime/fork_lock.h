// A lock that a fork never leaves behind locked.
#pragma once

#include <utility>

namespace sepconv {

// Holds the process-wide lock of short critical sections. fork() waits for it, so the child finds it free and what
// it guards whole. Inside: no fork, no other ForkSafeLock, nothing slow.
class [[nodiscard]] ForkSafeLock {
 public:
  ForkSafeLock();
  ~ForkSafeLock();
  ForkSafeLock(const ForkSafeLock&) = delete;
  ForkSafeLock& operator=(const ForkSafeLock&) = delete;
};

// section() under the lock; what it returns or throws.
template <typename Section>
decltype(auto) with_fork_safe_lock(Section&& section) {
  const ForkSafeLock lock;
  return std::forward<Section>(section)();
}

}  // namespace sepconv
