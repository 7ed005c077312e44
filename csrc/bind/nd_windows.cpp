// The N-d operators with sliding windows: every size is checked before one moves.
#include <optional>

#include "bind/nd.h"

namespace sepconv::bind {
namespace {

struct Windows {
  nd::Geometry g;
  std::array<std::int64_t, nd::kMaxRank> end{};  // padding after
};

// Every size of a sliding window over `in`, checked; out is what the caller expects.
Windows windows(const Sizes& in, const Sizes& out, const Sizes& kernel, const Sizes& stride, const Sizes& begin,
                const Sizes& end, const Sizes& dilation) {
  const std::size_t rank = in.size();
  if (rank < 1 || rank > nd::kMaxRank - 2) fail("there must be between 1 and 8 axes of space");
  for (const Sizes* sizes : {&out, &kernel, &stride, &begin, &end, &dilation}) {
    if (sizes->size() != rank) fail("each of out, kernel, stride, padding and dilation must have a number for each axis");
  }
  Windows w;
  w.g.rank = static_cast<int>(rank);
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  for (std::size_t i = 0; i < rank; ++i) {
    for (const std::int64_t size : {in[i], out[i], kernel[i], stride[i], dilation[i]}) {
      if (size < 1 || size >= kMost) fail("sizes, strides and dilations must be between 1 and 2^31");
    }
    if (begin[i] <= -kMost || end[i] <= -kMost || begin[i] >= kMost || end[i] >= kMost) fail("padding must be below 2^31");
    w.g.in[i] = in[i];
    w.g.out[i] = out[i];
    w.g.kernel[i] = kernel[i];
    w.g.stride[i] = stride[i];
    w.g.pad[i] = begin[i];
    w.g.dilation[i] = dilation[i];
    w.end[i] = end[i];
  }
  if (std::max({w.g.in_size(), w.g.out_size(), w.g.taps()}) >= kMost) fail("an image must have less than 2^31 elements");
  return w;
}

Sizes space_of(const Floats& x) { return {x.shape() + 2, x.shape() + x.ndim()}; }

std::vector<const nd::PackedMatrix*> pointers(const std::vector<MatrixPtr>& groups) {
  if (groups.empty()) fail("there must be at least one group");
  std::vector<const nd::PackedMatrix*> result;
  for (const MatrixPtr& group : groups) {
    if (group->k() != groups[0]->k() || group->n() != groups[0]->n()) fail("all groups must be of one size");
    result.push_back(group.get());
  }
  return result;
}

Floats conv(const Floats& x, const Floats& weights, std::int64_t groups, const Sizes& out, const Sizes& kernel,
            const Sizes& stride, const Sizes& begin, const Sizes& end, const Sizes& dilation, int threads) {
  if (x.ndim() < 3) fail("x must be [n, c, space...]");
  const Windows w = windows(space_of(x), out, kernel, stride, begin, end, dilation);
  if (groups < 1 || weights.ndim() != 2) fail("groups must be at least 1, and weights [outputs, 1 + inputs]");
  const std::int64_t channels = x.shape(1) / groups, outputs = weights.shape(0) / groups, taps = w.g.taps();
  constexpr std::int64_t kMost = 1 << 26;
  if (channels < 1 || outputs < 1 || taps > kMost / channels || outputs > kMost) {
    fail("inputs and outputs of a group must be between 1 and 2^26");
  }
  if (channels * groups != x.shape(1) || outputs * groups != weights.shape(0) || weights.shape(1) != 1 + channels * taps) {
    fail("the weights do not fit the channels");
  }
  Sizes shape{x.shape(0), groups * outputs};
  shape.insert(shape.end(), out.begin(), out.end());
  Floats y = floats(shape);
  float* const to = y.mutable_data();
  check_threads(threads);
  compute([&] { nd::conv(kernels(), x.data(), x.shape(0), channels, weights.data(), groups, outputs, w.g, to, threads); });
  return y;
}

Floats conv_transpose(const Floats& x, const std::vector<MatrixPtr>& groups, const std::optional<Floats>& bias, const Sizes& in,
                      const Sizes& out, const Sizes& kernel, const Sizes& stride, const Sizes& begin, const Sizes& end,
                      const Sizes& dilation, int threads) {
  const Windows w = windows(in, out, kernel, stride, begin, end, dilation);
  const auto matrices = pointers(groups);
  const auto count = static_cast<std::int64_t>(groups.size());
  if (x.ndim() != 4 || x.shape(1) != count || x.shape(2) != w.g.in_size() || x.shape(3) != groups[0]->k()) {
    fail("x must be [n, groups, pixels, channels of a group]");
  }
  const std::int64_t outputs = groups[0]->n() / w.g.taps();
  if (outputs * w.g.taps() != groups[0]->n()) fail("the weights do not fit the kernel");
  if (bias && bias->size() != outputs * count) fail("bias must have an element for each output channel");
  Sizes shape{x.shape(0), count * outputs};
  shape.insert(shape.end(), out.begin(), out.end());
  Floats y = floats(shape);
  float* const to = y.mutable_data();
  check_threads(threads);
  compute([&] {
    nd::conv_transpose(x.data(), x.shape(0), matrices, outputs, bias ? bias->data() : nullptr, w.g, to, threads);
  });
  return y;
}

// Each window must hold at least one element of the image, unless it is summed up: the caller sees to it.
py::object pool(const std::string& kind, const py::array& x, const Sizes& out, const Sizes& kernel, const Sizes& stride,
                const Sizes& begin, const Sizes& end, const Sizes& dilation, bool with_indices, int threads) {
  check_dense(x);
  if (x.ndim() < 3) fail("x must be [n, c, space...]");
  const Sizes in(x.shape() + 2, x.shape() + x.ndim());
  const Windows w = windows(in, out, kernel, stride, begin, end, dilation);
  for (std::size_t i = 0; i < in.size(); ++i) {
    const bool before = begin[i] < 0;
    if (before || end[i] < 0) fail(std::string(before ? "begin" : "end") + " must be at least 0: a pooling's padding");
  }
  for (std::size_t i = 0; kind != "sum" && i < in.size(); ++i) {
    const auto has_tap = [&](std::int64_t o) {
      const std::int64_t first = o * stride[i] - begin[i];
      const std::int64_t skipped = first >= 0 ? 0 : (-first + dilation[i] - 1) / dilation[i];
      return skipped < kernel[i] && first + skipped * dilation[i] < in[i];
    };
    for (std::int64_t o = 0; o < out[i]; ++o) {
      if (!has_tap(o)) fail("a window lies wholly in the padding");
    }
  }
  Sizes shape{x.shape(0), x.shape(1)};
  shape.insert(shape.end(), out.begin(), out.end());
  py::array y = empty(x.dtype(), shape);
  char* const to = bytes_of(y);
  const std::int64_t planes = x.shape(0) * x.shape(1);
  const nd::Type type = type_of(x.dtype());
  check_threads(threads);
  if (kind == "max" && !with_indices && (type == nd::Type::i8 || type == nd::Type::u8)) {
    const auto run = [&](auto element) {
      using T = decltype(element);
      nd::max_pool_integers(static_cast<const T*>(x.data()), planes, w.g, reinterpret_cast<T*>(to), threads);
    };
    compute([&] { type == nd::Type::i8 ? run(std::int8_t{}) : run(std::uint8_t{}); });
    return y;
  }
  if (type != nd::Type::f32) fail("pooling needs float32 (a maximum also int8 or uint8)");
  if (kind != "max" && kind != "average" && kind != "average_padded" && kind != "sum") {
    fail("kind must be max, average, average_padded or sum");
  }
  const nd::PoolKind pooling = kind == "max" ? nd::PoolKind::max
                               : kind == "average" ? nd::PoolKind::average
                               : kind == "sum"     ? nd::PoolKind::sum
                                                   : nd::PoolKind::average_padded;
  std::optional<py::array> indices;
  if (with_indices) indices = empty(py::dtype::of<std::int64_t>(), shape);
  auto* const places = indices ? reinterpret_cast<std::int64_t*>(bytes_of(*indices)) : nullptr;
  compute([&] {
    nd::pool(pooling, static_cast<const float*>(x.data()), planes, w.g, w.end, reinterpret_cast<float*>(to), places, threads);
  });
  if (indices) return py::make_tuple(y, *indices);
  return y;
}

}  // namespace

void add_nd_windows(py::module_& m) {
  using py::arg;
  m.def("conv", &conv, arg("x"), arg("weights"), arg("groups"), arg("out"), arg("kernel"), arg("stride"), arg("begin"),
        arg("end"), arg("dilation"), arg("threads"));
  m.def("conv_transpose", &conv_transpose, arg("x"), arg("groups"), arg("bias"), arg("in_"), arg("out"), arg("kernel"),
        arg("stride"), arg("begin"), arg("end"), arg("dilation"), arg("threads"));
  m.def("pool", &pool, arg("kind"), arg("x"), arg("out"), arg("kernel"), arg("stride"), arg("begin"), arg("end"),
        arg("dilation"), arg("with_indices"), arg("threads"));
}

}  // namespace sepconv::bind
