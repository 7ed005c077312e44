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
constexpr int kMaxLanes = 16;   // of a vector

// One axis of the planes, of the outputs and taps alone that meet the image: neither padding nor stride takes memory. The
// spread gradient holds output pixel o at first + o·stride, and has `size` pixels; what input pixel i meets begins at i. The
// padded input holds input pixel i at i + before, where that lies in [0, x_size).
struct Axis {
  int in, out = 0, taps = 0, first_out = 0, first_tap = 0;
  int stride, reach = 0, before = 0, first = 0, size, x_size = 0;

  Axis(int in_, int outputs, int kernel, int stride_, int dilation, int padding) : in(in_), stride(stride_) {
    int last_out = outputs - 1, last_tap = kernel - 1;
    const auto met = [&](int output, int tap) { return output * stride + tap * dilation - padding; };
    while (first_out <= last_out && first_tap <= last_tap) {
      if (met(first_out, last_tap) < 0) ++first_out;
      else if (met(last_out, first_tap) >= in) --last_out;
      else if (met(last_out, first_tap) < 0) ++first_tap;
      else if (met(first_out, last_tap) >= in) --last_tap;
      else break;
    }
    if (first_out <= last_out && first_tap <= last_tap) {
      out = last_out - first_out + 1;
      taps = last_tap - first_tap + 1;
      reach = (taps - 1) * dilation;
      before = -met(first_out, first_tap);
      first = reach - before;
      x_size = (out - 1) * stride + reach + 1;
    }
    size = in + reach;
  }

  bool has(int output) const { return output >= first_out && output < first_out + out; }
};

class DepthwiseGradRun {
 public:
  DepthwiseGradRun(const DepthwiseGrad& task, int threads, const KernelTable& table)
      : t_(task), v_(table.vector), outputs_(task.in.c * task.multiplier), window_(task.window),
        y_(task.in.h, window_.out_h(task.in.h), window_.kh, window_.stride_h, window_.dilation_h, window_.padding.top),
        x_(task.in.w, window_.out_w(task.in.w), window_.kw, window_.stride_w, window_.dilation_w, window_.padding.left),
        out_h_(window_.out_h(task.in.h)), out_w_(window_.out_w(task.in.w)), blocks_((outputs_ + v_ - 1) / v_),
        taps_(y_.taps * x_.taps),
        groups_(static_cast<int>(std::min<std::int64_t>(task.images, kMaxGroups))),
        pieces_(std::int64_t{1} * groups_ * (alone() ? blocks_ : 1)),
        workers_(static_cast<int>(std::clamp<std::int64_t>(pieces_, 1, threads))),
        dy_floats_(std::size_t{1} * y_.size * x_.size * v_),
        x_floats_(t_.dweights ? std::size_t{1} * y_.x_size * x_.x_size * v_ : 0),
        thread_floats_(dy_floats_ + x_floats_ + (t_.dx ? std::size_t{1} * kStripRows * x_.in * v_ : 0)),
        sums_floats_(t_.dweights ? std::size_t{1} * groups_ * blocks_ * sum_floats() : 0),
        turned_floats_(t_.dx ? blocks_ * sum_floats() : 0),
        scratch_(workers_ * thread_floats_ + sums_floats_ + turned_floats_),
        sums_(scratch_.floats() + workers_ * thread_floats_), turned_(sums_ + sums_floats_) {
    window_.kh = y_.taps;
    window_.kw = x_.taps;
    const bool square = window_.kh == window_.kw && window_.dilation_h == 1 && window_.dilation_w == 1;
    dx_kernel_ = square && window_.kh == 3   ? table.depthwise_3x3_s1_f32
                 : square && window_.kh == 5 ? table.depthwise_5x5_s1_f32
                                             : table.depthwise_any_f32;
    shared_rows_ = dx_kernel_ != table.depthwise_any_f32;
    dw_kernel_ = square && window_.kh == 3   ? table.depthwise_grad_3x3_f32
                 : square && window_.kh == 5 ? table.depthwise_grad_5x5_f32
                                             : table.depthwise_grad_any_f32;
    for (int i = 0; i < workers_; ++i) pointers_.emplace_back(kStripRows * window_.kh);
    if (t_.dx) turn_weights();
  }

  void run(int threads) {
    const bool alone = this->alone();
    clear(scratch_.floats(), workers_ * thread_floats_ + sums_floats_, threads);  // zeros between and around stay
    if (!alone && t_.dx) clear(t_.dx, t_.images * t_.in.elements(), threads);
    for_each_piece(pieces_, workers_, [&](std::int64_t piece, int thread, const Stop& stop) {
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
  // Channels that share an input channel add to the same dx, one after the other.
  bool alone() const { return t_.multiplier == 1; }
  std::size_t sum_floats() const { return std::size_t{1} * (1 + taps_) * v_; }
  int lanes(int b) const { return std::min(v_, outputs_ - b * v_); }
  const float* gradient(std::int64_t image, int y, int x) const {
    return t_.dy + ((image * out_h_ + y) * out_w_ + x) * outputs_;
  }
  float* sums(int group, int b) { return sums_ + (std::size_t{1} * group * blocks_ + b) * sum_floats(); }

  // Where the weights of output channel n begin, of a row of the taps that meet the image.
  std::int64_t weights_at(int n, int row) const {
    return (std::int64_t{1} * n * t_.window.kh + y_.first_tap + row) * t_.window.kw + x_.first_tap;
  }

  // Turned by 180 degrees and in vectors, as depthwise kernels read them: bias[V] of zeros, then [kh][kw][V].
  void turn_weights() {
    std::memset(turned_, 0, turned_floats_ * sizeof(float));
    for (int n = 0; n < outputs_; ++n) {
      float* to = turned_ + (n / v_) * sum_floats() + taps_ * v_ + n % v_;  // the last tap's
      for (int row = 0; row < window_.kh; ++row) {
        for (int i = 0; i < window_.kw; ++i, to -= v_) *to = t_.weights[weights_at(n, row) + i];
      }
    }
  }

  void plane(int group, std::int64_t image, int b, int thread, const Stop& stop) {
    float* const dy = scratch_.floats() + thread * thread_floats_;
    for (int y = 0; y < y_.out && !stop(); ++y) {
      const float* const from = gradient(image, y_.first_out + y, x_.first_out) + b * v_;
      float* const to = dy + (std::ptrdiff_t{1} * (y_.first + y * y_.stride) * x_.size + x_.first) * v_;
      copy_vectors(from, outputs_, lanes(b), to, std::ptrdiff_t{1} * x_.stride * v_, x_.out, v_);
    }
    if (t_.dweights && !stop()) add_weights(group, image, b, dy, dy + dy_floats_, stop);
    if (t_.dbias && (y_.out < out_h_ || x_.out < out_w_)) add_bias(group, image, b, stop);
    if (t_.dx && !stop()) write_dx(image, b, dy, dy + dy_floats_ + x_floats_, pointers_[thread].data(), stop);
  }

  void add_weights(int group, std::int64_t image, int b, const float* dy, float* x, const Stop& stop) {
    const Shape& in = t_.in;
    const int left = std::max(0, -x_.before), columns = std::min(in.w, x_.x_size - x_.before) - left;
    for (int y = std::max(0, -y_.before); y < std::min(in.h, y_.x_size - y_.before) && !stop(); ++y) {
      const float* const from = t_.x + ((image * in.h + y) * in.w + left) * in.c;
      float* const to = x + (std::ptrdiff_t{1} * (y + y_.before) * x_.x_size + left + x_.before) * v_;
      if (t_.multiplier == 1) {
        copy_vectors(from + b * v_, in.c, lanes(b), to, v_, columns, v_);
      } else {
        for (int column = 0; column < columns; ++column) {
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

  // The gradients that meet no image, which are the bias's alone.
  void add_bias(int group, std::int64_t image, int b, const Stop& stop) {
    for (int y = 0; y < out_h_ && !stop(); ++y) {
      float row[kMaxLanes] = {};
      for (int x = 0; x < out_w_; ++x) {
        if (y_.has(y) && x_.has(x)) continue;
        const float* const from = gradient(image, y, x) + b * v_;
        for (int lane = 0; lane < lanes(b); ++lane) row[lane] += from[lane];
      }
      for (int lane = 0; lane < lanes(b); ++lane) sums(group, b)[lane] += row[lane];
    }
  }

  void write_dx(std::int64_t image, int b, const float* dy, float* strip, const float** rows, const Stop& stop) {
    const std::ptrdiff_t dy_row = std::ptrdiff_t{1} * x_.size * v_;
    DepthwiseRows d;
    d.rows = rows;
    d.row_step = shared_rows_ ? 1 : window_.kh;
    d.zeros = nullptr;  // nothing lies outside
    d.in_w = x_.size;
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
      const float* const first = dy + y * dy_row;
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
    const std::int64_t all = std::int64_t{1} * t_.window.kh * t_.window.kw;
    for (int n = 0; n < outputs_; ++n) {
      const auto sum = [&](int i) {
        float total = 0.0f;
        for (int g = 0; g < groups_; ++g) total += sums(g, n / v_)[i * v_ + n % v_];
        return total;
      };
      if (t_.dbias) t_.dbias[n] = sum(0);
      if (taps_ < all) std::memset(t_.dweights + n * all, 0, sizeof(float) * all);
      for (int row = 0, tap = 1; row < window_.kh; ++row) {
        for (int i = 0; i < window_.kw; ++i, ++tap) t_.dweights[weights_at(n, row) + i] = sum(tap);
      }
    }
  }

  const DepthwiseGrad& t_;
  int v_, outputs_;
  Window window_;         // of the taps that meet the image
  Axis y_, x_;
  int out_h_, out_w_, blocks_, taps_, groups_;
  std::int64_t pieces_;
  int workers_;
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
