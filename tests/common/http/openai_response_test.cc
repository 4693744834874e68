// Answers and errors as OpenAI writes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "common/http/openai.h"
#include "common/status/retry_delay.h"

namespace updraft::http::openai {
namespace {

using ::testing::HasSubstr;

// Tokens that are no text are told apart, and from the replacement character.
TEST(ResponseTest, TokensOfACompletionThatAreNoText) {
  const AnswerHeader header{"cmpl-1", "m", 17, false, true, 3};
  const Choice choice{"x", "stop", {{"\xc3", -1.0, 0, {{"\xc3", -1.0}, {"\xa9", -2.0}, {"\xef\xbf\xbd", -3.0}}}}};
  const Json object = *ParseJson(DumpJson(AnswerObject(header, {choice}, {3, 1})));
  const Json& logprobs = object["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"], Json::array({"bytes:\\xc3"}));
  EXPECT_EQ(logprobs["top_logprobs"][0], Json({{"bytes:\\xc3", -1.0}, {"bytes:\\xa9", -2.0}, {"\xef\xbf\xbd", -3.0}}));
}

// A call is opened once, by its id and name, and goes on by its index.
TEST(ResponseTest, CallsOfTools) {
  const AnswerHeader header{"chatcmpl-1", "m", 17, true, false, 0};
  Choice choice{"", "tool_calls"};
  choice.tool_calls = {{"call_1", "f", "{}"}};
  const Json message = AnswerObject(header, {choice}, {3, 1})["choices"][0]["message"];
  EXPECT_TRUE(message["content"].is_null());
  EXPECT_EQ(message["tool_calls"], Json::parse(R"([{"id":"call_1","type":"function","function":)"
                                               R"({"name":"f","arguments":"{}"}}])"));
  const Json opening = StreamCallOpening(header, 1, "call_1", "f", 2)["choices"][0];
  EXPECT_EQ(opening["index"], 2);
  EXPECT_EQ(opening["delta"], Json::parse(R"({"tool_calls":[{"index":1,"id":"call_1","type":"function","function":)"
                                          R"({"name":"f","arguments":""}}]})"));
  EXPECT_EQ(StreamCallDelta(header, 1, "{}")["choices"][0]["delta"],
            Json::parse(R"({"tool_calls":[{"index":1,"function":{"arguments":"{}"}}]})"));
}

TEST(ResponseTest, ChatCompletion) {
  AnswerHeader header{"chatcmpl-1", "m", 17, true, true, 2};
  const Choice choice{"hé",
                      "stop",
                      {{"h", -0.5, 0, {{"H", -0.4}, {"h", -0.5}}}, {"\xc3", -1.0}, {"\xa9", -HUGE_VAL}},
                      {{"decision", "keep"}}};
  Json object = AnswerObject(header, {choice}, {3, 2});
  EXPECT_EQ(object["object"], "chat.completion");
  EXPECT_EQ(object["choices"][0]["message"]["content"], "hé");
  EXPECT_EQ(object["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(object["usage"]["total_tokens"], 5);
  EXPECT_EQ(object["updraft"]["decision"], "keep");
  const Json& content = object["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content[1]["bytes"], Json::array({0xc3}));
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][0], Json({{"token", "H"}, {"logprob", -0.4}, {"bytes", {'H'}}}));
  EXPECT_EQ(content[1]["top_logprobs"], Json::array());
  // Half a character in a token and an infinite logprob still make valid JSON.
  auto parsed = ParseJson(DumpJson(object));
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ((*parsed)["choices"][0]["logprobs"]["content"][2]["logprob"], -9999.0);
}

TEST(ResponseTest, SeveralChoices) {
  for (const bool chat : {true, false}) {
    const AnswerHeader header{"x-1", "m", 17, chat, false, 0};
    const Json object = AnswerObject(
        header, {{"a", "stop", {}, {{"decision", "keep"}}}, {"b", "length", {}, {{"decision", "hand-over"}}}}, {3, 4});
    ASSERT_EQ(object["choices"].size(), 2u);
    const Json& second = object["choices"][1];
    EXPECT_EQ(object["choices"][0]["index"], 0);
    EXPECT_EQ(second["index"], 1);
    EXPECT_EQ(chat ? second["message"]["content"] : second["text"], "b");
    EXPECT_EQ(second["finish_reason"], "length");
    EXPECT_EQ(second["updraft"]["decision"], "hand-over");
    EXPECT_FALSE(object.contains("updraft")) << "each has its own";
    for (const Json& event :
         {StreamOpening(header, 1), StreamDelta(header, "b", {}, 1), StreamClosing(header, "stop", nullptr, 1)}) {
      ASSERT_EQ(event["choices"].size(), 1u);
      EXPECT_EQ(event["choices"][0]["index"], 1);
    }
  }
}

TEST(ResponseTest, StreamObjects) {
  AnswerHeader header{"chatcmpl-1", "m", 17, true, false, 0};
  EXPECT_EQ(StreamOpening(header)["choices"][0]["delta"]["role"], "assistant");
  Json delta = StreamDelta(header, "x", {});
  EXPECT_EQ(delta["object"], "chat.completion.chunk");
  EXPECT_EQ(delta["choices"][0]["delta"], Json({{"content", "x"}}));
  EXPECT_TRUE(delta["choices"][0]["finish_reason"].is_null());
  Json closing = StreamClosing(header, "length", {{"tier", "edge"}});
  EXPECT_EQ(closing["choices"][0]["delta"], Json::object());
  EXPECT_EQ(closing["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(closing["updraft"]["tier"], "edge");
  EXPECT_TRUE(StreamUsage(header, {1, 2})["choices"].empty());
  EXPECT_EQ(ServerSentEvent({{"a", 1}}), "data: {\"a\":1}\n\n");
}

TEST(ResponseTest, CompletionForm) {
  AnswerHeader header{"cmpl-1", "m", 17, false, true, 1};
  Json object = StreamDelta(header, "ab", {{"a", -1.0, 10}, {"b", -2.0, 11, {{"c", -0.5}}}});
  EXPECT_EQ(object["object"], "text_completion");
  EXPECT_EQ(object["choices"][0]["text"], "ab");
  EXPECT_EQ(object["choices"][0]["logprobs"]["text_offset"], Json::array({10, 11}));
  EXPECT_EQ(object["choices"][0]["logprobs"]["top_logprobs"][1], Json({{"b", -2.0}, {"c", -0.5}}));
}

TEST(ErrorTest, MapsCodesAndCarriesTheField) {
  Response response = ErrorResponse(FieldError("temperature", "expected less"));
  EXPECT_EQ(response.status, 400);
  Json body = *ParseJson(response.body);
  EXPECT_EQ(body["error"]["param"], "temperature");
  EXPECT_FALSE(body["error"].contains("request_id"));
  EXPECT_EQ(ErrorObject(absl::InternalError("x"), "abc")["error"]["request_id"], "abc");
  EXPECT_EQ((*ParseJson(ErrorResponse(absl::InternalError("x"), "abc").body))["error"]["request_id"], "abc");
  EXPECT_EQ((*ParseJson(ServerErrorBody(413, "x", "abc").body))["error"]["request_id"], "abc");
  response = ErrorResponse(FieldError("Content-Encoding", "expected none"));
  EXPECT_EQ(response.status, 415);
  EXPECT_EQ(response.headers.back(), (std::pair<std::string, std::string>("Accept-Encoding", "identity")));
  response = ErrorResponse(FieldError("Host", "expected another", absl::StatusCode::kPermissionDenied));
  EXPECT_EQ(response.status, 403);
  EXPECT_EQ((*ParseJson(response.body))["error"]["code"], "forbidden");
  EXPECT_EQ(body["error"]["type"], "invalid_request_error");
  EXPECT_EQ(body["error"]["message"], "temperature: expected less");

  response = ErrorResponse(WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(1200)));
  EXPECT_EQ(response.status, 429);
  EXPECT_THAT(response.headers, ::testing::Contains(std::make_pair(std::string("Retry-After"), std::string("2"))));
  EXPECT_THAT(response.headers,
              ::testing::Contains(std::make_pair(std::string("Retry-After-Ms"), std::string("1200"))));

  response = ErrorResponse(FieldError("model", "no model 'x' here", absl::StatusCode::kNotFound));
  EXPECT_EQ(response.status, 404);
  EXPECT_EQ((*ParseJson(response.body))["error"]["code"], "model_not_found");
  EXPECT_EQ(ErrorResponse(absl::DeadlineExceededError("late")).status, 504);
  EXPECT_EQ(ErrorResponse(absl::UnavailableError("down")).status, 503);
  EXPECT_EQ(ErrorResponse(absl::InternalError("oops")).status, 500);
  EXPECT_EQ(ErrorResponse(absl::UnimplementedError("no")).status, 501);
  EXPECT_EQ((*ParseJson(ServerErrorBody(413, "too \xff large").body))["error"]["param"], nullptr);
}

}  // namespace
}  // namespace updraft::http::openai
