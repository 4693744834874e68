#include "common/routing/policy.h"

#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

TEST(PolicyTest, BackoffDoublesToAMinute) {
  const RoutingPolicy policy;
  EXPECT_EQ(BackoffSeconds(0, policy), 0.0);
  EXPECT_EQ(BackoffSeconds(1, policy), 2.0);
  EXPECT_EQ(BackoffSeconds(2, policy), 4.0);
  EXPECT_EQ(BackoffSeconds(5, policy), 32.0);
  EXPECT_EQ(BackoffSeconds(6, policy), 60.0);
  EXPECT_EQ(BackoffSeconds(std::numeric_limits<int>::max(), policy), 60.0);
}

TEST(PolicyTest, ValidateNamesTheField) {
  EXPECT_TRUE(RoutingPolicy{}.Validate().ok());
  RoutingPolicy policy;
  policy.confidence_threshold = 1.5;
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("confidence_threshold"));
  policy = {};
  policy.assumed_upstream_tokens_per_s = 0.0;
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("assumed_upstream_tokens_per_s"));
  policy = {};
  policy.max_upstream_wait_s = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(policy.Validate().ToString(), HasSubstr("max_upstream_wait_s"));
}

}  // namespace
}  // namespace updraft
