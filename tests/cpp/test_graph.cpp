// What a graph refuses: each error names the layer and the argument.
#include "graph/graph.h"

#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>

#include "network.h"

namespace sepconv {
namespace {

using namespace test;

TEST(Graph, RefusesWhatDoesNotFit) {
  Network n("scalar");
  Graph& g = n.graph();
  const int x = n.input({4, 5, 3}), other = n.input({4, 5, 2});
  const std::vector<float> values(4096, 1.0f);
  const auto weight = [&](int kh, int kw, int c, int m) { return Network::view(values, {kh, kw, c, m}); };
  const Activation none = Activation::none;
  const VectorView three{reinterpret_cast<const char*>(values.data()), 4, 3};
  const BatchNormView norm{three, three, three, three, 1e-3};
  const Window one, w33{3, 3}, wide{1, 6}, low{5, 1}, still{1, 1, 0, 1}, flat{1, 1, 1, 1, 1, 0};
  const Window padded{2, 2, 1, 1, 1, 1, {2, 0, 0, 0}}, negative{1, 1, 1, 1, 1, 1, {0, -1, 0, 0}}, dilated{3, 3, 1, 1, 2, 2};
  const struct {
    std::function<int()> add;
    const char* message;
  } cases[] = {
      {[&] { return g.input("L", {0, 1, 1}); }, "height"},
      {[&] { return g.input("L", {1, -1, 1}); }, "width"},
      {[&] { return g.input("L", {1, 1, 0}); }, "channels"},
      {[&] { return g.input("L", {1 << 20, 1 << 20, 1}); }, "number of elements"},
      {[&] { return g.conv2d("L", 99, weight(1, 1, 3, 4), nullptr, nullptr, one, none); }, "input"},
      {[&] { return g.conv2d("L", -1, weight(1, 1, 3, 4), nullptr, nullptr, one, none); }, "input"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 2, 4), nullptr, nullptr, one, none); }, "weight"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 0), nullptr, nullptr, one, none); }, "weight"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), nullptr, nullptr, w33, none); }, "weight"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), &three, nullptr, one, none); }, "bias"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), nullptr, &norm, one, none); }, "batch_norm.gamma"},
      {[&] { return g.conv2d("L", x, weight(1, 6, 3, 4), nullptr, nullptr, wide, none); }, "width of the window"},
      {[&] { return g.conv2d("L", x, weight(5, 1, 3, 4), nullptr, nullptr, low, none); }, "height of the window"},
      {[&] { return g.conv2d("L", x, weight(3, 3, 3, 4), nullptr, nullptr, dilated, none); }, "height of the window"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), nullptr, nullptr, still, none); }, "stride"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), nullptr, nullptr, flat, none); }, "dilation"},
      {[&] { return g.conv2d("L", x, weight(1, 1, 3, 4), nullptr, nullptr, negative, none); }, "padding"},
      {[&] { return g.depthwise_conv2d("L", x, weight(1, 1, 2, 1), nullptr, nullptr, one, none); }, "weight"},
      {[&] { return g.depthwise_conv2d("L", x, weight(1, 1, 3, 2), &three, nullptr, one, none); }, "bias"},
      {[&] { return g.fully_connected("L", x, weight(1, 1, 59, 4), nullptr, none); }, "weight"},
      {[&] { return g.add("L", x, other, none); }, "two inputs"},
      {[&] { return g.add("L", x, 99, none); }, "input"},
      {[&] { return g.average_pool2d("L", x, padded, false, none); }, "padding"},
      {[&] { return g.max_pool2d("L", x, low, none); }, "height of the window"},
      {[&] { return g.pad("L", x, {0, 0, -1, 0}); }, "padding"},
      {[&] { return g.pad("L", x, {0, 0, 1 << 21, 0}); }, "padding"},
      {[&] { return g.reshape("L", x, {4, 5, 4}); }, "shape"},
      {[&] { return g.reshape("L", x, {4, 0, 4}); }, "width"},
  };
  const std::size_t before = g.nodes().size();
  for (const auto& c : cases) {
    try {
      c.add();
      ADD_FAILURE() << "accepted: " << c.message;
    } catch (const std::invalid_argument& error) {
      EXPECT_NE(std::string(error.what()).find("layer 'L'"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(c.message), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(g.nodes().size(), before);
  EXPECT_THROW(g.output(99), std::invalid_argument);
}

}  // namespace
}  // namespace sepconv
