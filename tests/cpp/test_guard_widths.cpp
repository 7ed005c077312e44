// Every kernel of every ISA at each width from one to three vectors and one more, all operands between guard pages, at
// either end. Values are other tests' business: here what lies outside is neither read nor written, and no kernel of the
// table is left out.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <set>

#include "depthwise_problem.h"
#include "gemm_problem.h"
#include "pool_problem.h"

namespace sepconv::test {
namespace {

class Sweep {
 public:
  Sweep(const KernelTable& table, Flush flush) : t_(table), flush_(flush), v_(table.vector), most_(3 * table.vector + 1) {}

  void run() {
    gemm();
    gemm_pairs();
    gemv();
    depthwise();
    depthwise_pixels();
    depthwise_grad();
    pools();
    elementwise();
    moves();
  }

  long cases = 0;
  std::set<const void*> kernels;

 private:
  template <class Kernel>
  Kernel use(Kernel kernel) {
    ++cases;
    kernels.insert(reinterpret_cast<const void*>(kernel));
    return kernel;
  }
  GuardedBuffer<float> in(std::size_t n) { return {draw(random_, n, Values::real), flush_}; }
  GuardedBuffer<float> out(std::size_t n) { return unwritten(n, flush_); }
  static void check(GuardedBuffer<float>& out) {
    EXPECT_TRUE(out.slack_intact());
    for (const float& x : out.values()) EXPECT_FALSE(is_unwritten(x));
  }

  // The width is that of a row of A; then of an NHWC row of C.
  void gemm() {
    for (int vectors = 1; vectors <= t_.gemm_vectors; ++vectors)
      for (int rows = 1; rows <= t_.gemm_rows[vectors - 1]; ++rows) {
        const GemmKernel planes = t_.gemm_f32[vectors - 1][rows - 1], strided = t_.gemm_strided_f32[vectors - 1][rows - 1];
        for (int width = 1; width <= most_; ++width) {
          std::vector<Segment> blocks;
          for (int k = 0; k < width; k += v_) blocks.push_back({k * (rows + 1), std::min(v_, width - k)});
          const GemmProblem p(rows, vectors * v_, {v_, blocks}, width % 2 == 0, random_, Values::real);
          p.run(use(planes), v_, flush_, width % 3);
          const GemmProblem q(rows, vectors * v_, {width, {{0, width}}}, width % 2 == 1, random_, Values::real);
          q.run(use(strided), v_, flush_);
          const GemmProblem image(rows, vectors * v_, {kImageStep, {{0, width}}}, false, random_, Values::real);
          image.run(use(t_.gemm_image_f32[vectors - 1][rows - 1]), v_, flush_);
        }
        for (int cut = 0; cut < v_; ++cut) {
          const GemmProblem p(rows, vectors * v_, {5, {{0, 5}}}, cut % 2 == 0, random_, Values::real);
          p.run_nhwc(use(strided), v_, flush_, cut % 3, cut);
        }
      }
  }

  // The width is that of a row of the window.
  void gemm_pairs() {
    for (int rows = 1; rows <= t_.pair_rows; ++rows)
      for (int width = 1; width <= most_; ++width) {
        GuardedBuffer<float> a = in(std::size_t{2} * ((rows - 1) * kImageStep + width)), b = in(std::size_t{1} * v_ * (width + 1));
        GuardedBuffer<float> residual = in(std::size_t{2} * rows * v_), c = out(std::size_t{2} * rows * v_);
        GuardedBuffer<Segment> segment(std::vector<Segment>{{0, width}}, flush_);
        GemmTile t{.c_step = v_, .residual_step = v_};
        t.a = a.data();
        t.segments = segment.data();
        t.segment_count = 1;
        t.b = b.data();
        t.residual = width % 2 ? residual.data() : nullptr;
        t.c = c.data();
        t.c_plane = t.residual_plane = std::ptrdiff_t{1} * rows * v_;
        t.lo = -1.0f;
        t.hi = 1.0f;
        t.hard_swish = width % 3 == 0;
        use(t_.gemm_pairs_f32[rows - 1])(t);
        check(c);
      }
  }

  void gemv() {
    for (int panels = 1; panels <= kMaxGemvPanels; ++panels)
      for (int width = 1; width <= most_; ++width) {
        const std::ptrdiff_t panel = std::ptrdiff_t{2} * v_ * (width + 1);
        GuardedBuffer<float> a = in(width), b = in(panels * panel), c = out(2 * panels * v_);
        GuardedBuffer<Segment> segment(std::vector<Segment>{{0, width}}, flush_);
        use(t_.gemv_f32)({a.data(), segment.data(), 1, b.data(), panel, panels, c.data(), v_, -1.0f, 1.0f, width % 2 == 0});
        check(c);
      }
  }

  void depthwise() {
    std::vector<std::string> names = kFastDepthwise;
    names.push_back("depthwise_any_f32");
    for (const std::string& name : names) {
      const KernelId id{name, t_.isa};
      const bool any = name == names.back();
      const int size = any ? 4 : named_size(id), stride = any ? 1 : named_stride(id);
      for (int width = 1; width <= most_; ++width)
        for (int pad = 0; pad <= size / 2; ++pad) {
          const int in_w = (width - 1) * stride + size - 2 * pad;
          if (in_w < 1) continue;
          const Window w{size, size, stride, stride, 1, 1, {0, 0, pad, pad}};
          const DepthwiseProblem p(size + stride, in_w, v_, w, random_, Values::real);
          p.run(use(depthwise_kernel(id)), flush_, any ? size : stride, 2, width % 3);
        }
    }
  }

  // The width is that of a row of pixels, then of a pixel's channels.
  void depthwise_pixels() {
    for (int width = 1; width <= most_; ++width) {
      pixels(t_.depthwise_pixels_3x3_s1_f32, 3, 1, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_3x3_s2_f32, 3, 2, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_5x5_s1_f32, 5, 1, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_5x5_s2_f32, 5, 2, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_7x7_s1_f32, 7, 1, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_7x7_s2_f32, 7, 2, width, (1 + width % 3) * v_);
      pixels(t_.depthwise_pixels_any_f32, 3, 1, width, 1 + width % 5);
      for (const int columns : {1, 2, 7}) pixels(t_.depthwise_pixels_any_f32, 3, 1, columns, width);
    }
  }

  void pixels(DepthwisePixelsKernel kernel, int size, int stride, int out_w, int channels) {
    const bool any = kernel == t_.depthwise_pixels_any_f32;
    const int pad = size / 2, in_w = (out_w - 1) * stride + size - 2 * pad, out_rows = any ? 1 : 2;
    const int blocks = (channels + v_ - 1) / v_, count = (out_rows - 1) * stride + size;
    std::vector<GuardedBuffer<float>> image;
    std::vector<const float*> rows;
    GuardedBuffer<float> zeros(std::vector<float>(std::size_t{1} * blocks * v_), flush_);
    for (int i = 0; i < count; ++i) {
      image.push_back(in(std::size_t{1} * in_w * channels));
      rows.push_back(i == 0 ? zeros.data() : image.back().data());
    }
    std::vector<std::ptrdiff_t> steps(count, channels);
    steps[0] = 0;
    GuardedBuffer<const float*> pointers(rows, flush_);
    GuardedBuffer<std::ptrdiff_t> guarded_steps(steps, flush_);
    GuardedBuffer<float> w = in(std::size_t{1} * blocks * (1 + size * size) * v_);
    GuardedBuffer<float> y = out(std::size_t{1} * out_rows * out_w * channels);
    use(kernel)({.rows = pointers.data(),
                 .steps = guarded_steps.data(),
                 .zeros = zeros.data(),
                 .in_w = in_w,
                 .out_w = out_w,
                 .out_rows = out_rows,
                 .pad_left = pad,
                 .blocks = blocks,
                 .second = v_,
                 .last = (blocks - 1) * v_,
                 .last_lanes = channels % v_,
                 .w = w.data(),
                 .out = y.data(),
                 .out_row = std::ptrdiff_t{1} * out_w * channels,
                 .out_pixel = channels,
                 .lo = -kInf,
                 .hi = kInf,
                 .kh = size,
                 .kw = size,
                 .stride_w = stride,
                 .dilation_w = 1});
    check(y);
  }

  void depthwise_grad() {
    const struct {
      DepthwiseGradKernel kernel;
      int kh, kw;
    } tried[] = {{t_.depthwise_grad_3x3_f32, 3, 3}, {t_.depthwise_grad_5x5_f32, 5, 5}, {t_.depthwise_grad_any_f32, 2, 4}};
    for (const auto& k : tried)
      for (int width = 1; width <= most_; ++width)
        for (const int stride : {1, 2}) {
          const int rows = 2, in_w = (width - 1) * stride + k.kw, in_h = (rows - 1) * stride + k.kh;
          GuardedBuffer<float> dy = in(std::size_t{1} * rows * width * v_), x = in(std::size_t{1} * in_h * in_w * v_);
          GuardedBuffer<float> sums(std::size_t{1} * (1 + k.kh * k.kw) * v_, flush_);
          std::memset(sums.data(), 0, sums.size() * sizeof(float));
          use(k.kernel)({dy.data(), std::ptrdiff_t{1} * width * v_, v_, x.data(), std::ptrdiff_t{1} * in_w * v_, width, rows,
                         stride, stride, sums.data(), k.kh, k.kw, 1, 1});
          EXPECT_TRUE(sums.slack_intact());
        }
  }

  void pools() {
    for (int width = 1; width <= most_; ++width) {
      for (int stride = 1; stride <= 2; ++stride) {
        const Window w{3, 3, stride, stride, 1, 1, {1, 1, 1, 1}};
        const PoolProblem p(3, width, v_, w, random_, Values::real);
        p.run(use(t_.max_pool_f32), flush_);
        p.run(use(t_.average_pool_f32), flush_, width % 2 == 0);
      }
      GuardedBuffer<float> x = in(std::size_t{1} * width * v_), mean = out(v_);
      use(t_.global_average_f32)(x.data(), width, mean.data());
      check(mean);
      GuardedBuffer<float> read = in(std::size_t{8} * width * v_);
      EXPECT_TRUE(std::isfinite(use(t_.read_peak_f32)(read.data(), static_cast<std::int64_t>(read.size()))));
    }
    EXPECT_TRUE(std::isfinite(use(t_.fma_peak_f32)(3, 0.5f, 1.0f)));
  }

  void elementwise() {
    for (int n = 1; n <= most_; ++n) {
      GuardedBuffer<float> a = in(n), b = in(n), one = in(1), vectors = in(std::size_t{1} * n * v_), factors = in(v_);
      const auto to = [&](std::size_t count, const auto& call) {
        GuardedBuffer<float> y = out(count);
        call(y.data());
        check(y);
      };
      to(n, [&](float* y) { use(t_.add_f32)(a.data(), b.data(), y, n, -0.5f, 0.5f); });
      to(n, [&](float* y) { use(t_.mul_f32)(a.data(), b.data(), y, n, -0.5f, 0.5f); });
      to(std::size_t{1} * n * v_, [&](float* y) { use(t_.prelu_f32)(vectors.data(), factors.data(), y, n); });
      to(std::size_t{1} * n * v_, [&](float* y) { use(t_.scale_f32)(vectors.data(), factors.data(), y, n, -0.5f, 0.5f); });
      to(n, [&](float* y) { use(t_.softmax_f32)(a.data(), y, n, 1.5f); });
      EXPECT_TRUE(std::isfinite(use(t_.greatest_f32)(a.data(), n, 1.0f)));
      to(n, [&](float* y) { use(t_.greatest_columns_f32)(vectors.data(), n, v_, n, 1.0f, y); });
      for (const SumKind kind : {SumKind::plain, SumKind::absolute, SumKind::squares}) {
        EXPECT_TRUE(std::isfinite(use(t_.sum_f32)(kind, a.data(), n, 0.0)));
        GuardedBuffer<double> sums(n, flush_);
        use(t_.sum_columns_f32)(kind, vectors.data(), n, v_, n, sums.data());
        EXPECT_TRUE(sums.slack_intact());
      }
      for (const int step : {0, 1})
        to(n, [&](float* y) { use(t_.normalize_f32)(a.data(), n, 0.1, 2.0, (step ? b : one).data(), nullptr, step, y); });
      for (int i = 0; i <= static_cast<int>(Activation::gelu_tanh); ++i)
        to(n, [&](float* y) { use(t_.activate_f32)(static_cast<Activation>(i), a.data(), y, n); });
      for (int i = 0; i <= static_cast<int>(UnaryKind::exp); ++i)
        to(n, [&](float* y) { use(t_.unary_f32)(static_cast<UnaryKind>(i), a.data(), y, n, 0.5f, 0.75f); });
      for (int i = 0; i < kVectorBinaryKinds; ++i)
        for (const int steps : {0, 1, 2, 3})
          to(n, [&](float* y) {
            const int of_a = steps % 2, of_b = steps / 2;
            use(t_.binary_f32)(static_cast<BinaryKind>(i), (of_a ? a : one).data(), of_a, (of_b ? b : one).data(), of_b, y, n);
          });
    }
  }

  void moves() {
    for (int n = 1; n <= most_; ++n)
      for (int count = 1; count <= 9; ++count) {
        std::vector<GuardedBuffer<float>> planes;
        std::vector<const float*> pointers;
        std::vector<std::int32_t> lanes(std::size_t{1} * count * v_, -1);
        for (int s = 0; s < count; ++s) {
          planes.push_back(in(std::size_t{1} * n * v_));
          pointers.push_back(planes.back().data());
          lanes[s * v_ + s % v_] = random_.below(v_);
        }
        GuardedBuffer<const float*> sources(pointers, flush_);
        GuardedBuffer<std::int32_t> from(lanes, flush_);
        GuardedBuffer<float> y = out(std::size_t{1} * n * v_);
        use(t_.channels_f32)({sources.data(), from.data(), count, y.data(), n});
        check(y);
      }
    for (int n = 1; t_.interleave_f32 && n <= most_; ++n) {
      GuardedBuffer<float> a = in(n), b = in(n), y = out(std::size_t{2} * n);
      use(t_.interleave_f32)(a.data(), b.data(), y.data(), n);
      check(y);
    }
    for (int rows = 1; rows <= most_; ++rows)
      for (int columns = 1; columns <= most_; ++columns) {
        GuardedBuffer<float> x = in(std::size_t{1} * rows * columns), y = out(std::size_t{1} * rows * columns);
        use(t_.transpose_f32)(x.data(), columns, y.data(), rows, rows, columns);
        check(y);
      }
  }

  const KernelTable& t_;
  Flush flush_;
  int v_, most_;
  Random random_{12};
};

class GuardWidths : public ::testing::TestWithParam<std::string> {};

TEST_P(GuardWidths, NoKernelLeavesItsOperands) {
  const KernelTable& table = kernels(GetParam());
  long cases = 0;
  std::set<const void*> tried;
  for (const Flush flush : kBothEnds) {
    Sweep sweep(table, flush);
    sweep.run();
    cases += sweep.cases;
    tried = sweep.kernels;
  }
  // From gemm_f32 on the table is pointers to kernels, and nothing else.
  std::set<const void*> all;
  const char* const end = reinterpret_cast<const char*>(&table + 1);
  for (const char* at = reinterpret_cast<const char*>(&table.gemm_f32); at != end; at += sizeof(void*)) {
    const void* kernel;
    std::memcpy(&kernel, at, sizeof kernel);
    if (kernel != nullptr) all.insert(kernel);
  }
  EXPECT_EQ(tried, all);
  std::printf("%s: %zu kernels, %ld cases between guard pages\n", table.isa, tried.size(), cases);
}

INSTANTIATE_TEST_SUITE_P(Isas, GuardWidths, ::testing::ValuesIn(supported_isas()), [](const auto& isa) { return isa.param; });

}  // namespace
}  // namespace sepconv::test
