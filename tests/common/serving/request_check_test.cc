// Tools, calls and results in a request: what fits together passes, the rest is refused by name.
#include "common/serving/request_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "absl/strings/str_cat.h"
#include "tests/common/serving/fake_backend.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

// A conversation in which a tool was called.
v1::GenerateRequest WithTools() {
  v1::GenerateRequest request;
  v1::Tool* tool = request.add_tools();
  tool->set_name("set_temperature");
  tool->set_description("of the cabin");
  tool->set_parameters(R"({"type":"object","properties":{"celsius":{"type":"number"}}})");
  auto* messages = request.mutable_conversation()->mutable_messages();
  messages->Add()->set_role("user");
  messages->rbegin()->set_content("warmer");
  messages->Add()->set_role("assistant");
  v1::ToolCall* call = messages->rbegin()->add_tool_calls();
  call->set_id("call-1");
  call->set_name("set_temperature");
  call->set_arguments(R"({"celsius":22})");
  messages->Add()->set_role("tool");
  messages->rbegin()->set_tool_call_id("call-1");
  messages->rbegin()->set_content("");  // done, nothing to say
  return request;
}

TEST(RequestCheck, ToolsCallsAndResultsThatFitTogetherPass) {
  EXPECT_TRUE(CheckRequest(WithTools()).ok()) << CheckRequest(WithTools());
  v1::GenerateRequest request = WithTools();
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
  EXPECT_TRUE(CheckRequest(request).ok());
  request.mutable_tool_choice()->set_name("set_temperature");
  EXPECT_TRUE(CheckRequest(request).ok());
  request.mutable_tools(0)->clear_parameters();
  request.mutable_conversation()->mutable_messages(2)->set_name("set_temperature");
  EXPECT_TRUE(CheckRequest(request).ok());
}

TEST(RequestCheck, ControlTokensAreReadInRawPromptsAlone) {
  v1::GenerateRequest request;
  request.set_parse_special(true);
  request.set_prompt("<|im_start|>user");
  EXPECT_TRUE(CheckRequest(request).ok()) << CheckRequest(request);
  request.mutable_tokens()->add_ids(1);
  EXPECT_THAT(std::string(CheckRequest(request).message()), HasSubstr("parse_special: only works with prompt"));
  request = WithTools();
  request.set_parse_special(true);
  EXPECT_THAT(std::string(CheckRequest(request).message()), HasSubstr("parse_special: only works with prompt"));
}

// Off unless asked for: text of users must not become a control token.
TEST(MakePrompt, ControlTokensAreReadWhereTheCallerAsks) {
  const ServedModel& model = FakeServedModel();
  const std::optional<int32_t> marker = model.tokenizer()->SpecialTokenId("<|im_start|>");
  ASSERT_TRUE(marker.has_value());
  v1::GenerateRequest request;
  request.set_prompt("<|im_start|>user\nhello");
  const auto spelled = model.MakePrompt(request);
  ASSERT_TRUE(spelled.ok()) << spelled.status();
  EXPECT_EQ(std::count(spelled->tokens.begin(), spelled->tokens.end(), *marker), 0);
  request.set_parse_special(true);
  const auto parsed = model.MakePrompt(request);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tokens.front(), *marker);
  EXPECT_LT(parsed->tokens.size(), spelled->tokens.size());
}

TEST(RequestCheck, ToolsThatCannotBeAreRefusedByName) {
  using Request = v1::GenerateRequest;
  const auto message = [](Request& r, int i) { return r.mutable_conversation()->mutable_messages(i); };
  const std::pair<std::function<void(Request&)>, std::string> cases[] = {
      {[](Request& r) { r.mutable_tools(0)->clear_name(); }, "tools[0].name: expected 1 to 64"},
      {[](Request& r) { r.mutable_tools(0)->set_name("set temperature"); }, "tools[0].name"},
      {[](Request& r) { r.mutable_tools(0)->set_name(std::string(65, 'x')); }, "tools[0].name"},
      {[](Request& r) { *r.add_tools() = r.tools(0); }, "tools[1].name: 'set_temperature' is there twice"},
      {[](Request& r) { r.mutable_tools(0)->set_parameters("{"); }, "tools[0].parameters: "},
      {[](Request& r) { r.mutable_tools(0)->set_parameters("[]"); }, "tools[0].parameters: expected a JSON object"},
      {[](Request& r) { r.mutable_tools(0)->set_parameters(std::string(5000, '[')); }, "tools[0].parameters: "},
      {[](Request& r) { r.mutable_tools(0)->set_description(std::string(70000, 'x')); }, "tools: expected at most"},
      {[](Request& r) {
         for (int i = 0; i < 128; ++i) r.add_tools()->set_name(absl::StrCat("t", i));
       },
       "tools: expected at most 128, found 129"},
      {[](Request& r) { r.set_prompt("x"); }, "tools: only work with a conversation"},
      {[](Request& r) {
         r.clear_tools();
         r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
       },
       "tool_choice: asks for a call"},
      {[](Request& r) {
         r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_REQUIRED);
         r.mutable_tool_choice()->set_name("fly");
       },
       "tool_choice.name: expected the name of one of the tools"},
      {[](Request& r) { r.mutable_tool_choice()->set_name("set_temperature"); }, "tool_choice.name"},
      {[](Request& r) { r.mutable_shape()->set_regex("a"); }, "shape: only works with tool_choice.mode MODE_SHAPE"},
      {[](Request& r) { r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE); }, "shape: missing"},
      {[](Request& r) {
         r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE);
         r.mutable_shape()->set_regex("a");
       },
       "shape: does not work with tools"},
      {[](Request& r) {
         r.clear_tools();
         r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE);
         r.mutable_shape();
       },
       "expected json_schema, regex, grammar or choice"},
      {[](Request& r) {
         r.clear_tools();
         r.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE);
         r.mutable_shape()->set_json_schema(std::string(70000, ' '));
       },
       "shape: expected at most 65536 bytes"},
      {[&](Request& r) { message(r, 0)->add_tool_calls(); }, "messages[0].tool_calls: only an assistant calls tools"},
      {[&](Request& r) { message(r, 1)->mutable_tool_calls(0)->clear_id(); }, "messages[1].tool_calls[0].id: missing"},
      {[&](Request& r) { message(r, 1)->mutable_tool_calls(0)->set_id("a b"); }, "messages[1].tool_calls[0].id"},
      {[&](Request& r) { message(r, 1)->mutable_tool_calls(0)->clear_name(); }, "messages[1].tool_calls[0].name"},
      {[&](Request& r) {
         for (int i = 0; i < 128; ++i) *message(r, 1)->add_tool_calls() = message(r, 1)->tool_calls(0);
       },
       "messages[1].tool_calls: expected at most 128, found 129"},
      {[&](Request& r) { message(r, 2)->clear_tool_call_id(); }, "messages[2].tool_call_id: missing"},
      {[&](Request& r) { message(r, 2)->set_tool_call_id(std::string(129, 'x')); }, "messages[2].tool_call_id"},
      {[&](Request& r) { message(r, 2)->set_name("a b"); }, "messages[2].name"},
      {[&](Request& r) { message(r, 0)->set_tool_call_id("call-1"); }, "messages[0].tool_call_id: only of a message"},
      {[&](Request& r) { message(r, 0)->set_name("ann"); }, "messages[0].name: only of a message"},
      {[&](Request& r) { message(r, 0)->set_role("robot"); },
       "messages[0].role: expected system, user, assistant or tool, found 'robot'"},
  };
  for (const auto& [change, says] : cases) {
    Request request = WithTools();
    change(request);
    const absl::Status status = CheckRequest(request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << says;
    EXPECT_THAT(std::string(status.message()), HasSubstr(says));
  }
}

// A request for tools is refused where the template has none, not answered without them.
TEST(ServedModel, RefusesByNameWhatItsChatTemplateDoesNotWrite) {
  const ServedModel& model = FakeServedModel();
  ASSERT_FALSE(model.can_use_tools());
  v1::GenerateRequest request = WithTools();
  const auto refusal = [&] {
    const absl::Status status = model.MakePrompt(request).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal(), HasSubstr("tools: the model's chat template"));
  request.clear_tools();
  EXPECT_THAT(refusal(), HasSubstr("conversation.messages[1].tool_calls: the model's chat template"));
  request.mutable_conversation()->mutable_messages(1)->clear_tool_calls();
  request.mutable_conversation()->mutable_messages(1)->set_content("it is 22 degrees");
  EXPECT_THAT(refusal(), HasSubstr("conversation.messages[2].role: expected system, user or assistant, found 'tool'"));
  request.mutable_conversation()->mutable_messages()->RemoveLast();
  EXPECT_TRUE(model.MakePrompt(request).ok()) << model.MakePrompt(request).status();
  *request.mutable_tools() = WithTools().tools();
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  EXPECT_TRUE(model.MakePrompt(request).ok()) << "as if there were no tools";
}

}  // namespace
}  // namespace updraft::testing
