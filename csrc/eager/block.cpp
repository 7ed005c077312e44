#include "eager/block.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "base/fp_env.h"
#include "eager/stages.h"
#include "ops/gemm_blocks.h"
#include "runtime/scratch.h"
#include "runtime/thread_pool.h"

namespace sepconv {
namespace {

constexpr std::size_t kStripBytes = 256 << 10;  // of buffers that a strip of rows goes through
constexpr std::size_t kPackedStripBytes = 1 << 20;  // where each strip packs weights
constexpr int kMostStripRows = 64;
constexpr double kSecondsAThread = 10e-6;  // of work, that starting a thread for it pays

// What a thread does in a second, as far as a fast core goes, in round numbers: too fast rather than too slow, since a thread
// too many costs more than one too few.
constexpr double kWeightBytes = 400e9;  // of packed weights, each float of which is multiplied for a pixel: 1e11 multiply-adds
constexpr double kResults = 5e9;        // floats written
constexpr double kPackedBytes = 12e9;   // of weights, packed during the call

// Floats from one pixel of a buffer to the next: whole vectors, and never a distance at which the rows of a tile would
// share sets of L1.
std::ptrdiff_t padded(int channels) {
  const std::ptrdiff_t floats = (channels + 15) / 16 * 16;
  return floats % 256 == 0 ? floats + 16 : floats;
}

}  // namespace

struct EagerBlock::Buffers {
  int strip = 1;             // output rows
  int ring = 0;              // rows before the window
  std::size_t loaded = 0, expanded = 0, window = 0, middle = 0, stored = 0, addend = 0, stage = 0, total = 0;  // offsets in floats
};

struct EagerBlock::Run {
  ConstPixels in, addend;
  Pixels out;
  bool load, store, load_addend;
  Buffers buffers;
  std::int64_t rows;     // of all images
  std::int64_t pieces;   // of rows, or of the last stage's parts
  bool by_parts;
  float* scratch;
  bool (*interrupted)();
  std::atomic<std::int64_t> taken{0}, finished{0};  // pieces
  std::atomic<bool> stopped{false};
};

EagerBlock::EagerBlock(Shape in, const std::vector<StageSpec>& specs, const KernelTable& table)
    : table_(table), depthwise_first_(specs[0].weights->kind == WeightKind::depthwise) {
  for (const StageSpec& spec : specs) {
    stages_.push_back(make_stage(in, spec.weights, spec.window, spec.activation, table));
    in = stages_.back()->out;
    if (!spec.window.pointwise() || spec.weights->kind == WeightKind::depthwise) {
      windowed_ = static_cast<int>(stages_.size()) - 1;
      repeat_ = stages_.back()->repeat;
    }
  }
}

std::vector<std::string> EagerBlock::kernels() const {
  std::vector<std::string> names;
  for (const auto& stage : stages_) names.push_back(stage->kernel);
  return names;
}

EagerBlock::Buffers EagerBlock::lay_out(bool load, bool store, bool load_addend) const {
  const Stage& last = *stages_.back();
  const Stage* const window = windowed_ < 0 ? nullptr : stages_[windowed_].get();
  const bool ringed = window && (windowed_ > 0 || load);
  const bool split = windowed_ >= 0 && windowed_ + 1 < static_cast<int>(stages_.size());
  const auto floats = [](const Shape& s, int channels) { return static_cast<std::size_t>(s.w) * padded(channels); };
  const std::size_t out_row = floats(last.out, last.out.c);
  const std::size_t window_row = ringed ? floats(window->in, window->in.c * window->repeat) : 0;
  const std::size_t middle_row = split ? floats(window->out, window->out.c) : 0;
  const std::size_t expanded_row = windowed_ > 0 && repeat_ > 1 ? floats(window->in, window->in.c) : 0;
  const std::size_t loaded_row = load && windowed_ != 0 ? floats(in(), in().c) : 0;
  const int stride = window ? window->window.stride_h : 1;

  Buffers b;
  const std::size_t each = (window_row + expanded_row + loaded_row) * stride + middle_row + out_row * (store + load_addend);
  const bool packs = std::any_of(stages_.begin(), stages_.end(), [](const auto& stage) { return stage->packs; });
  const std::size_t rows = each == 0 ? kMostStripRows : (packs ? kPackedStripBytes : kStripBytes) / sizeof(float) / each;
  b.strip = static_cast<int>(std::clamp<std::size_t>(rows, 1, std::min(kMostStripRows, last.out.h)));
  if (b.strip > 2 && b.strip < last.out.h) b.strip -= b.strip % 2;  // depthwise kernels take two
  if (window) {
    const Window& w = window->window;
    const std::int64_t span = std::int64_t{b.strip - 1} * w.stride_h + std::int64_t{w.kh - 1} * w.dilation_h + 1;
    b.ring = static_cast<int>(std::min<std::int64_t>(span, window->in.h));
  }
  const int loaded_rows = window ? b.ring : b.strip;
  std::size_t stage = 0;
  for (const auto& s : stages_) stage = std::max(stage, s->scratch_floats);
  const auto take = [&](std::size_t count) {
    const std::size_t at = b.total;
    b.total += (count + 15) / 16 * 16;
    return at;
  };
  b.stage = take(stage);
  b.loaded = take(loaded_row * loaded_rows);
  b.expanded = take(expanded_row * b.ring);
  b.window = take(window_row * b.ring);
  b.middle = take(middle_row * b.strip + (split ? kAlignment / sizeof(float) : 0));
  b.stored = take(store ? out_row * b.strip : 0);
  b.addend = take(load_addend ? out_row * b.strip : 0);
  return b;
}

int EagerBlock::worthwhile_threads(std::int64_t images, int threads) const {
  double seconds = 0;
  for (const auto& stage : stages_) {
    const double pixels = static_cast<double>(images) * stage->out.h * stage->out.w;
    seconds += pixels * static_cast<double>(stage->weight_bytes) / kWeightBytes + pixels * stage->out.c / kResults;
    if (stage->packs) seconds += static_cast<double>(stage->weight_bytes) / kPackedBytes;
  }
  return static_cast<int>(std::min<double>(threads, 1 + seconds / kSecondsAThread));
}

// Whether threads share the output's channels, though each then computes all of a stage before: where each would pack the
// weights, or read far more of them than there are activations, or where rows are too few.
bool EagerBlock::shares_parts(std::int64_t images, int threads) const {
  const Stage& last = *stages_.back();
  if (windowed_ > 0) return false;
  if (last.packs) return true;
  if (stages_.size() > 1 && !depthwise_first_) return false;
  const double activations = static_cast<double>(images) * static_cast<double>(last.in.elements());
  return images * last.out.h < std::min(threads, last.parts) ||
         (last.parts >= threads && outweigh(last.weight_bytes, activations));
}

bool EagerBlock::run(const ConstPixels& in, const ConstPixels& addend, const Pixels& out, std::int64_t images, int threads,
                     bool (*interrupted)()) const {
  if (images == 0) return true;
  const FlushDenormals flush;  // also around the estimate of threads, whose rounding would raise the caller's flags
  Run run;
  run.in = in;
  run.addend = addend;
  run.out = out;
  run.load = in.channel != 1 || (depthwise_first_ && (repeat_ > 1 || depthwise_rows(stages_[0]->window, in.pixel, table_) == 0));
  run.store = out.channel != 1;
  run.load_addend = addend.data && addend.channel != 1;
  run.buffers = lay_out(run.load, run.store, run.load_addend);
  run.rows = images * this->out().h;
  threads = worthwhile_threads(images, threads);
  run.by_parts = threads > 1 && shares_parts(images, threads);
  threads = static_cast<int>(std::min<std::int64_t>(threads, run.by_parts ? stages_.back()->parts : run.rows));
  // Every piece computes its first window's rows anew: more than one a thread only where there are many rows.
  run.pieces = threads > 1 && !run.by_parts && run.rows >= 32 * threads ? 2 * threads : threads;
  Scratch scratch(run.buffers.total * threads);
  run.scratch = scratch.floats();
  run.interrupted = interrupted;
  struct Job {
    const EagerBlock* block;
    Run* run;
  } job{this, &run};
  run_parallel(
      threads,
      [](void* arg, int thread, int) {
        const Job* const j = static_cast<Job*>(arg);
        j->block->work(*j->run, thread);
      },
      &job);
  return !run.stopped;
}

void EagerBlock::work(Run& run, int thread) const noexcept {
  const FlushDenormals flush;
  const int h = out().h;
  Watch watch(run.stopped, thread == 0 ? run.interrupted : nullptr);
  for (std::int64_t piece; (piece = run.taken.fetch_add(1, std::memory_order_relaxed)) < run.pieces;) {
    const auto share = [&](std::int64_t all, std::int64_t i) { return all * i / run.pieces; };
    const int all_parts = stages_.back()->parts;
    const Parts parts = run.by_parts ? Parts{static_cast<int>(share(all_parts, piece)), static_cast<int>(share(all_parts, piece + 1))}
                                     : Parts{0, all_parts};
    const std::int64_t end = run.by_parts ? run.rows : share(run.rows, piece + 1);
    for (std::int64_t row = run.by_parts ? 0 : share(run.rows, piece); row < end;) {
      const int y = static_cast<int>(row % h);
      const int rows = static_cast<int>(std::min<std::int64_t>(h - y, end - row));
      if (!run_rows(run, watch, row / h, y, y + rows, parts, run.scratch + run.buffers.total * thread)) return;
      row += rows;
    }
    run.finished.fetch_add(1, std::memory_order_relaxed);
  }
  // The calling thread alone can see Ctrl-C: in a long call it looks out for the others until they are done.
  while (watch.long_running() && run.finished.load(std::memory_order_relaxed) < run.pieces && !watch.look()) {
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

bool EagerBlock::run_rows(const Run& run, Watch& watch, std::int64_t n, int y0, int y1, Parts parts,
                          float* scratch) const noexcept {
  const Buffers& b = run.buffers;
  const ConstPixels image = run.in.of_image(n), addend_image = run.addend.of_image(n);
  const Pixels out_image = run.out.of_image(n);
  const Shape& out = this->out();
  const int channel = stages_.back()->channel_of(parts.first);
  const Shape written{out.h, out.w, stages_.back()->channel_of(parts.end) - channel};
  // A buffer whose first row is row y.
  const auto rows_from = [&](std::size_t offset, int y, int w, int channels) {
    const std::ptrdiff_t pixel = padded(channels), row = w * pixel;
    return Rows(scratch + offset - y * row, row, pixel, INT_MAX);
  };
  const Stage* const window = windowed_ < 0 ? nullptr : stages_[windowed_].get();
  const std::ptrdiff_t ring_pixel = window ? padded(window->in.c * window->repeat) : 0;
  const Rows ring = window ? Rows(scratch + b.window, window->in.w * ring_pixel, ring_pixel, b.ring) : Rows();
  int next = 0;  // the first row that the ring does not have
  float* const stage_scratch = scratch + b.stage;
  const int phase = stages_[0]->follows_phase() && !run.load ? image.phase() : 0;

  for (int y = y0; y < y1; y += b.strip) {
    const int end = std::min(y + b.strip, y1);
    ConstRows from(image);
    if (window) {
      const RowRange needed = window->input_rows(y, end);
      const int first = std::max(next, needed.begin);
      if (first < needed.end && windowed_ > 0) {
        if (run.load) {
          const Rows loaded = rows_from(b.loaded, first, in().w, in().c);
          load_rows(image, loaded, first, needed.end, in(), 1, table_, watch);
          from = loaded;
        }
        if (repeat_ == 1) {
          stages_[0]->run(from, {}, ring, first, needed.end, {0, stages_[0]->parts}, stage_scratch, watch);
        } else {
          const Rows rows = rows_from(b.expanded, first, window->in.w, window->in.c);
          stages_[0]->run(from, {}, rows, first, needed.end, {0, stages_[0]->parts}, stage_scratch, watch);
          load_rows({rows.data, 0, rows.row, rows.pixel, 1}, ring, first, needed.end, window->in, repeat_, table_, watch);
        }
      } else if (first < needed.end && run.load) {
        load_rows(image, ring, first, needed.end, in(), repeat_, table_, watch);
      }
      next = std::max(next, needed.end);
      if (windowed_ > 0 || run.load) from = ring;
    } else if (run.load) {
      const Rows loaded = rows_from(b.loaded, y, in().w, in().c);
      load_rows(image, loaded, y, end, in(), 1, table_, watch);
      from = loaded;
    }
    ConstRows addend;
    if (run.addend.data) {
      addend = ConstRows(addend_image);
      if (run.load_addend) {
        const Rows loaded = rows_from(b.addend, y, out.w, out.c);
        load_rows(addend_image.from_channel(channel), loaded.from_channel(channel), y, end, written, 1, table_, watch);
        addend = loaded;
      }
    }
    const Rows stored = run.store ? rows_from(b.stored, y, out.w, out.c) : Rows(out_image);
    for (std::size_t i = windowed_ > 0 ? windowed_ : 0; i < stages_.size(); ++i) {
      const bool last = i + 1 == stages_.size();
      const Stage& stage = *stages_[i];
      const Rows to = last ? stored : rows_from(b.middle + phase, y, stage.out.w, stage.out.c);
      stage.run(from, last ? addend : ConstRows(), to, y, end, last ? parts : Parts{0, stage.parts}, stage_scratch, watch);
      from = to;
    }
    if (run.store) store_rows(stored.from_channel(channel), out_image.from_channel(channel), y, end, written, table_, watch);
    if (watch.look()) return false;
  }
  return true;
}

}  // namespace sepconv
