// Depthwise gradients, plane by plane: an image's block of V channels is copied out of NHWC into a plane with zeros
// around it, so that kernels meet no border.
//
// With respect to the input it is a depthwise convolution at stride 1: weights turned by 180 degrees, over the gradient
// with stride-1 zeros put between its pixels. With respect to the weights see kernels/depthwise_grad.h.
#include <cstring>
#include <vector>

#include "base/fp_env.h"
#include "grad/grad.h"
#include "grad/pieces.h"
#include "runtime/scratch.h"

namespace sepconv {
namespace {

constexpr int kStripRows = 8;   // rows of dx that a kernel call computes
constexpr int kMaxGroups = 16;  // of images, whose sums for the weights are kept apart

// One axis of the planes. The spread gradient holds output pixel o at first + o·stride, and has `size` pixels; what
// input pixel i meets begins at i + shift. The padded input holds input pixel i at i + before.
struct Axis {
  int in, out, stride, reach, before;
  int first, shift, size, x_size;

  Axis(int in_, int out_, int kernel, int stride_, int dilation, int padding) : in(in_), out(out_), stride(stride_) {
    reach = (kernel - 1) * dilation;
    before = padding;
    shift = std::max(0, padding - reach);  // padding wider than the window leaves gradients that meet no input
    first = reach - padding + shift;
    size = std::max(shift + in + reach, first + (out - 1) * stride + 1);
    x_size = std::max((out - 1) * stride + reach + 1, before + in);
  }
};

class DepthwiseGradRun {
 public:
  DepthwiseGradRun(const DepthwiseGrad& task, int threads, const KernelTable& table)
      : t_(task), v_(table.vector), outputs_(task.in.c * task.multiplier), window_(task.window),
        y_(task.in.h, window_.out_h(task.in.h), window_.kh, window_.stride_h, window_.dilation_h, window_.padding.top),
        x_(task.in.w, window_.out_w(task.in.w), window_.kw, window_.stride_w, window_.dilation_w, window_.padding.left),
        blocks_((outputs_ + v_ - 1) / v_), taps_(window_.kh * window_.kw),
        groups_(static_cast<int>(std::min<std::int64_t>(task.images, kMaxGroups))),
        dy_floats_(std::size_t{1} * y_.size * x_.size * v_),
        x_floats_(t_.dweights ? std::size_t{1} * y_.x_size * x_.x_size * v_ : 0),
        thread_floats_(dy_floats_ + x_floats_ + (t_.dx ? std::size_t{1} * kStripRows * x_.in * v_ : 0)),
        sums_floats_(t_.dweights ? groups_ * blocks_ * sum_floats() : 0),
        turned_floats_(t_.dx ? blocks_ * sum_floats() : 0),
        scratch_(threads * thread_floats_ + sums_floats_ + turned_floats_),
        sums_(scratch_.floats() + threads * thread_floats_), turned_(sums_ + sums_floats_) {
    const bool square = window_.kh == window_.kw && window_.dilation_h == 1 && window_.dilation_w == 1;
    dx_kernel_ = square && window_.kh == 3   ? table.depthwise_3x3_s1_f32
                 : square && window_.kh == 5 ? table.depthwise_5x5_s1_f32
                                             : table.depthwise_any_f32;
    shared_rows_ = dx_kernel_ != table.depthwise_any_f32;
    dw_kernel_ = square && window_.kh == 3   ? table.depthwise_grad_3x3_f32
                 : square && window_.kh == 5 ? table.depthwise_grad_5x5_f32
                                             : table.depthwise_grad_any_f32;
    for (int i = 0; i < threads; ++i) pointers_.emplace_back(kStripRows * window_.kh);
    if (t_.dx) turn_weights();
  }

  void run(int threads) {
    // Channels that share an input channel add to the same dx, one after the other.
    const bool alone = t_.multiplier == 1;
    clear(scratch_.floats(), threads * thread_floats_ + sums_floats_, threads);  // zeros between and around stay
    if (!alone && t_.dx) clear(t_.dx, t_.images * t_.in.elements(), threads);
    const std::int64_t pieces = std::int64_t{1} * groups_ * (alone ? blocks_ : 1);
    for_each_piece(pieces, threads, [&](std::int64_t piece, int thread, const Stop& stop) {
      const std::int64_t group = alone ? piece / blocks_ : piece;
      const Range images(t_.images, groups_, group);
      for (std::int64_t image = images.begin; image < images.end; ++image) {
        for (int b = alone ? static_cast<int>(piece % blocks_) : 0; b < blocks_; ++b) {
          plane(static_cast<int>(group), image, b, thread, stop);
          if (stop()) return;
          if (alone) break;
        }
      }
    });
    if (t_.dweights) gather();
  }

 private:
  std::size_t sum_floats() const { return std::size_t{1} * (1 + taps_) * v_; }
  int lanes(int b) const { return std::min(v_, outputs_ - b * v_); }
  float* sums(int group, int b) { return sums_ + (std::size_t{1} * group * blocks_ + b) * sum_floats(); }

  // Turned by 180 degrees and in vectors, as depthwise kernels read them: bias[V] of zeros, then [kh][kw][V].
  void turn_weights() {
    std::memset(turned_, 0, turned_floats_ * sizeof(float));
    for (int n = 0; n < outputs_; ++n) {
      float* const to = turned_ + (n / v_) * sum_floats() + v_ + n % v_;
      for (int tap = 0; tap < taps_; ++tap) to[tap * v_] = t_.weights[std::int64_t{1} * n * taps_ + taps_ - 1 - tap];
    }
  }

  void plane(int group, std::int64_t image, int b, int thread, const Stop& stop) {
    float* const dy = scratch_.floats() + thread * thread_floats_;
    const std::int64_t dy_pixels = std::int64_t{1} * y_.out * x_.out;
    for (int y = 0; y < y_.out && !stop(); ++y) {
      const float* const from = t_.dy + (image * dy_pixels + std::int64_t{1} * y * x_.out) * outputs_ + b * v_;
      float* const to = dy + (std::ptrdiff_t{1} * (y_.first + y * y_.stride) * x_.size + x_.first) * v_;
      copy_vectors(from, outputs_, lanes(b), to, std::ptrdiff_t{1} * x_.stride * v_, x_.out, v_);
    }
    if (t_.dweights && !stop()) add_weights(group, image, b, dy, dy + dy_floats_, stop);
    if (t_.dx && !stop()) write_dx(image, b, dy, dy + dy_floats_ + x_floats_, pointers_[thread].data(), stop);
  }

  void add_weights(int group, std::int64_t image, int b, const float* dy, float* x, const Stop& stop) {
    const Shape& in = t_.in;
    for (int y = 0; y < in.h && !stop(); ++y) {
      const float* const from = t_.x + (image * in.h + y) * in.w * in.c;
      float* const to = x + (std::ptrdiff_t{1} * (y + y_.before) * x_.x_size + x_.before) * v_;
      if (t_.multiplier == 1) {
        copy_vectors(from + b * v_, in.c, lanes(b), to, v_, in.w, v_);
      } else {
        for (int column = 0; column < in.w; ++column) {
          for (int i = 0; i < lanes(b); ++i) to[column * v_ + i] = from[std::int64_t{1} * column * in.c + (b * v_ + i) / t_.multiplier];
        }
      }
    }
    DepthwiseGradRows d;
    d.dy = dy + (std::ptrdiff_t{1} * y_.first * x_.size + x_.first) * v_;
    d.dy_row = std::ptrdiff_t{1} * y_.stride * x_.size * v_;
    d.dy_step = std::ptrdiff_t{1} * x_.stride * v_;
    d.x = x;
    d.x_row = std::ptrdiff_t{1} * x_.x_size * v_;
    d.out_w = x_.out;
    d.out_rows = y_.out;
    d.stride_h = y_.stride;
    d.stride_w = x_.stride;
    d.sums = sums(group, b);
    d.kh = window_.kh;
    d.kw = window_.kw;
    d.dilation_h = window_.dilation_h;
    d.dilation_w = window_.dilation_w;
    dw_kernel_(d);
  }

  void write_dx(std::int64_t image, int b, const float* dy, float* strip, const float** rows, const Stop& stop) {
    const std::ptrdiff_t dy_row = std::ptrdiff_t{1} * x_.size * v_;
    DepthwiseRows d;
    d.rows = rows;
    d.row_step = shared_rows_ ? 1 : window_.kh;
    d.zeros = nullptr;  // nothing lies outside
    d.in_w = x_.size - x_.shift;
    d.out_w = x_.in;
    d.pad_left = 0;
    d.w = turned_ + b * sum_floats();
    d.out = strip;
    d.out_step = std::ptrdiff_t{1} * x_.in * v_;
    d.lo = -__builtin_inff();
    d.hi = __builtin_inff();
    d.kh = window_.kh;
    d.kw = window_.kw;
    d.stride_w = 1;
    d.dilation_w = window_.dilation_w;
    for (int y = 0; y < y_.in && !stop(); y += d.out_rows) {
      d.out_rows = std::min(kStripRows, y_.in - y);
      const float* const first = dy + (y + y_.shift) * dy_row + std::ptrdiff_t{1} * x_.shift * v_;
      if (shared_rows_) {
        for (int i = 0; i < d.out_rows + window_.kh - 1; ++i) rows[i] = first + i * dy_row;
      } else {
        for (int i = 0; i < d.out_rows * window_.kh; ++i) {
          rows[i] = first + (i / window_.kh + std::ptrdiff_t{1} * (i % window_.kh) * window_.dilation_h) * dy_row;
        }
      }
      dx_kernel_(d);
      store_dx(image, b, y, d.out_rows, strip);
    }
  }

  void store_dx(std::int64_t image, int b, int first, int rows, const float* strip) {
    const Shape& in = t_.in;
    float* to = t_.dx + (image * in.h + first) * in.w * in.c;
    const std::int64_t pixels = std::int64_t{1} * rows * in.w;
    if (t_.multiplier > 1) {
      for (std::int64_t i = 0; i < pixels; ++i, to += in.c, strip += v_) {
        for (int lane = 0; lane < lanes(b); ++lane) to[(b * v_ + lane) / t_.multiplier] += strip[lane];
      }
    } else if (lanes(b) == v_) {
      copy_vectors(strip, v_, v_, to + b * v_, in.c, pixels, v_);
    } else {
      to += b * v_;
      for (std::int64_t i = 0; i < pixels; ++i, to += in.c, strip += v_) std::memcpy(to, strip, sizeof(float) * lanes(b));
    }
  }

  // The groups' sums, in order.
  void gather() {
    for (int n = 0; n < outputs_; ++n) {
      for (int tap = -1; tap < taps_; ++tap) {
        float sum = 0.0f;
        for (int g = 0; g < groups_; ++g) sum += sums(g, n / v_)[(tap + 1) * v_ + n % v_];
        if (tap >= 0) t_.dweights[std::int64_t{1} * n * taps_ + tap] = sum;
        else if (t_.dbias) t_.dbias[n] = sum;
      }
    }
  }

  const DepthwiseGrad& t_;
  int v_, outputs_;
  Window window_;
  Axis y_, x_;
  int blocks_, taps_, groups_;
  std::size_t dy_floats_, x_floats_, thread_floats_, sums_floats_, turned_floats_;
  Scratch scratch_;       // a thread's spread gradient, padded input, strip of dx; sums of the groups; turned weights
  float *sums_, *turned_;
  DepthwiseKernel dx_kernel_;
  DepthwiseGradKernel dw_kernel_;
  bool shared_rows_;
  std::vector<std::vector<const float*>> pointers_;  // a thread's rows
};

}  // namespace

void depthwise_grad(const DepthwiseGrad& task, int threads, const KernelTable& table) {
  const FlushDenormals flush;
  DepthwiseGradRun(task, threads, table).run(threads);
}

}  // namespace sepconv
