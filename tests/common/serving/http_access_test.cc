// Which Host and Origin pass, by table; the front's tests show the same over sockets.
#include "common/serving/http_access.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "common/http/openai.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

HttpAccess AccessWith(HttpAccessOptions options) {
  auto access = HttpAccess::Make(options);
  EXPECT_TRUE(access.ok()) << access.status();
  return *std::move(access);
}

http::Request Head(const std::string& method, std::map<std::string, std::string> headers) {
  http::Request head;
  head.method = method;
  head.path = "/v1/chat/completions";
  head.headers = std::move(headers);
  return head;
}

bool PassesHost(const HttpAccess& access, const std::string& host) {
  const absl::Status status = access.CheckHost(Head("GET", {{"host", host}}));
  if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << host;
    EXPECT_EQ(http::openai::FieldOf(status), "Host");
    EXPECT_THAT(std::string(status.message()), HasSubstr("--allow-host")) << host;
    EXPECT_THAT(std::string(status.message()), HasSubstr("found '" + host.substr(0, 200) + "'"));
  }
  return status.ok();
}

bool PassesOrigin(const HttpAccess& access, const std::string& origin, const std::string& host = "localhost:8080") {
  const absl::Status status = access.CheckOrigin(Head("GET", {{"host", host}, {"origin", origin}}));
  if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << origin;
    EXPECT_EQ(http::openai::FieldOf(status), "Origin");
    EXPECT_THAT(std::string(status.message()), HasSubstr("--allow-origin")) << origin;
    EXPECT_THAT(std::string(status.message()), HasSubstr("found '" + origin.substr(0, 200) + "'"));
  }
  return status.ok();
}

// A name can be made to point here by whoever owns it; an address cannot.
TEST(HttpAccess, LoopbackNamesAndAddressesWithAnyPort) {
  const HttpAccess access;
  for (const char* host : {"localhost", "localhost:8080", "LOCALHOST:1", "localhost.", "localhost:", "a.localhost:80",
                           "127.0.0.1", "127.0.0.1:8080", "127.9.9.9:65535", "0.0.0.0:8080", "10.1.2.3:8080",
                           "203.0.113.7", "[::1]", "[::1]:8080", "[fe80::1%eth0]:8080", "[2001:DB8::1]:80", ""}) {
    EXPECT_TRUE(PassesHost(access, host)) << host;
  }
  for (const char* host : {"evil.com",
                           "evil.com:8080",
                           "localhost.evil.com",
                           "127.0.0.1.evil.com",
                           "127.0.0.1.nip.io:8080",
                           "notlocalhost",
                           "2130706433",
                           "0x7f.1",
                           "127.1",
                           "1.2.3",
                           "user@localhost",
                           "localhost@evil.com",
                           "localhost:8080:evil.com",
                           "localhost evil.com",
                           "::1",
                           "[::1",
                           "[::1]evil.com",
                           "[evil.com]",
                           "[::1].evil.com",
                           "localhost/evil.com",
                           ".localhost.com",
                           ".",
                           "..",
                           ":8080",
                           "localhost:port",
                           "localhost:123456",
                           "\xc3\xa9.localhost.com"}) {
    EXPECT_FALSE(PassesHost(access, host)) << host;
  }
  EXPECT_TRUE(access.CheckHost(Head("GET", {})).ok()) << "HTTP/1.0 of a load balancer";
}

TEST(HttpAccess, ConfiguredHosts) {
  const HttpAccess access = AccessWith({.hosts = {"Car.example.com", "*.svc.cluster.local"}});
  for (const char* host :
       {"car.example.com", "CAR.example.com:443", "car.example.com.", "a.b.svc.cluster.local:8080"}) {
    EXPECT_TRUE(PassesHost(access, host)) << host;
  }
  for (const char* host : {"example.com", "a.car.example.com", "xcar.example.com", "svc.cluster.local",
                           "evil-svc.cluster.local", "car.example.com.evil.com"}) {
    EXPECT_FALSE(PassesHost(access, host)) << host;
  }
  EXPECT_TRUE(PassesHost(AccessWith({.hosts = {"*"}}), "any.thing:1"));
  // A whole URL as the target names a host, too.
  http::Request head = Head("GET", {{"host", "localhost"}});
  head.authority = "localhost:8080";
  EXPECT_TRUE(HttpAccess().CheckHost(head).ok());
  head.authority = "evil.com";
  EXPECT_FALSE(HttpAccess().CheckHost(head).ok());
}

TEST(HttpAccess, TheMessageNamesHeaderExpectationFindingAndFlag) {
  const absl::Status host = HttpAccess().CheckHost(Head("GET", {{"host", "Evil.com:8080"}}));
  EXPECT_EQ(host.message(),
            "Host: expected localhost, an IP address or a name that this server was told of, found 'Evil.com:8080'; if "
            "that is its name, start it with --allow-host evil.com");
  const absl::Status origin =
      HttpAccess().CheckOrigin(Head("GET", {{"host", "localhost"}, {"origin", "https://evil.com"}}));
  EXPECT_EQ(
      origin.message(),
      "Origin: expected this server's own pages or an origin that it was told of, found 'https://evil.com'; if its "
      "pages may use this server, start it with --allow-origin https://evil.com");
  EXPECT_FALSE(PassesHost(HttpAccess(), std::string(5000, 'x')));
  EXPECT_LT(HttpAccess().CheckHost(Head("GET", {{"host", std::string(5000, 'x')}})).message().size(), 700u);
}

TEST(HttpAccess, OwnPagesAndConfiguredOrigins) {
  const HttpAccess plain;
  EXPECT_TRUE(plain.CheckOrigin(Head("GET", {{"host", "localhost"}})).ok()) << "programs send none";
  const std::pair<const char*, const char*> same[] = {
      {"http://localhost:8080", "localhost:8080"},
      {"http://LOCALHOST:8080", "localhost:8080"},
      {"http://127.0.0.1:8080", "127.0.0.1:8080"},
      {"http://[::1]:8080", "[::1]:8080"},
      {"http://localhost", "localhost"},
      {"http://localhost", "localhost:80"},
      {"https://car.example.com", "car.example.com"},
      {"https://car.example.com", "car.example.com:443"},
      {"http://192.168.1.5:8080", "192.168.1.5:8080"},
  };
  for (const auto& [origin, host] : same) EXPECT_TRUE(PassesOrigin(plain, origin, host)) << origin << " " << host;
  const std::pair<const char*, const char*> others[] = {
      {"http://evil.com", "localhost:8080"},
      {"http://localhost:3000", "localhost:8080"},
      {"http://127.0.0.1:8080", "localhost:8080"},
      {"null", "localhost:8080"},
      {"file://localhost:8080", "localhost:8080"},
      {"http://localhost:8080/", "localhost:8080"},
      {"http://localhost", "localhost:443"},
      {"https://localhost", "localhost:80"},
      {"localhost:8080", "localhost:8080"},
      {"http://localhost:8080", ""},
      {"http://evil.com@localhost:8080", "localhost:8080"},
  };
  for (const auto& [origin, host] : others) EXPECT_FALSE(PassesOrigin(plain, origin, host)) << origin << " " << host;

  const HttpAccess access = AccessWith({.origins = {"https://Console.example.com:443", "app://localhost", "null"}});
  for (const char* origin :
       {"https://console.example.com", "HTTPS://console.example.com:443", "app://localhost", "null"}) {
    EXPECT_TRUE(PassesOrigin(access, origin)) << origin;
  }
  for (const char* origin : {"http://console.example.com", "https://console.example.com:8443", "https://example.com",
                             "https://a.console.example.com", "app://localhost:1", "nullify"}) {
    EXPECT_FALSE(PassesOrigin(access, origin)) << origin;
  }
  EXPECT_TRUE(PassesOrigin(AccessWith({.origins = {"*"}}), "https://any.thing"));
  EXPECT_TRUE(PassesOrigin(AccessWith({.origins = {"*"}}), "null"));
}

TEST(HttpAccess, ABodyFromAPageIsJson) {
  const HttpAccess access = AccessWith({.origins = {"https://ui"}});
  const auto check = [&](const std::string& type, const std::string& origin) {
    return access.Check(Head("POST", {{"host", "localhost"}, {"origin", origin}, {"content-type", type}}));
  };
  for (const char* origin : {"https://ui", "http://localhost"}) {
    for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"}) {
      EXPECT_TRUE(check(type, origin).ok()) << type;
    }
    for (const char* type : {"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
                             "text/plain; application/json", "application/jsonp", "application/json2"}) {
      const absl::Status status = check(type, origin);
      EXPECT_EQ(http::openai::HttpStatusOf(status), 415) << type;
      EXPECT_THAT(std::string(status.message()), HasSubstr("Content-Type: expected application/json"));
    }
  }
  EXPECT_TRUE(check("text/plain", "").ok()) << "a program says what it likes";
  EXPECT_TRUE(access.Check(Head("GET", {{"host", "localhost"}, {"origin", "https://ui"}})).ok());
}

TEST(HttpAccess, GrantsToConfiguredOriginsOnly) {
  const HttpAccess access = AccessWith({.origins = {"https://ui"}});
  const auto granted = [&](std::map<std::string, std::string> headers, const std::string& method = "OPTIONS") {
    const http::Verdict verdict = access.Grant(Head(method, std::move(headers)));
    std::map<std::string, std::string> all(verdict.headers.begin(), verdict.headers.end());
    if (verdict.answer) {
      all["status"] = std::to_string(verdict.answer->status);
      for (const auto& [name, value] : verdict.answer->headers) all[name] = value;
    }
    return all;
  };
  const std::map<std::string, std::string> preflight = {
      {"host", "localhost"},
      {"origin", "https://ui"},
      {"access-control-request-method", "POST"},
      {"access-control-request-headers", "authorization,content-type,x-stainless-os"},
      {"access-control-request-private-network", "true"}};
  auto answer = granted(preflight);
  EXPECT_EQ(answer["status"], "200");
  EXPECT_EQ(answer["Access-Control-Allow-Origin"], "https://ui");
  EXPECT_EQ(answer["Access-Control-Allow-Methods"], "GET, POST");
  EXPECT_EQ(answer["Access-Control-Allow-Headers"], "authorization,content-type,x-stainless-os");
  EXPECT_EQ(answer["Access-Control-Allow-Private-Network"], "true");
  EXPECT_EQ(answer["Access-Control-Max-Age"], "600");
  EXPECT_EQ(answer["Vary"], "Origin");
  auto post = granted({{"host", "localhost"}, {"origin", "https://ui"}}, "POST");
  EXPECT_EQ(post.count("status"), 0u);
  EXPECT_EQ(post["Access-Control-Allow-Origin"], "https://ui");
  EXPECT_THAT(post["Access-Control-Expose-Headers"], HasSubstr("X-Request-Id"));
  const std::map<std::string, std::string> only_vary = {{"Vary", "Origin"}};
  EXPECT_EQ(granted({{"host", "localhost"}}, "POST"), only_vary);
  EXPECT_EQ(granted({{"host", "localhost"}, {"origin", "http://localhost"}}, "POST"), only_vary);
  EXPECT_TRUE(HttpAccess().Grant(Head("POST", {{"host", "localhost"}})).headers.empty());
}

TEST(HttpAccess, RulesThatCannotBeAreRefusedByName) {
  for (const char* host : {"", "http://car.example.com", "car.example.com:8080", "car.example.com:", "*.", "*car",
                           "a b", "a/b", "*.*.com"}) {
    const absl::Status status = HttpAccess::Make({.hosts = {host}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << host;
    EXPECT_THAT(std::string(status.message()), HasSubstr("allow_host: expected")) << host;
  }
  for (const char* origin : {"", "car.example.com", "https://", "https://a/b", "https://a/", "https://a b", "://a",
                             "https://*.example.com", "https://a:port"}) {
    const absl::Status status = HttpAccess::Make({.origins = {origin}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << origin;
    EXPECT_THAT(std::string(status.message()), HasSubstr("allow_origin: expected")) << origin;
  }
}

}  // namespace
}  // namespace updraft
