#include <gtest/gtest.h>

#include <cfenv>
#include <limits>

#include "base/fp_env.h"

namespace sepconv {
namespace {

constexpr float kDenormal = 1e-40f;

// Out of the optimiser's sight, which computes as if there were no flushing.
float product(float a, float b) {
  volatile float x = a, y = b;
  return x * y;
}

#if defined(__x86_64__) || defined(__aarch64__)
constexpr bool kFlushes = true;
#else
constexpr bool kFlushes = false;
#endif

TEST(FlushDenormals, OnlyWhileItLives) {
  constexpr float smallest = std::numeric_limits<float>::min();
  EXPECT_GT(product(kDenormal, 1.0f), 0.0f);
  {
    const FlushDenormals flush;
    EXPECT_EQ(product(kDenormal, 1e30f) == 0.0f, kFlushes);  // a denormal operand
    EXPECT_EQ(product(smallest, 0.5f) == 0.0f, kFlushes);    // a denormal result
    EXPECT_EQ(product(smallest, 2.0f), 2 * smallest);
    {
      const FlushDenormals again;
      EXPECT_EQ(product(smallest, 0.5f) == 0.0f, kFlushes);
    }
    EXPECT_EQ(product(smallest, 0.5f) == 0.0f, kFlushes);
  }
  EXPECT_GT(product(kDenormal, 1.0f), 0.0f);
  EXPECT_GT(product(smallest, 0.5f), 0.0f);
}

TEST(WithFloatMode, GivesAnotherModeInBetween) {
  const FloatMode callers = FloatMode::current();
  const FlushDenormals flush;
  {
    const WithFloatMode mode(callers);
    EXPECT_GT(product(kDenormal, 1.0f), 0.0f);
  }
  EXPECT_EQ(product(kDenormal, 1.0f) == 0.0f, kFlushes);
}

TEST(FlushDenormals, RoundingAndExceptionFlagsAreAsBefore) {
  ASSERT_EQ(std::fesetround(FE_DOWNWARD), 0);
  std::feclearexcept(FE_ALL_EXCEPT);
  {
    const FlushDenormals flush;
  }
  EXPECT_EQ(std::fegetround(), FE_DOWNWARD);
  EXPECT_EQ(std::fetestexcept(FE_ALL_EXCEPT), 0);
  std::fesetround(FE_TONEAREST);
}

}  // namespace
}  // namespace sepconv
