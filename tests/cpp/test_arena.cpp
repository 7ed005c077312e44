#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <cstdint>
#include <limits>
#include <new>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/aligned.h"
#include "runtime/arena.h"

namespace sepconv {
namespace {

// The most bytes live at one step: no plan needs less.
std::size_t peak(const std::vector<Lifetime>& lifetimes) {
  std::size_t most = 0;
  for (const Lifetime& at : lifetimes) {
    std::size_t sum = 0;
    for (const Lifetime& l : lifetimes) {
      if (l.first_step <= at.first_step && at.first_step <= l.last_step) sum += l.bytes;
    }
    most = std::max(most, sum);
  }
  return most;
}

void expect_valid(const std::vector<Lifetime>& lifetimes, const ArenaPlan& plan) {
  ASSERT_EQ(plan.offsets.size(), lifetimes.size());
  std::size_t end = 0, padded_sum = 0;
  for (std::size_t i = 0; i < lifetimes.size(); ++i) {
    const Lifetime& a = lifetimes[i];
    EXPECT_EQ(plan.offsets[i] % 64, 0u);
    end = std::max(end, plan.offsets[i] + a.bytes);
    padded_sum += (a.bytes + 63) / 64 * 64;
    for (std::size_t j = 0; j < i; ++j) {
      const Lifetime& b = lifetimes[j];
      if (a.last_step < b.first_step || b.last_step < a.first_step) continue;
      EXPECT_TRUE(plan.offsets[i] + a.bytes <= plan.offsets[j] || plan.offsets[j] + b.bytes <= plan.offsets[i])
          << i << " and " << j << " share memory";
    }
  }
  EXPECT_GE(plan.size, end);
  EXPECT_GE(plan.size, peak(lifetimes));
  EXPECT_LE(plan.size, padded_sum);
}

TEST(Arena, RandomLifetimes) {
  std::mt19937 random(1);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
  for (int round = 0; round < 500; ++round) {
    std::vector<Lifetime> lifetimes(static_cast<std::size_t>(below(30)));
    for (Lifetime& l : lifetimes) {
      const int first = below(20);
      l = {static_cast<std::size_t>(below(5000)), first, first + below(1 + below(8))};
    }
    const ArenaPlan plan = plan_arena(lifetimes);
    expect_valid(lifetimes, plan);
    EXPECT_EQ(plan_arena(lifetimes).offsets, plan.offsets);
  }
}

TEST(Arena, AChainNeedsItsTwoLargestNeighbours) {
  const std::vector<Lifetime> chain{{6400, 0, 1}, {12800, 1, 2}, {6400, 2, 3}, {3200, 3, 4}, {640, 4, 5}};
  const ArenaPlan plan = plan_arena(chain);
  expect_valid(chain, plan);
  EXPECT_EQ(plan.size, 19200u);
}

TEST(Arena, ManyThatLiveAtOnce) {
  std::vector<Lifetime> lifetimes(16000);
  for (std::size_t i = 0; i < lifetimes.size(); ++i) lifetimes[i] = {64 * (1 + i * 7919 % 1000), static_cast<int>(i % 9), 10};
  // In processor time, against sorting as many numbers, which a busy or emulated machine does slower too.
  const std::clock_t begin = std::clock();
  const ArenaPlan plan = plan_arena(lifetimes);
  const std::clock_t planned = std::clock();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::size_t> sizes;
    for (const Lifetime& lifetime : lifetimes) sizes.push_back(lifetime.bytes * static_cast<std::size_t>(7919 + round) % 16001);
    std::ranges::sort(sizes);
    ASSERT_LE(sizes.front(), sizes.back());
  }
  const double sort = static_cast<double>(std::clock() - planned) / 20;
  EXPECT_LT(static_cast<double>(planned - begin), 2000 * sort);  // some 200; sorted anew for each, thousands
  EXPECT_EQ(plan.size, peak(lifetimes));
}

TEST(Arena, TakesTheTightestGap) {
  // 0 and 4 are gone when 5 comes; 4's place is the smaller that fits.
  const std::vector<Lifetime> lifetimes{
      {640, 0, 0}, {1280, 0, 1}, {1920, 0, 1}, {2560, 0, 1}, {320, 0, 0}, {192, 1, 1}};
  const ArenaPlan plan = plan_arena(lifetimes);
  expect_valid(lifetimes, plan);
  EXPECT_EQ(plan.size, peak(lifetimes));
}

TEST(Arena, EmptyAndZeroSizes) {
  EXPECT_EQ(plan_arena({}).size, 0u);
  const std::vector<Lifetime> lifetimes{{0, 0, 3}, {1, 0, 3}, {0, 2, 2}};
  const ArenaPlan plan = plan_arena(lifetimes);
  expect_valid(lifetimes, plan);
  EXPECT_EQ(plan.size, 64u);
}

TEST(Arena, RefusesWhatCannotBe) {
  EXPECT_THROW(plan_arena(std::vector<Lifetime>{{SIZE_MAX, 0, 1}}), std::bad_alloc);
  EXPECT_THROW(plan_arena(std::vector<Lifetime>{{SIZE_MAX / 2 - 100, 0, 1}, {SIZE_MAX / 4, 1, 2}}), std::bad_alloc);
  try {
    plan_arena(std::vector<Lifetime>{{1, 0, 1}, {1, 3, 2}});
    ADD_FAILURE();
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("lifetimes[1].last_step must be at least first_step 3, got 2"),
              std::string::npos);
  }
}

TEST(AlignedBuffer, AlignmentAndSize) {
  for (const std::size_t bytes : {std::size_t{1}, std::size_t{100}, std::size_t{4096}, (std::size_t{2} << 20) - 1,
                                  std::size_t{2} << 20, (std::size_t{5} << 20) + 3}) {
    AlignedBuffer buffer(bytes);
    EXPECT_EQ(buffer.size(), bytes);
    const std::size_t alignment = bytes >= std::size_t{2} << 20 ? std::size_t{2} << 20 : 64;
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.bytes()) % alignment, 0u);
    buffer.bytes()[0] = buffer.bytes()[bytes - 1] = std::byte{7};
  }
  EXPECT_EQ(AlignedBuffer::of_floats(25).size(), 100u);
  EXPECT_EQ(AlignedBuffer().floats(), nullptr);
  EXPECT_EQ(AlignedBuffer(0).bytes(), nullptr);
}

TEST(AlignedBuffer, Moves) {
  AlignedBuffer a = AlignedBuffer::of_floats(16);
  float* const data = a.floats();
  AlignedBuffer b(std::move(a));
  EXPECT_EQ(b.floats(), data);
  AlignedBuffer c(std::size_t{3} << 20);
  c = std::move(b);
  EXPECT_EQ(c.floats(), data);
  EXPECT_EQ(c.size(), 64u);
}

TEST(AlignedBuffer, TooLargeIsBadAlloc) {
  for (const std::size_t bytes : {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2, SIZE_MAX / 2 - (std::size_t{2} << 20)}) {
    EXPECT_THROW(AlignedBuffer{bytes}, std::bad_alloc) << bytes;
  }
  EXPECT_THROW(AlignedBuffer::of_floats(SIZE_MAX / 4 + 2), std::bad_alloc);
}

}  // namespace
}  // namespace sepconv
