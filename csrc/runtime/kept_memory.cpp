#include "runtime/kept_memory.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <thread>
#include <utility>

namespace sepconv {

std::size_t KeptMemory::own() noexcept {
  // Thread ids are addresses that lie a stack apart: Fibonacci hashing spreads them.
  const std::uint64_t id = std::hash<std::thread::id>{}(std::this_thread::get_id());
  return (id * 0x9E3779B97F4A7C15) >> 32 & (kSlots - 1);
}

AlignedBuffer KeptMemory::take(std::size_t bytes, std::size_t most) {
  const std::size_t first = own();
  for (const std::size_t i : {first, first ^ 1}) {
    if (slots_[i].claim(std::max(bytes, kBusy + 1), most)) return slots_[i].clear();
  }
  // What did not fit makes room for what will.
  if (slots_[first].claim(kBusy + 1, SIZE_MAX)) slots_[first].clear();
  return AlignedBuffer(bytes);
}

void KeptMemory::give(AlignedBuffer&& memory) noexcept {
  const std::size_t size = memory.size();
  if (size <= kBusy || size > largest_) return;
  const std::size_t first = own();
  for (const std::size_t i : {first, first ^ 1}) {
    Slot& slot = slots_[i];
    if (slot.claim(kEmpty, kEmpty)) {
      slot.memory = std::move(memory);
      slot.size.store(size, std::memory_order_release);
      return;
    }
  }
}

}  // namespace sepconv
