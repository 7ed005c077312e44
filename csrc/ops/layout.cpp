// Operators that move elements: between NHWC and blocks of channels, zero padding, another shape.
#include <cstring>

#include "base/fp_env.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

class FromNhwc final : public RowOp {
 public:
  FromNhwc(Shape shape, bool flush, const KernelTable& t) : v_(t.vector), flush_(flush) {
    kernel = "from_nhwc";
    in = out = shape;
    parts = blocks_of(shape.c, t);
  }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      const int lanes = std::min(v_, in.c - b * v_);
      for (int y = task.y0; y < task.y1; ++y) {
        const float* from = task.in.at(0, y) + b * v_;
        float* to = task.out.at(b, y);
        for (int x = 0; x < in.w; ++x, from += in.c, to += v_) {
          for (int lane = 0; lane < v_; ++lane) to[lane] = lane < lanes ? from[lane] : 0.0f;
        }
        if (flush_) {
          float* const row = task.out.at(b, y);
          for (int i = 0; i < in.w * v_; ++i) row[i] = without_denormal(row[i]);
        }
      }
    }
  }

 private:
  int v_;
  bool flush_;
};

class ToNhwc final : public RowOp {
 public:
  ToNhwc(Shape shape, const KernelTable& t) : v_(t.vector) {
    kernel = "to_nhwc";
    in = out = shape;
    parts = blocks_of(shape.c, t);
  }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      const int lanes = std::min(v_, in.c - b * v_);
      for (int y = task.y0; y < task.y1; ++y) {
        const float* from = task.in.at(b, y);
        float* to = task.out.at(0, y) + b * v_;
        for (int x = 0; x < in.w; ++x, from += v_, to += in.c) std::memcpy(to, from, sizeof(float) * lanes);
      }
    }
  }

 private:
  int v_;
};

class Pad final : public RowOp {
 public:
  Pad(Shape shape, const Padding& p, const KernelTable& t) : v_(t.vector) {
    kernel = "pad";
    in = shape;
    out = {in.h + p.top + p.bottom, in.w + p.left + p.right, in.c};
    window.padding = p;
    parts = blocks_of(in.c, t);
  }

  void run(const RowTask& task) const noexcept override {
    const Padding& p = window.padding;
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        float* to = task.out.at(b, y);
        std::memset(to, 0, sizeof(float) * out.w * v_);
        const int from = y - p.top;
        if (from >= 0 && from < in.h) std::memcpy(to + p.left * v_, task.in.at(b, from), sizeof(float) * in.w * v_);
      }
    }
  }

 private:
  int v_;
};

// Pixels repeated: row y is row ⌊y·in.h/out.h⌋ of the input, columns alike.
class Upsample final : public RowOp {
 public:
  Upsample(Shape shape, int height, int width, const KernelTable& t) : v_(t.vector) {
    kernel = "upsample";
    in = shape;
    out = {height, width, in.c};
    parts = blocks_of(in.c, t);
    macs = out.elements();
  }

  RowRange input_rows(int y0, int y1) const override { return {row(y0), row(y1 - 1) + 1}; }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        float* to = task.out.at(b, y);
        if (y > task.y0 && row(y) == row(y - 1)) {
          std::memcpy(to, task.out.at(b, y - 1), sizeof(float) * out.w * v_);
          continue;
        }
        const float* const from = task.in.at(b, row(y));
        std::int64_t column = 0;  // x·in.w/out.w as whole part and rest
        for (int x = 0, rest = 0; x < out.w; ++x, to += v_) {
          std::memcpy(to, from + column * v_, sizeof(float) * v_);
          for (rest += in.w; rest >= out.w; rest -= out.w) ++column;
        }
      }
    }
  }

 private:
  int row(int y) const { return static_cast<int>(std::int64_t{1} * y * in.h / out.h); }

  int v_;
};

class Reshape final : public RowOp {
 public:
  Reshape(Shape from, Shape to, const KernelTable& t) : v_(t.vector) {
    kernel = "reshape";
    in = from;
    out = to;
  }

  RowRange input_rows(int, int) const override { return {0, in.h}; }

  void run(const RowTask& task) const noexcept override {
    const std::int64_t row = std::int64_t{1} * out.w * out.c;
    for (int y = task.y0; y < task.y1; ++y) {
      for (std::int64_t i = 0; i < row; ++i) {
        const std::int64_t n = y * row + i;
        const int c = static_cast<int>(n % in.c), to_c = static_cast<int>(i % out.c);
        const std::int64_t pixel = n / in.c;
        const float x = task.in.at(c / v_, static_cast<int>(pixel / in.w))[pixel % in.w * v_ + c % v_];
        task.out.at(to_c / v_, y)[i / out.c * v_ + to_c % v_] = x;
      }
    }
  }

 private:
  int v_;
};

}  // namespace

RowOpPtr make_from_nhwc(Shape shape, bool flush, const KernelTable& table) {
  return std::make_unique<FromNhwc>(shape, flush, table);
}

RowOpPtr make_to_nhwc(Shape shape, const KernelTable& table) { return std::make_unique<ToNhwc>(shape, table); }

RowOpPtr make_pad(Shape in, const Padding& padding, const KernelTable& table) {
  return std::make_unique<Pad>(in, padding, table);
}

RowOpPtr make_upsample(Shape in, int height, int width, const KernelTable& table) {
  return std::make_unique<Upsample>(in, height, width, table);
}

RowOpPtr make_reshape(Shape in, Shape out, const KernelTable& table) { return std::make_unique<Reshape>(in, out, table); }

}  // namespace sepconv
