// Memory for the time of a call, kept by the calling thread for the next one: new pages would cost more than what is
// computed in them.
#pragma once

#include <cstddef>
#include <utility>

#include "base/aligned.h"

namespace sepconv {

// A call takes the memory away for its time: a signal handler may run another.
class Scratch {
 public:
  // Throws std::bad_alloc.
  explicit Scratch(std::size_t floats) : buffer_(std::move(kept())) {
    if (buffer_.size() < floats * sizeof(float)) buffer_ = AlignedBuffer::of_floats(floats);
  }
  ~Scratch() {
    if (buffer_.size() > kept().size() && buffer_.size() <= kMostKept) kept() = std::move(buffer_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return buffer_.floats(); }

 private:
  static constexpr std::size_t kMostKept = std::size_t{64} << 20;
  static AlignedBuffer& kept() {
    thread_local AlignedBuffer memory;
    return memory;
  }

  AlignedBuffer buffer_;
};

}  // namespace sepconv
