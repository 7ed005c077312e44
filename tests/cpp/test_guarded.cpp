// The guard pages that the kernel tests trust.
#include <gtest/gtest.h>

#include "guarded.h"

namespace sepconv::test {
namespace {

using GuardedDeathTest = ::testing::TestWithParam<std::size_t>;

TEST_P(GuardedDeathTest, FaultsJustOutside) {
  const std::size_t n = GetParam();
  GuardedBuffer<float> tail(n, Flush::tail), head(n, Flush::head);
  for (auto* buffer : {&tail, &head})
    for (std::size_t i = 0; i < n; ++i) buffer->data()[i] = 1.0f;
  EXPECT_TRUE(tail.slack_intact() && head.slack_intact());
  EXPECT_DEATH(static_cast<void>(*const_cast<volatile float*>(tail.data() + n)), "");
  EXPECT_DEATH(static_cast<void>(*const_cast<volatile float*>(head.data() - 1)), "");
}

INSTANTIATE_TEST_SUITE_P(Sizes, GuardedDeathTest, ::testing::Values(1, 16, 1024, 1025));

TEST(ReadOnlyDeathTest, FaultsWhereAnInputIsWritten) {
  GuardedBuffer<float> in(std::vector<float>(3, 1.0f), Flush::tail);
  EXPECT_DEATH(*const_cast<volatile float*>(in.data()) = 2.0f, "");
}

TEST(Guarded, SeesWhatWasWrittenToTheSlack) {
  GuardedBuffer<float> tail(3, Flush::tail), head(3, Flush::head);
  tail.data()[-1] = 0.0f;
  head.data()[3] = 0.0f;
  EXPECT_FALSE(tail.slack_intact());
  EXPECT_FALSE(head.slack_intact());
}

}  // namespace
}  // namespace sepconv::test
