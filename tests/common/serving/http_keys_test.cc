// Keys over OpenAI's HTTP.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/serving/api_keys.h"
#include "tests/common/serving/fake_backend.h"
#include "tests/common/serving/http_talk.h"
#include "tests/common/serving/serve_http.h"

namespace updraft::testing {
namespace {

class HttpKeysTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "updraft_http_keys_", getpid());
    std::ofstream(path_) << LineOfKey({"ann", HashOfKey("sk-ann")}) << "\n"
                         << LineOfKey({"bob", HashOfKey("sk-bob")}) << "\n";
    chmod(path_.c_str(), 0600);
    auto keys = ApiKeys::Load(path_);
    ASSERT_TRUE(keys.ok()) << keys.status();
    tier_.backend().script = [this](const v1::GenerateRequest& request, SteadyTime,
                                    const std::shared_ptr<AnswerSink>& sink) {
      tenants_.push_back(request.tenant());
      tier_.backend().Answer(request, *sink);
      return RequestHandle();
    };
    auto access = HttpAccess::Make({.hosts = {}, .origins = {"https://ui.example.com"}});
    ASSERT_TRUE(access.ok());
    server_ = ServeHttp(tier_.backend(), tier_.metrics(), *std::move(access), absl::Seconds(15), *keys);
  }
  void TearDown() override {
    server_->Stop(absl::ZeroDuration());
    std::remove(path_.c_str());
  }
  RawResponse Ask(const std::string& headers, const std::string& method = "POST", const std::string& path = kChat) {
    return Fetch(server_->port(), method, path, method == "POST" ? ChatBody() : "", headers);
  }

  std::string path_;
  FakeTier tier_;
  std::unique_ptr<http::Server> server_;
  std::vector<std::string> tenants_;
};

TEST_F(HttpKeysTest, OnlyWhoHasAKeyIsAnswered) {
  for (const char* headers :
       {"", "Authorization: Bearer wrong\r\n", "Authorization: Basic sk-ann\r\n", "X-Api-Key: x\r\n"}) {
    for (const auto& [method, path] : std::vector<std::pair<std::string, std::string>>{
             {"POST", kChat}, {"POST", "/v1/completions"}, {"GET", "/v1/models"}, {"GET", "/metrics"}}) {
      const RawResponse response = Ask(headers, method, path);
      EXPECT_EQ(response.status, 401) << path << headers;
      EXPECT_EQ(response.headers.at("www-authenticate"), "Bearer");
      EXPECT_EQ((*http::ParseJson(response.body))["error"]["code"], "invalid_api_key");
      EXPECT_EQ((*http::ParseJson(response.body))["error"]["type"], "authentication_error");
      EXPECT_EQ(response.headers.count("x-request-id"), 1u);
    }
  }
  EXPECT_TRUE(tenants_.empty());
  EXPECT_THAT(tier_.metrics().Render(), ::testing::HasSubstr("updraft_refused_total"));
  EXPECT_EQ(Ask("Authorization: Bearer sk-ann\r\n").status, 200);
  EXPECT_EQ(Ask("X-Api-Key: sk-bob\r\n").status, 200);
  EXPECT_EQ(Ask("Authorization: Bearer sk-bob\r\n", "GET", "/v1/models").status, 200);
  EXPECT_EQ(Ask("Authorization: Bearer sk-bob\r\n", "GET", "/metrics").status, 200);
  EXPECT_EQ(tenants_, (std::vector<std::string>{"ann", "bob"}));
}

TEST_F(HttpKeysTest, HealthIsForEverybody) {
  EXPECT_EQ(Ask("", "GET", "/healthz").status, 200);
  EXPECT_EQ(Ask("", "GET", "/health").status, 200);
}

TEST_F(HttpKeysTest, TenantsAreTheKeys) {
  Ask("Authorization: Bearer sk-ann\r\nX-Updraft-Tenant: bob\r\n");
  Ask("Authorization: Bearer sk-ann\r\nX-Updraft-Tenant: ann\r\n");
  EXPECT_EQ(tenants_, (std::vector<std::string>{"ann/bob", "ann"}));
}

// A browser asks first, without a key; its request has one.
TEST_F(HttpKeysTest, APreflightNeedsNone) {
  const RawResponse preflight =
      Ask("Origin: https://ui.example.com\r\nAccess-Control-Request-Method: POST\r\n"
          "Access-Control-Request-Headers: authorization\r\n",
          "OPTIONS");
  EXPECT_EQ(preflight.status, 200);
  EXPECT_EQ(preflight.headers.at("access-control-allow-headers"), "authorization");
  const RawResponse refused = Ask("Origin: https://ui.example.com\r\nContent-Type: application/json\r\n");
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(refused.headers.at("access-control-allow-origin"), "https://ui.example.com")
      << "so that its page can read why";
}

}  // namespace
}  // namespace updraft::testing
