#include "common/rpc/status.h"

#include <gtest/gtest.h>

#include "absl/time/time.h"
#include "common/status/retry_delay.h"

namespace updraft {
namespace {

TEST(Status, EveryCodeAndMessageSurvivesTheWire) {
  for (int code = 0; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), code == 0 ? "" : "why");
    const grpc::Status wire = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_EQ(FromGrpcStatus(wire), status);
  }
}

TEST(Status, ACodeThatIsNoneBecomesUnknown) {
  for (const int code : {-1, 17, 31}) {
    const absl::Status status = FromGrpcStatus(grpc::Status(static_cast<grpc::StatusCode>(code), "odd"));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnknown) << code;
    EXPECT_EQ(std::string(status.message()), "odd");
  }
}

TEST(RetryDelay, RidesOnTheStatus) {
  const absl::Status plain = absl::ResourceExhaustedError("full");
  EXPECT_FALSE(RetryDelayOf(plain).has_value());
  EXPECT_EQ(RetryDelayOf(WithRetryDelay(plain, absl::Milliseconds(80))), absl::Milliseconds(80));
  EXPECT_EQ(RetryDelayOf(WithRetryDelay(plain, absl::Microseconds(1))), absl::Milliseconds(1))
      << "never 0: that is 'now'";
  EXPECT_TRUE(WithRetryDelay(absl::OkStatus(), absl::Seconds(1)).ok());
}

}  // namespace
}  // namespace updraft
