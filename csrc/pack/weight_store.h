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
  // Weights of a network share blocks; `block` bytes of 0 give each its own, just as large.
  explicit WeightStore(std::size_t block = std::size_t{8} << 20) : block_(block) {}
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
    left_ -= bytes;
    advise_huge_pages(start, bytes);
    return start;
  }

 private:
  // Pages that no weight reaches are never touched, but a limit on address space counts them.
  std::size_t block_;
  std::vector<AlignedBuffer> blocks_;
  std::size_t left_ = 0;
};

}  // namespace sepconv
