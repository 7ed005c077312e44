// Some output rows of a dense convolution as one product: the pixels that their windows meet are copied with their padding,
// channels in vectors as in a plan, and the runs of k lie in the copy.
//
// Rows of output that fill no tiles, as of 7 pixels, would leave half the registers idle, and meet all weights for it. Of such
// images each column of the window has a copy of its own, of the pixels that it meets alone (and each remainder of rows by the
// stride): so output rows follow each other, and tiles go on from one to the next.
#pragma once

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "ops/gemm_blocks.h"

namespace sepconv {

class ConvStrip {
 public:
  ConvStrip(const Shape& in, const Shape& out, const Window& w, const PackedGemm& packed, const KernelTable& t)
      : in_(in), window_(w), out_w_(out.w), vector_(t.vector), tile_rows_(t.gemm_rows[packed.vectors(0) - 1]),
        planes_(blocks_of(in.c, t)) {
    rows_ = most_rows(out.h, out.w);
    joined_ = w.kw == 1 && w.stride_w > 1;  // copies the fewest pixels as well
    if (!joined_ && packed.panels() > 1 && fills_tiles_better(rows_)) joined_ = shorten(out.h);
    std::vector<int> remainders;  // that rows of the window leave by the stride
    if (joined_) {
      for (int r = 0; r < w.kh; ++r) remainders.push_back(r * w.dilation_h % w.stride_h);
      std::sort(remainders.begin(), remainders.end());
      remainders.erase(std::unique(remainders.begin(), remainders.end()), remainders.end());
      for (const int q : remainders) {
        for (int s = 0; s < w.kw; ++s) copies_.push_back({q, s * w.dilation_w - w.padding.left});
      }
    } else {
      copies_.push_back({0, -w.padding.left});
    }
    const auto copy_of = [&](int r, int s) {
      return (std::lower_bound(remainders.begin(), remainders.end(), r * w.dilation_h % w.stride_h) - remainders.begin()) * w.kw + s;
    };
    row_step_ = joined_ ? w.stride_h : 1;
    column_step_ = joined_ ? w.stride_w : 1;
    columns_ = joined_ ? out.w : in.w + w.padding.left + w.padding.right;
    row_ = std::ptrdiff_t{1} * columns_ * vector_;
    plane_ = copied_rows(rows_) * row_;
    for (int r = 0; r < w.kh; ++r) {
      for (int s = 0; s < w.kw; ++s) {
        const std::ptrdiff_t tap = joined_ ? copy_of(r, s) * planes_ * plane_ + r * w.dilation_h / w.stride_h * row_
                                           : r * w.dilation_h * row_ + std::ptrdiff_t{1} * s * w.dilation_w * vector_;
        for (int b = 0; b < planes_; ++b) segments_.push_back({tap + b * plane_, std::min(vector_, in.c - b * vector_)});
      }
    }
    // Weights of more k would drive the copy out of a small L2, or each other where an L2 is shared.
    constexpr int kTogether = 512;
    int k = 0;
    for (int i = 0; i < static_cast<int>(segments_.size()); k += segments_[i++].count) {
      if (parts_.empty() || parts_.back().count >= kTogether) parts_.push_back({i, 0, k, 0});
      ++parts_.back().segments;
      parts_.back().count += segments_[i].count;
    }
  }

  // Of output in a strip: for so many pixels a panel of weights is used while in L1.
  static int most_rows(int out_h, int out_w) { return std::clamp(128 / out_w, 1, out_h); }

  int rows() const { return rows_; }  // of output in a strip, at most
  bool joined() const { return joined_; }
  int parts() const { return static_cast<int>(parts_.size()); }  // of k
  std::size_t floats() const { return copies_.size() * static_cast<std::size_t>(planes_ * plane_); }
  std::ptrdiff_t a_step() const { return std::ptrdiff_t{1} * window_.stride_w / column_step_ * vector_; }

  // Copies what output rows [y, y + rows) meet. row(b, i): channels of block b of row i's first pixel; `pixel`: floats from one
  // pixel to the next. `whole`: a block has V lanes in memory however few are channels.
  template <class Row>
  void copy(int y, int rows, std::ptrdiff_t pixel, bool whole, const Row& row, float* to) const {
    const int first = y * window_.stride_h - window_.padding.top;
    for (const Copy& copy : copies_) {
      for (int b = 0; b < planes_; ++b, to += plane_) {
        const int lanes = whole ? vector_ : std::min(vector_, in_.c - b * vector_);
        for (int i = 0; i < copied_rows(rows); ++i) {
          const int at = first + copy.row + i * row_step_;
          copy_row(at < 0 || at >= in_.h ? nullptr : row(b, at), pixel, copy.column, lanes, to + i * row_);
        }
      }
    }
  }

  // Panels [first, end) times the copy, of `rows` rows; `together`: their results follow each other, from row to row.
  // compute(g, panel, row, pixel, height, last) takes the g.tiles tiles of that height from that pixel of that row on, from g.b
  // on; `last`: no more k will come. With false it leaves off, and so does this.
  template <class Compute>
  bool multiply(const GemmTile& tile, const PackedGemm& packed, const float* copy, int rows, bool together, int first, int end,
                const Compute& compute) const {
    const int lines = joined_ && together ? 1 : rows;
    const Tiles tiles(joined_ && together ? rows * out_w_ : out_w_, tile_rows_);
    const int all = lines * tiles.count();
    for (int p = first; p < end; ++p) {
      const std::ptrdiff_t width = packed.vectors(p) * vector_;
      for (const Part& part : parts_) {
        const bool last = &part == &parts_.back();
        GemmTile g = tile;
        g.segments = segments_.data() + part.first;
        g.segment_count = part.segments;
        g.sums = part.k > 0;
        g.b = packed.panel(p) + (part.k > 0 ? (1 + part.k) * width : 0);
        if (!last) {
          g.lo = -__builtin_inff();
          g.hi = __builtin_inff();
          g.hard_swish = false;
        }
        const std::size_t bytes = sizeof(float) * part.count * width;
        const Prefetch prefetch = weight_prefetch(bytes, all, part.count);
        for (int line = 0; line < lines; ++line) {
          for (int i = 0; i < tiles.count(); i += g.tiles) {
            g.tiles = tiles.same_height(i, tiles.count()) - i;
            g.a = copy + line * (window_.stride_h / row_step_) * row_ + tiles.begin(i) * g.a_step;
            prefetch.set(g, reinterpret_cast<const char*>(g.b) + bytes, line * tiles.count() + i);
            if (!compute(g, p, line, tiles.begin(i), tiles.height(i), last)) return false;
          }
        }
      }
    }
    return true;
  }

 private:
  struct Copy {
    int row, column;  // of the image, which its first pixel is, from the strip's first row on
  };

  struct Part {
    int first, segments;  // its first segment, and how many it has
    int k, count;         // the first k, and how many
  };

  // Of each copy, for so many rows of output.
  int copied_rows(int rows) const {
    return (rows - 1) * (window_.stride_h / row_step_) + (window_.kh - 1) * window_.dilation_h / row_step_ + 1;
  }

  bool fills_tiles_better(int rows) const {
    const auto height = [&](int pixels) { return double{1} * pixels / ((pixels + tile_rows_ - 1) / tile_rows_); };
    return height(rows * out_w_) > 1.15 * height(out_w_);
  }

  // Takes fewer rows where so many copies would leave L2. False where it could not hold enough for tiles.
  bool shorten(int out_h) {
    const double row = double{sizeof(float)} * planes_ * vector_ * window_.kw * out_w_ * std::min(window_.kh, window_.stride_h);
    const double more = (window_.kh - 1.0) * window_.dilation_h / window_.stride_h;
    const double most = static_cast<double>(passed_block_bytes()) / row - more;
    if (most < 1) return false;
    const int rows = static_cast<int>(std::min<double>(rows_, most));
    if (rows < out_h && rows * out_w_ < 2 * tile_rows_) return false;
    if (!fills_tiles_better(rows)) return false;
    rows_ = rows;
    return true;
  }

  void copy_row(const float* from, std::ptrdiff_t pixel, int column, int lanes, float* to) const {
    const auto up = [&](int columns) { return columns <= 0 ? 0 : (columns - 1) / column_step_ + 1; };
    const int begin = from ? std::min(up(-column), columns_) : columns_;
    const int end = from ? std::clamp(up(in_.w - column), begin, columns_) : columns_;
    std::memset(to, 0, sizeof(float) * begin * vector_);
    std::memset(to + std::ptrdiff_t{1} * end * vector_, 0, sizeof(float) * (columns_ - end) * vector_);
    if (begin == end) return;
    from += (column + std::ptrdiff_t{1} * begin * column_step_) * pixel;
    to += std::ptrdiff_t{1} * begin * vector_;
    const std::ptrdiff_t step = pixel * column_step_;
    if (step == vector_ && lanes == vector_) {
      std::memcpy(to, from, sizeof(float) * (end - begin) * vector_);
    } else if (lanes == 16) {  // a call for each pixel would take longer than the copy
      for (int x = begin; x < end; ++x, from += step, to += 16) std::memcpy(to, from, 16 * sizeof(float));
    } else {
      for (int x = begin; x < end; ++x, from += step, to += vector_) std::copy_n(from, lanes, to);
    }
  }

  Shape in_;
  Window window_;
  int out_w_;
  int vector_, tile_rows_, planes_;
  int rows_;
  bool joined_;
  std::vector<Copy> copies_;
  int row_step_ = 1, column_step_ = 1;  // of the image, from one row and pixel of a copy to the next
  int columns_;
  std::ptrdiff_t row_, plane_;  // of a copy, in floats
  std::vector<Segment> segments_;
  std::vector<Part> parts_;  // of k, one after the other
};

// Whether rows would rather be gathered tap by tap: where their copy with its padding would be far larger than the image.
inline bool strip_worth_gathering(const Shape& in, const Shape& out, const Window& w, const KernelTable& t) {
  const double pixel = double{1} * blocks_of(in.c, t) * t.vector;
  const double rows = (ConvStrip::most_rows(out.h, out.w) - 1.0) * w.stride_h + (w.kh - 1.0) * w.dilation_h + 1;
  const double padded = rows * (double{1} * in.w + w.padding.left + w.padding.right) * pixel;
  return worth_gathering(padded, pixel * in.h * in.w, pixel * w.kh * w.kw);
}

// The strip of an NHWC image where its copy is better than to read the image where it lies, row by row: of weights that do not
// stay in L2 while all rows pass, or of rows that fill no tiles; and where it stays in L2 itself.
inline std::optional<ConvStrip> strip_of_image(const Shape& in, const Shape& out, const Window& w, const PackedGemm& packed,
                                               const KernelTable& t) {
  if (in.c < t.vector || strip_worth_gathering(in, out, w, t)) return {};
  ConvStrip strip(in, out, w, packed, t);
  if (!strip.joined() && packed.bytes() <= std::max(kResidentWeights, l2_bytes() / 2)) return {};
  if (strip.floats() > passed_block_bytes() / sizeof(float)) return {};
  return strip;
}

}  // namespace sepconv
