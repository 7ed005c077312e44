// Operators whose output has their input's shape: sum and product of two, activation, softmax.
#include "ops/operators.h"

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
class Softmax final : public Elementwise {
 public:
  Softmax(Shape shape, float beta, const KernelTable& t) : Elementwise(shape, "softmax", t), beta_(beta) {
    parts = 1;
    scratch_floats = static_cast<std::size_t>(shape.c);
  }

  void run(const RowTask& task) const noexcept override {
    const int v = table_.vector;
    float* const row = task.scratch;
    for (int y = task.y0; y < task.y1; ++y) {
      for (int x = 0; x < in.w; ++x) {
        for (int c = 0; c < in.c; ++c) row[c] = task.in.at(c / v, y)[x * v + c % v];
        table_.softmax_f32(row, row, in.c, beta_);
        for (int c = 0; c < in.c; ++c) task.out.at(c / v, y)[x * v + c % v] = row[c];
      }
    }
  }

 private:
  float beta_;
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

RowOpPtr make_softmax(Shape shape, float beta, const KernelTable& table) {
  return std::make_unique<Softmax>(shape, beta, table);
}

}  // namespace sepconv
