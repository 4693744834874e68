#include "common/tools/call_parser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/common/tools/formats.h"

namespace updraft::tools {
namespace {

using testing::Hermes;
using testing::Llama3;
using testing::Mistral;
using testing::MistralNamed;

// Texts as they are, a call as name(arguments), with | between.
std::string Shown(const std::vector<CallEvent>& events) {
  std::string shown;
  bool in_call = false;
  CallEvent::Kind before = CallEvent::Kind::kCall;
  const auto close = [&] {
    if (in_call) shown += ")";
    in_call = false;
  };
  for (const CallEvent& event : events) {
    if (event.kind == CallEvent::Kind::kArguments) {
      EXPECT_TRUE(in_call) << "arguments of no call";
      shown += event.text;
      continue;
    }
    close();
    const bool goes_on = event.kind == CallEvent::Kind::kText && before == CallEvent::Kind::kText && !shown.empty();
    if (!shown.empty() && !goes_on) shown += "|";
    before = event.kind;
    in_call = event.kind == CallEvent::Kind::kCall;
    shown += event.text + (in_call ? "(" : "");
  }
  close();
  return shown;
}

// Whole, byte by byte, and cut at random: always the same.
std::string Parsed(const CallFormat& format, const std::string& text, bool one_call = false) {
  const auto cut = [&](const std::vector<size_t>& sizes) {
    CallParser parser(format, one_call);
    std::vector<CallEvent> events;
    size_t at = 0;
    for (size_t i = 0; at < text.size(); ++i) {
      const size_t n = sizes.empty() ? text.size() : sizes[i % sizes.size()];
      parser.Push(text.substr(at, n), events);
      at += n;
    }
    parser.Finish(events);
    return Shown(events);
  };
  const std::string whole = cut({});
  EXPECT_EQ(cut({1}), whole) << text;
  std::mt19937 random(7);
  for (int round = 0; round < 20; ++round) {
    std::vector<size_t> sizes;
    for (int i = 0; i < 5; ++i) sizes.push_back(1 + random() % 9);
    EXPECT_EQ(cut(sizes), whole) << text;
  }
  return whole;
}

TEST(CallParserTest, HermesAndQwen) {
  const CallFormat f = Hermes();
  EXPECT_EQ(Parsed(f, "Hello there.\n"), "Hello there.\n");
  EXPECT_EQ(Parsed(f, "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>"),
            R"(get({"city": "Oslo"}))");
  EXPECT_EQ(Parsed(f,
                   "Let me see.\n\n<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
                   "{\"name\": \"b\", \"arguments\": {\"x\": [1, {\"y\": \"}\\\"]\"}]}}\n</tool_call>"),
            R"(Let me see.|a({})|b({"x": [1, {"y": "}\"]"}]}))");
  // Arguments first, as the first of these models wrote them; as text; none; more keys.
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>)"), R"(f({"a": 1}))");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name":"f","arguments":"{\"a\": \"\\n\"}"}</tool_call>)"), R"(f({"a": "\n"}))");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f"}</tool_call>)"), "f({})");
  EXPECT_EQ(
      Parsed(f, R"(<tool_call>{"id": 7, "type": "function", "name": "f", "arguments": {}, "x": [1]}</tool_call>)"),
      "f({})");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f", "parameters": {"a": 1}}</tool_call>)"), R"(f({"a": 1}))");
  // Text behind calls, and without what closes one.
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f"}</tool_call> Done.)"), "f({})|Done.");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f"} <tool_call>{"name": "g"}</tool_call>)"), "f({})|g({})");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "café", "arguments": {"ort": "Zürich"}}</tool_call>)"),
            R"(café({"ort": "Zürich"}))");
}

TEST(CallParserTest, WhatIsNoCallIsText) {
  const CallFormat f = Hermes();
  for (const char* text :
       {"<tool_call>", "<tool_cal", "a <tool_call> b", "<tool_call>[1]</tool_call>", "<tool_call>{\"name\": 3}",
        "<tool_call>{}</tool_call>", "<tool_call>{\"arguments\": {}}</tool_call> x", "<tool_call>\n{\"nam",
        "<<tool_call", "<tool_call>{\"name\": \"\"}", "<tool_call>{\"arguments\": {\"a\": 1}", "x < y",
        "<tool_call>{\"name\": \"\\x\"}"}) {
    EXPECT_EQ(Parsed(f, text), text);
  }
  // The white space before what turns out to be none is there.
  EXPECT_EQ(Parsed(f, "a \n<tool_"), "a \n<tool_");
  // What broke off behind its name.
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f", "arguments": {"a": "b)"), R"(f({"a": "b))");
  EXPECT_EQ(Parsed(f, R"(<tool_call>{"name": "f", "argu)"), "f()");
}

TEST(CallParserTest, Llama3) {
  const CallFormat f = Llama3();
  EXPECT_EQ(Parsed(f, R"({"name": "get", "parameters": {"city": "Oslo"}})"), R"(get({"city": "Oslo"}))");
  EXPECT_EQ(Parsed(f, "\n { \"name\": \"get\", \"parameters\": {}}"), "get({})");
  EXPECT_EQ(Parsed(f, R"(<|python_tag|>{"name": "get", "parameters": {"a": 1}})"), R"(get({"a": 1}))");
  EXPECT_EQ(Parsed(f, R"({"name": "a", "parameters": {}}; {"name": "b", "parameters": {}})"), "a({})|b({})");
  // JSON that is no call, and a call that is not at the beginning.
  for (const char* text : {R"({"city": "Oslo"})", R"(See {"name": "get", "parameters": {}})", "{", R"({"names": 1})"}) {
    EXPECT_EQ(Parsed(f, text), text);
  }
}

TEST(CallParserTest, Mistral) {
  EXPECT_EQ(Parsed(Mistral(), R"([TOOL_CALLS] [{"name": "a", "arguments": {"x": 1}, "id": "abcdefghi"}])"),
            R"(a({"x": 1}))");
  EXPECT_EQ(Parsed(Mistral(), R"(So.[TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}] )"),
            "So.|a({})|b({})");
  EXPECT_EQ(Parsed(Mistral(), "[TOOL_CALLS] []"), "[TOOL_CALLS] []");
  EXPECT_EQ(Parsed(MistralNamed(), R"([TOOL_CALLS]a[ARGS]{"x": "[ARGS]"}[TOOL_CALLS]b_2[ARGS]{})"),
            R"(a({"x": "[ARGS]"})|b_2({}))");
  EXPECT_EQ(Parsed(MistralNamed(), R"([TOOL_CALLS]a[CALL_ID]abcdefghi[ARGS]{"x": 1})"), R"(a({"x": 1}))");
  EXPECT_EQ(Parsed(MistralNamed(), R"([TOOL_CALLS]a{"x": 1})"), R"(a({"x": 1}))");
  EXPECT_EQ(Parsed(MistralNamed(), R"([TOOL_CALLS] [{"name": "a", "arguments": {}}])"), "a({})");
  EXPECT_EQ(Parsed(MistralNamed(), "[TOOL_CALLS]a b"), "[TOOL_CALLS]a b");
  EXPECT_EQ(Parsed(MistralNamed(), R"([TOOL_CALLS]a [CALL_ID]abcdefghi [ARGS] {})"), "a({})");
}

// Behind a call, too, what is none is text.
TEST(CallParserTest, WhatIsNoCallBehindOne) {
  EXPECT_EQ(Parsed(Llama3(), R"({"name": "a", "parameters": {}}; {"b": 2} tail)"), R"(a({})|{"b": 2} tail)");
  EXPECT_EQ(Parsed(Mistral(), R"([TOOL_CALLS][{"name": "a", "arguments": {}}, {"b": 2}, x] tail)"),
            R"(a({})|{"b": 2}, x] tail)");
  EXPECT_EQ(Parsed(Hermes(), R"(<tool_call>{"name": "f"}</tool_call><tool_call>{"b": 2}</tool_call> x)"),
            R"(f({})|<tool_call>{"b": 2}</tool_call> x)");
  EXPECT_EQ(Parsed(Hermes(), R"(<tool_call>{"name": "f"}</tool_call> <tool_)"), "f({})|<tool_");
  EXPECT_EQ(Parsed(Hermes(), R"(<tool_call>{"name": "f", "arguments": "no object"}</tool_call>)"),
            R"(f()|"}</tool_call>)");
  EXPECT_EQ(Parsed(Hermes(), R"(<tool_call>{"name": "f", "arguments": ""}</tool_call>)"), "f({})");
}

// Only JSON's white space, as the grammar has it: otherwise what it lets through as text would be a call.
TEST(CallParserTest, WhiteSpaceIsJsons) {
  const std::string text = "\v{\"name\": \"rm\", \"parameters\": {}}";
  EXPECT_EQ(Parsed(Llama3(), text), text);
}

TEST(CallParserTest, SaysWhetherTheLastCallIsWhole) {
  const auto whole = [](const CallFormat& format, const std::string& text, bool one_call = false) {
    CallParser parser(format, one_call);
    std::vector<CallEvent> events;
    parser.Push(text, events);
    parser.Finish(events);
    return parser.last_is_whole();
  };
  EXPECT_FALSE(whole(Hermes(), "Hi"));
  EXPECT_FALSE(whole(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"a": 1)"));
  EXPECT_FALSE(whole(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"a": 1})"));
  EXPECT_TRUE(whole(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"a": 1}})"));
  EXPECT_FALSE(whole(MistralNamed(), R"([TOOL_CALLS]f[ARGS]{"a": 1)"));
  // Brackets that do not match, and a text that is no object.
  EXPECT_FALSE(whole(Hermes(), R"(<tool_call>{"name": "f", "arguments": {"a": [1}}}</tool_call>)"));
  EXPECT_FALSE(whole(MistralNamed(), R"([TOOL_CALLS]f[ARGS]{"a": ]})"));
  EXPECT_FALSE(whole(Hermes(), R"(<tool_call>{"name": "f", "arguments": "{} junk"}</tool_call>)"));
  // Of one that is dropped it does not matter.
  EXPECT_TRUE(whole(Hermes(), R"(<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g", "arg)", true));
  EXPECT_TRUE(whole(MistralNamed(), R"([TOOL_CALLS]f[ARGS]{"a": 1})"));
}

// A model that writes white space for ever, and one that writes markers: not the square of it.
TEST(CallParserTest, LongAnswersCostWhatTheyAreLong) {
  for (const CallFormat& format : testing::AllFormats()) {
    for (const std::string& part : {std::string(16, '\n'), format.open, format.open + "a", std::string("{ ")}) {
      CallParser parser(format);
      std::vector<CallEvent> events;
      std::string text;
      for (int i = 0; i < 40'000; ++i) parser.Push(part, events);
      parser.Finish(events);
      size_t n_bytes = 0;
      for (const CallEvent& event : events) n_bytes += event.text.size();
      EXPECT_EQ(n_bytes, 40'000 * part.size()) << format.name << " " << part;
    }
  }
}

TEST(CallParserTest, OneCallOnly) {
  EXPECT_EQ(Parsed(Mistral(), R"([TOOL_CALLS][{"name": "a", "arguments": {}}, {"name": "b", "arguments": {"x": 1}}])",
                   /*one_call=*/true),
            "a({})");
}

// Whatever comes: nothing is lost, and it ends.
TEST(CallParserTest, AnyText) {
  const std::vector<std::string> parts = {"<tool_call>",
                                          "</tool_call>",
                                          "[TOOL_CALLS]",
                                          "[ARGS]",
                                          "[CALL_ID]",
                                          "{",
                                          "}",
                                          "[",
                                          "]",
                                          "\"name\"",
                                          ":",
                                          "\"f\"",
                                          ",",
                                          "\"arguments\"",
                                          " ",
                                          "\n",
                                          "a",
                                          "\\",
                                          "\"",
                                          "<|python_tag|>",
                                          ";",
                                          "é"};
  std::mt19937 random(11);
  for (const CallFormat& format : testing::AllFormats()) {
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (uint32_t i = 0; i < random() % 25; ++i) text += parts[random() % parts.size()];
      const std::string shown = Parsed(format, text);
      if (shown.find('(') == std::string::npos) {
        EXPECT_EQ(shown, text) << format.name;
      }
    }
  }
}

}  // namespace
}  // namespace updraft::tools
