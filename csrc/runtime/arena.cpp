#include "runtime/arena.h"

#include <algorithm>
#include <cstdint>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>

#include "base/aligned.h"

namespace sepconv {
namespace {

std::size_t add(std::size_t a, std::size_t b) {
  if (a > PTRDIFF_MAX || b > PTRDIFF_MAX - a) throw std::bad_alloc();
  return a + b;
}

std::size_t aligned(std::size_t bytes) { return add(bytes, kAlignment - 1) / kAlignment * kAlignment; }

struct Block {
  std::size_t begin, end;
  Lifetime lifetime;
};

bool overlap(const Lifetime& a, const Lifetime& b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}

// The start of the tightest gap that takes `bytes` between those of the blocks that live meanwhile, or the end of them all.
// The blocks are in order of their begin.
std::size_t best_fit(const std::vector<Block>& placed, const Lifetime& lifetime, std::size_t bytes) {
  std::size_t free_from = 0, best = 0, best_gap = SIZE_MAX;
  for (const Block& block : placed) {
    if (!overlap(block.lifetime, lifetime)) continue;
    if (block.begin >= free_from) {
      const std::size_t gap = block.begin - free_from;
      if (gap >= bytes && gap < best_gap) {
        best = free_from;
        best_gap = gap;
      }
    }
    free_from = std::max(free_from, block.end);
  }
  return best_gap == SIZE_MAX ? free_from : best;
}

}  // namespace

ArenaPlan plan_arena(std::span<const Lifetime> lifetimes) {
  for (std::size_t i = 0; i < lifetimes.size(); ++i) {
    if (lifetimes[i].last_step >= lifetimes[i].first_step) continue;
    throw std::invalid_argument("plan_arena: lifetimes[" + std::to_string(i) +
                                "].last_step must be at least first_step " + std::to_string(lifetimes[i].first_step) +
                                ", got " + std::to_string(lifetimes[i].last_step));
  }
  // Large ones first: they leave gaps for small ones, not the other way round.
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  ArenaPlan plan{std::vector<std::size_t>(lifetimes.size()), 0};
  std::vector<Block> placed;  // in order of their begin
  placed.reserve(order.size());
  for (const std::size_t i : order) {
    const std::size_t bytes = aligned(lifetimes[i].bytes);
    const std::size_t begin = best_fit(placed, lifetimes[i], bytes), end = add(begin, bytes);
    plan.offsets[i] = begin;
    plan.size = std::max(plan.size, end);
    const auto later = [](std::size_t at, const Block& block) { return at < block.begin; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), begin, later), {begin, end, lifetimes[i]});
  }
  return plan;
}

}  // namespace sepconv
