#include "common/tools/call_format.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/grammar/token_masks.h"
#include "common/text/named_templates.h"
#include "common/tools/call_grammar.h"
#include "tests/common/text/small_vocab.h"
#include "tests/common/tools/formats.h"

namespace updraft::tools {
namespace {

// The least of a template that writes tools, calls and results: `call` is what it writes of each call.
std::string TemplateWith(const std::string& before, const std::string& call, const std::string& behind) {
  return absl::StrCat(
      "{% if tools %}[T]{{ tools | tojson }}[/T]{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.content }}"
      "{% if m.tool_calls %}",
      before, "{% for c in m.tool_calls %}", call, "{% endfor %}", behind,
      "{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
}

std::optional<CallFormat> FormatOf(const std::string& source) {
  const auto chat = text::ChatTemplate::FromJinja(source);
  EXPECT_TRUE(chat.ok() && chat->renders_tools()) << source;
  return CallFormatOf(*chat);
}

constexpr char kObject[] =
    R"({"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}})";

TEST(CallFormatTest, IsWhatTheTemplateWrites) {
  const auto hermes = FormatOf(TemplateWith("", absl::StrCat("<tool_call>\n", kObject, "\n</tool_call>"), ""));
  ASSERT_TRUE(hermes.has_value());
  EXPECT_EQ(hermes->name, "hermes");
  EXPECT_EQ(hermes->open, "<tool_call>");
  EXPECT_EQ(hermes->close, "</tool_call>");
  EXPECT_TRUE(hermes->several && !hermes->bare && !hermes->may_think && !hermes->writes_id);

  const auto list = FormatOf(TemplateWith("[TOOL_CALLS] [", kObject, "]</s>"));
  ASSERT_TRUE(list.has_value());
  EXPECT_EQ(list->name, "mistral");
  EXPECT_EQ(list->form, CallFormat::Form::kList);
  EXPECT_FALSE(list->writes_id);

  const std::string with_id =
      R"({"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}, "id": "{{ c.id }}"})";
  const auto ids = FormatOf(TemplateWith("[TOOL_CALLS] [", with_id, "]</s>"));
  ASSERT_TRUE(ids.has_value());
  EXPECT_TRUE(ids->writes_id);

  const auto named = FormatOf(TemplateWith(
      "", "[TOOL_CALLS]{{ c.function.name }}[CALL_ID]{{ c.id }}[ARGS]{{ c.function.arguments | tojson }}", ""));
  ASSERT_TRUE(named.has_value());
  EXPECT_EQ(named->name, "mistral-named");
  EXPECT_EQ(named->form, CallFormat::Form::kNamed);
  EXPECT_EQ(named->before_arguments, "[ARGS]");
  EXPECT_TRUE(named->writes_id);

  const auto bare = FormatOf(
      TemplateWith("", R"({"name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}})", ""));
  ASSERT_TRUE(bare.has_value());
  EXPECT_EQ(bare->name, "llama3");
  EXPECT_TRUE(bare->bare && !bare->several);
  EXPECT_EQ(bare->arguments_key, "parameters");

  const auto phi = FormatOf(TemplateWith("<|tool_call|>[", kObject, "]<|/tool_call|>"));
  ASSERT_TRUE(phi.has_value());
  EXPECT_EQ(phi->name, "phi4");
  EXPECT_EQ(phi->close, "<|/tool_call|>");
  // One at most: the template writes the second as part of the first, or not at all.
  const auto single = FormatOf(TemplateWith("<tool_call>[", kObject, "]</tool_call>") + "");
  EXPECT_FALSE(single.has_value());
  const auto first = FormatOf(TemplateWith("<tool_call>", kObject, "</tool_call>"));
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(first->several);
}

TEST(CallFormatTest, NoneWhereItIsNotKnown) {
  for (const std::string& call :
       {std::string("<tool_call>\n<function={{ c.function.name }}>{{ c.function.arguments | tojson }}</tool_call>"),
        std::string("{{ c.function.name }}({{ c.function.arguments | tojson }})"),
        std::string(R"(<tool_call>{"type": "function", "function": {"name": "{{ c.function.name }}", "arguments": )"
                    R"({{ c.function.arguments | tojson }}}}</tool_call>)"),
        absl::StrCat("<tool_call>", kObject, "<|end|>"), absl::StrCat("<tool_calls>", kObject, "</tool_calls>"),
        std::string(R"(calls: {"name": "{{ c.function.name }}", "input": {{ c.function.arguments | tojson }}})")}) {
    EXPECT_FALSE(FormatOf(TemplateWith("", call, "")).has_value()) << call;
  }
  for (const std::string& name : text::NamedTemplates()) {
    const auto chat = text::ChatTemplate::ByName(name);
    ASSERT_TRUE(chat.ok());
    EXPECT_EQ(CallFormatOf(*chat).has_value(), name == "hermes") << name;
  }
}

// A template that opens an answer with a thought, and writes those that were given without.
TEST(CallFormatTest, AnswersThatAreOpenedOtherwise) {
  const std::string opens = TemplateWith("", absl::StrCat("<tool_call>", kObject, "</tool_call>"), "");
  const auto format =
      FormatOf(opens.substr(0, opens.rfind("[assistant]")) + "[assistant]<think>\n{% endif %}{# </think> #}");
  ASSERT_TRUE(format.has_value());
  EXPECT_EQ(format->name, "hermes");
  EXPECT_TRUE(format->may_think);
}

TEST(CallFormatTest, AreFoundByTheirNames) {
  for (const char* name : {"hermes", "jamba", "mistral", "mistral-named", "phi4", "granite", "llama3"}) {
    ASSERT_TRUE(CallFormatNamed(name).has_value()) << name;
    EXPECT_EQ(CallFormatNamed(name)->name, name);
  }
  EXPECT_FALSE(CallFormatNamed("xml").has_value());
}

TEST(CallFormatTest, ThoughtsAreLookedFor) {
  const auto format = FormatOf(TemplateWith("", absl::StrCat("<tool_call>", kObject, "</tool_call>"), "") +
                               "{# a model that ends its thoughts by </think> #}");
  ASSERT_TRUE(format.has_value());
  EXPECT_TRUE(format->may_think);
}

TEST(CallFormatTest, IdsAreAsTemplatesWantThem) {
  std::set<std::string> ids;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const std::string mistral = CallId(testing::Mistral(), seed), other = CallId(testing::Hermes(), seed);
    EXPECT_EQ(mistral.size(), 9u);
    EXPECT_EQ(other.size(), 29u);
    EXPECT_EQ(other.rfind("call_", 0), 0u);
    for (const char c : mistral) EXPECT_TRUE(std::isalnum(static_cast<unsigned char>(c)));
    EXPECT_EQ(mistral, CallId(testing::Mistral(), seed));
    EXPECT_TRUE(ids.insert(mistral).second && ids.insert(other).second);
  }
}

// Markers that are control tokens have no text of their own.
TEST(CallFormatTest, MarkersThatAreControlTokens) {
  const auto tokenizer = *text::Tokenizer::FromParts(text::SmallByteLevelParts());
  CallFormat format = testing::Hermes();
  EXPECT_TRUE(MarkerTokens(format, *tokenizer).empty());
  format.open = "<|im_start|>";
  const std::vector<int32_t> markers = MarkerTokens(format, *tokenizer);
  EXPECT_EQ(markers, std::vector<int32_t>{*tokenizer->SpecialTokenId("<|im_start|>")});

  // An answer opens a call by that token, and by no other control token.
  const std::vector<CallableTool> callable = {{"stop", "", false}};
  auto compiled = grammar::CompiledGrammar::Compile(*GrammarOfCalls(format, callable, {.required = true}));
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const int32_t end = *tokenizer->SpecialTokenId("<|im_end|>");
  const auto allows = [&](std::span<const int32_t> spelled) {
    const auto vocabulary = grammar::Vocabulary::Of(*tokenizer, {end}, tokenizer->vocab_size(), spelled);
    grammar::GrammarMask mask(std::make_shared<const grammar::TokenMasks>(*compiled, vocabulary));
    const bool allowed = MaskAllows(mask.Allowed(), markers[0]);
    if (!allowed) return false;
    mask.Advance(markers[0]);
    return !mask.broken() && !mask.may_end();
  };
  EXPECT_TRUE(allows(markers));
  EXPECT_FALSE(allows({}));
}

}  // namespace
}  // namespace updraft::tools
