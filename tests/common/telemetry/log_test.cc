#include "common/telemetry/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace updraft {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LogFieldTest, QuotesWhatIsNotPlain) {
  EXPECT_EQ(LogField("a", "127.0.0.1:80").text(), "a=127.0.0.1:80");
  EXPECT_EQ(LogField("a", "").text(), "a=\"\"");
  EXPECT_EQ(LogField("a", "two words").text(), "a=\"two words\"");
  EXPECT_EQ(LogField("a", "x\" b=\"y\\").text(), "a=\"x\\\" b=\\\"y\\\\\"");
  EXPECT_EQ(LogField("a", std::string("x\n\r\0y", 5)).text(), "a=\"x\\n\\x0d\\x00y\"");
  EXPECT_EQ(LogField("n", 7).text(), "n=7");
  EXPECT_EQ(LogField("n", uint64_t{18446744073709551615u}).text(), "n=18446744073709551615");
  EXPECT_EQ(LogField("n", 0.25).text(), "n=0.25");
  EXPECT_EQ(LogField("b", true).text(), "b=true");
  EXPECT_EQ(LogField("e", absl::NotFoundError("no file")).text(), "e=\"NOT_FOUND: no file\"");
  EXPECT_LT(LogField("a", std::string(100000, 'x') + " ").text().size(), 1000u);
}

TEST(LogEventTest, WritesOneLinePerEventAboveTheLevel) {
  EXPECT_EQ(SetUpLogging("loud", "edge").code(), absl::StatusCode::kInvalidArgument);
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(SetUpLogging("info", "edge").ok());
  LogEvent(LogLevel::kDebug, "hidden");
  LogEvent(LogLevel::kWarn, "link-lost", {{"upstream", "h:1"}, {"braces", "{}{0}"}});
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, Not(HasSubstr("hidden")));
  EXPECT_THAT(text,
              ContainsRegex("^20[0-9-]+T[0-9:.]+Z warning edge link-lost upstream=h:1 braces=\"\\{\\}\\{0\\}\"\n$"));
}

}  // namespace
}  // namespace updraft
