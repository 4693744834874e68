#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "common/http/openai.h"

namespace updraft::http::openai {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kHello[] = R"("messages":[{"role":"user","content":"hello"}])";
std::string Chat(const std::string& rest) { return std::string("{") + kHello + (rest.empty() ? "" : ",") + rest + "}"; }

TEST(ParseChatTest, ReadsEveryField) {
  auto request = ParseChatRequest(R"({
    "model": "m", "messages": [
      {"role": "developer", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "turn "}, {"type": "text", "text": "左边"}], "name": "ann"},
      {"role": "assistant", "content": ""},
      {"role": "user", "content": "on"}],
    "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5, "seed": -1, "n": 1,
    "max_tokens": 5, "max_completion_tokens": 6, "stop": ["a", "b"], "stream": true,
    "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 2, "user": "x", "unknown": {"a": 1},
    "tools": [], "frequency_penalty": 0, "response_format": {"type": "text"}, "logit_bias": null})");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->messages.size(), 4u);
  EXPECT_EQ(request->messages[0].role, "system");
  EXPECT_EQ(request->messages[1].content, "turn 左边");
  const GenerationParams& params = request->params;
  EXPECT_EQ(params.model, "m");
  EXPECT_EQ(params.temperature, 0.5);
  EXPECT_EQ(params.top_p, 0.25);
  EXPECT_EQ(params.top_k, 7);
  EXPECT_EQ(params.min_p, 0.125);
  EXPECT_EQ(params.repetition_penalty, 1.5);
  EXPECT_EQ(params.seed, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(params.max_tokens, 6);
  EXPECT_THAT(params.stop, ElementsAre("a", "b"));
  EXPECT_TRUE(params.stream && params.include_usage && params.logprobs);
  EXPECT_EQ(params.top_logprobs, 2);
}

TEST(ParseChatTest, HowTheConversationIsRendered) {
  auto request =
      ParseChatRequest(Chat(R"("continue_final_message":false,"chat_template_kwargs":{"enable_thinking":false})"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->continue_final_message, false);
  EXPECT_EQ(request->thinking, false);
  EXPECT_FALSE(ParseChatRequest(Chat(""))->continue_final_message.has_value());
  for (const char* wrong :
       {R"("continue_final_message":1)", R"("chat_template_kwargs":[])", R"("chat_template_kwargs":{"x":1})",
        R"("chat_template_kwargs":{"enable_thinking":"no"})"}) {
    EXPECT_FALSE(ParseChatRequest(Chat(wrong)).ok()) << wrong;
  }
}

TEST(ParseChatTest, DefaultsAreGreedy) {
  auto request = ParseChatRequest(Chat(R"("stop":null,"stream":null,"seed":null)"));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->params.temperature, 0.0);
  EXPECT_EQ(request->params.top_p, 1.0);
  EXPECT_FALSE(request->params.max_tokens.has_value());
  EXPECT_FALSE(request->params.seed.has_value());
  EXPECT_TRUE(request->params.stop.empty());
  EXPECT_FALSE(request->params.stream);
}

struct BadCase {
  std::string body;
  std::string field;
};

constexpr char kToolMessages[] = R"("messages":[
    {"role":"user","content":"warmer"},
    {"role":"assistant","content":null,"tool_calls":[
      {"id":"c1","type":"function","function":{"name":"set","arguments":"{\"to\":22}"}},
      {"id":"c2","type":"function","function":{"name":"get"}}]},
    {"role":"tool","tool_call_id":"c1","content":"done"},
    {"role":"tool","tool_call_id":"c2","content":""}])";

TEST(ParseChatTest, ReadsToolsWhereTheyAreAccepted) {
  const std::string body = std::string("{") + kToolMessages + R"(,"tools":[
      {"type":"function","function":{"name":"set","description":"of the cabin","strict":true,
       "parameters":{"type":"object","properties":{"to":{"type":"number"}}}}},
      {"type":"function","function":{"name":"get"}}],
    "tool_choice":{"type":"function","function":{"name":"get"}}})";
  auto request = ParseChatRequest(body, {.tools = true});
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->messages.size(), 4u);
  ASSERT_EQ(request->messages[1].tool_calls.size(), 2u);
  EXPECT_EQ(request->messages[1].content, "");
  EXPECT_EQ(request->messages[1].tool_calls[0].id, "c1");
  EXPECT_EQ(request->messages[1].tool_calls[0].name, "set");
  EXPECT_EQ(request->messages[1].tool_calls[0].arguments, R"({"to":22})");
  EXPECT_EQ(request->messages[3].role, "tool");
  EXPECT_EQ(request->messages[3].tool_call_id, "c2");
  ASSERT_EQ(request->tools.size(), 2u);
  EXPECT_EQ(request->tools[0].description, "of the cabin");
  EXPECT_EQ(ParseJson(request->tools[0].parameters)->at("type"), "object");
  EXPECT_EQ(request->tools[1].parameters, "");
  // A model is shown a schema as it was written.
  auto ordered = ParseChatRequest(Chat(R"("tools":[{"function":{"parameters":{"z":0}},"type":"function"}],"tools":[
    {"type":"function","function":{"parameters":1,"name":"f","parameters":{"b":[1,{"d":"\u00e9\"","a":2.50}],"a":{}}}}])"),
                                  {.tools = true});
  ASSERT_TRUE(ordered.ok()) << ordered.status();
  ASSERT_EQ(ordered->tools.size(), 1u);
  EXPECT_EQ(ordered->tools[0].parameters, "{\"b\": [1, {\"d\": \"\u00e9\\\"\", \"a\": 2.50}], \"a\": {}}");
  EXPECT_EQ(request->tool_choice.mode, ToolChoice::Mode::kRequired);
  EXPECT_EQ(request->tool_choice.name, "get");
  // Without them the first message that has to do with tools is refused, as before there were any.
  auto refused = ParseChatRequest(body);
  EXPECT_EQ(FieldOf(refused.status()), "messages[1].tool_calls");
  for (const auto& [text, mode] : {std::pair{"auto", ToolChoice::Mode::kAuto},
                                   {"none", ToolChoice::Mode::kNone},
                                   {"required", ToolChoice::Mode::kRequired}}) {
    auto chosen = ParseChatRequest(
        Chat(std::string(R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":")") + text + "\""),
        {.tools = true});
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    EXPECT_EQ(chosen->tool_choice.mode, mode);
  }
}

TEST(ParseChatTest, RefusesToolsThatCannotBeAndNamesTheField) {
  const auto message = [](const std::string& text) {
    return R"({"messages":[)" + text + R"(,{"role":"user","content":"x"}]})";
  };
  const auto call = [&](const std::string& text) {
    return message(R"({"role":"assistant","tool_calls":)" + text + "}");
  };
  const BadCase cases[] = {
      {Chat(R"("tools":{})"), "tools"},
      {Chat(R"("tools":[7])"), "tools[0]"},
      {Chat(R"("tools":[{"type":"retrieval"}])"), "tools[0].type"},
      {Chat(R"("tools":[{"type":"function"}])"), "tools[0].function"},
      {Chat(R"("tools":[{"type":"function","function":{}}])"), "tools[0].function.name"},
      {Chat(R"("tools":[{"type":"function","function":{"name":")" + std::string(65, 'x') + R"("}}])"),
       "tools[0].function.name"},
      {Chat(R"("tools":[{"type":"function","function":{"name":"f","parameters":[]}}])"),
       "tools[0].function.parameters"},
      {Chat(R"("tool_choice":"maybe")"), "tool_choice"},
      {Chat(R"("tool_choice":7)"), "tool_choice"},
      {Chat(R"("tool_choice":{"type":"function","function":{"name":7}})"), "tool_choice.function.name"},
      {message(R"({"role":"tool","content":"x"})"), "messages[0].tool_call_id"},
      {message(R"({"role":"function","content":"x"})"), "messages[0].role"},
      {call(R"({})"), "messages[0].tool_calls"},
      {call(R"([{"type":"function","function":{"name":"f"}}])"), "messages[0].tool_calls[0].id"},
      {call(R"([{"id":"c","type":"function","function":{"arguments":"{}"}}])"),
       "messages[0].tool_calls[0].function.name"},
      {call(R"([{"id":"c","type":"function","function":{"name":"f","arguments":{}}}])"),
       "messages[0].tool_calls[0].function.arguments"},
      {Chat(R"("tool_choice":"required")"), "tool_choice"},
      {Chat(R"("tool_choice":"required","tools":[])"), "tool_choice"},
  };
  for (const BadCase& bad : cases) {
    auto request = ParseChatRequest(bad.body, {.tools = true});
    ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << bad.body;
    EXPECT_EQ(FieldOf(request.status()), bad.field) << bad.body << "\n" << request.status();
  }
}

TEST(ParseChatTest, RefusesAndNamesTheField) {
  const BadCase cases[] = {
      {"{}", "messages"},
      {R"({"messages":null})", "messages"},
      {R"({"messages":"hi"})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":["hi"]})", "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":7,"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"king","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"tool","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":7}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":""}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[]}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":["x"]}]})", "messages[0].content[0]"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url"}]}]})", "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"text","text":1}]}]})", "messages[0].content[0].text"},
      {Chat(R"("temperature":"hot")"), "temperature"},
      {Chat(R"("temperature":-0.1)"), "temperature"},
      {Chat(R"("temperature":2.1)"), "temperature"},
      {Chat(R"("top_p":-0.1)"), "top_p"},
      {Chat(R"("top_p":1.1)"), "top_p"},
      {Chat(R"("min_p":1)"), "min_p"},
      {Chat(R"("repetition_penalty":0)"), "repetition_penalty"},
      {Chat(R"("top_k":-2)"), "top_k"},
      {Chat(R"("max_tokens":0)"), "max_tokens"},
      {Chat(R"("max_tokens":1.5)"), "max_tokens"},
      {Chat(R"("max_tokens":4294967296)"), "max_tokens"},
      {Chat(R"("max_tokens":18446744073709551615)"), "max_tokens"},
      {Chat(R"("max_completion_tokens":"5")"), "max_completion_tokens"},
      {Chat(R"("seed":"x")"), "seed"},
      {Chat(R"("n":0)"), "n"},
      {Chat(R"("n":129)"), "n"},
      {Chat(R"("n":2,"best_of":3)"), "best_of"},
      {Chat(R"("stop":7)"), "stop"},
      {Chat(R"("stop":[7])"), "stop[0]"},
      {Chat(R"("stop":["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"])"), "stop"},
      {Chat(R"("stop":")" + std::string(129, 'x') + "\""), "stop[0]"},
      {Chat(R"("stream":"yes")"), "stream"},
      {Chat(R"("stream_options":{"include_usage":true})"), "stream_options"},
      {Chat(R"("stream":true,"stream_options":[])"), "stream_options"},
      {Chat(R"("stream":true,"stream_options":{"include_usage":1})"), "stream_options.include_usage"},
      {Chat(R"("logprobs":1)"), "logprobs"},
      {Chat(R"("top_logprobs":1)"), "top_logprobs"},
      {Chat(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs"},
      {Chat(R"("logprobs":true,"top_logprobs":20,"n":25)"), "logprobs"},
      {Chat(R"("tools":[{"type":"function"}])"), "tools"},
      {Chat(R"("logit_bias":[1])"), "logit_bias"},
      {Chat(R"("logit_bias":{"x":2})"), "logit_bias"},
      {Chat(R"("logit_bias":{"-1":2})"), "logit_bias"},
      {Chat(R"("logit_bias":{"01":2})"), "logit_bias"},
      {Chat(R"("logit_bias":{"4294967296":2})"), "logit_bias"},
      {Chat(R"("logit_bias":{"1":"2"})"), "logit_bias.1"},
      {Chat(R"("logit_bias":{"1":100.5})"), "logit_bias.1"},
      {Chat(R"("presence_penalty":2.5)"), "presence_penalty"},
      {Chat(R"("frequency_penalty":-2.5)"), "frequency_penalty"},
      {Chat(R"("frequency_penalty":"1")"), "frequency_penalty"},
      {Chat(R"("min_tokens":3)"), "min_tokens"},
      {Chat(R"("ignore_eos":true)"), "ignore_eos"},
      {Chat(R"("stop_token_ids":[3])"), "stop_token_ids"},
      {Chat(R"("guided_choice":"a")"), "guided_choice"},
      {Chat(R"("chat_template":"{{ 1 }}")"), "chat_template"},
      {Chat(R"("documents":[{"text":"x"}])"), "documents"},
      {Chat(R"("mirostat":2)"), "mirostat"},
      {Chat(R"("lora":"x")"), "lora"},
      {Chat(R"("return_token_ids":true)"), "return_token_ids"},
      {Chat(R"("repeat_penalty":1.5)"), "repeat_penalty"},
      {Chat(R"("typical_p":"0.5")"), "typical_p"},
      {Chat(R"("n_predict":2)"), "n_predict"},
      {Chat(R"("skip_special_tokens":false)"), "skip_special_tokens"},
      {Chat(R"("add_generation_prompt":false)"), "add_generation_prompt"},
      {Chat(R"("modalities":["text","audio"])"), "modalities"},
      {Chat(R"("modalities":"audio")"), "modalities"},
      {Chat(R"("audio":{"voice":"alloy"})"), "audio"},
      {Chat(R"("tool_choice":"required")"), "tool_choice"},
      {Chat(R"("tool_choice":{"type":"function","function":{"name":"f"}})"), "tool_choice"},
      {Chat(R"("tool_choice":"none","tools":[{"type":"function"}],"min_tokens":1)"), "min_tokens"},
      {R"({"messages":[{"role":"assistant"},{"role":"user","content":null}]})", "messages[1].content"},
      {R"({"messages":[{"role":"assistant","content":null}]})", "messages[0].content"},
      {R"({"messages":[{"role":"assistant","content":"x","function_call":{"name":"f"}}]})",
       "messages[0].function_call"},
      {Chat(R"("response_format":{"type":"xml"})"), "response_format.type"},
      {Chat(R"("response_format":"json")"), "response_format"},
      {Chat(R"("model":5)"), "model"},
      {Chat(R"("model":")" + std::string(300, 'm') + "\""), "model"},
  };
  for (const BadCase& bad : cases) {
    auto request = ParseChatRequest(bad.body);
    ASSERT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << bad.body;
    EXPECT_EQ(FieldOf(request.status()), bad.field) << bad.body << "\n" << request.status();
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(bad.field));
  }
}

TEST(ParseChatTest, PenaltiesBiasesAndChoices) {
  const auto request = ParseChatRequest(Chat(
      R"("presence_penalty":-0.5,"frequency_penalty":2,"logit_bias":{"50256":-100,"7":1.5,"10":100},"n":3,"best_of":3)"));
  ASSERT_TRUE(request.ok()) << request.status();
  const GenerationParams& params = request->params;
  EXPECT_EQ(params.presence_penalty, -0.5);
  EXPECT_EQ(params.frequency_penalty, 2.0);
  EXPECT_EQ(params.n, 3);
  ASSERT_EQ(params.logit_bias.size(), 3u);
  EXPECT_EQ(params.logit_bias[0].token, 7);
  EXPECT_EQ(params.logit_bias[0].bias, 1.5);
  EXPECT_EQ(params.logit_bias[1].token, 10);
  EXPECT_EQ(params.logit_bias[2].token, 50256);
  EXPECT_EQ(params.logit_bias[2].bias, -100.0);
  Json many = Json::object();
  for (size_t i = 0; i <= kMaxLogitBiases; ++i) many[std::to_string(i)] = 1;
  EXPECT_EQ(FieldOf(ParseChatRequest(Chat(R"("logit_bias":)" + DumpJson(many))).status()), "logit_bias");
  many.erase("0");
  EXPECT_EQ(ParseChatRequest(Chat(R"("logit_bias":)" + DumpJson(many)))->params.logit_bias.size(), kMaxLogitBiases);
}

// What clients send and do not mean anything by.
TEST(ParseChatTest, WhatAsksForNothingPasses) {
  const auto params = [](const std::string& rest) {
    auto request = ParseChatRequest(Chat(rest));
    EXPECT_TRUE(request.ok()) << rest << " " << request.status();
    return request.ok() ? request->params : GenerationParams();
  };
  EXPECT_EQ(params(R"("top_k":-1)").top_k, 0);
  EXPECT_EQ(params(R"("top_k":-1.0)").top_k, 0);
  const double nucleus = params(R"("top_p":0)").top_p;
  EXPECT_GT(nucleus, 0.0);
  EXPECT_LT(nucleus, 1.0 / (1 << 22)) << "no more than the most likely token of the largest vocabulary";
  EXPECT_GT(static_cast<float>(nucleus), 0.0f);
  EXPECT_FALSE(params(R"("logprobs":false,"top_logprobs":0)").logprobs);
  EXPECT_EQ(params(R"("top_logprobs":0)").top_logprobs, 0);
  EXPECT_TRUE(params(R"("stop":"")").stop.empty());
  EXPECT_THAT(params(R"("stop":["","a",""])").stop, ElementsAre("a"));
  EXPECT_EQ(params(R"("max_tokens":5.0)").max_tokens, 5);
  EXPECT_EQ(params(R"("max_completion_tokens":7.0,"seed":3.0,"n":1.0)").max_tokens, 7);
  EXPECT_FALSE(params("").max_tokens.has_value());
  for (
      const char* rest :
      {R"("modalities":["text"])", R"("modalities":null)", R"("modalities":[])", R"("min_tokens":0)",
       R"("tool_choice":"none")", R"("tool_choice":"auto")", R"("tool_choice":null)", R"("ignore_eos":false)",
       R"("tool_choice":"none","tools":[{"type":"function","function":{"name":"f"}}])", R"("guided_choice":[])",
       R"("repeat_penalty":1.0,"typical_p":1,"length_penalty":1,"n_predict":-1,"mirostat":0,"documents":[],"lora":null)",
       R"("skip_special_tokens":true,"add_generation_prompt":true)", R"("audio":null)", R"("logit_bias":{})",
       R"("service_tier":"auto","store":false,"user":"me","metadata":{},"parallel_tool_calls":true)"}) {
    params(rest);
  }
  for (const char* said : {R"(,"content":null)", "", R"(,"content":null,"tool_calls":null,"function_call":null)",
                           R"(,"content":"","tool_calls":[])", R"(,"content":[])"}) {
    for (const bool tools : {false, true}) {
      auto request = ParseChatRequest(absl::StrCat(R"({"messages":[{"role":"user","content":"a"},{"role":"assistant")",
                                                   said, R"(},{"role":"user","content":"b"}]})"),
                                      {.tools = tools});
      ASSERT_TRUE(request.ok()) << said << " " << request.status();
      EXPECT_EQ(request->messages[1].content, "");
      EXPECT_EQ(request->messages.size(), 3u);
    }
  }
}

TEST(ParseChatTest, MessagesSayWhatWasFound) {
  const auto message = [](const std::string& body) { return std::string(ParseChatRequest(body).status().message()); };
  EXPECT_EQ(message(""), "body: is empty; expected one JSON object");
  EXPECT_EQ(message(" \r\n"), "body: is empty; expected one JSON object");
  EXPECT_EQ(message(Chat(R"("max_tokens":99999999999999999999)")),
            "max_tokens: out of range: expected a whole number in [1, 2147483647], found 1e+20");
  EXPECT_EQ(message(Chat(R"("max_tokens":18446744073709551615)")),
            "max_tokens: out of range: expected a whole number in [1, 2147483647], found 18446744073709551615");
  EXPECT_EQ(message(Chat(R"("seed":-99999999999999999999)")),
            "seed: out of range: expected a whole number in [-9223372036854775808, 9223372036854775807], found -1e+20");
  EXPECT_EQ(message(Chat(R"("max_tokens":1.5)")), "max_tokens: expected a whole number, found 1.5");
}

TEST(ParseChatTest, RefusesWhatIsNotJson) {
  const std::string nested_in_string = Chat("\"x\":\"" + std::string(5000, '[') + "\"");
  EXPECT_TRUE(ParseChatRequest(nested_in_string).ok());
  const std::string bad[] = {"",
                             " ",
                             "{",
                             "[]",
                             "null",
                             "7",
                             "\"x\"",
                             "{\"messages\":}",
                             Chat("") + "x",
                             std::string("{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}"),
                             std::string("{\"messages\":[{\"role\":\"user\",\"content\":\"\xed\xa0\x80\"}]}"),
                             R"({"messages":[{"role":"user","content":"\ud800"}]})",
                             Chat("\"temperature\":1e999"),
                             Chat("\"temperature\":NaN"),
                             std::string(100000, '['),
                             std::string(100000, '[') + std::string(100000, ']'),
                             Chat("\"x\":" + std::string(100, '[') + std::string(100, ']'))};
  for (const std::string& body : bad) {
    auto request = ParseChatRequest(body);
    EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument) << body.substr(0, 200);
    EXPECT_EQ(FieldOf(request.status()), "");
  }
}

TEST(ParseChatTest, ManyMessagesAreRefused) {
  std::string body = R"({"messages":[)";
  for (int i = 0; i < 1025; ++i) body += R"({"role":"user","content":"x"},)";
  body.back() = ']';
  EXPECT_EQ(FieldOf(ParseChatRequest(body + "}").status()), "messages");
}

TEST(ParseCompletionTest, ReadsAndRefuses) {
  auto request = ParseCompletionRequest(R"({"prompt":"once","max_tokens":3,"logprobs":2,"echo":false,"suffix":null})");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->prompts.size(), 1u);
  EXPECT_EQ(request->prompts[0].text, "once");
  EXPECT_TRUE(request->params.logprobs);
  EXPECT_EQ(request->params.top_logprobs, 2);
  EXPECT_FALSE(request->parse_special || request->echo);
  EXPECT_TRUE(ParseCompletionRequest(R"({"prompt":"a","echo":true})")->echo);
  EXPECT_TRUE(ParseCompletionRequest(R"({"prompt":"<s>","parse_special":true})")->parse_special);
  const BadCase cases[] = {{"{}", "prompt"},
                           {R"({"prompt":""})", "prompt"},
                           {R"({"prompt":7})", "prompt"},
                           {R"({"prompt":[]})", "prompt"},
                           {R"({"prompt":[[]]})", "prompt"},
                           {R"({"prompt":["a",""]})", "prompt[1]"},
                           {R"({"prompt":["a",7]})", "prompt[1]"},
                           {R"({"prompt":[7,"a"]})", "prompt[1]"},
                           {R"({"prompt":[7,-1]})", "prompt[1]"},
                           {R"({"prompt":[7.5]})", "prompt[0]"},
                           {R"({"prompt":[2147483648]})", "prompt[0]"},
                           {R"({"prompt":[[1,2],[3,"x"]]})", "prompt[1][1]"},
                           {R"({"prompt":["a","b"],"n":65})", "n"},
                           {R"({"prompt":["a","b"],"n":20,"logprobs":20})", "logprobs"},
                           {R"({"prompt":"a","echo":1})", "echo"},
                           {R"({"prompt":"a","echo":true,"logprobs":1})", "echo"},
                           {R"({"prompt":"a","parse_special":1})", "parse_special"},
                           {R"({"prompt":"a","suffix":"b"})", "suffix"},
                           {R"({"prompt":"a","best_of":2})", "best_of"},
                           {R"({"prompt":"a","logprobs":21})", "logprobs"}};
  for (const BadCase& bad : cases) {
    EXPECT_EQ(FieldOf(ParseCompletionRequest(bad.body).status()), bad.field) << bad.body;
  }
}

TEST(ParseCompletionTest, PromptsAreTextsOrIdsOneOrSeveral) {
  const auto prompts = [](const std::string& json) {
    std::vector<std::string> shown;
    const auto request = ParseCompletionRequest(R"({"prompt":)" + json + "}");
    EXPECT_TRUE(request.ok()) << json << ": " << request.status();
    if (!request.ok()) return shown;
    for (const CompletionPrompt& prompt : request->prompts) {
      shown.push_back(prompt.text);
      for (const int32_t id : prompt.ids) shown.back() += "#" + std::to_string(id);
    }
    return shown;
  };
  EXPECT_THAT(prompts(R"("a")"), ElementsAre("a"));
  EXPECT_THAT(prompts(R"(["a"])"), ElementsAre("a"));
  EXPECT_THAT(prompts(R"(["a","b"])"), ElementsAre("a", "b"));
  EXPECT_THAT(prompts("[1,0,2147483647]"), ElementsAre("#1#0#2147483647"));
  EXPECT_THAT(prompts("[[1,2]]"), ElementsAre("#1#2"));
  EXPECT_THAT(prompts("[[1,2],[3]]"), ElementsAre("#1#2", "#3"));
  EXPECT_THAT(prompts(R"(["a",[3]])"), ElementsAre("a", "#3"));
}

TEST(ParseChatTest, AShapeIsReadAsItIsWritten) {
  const auto text = [](const std::string& fields) {
    const auto request = ParseChatRequest(Chat(fields));
    EXPECT_TRUE(request.ok()) << fields << ": " << request.status();
    return request.ok() && request->params.shape ? request->params.shape->text : "none";
  };
  EXPECT_EQ(text(R"("guided_json": {"z": {"b":1, "a":[2, "}\""]}, "a":true } , "x":[1])"),
            R"({"z": {"b":1, "a":[2, "}\""]}, "a":true })");
  EXPECT_EQ(text(R"("guided_json":{"a":1},"guided_js\u006fn":{"b":2})"), R"({"b":2})") << "of two the last counts";
  EXPECT_EQ(text(R"("guided_json":"{\"a\":1}")"), R"({"a":1})");
  EXPECT_EQ(
      text(
          R"("response_format":{"type":"json_schema","json_schema":{"strict":true,"schema":{"y":1,"x":2},"name":"n"}})"),
      R"({"y":1,"x":2})");
  EXPECT_EQ(text(R"("response_format":{"type":"json_object"})"), R"({"type":"object"})");
  EXPECT_EQ(text(R"("structured_outputs":{"json":{"b":1,"a":2},"regex":null})"), R"({"b":1,"a":2})");
  EXPECT_EQ(text(R"("grammar":"root ::= x")"), "root ::= x");
  for (const char* nothing : {R"("guided_choice":[])", R"("grammar":"")", R"("guided_json":null)",
                              R"("structured_outputs":{})", R"("response_format":{"type":"text"})"}) {
    EXPECT_EQ(text(nothing), "none") << nothing;
  }
}

// Several names for one wish.
TEST(ParseChatTest, WhetherToThinkHasSeveralNames) {
  for (const auto& [fields, thinks] :
       {std::pair{R"("enable_thinking":true)", true},
        {R"("enable_thinking":false)", false},
        {R"("thinking":{"type":"enabled"})", true},
        {R"("thinking":{"type":"disabled"})", false},
        {R"("chat_template_kwargs":{"enable_thinking":false},"enable_thinking":false)", false},
        {R"("reasoning_effort":"none")", false}}) {
    const auto request = ParseChatRequest(Chat(fields));
    ASSERT_TRUE(request.ok()) << fields << ": " << request.status();
    EXPECT_EQ(request->thinking, thinks) << fields;
  }
  for (const auto& [fields, field] : {std::pair{R"("enable_thinking":1)", "enable_thinking"},
                                      {R"("thinking":true)", "thinking"},
                                      {R"("thinking":{"type":"adaptive"})", "thinking.type"},
                                      {R"("thinking":{"type":"enabled","budget_tokens":9})", "thinking.budget_tokens"},
                                      {R"("enable_thinking":true,"thinking":{"type":"disabled"})", "thinking.type"},
                                      {R"("enable_thinking":true,"reasoning_effort":"none")", "reasoning_effort"},
                                      {R"("reasoning_effort":"low")", "reasoning_effort"},
                                      {R"("web_search_options":{})", "web_search_options"},
                                      {R"("echo":true)", "echo"},
                                      {R"("priority":5)", "priority"}}) {
    EXPECT_EQ(FieldOf(ParseChatRequest(Chat(fields)).status()), field) << fields;
  }
}

}  // namespace
}  // namespace updraft::http::openai
