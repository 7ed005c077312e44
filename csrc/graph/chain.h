// A step of a plan: one operator, or several that stream. A chain computes a few rows of its last operator's output at a
// time; each operator before keeps only the rows that the next one's window still needs, in a ring buffer that stays in
// L1 or L2. So a depthwise convolution's output meets its pointwise one, or an expanded activation its depthwise one,
// without a trip to memory. Work is split over rows of the output (each piece computes anew the few rows above it that it
// needs) and, for one operator alone, over channels.
#pragma once

#include <span>
#include <vector>

#include "ops/operators.h"

namespace sepconv {

inline constexpr int kMaxChain = 16;

// Where a step's activations lie.
struct StepViews {
  ConstRowView in;
  ConstRowView others[kMaxChain];  // residual or second input of each operator; of one of many inputs, all after the first
  RowView out;
};

class Chain {
 public:
  // stream: in strips of a few rows; else each operator goes through all rows of a piece before the next one begins.
  Chain(std::vector<RowOpPtr> ops, const KernelTable& table, bool stream = true);

  // Pieces of the work: the output's channels in so many, its rows in so many.
  struct Grid {
    int parts, rows;
    int pieces() const { return parts * rows; }
  };
  Grid grid(int threads) const;

  // Computes one of the grid's pieces. `scratch` has scratch_floats() floats that no other thread uses.
  void run(const StepViews& views, int piece, const Grid& grid, float* scratch) const noexcept;

  // Whole cache lines, as threads' scratch lies together: operators keep pointers there.
  std::size_t scratch_floats() const { return (ring_floats_ + op_scratch_ + 15) / 16 * 16; }
  std::span<const RowOpPtr> ops() const { return ops_; }

  // How threads share the result, given how they shared the input. Also settles it, where the operator follows its input.
  Split settle_split(Split input) {
    if (ops_.size() > 1) return Split::rows;
    RowOp& op = *ops_.front();
    if (op.split == Split::as_input) {
      op.split = input;
      op.few_pieces = input == Split::rows;  // each piece goes through all channels
    }
    return op.split;
  }

 private:
  void run_rows(const StepViews& views, RowRange rows, float* scratch) const noexcept;

  struct Ring {
    std::size_t offset;  // floats into the scratch
    std::ptrdiff_t plane, row;
    int rows;
  };

  std::vector<RowOpPtr> ops_;
  std::vector<Ring> rings_;  // of the output of each operator but the last
  std::size_t ring_floats_ = 0, op_scratch_ = 0;
  std::int64_t macs_ = 0, elements_ = 0;  // of all operators, an image
  std::int64_t written_ = 0;  // floats that the operators write
  std::vector<int> strips_;  // rows of each operator's output computed at a time
};

}  // namespace sepconv
