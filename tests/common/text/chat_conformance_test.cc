// Published templates through ChatTemplate: the prompts that a request gets, beside what Hugging Face's
// apply_chat_template gives (tests/common/jinja/oracle.py).
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "common/jinja/json.h"
#include "common/text/chat_template.h"
#include "tests/common/jinja/oracle_cases.h"

namespace updraft::text {
namespace {

using jinja::Dict;
using jinja::Value;

std::string Plain(const Dict& dict, const char* key) {
  const Value* value = dict.Find(key);
  return value != nullptr && value->is_text() ? value->text().bytes() : std::string();
}

std::string Json(const Value& value) {
  jinja::Budget budget;
  return value.is_text() ? value.text().bytes() : jinja::WriteJson(value, {}, budget).bytes();
}

struct Conversation {
  std::vector<ChatMessage> messages;
  std::vector<ChatTool> tools;
  std::optional<bool> thinking;
};

Conversation FromGlobals(const Dict& globals) {
  Conversation out;
  for (const Value& message : globals.Find("messages")->items()) {
    ChatMessage& made = out.messages.emplace_back();
    const Dict& dict = message.dict();
    made = {.role = Plain(dict, "role"),
            .content = Plain(dict, "content"),
            .tool_call_id = Plain(dict, "tool_call_id"),
            .name = Plain(dict, "name")};
    const Value* calls = dict.Find("tool_calls");
    if (calls == nullptr) continue;
    for (const Value& call : calls->items()) {
      const Dict& function = call.dict().Find("function")->dict();
      made.tool_calls.push_back({Plain(call.dict(), "id"), Plain(function, "name"), Json(*function.Find("arguments"))});
    }
  }
  if (const Value* tools = globals.Find("tools"); tools != nullptr && tools->is_list()) {
    for (const Value& tool : tools->items()) {
      const Dict& function = tool.dict().Find("function")->dict();
      out.tools.push_back(
          {Plain(function, "name"), Plain(function, "description"), Json(*function.Find("parameters"))});
    }
  }
  if (const Value* thinking = globals.Find("enable_thinking")) out.thinking = thinking->boolean();
  return out;
}

class ChatConformanceTest : public ::testing::Test {
 protected:
  // Templates are parsed and tried once.
  const absl::StatusOr<ChatTemplate>& TemplateOf(const std::string& source) {
    const auto [it, is_new] = templates_.try_emplace(source, absl::UnknownError(""));
    if (is_new) {
      it->second = ChatTemplate::FromJinja(source);
      if (it->second.ok()) it->second->set_now(jinja::OracleNow());
    }
    return it->second;
  }

  std::map<std::string, absl::StatusOr<ChatTemplate>> templates_;
};

// Of three that are in no collection of files; their prompts are compared with the others' below.
TEST_F(ChatConformanceTest, TemplatesOutOfPackagesWriteTheirFormats) {
  UPDRAFT_NEED_ORACLE();
  const std::string folder = jinja::Oracle::Get().dir + "/published";
  const std::vector<ChatMessage> turns = {{"user", "Hi"}, {"assistant", "Hello!"}, {"user", "Who?"}};
  const std::pair<const char*, const char*> formats[] = {
      {"TinyLlama-1.1B-Chat-v1.0", "<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n<|user|>\nWho?</s>\n<|assistant|>\n"},
      {"DeepSeek-R1-Distill-Llama-8B-first",
       "<s><\uff5cUser\uff5c>Hi<\uff5cAssistant\uff5c>Hello!<\uff5cend\u2581of\u2581sentence\uff5c><\uff5cUser\uff5c>"
       "Who?<\uff5cAssistant\uff5c>"},
      {"Mistral-7B-Instruct-v0.3", "<s>[INST] Hi[/INST] Hello!</s>[INST] Who?[/INST]"},
  };
  for (const auto& [name, expected] : formats) {
    std::ifstream file(folder + "/" + name + ".jinja");
    if (!file.good()) GTEST_SKIP() << "no template of " << name << ": see " << folder << ".why";
    const std::string source((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto chat = ChatTemplate::FromJinja(source);
    ASSERT_TRUE(chat.ok()) << chat.status();
    const auto text = chat->RenderText({.messages = turns});
    ASSERT_TRUE(text.ok()) << text.status();
    EXPECT_EQ(*text, expected);
  }
}

TEST_F(ChatConformanceTest, PromptsAreThoseOfHuggingFace) {
  UPDRAFT_NEED_ORACLE();
  int n = 0, n_equal = 0, n_refused = 0, n_lost = 0, n_calls = 0, n_calls_equal = 0, n_calls_refused = 0;
  bool first_form_is_equal = false;
  for (const jinja::Case& c : jinja::ReadCases(jinja::Oracle::Get().dir + "/templates.jsonl")) {
    const absl::StatusOr<ChatTemplate>& chat = TemplateOf(c.source);
    ASSERT_TRUE(chat.ok()) << c.name << ": " << chat.status();
    const Conversation conversation = FromGlobals(c.globals);
    Chat what{.messages = conversation.messages, .tools = conversation.tools, .thinking = conversation.thinking};
    const bool continues = conversation.messages.back().role == "assistant";
    if (continues) what.ending = Chat::Ending::kContinuesAnswer;
    const auto text = chat->RenderText(what);
    const std::string& expected = continues ? c.continued : c.expected;
    ++n;
    if (!conversation.tools.empty()) {
      // One of the two forms, which come one after the other.
      const bool is_equal = text.ok() && *text == expected;
      const bool is_second = c.name.ends_with("as text");
      ++n_calls;
      n_calls_refused += text.ok() ? 0 : 1;
      if (is_second) {
        EXPECT_TRUE(!text.ok() || is_equal || first_form_is_equal) << c.name << ": neither form gives\n" << *text;
        n_calls_equal += is_equal || first_form_is_equal ? 2 : 0;
      }
      first_form_is_equal = is_equal;
    } else if (!text.ok()) {
      const bool lost = text.status().message().find("has no system role") != std::string_view::npos ||
                        text.status().message().find("leaves") != std::string_view::npos;
      (c.fails || expected.empty() ? n_refused : n_lost) += 1;
      EXPECT_TRUE(c.fails || expected.empty() || lost) << c.name << ": " << text.status();
    } else {
      ++n_equal;
      EXPECT_EQ(*text, expected) << c.name;
    }
  }
  std::cout << n << " prompts of " << templates_.size() << " different programs: " << n_calls << " with tools ("
            << n_calls_equal << " equal in one of two forms, " << n_calls_refused << " refused: no tools), " << n_equal
            << " equal, " << n_refused << " refused by both, " << n_lost
            << " refused here alone, as the template would leave a message out\n";
  EXPECT_GT(n_equal, 400);
}

}  // namespace
}  // namespace updraft::text
