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

bool overlap(const Lifetime& a, const Lifetime& b) {
  return a.first_step <= b.last_step && b.first_step <= a.last_step;
}

struct Block {
  std::size_t begin, end;
};

// The start of the tightest gap between the blocks that takes `bytes`, or the end of them all.
std::size_t best_fit(std::vector<Block>& taken, std::size_t bytes) {
  std::sort(taken.begin(), taken.end(), [](const Block& a, const Block& b) { return a.begin < b.begin; });
  std::size_t free_from = 0, best = 0, best_gap = SIZE_MAX;
  for (const Block& block : taken) {
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
  std::vector<Block> taken;
  for (std::size_t placed = 0; placed < order.size(); ++placed) {
    const std::size_t i = order[placed];
    const std::size_t bytes = aligned(lifetimes[i].bytes);
    taken.clear();
    for (std::size_t p = 0; p < placed; ++p) {
      const std::size_t other = order[p];
      if (!overlap(lifetimes[i], lifetimes[other])) continue;
      taken.push_back({plan.offsets[other], plan.offsets[other] + aligned(lifetimes[other].bytes)});
    }
    plan.offsets[i] = best_fit(taken, bytes);
    plan.size = std::max(plan.size, add(plan.offsets[i], bytes));
  }
  return plan;
}

}  // namespace sepconv
