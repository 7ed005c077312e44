// One convolution over rows whose channels lie together: pointwise, depthwise or dense.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "eager/rows.h"
#include "eager/watch.h"
#include "ops/row_op.h"
#include "pack/pack.h"

namespace sepconv {

enum class WeightKind { depthwise, pointwise, dense };

// Weights and bias of one convolution, packed.
class EagerWeights {
 public:
  // Dense [kh, kw, C/groups, N], depthwise [kh, kw, C·M, 1], float-aligned; `bias`: N of them or nullptr. `pixels`: of the
  // only call that they serve, or 0. Of few, large pointwise weights are packed in that call, a part just before it is
  // multiplied: `weight` must last as long. `interrupted` (or nullptr) is asked now and then; true ends packing by
  // Interrupted. Throws std::bad_alloc.
  EagerWeights(WeightKind kind, const WeightView& weight, const float* bias, int groups, std::int64_t pixels,
               const KernelTable& table, bool (*interrupted)() = nullptr);

  ~EagerWeights();
  EagerWeights(const EagerWeights&) = delete;
  EagerWeights& operator=(const EagerWeights&) = delete;

  WeightKind kind;
  int kh, kw, inputs, outputs, groups;  // inputs: channels of the image; 0 of depthwise weights, which do not tell
  std::vector<std::unique_ptr<const PackedGemm>> gemm;  // one a group
  std::unique_ptr<const PackedDepthwise> depthwise;

  // Of whole blocks, see PackedDepthwise::with_second_at: made when first asked for, by whichever thread. nullptr where memory
  // does not suffice.
  const float* depthwise_with_second_at(int second) const noexcept;

 private:
  static constexpr int kMostLanes = 16;

  WeightStore store_;
  mutable std::array<std::atomic<AlignedBuffer*>, kMostLanes> shifted_{};  // no lock, which a fork could find taken
};

// Some of the parts that a stage's output channels can be computed in.
struct Parts {
  int first, end;
};

class Stage {
 public:
  Stage(Shape in, std::shared_ptr<const EagerWeights> weights, const Window& window, Activation activation, const KernelTable&);
  virtual ~Stage() = default;

  // These parts of output rows [y0, y1) from input rows; where `addend` has data it is added before the activation.
  // `scratch`: scratch_floats of them. Returns early where the watch says so.
  virtual void run(const ConstRows& in, const ConstRows& addend, const Rows& out, int y0, int y1, Parts parts, float* scratch,
                   Watch& watch) const noexcept = 0;

  // The first channel of a part; of the one past the last, where the output ends.
  int channel_of(int part) const { return part < parts ? part * part_channels : out.c; }

  // Whether output pixels should begin where input pixels do within a cache line.
  virtual bool follows_phase() const { return false; }

  RowRange input_rows(int y0, int y1) const;

  Shape in, out;
  Window window;
  std::string kernel;
  std::size_t scratch_floats = 0;
  std::size_t weight_bytes = 0;
  bool packs = false;  // in each run: the more rows, the better
  int parts = 1;       // which can be computed apart, of part_channels each but the last
  int part_channels;
  int repeat = 1;  // how often each channel of the input must come: a depthwise convolution's multiplier

 protected:
  // Applies an activation that is more than a clamp to pixels, in place.
  void activate(float* pixels, std::ptrdiff_t pixel, std::int64_t count, int channels) const noexcept;

  const KernelTable& table_;
  std::shared_ptr<const EagerWeights> weights_;
  Epilogue epilogue_;
};

std::unique_ptr<Stage> make_stage(Shape in, std::shared_ptr<const EagerWeights>, const Window&, Activation, const KernelTable&);

}  // namespace sepconv
