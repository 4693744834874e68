// A front over a backend, in the test's own process.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "absl/time/time.h"
#include "common/http/server.h"
#include "common/serving/http_front.h"

namespace updraft::testing {

// With limits that a test can reach.
inline std::unique_ptr<http::Server> ServeHttp(Backend& backend, Metrics& metrics, HttpAccess access = {},
                                               absl::Duration silence = absl::Seconds(15),
                                               std::shared_ptr<const ApiKeys> keys = nullptr) {
  http::ServerOptions options;
  options.silence = silence;
  options.listen = "127.0.0.1:0";
  options.max_body_bytes = 64 << 10;
  options.read_timeout = absl::Seconds(2);
  auto server = http::Server::Start(options, MakeHttpFront(&backend, &metrics, std::move(access), std::move(keys)));
  EXPECT_TRUE(server.ok()) << server.status();
  return *std::move(server);
}

}  // namespace updraft::testing
