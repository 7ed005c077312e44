// One GEMM tile: its operands, the oracle's answer, and the run of a kernel on it between guard pages.
#pragma once

#include <algorithm>
#include <functional>

#include "kernel_testing.h"
#include "ref/conv.h"
#include "ref/elementwise.h"

namespace sepconv::test {

// Where the elements of A lie.
struct GemmLayout {
  std::ptrdiff_t a_step;
  std::vector<Segment> segments;

  int depth() const {
    int k = 0;
    for (const Segment& s : segments) k += s.count;
    return k;
  }
  std::ptrdiff_t lowest() const {
    std::ptrdiff_t low = segments.front().offset;
    for (const Segment& s : segments) low = std::min(low, s.offset);
    return low;
  }
  // Floats from the lowest element of the first row to just after the highest of the last.
  std::size_t extent(int rows) const {
    std::ptrdiff_t high = 0;
    for (const Segment& s : segments) high = std::max(high, s.offset + s.count);
    return static_cast<std::size_t>((rows - 1) * a_step + high - lowest());
  }
  // Of element (row, k), from the lowest.
  std::size_t index(int row, int k) const {
    for (const Segment& s : segments) {
      if (k < s.count) return static_cast<std::size_t>(row * a_step + s.offset + k - lowest());
      k -= s.count;
    }
    throw std::out_of_range("k");
  }
};

struct GemmProblem {
  int rows, columns;
  GemmLayout layout;
  std::vector<float> a;         // memory from the layout's lowest element; what no row uses is NaN
  std::vector<float> b;         // [K][columns]
  std::vector<float> bias;      // [columns]
  std::vector<float> residual;  // [rows][columns], or empty
  Clamp clamp;
  bool hard_swish = false;
  int tiles = 1;                // of so many rows of the kernel's each
  int apart = 0;                // how many segments a first call has, from whose sums a second goes on; 0: one has all

  GemmProblem(int rows_, int columns_, GemmLayout layout_, bool with_residual, Random& random, Values values)
      : rows(rows_), columns(columns_), layout(std::move(layout_)), a(layout.extent(rows), kNaN) {
    const int depth = layout.depth();
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < depth; ++k) a[layout.index(i, k)] = draw(random, 1, values)[0];
    b = draw(random, static_cast<std::size_t>(depth) * columns, values);
    bias = draw(random, columns, values);
    if (with_residual) residual = draw(random, static_cast<std::size_t>(rows) * columns, values);
  }

  // Row i, columns [first, first + count).
  GemmProblem slice(int i, int first, int count) const {
    GemmProblem part = *this;
    part.rows = 1;
    part.columns = count;
    const auto begin = a.begin() + i * layout.a_step;
    part.a.assign(begin, begin + static_cast<std::ptrdiff_t>(layout.extent(1)));
    part.b.clear();
    for (int k = 0; k < layout.depth(); ++k)
      part.b.insert(part.b.end(), b.begin() + k * columns + first, b.begin() + k * columns + first + count);
    part.bias.assign(bias.begin() + first, bias.begin() + first + count);
    if (!residual.empty()) {
      const auto from = residual.begin() + i * columns + first;
      part.residual.assign(from, from + count);
    }
    return part;
  }

  // A pointwise convolution over a column of `rows` pixels; magnitude as in ref/conv.h.
  ref::Tensor oracle(std::vector<double>* magnitude) const {
    ref::Tensor x({rows, 1, layout.depth()});
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < x.shape.c; ++k) x(i, 0, k) = a[layout.index(i, k)];
    ref::Tensor out = ref::conv2d(x, widen(b), widen(bias), Window{}, magnitude);
    for (std::size_t i = 0; i < out.data.size(); ++i) {
      if (!residual.empty()) {
        out.data[i] += double{residual[i]};
        (*magnitude)[i] += std::abs(double{residual[i]});
      }
      out.data[i] = ref::clamp(out.data[i], clamp.lo, clamp.hi);
    }
    return out;
  }

  void launch(GemmKernel kernel, GemmTile tile) const {
    if (apart > 0) {
      GemmTile first = tile;
      first.segment_count = apart;
      first.residual = nullptr;
      first.lo = -kInf;
      first.hi = kInf;
      first.hard_swish = false;
      kernel(first);
      tile.b += columns;
      for (int i = 0; i < apart; ++i) tile.b += std::ptrdiff_t{1} * layout.segments[i].count * columns;
      tile.segments += apart;
      tile.segment_count -= apart;
      tile.sums = true;
    }
    kernel(tile);
  }

  // -> [rows][columns]. The planes of C lie `gap` floats apart; fails where the gap was written.
  std::vector<float> run(GemmKernel kernel, int lanes, Flush flush, int gap = 0) const {
    const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(rows) * lanes + gap;
    const std::ptrdiff_t residual_plane = plane + 2 * gap;
    // Of element (i, n) of a matrix in planes.
    const auto address = [&](std::ptrdiff_t of_plane, int i, int n) {
      return static_cast<std::size_t>(n / lanes * of_plane + i * lanes + n % lanes);
    };
    const std::size_t c_size = address(plane, rows - 1, columns - 1) + 1;

    std::vector<float> panel = bias;
    panel.insert(panel.end(), b.begin(), b.end());
    std::vector<float> addend(residual.empty() ? 0 : address(residual_plane, rows - 1, columns - 1) + 1, kNaN);
    for (int i = 0; i < static_cast<int>(residual.size()); ++i)
      addend[address(residual_plane, i / columns, i % columns)] = residual[i];

    GuardedBuffer<float> guarded_a(a, flush), guarded_b(panel, flush), guarded_residual(addend, flush);
    GuardedBuffer<Segment> guarded_segments(layout.segments, flush);
    GuardedBuffer<float> c = unwritten(c_size, flush);
    const GemmTile tile{.a = guarded_a.data() - layout.lowest(),
                        .a_step = layout.a_step,
                        .segments = guarded_segments.data(),
                        .segment_count = static_cast<int>(layout.segments.size()),
                        .b = guarded_b.data(),
                        .residual = residual.empty() ? nullptr : guarded_residual.data(),
                        .residual_plane = residual_plane,
                        .c = c.data(),
                        .c_plane = plane,
                        .c_step = lanes,
                        .residual_step = lanes,
                        .last_lanes = 0,
                        .lo = clamp.lo,
                        .hi = clamp.hi,
                        .hard_swish = hard_swish,
                        .tiles = tiles,
                        .prefetch = c.forbidden(),
                        .prefetch_step = 64};
    launch(kernel, tile);

    std::vector<float> out;
    std::vector<bool> described(c_size);
    for (int i = 0; i < rows; ++i)
      for (int n = 0; n < columns; ++n) {
        out.push_back(c.values()[address(plane, i, n)]);
        described[address(plane, i, n)] = true;
      }
    for (std::size_t i = 0; i < c_size; ++i)
      EXPECT_EQ(is_unwritten(c.values()[i]), !described[i]) << "element " << i << " of C";
    EXPECT_TRUE(c.slack_intact()) << "written before or after C";
    return out;
  }

  // -> [rows][columns - cut], by a strided kernel whose C is NHWC: rows of columns - cut floats, `gap` apart.
  std::vector<float> run_nhwc(GemmKernel kernel, int lanes, Flush flush, int gap, int cut) const {
    const int width = columns - cut;
    const std::ptrdiff_t step = width + gap, residual_step = step + gap;
    std::vector<float> panel = bias;
    panel.insert(panel.end(), b.begin(), b.end());
    std::vector<float> addend(residual.empty() ? 0 : (rows - 1) * residual_step + width, kNaN);
    for (int i = 0; !residual.empty() && i < rows; ++i)
      for (int n = 0; n < width; ++n) addend[i * residual_step + n] = residual[i * columns + n];
    GuardedBuffer<float> guarded_a(a, flush), guarded_b(panel, flush), guarded_residual(addend, flush);
    GuardedBuffer<float> c = unwritten((rows - 1) * step + width, flush);
    launch(kernel, {.a = guarded_a.data() - layout.lowest(),
            .a_step = layout.a_step,
            .segments = layout.segments.data(),
            .segment_count = static_cast<int>(layout.segments.size()),
            .b = guarded_b.data(),
            .residual = residual.empty() ? nullptr : guarded_residual.data(),
            .residual_plane = lanes,
            .c = c.data(),
            .c_plane = lanes,
            .c_step = step,
            .residual_step = residual_step,
            .last_lanes = width % lanes,
            .lo = clamp.lo,
            .hi = clamp.hi,
            .tiles = tiles,
            .prefetch = c.forbidden(),
            .prefetch_step = 64});
    std::vector<float> out;
    for (std::size_t i = 0; i < c.size(); ++i) {
      const bool described = static_cast<std::ptrdiff_t>(i) % step < width;
      EXPECT_EQ(is_unwritten(c.values()[i]), !described) << "element " << i << " of C";
      if (described) out.push_back(c.values()[i]);
    }
    EXPECT_TRUE(c.slack_intact()) << "written before or after C";
    return out;
  }

  // Runs the kernel and holds it against the oracle: exactly where values are integers.
  void check(GemmKernel kernel, int lanes, Flush flush, int gap, Values values = Values::real) const {
    std::vector<double> magnitude;
    const ref::Tensor expected = oracle(&magnitude);
    const std::vector<float> actual = run(kernel, lanes, flush, gap);
    const int products = layout.depth();
    for (std::size_t i = 0; i < actual.size(); ++i) {
      const double bound = values == Values::integer ? 0.0 : sum_bound(expected.data[i], products, magnitude[i]);
      ASSERT_TRUE(close(expected.data[i], actual[i], bound))
          << "row " << i / columns << ", column " << i % columns << ", K = " << products
          << ", a_step = " << layout.a_step << ", segments = " << layout.segments.size();
    }
  }
};

}  // namespace sepconv::test
