// What tests say to a front over OpenAI's HTTP, and what they read.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/http/json.h"
#include "tests/common/http/raw_client.h"

namespace updraft::testing {

using http::Json;
using http::testing::Fetch;
using http::testing::RawClient;
using http::testing::RawResponse;
using http::testing::RequestText;

inline constexpr char kChat[] = "/v1/chat/completions";

inline std::string ChatBody(const std::string& rest = "") {
  return R"({"model":"updraft","messages":[{"role":"user","content":"hello there"}],"max_tokens":24)" +
         (rest.empty() ? "" : "," + rest) + "}";
}

// The JSON objects of a stream, without the end mark.
inline std::vector<Json> Events(const std::string& body) {
  std::vector<Json> events;
  for (size_t at = 0; (at = body.find("data: ", at)) != std::string::npos;) {
    at += 6;
    const size_t end = body.find("\n\n", at);
    const std::string data = body.substr(at, end - at);
    if (data != "[DONE]") events.push_back(*http::ParseJson(data));
  }
  return events;
}

inline Json Post(int port, const std::string& path, const std::string& body, int* status = nullptr) {
  const RawResponse response = Fetch(port, "POST", path, body);
  if (status != nullptr) *status = response.status;
  auto json = http::ParseJson(response.body);
  EXPECT_TRUE(json.ok()) << response.status << " " << response.body;
  return json.ok() ? *json : Json();
}

}  // namespace updraft::testing
