// Average and maximum pooling over windows, and the average over a whole plane.
#include "ops/operators.h"

namespace sepconv {
namespace {

class Pool final : public RowOp {
 public:
  Pool(Shape shape, const Window& w, PoolKind kind, Activation activation, const KernelTable& t)
      : table_(t),
        pool_(kind == PoolKind::max ? t.max_pool_f32 : t.average_pool_f32),
        divisor_(kind == PoolKind::average_with_padding ? static_cast<float>(w.kh) * static_cast<float>(w.kw) : 0),
        activation_(activation) {
    kernel = std::string(kind == PoolKind::max ? "max_pool" : "average_pool") + "_f32__" + t.isa;
    in = shape;
    window = w;
    out = {w.out_h(in.h), w.out_w(in.w), in.c};
    parts = blocks_of(in.c, t);
    macs = out.elements() * std::min(w.kh, in.h) * std::min(w.kw, in.w);  // of a window that is larger, no more lies inside
    scratch_floats = static_cast<std::size_t>(w.kh) * sizeof(float*) / sizeof(float);
  }

  void run(const RowTask& task) const noexcept override {
    auto* const rows = reinterpret_cast<const float**>(task.scratch);
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        const RowRange inside = input_rows(y, y + 1);
        PoolRow p;
        p.rows = rows;
        p.row_count = inside.end - inside.begin;
        for (int i = 0; i < p.row_count; ++i) rows[i] = task.in.at(b, inside.begin + i);
        p.in_w = in.w;
        p.out_w = out.w;
        p.kw = window.kw;
        p.stride_w = window.stride_w;
        p.pad_left = window.padding.left;
        p.out = task.out.at(b, y);
        p.divisor = divisor_;
        pool_(p);
        if (activation_ != Activation::none) {
          table_.activate_f32(activation_, p.out, p.out, std::int64_t{1} * out.w * table_.vector);
        }
      }
    }
  }

 private:
  const KernelTable& table_;
  PoolKernel pool_;
  float divisor_;
  Activation activation_;
};

class GlobalAverage final : public RowOp {
 public:
  GlobalAverage(Shape shape, const KernelTable& t) : table_(t) {
    kernel = std::string("global_average_f32__") + t.isa;
    in = shape;
    out = {1, 1, shape.c};
    window.kh = in.h;
    window.kw = in.w;
    parts = blocks_of(in.c, t);
    macs = in.elements();
  }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      table_.global_average_f32(task.in.at(b, 0), std::int64_t{1} * in.h * in.w, task.out.at(b, 0));
    }
  }

 private:
  const KernelTable& table_;
};

}  // namespace

RowOpPtr make_pool(Shape in, const Window& window, PoolKind kind, Activation activation, const KernelTable& table) {
  return std::make_unique<Pool>(in, window, kind, activation, table);
}

RowOpPtr make_global_average(Shape in, const KernelTable& table) { return std::make_unique<GlobalAverage>(in, table); }

}  // namespace sepconv
