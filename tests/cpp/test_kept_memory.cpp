#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/kept_memory.h"
#include "runtime/scratch.h"

namespace sepconv {
namespace {

// What one of these still keeps at its end is lost, so nothing is left in those on the stack.
constexpr std::size_t kAny = SIZE_MAX;

TEST(KeptMemory, WhatWasGivenIsTakenAgain) {
  KeptMemory kept(1 << 20);
  AlignedBuffer first = kept.take(1000, kAny);
  const std::byte* const address = first.bytes();
  kept.give(std::move(first));
  AlignedBuffer second = kept.take(900, kAny);
  EXPECT_EQ(second.bytes(), address);
  EXPECT_EQ(second.size(), 1000u);
}

TEST(KeptMemory, TooSmallOrTooLargeIsNotTaken) {
  KeptMemory kept(1 << 20);
  kept.give(AlignedBuffer(1000));
  EXPECT_EQ(kept.take(1001, kAny).size(), 1001u);
  kept.give(AlignedBuffer(4001));
  EXPECT_EQ(kept.take(1000, 4000).size(), 1000u);
}

TEST(KeptMemory, TwoAtATime) {
  KeptMemory kept(1 << 20);
  AlignedBuffer large = kept.take(2000, kAny), small = kept.take(1000, kAny);
  const std::byte *const large_address = large.bytes(), *const small_address = small.bytes();
  kept.give(std::move(small));
  kept.give(std::move(large));
  large = kept.take(2000, kAny);
  small = kept.take(1000, kAny);
  EXPECT_EQ(large.bytes(), large_address);
  EXPECT_EQ(small.bytes(), small_address);
}

TEST(KeptMemory, KeepsNothingLargeAndNothingEmpty) {
  KeptMemory kept(1000);
  kept.give(AlignedBuffer(1001));
  kept.give(AlignedBuffer());
  EXPECT_EQ(kept.take(1, kAny).size(), 1u);
  EXPECT_EQ(kept.take(0, kAny).size(), 0u);
}

// More threads than slots: none may get what another holds.
TEST(KeptMemory, ManyThreads) {
  static constinit KeptMemory kept(1 << 20);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 300; ++t) {
    threads.emplace_back([t, &wrong] {
      for (int call = 0; call < 50; ++call) {
        AlignedBuffer memory = kept.take(64 * (1 + (t + call) % 3), kAny);
        std::int32_t* const mine = reinterpret_cast<std::int32_t*>(memory.bytes());
        *mine = t;
        std::this_thread::yield();
        if (*mine != t) ++wrong;
        kept.give(std::move(memory));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Scratch, MoreThanTheAddressSpaceIsRefused) { EXPECT_THROW(Scratch(SIZE_MAX / 2), std::bad_alloc); }

}  // namespace
}  // namespace sepconv
