// Operators whose output has their input's shape: sum and product of two, activations, softmax, layer
// normalisation.
#include "ops/operators.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

namespace sepconv {
namespace {

class Elementwise : public RowOp {
 public:
  Elementwise(Shape shape, const char* name, const KernelTable& t) : table_(t) {
    kernel = std::string(name) + "_f32__" + t.isa;
    in = out = shape;
    parts = blocks_of(shape.c, t);
    macs = out.elements();
  }

 protected:
  std::int64_t row_floats() const { return std::int64_t{1} * out.w * table_.vector; }
  const KernelTable& table_;
};

class Add final : public Elementwise {
 public:
  Add(Shape shape, Activation activation, const KernelTable& t) : Elementwise(shape, "add", t), epilogue_(activation) {}

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        float* to = task.out.at(b, y);
        table_.add_f32(task.in.at(b, y), task.other.at(b, y), to, row_floats(), epilogue_.lo, epilogue_.hi);
        if (epilogue_.pass != Activation::none) table_.activate_f32(epilogue_.pass, to, to, row_floats());
      }
    }
  }

 private:
  Epilogue epilogue_;
};

class Mul final : public Elementwise {
 public:
  Mul(Shape shape, bool scales, Activation activation, const KernelTable& t)
      : Elementwise(shape, scales ? "scale" : "mul", t), epilogue_(activation), scales_(scales) {
    streams = true;
  }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        const float* const from = task.in.at(b, y);
        float* const to = task.out.at(b, y);
        if (scales_) {
          table_.scale_f32(from, task.other.at(b, 0), to, out.w, epilogue_.lo, epilogue_.hi);
        } else {
          table_.mul_f32(from, task.other.at(b, y), to, row_floats(), epilogue_.lo, epilogue_.hi);
        }
        if (epilogue_.pass != Activation::none) table_.activate_f32(epilogue_.pass, to, to, row_floats());
      }
    }
  }

 private:
  Epilogue epilogue_;
  bool scales_;
};

class PRelu final : public Elementwise {
 public:
  PRelu(Shape shape, const std::vector<float>& slopes, const KernelTable& t) : Elementwise(shape, "prelu", t), slopes_(slopes) {
    slopes_.resize(static_cast<std::size_t>(parts) * static_cast<std::size_t>(t.vector), 0.0f);
  }

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      const float* const slopes = slopes_.data() + std::ptrdiff_t{1} * b * table_.vector;
      for (int y = task.y0; y < task.y1; ++y) table_.prelu_f32(task.in.at(b, y), slopes, task.out.at(b, y), out.w);
    }
  }

 private:
  std::vector<float> slopes_;  // as many as all vectors have lanes
};

class Activate final : public Elementwise {
 public:
  Activate(Shape shape, Activation activation, const KernelTable& t)
      : Elementwise(shape, "activate", t), activation_(activation) {}

  void run(const RowTask& task) const noexcept override {
    for (int b = task.part0; b < task.part1; ++b) {
      for (int y = task.y0; y < task.y1; ++y) {
        table_.activate_f32(activation_, task.in.at(b, y), task.out.at(b, y), row_floats());
      }
    }
  }

 private:
  Activation activation_;
};

// Over the channels of each pixel, which are gathered from their planes first.
class OfPixels : public Elementwise {
 public:
  OfPixels(Shape shape, const char* name, const KernelTable& t) : Elementwise(shape, name, t) {
    blocks_ = parts;
    row_ = std::ptrdiff_t{1} * parts * t.vector;
    scratch_floats = 2 * static_cast<std::size_t>(row_);
    parts = 1;
  }

  void run(const RowTask& task) const noexcept final {
    const std::ptrdiff_t v = table_.vector;
    const std::size_t size = sizeof(float) * static_cast<std::size_t>(v);
    float *const from = task.scratch, *const to = from + row_;
    std::fill(to, to + row_, 0.0f);  // the lanes past the channels
    for (int y = task.y0; y < task.y1; ++y) {
      for (int x = 0; x < in.w; ++x) {
        for (int b = 0; b < blocks_; ++b) std::memcpy(from + b * v, task.in.at(b, y) + x * v, size);
        pixel(from, to);
        for (int b = 0; b < blocks_; ++b) std::memcpy(task.out.at(b, y) + x * v, to + b * v, size);
      }
    }
  }

 protected:
  virtual void pixel(const float* from, float* to) const noexcept = 0;

 private:
  int blocks_;
  std::ptrdiff_t row_;
};

class Softmax final : public OfPixels {
 public:
  Softmax(Shape shape, float beta, const KernelTable& t) : OfPixels(shape, "softmax", t), beta_(beta) {}

 protected:
  void pixel(const float* from, float* to) const noexcept override { table_.softmax_f32(from, to, in.c, beta_); }

 private:
  float beta_;
};

class Normalize final : public OfPixels {
 public:
  Normalize(Shape shape, std::shared_ptr<const LayerNorm> norm, const KernelTable& t)
      : OfPixels(shape, "layer_norm", t), norm_(std::move(norm)) {}

 protected:
  void pixel(const float* from, float* to) const noexcept override {
    const double mean = table_.sum_f32(SumKind::plain, from, in.c, 0.0) / in.c;
    const double variance = table_.sum_f32(SumKind::squares, from, in.c, mean) / in.c;
    const double factor = 1.0 / std::sqrt(variance + norm_->epsilon);
    table_.normalize_f32(from, in.c, mean, factor, norm_->scale.data(), norm_->bias.data(), 1, to);
  }

 private:
  std::shared_ptr<const LayerNorm> norm_;
};

}  // namespace

RowOpPtr make_add(Shape shape, Activation activation, const KernelTable& table) {
  return std::make_unique<Add>(shape, activation, table);
}

RowOpPtr make_mul(Shape shape, bool scales, Activation activation, const KernelTable& table) {
  return std::make_unique<Mul>(shape, scales, activation, table);
}

RowOpPtr make_activation(Shape shape, Activation activation, const KernelTable& table) {
  return std::make_unique<Activate>(shape, activation, table);
}

RowOpPtr make_prelu(Shape shape, const std::vector<float>& slopes, const KernelTable& table) {
  return std::make_unique<PRelu>(shape, slopes, table);
}

RowOpPtr make_layer_norm(Shape shape, std::shared_ptr<const LayerNorm> norm, const KernelTable& table) {
  return std::make_unique<Normalize>(shape, std::move(norm), table);
}

RowOpPtr make_softmax(Shape shape, float beta, const KernelTable& table) {
  return std::make_unique<Softmax>(shape, beta, table);
}

}  // namespace sepconv
