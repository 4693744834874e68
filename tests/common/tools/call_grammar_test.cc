#include "common/tools/call_grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grammar/token_masks.h"
#include "common/tools/call_parser.h"
#include "nlohmann/json.hpp"
#include "tests/common/grammar/follow.h"
#include "tests/common/tools/formats.h"

namespace updraft::tools {
namespace {

using grammar::testing::Follower;
using grammar::testing::Written;
using ::testing::HasSubstr;
using testing::Hermes;
using testing::HermesThatThinks;
using testing::Llama3;
using testing::Mistral;
using testing::MistralNamed;

const std::vector<CallableTool> kTools = {
    {"weather", R"({"type":"object","properties":{"city":{"type":"string","maxLength":12},"unit":{"enum":["C","F"]}},)"
                R"("required":["city"]})"},
    {"stop", ""},
    {"note", R"({"properties":{"of":{"$ref":"#/$defs/o"}},"required":["of"],"$defs":{"o":{"type":"integer"}}})"}};

TEST(CallGrammarTest, TextOrCalls) {
  const Follower hermes(GrammarOfCalls(Hermes(), kTools, {}));
  for (const char* fits :
       {"", "Hi.", "a < b <tool_cal", "<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>",
        "I see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"unit\": \"C\"}}"
        "\n</tool_call>\n<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>{\"name\":\"note\",\"arguments\":{\"of\":-3}}</tool_call>"}) {
    EXPECT_TRUE(hermes.Fits(fits)) << fits;
  }
  for (const char* wrong : {"<tool_call>x", "<tool_call>{\"name\": \"go\"", "<tool_call>{\"arguments\"",
                            "<tool_call>{\"name\": \"stop\", \"arguments\": {\"a\"",
                            "<tool_call>{\"name\": \"weather\", \"arguments\": {\"unit\"",
                            "<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call> More"}) {
    EXPECT_FALSE(hermes.Begins(wrong)) << wrong;
  }
  EXPECT_FALSE(hermes.Fits("<tool_call>{\"name\": \"stop\", \"arguments\": {}}"));  // not closed
  // A model that ends by a line break has not begun another call.
  EXPECT_TRUE(hermes.Fits("<tool_call>{\"name\": \"stop\", \"arguments\": {}}</tool_call>\n"));
}

TEST(CallGrammarTest, RequiredNamedAndOne) {
  const Follower any(GrammarOfCalls(Hermes(), kTools, {.required = true}));
  EXPECT_FALSE(any.Begins("Hi"));
  EXPECT_FALSE(any.Fits(""));
  EXPECT_TRUE(any.Begins("<tool_call>\n{\"name\": \"no"));
  const std::string stop = "<tool_call>\n{\"name\": \"stop\", \"arguments\": {}}\n</tool_call>";
  EXPECT_TRUE(any.Fits(stop + "\n" + stop));
  const Follower named(GrammarOfCalls(Hermes(), kTools, {.required = true, .name = "stop"}));
  EXPECT_TRUE(named.Fits(stop));
  EXPECT_FALSE(named.Begins("<tool_call>\n{\"name\": \"w"));
  const Follower one(GrammarOfCalls(Hermes(), kTools, {.required = true, .one_call = true}));
  EXPECT_TRUE(one.Fits(stop));
  EXPECT_FALSE(one.Begins(stop + "\n<"));
  // Thoughts may come first, and hold no call.
  const Follower thinks(GrammarOfCalls(HermesThatThinks(), kTools, {.required = true}));
  EXPECT_TRUE(thinks.Fits(stop));
  EXPECT_TRUE(thinks.Fits("<think>\nWell.\n</think>\n\n" + stop));
  EXPECT_TRUE(thinks.Fits("Well.</think>" + stop));
  EXPECT_FALSE(thinks.Fits("Well."));
  EXPECT_FALSE(thinks.Begins("</think> no"));
  EXPECT_FALSE(thinks.Begins("Well <tool_call>"));
  // Where calls need no marker one behind thoughts needs it: it is no answer's beginning.
  CallFormat bare = Llama3();
  bare.may_think = true;
  const Follower llama(GrammarOfCalls(bare, kTools, {.required = true}));
  EXPECT_TRUE(llama.Fits(R"({"name": "stop", "parameters": {}})"));
  EXPECT_FALSE(llama.Begins("<think>x</think>\n{"));
  EXPECT_TRUE(llama.Fits("<think>x</think>\n<|python_tag|>{\"name\": \"stop\", \"parameters\": {}}"));
}

TEST(CallGrammarTest, Llama3AndMistral) {
  const Follower llama(GrammarOfCalls(Llama3(), kTools, {}));
  EXPECT_TRUE(llama.Fits(R"({"name": "stop", "parameters": {}})"));
  EXPECT_TRUE(llama.Fits(R"(<|python_tag|>{"name": "stop", "parameters": {}})"));
  EXPECT_TRUE(llama.Fits(R"({"answer": 3})"));
  EXPECT_TRUE(llama.Fits(R"(It is {"name": "x"})"));
  EXPECT_FALSE(llama.Begins(R"({"name": "x)"));
  EXPECT_FALSE(llama.Begins(R"({"name": "stop", "arguments")"));
  EXPECT_FALSE(llama.Begins(R"({"name": "stop", "parameters": {}} x)"));
  EXPECT_FALSE(llama.Begins("\n\t { \"name\": 1"));
  EXPECT_TRUE(llama.Fits("{\"nam\": <|python_tag"));
  EXPECT_TRUE(llama.Fits("x<|python_tag|>{\"name\": \"stop\", \"parameters\": {}}"));
  const Follower mistral(GrammarOfCalls(Mistral(), kTools, {}));
  EXPECT_TRUE(mistral.Fits(R"([TOOL_CALLS] [{"name": "stop", "arguments": {}}, {"name": "stop", "arguments": {}}])"));
  EXPECT_TRUE(mistral.Fits(R"(So. [TOOL_CALLS][{"name": "stop", "arguments": {}, "id": "a1B2c3D4e"}])"));
  EXPECT_FALSE(mistral.Begins("[TOOL_CALLS] []"));
  const Follower named(GrammarOfCalls(MistralNamed(), kTools, {.required = true}));
  EXPECT_TRUE(named.Fits("[TOOL_CALLS]stop[CALL_ID]a1B2c3D4e[ARGS]{}"));
  EXPECT_FALSE(named.Begins("[TOOL_CALLS]go"));
}

TEST(CallGrammarTest, SchemasThatCannotBeFollowed) {
  std::vector<CallableTool> tools = kTools;
  tools[1].parameters = R"({"type":"object","properties":{"a":{"not":{"type":"string"}}}})";
  const Follower any(GrammarOfCalls(Hermes(), tools, {}));
  EXPECT_TRUE(any.Fits(R"(<tool_call>{"name": "stop", "arguments": {"b": [1, "x"]}}</tool_call>)"));
  EXPECT_FALSE(any.Begins(R"(<tool_call>{"name": "stop", "arguments": [)"));
  tools[1].strict = true;
  const auto strict = GrammarOfCalls(Hermes(), tools, {});
  EXPECT_EQ(strict.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(strict.status().message()), HasSubstr("tools[1].parameters: #/properties/a/not: "));
  // Of a tool that is not called it does not matter.
  EXPECT_TRUE(GrammarOfCalls(Hermes(), tools, {.required = true, .name = "weather"}).ok());
}

// Arguments are an object, whatever a schema says.
TEST(CallGrammarTest, ArgumentsAreObjects) {
  const auto make = [](const std::string& parameters, bool strict) {
    const CallableTool tool{"f", parameters, strict};
    return GrammarOfCalls(Hermes(), {&tool, 1}, {.required = true});
  };
  for (const char* parameters : {R"({"type":"array"})", R"({"type":"string"})", R"({"type":["null","string"]})"}) {
    EXPECT_THAT(std::string(make(parameters, true).status().message()), HasSubstr("tools[0].parameters: #/type: "));
    const Follower any(make(parameters, false));
    EXPECT_TRUE(any.Fits(R"(<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>)"));
  }
  const Follower either(make(R"({"type":["object","null"]})", true));
  EXPECT_TRUE(either.Fits(R"(<tool_call>{"name": "f", "arguments": {}}</tool_call>)"));
  EXPECT_FALSE(either.Begins(R"(<tool_call>{"name": "f", "arguments": n)"));
}

// Tools that cost much leave what there is to those that have to fit.
TEST(CallGrammarTest, StrictToolsComeFirst) {
  std::vector<CallableTool> tools;
  for (int i = 0; i < 6; ++i) {
    tools.push_back({absl::StrCat("heavy", i),
                     R"({"type":"object","properties":{"x":{"type":"string","pattern":"^(a|b)*a(a|b){14}$"}}})"});
  }
  tools.push_back({"light", R"({"type":"object","properties":{"x":{"type":"integer"}}})", /*strict=*/true});
  const grammar::WorkBudget budget(8'000'000);
  const auto grammar = GrammarOfCalls(Hermes(), tools, {});
  EXPECT_TRUE(grammar.ok()) << grammar.status();
}

// Text may end anywhere. Were it a rule of its own, each answer would look, from every token, for what its caller goes
// on with: tens of milliseconds over a real vocabulary.
TEST(CallGrammarTest, TextIsTheAnswersOwnRule) {
  std::vector<std::string> texts = {"<end>"};
  for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* piece : {"<tool", "_call>", "ab", "abc", "{\"", "name"}) texts.push_back(piece);
  const auto vocabulary =
      std::make_shared<const grammar::Vocabulary>(texts, std::vector<int32_t>{0}, static_cast<int>(texts.size()));
  for (const CallFormat& format : testing::AllFormats()) {
    auto compiled = grammar::CompiledGrammar::Compile(*GrammarOfCalls(format, kTools, {}));
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    const int32_t start = compiled->start();
    EXPECT_TRUE(compiled->is_outermost(start));
    const grammar::TokenMasks masks(*std::move(compiled), vocabulary);
    EXPECT_FALSE(masks.Of(start)->list.empty() && masks.Of(start)->bits.empty());
    EXPECT_TRUE(masks.Of(start)->ends.empty()) << format.name;
  }
}

// What the grammar lets through is what the parser reads: known names, arguments that are an object.
TEST(CallGrammarTest, WhatFitsIsParsed) {
  std::mt19937 random(5);
  for (const CallFormat& format : testing::AllFormats()) {
    const Follower follower(GrammarOfCalls(format, kTools, {.required = true}));
    int n_calls = 0;
    for (int round = 0; round < 300; ++round) {
      const std::string text = Written(follower, format.may_think ? format.open : "", random);
      if (text.empty()) continue;
      CallParser parser(format);
      std::vector<CallEvent> events;
      parser.Push(text, events);
      parser.Finish(events);
      std::string arguments;
      const auto check = [&] {
        if (arguments.empty()) return;
        EXPECT_TRUE(nlohmann::json::parse(arguments, nullptr, false).is_object()) << text;
        arguments.clear();
      };
      int n = 0;
      for (const CallEvent& event : events) {
        if (event.kind == CallEvent::Kind::kCall) {
          check();
          ++n;
          EXPECT_THAT(event.text, ::testing::AnyOf("weather", "stop", "note"));
        } else if (event.kind == CallEvent::Kind::kArguments) {
          arguments += event.text;
        } else {
          ADD_FAILURE() << text;
        }
      }
      check();
      EXPECT_GE(n, 1) << text;
      n_calls += n;
    }
    EXPECT_GT(n_calls, 100) << format.name;
  }
}

}  // namespace
}  // namespace updraft::tools
