// The oracles against values worked out by hand and against each other, since everything else is held against them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "ref/channels.h"
#include "ref/conv.h"
#include "ref/elementwise.h"
#include "ref/pool.h"

namespace sepconv::ref {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// 1, 2, 3, ...
Tensor counting(Shape shape) {
  Tensor x(shape);
  std::iota(x.data.begin(), x.data.end(), 1.0);
  return x;
}

std::vector<double> integers(std::size_t n, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<double> out(n);
  for (double& value : out) value = std::uniform_int_distribution<int>(-9, 9)(engine);
  return out;
}

Tensor random_image(Shape shape, unsigned seed) {
  Tensor x(shape);
  x.data = integers(x.data.size(), seed);
  return x;
}

Window square(int size, int stride = 1, int dilation = 1, Padding padding = {}) {
  return {size, size, stride, stride, dilation, dilation, padding};
}

using Values = std::vector<double>;

TEST(RefConv2d, ByHand) {
  // 1 2 3
  // 4 5 6
  // 7 8 9, and the kernel 1 10 / 100 1000
  const Tensor x = counting({3, 3, 1});
  const Values w{1, 10, 100, 1000};
  EXPECT_EQ(conv2d(x, w, {}, square(2)).data, (Values{5421, 6532, 8754, 9865}));
  EXPECT_EQ(conv2d(x, w, Values{0.5}, square(2, 2)).data, (Values{5421.5}));
  EXPECT_EQ(conv2d(x, w, {}, square(2, 1, 2)).data, (Values{9731}));
  // One row above and one column left: only the last tap meets pixel 1, and so on.
  EXPECT_EQ(conv2d(x, w, {}, square(2, 2, 1, {1, 0, 1, 0})).data, (Values{1000, 3200, 7040, 9865}));
  EXPECT_EQ(conv2d(x, w, {}, square(2, 2, 1, {0, 1, 0, 1})).data, (Values{5421, 603, 87, 9}));
}

TEST(RefConv2d, MixesChannelsInWeightOrderKhKwCN) {
  const Tensor x = counting({1, 2, 2});  // pixels (1, 2) and (3, 4)
  const Values w{1, 10, 100, 1000};      // input channel 0 -> (1, 10), 1 -> (100, 1000)
  EXPECT_EQ(conv2d(x, w, Values{0.25, 0.5}, square(1)).data, (Values{201.25, 2010.5, 403.25, 4030.5}));
}

TEST(RefConv2d, DifferentStridesAndDilationsDownAndAcross) {
  const Tensor x = counting({3, 4, 1});
  const Window window{2, 2, 1, 2, 2, 1, {}};  // rows 0 and 2; columns (0, 1) and (2, 3)
  EXPECT_EQ(conv2d(x, Values{1, 1, 1, 1}, {}, window).data, (Values{1 + 2 + 9 + 10, 3 + 4 + 11 + 12}));
}

TEST(RefConv2d, PaddingEqualsConvolvingThePaddedImage) {
  const Tensor x = random_image({5, 7, 3}, 1);
  const Values w = integers(3 * 3 * 3 * 4, 2), bias = integers(4, 3);
  const Padding padding{2, 0, 1, 3};
  const Tensor direct = conv2d(x, w, bias, square(3, 2, 1, padding));
  const Tensor padded = conv2d(pad(x, padding), w, bias, square(3, 2));
  EXPECT_EQ(direct.shape, padded.shape);
  EXPECT_EQ(direct.data, padded.data);
}

TEST(RefConv2d, MagnitudeIsTheSumOfAbsoluteTerms) {
  Values magnitude;
  const Tensor out = conv2d(Tensor({1, 1, 3}, -2.0), Values{1, -3, 5}, Values{-7}, square(1), &magnitude);
  EXPECT_EQ(out.data, (Values{-13}));
  EXPECT_EQ(magnitude, (Values{25}));
}

TEST(RefConv2d, ZerosOfThePaddingTakePartInTheSum) {
  const Tensor x(Shape{1, 1, 1}, 1.0);
  for (const double tap : {kNaN, kInf}) {
    const Values w{1, 1, tap};
    EXPECT_TRUE(std::isnan(conv2d(x, w, {}, {1, 3, 1, 1, 1, 1, {0, 0, 1, 1}}).data[0]));
    EXPECT_TRUE(std::isnan(depthwise_conv2d(x, w, {}, {1, 3, 1, 1, 1, 1, {0, 0, 1, 1}}).data[0]));
  }
}

TEST(RefDepthwise, ByHandWithAMultiplier) {
  const Tensor x = counting({1, 2, 2});         // pixels (1, 2) and (3, 4)
  const Values w{1, 10, 100, 1000, 2, 20, 200, 2000};  // [1][2][C=2][M=2]
  const Tensor out = depthwise_conv2d(x, w, Values{0, 0, 0, 5}, {1, 2, 1, 1, 1, 1, {}});
  EXPECT_EQ(out.shape, (Shape{1, 1, 4}));
  EXPECT_EQ(out.data, (Values{1 + 6, 10 + 60, 200 + 800, 2000 + 8000 + 5}));
}

TEST(RefDepthwise, IsTheConvolutionWithABlockDiagonalKernel) {
  const int channels = 3, multiplier = 2, taps = 9;
  const Tensor x = random_image({6, 7, channels}, 4);
  const Values w = integers(taps * channels * multiplier, 5), bias = integers(channels * multiplier, 6);
  Values full(static_cast<std::size_t>(taps) * channels * channels * multiplier, 0.0);
  for (int tap = 0; tap < taps; ++tap)
    for (int c = 0; c < channels; ++c)
      for (int m = 0; m < multiplier; ++m)
        full[(tap * channels + c) * channels * multiplier + c * multiplier + m] =
            w[(tap * channels + c) * multiplier + m];
  for (const Window& window : {square(3), square(3, 2, 1, {1, 1, 1, 1}), square(3, 1, 2, {0, 1, 2, 0})}) {
    Values dense, sparse;
    EXPECT_EQ(depthwise_conv2d(x, w, bias, window, &sparse).data, conv2d(x, full, bias, window, &dense).data);
    EXPECT_EQ(sparse, dense);
  }
}

TEST(RefFullyConnected, IsAConvolutionOverTheWholeImage) {
  const Tensor x = random_image({2, 3, 4}, 7);
  const Values w = integers(2 * 3 * 4 * 5, 8), bias = integers(5, 9);
  Values a, b;
  const Tensor out = fully_connected(x, w, bias, &a);
  EXPECT_EQ(out.shape, (Shape{1, 1, 5}));
  EXPECT_EQ(out.data, conv2d(x, w, bias, {2, 3, 1, 1, 1, 1, {}}, &b).data);
  EXPECT_EQ(a, b);
}

TEST(RefPool, ByHand) {
  const Tensor x = counting({3, 3, 1});
  EXPECT_EQ(max_pool(x, square(2)).data, (Values{5, 6, 8, 9}));
  EXPECT_EQ(average_pool(x, square(2)).data, (Values{3, 4, 6, 7}));
  const Window padded = square(2, 2, 1, {1, 0, 1, 0});
  EXPECT_EQ(average_pool(x, padded).data, (Values{1, 2.5, 5.5, 7}));
  EXPECT_EQ(average_pool(x, padded, true).data, (Values{0.25, 1.25, 2.75, 7}));
  EXPECT_EQ(max_pool(Tensor({3, 3, 1}, -4.0), padded).data, (Values{-4, -4, -4, -4}));
  EXPECT_EQ(global_average_pool(counting({2, 2, 2})).data, (Values{4, 5}));
}

TEST(RefPool, MaximumOfNaNIsNaNWhereverItStands) {
  for (int at = 0; at < 4; ++at) {
    Tensor x = counting({2, 2, 1});
    x.data[at] = kNaN;
    EXPECT_TRUE(std::isnan(max_pool(x, square(2)).data[0]));
  }
}

TEST(RefActivate, ByHand) {
  EXPECT_EQ(activate(Activation::none, -1.5), -1.5);
  EXPECT_EQ(activate(Activation::relu, -1.5), 0.0);
  EXPECT_EQ(activate(Activation::relu, 7.5), 7.5);
  EXPECT_EQ(activate(Activation::relu6, 7.5), 6.0);
  EXPECT_EQ(activate(Activation::hard_sigmoid, 1.5), 0.75);
  EXPECT_EQ(activate(Activation::hard_swish, 1.5), 1.125);
  EXPECT_EQ(activate(Activation::hard_swish, -3.5), 0.0);
  EXPECT_DOUBLE_EQ(activate(Activation::sigmoid, 2.0), 0.8807970779778823);
  EXPECT_DOUBLE_EQ(activate(Activation::silu, 2.0), 1.7615941559557646);
  EXPECT_DOUBLE_EQ(activate(Activation::gelu, 2.0), 1.9544997361036416);
  EXPECT_DOUBLE_EQ(activate(Activation::gelu, -1.0), -0.15865525393145707);
  EXPECT_NEAR(activate(Activation::gelu_tanh, 2.0), 1.954597694087775, 1e-12);
}

TEST(RefActivate, AtTheLimits) {
  for (const Activation each : {Activation::none, Activation::relu, Activation::relu6, Activation::hard_swish,
                                Activation::hard_sigmoid, Activation::sigmoid, Activation::silu, Activation::gelu,
                                Activation::gelu_tanh})
    EXPECT_TRUE(std::isnan(activate(each, kNaN)));
  EXPECT_EQ(activate(Activation::sigmoid, -kInf), 0.0);
  EXPECT_EQ(activate(Activation::sigmoid, kInf), 1.0);
  EXPECT_EQ(activate(Activation::silu, -1e30), 0.0);
  EXPECT_TRUE(std::isnan(activate(Activation::silu, -kInf)));
  EXPECT_TRUE(std::isnan(activate(Activation::hard_swish, -kInf)));
}

TEST(RefElementwise, AddAndPad) {
  EXPECT_EQ(add(counting({1, 1, 3}), Tensor({1, 1, 3}, 0.5)).data, (Values{1.5, 2.5, 3.5}));
  EXPECT_THROW(add(counting({1, 1, 3}), counting({1, 3, 1})), std::invalid_argument);
  const Tensor padded = pad(counting({1, 2, 1}), {1, 0, 0, 2}, -1.0);
  EXPECT_EQ(padded.shape, (Shape{2, 4, 1}));
  EXPECT_EQ(padded.data, (Values{-1, -1, -1, -1, 1, 2, -1, -1}));
}

TEST(RefSoftmax, ByHandAndUnderAShift) {
  Tensor x({1, 2, 2});
  x.data = {0, std::log(3.0), 1000, 1000};
  const Tensor p = softmax(x);
  EXPECT_DOUBLE_EQ(p.data[0], 0.25);
  EXPECT_DOUBLE_EQ(p.data[1], 0.75);
  EXPECT_EQ(p.data[2], 0.5);
  const Tensor squared = softmax(x, 2.0);
  EXPECT_DOUBLE_EQ(squared.data[0], 0.1);
  x.data = {0, kNaN, 0, kInf};
  for (const double value : softmax(x).data) EXPECT_TRUE(std::isnan(value));
}

TEST(RefBatchNorm, ByHand) {
  const Tensor x = counting({1, 2, 2});
  const Values gamma{2, 3}, beta{10, 20}, mean{1, 2}, variance{3.75, 15.75};
  EXPECT_EQ(batch_norm(x, gamma, beta, mean, variance, 0.25).data, (Values{10, 20, 12, 21.5}));
  EXPECT_EQ(batch_norm(x, {}, {}, mean, variance, 0.25).data, (Values{0, 0, 1, 0.5}));
}

TEST(RefErrors, SizesThatDoNotFitAreNamed) {
  const Tensor x({4, 4, 3});
  EXPECT_THROW(conv2d(x, Values(10), {}, square(1)), std::invalid_argument);
  EXPECT_THROW(conv2d(x, Values(6), Values(3), square(1)), std::invalid_argument);
  EXPECT_THROW(depthwise_conv2d(x, {}, {}, square(1)), std::invalid_argument);
  EXPECT_THROW(fully_connected(x, Values(47), {}), std::invalid_argument);
  EXPECT_THROW(max_pool(x, square(5)), std::invalid_argument);
  EXPECT_THROW(max_pool(x, square(2, 0)), std::invalid_argument);
  EXPECT_THROW(average_pool(x, square(3, 1, 2)), std::invalid_argument);
  EXPECT_THROW(batch_norm(x, {}, {}, Values(2), Values(3), 0.0), std::invalid_argument);
  EXPECT_THROW(pad(x, {-1, 0, 0, 0}), std::invalid_argument);
}

TEST(RefPoll, IsCalledOnceARowAndStopsTheRun) {
  const Tensor x({8, 8, 1});
  int left = 100;
  const Poll poll{[](void* context) { return --*static_cast<int*>(context) > 0; }, &left};
  conv2d(x, Values(9), {}, square(3), nullptr, poll);
  EXPECT_EQ(left, 94);
  left = 3;
  EXPECT_THROW(depthwise_conv2d(x, Values(9), {}, square(3), nullptr, poll), Interrupted);
  EXPECT_EQ(left, 0);
  left = 1;
  EXPECT_THROW(max_pool(x, square(3), poll), Interrupted);
  left = 1;
  EXPECT_THROW(fully_connected(x, Values(64), {}, nullptr, poll), Interrupted);
}

TEST(RefMul, ByHand) {
  const Tensor x = counting({1, 2, 2});
  EXPECT_EQ(mul(x, x).data, (Values{1, 4, 9, 16}));
  EXPECT_EQ(mul(x, counting({1, 1, 2})).data, (Values{1, 4, 3, 8}));
  EXPECT_THROW(mul(x, counting({1, 2, 1})), std::invalid_argument);
}

TEST(RefChannels, ByHand) {
  const Tensor x = counting({1, 2, 4});  // pixels (1, 2, 3, 4) and (5, 6, 7, 8)
  EXPECT_EQ(channel_slice(x, 1, 3).data, (Values{2, 3, 6, 7}));
  EXPECT_EQ(channel_shuffle(x, 2).data, (Values{1, 3, 2, 4, 5, 7, 6, 8}));
  EXPECT_EQ(concat({x, counting({1, 2, 1})}).data, (Values{1, 2, 3, 4, 1, 5, 6, 7, 8, 2}));
  EXPECT_THROW(channel_slice(x, 3, 3), std::invalid_argument);
  EXPECT_THROW(channel_slice(x, 0, 5), std::invalid_argument);
  EXPECT_THROW(channel_shuffle(x, 3), std::invalid_argument);
  EXPECT_THROW(concat({}), std::invalid_argument);
  EXPECT_THROW(concat({x, counting({2, 2, 1})}), std::invalid_argument);
}

TEST(RefUpsample, ByHand) {
  const Tensor x = counting({2, 2, 1});
  EXPECT_EQ(upsample(x, 2, 4).data, (Values{1, 1, 2, 2, 3, 3, 4, 4}));
  EXPECT_EQ(upsample(x, 3, 3).data, (Values{1, 1, 2, 1, 1, 2, 3, 3, 4}));  // rows ⌊0⌋, ⌊2/3⌋, ⌊4/3⌋
  EXPECT_THROW(upsample(x, 0, 1), std::invalid_argument);
}

}  // namespace
}  // namespace sepconv::ref
