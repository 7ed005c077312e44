// Blocks of memory that calls leave for later ones: new pages would cost more than what is computed in them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>

#include "base/aligned.h"

namespace sepconv {

// For any number of threads at once: each has two slots, by its id, which few others share. Not in thread-local storage,
// whose destructors run when a thread's memory already goes to the next one. No lock: a fork while another thread is here
// costs the child a slot. Never destroyed, as threads may outlive main.
class KeptMemory {
 public:
  // Blocks that are larger than `largest` bytes are not kept.
  explicit constexpr KeptMemory(std::size_t largest) noexcept : largest_(largest) {}

  // A kept block of at least `bytes` and at most `most`, or a new one of `bytes`. Throws std::bad_alloc.
  AlignedBuffer take(std::size_t bytes, std::size_t most);
  void give(AlignedBuffer&& memory) noexcept;

 private:
  static constexpr std::size_t kSlots = 256;
  static constexpr std::size_t kEmpty = 0, kBusy = 1;  // sizes of no block

  struct alignas(kAlignment) Slot {
    constexpr Slot() noexcept : memory() {}
    ~Slot() {}  // NOLINT(modernize-use-equals-default): never runs that of the memory

    // Whether the size was in [least, most], which kBusy is not, and the caller alone may now touch the memory, until it
    // stores another.
    bool claim(std::size_t least, std::size_t most) noexcept {
      std::size_t known = size.load(std::memory_order_relaxed);
      return known >= least && known <= most &&
             size.compare_exchange_strong(known, kBusy, std::memory_order_acquire, std::memory_order_relaxed);
    }
    AlignedBuffer clear() noexcept {
      AlignedBuffer taken = std::move(memory);
      size.store(kEmpty, std::memory_order_release);
      return taken;
    }

    std::atomic<std::size_t> size{kEmpty};  // of the memory
    union {
      AlignedBuffer memory;
    };
  };

  static std::size_t own() noexcept;  // the calling thread's first slot; the other is ^ 1

  std::size_t largest_;
  std::array<Slot, kSlots> slots_;
};

}  // namespace sepconv
