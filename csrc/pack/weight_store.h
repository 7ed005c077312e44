// Where packed weights lie: one after the other, in order of execution, in few large blocks. So what a kernel finds
// behind its own weights, and can prefetch, is what is needed next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/aligned.h"

namespace sepconv {

class WeightStore {
 public:
  // Weights share blocks; `block` bytes of 0 give each its own, just as large.
  explicit WeightStore(std::size_t block = kBlock) : block_(block) {}
  // For a network whose weights will take at least this many bytes: in one block, as long as that is no more than 64 MB.
  static WeightStore of_network(std::size_t bytes) {
    WeightStore store(std::clamp(bytes, kBlock, 8 * kBlock) + kHugePage);
    store.expected_ = bytes;
    return store;
  }
  // Begins with this memory, which release() gives back.
  explicit WeightStore(AlignedBuffer&& memory) : block_(0), left_(memory.size()) { blocks_.push_back(std::move(memory)); }
  AlignedBuffer release() {
    AlignedBuffer memory = std::move(blocks_.front());
    blocks_.clear();
    left_ = 0;
    return memory;
  }

  // `count` floats, 64-byte aligned, for as long as the store lives. Throws std::bad_alloc.
  float* take(std::size_t count) {
    if (count > SIZE_MAX / sizeof(float) - kAlignment) throw std::bad_alloc();
    const std::size_t bytes = (count * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
    if (bytes > left_) {
      blocks_.emplace_back(std::max(bytes, block_));
      left_ = blocks_.back().size();
    }
    float* const start = reinterpret_cast<float*>(blocks_.back().bytes() + blocks_.back().size() - left_);
    // A huge page that weights to come will fill is one from its first weight on.
    const std::size_t filled = std::min(left_, std::max(bytes, expected_));
    left_ -= bytes;
    expected_ -= std::min(bytes, expected_);
    advise_huge_pages(start, filled);
    return start;
  }

 private:
  static constexpr std::size_t kBlock = std::size_t{8} << 20;
  // Pages that no weight reaches are never touched, but a limit on address space counts them.
  std::size_t block_;
  std::vector<AlignedBuffer> blocks_;
  std::size_t left_ = 0, expected_ = 0;  // bytes: of the last block, and that are still to come
};

}  // namespace sepconv
