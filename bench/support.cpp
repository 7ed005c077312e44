#include "support.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "cpu/features.h"
#include "ops/peaks.h"

namespace sepconv::bench {
namespace {

std::vector<float> random_floats(std::size_t count, float scale) {
  static std::mt19937 engine(1);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

// Packed weights, and the store they lie in, which must live as long.
template <class Packed>
struct Stored {
  std::shared_ptr<WeightStore> store;
  Packed packed;
};

template <class Packed>
std::shared_ptr<const Packed> packed(std::array<int, 4> dims, int outputs, int fan_in, const KernelTable& table,
                                     std::shared_ptr<WeightStore> store) {
  if (store == nullptr) store = std::make_shared<WeightStore>();
  const auto [kh, kw, c, n] = dims;
  const std::vector<float> weights = random_floats(std::size_t{1} * kh * kw * c * n, std::sqrt(1.0f / static_cast<float>(fan_in)));
  const std::ptrdiff_t size = sizeof(float);
  const WeightView view{reinterpret_cast<const char*>(weights.data()), {kw * c * n * size, c * n * size, n * size, size}, dims};
  const Affine affine{std::vector<double>(outputs, 1.0), std::vector<double>(outputs, 0.1)};
  auto stored = std::make_shared<Stored<Packed>>(Stored<Packed>{store, Packed(view, affine, table, *store)});
  return {stored, &stored->packed};
}

double peak_flops(const KernelTable& table) {
  static std::map<std::string, double> measured;
  const auto [entry, missing] = measured.try_emplace(table.isa, 0.0);
  if (missing) {
    const std::vector<double> rates = measure_fma(table, 1, 0.05);
    entry->second = *std::max_element(rates.begin(), rates.end());
  }
  return entry->second;
}

}  // namespace

Problem::Problem(RowOpPtr op, const KernelTable& table, bool image, bool with_other) : op_(std::move(op)), task_{} {
  const auto blocked = [&](const Shape& s, float scale) {
    const auto count = static_cast<std::size_t>(blocked_floats(s, table));
    buffers_.push_back(AlignedBuffer::of_floats(count));
    const std::vector<float> values = random_floats(count, scale);
    std::copy(values.begin(), values.end(), buffers_.back().floats());
    const std::ptrdiff_t row = std::ptrdiff_t{1} * s.w * table.vector;
    return RowView{buffers_.back().floats(), s.h * row, row, s.h};
  };
  const auto read_only = [](const RowView& v) { return ConstRowView{v.data, v.plane, v.row, v.ring}; };
  task_.in = read_only(blocked(op_->in, 1.0f));
  if (image) task_.in.row = std::ptrdiff_t{1} * op_->in.w * op_->in.c, task_.in.plane = task_.in.row * op_->in.h;
  if (with_other) task_.other = read_only(blocked(op_->out, 1.0f));
  task_.out = blocked(op_->out, 0.0f);
  task_.y1 = op_->out.h;
  task_.part1 = op_->parts;
  buffers_.push_back(AlignedBuffer::of_floats(op_->scratch_floats + 1));
  task_.scratch = buffers_.back().floats();
}

RowOpPtr dense(const Layer& layer, bool image, const KernelTable& table, std::shared_ptr<WeightStore> store) {
  const int k = layer.window.kh * layer.window.kw * layer.in.c;
  const std::array<int, 4> dims{layer.window.kh, layer.window.kw, layer.in.c, layer.outputs};
  auto weights = packed<PackedGemm>(dims, layer.outputs, k, table, std::move(store));
  if (layer.window.kh == 1) return make_pointwise(layer.in, weights, layer.outputs, Activation::relu6, table);
  return make_conv(layer.in, layer.window, weights, layer.outputs, Activation::relu6, image, table);
}

RowOpPtr depthwise(const Layer& layer, const KernelTable& table) {
  const Window& w = layer.window;
  auto weights = packed<PackedDepthwise>({w.kh, w.kw, layer.in.c, 1}, layer.in.c, w.kh * w.kw, table, nullptr);
  return make_depthwise(layer.in, w, weights, 1, Activation::relu6, table);
}

void run_all(benchmark::State& state, std::vector<Problem>& problems, const KernelTable& table, bool cycles) {
  double macs = 0, bytes = 0, outputs = 0;
  for (const Problem& problem : problems) {
    const RowOp& op = problem.op();
    macs += static_cast<double>(op.macs);
    bytes += static_cast<double>(op.weight_bytes) + sizeof(float) * static_cast<double>(op.in.elements() + op.out.elements());
    outputs += static_cast<double>(op.out.elements());
  }
  for (auto _ : state) {
    for (Problem& problem : problems) problem.run();
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  const auto a_second = [](double amount) { return Counter(amount, Counter::kIsIterationInvariantRate); };
  const double peak = peak_flops(table);
  state.counters["GFLOP/s"] = a_second(2e-9 * macs);
  state.counters["of_peak"] = a_second(2 * macs / peak);
  state.counters["GB/s"] = a_second(1e-9 * bytes);
  if (cycles) {
    const double frequency = peak / (4.0 * table.vector);
    state.counters["cycles_16"] =
        Counter(outputs / 16 / frequency, Counter::kIsIterationInvariantRate | Counter::kInvert);
  }
}

void register_layers(Kind kind, Make make, const std::string& variant, bool cycles) {
  for (const KernelTable* table : tables()) {
    for (const Network& network : networks()) {
      for (const Layer& layer : distinct(network, kind)) {
        Layer narrow = layer;  // runs on the same kernel, without waiting for its weights
        narrow.in.c = 1;
        if (kind == Kind::depthwise || kind == Kind::add || kind == Kind::pool) narrow.outputs = 1;
        const std::string kernel = make(narrow, *table).op().kernel, suffix = variant.empty() ? "" : "/" + variant;
        register_one(kernel + "/" + network.name + "/" + describe(layer) + suffix, [=](benchmark::State& state) {
          std::vector<Problem> problems;
          problems.push_back(make(layer, *table));
          run_all(state, problems, *table, cycles);
        });
      }
    }
  }
}

void register_one(const std::string& name, const std::function<void(benchmark::State&)>& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->MinTime(0.1);
}

std::string describe(const Layer& layer) {
  std::string text = std::to_string(layer.in.h) + "x" + std::to_string(layer.in.w) + "x" + std::to_string(layer.in.c);
  if (layer.outputs != layer.in.c) text += "_to_" + std::to_string(layer.outputs);
  return text;
}

std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> found;
  for (const std::string& isa : supported_isas()) found.push_back(&kernels(isa));
  return found;
}

}  // namespace sepconv::bench
