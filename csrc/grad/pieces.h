// What the gradients share: pieces of work that Ctrl-C ends in the middle, and copies of vectors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "runtime/pieces.h"

namespace sepconv {

// The caller's Interruptible, for one of the threads of its work.
class Stop {
 public:
  Stop(Interruptible* interruptible, int thread) : interruptible_(interruptible), asks_(thread == 0) {}
  // After each part of the work: whether to return at once.
  bool operator()() const {
    if (!interruptible_) return false;
    if (asks_) interruptible_->ask(Interruptible::Clock::now());
    return interruptible_->stopped();
  }

 private:
  Interruptible* interruptible_;
  bool asks_;
};

// Calls work(piece, thread, stop) for each piece in [0, pieces), as for_pieces does. One of more than some milliseconds
// calls stop() in between.
template <class Work>
void for_each_piece(std::int64_t pieces, int threads, const Work& work) {
  Interruptible* const interruptible = Interruptible::current();
  for_pieces(threads, pieces, [&](std::int64_t begin, std::int64_t end, int thread) {
    const Stop stop(interruptible, thread);
    for (std::int64_t piece = begin; piece < end && !stop(); ++piece) work(piece, thread, stop);
  });
}

// Fills with zeros. Interrupted, it leaves the rest.
inline void clear(float* to, std::size_t floats, int threads) {
  constexpr std::size_t kPart = 1 << 20;  // a millisecond, where pages are touched for the first time
  for_each_piece(static_cast<std::int64_t>((floats + kPart - 1) / kPart), threads, [=](std::int64_t piece, int, const Stop&) {
    const std::size_t begin = static_cast<std::size_t>(piece) * kPart;
    std::memset(to + begin, 0, sizeof(float) * std::min(kPart, floats - begin));
  });
}

// The part of `count` things that piece `i` of `pieces` has.
struct Range {
  std::int64_t begin, end;
  Range(std::int64_t count, std::int64_t pieces, std::int64_t i) : begin(count * i / pieces), end(count * (i + 1) / pieces) {}
};

// to[i] = from[i] for the `lanes` of a vector of V floats that are there, 0 for the rest.
template <int V>
void copy_lanes(const float* from, int lanes, float* to) {
  if (lanes == V) {
    __builtin_memcpy(to, from, V * sizeof(float));
  } else {
    for (int i = 0; i < V; ++i) to[i] = i < lanes ? from[i] : 0.0f;
  }
}

// `count` vectors, `from_step` and `to_step` floats apart. V, the ISA's, is one of 4, 8, 16.
inline void copy_vectors(const float* from, std::ptrdiff_t from_step, int lanes, float* to, std::ptrdiff_t to_step,
                         std::int64_t count, int v) {
  const auto copy = [&]<int V>() {
    for (std::int64_t i = 0; i < count; ++i, from += from_step, to += to_step) copy_lanes<V>(from, lanes, to);
  };
  if (v == 16) copy.template operator()<16>();
  else if (v == 8) copy.template operator()<8>();
  else copy.template operator()<4>();
}

}  // namespace sepconv
