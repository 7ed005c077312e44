#include "ref/channels.h"

namespace sepconv::ref {

Tensor concat(const std::vector<Tensor>& inputs) {
  require(!inputs.empty(), "inputs is empty, which must hold a tensor or more");
  Shape shape = inputs[0].shape;
  for (std::size_t i = 1; i < inputs.size(); ++i) {
    require(inputs[i].shape.h == shape.h && inputs[i].shape.w == shape.w,
            "inputs[" + std::to_string(i) + "] has another height or width, which must be those of the first");
    shape.c += inputs[i].shape.c;
  }
  Tensor out(shape);
  for (int y = 0; y < shape.h; ++y)
    for (int col = 0; col < shape.w; ++col) {
      int c = 0;
      for (const Tensor& x : inputs)
        for (int i = 0; i < x.shape.c; ++i) out(y, col, c++) = x(y, col, i);
    }
  return out;
}

Tensor channel_slice(const Tensor& x, int begin, int end) {
  require(begin >= 0 && begin < end && end <= x.shape.c,
          "begin, end is " + std::to_string(begin) + ", " + std::to_string(end) + ", which must be within the " +
              std::to_string(x.shape.c) + " channels");
  Tensor out({x.shape.h, x.shape.w, end - begin});
  for (int y = 0; y < out.shape.h; ++y)
    for (int col = 0; col < out.shape.w; ++col)
      for (int c = 0; c < out.shape.c; ++c) out(y, col, c) = x(y, col, begin + c);
  return out;
}

Tensor channel_shuffle(const Tensor& x, int groups) {
  require(groups > 0 && x.shape.c % groups == 0,
          "groups is " + std::to_string(groups) + ", which must divide the " + std::to_string(x.shape.c) + " channels");
  const int size = x.shape.c / groups;
  Tensor out(x.shape);
  for (int y = 0; y < x.shape.h; ++y)
    for (int col = 0; col < x.shape.w; ++col)
      for (int g = 0; g < groups; ++g)
        for (int j = 0; j < size; ++j) out(y, col, j * groups + g) = x(y, col, g * size + j);
  return out;
}

Tensor upsample(const Tensor& x, int height, int width) {
  require(height > 0 && width > 0, "height, width is below 1, which must be 1 or more");
  Tensor out({height, width, x.shape.c});
  for (int y = 0; y < height; ++y)
    for (int col = 0; col < width; ++col)
      for (int c = 0; c < x.shape.c; ++c)
        out(y, col, c) = x(static_cast<int>(std::int64_t{1} * y * x.shape.h / height),
                           static_cast<int>(std::int64_t{1} * col * x.shape.w / width), c);
  return out;
}

}  // namespace sepconv::ref
