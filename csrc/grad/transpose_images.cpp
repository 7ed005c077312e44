#include "grad/grad.h"
#include "grad/pieces.h"

namespace sepconv {

constexpr std::int64_t kRows = 64;  // a piece

void transpose_images(const float* in, float* out, std::int64_t images, std::int64_t rows, std::int64_t columns, int threads,
                      const KernelTable& table) {
  const std::int64_t strips = (rows + kRows - 1) / kRows;
  for_each_piece(images * strips, threads, [&](std::int64_t piece, int, const Stop&) {
    const std::int64_t image = piece / strips * rows * columns, row = piece % strips * kRows;
    table.transpose_f32(in + image + row * columns, columns, out + image + row, rows, std::min(kRows, rows - row), columns);
  });
}

}  // namespace sepconv
