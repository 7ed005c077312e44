// The operators that take anyone's arrays, and gradients, on hostile arguments. Weights and images lie in memory of just
// their reach, in any order and direction of their axes, with gaps or repeated; results in memory of which nothing but the
// result may change. What the checks let through must run, to the same bits on three threads.
#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <vector>

#include "cpu/features.h"
#include "eager/block.h"
#include "eager/check.h"
#include "grad/grad.h"
#include "fuzzing.h"

namespace sepconv {
namespace {

const KernelTable& table_of(Bytes& in) {
  static const std::vector<std::string> isas = supported_isas();
  return kernels(isas[in.byte() % isas.size()]);
}

void fill(std::vector<float>& values, unsigned seed) {
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 7 + seed) % 13) / 8 - 0.75f;
}

// An array with memory of its own: axes in a drawn order in memory, some of them backwards, with gaps, or (where it is only
// read) repeated.
struct Strided {
  std::vector<float> values;
  std::array<std::ptrdiff_t, 4> strides{};
  std::ptrdiff_t first = 0;

  // Dims of at least 0, whose product is affordable.
  Strided(Bytes& in, const std::array<std::int64_t, 4>& dims, bool read) {
    static constexpr int kOrders[][4] = {{0, 1, 2, 3}, {0, 3, 1, 2}, {3, 2, 1, 0}, {1, 0, 2, 3}, {2, 3, 0, 1}, {0, 2, 1, 3}};
    const auto& order = kOrders[in.byte() % 6];
    const unsigned how = in.byte();
    std::ptrdiff_t step = how % 16 == 15 ? 2 : 1;
    for (int i = 3; i >= 0; --i) {
      const int axis = order[i];
      const bool repeated = read && how % 8 == 6 && axis == static_cast<int>(how >> 6);
      strides[axis] = repeated ? 0 : step;
      if (!repeated) step *= std::max<std::int64_t>(dims[axis], 1) + (how % 8 == 7 && i == 2 ? 3 : 0);
      if (how % 8 == 5 && (how >> 4 >> axis & 1)) {
        first += strides[axis] * (dims[axis] - 1);
        strides[axis] = -strides[axis];
      }
    }
    std::ptrdiff_t last = 0;
    bool empty = false;
    for (int i = 0; i < 4; ++i) {
      last += std::abs(strides[i]) * (dims[i] - 1);
      empty |= dims[i] == 0;
    }
    values.resize(empty ? 0 : last + 1);
    if (empty) first = 0;
  }

  float* data() { return values.data() + first; }

  template <class T>
  BasicPixels<T> pixels(int channels) {
    return {data(), strides[0], strides[1], strides[2], channels == 1 ? 1 : strides[3]};
  }
};

Window draw_window(Bytes& in, int kh, int kw, bool plain) {
  Window w{.kh = kh, .kw = kw};
  if (plain && in.byte() < 245) return w;
  const unsigned how = in.byte();
  w.stride_h = in.extent(3);
  w.stride_w = how % 4 ? w.stride_h : in.extent(3);
  if (how % 8 == 0) w.dilation_h = in.extent(3), w.dilation_w = in.extent(3);
  if (how % 2) w.padding = in.padding();
  else if (how % 16 < 12) w.padding = {kh / 2, kh / 2, kw / 2, kw / 2};
  return w;
}

// Weights that the checks took, or nullptr where packing them would be too much work.
std::shared_ptr<const EagerWeights> draw_weights(Bytes& in, WeightKind kind, int channels, std::int64_t pixels,
                                                 const KernelTable& table) {
  const unsigned how = in.byte();
  const bool depthwise = kind == WeightKind::depthwise;
  std::array<std::int64_t, 4> dims{1, 1, channels, 1};
  std::int64_t groups = 1;
  if (kind != WeightKind::pointwise || how == 255) {
    static constexpr int kKernels[] = {3, 3, 5, 1, 2, 7};
    dims[0] = how % 8 < 6 ? kKernels[how % 8] : in.extent(5);
    dims[1] = how % 8 < 6 ? kKernels[how % 8] : in.extent(5);
  }
  if (depthwise) {
    dims[2] = std::int64_t{channels} * (how % 16 == 9 ? in.size(3) : 1) + (how == 254);
  } else {
    dims[3] = in.size(how % 16 ? 20 : 70);
    if (kind == WeightKind::dense && how % 8 == 3) {
      groups = in.extent(4);
      if (how % 64 < 56 && groups > 0) {  // mostly such as fit
        dims[2] = std::max<std::int64_t>(channels / groups, 1);
        dims[3] = std::min<std::int64_t>(dims[3], 20) * groups;
      }
    }
    dims[2] += how == 254;
  }
  if (how == 253) dims[in.byte() % 4] = in.size(3);
  const unsigned with_bias = in.byte();
  const std::int64_t outputs = dims[depthwise ? 2 : 3], bias_size = with_bias % 2 ? (with_bias < 250 ? outputs : in.size(64)) : -1;
  check_weights(kind, dims, groups, bias_size);
  if (product({dims[0], dims[1], dims[2], dims[3]}) > 2 * kMaxWork) return nullptr;
  Strided memory(in, dims, true);
  fill(memory.values, with_bias);
  std::vector<float> bias(std::max<std::int64_t>(bias_size, 0));
  fill(bias, how);
  WeightView view{reinterpret_cast<const char*>(memory.data()), {}, {}};
  for (int i = 0; i < 4; ++i) {
    view.strides[i] = memory.strides[i] * static_cast<std::ptrdiff_t>(sizeof(float));
    view.dims[i] = static_cast<int>(dims[i]);
  }
  struct Held {  // weights packed within the call are read there
    Strided memory;
    EagerWeights weights;
  };
  const auto held = std::shared_ptr<Held>(
      new Held{std::move(memory), {kind, view, bias_size < 0 ? nullptr : bias.data(), static_cast<int>(groups), pixels, table}});
  return {held, &held->weights};
}

}  // namespace

bool try_call(Bytes in) {
  const KernelTable& table = table_of(in);
  const unsigned how = in.byte(), kind = how % 8;
  const Shape shape{in.extent(9), in.extent(9), in.extent(how % 64 < 60 ? 20 : 70)};
  const std::int64_t images = how >> 6;
  static constexpr WeightKind kDepthwise = WeightKind::depthwise, kPointwise = WeightKind::pointwise, kDense = WeightKind::dense;
  static const std::vector<WeightKind> kCalls[] = {
      {kDepthwise}, {kPointwise}, {kDense},     {kDepthwise, kPointwise}, {kPointwise, kDepthwise, kPointwise},
      {kDepthwise}, {kDense},     {kDepthwise, kPointwise}};
  std::vector<WeightKind> kinds = kCalls[kind];
  if (in.byte() == 255) kinds = {kPointwise, kDepthwise};  // which are no operator
  const std::int64_t pixels = images == 1 ? product({shape.h, shape.w}) : 0;
  std::vector<StageSpec> stages;
  int channels = shape.c;
  for (const WeightKind k : kinds) {
    auto weights = draw_weights(in, k, channels, pixels, table);
    if (!weights) return false;
    channels = weights->outputs;
    const Window window = draw_window(in, weights->kh, weights->kw, k == kPointwise);
    stages.push_back({std::move(weights), window, in.activation()});
  }
  check_stages(shape, stages);

  // Legal; but is it more than an execution can take?
  Shape at = shape;
  for (const StageSpec& stage : stages) {
    const Window& w = stage.window;
    const EagerWeights& weights = *stage.weights;
    const int seen = weights.kind == kDepthwise ? 1 : at.c / weights.groups;
    const std::int64_t before = product({at.h, at.w, at.c});
    at = {w.out_h(at.h), w.out_w(at.w), weights.outputs};
    if (before > 8 * kMaxWork || product({at.h, at.w, at.c, w.kh, w.kw, seen}) > 4 * kMaxWork) return false;
  }
  if (product({images, at.h, at.w, at.c}) > kMaxWork) return false;

  const EagerBlock block(shape, stages, table);
  const bool adds = kinds.back() == kPointwise && in.byte() % 2;
  Strided x(in, {images, shape.h, shape.w, shape.c}, true), addend(in, {images, at.h, at.w, at.c}, true);
  Strided out(in, {images, at.h, at.w, at.c}, false);
  fill(x.values, how);
  fill(addend.values, how + 1);
  const ConstPixels added = adds && images > 0 ? addend.pixels<const float>(at.c) : ConstPixels{};
  const auto run = [&](int threads) {
    std::fill(out.values.begin(), out.values.end(), kUnwritten);
    require(block.run(x.pixels<const float>(shape.c), added, out.pixels<float>(at.c), images, threads, nullptr), "it stopped");
    return out.values;
  };
  const std::vector<float> once = run(1);
  const auto written = once.size() - std::count(once.begin(), once.end(), kUnwritten);
  require(static_cast<std::int64_t>(written) == product({images, at.h, at.w, at.c}), "other than the result was written");
  if (in.byte() % 32 == 31) {
    const std::vector<float> again = run(3);
    require(once.empty() || std::memcmp(once.data(), again.data(), once.size() * sizeof(float)) == 0, "other bits on threads");
  }
  return true;
}

bool try_gradient(Bytes in) {
  const KernelTable& table = table_of(in);
  const unsigned how = in.byte();
  const int threads = how % 16 == 15 ? 3 : 1;
  const auto size = [&](int most) { return 1 + static_cast<int>(in.byte()) % most; };
  std::vector<float> x, weights, dy;
  const auto drawn = [](std::int64_t n, unsigned seed) {
    std::vector<float> values(n);
    fill(values, seed);
    return values;
  };
  // The gradients, and that all of them were written.
  const auto finish = [&](auto& task, std::int64_t outputs, auto compute) {
    x = drawn(x.size(), how);
    std::vector<float> dx(x.size(), kUnwritten), dweights(weights.size(), kUnwritten), dbias(outputs, kUnwritten);
    task.x = x.data();
    task.weights = weights.data();
    task.dy = dy.data();
    task.dx = how & 32 ? nullptr : dx.data();
    task.dweights = how & 64 ? nullptr : dweights.data();
    task.dbias = task.dweights ? dbias.data() : nullptr;
    compute(task, threads, table);
    const auto whole = [](const std::vector<float>& v) { return std::find(v.begin(), v.end(), kUnwritten) == v.end(); };
    require(!task.dx || whole(dx), "a gradient of x was not written");
    require(!task.dweights || (whole(dweights) && whole(dbias)), "a gradient of weights was not written");
  };
  if (how % 4 == 0) {
    PointwiseGrad task{};
    task.pixels = static_cast<int>(in.byte()) % 60;
    task.channels = size(40);
    task.outputs = size(40);
    x.resize(task.pixels * task.channels);
    weights = drawn(std::int64_t{1} * task.outputs * task.channels, 1);
    dy = drawn(task.pixels * task.outputs, 2);
    finish(task, task.outputs, &pointwise_grad);
    return true;
  }
  DepthwiseGrad task{};
  task.in = {size(9), size(9), size(40)};
  task.multiplier = how % 4 == 1 ? size(3) : 1;
  task.images = in.byte() % 3;
  Window& w = task.window;
  w = {size(5), size(5), size(3), size(3), size(2), size(2), {}};
  w.padding = {size(4) - 1, size(4) - 1, size(4) - 1, size(4) - 1};
  if ((w.kh - 1) * w.dilation_h + 1 > task.in.h + w.padding.top + w.padding.bottom ||
      (w.kw - 1) * w.dilation_w + 1 > task.in.w + w.padding.left + w.padding.right) {
    return false;
  }
  const int outputs = task.in.c * task.multiplier;
  x.resize(task.images * task.in.elements());
  weights = drawn(std::int64_t{1} * outputs * w.kh * w.kw, 1);
  dy = drawn(task.images * w.out_h(task.in.h) * w.out_w(task.in.w) * outputs, 2);
  finish(task, outputs, &depthwise_grad);
  return true;
}

}  // namespace sepconv
