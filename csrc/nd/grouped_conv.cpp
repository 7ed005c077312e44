// Convolutions over any number of axes, in groups. A plan's are faster: these serve 3-D, many groups, and whatever else the
// layer list does not say.
//
// The weights of a group times a matrix with a row for each tap of each channel, whose columns are output pixels: so results
// go straight to their planes. That matrix is made for a block of pixels at a time, in panels: the input rows that the block
// meets are copied once a channel, with their padding, and taken apart by the remainder of the stride; then each tap's part
// of a row lies together, and is copied by whole vectors. What these write beyond its end comes right later.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "nd/operators.h"
#include "nd/pieces_of_product.h"
#include "ops/gemm_panels.h"
#include "runtime/scratch.h"

namespace sepconv::nd {
namespace {

constexpr std::int64_t kCopied = 8;              // floats at a time
constexpr std::int64_t kBlockFloats = 1 << 16;   // of a block's matrix, a quarter of a megabyte

// Some places of an input row, `stride` apart from `first` on, which may lie outside.
struct Strip {
  std::int64_t first, count;
  std::ptrdiff_t at;  // in a copied row
};

// The part of a strip that lies inside: from where in a plane, to where in the copied rows.
struct Inside {
  std::ptrdiff_t from, to;
  std::int64_t count;
};

// What a block's part of a row becomes in a panel.
struct Chunk {
  std::ptrdiff_t to, width;  // in the packed panels: the first of the weights' rows; floats from row to row
  std::int64_t count;
};

// The innermost axis of a block, from output x0 on: strips that all taps lie in.
class Columns {
 public:
  Columns(const Geometry& g, std::int64_t count) {
    const int axis = g.rank - 1;
    const std::int64_t stride = g.stride[axis], dilation = g.dilation[axis], kernel = g.kernel[axis];
    // A tap goes on in the strip of the last one with the same remainder, unless there is a gap between them.
    const std::int64_t period = stride / std::gcd(stride, dilation), further = dilation / (stride / period);
    for (std::int64_t tap = 0; tap < kernel; ++tap) {
      if (tap < period || further > count) {
        taps.push_back({static_cast<std::ptrdiff_t>(strips.size()), 0});
        strips.push_back({tap * dilation, count, 0});
        continue;
      }
      const Tap before = taps[static_cast<std::size_t>(tap - period)];
      taps.push_back({before.strip, before.shift + further});
      strips[static_cast<std::size_t>(before.strip)].count = before.shift + further + count;
    }
    for (Strip& strip : strips) {
      strip.at = floats;
      floats += strip.count;
    }
  }

  std::ptrdiff_t tap_at(std::int64_t tap) const {
    const auto [strip, shift] = taps[static_cast<std::size_t>(tap)];
    return strips[static_cast<std::size_t>(strip)].at + shift;
  }

  std::vector<Strip> strips;  // places of a row that begins with what tap 0 of the block's first column meets
  std::ptrdiff_t floats = 0;  // of a copied row

 private:
  struct Tap {
    std::ptrdiff_t strip;
    std::int64_t shift;
  };
  std::vector<Tap> taps;
};

// How an image's pixels are cut into blocks: parts of one row each, or some whole rows.
struct Blocks {
  Blocks(const Geometry& g, std::int64_t k, std::int64_t panel, std::int64_t parts) {
    width = g.out[g.rank - 1];
    rows = g.out_size() / width;
    const std::int64_t least = k < kBlockFloats / 16 ? 4 * panel : panel;
    std::int64_t pixels = std::max(kBlockFloats / k / panel * panel, least);
    pixels = std::min(pixels, std::max(least, (width * rows / parts + panel - 1) / panel * panel));
    own_rows = std::clamp<std::int64_t>(pixels / width, 1, rows);
    own_width = std::min(width, std::max(pixels, panel));
    across = (width + own_width - 1) / own_width;
  }
  std::int64_t count() const { return across * ((rows + own_rows - 1) / own_rows); }
  std::int64_t width, rows, own_rows, own_width, across;
};

// Makes the matrix of a block.
class Gatherer {
 public:
  Gatherer(const Geometry& g, const Blocks& blocks)
      : g_(g), columns_(g, blocks.own_width), inner_(g.kernel[g.rank - 1]), outer_(g.taps() / inner_) {
    const std::int64_t in_rows = g.in_size() / g.in[g.rank - 1], met = blocks.own_rows * outer_;
    // As many copied rows as there are input rows, or the block's windows have, and one of zeros.
    row_floats_ = static_cast<std::size_t>((std::min(met, in_rows) + 1) * columns_.floats + kCopied);
    const auto chunks = static_cast<std::size_t>(blocks.own_rows + blocks.own_rows * blocks.own_width);
    slots_.reserve(static_cast<std::size_t>(met) + 1);
    lines_.reserve(slots_.capacity());
    inside_.reserve(static_cast<std::size_t>(std::min(met, in_rows)) * columns_.strips.size());
    chunks_.reserve(chunks);
    sources_.reserve(chunks * static_cast<std::size_t>(outer_));
  }

  std::size_t row_floats() const { return row_floats_; }

  // The block of `rows` output rows from `row` on, each from column x0 on: `width` pixels. `copied`: row_floats() of them.
  void set(std::int64_t row, std::int64_t rows, std::int64_t x0, std::int64_t width, const PackedGemm& packed, int v,
           float* copied) {
    if (row == row_ && x0 == x0_) return;  // as for the image before
    row_ = row;
    x0_ = x0;
    std::fill_n(copied, row_floats_, 0.0f);
    find_rows(row, rows, x0);
    chunks_.clear();
    sources_.clear();
    const auto panel_floats = static_cast<std::int64_t>(packed.panel_bytes() / sizeof(float));
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t x = 0; x < width;) {
        const std::int64_t pixel = r * width + x;
        const int panel = static_cast<int>(std::min<std::int64_t>(pixel / v / packed.vectors(0), packed.panels() - 1));
        const std::int64_t panel_width = std::int64_t{1} * packed.vectors(panel) * v;
        const std::int64_t column = pixel - std::int64_t{1} * packed.first_block(panel) * v;
        const std::int64_t count = std::min(width - x, panel_width - column);
        chunks_.push_back({panel * panel_floats + 2 * panel_width + column, panel_width, count});
        for (std::int64_t tap = 0; tap < outer_; ++tap) {
          sources_.push_back(slots_[static_cast<std::size_t>(r * outer_ + tap)] + x);
        }
        x += count;
      }
    }
  }

  void make(const float* x, std::int64_t channels, const PackedGemm& packed, int v, float* copied, float* panels) const {
    const std::int64_t plane = g_.in_size(), stride = g_.stride[g_.rank - 1];
    std::int64_t row = 0;  // of the matrix
    for (std::int64_t c = 0; c < channels; ++c, x += plane) {
      for (const Inside& part : inside_) {
        float* const to = copied + part.to;
        if (stride == 1) {
          std::copy_n(x + part.from, part.count, to);
        } else {
          for (std::int64_t i = 0; i < part.count; ++i) to[i] = x[part.from + i * stride];
        }
      }
      for (std::int64_t outer = 0; outer < outer_; ++outer) {
        for (std::int64_t inner = 0; inner < inner_; ++inner, ++row) {
          const float* const from = copied + columns_.tap_at(inner);
          const std::ptrdiff_t* source = sources_.data() + outer;
          for (const Chunk& chunk : chunks_) {
            const float* const places = from + *source;
            source += outer_;
            float* const to = panels + chunk.to + row * chunk.width;
            for (std::int64_t i = 0; i < chunk.count; i += kCopied) std::memcpy(to + i, places + i, kCopied * sizeof(float));
          }
        }
      }
    }
    // Last, since what comes before a panel may have been written over: sums begin at 0, and the weights' biases meet ones.
    for (int p = 0; p < packed.panels(); ++p) {
      float* const head = panels + p * (packed.panel_bytes() / sizeof(float));
      const int width = packed.vectors(p) * v;
      std::fill(head, head + width, 0.0f);
      std::fill(head + width, head + 2 * width, 1.0f);
    }
  }

 private:
  // Which input rows the block meets, each once; what of them lies inside; and where each tap's are among the copies.
  void find_rows(std::int64_t row, std::int64_t rows, std::int64_t x0) {
    slots_.clear();
    for (std::int64_t r = row; r < row + rows; ++r) {
      for (std::int64_t tap = 0; tap < outer_; ++tap) slots_.push_back(line_of(r, tap));
    }
    lines_ = slots_;
    lines_.push_back(-1);  // of zeros
    std::sort(lines_.begin(), lines_.end());
    lines_.erase(std::unique(lines_.begin(), lines_.end()), lines_.end());
    for (std::int64_t& slot : slots_) {
      slot = (std::lower_bound(lines_.begin(), lines_.end(), slot) - lines_.begin()) * columns_.floats;
    }
    const int axis = g_.rank - 1;
    const std::int64_t in = g_.in[axis], stride = g_.stride[axis];
    inside_.clear();
    for (std::size_t i = 1; i < lines_.size(); ++i) {
      for (const Strip& strip : columns_.strips) {
        const std::int64_t first = x0 * stride - g_.pad[axis] + strip.first;
        const std::int64_t begin = first >= 0 ? 0 : (-first + stride - 1) / stride;
        const std::int64_t end = first >= in ? 0 : std::min((in - 1 - first) / stride + 1, strip.count);
        if (begin >= end) continue;
        inside_.push_back({lines_[i] * in + first + begin * stride,
                           static_cast<std::ptrdiff_t>(i) * columns_.floats + strip.at + begin, end - begin});
      }
    }
  }

  // The input row that a tap of the outer axes meets, -1 outside.
  std::int64_t line_of(std::int64_t row, std::int64_t tap) const {
    std::int64_t line = 0, size = 1;
    for (int i = g_.rank - 2; i >= 0; --i) {
      const std::int64_t at = row % g_.out[i] * g_.stride[i] - g_.pad[i] + tap % g_.kernel[i] * g_.dilation[i];
      row /= g_.out[i];
      tap /= g_.kernel[i];
      if (at < 0 || at >= g_.in[i]) return -1;
      line += at * size;
      size *= g_.in[i];
    }
    return line;
  }

  const Geometry& g_;
  Columns columns_;
  std::int64_t inner_, outer_;  // taps
  std::size_t row_floats_;
  std::int64_t row_ = -1, x0_ = -1;
  std::vector<std::int64_t> slots_, lines_;
  std::vector<Inside> inside_;
  std::vector<Chunk> chunks_;
  std::vector<std::ptrdiff_t> sources_;  // for each chunk and outer tap, in the copied rows
};

}  // namespace

void conv(const KernelTable& table, const float* x, std::int64_t n, std::int64_t channels, const float* weights,
          std::int64_t groups, std::int64_t outputs, const Geometry& g, float* y, int threads) {
  const std::int64_t k = 1 + channels * g.taps(), pixels = g.out_size(), images = n * groups;
  if (images * pixels == 0) return;
  const int used = threads_for(images * pixels * outputs * k / 16, threads);
  const std::int64_t panel = std::int64_t{1} * table.panel_vectors * table.vector;
  const std::int64_t wanted = used == 1 ? 1 : (4 * used + images - 1) / images;
  const Blocks blocks(g, k, panel, wanted);
  const WeightView most{nullptr, {}, {1, 1, static_cast<int>(k), static_cast<int>(blocks.own_rows * blocks.own_width)}};
  const PackedGemm largest(most, Affine{}, table);
  // Where there are few blocks, or much to do in one, output channels are shared as well.
  constexpr std::int64_t kMostMacs = 1 << 26, kFewOutputs = 32;
  const std::int64_t block_macs = k * blocks.own_rows * blocks.own_width, blocks_in_all = images * blocks.count();
  const std::int64_t parts = used == 1 ? 1 : std::max<std::int64_t>(1, 2 * used / blocks_in_all);
  const std::int64_t own_outputs =
      std::min(std::max((outputs + parts - 1) / parts, kFewOutputs), std::max(kMostMacs / block_macs, kFewOutputs));
  const std::int64_t shares = (outputs + own_outputs - 1) / own_outputs;
  const int workers = static_cast<int>(std::min<std::int64_t>(used, blocks_in_all * shares));
  std::vector<Gatherer> gatherers;
  gatherers.reserve(static_cast<std::size_t>(workers));
  for (int i = 0; i < workers; ++i) gatherers.emplace_back(g, blocks);
  const std::size_t panel_floats = (largest.bytes() / sizeof(float) + kCopied + 15) / 16 * 16;
  const std::size_t floats = panel_floats + (gatherers[0].row_floats() + 15) / 16 * 16;
  Scratch scratch(floats * static_cast<std::size_t>(workers));
  for_pieces(workers, blocks_in_all * shares, [&](std::int64_t begin, std::int64_t end, int thread) {
    float* const panels = scratch.floats() + floats * static_cast<std::size_t>(thread);
    Gatherer& gatherer = gatherers[static_cast<std::size_t>(thread)];
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t image = i / shares / blocks.count(), block = i / shares % blocks.count();  // image: of one group
      const std::int64_t row = block / blocks.across * blocks.own_rows, x0 = block % blocks.across * blocks.own_width;
      const std::int64_t rows = std::min(blocks.own_rows, blocks.rows - row);
      const std::int64_t width = std::min(blocks.own_width, blocks.width - x0);
      const WeightView view{nullptr, {}, {1, 1, static_cast<int>(k), static_cast<int>(rows * width)}};
      const PackedGemm packed(view, Affine{}, table);
      const std::int64_t output = i % shares * own_outputs;
      if (i == begin || output == 0) {
        float* const copied = panels + panel_floats;
        gatherer.set(row, rows, x0, width, packed, table.vector, copied);
        gatherer.make(x + image * channels * g.in_size(), channels, packed, table.vector, copied, panels);
      }
      const std::int64_t plane = image * outputs + output;
      const PanelProduct product{table, packed, static_cast<int>(std::min(own_outputs, outputs - output)), static_cast<int>(k),
                                 static_cast<int>(rows * width), weights + (image % groups * outputs + output) * k,
                                 static_cast<std::ptrdiff_t>(k), y + plane * pixels + row * blocks.width + x0,
                                 static_cast<std::ptrdiff_t>(pixels)};
      multiply_panels(product, 0, packed.panels(), panels, true, [](float*, std::int64_t, int) { return false; });
    }
  });
}

}  // namespace sepconv::nd
