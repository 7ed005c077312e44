#include "graph/chain.h"

#include <climits>

namespace sepconv {
namespace {

constexpr int kStripPixels = 112;                 // eight tiles of AVX-512's GEMM
constexpr std::int64_t kSmallWork = 50'000;       // multiply-adds not worth a piece of their own
constexpr std::int64_t kLongWork = 200'000'000;   // multiply-adds between two looks at Ctrl-C, also on the scalar ISA
// Multiply-adds that an element of the result takes at most, besides the operator's own: its exponential, or the first
// touch of its page. All lanes count, since all are written.
constexpr std::int64_t kElementWork = 64;
constexpr int kPiecesPerThread = 4;               // so that a thread that lost its CPU holds up little
constexpr int kFewParts = 8;                      // a thread: of more, one that is left over costs little
constexpr int kCacheLine = 16;                    // floats

}  // namespace

Chain::Chain(std::vector<RowOpPtr> ops, const KernelTable& table, bool stream) : ops_(std::move(ops)) {
  for (const RowOpPtr& op : ops_) {
    op_scratch_ = std::max(op_scratch_, op->scratch_floats);
    written_ += blocked_floats(op->out, table);
    macs_ += op->macs;
    elements_ += op->out.elements();
  }
  if (ops_.size() == 1) return;

  const int pixels = stream ? kStripPixels : INT_MAX / 2;
  for (const RowOpPtr& op : ops_) strips_.push_back(std::min(op->out.h, (pixels + op->out.w - 1) / op->out.w));
  rings_.resize(ops_.size() - 1);
  for (std::size_t i = 0; i + 1 < ops_.size(); ++i) {
    const Window& w = ops_[i + 1]->window;
    const int rows = std::min(ops_[i]->out.h, (strips_[i + 1] - 1) * w.stride_h + (w.kh - 1) * w.dilation_h + 1);
    Ring& ring = rings_[i];
    ring.rows = rows;
    ring.row = std::ptrdiff_t{1} * ops_[i]->out.w * table.vector;
    // An odd number of lines from plane to plane, or they would share the sets of L1.
    ring.plane = rows * ring.row;
    if (ring.plane / kCacheLine % 2 == 0) ring.plane += kCacheLine;
    ring.offset = ring_floats_;
    ring_floats_ += static_cast<std::size_t>(blocks_of(ops_[i]->out.c, table) * ring.plane);
  }
}

Chain::Grid Chain::grid(int threads) const {
  const RowOp& last = *ops_.back();
  const bool alone = ops_.size() == 1;
  // Each piece of a chain computes rows anew, so it gets no more than there are threads.
  const std::int64_t fair = threads == 1 ? 1 : alone && !last.few_pieces ? threads * kPiecesPerThread : threads;
  const std::int64_t worth = std::max(macs_, elements_) / kSmallWork + 1;
  const std::int64_t few = (macs_ + kElementWork * written_) / kLongWork + 1;
  const std::int64_t wanted = std::max(few, std::min(fair, worth));
  const auto at_most = [&](int n) { return static_cast<int>(std::min<std::int64_t>(n, wanted)); };
  const bool by_channels = alone && (last.split == Split::channels || last.out.h < std::min<std::int64_t>(threads, wanted));
  if (!by_channels || last.parts < few) return {1, at_most(last.out.h)};
  // Five panels do not divide by two threads, but halves of them do.
  const bool few_parts = last.parts < wanted || (last.parts < kFewParts * threads && 2 * last.parts <= worth);
  const bool uneven = few_parts && last.parts % threads != 0 && last.out.h > 1;
  return uneven ? Grid{last.parts, 2} : Grid{at_most(last.parts), 1};
}

void Chain::run(const StepViews& views, int piece, const Grid& grid, float* scratch) const noexcept {
  const auto split = [](int n, int i, int count) {
    return RowRange{static_cast<int>(std::int64_t{1} * n * i / count), static_cast<int>(std::int64_t{1} * n * (i + 1) / count)};
  };
  const RowOp& first = *ops_.front();
  const RowRange rows = split(ops_.back()->out.h, piece % grid.rows, grid.rows);
  if (ops_.size() > 1) {
    run_rows(views, rows, scratch);
    return;
  }
  const RowRange parts = split(first.parts, piece / grid.rows, grid.parts);
  first.run({views.in, views.others[0], views.out, rows.begin, rows.end, parts.begin, parts.end, scratch, views.others});
}

void Chain::run_rows(const StepViews& views, RowRange rows, float* scratch) const noexcept {
  const int count = static_cast<int>(ops_.size());
  int done[kMaxChain];  // rows of each operator's output computed so far
  RowRange need = rows;
  for (int i = count - 1; i >= 0; --i) {
    done[i] = need.begin;
    need = ops_[i]->input_rows(need.begin, need.begin + 1);
  }

  const auto ring_view = [&](int i) {
    const Ring& ring = rings_[i];
    return RowView{scratch + ring.offset, ring.plane, ring.row, ring.rows};
  };
  // Rows of operator i up to `upto`, a strip at a time, each after just the rows before it that it reads.
  const auto produce = [&](const auto& self, int i, int upto) -> void {
    while (done[i] < upto) {
      const int next = std::min(upto, done[i] + strips_[i]);
      if (i > 0) self(self, i - 1, ops_[i]->input_rows(done[i], next).end);
      RowTask task;
      task.out = i + 1 < count ? ring_view(i) : views.out;
      if (i == 0) {
        task.in = views.in;
      } else {
        const RowView before = ring_view(i - 1);
        task.in = {before.data, before.plane, before.row, before.ring};
      }
      task.other = views.others[i];
      task.y0 = done[i];
      task.y1 = next;
      task.part0 = 0;
      task.part1 = ops_[i]->parts;
      task.scratch = scratch + ring_floats_;
      ops_[i]->run(task);
      done[i] = next;
    }
  };
  produce(produce, count - 1, rows.end);
}

}  // namespace sepconv
