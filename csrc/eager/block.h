// An operator call: up to three convolutions in a row, at most one of them with a window, on images of one size.
//
// Loop order: strips of output rows; within a strip stage after stage. What a window needs of the stage before lies in a
// ring of rows, so that nothing is computed twice; between the other stages lie the rows of one strip. Both stay in cache.
// Threads have rows of their own. Where the last stage packs weights during the run, or has many for few pixels, they have output
// channels of their own instead, so that none packs or reads what another does, and each computes all of the stage before.
// The first stage reads the caller's memory and the last writes it wherever channels lie together there; other memory
// (NCHW) is transposed a strip at a time on its way in or out, and pixels that would share sets of L1 are copied on the way in.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "eager/stage.h"

namespace sepconv {

struct StageSpec {
  std::shared_ptr<const EagerWeights> weights;
  Window window;
  Activation activation;
};

class EagerBlock {
 public:
  // The stages must fit the image and each other. Throws std::bad_alloc.
  EagerBlock(Shape in, const std::vector<StageSpec>& stages, const KernelTable& table);

  // Convolves `images` images. `addend` (or data nullptr) is added before the last activation, which must be of a pointwise
  // stage. `out` may not share memory with the rest. May be called from several threads at once. `interrupted` (or nullptr)
  // is asked now and then, on the calling thread; true stops the run. False if it was stopped. Throws std::bad_alloc.
  bool run(const ConstPixels& in, const ConstPixels& addend, const Pixels& out, std::int64_t images, int threads,
           bool (*interrupted)()) const;

  // How many bytes past a cache line the output had best begin.
  std::size_t out_phase(const ConstPixels& in) const {
    return stages_.size() == 1 && stages_[0]->follows_phase() ? sizeof(float) * in.phase() : 0;
  }

  Shape in() const { return stages_.front()->in; }
  Shape out() const { return stages_.back()->out; }
  std::vector<std::string> kernels() const;

 private:
  struct Buffers;  // where in a thread's scratch everything lies
  struct Run;

  Buffers lay_out(bool load, bool store, bool load_addend) const;
  bool shares_parts(std::int64_t images, int threads) const;
  int worthwhile_threads(std::int64_t images, int threads) const;
  void work(Run& run, int thread) const noexcept;
  // These parts of rows [y0, y1) of image n; false when interrupted.
  bool run_rows(const Run& run, Watch& watch, std::int64_t n, int y0, int y1, Parts parts, float* scratch) const noexcept;

  const KernelTable& table_;
  std::vector<std::unique_ptr<Stage>> stages_;
  bool depthwise_first_;
  int windowed_ = -1;  // which stage has a window
  int repeat_ = 1;     // how often each input channel must come
};

}  // namespace sepconv
