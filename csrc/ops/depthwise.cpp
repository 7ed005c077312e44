// Depthwise convolution: plane after plane. The kernel gets a pointer an input row; rows outside point at zeros.
#include <vector>

#include "ops/operators.h"

namespace sepconv {
namespace {

constexpr int kStripRows = 64;       // output rows a kernel call, at most
constexpr int kStripPointers = 4096;  // to input rows, of windows that are higher than any network's

class Depthwise final : public RowOp {
 public:
  Depthwise(Shape shape, const Window& w, std::shared_ptr<const PackedDepthwise> packed, int multiplier, Activation activation,
            const KernelTable& t)
      : table_(t), packed_(std::move(packed)), epilogue_(activation, true), multiplier_(multiplier) {
    in = shape;
    window = w;
    out = {w.out_h(in.h), w.out_w(in.w), in.c * multiplier};
    parts = blocks_of(out.c, t);
    macs = out.elements() * w.kh * w.kw;
    weight_bytes = packed_->bytes();
    streams = true;
    choose();
    if (dilated_) epilogue_ = Epilogue(activation);  // kernels of pixels clamp alone
    zeros_.resize(static_cast<std::size_t>(in.w) * t.vector);
    strip_rows_ = std::clamp(kStripPointers / w.kh, 1, std::min(kStripRows, out.h));
    pointers_ = shared_rows_ ? (strip_rows_ - 1) * w.stride_h + w.kh : strip_rows_ * w.kh;
    scratch_floats = row_floats();
    if (multiplier_ > 1) scratch_floats += static_cast<std::size_t>(in.w) * in.h * t.vector;
  }

  void run(const RowTask& task) const noexcept override {
    auto* const rows = reinterpret_cast<const float**>(task.scratch);
    auto* const offsets = reinterpret_cast<std::ptrdiff_t*>(rows + pointers_);
    const std::ptrdiff_t copy_row = std::ptrdiff_t{1} * in.w * table_.vector;
    DepthwiseRows d;
    d.rows = rows;
    d.row_step = shared_rows_ ? window.stride_h : window.kh;
    d.zeros = zeros_.data();
    d.in_w = in.w;
    d.out_w = out.w;
    d.pad_left = window.padding.left;
    d.lo = epilogue_.lo;
    d.hi = epilogue_.hi;
    d.hard_swish = epilogue_.hard_swish;
    d.kh = window.kh;
    d.kw = window.kw;
    d.stride_w = window.stride_w;
    d.dilation_w = window.dilation_w;
    d.out_step = task.out.row;
    for (int y = task.y0; y < task.y1; y += d.out_rows) {
      d.out_rows = std::min({strip_rows_, task.y1 - y, task.out.ring - y % task.out.ring});
      const int count = multiplier_ > 1 ? find_rows(copy_row, in.h, y, d.out_rows, offsets)
                                        : find_rows(task.in.row, task.in.ring, y, d.out_rows, offsets);
      float* const first = task.out.at(0, y);
      for (int b = task.part0; b < task.part1; ++b) {
        const float* const plane = multiplier_ > 1 ? repeat_channels(task, y, d.out_rows, b) : task.in.data + b * task.in.plane;
        for (int i = 0; i < count; ++i) rows[i] = offsets[i] < 0 ? zeros_.data() : plane + offsets[i];
        d.w = packed_->block(b);
        d.out = first + b * task.out.plane;
        dilated_ ? dilated(d) : kernel_(d);
        if (epilogue_.pass != Activation::none) {
          table_.activate_f32(epilogue_.pass, d.out, d.out, std::int64_t{1} * d.out_rows * out.w * table_.vector);
        }
      }
    }
  }

 private:
  void choose() {
    const Window& w = window;
    const int k = w.kh;
    const bool fast = fits_fast_depthwise(w, in, out), one = w.stride_w == 1;
    shared_rows_ = fast && w.dilation_h == 1;
    const std::string size = fast ? std::to_string(k) + "x" + std::to_string(k) + (one ? "_s1" : "_s2") : std::string("any");
    if (fast && w.dilation_w > 1) {
      dilated_ = fast_depthwise_pixels(w, table_);
      kernel = "depthwise_pixels_" + size + "_f32__" + table_.isa;
      return;
    }
    kernel_ = !fast    ? table_.depthwise_any_f32
              : k == 3 ? (one ? table_.depthwise_3x3_s1_f32 : table_.depthwise_3x3_s2_f32)
              : k == 5 ? (one ? table_.depthwise_5x5_s1_f32 : table_.depthwise_5x5_s2_f32)
                       : (one ? table_.depthwise_7x7_s1_f32 : table_.depthwise_7x7_s2_f32);
    kernel = "depthwise_" + size + "_f32__" + table_.isa;
  }

  // The rows that kernel_ would compute, each as one of pixels.
  void dilated(const DepthwiseRows& rows) const noexcept {
    constexpr int kMost = 7;
    const float* pointers[kMost];
    std::ptrdiff_t steps[kMost];
    DepthwisePixels d{};
    d.rows = pointers;
    d.steps = steps;
    d.zeros = rows.zeros;
    d.in_w = rows.in_w;
    d.out_w = rows.out_w;
    d.out_rows = 1;
    d.pad_left = rows.pad_left;
    d.blocks = 1;  // which begins at channel 0
    d.w = rows.w;
    d.out_row = 0;
    d.out_pixel = table_.vector;
    d.lo = rows.lo;
    d.hi = rows.hi;
    std::fill_n(steps, kMost, table_.vector);
    for (int y = 0; y < rows.out_rows; ++y) {
      std::copy_n(rows.rows + std::ptrdiff_t{1} * y * rows.row_step, window.kh, pointers);
      d.out = rows.out + y * rows.out_step;
      for_each_phase(d, pointers, steps, window.kh, window.dilation_w, [&](const DepthwisePixels& phase) {
        dilated_(phase);
        return true;
      });
    }
  }

  // Where in each plane the input rows lie that `out_rows` rows of output need; -1 for rows outside. Returns how many.
  int find_rows(std::ptrdiff_t row, int ring, int y, int out_rows, std::ptrdiff_t* offsets) const noexcept {
    const int count = shared_rows_ ? (out_rows - 1) * window.stride_h + window.kh : out_rows * window.kh;
    const int first = y * window.stride_h - window.padding.top;
    for (int i = 0; i < count; ++i) {
      const int at = shared_rows_ ? first + i : first + i / window.kh * window.stride_h + i % window.kh * window.dilation_h;
      offsets[i] = at < 0 || at >= in.h ? -1 : at % ring * row;
    }
    return count;
  }

  // Floats of scratch for the rows' pointers and offsets.
  std::size_t row_floats() const { return pointers_ * (sizeof(float*) + sizeof(std::ptrdiff_t)) / sizeof(float); }

  // Output channel n reads input channel n / multiplier: a plane whose lanes repeat them.
  const float* repeat_channels(const RowTask& task, int first, int rows, int block) const noexcept {
    const int v = table_.vector;
    float* const copy = task.scratch + row_floats();
    const RowRange needed = input_rows(first, first + rows);
    for (int y = needed.begin; y < needed.end; ++y) {
      for (int lane = 0; lane < v; ++lane) {
        const int c = std::min((block * v + lane) / multiplier_, in.c - 1);
        const float* from = task.in.at(c / v, y) + c % v;
        float* to = copy + std::ptrdiff_t{1} * y * in.w * v + lane;
        for (int x = 0; x < in.w; ++x) to[x * v] = from[x * v];
      }
    }
    return copy;
  }

  const KernelTable& table_;
  std::shared_ptr<const PackedDepthwise> packed_;
  Epilogue epilogue_;
  int multiplier_;
  int strip_rows_ = 1, pointers_ = 0;
  bool shared_rows_ = false;  // whether output rows share pointers to input rows
  DepthwiseKernel kernel_ = nullptr;
  DepthwisePixelsKernel dilated_ = nullptr;  // in its place where columns are dilated
  std::vector<float> zeros_;  // a row outside, and a vector of a column outside
};

}  // namespace

RowOpPtr make_depthwise(Shape in, const Window& window, std::shared_ptr<const PackedDepthwise> packed, int multiplier,
                        Activation activation, const KernelTable& table) {
  return std::make_unique<Depthwise>(in, window, std::move(packed), multiplier, activation, table);
}

}  // namespace sepconv
