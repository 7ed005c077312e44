// How a plan runs. Threads share each step of an image, or, where there are as many images as threads, whole images: then
// nobody waits for anybody until the steps that run for a group of images.
#include <atomic>
#include <chrono>

#include "base/fp_env.h"
#include "graph/plan.h"
#include "runtime/fork_lock.h"

namespace sepconv {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kInterruptPeriod = std::chrono::milliseconds(50);

}  // namespace

// A thread's share of some pieces of work: their number in the run, and how many of them are taken. A thread that comes
// late finds a later number there, and takes nothing; one that comes first puts the number there.
class alignas(64) Plan::Share {
 public:
  void reset() { word_.store(0, std::memory_order_relaxed); }

  // The next of `count` pieces of work `number` (from 1), or -1 when all are taken.
  int take(std::uint64_t number, int count) {
    std::uint64_t word = word_.load(std::memory_order_acquire);
    for (;;) {
      if (word >> kBits > number) return -1;
      const std::uint64_t taken = word >> kBits == number ? word & kMask : 0;
      if (taken >= static_cast<std::uint64_t>(count)) return -1;
      if (word_.compare_exchange_weak(word, number << kBits | (taken + 1), std::memory_order_acq_rel)) {
        return static_cast<int>(taken);
      }
    }
  }

 private:
  static constexpr int kBits = 24;
  static constexpr std::uint64_t kMask = (std::uint64_t{1} << kBits) - 1;
  std::atomic<std::uint64_t> word_{0};
};

struct Plan::Context {
  int threads = 0, arenas = 0, groups = 0;  // that there is memory for
  AlignedBuffer memory;                     // of the groups, then the arenas, then each thread's scratch
  std::unique_ptr<Share[]> shares;          // one a thread
  Progress progress;
  ContextPtr next;                          // in the free list
};

struct Plan::WorkEnd {
  int step = -1;
  Clock::time_point time;
};

struct Plan::Run {
  const float* const* inputs;
  float* const* outputs;
  std::int64_t images;
  Context* context;
  bool (*interrupted)();
  WorkEnd* ends;                      // of each work, in order; or nullptr
  Clock::time_point next_look;
  std::atomic<std::int64_t> end;      // images to go through
  std::atomic<bool> stopped{false};

  float* group(int slot, std::size_t floats) const { return context->memory.floats() + slot / kGroup * floats; }
};

// One thread's part of a run. All threads go through the same work in the same order.
class Plan::Worker {
 public:
  Worker(const Plan& plan, Run& run, int thread, int thread_count)
      : plan_(plan), run_(run), thread_(thread), thread_count_(thread_count) {
    float* const arenas = run.group(run.context->groups * kGroup, plan.group_floats_);
    float* const scratch = arenas + static_cast<std::size_t>(run.context->arenas) * plan.arena_floats_;
    scratch_ = scratch + static_cast<std::size_t>(thread) * plan.scratch_floats_;
    first_arena_ = arenas;
    // Without an arena each, or where steps are to be timed, threads share every image.
    by_image_ = thread_count > 1 && run.context->arenas >= thread_count && !run.ends;
    own_arena_ = by_image_ ? arenas + static_cast<std::size_t>(thread) * plan.arena_floats_ : arenas;
  }

  void work() {
    const FlushDenormals flush;
    const std::int64_t most = std::int64_t{1} * run_.context->groups * kGroup;
    for (std::int64_t image = 0; image < run_.end;) {
      const int count = static_cast<int>(std::min(most, run_.images - image));
      const int whole = by_image_ ? count / thread_count_ * thread_count_ : 0;
      if (whole > 0) {
        share(whole, -1, [&](int slot) { whole_image(image + slot, slot); });
      }
      for (int slot = whole; slot < count; ++slot) {
        for (int s = 0; s < plan_.tail_; ++s) step(s, plan_.steps_[s].chain, image + slot, slot);
      }
      for (int s = plan_.tail_; s < plan_.steps(); ++s) {
        for (int slot = 0; slot < count;) {
          const bool wide = count - slot >= kGroup;
          step(s, wide ? plan_.wide_tail_[s - plan_.tail_] : plan_.steps_[s].chain, image + slot, slot);
          slot += wide ? kGroup : 1;
        }
      }
      image += count;
    }
  }

 private:
  // Work of `count` pieces, done when this returns; who does the last tells when a step ends. Each thread begins with its
  // own share, the same part of every image, which its cache knows; then it helps the others, if they are not about to be
  // done: to look at their shares takes the cache lines away from them.
  template <class DoPiece>
  void share(int count, int step, DoPiece do_piece) {
    ++number_;
    needed_ += static_cast<std::uint32_t>(count);
    const auto share_begin = [&](int owner) {
      return static_cast<int>((std::int64_t{1} * count * owner + thread_count_ - 1) / thread_count_);
    };
    const auto do_share = [&](int owner) {
      const int begin = share_begin(owner), pieces = share_begin(owner + 1) - begin;
      std::uint32_t finished = 0;
      for (int piece; (piece = run_.context->shares[owner].take(number_, pieces)) >= 0; ++finished) do_piece(begin + piece);
      if (finished == 0) return;
      const auto now = run_.ends ? Clock::now() : Clock::time_point{};  // before anybody can go on
      const bool last = run_.context->progress.add(finished) == needed_;
      if (last && run_.ends) run_.ends[number_ - 1] = {step, now};
    };
    do_share(thread_);
    if (!run_.context->progress.soon(needed_)) {
      for (int i = 1; i < thread_count_; ++i) do_share((thread_ + i) % thread_count_);
    }
    run_.context->progress.wait(needed_);
  }

  void step(int s, const Chain& chain, std::int64_t image, int slot) {
    const Chain::Grid grid = chain.grid(thread_count_);
    const StepViews views = plan_.views(plan_.steps_[s], run_, image, slot, first_arena_);
    share(grid.pieces(), s, [&](int piece) { run_piece(chain, views, piece, grid, image); });
  }

  // All steps before the tail, on this thread alone.
  void whole_image(std::int64_t image, int slot) {
    for (int s = 0; s < plan_.tail_; ++s) {
      const Chain& chain = plan_.steps_[s].chain;
      const Chain::Grid grid = chain.grid(1);
      const StepViews views = plan_.views(plan_.steps_[s], run_, image, slot, own_arena_);
      for (int piece = 0; piece < grid.pieces(); ++piece) run_piece(chain, views, piece, grid, image);
    }
  }

  void run_piece(const Chain& chain, const StepViews& views, int piece, const Chain::Grid& grid, std::int64_t image) {
    if (!run_.stopped.load(std::memory_order_relaxed)) chain.run(views, piece, grid, scratch_);
    // May end the run with the images at hand: before this piece counts as done, so that no thread can have gone on.
    if (thread_ != 0 || !run_.interrupted || Clock::now() < run_.next_look) return;
    run_.next_look = Clock::now() + kInterruptPeriod;
    if (run_.stopped || !run_.interrupted()) return;
    run_.stopped = true;
    run_.end = image + 1;
  }

  const Plan& plan_;
  Run& run_;
  int thread_, thread_count_;
  bool by_image_;
  float *first_arena_, *own_arena_, *scratch_;
  std::uint64_t number_ = 0;  // of the work in the run
  std::uint32_t needed_ = 0;  // pieces of all work so far
};

void Plan::DeleteContext::operator()(Context* context) const noexcept { delete context; }

Plan::~Plan() {
  // A long list must not recurse.
  while (free_) free_ = std::move(free_->next);
}

Plan::ContextPtr Plan::take_context(int threads, int arenas, int groups) const {
  ContextPtr context;
  {
    ForkSafeLock lock;
    context = std::move(free_);
    if (context) free_ = std::move(context->next);
  }
  if (!context) context = ContextPtr(new Context);
  Context& c = *context;
  if (c.threads < threads || c.arenas < arenas || c.groups < groups) {
    threads = std::max(threads, c.threads);
    arenas = std::max(arenas, c.arenas);
    groups = std::max(groups, c.groups);
    const auto floats = [](int count, std::size_t each) { return static_cast<std::size_t>(count) * each; };
    std::size_t bytes =
        sizeof(float) * (floats(groups, group_floats_) + floats(arenas, arena_floats_) + floats(threads, scratch_floats_));
    // One block, of whole huge pages where that does not waste most of one.
    if (bytes % kHugePage > kHugePage / 2) bytes += kHugePage - bytes % kHugePage;
    c.memory = AlignedBuffer();  // goes before the new one comes
    c.memory = AlignedBuffer(bytes);
    advise_huge_pages(c.memory.bytes(), bytes);
    c.shares = std::make_unique<Share[]>(threads);
    c.threads = threads;
    c.arenas = arenas;
    c.groups = groups;
  }
  return context;
}

void Plan::give_context(ContextPtr context) const {
  ForkSafeLock lock;
  context->next = std::move(free_);
  free_ = std::move(context);
}

bool Plan::run(const float* const* inputs, float* const* outputs, std::int64_t images, int threads, bool (*interrupted)(),
               std::vector<double>* step_seconds) const {
  // Timed, threads share every image: no more works than its steps.
  std::vector<WorkEnd> ends(step_seconds ? static_cast<std::size_t>(images) * steps_.size() : 0);
  const bool by_image = threads > 1 && images >= threads && !step_seconds;
  ContextPtr context =
      take_context(threads, by_image ? threads : 1, by_image ? (threads + kGroup - 1) / kGroup : 1);
  for (int i = 0; i < threads; ++i) context->shares[i].reset();
  context->progress.reset(threads);
  Clock::time_point start = Clock::now();
  Run run{inputs, outputs, images, context.get(), interrupted, step_seconds ? ends.data() : nullptr,
          start + kInterruptPeriod, images};
  struct Job {
    const Plan* plan;
    Run* run;
  } job{this, &run};
  run_parallel(
      threads,
      [](void* arg, int thread, int thread_count) {
        const Job* const j = static_cast<Job*>(arg);
        Worker(*j->plan, *j->run, thread, thread_count).work();
      },
      &job);
  give_context(std::move(context));
  if (step_seconds) {
    step_seconds->assign(steps_.size(), 0.0);
    for (const WorkEnd& end : ends) {
      if (end.step == -1) break;
      (*step_seconds)[end.step] += std::chrono::duration<double>(end.time - start).count();
      start = end.time;
    }
  }
  return !run.stopped;
}

RowView Plan::blocked(const Place& place, const Run& run, int slot, float* arena) const {
  const Shape& s = place.shape;
  const std::ptrdiff_t row = std::ptrdiff_t{1} * s.w * table_.vector;
  if (place.grouped) {
    float* const group = run.group(slot, group_floats_) + place.offset;
    return {group + slot % kGroup * table_.vector, kGroup * row, kGroup * row, 1};
  }
  return {arena + place.offset, s.h * row, row, s.h};
}

ConstRowView Plan::read(int node, const Run& run, std::int64_t image, int slot, float* arena) const {
  const Place& place = places_[node];
  const Shape& s = place.shape;
  if (place.where == Place::input) {
    return {run.inputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  }
  const RowView view = blocked(place, run, slot, arena);
  return {view.data, view.plane, view.row, view.ring};
}

StepViews Plan::views(const Step& step, const Run& run, std::int64_t image, int slot, float* arena) const {
  StepViews v;
  v.in = read(step.in, run, image, slot, arena);
  for (std::size_t i = 0; i < step.others.size(); ++i) {
    if (step.others[i] != -1) v.others[i] = read(step.others[i], run, image, slot, arena);
  }
  const Place& place = places_[step.out];
  const Shape& s = place.shape;
  if (place.where == Place::output) {
    v.out = {run.outputs[place.index] + image * s.elements(), 0, std::ptrdiff_t{1} * s.w * s.c, s.h};
  } else {
    v.out = blocked(place, run, slot, arena);
  }
  return v;
}

}  // namespace sepconv
