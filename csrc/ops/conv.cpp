// Dense convolution as an implicit GEMM, strip after strip of rows: k runs over (row, column, channel) of the window.
#include "ops/conv_strip.h"
#include "ops/operators.h"

namespace sepconv {
namespace {

class Conv final : public GemmOp {
 public:
  // `image`: of an NHWC image.
  Conv(Shape shape, const Window& w, std::shared_ptr<const PackedGemm> packed, int outputs, Activation activation,
       ConvStrip strip, bool image, const KernelTable& t)
      : GemmOp("conv", shape, w, std::move(packed), outputs, activation, t), strip_(std::move(strip)), image_(image) {
    split = outweigh(weight_bytes, static_cast<double>(in.elements())) ? Split::channels : Split::rows;
    few_pieces = split == Split::rows && weight_bytes > kResidentWeights;
    scratch_floats = strip_.floats();
  }

  void run(const RowTask& task) const noexcept override {
    const GemmTile g = tile_of(task, nullptr, 0, strip_.a_step());
    const auto row = [&](int b, int y) { return image_ ? task.in.at(0, y) + b * table_.vector : task.in.at(b, y); };
    for (int y = task.y0; y < task.y1; y += strip_.rows()) {
      const int rows = std::min(strip_.rows(), task.y1 - y);
      strip_.copy(y, rows, image_ ? in.c : table_.vector, !image_, row, task.scratch);
      const bool together = follow(task.out, y, rows) && (!task.other.data || follow(task.other, y, rows));
      const auto compute = [&](GemmTile& tile, int p, int line, int pixel, int height, bool last) {
        const std::ptrdiff_t to = std::ptrdiff_t{1} * pixel * table_.vector;
        const float* const residual = last && task.other.data ? task.other.at(0, y + line) + to : nullptr;
        multiply_part(tile, task, p, height, task.out.at(0, y + line) + to, residual);
        if (last) activate(tile, p, height);
        return true;
      };
      strip_.multiply(g, *packed_, task.scratch, rows, together, task.part0, task.part1, compute);
    }
  }

 private:
  // Whether these output rows lie one after the other.
  template <class T>
  bool follow(const BasicRowView<T>& view, int y, int rows) const {
    return view.row == std::ptrdiff_t{1} * out.w * table_.vector && y % view.ring + rows <= view.ring;
  }

  ConvStrip strip_;
  bool image_;
};

}  // namespace

RowOpPtr make_conv(Shape in, const Window& window, std::shared_ptr<const PackedGemm> packed, int outputs,
                   Activation activation, bool image, const KernelTable& table) {
  const Shape out{window.out_h(in.h), window.out_w(in.w), outputs};
  const auto conv = [&](ConvStrip strip) {
    return std::make_unique<Conv>(in, window, packed, outputs, activation, std::move(strip), image, table);
  };
  if (image) {
    std::optional<ConvStrip> strip = strip_of_image(in, out, window, *packed, table);
    if (strip) return conv(std::move(*strip));
    return make_image_conv(in, window, std::move(packed), outputs, activation, table);
  }
  if (strip_worth_gathering(in, out, window, table)) {
    return make_gathered_conv(in, window, std::move(packed), outputs, activation, false, table);
  }
  return conv(ConvStrip(in, out, window, *packed, table));
}

}  // namespace sepconv
