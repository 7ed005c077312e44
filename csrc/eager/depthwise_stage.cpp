// Depthwise rows, two at a time where a fast kernel does. Of channels that fill no vector the last V are computed once more.
// Where pixels all begin at the same place of a vector, in the input and in the output, the second block of channels begins
// where a vector does: NumPy's arrays begin 16 bytes past a cache line, and vectors that touch two lines take up to twice
// as long (28×28×256 at stride 2; AVX2, of which every second one does, 1.03 to 1.2 times).
#include "eager/stages.h"

namespace sepconv {
namespace {

class DepthwiseStage final : public Stage {
 public:
  DepthwiseStage(Shape shape, std::shared_ptr<const EagerWeights> weights, const Window& w, Activation activation,
                 const KernelTable& table)
      : Stage(shape, std::move(weights), w, activation, table) {
    repeat = out.c / in.c;
    const int k = w.kh;
    if (fits_fast_depthwise(w, in, out) && out.c >= table.vector) {
      rows_a_call_ = 2;
      kernel_ = fast_depthwise_pixels(w, table);
      follows_phase_ = out.c % table.vector == 0 && out.c >= kFewestBlocks * table.vector && repeat == 1;
    }
    const std::string size = std::to_string(k) + "x" + std::to_string(k) + "_s" + std::to_string(w.stride_w);
    kernel = "depthwise_pixels_" + (rows_a_call_ == 2 ? size : std::string("any")) + "_f32__" + table.isa;
    weight_bytes = weights_->depthwise->bytes();
    pointers_ = static_cast<std::size_t>(w.kh) + 2;  // two output rows at stride 2
    scratch_floats = (sizeof(float*) + sizeof(std::ptrdiff_t)) / sizeof(float) * pointers_ + zeros();
  }

  bool follows_phase() const override { return follows_phase_; }

  void run(const ConstRows& from, const ConstRows&, const Rows& to, int y0, int y1, Parts, float* scratch,
           Watch& watch) const noexcept override {
    auto* const rows = reinterpret_cast<const float**>(scratch);
    auto* const steps = reinterpret_cast<std::ptrdiff_t*>(rows + pointers_);
    auto* const zero = reinterpret_cast<float*>(steps + pointers_);
    std::fill(zero, zero + zeros(), 0.0f);
    const int v = table_.vector;
    DepthwisePixels d;
    d.w = weights_->depthwise->block(0);
    d.blocks = blocks_of(out.c, table_);
    d.second = v;
    d.last = std::max(out.c - v, 0);
    d.last_lanes = out.c < v ? out.c : 0;
    if (const int phase = follows_phase_ && from.phase() % v == to.phase() % v ? from.phase() % v : 0; phase != 0) {
      if (const float* const shifted = weights_->depthwise_with_second_at(v - phase)) {
        d.w = shifted;
        d.blocks += 1;
        d.second = v - phase;
      }
    }
    d.rows = rows;
    d.steps = steps;
    d.zeros = zero;
    d.in_w = in.w;
    d.out_w = out.w;
    d.pad_left = window.padding.left;
    d.out_pixel = to.pixel;
    d.lo = epilogue_.lo;
    d.hi = epilogue_.hi;
    d.kh = window.kh;
    d.kw = window.kw;
    d.stride_w = window.stride_w;
    d.dilation_w = window.dilation_w;
    const int most = rows_a_call_ == 2 && depthwise_rows(window, from.pixel, table_) == 1 ? 1 : rows_a_call_;
    const int apart = most == 2 ? std::min(window.dilation_h, y1 - y0) : 1;  // rows that share all but a tap
    for (int group = y0; group < y1; group += most * apart) {
      for (int y = group; y < std::min(group + apart, y1); ++y) {
        d.out_rows = most == 2 && y + apart < y1 ? 2 : 1;
        d.out = to.at(y);
        d.out_row = d.out_rows == 2 ? to.at(y + apart) - d.out : 0;
        const int count = (d.out_rows - 1) * window.stride_h + window.kh;
        for (int i = 0; i < count; ++i) {
          const int at = y * window.stride_h - window.padding.top + i * window.dilation_h;
          const bool inside = at >= 0 && at < in.h;
          rows[i] = inside ? from.at(at) : zero;
          steps[i] = inside ? from.pixel : 0;
        }
        if (!phases(d, rows, steps, count, watch)) return;
        for (int i = 0; i < d.out_rows; ++i) activate(d.out + i * d.out_row, to.pixel, out.w, out.c);
      }
    }
  }

 private:
  static constexpr int kFewestBlocks = 12;  // of which one more costs less than it gains

  std::size_t zeros() const { return static_cast<std::size_t>(blocks_of(out.c, table_)) * table_.vector; }

  // Runs the kernel over all phases of a dilated window; false where it left off.
  bool phases(const DepthwisePixels& d, const float** rows, std::ptrdiff_t* steps, int count, Watch& watch) const noexcept {
    if (rows_a_call_ == 1 || window.dilation_w == 1) return columns(d, watch);
    return for_each_phase(d, rows, steps, count, window.dilation_w, [&](const DepthwisePixels& p) { return columns(p, watch); });
  }

  // Runs the kernel over all columns, a part after the other where they are many; false where it left off.
  bool columns(const DepthwisePixels& d, Watch& watch) const noexcept {
    constexpr int kTiles = 56;  // whole tiles of every kernel
    constexpr std::int64_t kMacs = 8 << 20;
    const std::int64_t written = std::int64_t{1} * d.out_rows * d.blocks * table_.vector, macs = written * d.kh * d.kw;
    const int most = static_cast<int>(std::clamp<std::int64_t>(kMacs / macs / kTiles, 1, out.w)) * kTiles;
    DepthwisePixels part = d;
    for (int x = 0; x < d.out_w; x += most) {
      part.out_w = std::min(most, d.out_w - x);
      part.out = d.out + x * d.out_pixel;
      part.pad_left = d.pad_left - x * d.stride_w;
      kernel_(part);
      if (watch.leave(macs * part.out_w, written * part.out_w)) return false;
    }
    return true;
  }

  DepthwisePixelsKernel kernel_ = table_.depthwise_pixels_any_f32;
  int rows_a_call_ = 1;
  bool follows_phase_ = false;
  std::size_t pointers_;
};

}  // namespace

std::unique_ptr<Stage> make_depthwise_stage(Shape in, std::shared_ptr<const EagerWeights> weights, const Window& window,
                                            Activation activation, const KernelTable& table) {
  return std::make_unique<DepthwiseStage>(in, std::move(weights), window, activation, table);
}

}  // namespace sepconv
