#include "common/rpc/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace updraft {
namespace {

using ::testing::HasSubstr;

TEST(ParseHostPort, AcceptsTheUsualForms) {
  const struct {
    const char* text;
    const char* host;
    int port;
  } cases[] = {{"127.0.0.1:7070", "127.0.0.1", 7070}, {"localhost:1", "localhost", 1}, {"[::1]:65535", "::1", 65535},
               {"0.0.0.0:0", "0.0.0.0", 0},           {"a-b.c_d:80", "a-b.c_d", 80},   {"[::]:0", "::", 0}};
  for (const auto& c : cases) {
    const auto parsed = ParseHostPort(c.text, "listen", PortZero::kAllowed);
    ASSERT_TRUE(parsed.ok()) << c.text << ": " << parsed.status();
    EXPECT_EQ(parsed->host, c.host);
    EXPECT_EQ(parsed->port, c.port);
    EXPECT_EQ(parsed->ToString(), c.text);
  }
}

TEST(ParseHostPort, RefusesTheRestAndSaysWhatToWrite) {
  for (const char* text : {"",
                           ":",
                           "7070",
                           "localhost",
                           "localhost:",
                           ":7070",
                           "localhost:65536",
                           "localhost:-1",
                           "localhost:7x",
                           "localhost: 7",
                           "local host:7",
                           "::1:7070",
                           "[::1]",
                           "[::1]7070",
                           "[::1:7070",
                           "[]:7070",
                           "[xyz]:1",
                           "[127.0.0.1]:1",
                           "[fe1%0]:443",
                           "a:b:7",
                           "localhost:999999999999999999999",
                           "http://localhost:7070"}) {
    const auto parsed = ParseHostPort(text, "listen", PortZero::kAllowed);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("listen: expected HOST:PORT"));
  }
}

TEST(ParseHostPort, PortZeroIsOnlyForListening) {
  EXPECT_TRUE(ParseHostPort("localhost:0", "listen", PortZero::kAllowed).ok());
  const auto refused = ParseHostPort("localhost:0", "upstream", PortZero::kRefused);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("upstream"));
}

TEST(IsSameEndpoint, ComparesWhatTheTextTells) {
  const auto same = [](const char* listening, const char* target) {
    return IsSameEndpoint(*ParseHostPort(listening, "listen", PortZero::kAllowed),
                          *ParseHostPort(target, "upstream", PortZero::kRefused));
  };
  EXPECT_TRUE(same("127.0.0.1:7070", "127.0.0.1:7070"));
  EXPECT_TRUE(same("car.example:7070", "CAR.example:7070"));
  EXPECT_TRUE(same("127.0.0.1:7070", "localhost:7070"));
  EXPECT_TRUE(same("localhost:7070", "[::1]:7070"));
  EXPECT_TRUE(same("0.0.0.0:7070", "localhost:7070"));
  EXPECT_TRUE(same("0.0.0.0:7070", "127.0.0.1:7070"));
  EXPECT_TRUE(same("[::]:7070", "[::1]:7070"));
  EXPECT_TRUE(same("127.0.0.1:7070", "0.0.0.0:7070"));
  EXPECT_FALSE(same("127.0.0.1:7070", "127.0.0.1:7071"));
  EXPECT_FALSE(same("127.0.0.1:0", "127.0.0.1:7070"));
  EXPECT_FALSE(same("127.0.0.1:7070", "127.0.0.2:7070"));
  EXPECT_FALSE(same("127.0.0.1:7070", "cloud.example:7070"));
  EXPECT_FALSE(same("0.0.0.0:7070", "10.0.0.7:7070"));
}

TEST(ParseHostPort, RandomBytesNeverBreakItAndWhatPassesRoundTrips) {
  const uint32_t seed = 20240607;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  const std::string alphabet = "a:[]0179.-\x80\n%";
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (int n = random() % 12; n > 0; --n) text += alphabet[random() % alphabet.size()];
    const auto parsed = ParseHostPort(text, "x", PortZero::kAllowed);
    if (!parsed.ok()) continue;
    const auto again = ParseHostPort(parsed->ToString(), "x", PortZero::kAllowed);
    ASSERT_TRUE(again.ok()) << text << " -> " << parsed->ToString();
    EXPECT_EQ(again->host, parsed->host);
    EXPECT_EQ(again->port, parsed->port);
  }
}

}  // namespace
}  // namespace updraft
