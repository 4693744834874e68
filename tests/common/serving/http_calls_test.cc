// Calls of tools over OpenAI's HTTP, as a backend's answers spell them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/common/serving/fake_backend.h"
#include "tests/common/serving/http_talk.h"
#include "tests/common/serving/serve_http.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kTools[] =
    R"("tools":[{"type":"function","function":{"name":"get","description":"Gets.","strict":true,"parameters":)"
    R"({"type":"object","properties":{"of":{"type":"string"}},"required":["of"],"additionalProperties":false}}},)"
    R"({"type":"function","function":{"name":"stop"}}])";

class HttpCallsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    tier_.backend().model = &FakeCallingModel();
    server_ = ServeHttp(tier_.backend(), tier_.metrics());
  }
  void TearDown() override { server_->Stop(absl::ZeroDuration()); }
  int port() const { return server_->port(); }

  // Every request is answered by this text, in pieces of so many bytes.
  void Say(const std::string& text, size_t piece, v1::FinishReason reason = v1::FINISH_REASON_STOP) {
    tier_.backend().script = [this, text, piece, reason](const v1::GenerateRequest& request, SteadyTime,
                                                         const std::shared_ptr<AnswerSink>& sink) {
      asked_ = request;
      for (size_t at = 0; at < text.size(); at += piece) {
        v1::Chunk chunk = MakeChunk("fake", text.substr(at, piece), 1);
        chunk.set_call_format(call_format_);
        if (request.include_evidence()) chunk.add_evidence()->set_logprob(-0.5f);
        EXPECT_TRUE(sink->OnChunk(chunk).ok());
      }
      v1::Done done;
      done.set_finish_reason(reason);
      sink->OnEnd(absl::OkStatus(), done);
      return RequestHandle();
    };
  }

  struct Call {
    std::string id, name, arguments;
  };
  struct Said {
    Json content = nullptr;
    std::vector<Call> calls = {};
    std::string finish_reason = {};
  };

  Said Whole(const std::string& rest, size_t choice = 0) {
    const Json answer = Post(port(), kChat, ChatBody(absl::StrCat(kTools, rest.empty() ? "" : ",", rest)));
    const Json& chosen = answer["choices"][choice];
    Said said;
    said.content = chosen["message"]["content"];
    said.finish_reason = chosen["finish_reason"];
    if (!chosen["message"].contains("tool_calls")) return said;
    for (const Json& call : chosen["message"]["tool_calls"]) {
      EXPECT_EQ(call["type"], "function");
      said.calls.push_back({call["id"], call["function"]["name"], call["function"]["arguments"]});
    }
    return said;
  }

  // As a client puts the parts together.
  Said Streamed(const std::string& rest, int choice = 0) {
    const RawResponse response = Fetch(
        port(), "POST", kChat, ChatBody(absl::StrCat(kTools, R"(,"stream":true)", rest.empty() ? "" : ",", rest)));
    Said said;
    for (const Json& event : Events(response.body)) {
      for (const Json& chosen : event["choices"]) {
        if (chosen["index"] != choice) continue;
        const Json& delta = chosen["delta"];
        if (!chosen["finish_reason"].is_null()) said.finish_reason = chosen["finish_reason"];
        if (delta.contains("content") && delta["content"].is_string() && delta["content"] != "") {
          said.content =
              (said.content.is_null() ? "" : said.content.get<std::string>()) + delta["content"].get<std::string>();
        }
        if (!delta.contains("tool_calls")) continue;
        for (const Json& part : delta["tool_calls"]) {
          const size_t index = part["index"];
          EXPECT_LE(index, said.calls.size()) << "calls come one after the other";
          if (index == said.calls.size()) {
            EXPECT_EQ(part["type"], "function");
            said.calls.push_back({part["id"], part["function"]["name"], ""});
          } else {
            EXPECT_FALSE(part.contains("id")) << "the id comes once";
          }
          said.calls[index].arguments += part["function"]["arguments"].get<std::string>();
        }
      }
    }
    return said;
  }

  static std::string Shown(const Said& said) {
    std::string shown = said.content.is_null() ? "null" : said.content.get<std::string>();
    for (const Call& call : said.calls) absl::StrAppend(&shown, "|", call.name, "(", call.arguments, ")");
    return absl::StrCat(shown, "|", said.finish_reason);
  }

  FakeTier tier_;
  std::unique_ptr<http::Server> server_;
  v1::GenerateRequest asked_;
  std::string call_format_;
};

const std::string kTwoCalls =
    "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"of\": \"a\"}}\n</tool_call>\n"
    "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";

TEST_F(HttpCallsTest, AreReadOutOfAnswers) {
  for (const size_t piece : {1u, 7u, 1000u}) {
    Say("I see.\n" + kTwoCalls, piece);
    for (const bool streams : {false, true}) {
      const Said said = streams ? Streamed("") : Whole("");
      EXPECT_EQ(Shown(said), R"(I see.|get({"of": "a"})|stop({})|tool_calls)") << piece << streams;
      ASSERT_EQ(said.calls.size(), 2u);
      EXPECT_NE(said.calls[0].id, said.calls[1].id);
      EXPECT_THAT(said.calls[0].id, ::testing::StartsWith("call_"));
    }
    Say(kTwoCalls, piece);
    EXPECT_EQ(Shown(Whole("")), R"(null|get({"of": "a"})|stop({})|tool_calls)");
    EXPECT_EQ(Shown(Streamed("")), R"(null|get({"of": "a"})|stop({})|tool_calls)");
    Say("No call. <tool_c", piece);
    EXPECT_EQ(Shown(Whole("")), "No call. <tool_c|stop");
    EXPECT_EQ(Shown(Streamed("")), "No call. <tool_c|stop");
  }
}

TEST_F(HttpCallsTest, ChoicesReachTheBackend) {
  Say(kTwoCalls, 5);
  Whole("");
  ASSERT_EQ(asked_.tools_size(), 2);
  EXPECT_TRUE(asked_.tools(0).strict());
  EXPECT_FALSE(asked_.tools(1).strict());
  EXPECT_FALSE(asked_.has_tool_choice());
  EXPECT_EQ(Shown(Whole(R"("parallel_tool_calls":false)")), R"(null|get({"of": "a"})|tool_calls)");
  EXPECT_TRUE(asked_.tool_choice().one_call());
  Whole(R"("tool_choice":"required")");
  EXPECT_EQ(asked_.tool_choice().mode(), v1::ToolChoice::MODE_REQUIRED);
  // As OpenAI has it: who named the tool is told that the answer just ended.
  const Said named = Whole(R"("tool_choice":{"type":"function","function":{"name":"get"}})");
  EXPECT_EQ(named.finish_reason, "stop");
  EXPECT_EQ(asked_.tool_choice().name(), "get");
  // Without a choice of tools it is text.
  EXPECT_EQ(Shown(Whole(R"("tool_choice":"none")")), kTwoCalls + "|stop");
}

TEST_F(HttpCallsTest, WhatBreaksOffIsGivenAsFarAsItCame) {
  Say(R"(<tool_call>{"name": "get", "arguments": {"of": "a)", 3, v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(Shown(Whole("")), R"(null|get({"of": "a)|length)");
  EXPECT_EQ(Shown(Streamed("")), R"(null|get({"of": "a)|length)");
}

// A stop string in the midst of a call: nothing to act on.
TEST_F(HttpCallsTest, WhatAStopStringCutsIsNoWholeCall) {
  Say(R"(<tool_call>{"name": "get", "arguments": {"of": "a)", 3);
  EXPECT_EQ(Shown(Whole("")), R"(null|get({"of": "a)|length)");
  EXPECT_EQ(Shown(Streamed("")), R"(null|get({"of": "a)|length)");
}

// Whoever wrote the answer says how it calls; here is another form known than there.
TEST_F(HttpCallsTest, AreReadAsTheirWriterWritesThem) {
  call_format_ = "mistral";
  Say(R"(So. [TOOL_CALLS] [{"name": "get", "arguments": {"of": "a"}}])", 5);
  EXPECT_EQ(Shown(Whole("")), R"(So.|get({"of": "a"})|tool_calls)");
  EXPECT_EQ(Shown(Streamed("")), R"(So.|get({"of": "a"})|tool_calls)");
  call_format_ = "a form of tomorrow";
  EXPECT_EQ(Whole("").calls.size(), 0u);
  EXPECT_EQ(Whole("").finish_reason, "stop");
}

// Accumulators put "" and null together to "": a stream that has calls alone must not say "".
TEST_F(HttpCallsTest, AStreamWithoutTextHasNoContent) {
  Say(kTwoCalls, 5);
  const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(absl::StrCat(kTools, R"(,"stream":true)")));
  for (const Json& event : Events(response.body)) {
    const Json& delta = event["choices"][0]["delta"];
    EXPECT_TRUE(!delta.contains("content") || delta["content"].is_null()) << event.dump();
  }
}

TEST_F(HttpCallsTest, OfEachChoice) {
  Say(kTwoCalls, 4);
  const Said first = Whole(R"("n":2)"), second = Whole(R"("n":2)", 1);
  EXPECT_EQ(Shown(first), Shown(second));
  EXPECT_NE(first.calls[0].id, second.calls[0].id);
  EXPECT_EQ(Shown(Streamed(R"("n":2)", 1)), Shown(first));
}

// The same request sent again gets the same ids.
TEST_F(HttpCallsTest, IdsBelongToTheRequest) {
  Say(kTwoCalls, 4);
  const auto id = [&](const char* headers) {
    const RawResponse response = Fetch(port(), "POST", kChat, ChatBody(kTools), headers);
    return (*http::ParseJson(response.body))["choices"][0]["message"]["tool_calls"][0]["id"].get<std::string>();
  };
  EXPECT_EQ(id("X-Request-Id: one\r\n"), id("X-Request-Id: one\r\n"));
  EXPECT_NE(id("X-Request-Id: one\r\n"), id("X-Request-Id: two\r\n"));
}

TEST_F(HttpCallsTest, LogProbabilitiesAreOfAllThatWasWritten) {
  Say(kTwoCalls, 6);
  const Json answer = Post(port(), kChat, ChatBody(absl::StrCat(kTools, R"(,"logprobs":true)")));
  EXPECT_EQ(answer["choices"][0]["logprobs"]["content"].size(), (kTwoCalls.size() + 5) / 6);
  EXPECT_TRUE(answer["choices"][0]["message"]["content"].is_null());
}

TEST_F(HttpCallsTest, WhatCannotBeIsRefusedByItsField) {
  const auto refused = [&](const std::string& fields) {
    int status = 0;
    const Json error = Post(port(), kChat, ChatBody(fields), &status)["error"];
    EXPECT_EQ(status, 400) << fields;
    return absl::StrCat(error["param"].is_string() ? error["param"].get<std::string>() : "none", ": ",
                        error["message"].get<std::string>());
  };
  const std::string odd = R"({"type":"object","properties":{"a":{"not":{}}}})";
  EXPECT_THAT(
      refused(R"("tools":[{"type":"function","function":{"name":"f","strict":true,"parameters":)" + odd + "}}]"),
      HasSubstr("tools[0].function.parameters: tools[0].function.parameters: #/properties/a/not: "));
  EXPECT_THAT(refused(R"("tools":[{"type":"function","function":{"name":"f","strict":1}}])"),
              HasSubstr("tools[0].function.strict"));
  EXPECT_THAT(refused(absl::StrCat(kTools, R"(,"parallel_tool_calls":"no")")), HasSubstr("parallel_tool_calls"));
  EXPECT_THAT(refused(absl::StrCat(kTools, R"(,"response_format":{"type":"json_object"})")), HasSubstr("tools"));
  // Not strict: as far as the schema can be followed.
  Say("Hi", 2);
  EXPECT_EQ(Fetch(port(), "POST", kChat,
                  ChatBody(R"("tools":[{"type":"function","function":{"name":"f","parameters":)" + odd + "}}]"))
                .status,
            200);
}

}  // namespace
}  // namespace updraft::testing
