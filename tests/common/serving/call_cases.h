// Calls of tools by tiers that run a model, whatever it would say: random weights say nothing sensible. Included by
// tests of tiers that were started with --chat-template=hermes.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/common/serving/http_talk.h"

namespace updraft::testing {

inline constexpr char kCallableTools[] =
    R"("tools":[{"type":"function","function":{"name":"set_level","parameters":{"type":"object","properties":)"
    R"({"zone":{"enum":["left","right"]},"level":{"type":"integer","minimum":0,"maximum":99}},"required":)"
    R"(["zone","level"]}}},{"type":"function","function":{"name":"stop"}}])";

inline void ExpectCallThatFits(const Json& call, const std::string& text) {
  const std::string name = call["function"]["name"];
  const auto arguments = http::ParseJson(call["function"]["arguments"].get<std::string>());
  ASSERT_TRUE(arguments.ok()) << text;
  if (name == "stop") {
    EXPECT_EQ(*arguments, Json::object()) << text;
    return;
  }
  EXPECT_EQ(name, "set_level") << text;
  EXPECT_EQ(arguments->size(), 2u) << text;
  EXPECT_TRUE(arguments->at("zone") == "left" || arguments->at("zone") == "right") << text;
  EXPECT_TRUE(arguments->at("level").is_number_integer() && arguments->at("level") >= 0 && arguments->at("level") <= 99)
      << text;
}

// Required calls come, fit, and are the same streamed; one that is named is that one.
inline void ExpectHeldCalls(int port) {
  for (int seed = 1; seed <= 6; ++seed) {
    const std::string body = absl::StrFormat(
        R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":300,"temperature":1.5,"seed":%d,)"
        R"("parallel_tool_calls":false,"tool_choice":"required",%s)",
        seed, kCallableTools);
    const Json answer = Post(port, kChat, body + "}");
    const Json& choice = answer["choices"][0];
    ASSERT_EQ(choice["finish_reason"], "tool_calls") << answer.dump();
    ASSERT_EQ(choice["message"]["tool_calls"].size(), 1u) << answer.dump();
    EXPECT_TRUE(choice["message"]["content"].is_null()) << answer.dump();
    ExpectCallThatFits(choice["message"]["tool_calls"][0], answer.dump());
    std::string name, arguments;
    for (const Json& event : Events(Fetch(port, "POST", kChat, body + R"(,"stream":true})").body)) {
      for (const Json& part : event["choices"]) {
        if (!part["delta"].contains("tool_calls")) continue;
        const Json& function = part["delta"]["tool_calls"][0]["function"];
        name += function.value("name", "");
        arguments += function["arguments"].get<std::string>();
      }
    }
    EXPECT_EQ(name, choice["message"]["tool_calls"][0]["function"]["name"]);
    EXPECT_EQ(arguments, choice["message"]["tool_calls"][0]["function"]["arguments"]);
  }
  const Json named = Post(port, kChat,
                          absl::StrCat(R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":300,)",
                                       R"("tool_choice":{"type":"function","function":{"name":"set_level"}},)",
                                       R"("parallel_tool_calls":false,)", kCallableTools, "}"));
  ASSERT_EQ(named["choices"][0]["message"]["tool_calls"].size(), 1u) << named.dump();
  EXPECT_EQ(named["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "set_level");
  // Left to the model, and none allowed: text, as random weights have it.
  for (const char* choice : {"\"auto\"", "\"none\""}) {
    const Json free = Post(port, kChat,
                           absl::StrCat(R"({"messages":[{"role":"user","content":"hello there"}],)",
                                        R"("max_tokens":24,"tool_choice":)", choice, ",", kCallableTools, "}"));
    EXPECT_NE(free["choices"][0]["finish_reason"], "tool_calls") << free.dump();
    EXPECT_FALSE(free["choices"][0]["message"].contains("tool_calls")) << free.dump();
  }
  // A call that was made, and its result, are part of the next prompt.
  const std::string turn =
      R"({"messages":[{"role":"user","content":"hello there"},{"role":"assistant","content":null,"tool_calls":[{"id":)"
      R"("call_1","type":"function","function":{"name":"stop","arguments":"{}"}}]},{"role":"tool","tool_call_id":)"
      R"("call_1","content":"stopped"}],"max_tokens":4)";
  EXPECT_EQ(Fetch(port, "POST", kChat, absl::StrCat(turn, ",", kCallableTools, "}")).status, 200);
}

}  // namespace updraft::testing
