// Kernels that no layer of networks.h reaches by itself, called as their operators call them, on data in cache.
#include "support.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sepconv::bench {
namespace {

using Floats = std::vector<float>;
constexpr float kLow = 0.0f, kHigh = 6.0f;

bool every_isa(const KernelTable&) { return true; }

// One benchmark an ISA that has the kernel: `make` gives what one iteration does, `macs` and `bytes` what it amounts to.
template <class Make>
void direct(const std::string& kernel, const std::string& shape, double macs, double bytes, Make make,
            bool (*has)(const KernelTable&) = every_isa) {
  for (const KernelTable* table : tables()) {
    if (!has(*table)) continue;
    register_one(kernel + "__" + table->isa + "/" + shape, [=](benchmark::State& state) {
      auto run = make(*table);
      for (auto _ : state) {
        run();
        benchmark::ClobberMemory();
      }
      using benchmark::Counter;
      if (macs > 0) state.counters["GFLOP/s"] = Counter(2e-9 * macs, Counter::kIsIterationInvariantRate);
      state.counters["GB/s"] = Counter(1e-9 * bytes, Counter::kIsIterationInvariantRate);
    });
  }
}

Floats some(std::int64_t count) {
  Floats values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = 0.01f * static_cast<float>(i % 199) - 0.9f;
  return values;
}

int round_up(int n, int to) { return (n + to - 1) / to * to; }

// One pixel times panels of weights: the layers of squeeze-and-excite blocks, and a classifier.
void gemv(int inputs, int outputs) {
  const double weights = 1.0 * inputs * outputs;
  direct("gemv_f32", std::to_string(inputs) + "_to_" + std::to_string(outputs), weights, 4 * weights,
         [=](const KernelTable& t) {
    const int wide = 2 * t.vector, panels = round_up(outputs, wide) / wide;
    return [=, &t, a = some(inputs), b = some(std::int64_t{1} * panels * wide * (inputs + 1)),
            c = Floats(panels * wide)]() mutable {
      const Segment all{0, inputs};
      const std::ptrdiff_t panel = std::ptrdiff_t{wide} * (inputs + 1);
      for (int p = 0; p < panels; p += kMaxGemvPanels) {
        t.gemv_f32({a.data(), &all, 1, b.data() + p * panel, panel, std::min(kMaxGemvPanels, panels - p),
                    c.data() + p * wide, t.vector, kLow, kHigh, false});
      }
    };
  });
}

// One tile over rows `step` floats apart.
void tile(const std::string& kernel, GemmKernel (KernelTable::*tiles)[kMaxGemmVectors][kMaxGemmRows], int step, int k) {
  direct(kernel, "k_" + std::to_string(k), 0, 4.0 * k, [=](const KernelTable& t) {
    const int vectors = t.panel_vectors, rows = t.gemm_rows[vectors - 1], wide = vectors * t.vector;
    return [=, &t, a = some(std::int64_t{rows} * step + k), b = some(std::int64_t{wide} * (k + 1)),
            c = Floats(rows * wide)]() mutable {
      const Segment all{0, k};
      GemmTile g{.a = a.data(), .a_step = step, .segments = &all, .segment_count = 1, .b = b.data(),
                 .residual = nullptr, .residual_plane = 0, .c = c.data(), .c_plane = t.vector, .c_step = wide,
                 .residual_step = wide, .lo = kLow, .hi = kHigh, .prefetch = b.data(), .prefetch_step = 0};
      if (step == kImageStep) g.c_plane = rows * t.vector, g.c_step = t.vector;
      (t.*tiles)[vectors - 1][rows - 1](g);
    };
  });
}

// The tile of two pixels a vector, and what interleaves a row of 224 columns for it.
bool has_pairs(const KernelTable& t) { return t.pair_rows > 0; }
void pairs() {
  constexpr int k = 27;
  direct("gemm_pairs_f32", "k_" + std::to_string(k), 0, 4.0 * k, [](const KernelTable& t) {
    return [&t, a = some(2 * (t.pair_rows * kImageStep + k)), b = some(std::int64_t{t.vector} * (k + 1)),
            c = Floats(2 * t.pair_rows * t.vector)]() mutable {
      const Segment all{0, k};
      GemmTile g{.a = a.data(), .a_step = 0, .segments = &all, .segment_count = 1, .b = b.data(), .residual = nullptr,
                 .residual_plane = 0, .c = c.data(), .c_plane = std::ptrdiff_t{1} * t.pair_rows * t.vector, .c_step = t.vector,
                 .residual_step = t.vector, .lo = kLow, .hi = kHigh, .prefetch = nullptr, .prefetch_step = 0};
      t.gemm_pairs_f32[t.pair_rows - 1](g);
    };
  }, has_pairs);
  direct("interleave_f32", "336", 0, 16.0 * 336, [](const KernelTable& t) {
    return [&t, a = some(336), b = some(336), c = Floats(672)]() mutable {
      t.interleave_f32(a.data(), b.data(), c.data(), 336);
    };
  }, has_pairs);
}

// A row of a depthwise convolution over NHWC pixels, two where the kernel takes two.
void pixels(const std::string& name, DepthwisePixelsKernel KernelTable::*kernel, int size, int stride, int side,
            int channels) {
  const int out = side / stride;
  const double macs = 1.0 * out * channels * size * size;
  direct("depthwise_pixels_" + name + "_f32", std::to_string(side) + "x" + std::to_string(channels), macs,
         4.0 * channels * (size * side + out), [=](const KernelTable& t) {
    const int blocks = round_up(channels, t.vector) / t.vector, wide = blocks * t.vector;
    Floats image = some(std::int64_t{size} * side * wide);
    std::vector<const float*> rows(size);
    for (int r = 0; r < size; ++r) rows[r] = image.data() + std::ptrdiff_t{r} * side * wide;
    return [=, &t, image = std::move(image), rows = std::move(rows), steps = std::vector<std::ptrdiff_t>(size, wide),
            zeros = Floats(wide), w = some(std::int64_t{wide} * (size * size + 1)),
            y = Floats(std::int64_t{out} * wide)]() mutable {
      (t.*kernel)({.rows = rows.data(), .steps = steps.data(), .zeros = zeros.data(), .in_w = side, .out_w = out,
                   .out_rows = 1, .pad_left = (size - stride) / 2, .blocks = blocks, .second = t.vector, .last = wide - t.vector, .last_lanes = 0, .w = w.data(),
                   .out = y.data(), .out_row = 0, .out_pixel = wide, .lo = kLow, .hi = kHigh, .kh = size, .kw = size, .stride_w = stride,
                   .dilation_w = 1});
    };
  });
}

void grad(const std::string& name, DepthwiseGradKernel KernelTable::*kernel, int size, int side) {
  direct("depthwise_grad_" + name + "_f32", std::to_string(side) + "x" + std::to_string(side), 0,
         4.0 * side * side * 2, [=](const KernelTable& t) {
    const int padded = side + size - 1;
    return [=, &t, x = some(std::int64_t{padded} * padded * t.vector), dy = some(std::int64_t{side} * side * t.vector),
            sums = Floats((size * size + 1) * t.vector)]() mutable {
      std::fill(sums.begin(), sums.end(), 0.0f);
      (t.*kernel)({dy.data(), std::ptrdiff_t{side} * t.vector, t.vector, x.data(), std::ptrdiff_t{padded} * t.vector,
                   side, side, 1, 1, sums.data(), size, size, 1, 1});
    };
  });
}

// Channels moved between the planes of an activation: out channel c is channel from(c) of `inputs` ones.
template <class From>
void channels(const std::string& what, int side, int inputs, int outputs, From from) {
  const std::string shape = std::to_string(side) + "x" + std::to_string(side) + "x" + std::to_string(inputs);
  direct("channels_f32", shape + "/" + what, 0, 8.0 * side * side * outputs, [=](const KernelTable& t) {
    const int planes = round_up(inputs, t.vector) / t.vector;
    const std::int64_t plane = std::int64_t{side} * side * t.vector;
    struct Task {
      std::vector<const float*> sources;
      std::vector<std::int32_t> lanes;
      float* out;
    };
    Floats x = some(planes * plane), y(round_up(outputs, t.vector) / t.vector * plane);
    std::vector<Task> tasks;
    for (int first = 0; first < outputs; first += t.vector) {
      Task task{{}, {}, y.data() + first / t.vector * plane};
      for (int p = 0; p < planes; ++p) {
        std::vector<std::int32_t> taken(t.vector, -1);
        for (int l = 0; l < t.vector && first + l < outputs; ++l) {
          if (const int c = from(first + l); c / t.vector == p) taken[l] = c % t.vector;
        }
        if (std::all_of(taken.begin(), taken.end(), [](int lane) { return lane < 0; })) continue;
        task.sources.push_back(x.data() + p * plane);
        task.lanes.insert(task.lanes.end(), taken.begin(), taken.end());
      }
      tasks.push_back(std::move(task));
    }
    return [=, &t, x = std::move(x), y = std::move(y), tasks = std::move(tasks)] {
      for (const Task& task : tasks) {
        t.channels_f32({task.sources.data(), task.lanes.data(), static_cast<int>(task.sources.size()), task.out,
                        std::int64_t{side} * side});
      }
    };
  });
}

void elementwise() {
  constexpr int kPixels = 28 * 28;
  direct("mul_f32", "28x28", 0, 12.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), b = some(kPixels * 16), y = Floats(kPixels * 16)]() mutable {
      t.mul_f32(a.data(), b.data(), y.data(), kPixels * 16, kLow, kHigh);
    };
  });
  direct("scale_f32", "28x28/squeeze_excite", 0, 8.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), b = some(t.vector), y = Floats(kPixels * 16)]() mutable {
      for (int at = 0; at < kPixels * 16; at += kPixels * t.vector) {
        t.scale_f32(a.data() + at, b.data(), y.data() + at, kPixels, kLow, kHigh);
      }
    };
  });
  direct("transpose_f32", "128x784", 0, 8.0 * 128 * kPixels, [](const KernelTable& t) {
    return [&t, a = some(128 * kPixels), y = Floats(128 * kPixels)]() mutable {
      t.transpose_f32(a.data(), kPixels, y.data(), 128, 128, kPixels);
    };
  });
  direct("sum_f32", "12544", 0, 4.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16)] { benchmark::DoNotOptimize(t.sum_f32(SumKind::plain, a.data(), kPixels * 16, 0.0)); };
  });
  direct("greatest_f32", "12544", 0, 4.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16)] { benchmark::DoNotOptimize(t.greatest_f32(a.data(), kPixels * 16, 1.0f)); };
  });
  direct("sum_columns_f32", "16x784", 0, 4.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), y = std::vector<double>(kPixels)]() mutable {
      t.sum_columns_f32(SumKind::plain, a.data(), kPixels, 16, kPixels, y.data());
    };
  });
  direct("greatest_columns_f32", "16x784", 0, 4.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), y = Floats(kPixels)]() mutable {
      t.greatest_columns_f32(a.data(), kPixels, 16, kPixels, 1.0f, y.data());
    };
  });
  direct("normalize_f32", "784", 0, 16.0 * kPixels, [](const KernelTable& t) {
    return [&t, a = some(kPixels), b = some(kPixels), y = Floats(kPixels)]() mutable {
      t.normalize_f32(a.data(), kPixels, 0.1, 2.0, b.data(), b.data(), 1, y.data());
    };
  });
  direct("unary_f32", "12544/affine", 0, 8.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), y = Floats(kPixels * 16)]() mutable {
      t.unary_f32(UnaryKind::affine, a.data(), y.data(), kPixels * 16, 2.0f, 1.0f);
    };
  });
  direct("binary_f32", "12544/add", 0, 12.0 * kPixels * 16, [](const KernelTable& t) {
    return [&t, a = some(kPixels * 16), b = some(kPixels * 16), y = Floats(kPixels * 16)]() mutable {
      t.binary_f32(BinaryKind::add, a.data(), 1, b.data(), 1, y.data(), kPixels * 16);
    };
  });
  direct("read_peak_f32", "32KB", 0, 32768, [](const KernelTable& t) {
    return [&t, a = some(8192)] { benchmark::DoNotOptimize(t.read_peak_f32(a.data(), 8192)); };
  });
  for (const KernelTable* table : tables()) {
    register_one(std::string("fma_peak_f32__") + table->isa, [=](benchmark::State& state) {
      for (auto _ : state) benchmark::DoNotOptimize(table->fma_peak_f32(1000, 0.5f, 0.25f));
      state.counters["GFLOP/s"] =
          benchmark::Counter(2e-6 * kFmaPerIteration * table->vector, benchmark::Counter::kIsIterationInvariantRate);
    });
  }
}

const bool registered = [] {
  for (const auto& [inputs, outputs] : {std::pair{72, 24}, {24, 72}, {960, 240}, {240, 960}, {1024, 1000}}) {
    gemv(inputs, outputs);
  }
  tile("gemm_strided_f32", &KernelTable::gemm_strided_f32, 96, 96);
  tile("gemm_image_f32", &KernelTable::gemm_image_f32, kImageStep, 27);
  pairs();
  pixels("3x3_s1", &KernelTable::depthwise_pixels_3x3_s1_f32, 3, 1, 56, 128);
  pixels("3x3_s2", &KernelTable::depthwise_pixels_3x3_s2_f32, 3, 2, 56, 128);
  pixels("5x5_s1", &KernelTable::depthwise_pixels_5x5_s1_f32, 5, 1, 28, 240);
  pixels("5x5_s2", &KernelTable::depthwise_pixels_5x5_s2_f32, 5, 2, 28, 240);
  pixels("7x7_s1", &KernelTable::depthwise_pixels_7x7_s1_f32, 7, 1, 28, 240);
  pixels("7x7_s2", &KernelTable::depthwise_pixels_7x7_s2_f32, 7, 2, 28, 240);
  pixels("any", &KernelTable::depthwise_pixels_any_f32, 7, 1, 28, 240);
  grad("3x3", &KernelTable::depthwise_grad_3x3_f32, 3, 56);
  grad("5x5", &KernelTable::depthwise_grad_5x5_f32, 5, 28);
  grad("any", &KernelTable::depthwise_grad_any_f32, 7, 28);
  channels("shuffle", 28, 116, 116, [](int c) { return c % 2 * 58 + c / 2; });
  channels("split", 28, 116, 58, [](int c) { return c + 58; });
  channels("concat", 28, 116, 116, [](int c) { return (c + 58) % 116; });
  elementwise();
  return true;
}();

}  // namespace
}  // namespace sepconv::bench
