// Memory for the time of a call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/aligned.h"
#include "runtime/kept_memory.h"

namespace sepconv {

class Scratch {
 public:
  // Throws std::bad_alloc.
  explicit Scratch(std::size_t floats) : buffer_(memory_.take(float_bytes(floats), SIZE_MAX)) {}
  ~Scratch() { memory_.give(std::move(buffer_)); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* floats() { return buffer_.floats(); }

 private:
  static inline constinit KeptMemory memory_{std::size_t{64} << 20};

  AlignedBuffer buffer_;
};

}  // namespace sepconv
