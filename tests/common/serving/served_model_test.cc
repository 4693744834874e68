// What a tier makes of a conversation, by the chat template that it was told to use.
#include "common/serving/served_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <string>

#include "common/serving/shapes.h"
#include "deploy/synth/synth.h"
#include "tests/common/model/test_models.h"

namespace updraft::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

class ServedModelTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    file_ = new TempFile;
    SynthShape shape;
    shape.n_layer = 1;
    shape.n_vocab = 512;
    const absl::Status status = Synthesize(shape, kernels::DType::kF32, file_->path(), {.seed = 3, .n_threads = 1});
    ASSERT_TRUE(status.ok()) << status;
  }
  static void TearDownTestSuite() { delete file_; }

  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(const std::string& chat_template) {
    return ServedModel::Load(file_->path(), {.n_threads = 1}, chat_template);
  }

  static v1::GenerateRequest Asked() {
    v1::GenerateRequest request;
    Say(request, "user", "hello");
    return request;
  }
  static void Say(v1::GenerateRequest& request, const char* role, const char* content) {
    v1::Message* message = request.mutable_conversation()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }
  static std::string Text(const ServedModel& model, const v1::GenerateRequest& request) {
    const auto prompt = model.MakePrompt(request);
    return prompt.ok() ? model.tokenizer()->Decode(prompt->tokens, /*render_special=*/true)
                       : "error: " + std::string(prompt.status().message());
  }

  static TempFile* file_;
};
TempFile* ServedModelTest::file_ = nullptr;

TEST_F(ServedModelTest, ABiasIsOfThisVocabularysTokens) {
  const auto model = Load("");
  ASSERT_TRUE(model.ok()) << model.status();
  v1::GenerateRequest request = Asked();
  v1::LogitBias* bias = request.mutable_sampling()->mutable_logit_bias();
  for (const int32_t token : {0, 511}) bias->add_entries()->set_token(token);
  EXPECT_TRUE((*model)->MakePrompt(request).ok());
  bias->set_tokenizer_fingerprint((*model)->info().tokenizer_fingerprint());
  EXPECT_TRUE((*model)->MakePrompt(request).ok());
  for (const int32_t token : {-1, 512}) {
    bias->mutable_entries(0)->set_token(token);
    const absl::Status status = (*model)->MakePrompt(request).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("logit_bias"));
  }
  bias->mutable_entries(0)->set_token(0);
  bias->set_tokenizer_fingerprint("another");
  EXPECT_TRUE(absl::IsFailedPrecondition((*model)->MakePrompt(request).status()));
}

TEST_F(ServedModelTest, TheChosenTemplateMakesThePrompt) {
  const auto own = Load(""), zephyr = Load("zephyr");
  ASSERT_TRUE(own.ok() && zephyr.ok()) << own.status() << zephyr.status();
  EXPECT_EQ(Text(**own, Asked()), "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Text(**zephyr, Asked()), "<|user|>\nhello<|im_end|>\n<|assistant|>\n");
  const auto unknown = Load("nope");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("--chat-template: expected one of chatml, "));
}

// What is wrong with it whatever it is given is told at once.
TEST_F(ServedModelTest, ATemplateThatCannotServeIsRefused) {
  const std::string path = ::testing::TempDir() + "updraft_template_" + std::to_string(getpid());
  for (const auto& [source, why] :
       {std::pair{"{% for m in messages %}{{ m.content | no_such_filter }}{% endfor %}", "no_such_filter"},
        {"{{ no_such_function(messages) }}", "no_such_function"},
        {"", "writes nothing of it"},
        {"{{ bos_token }}hello", "writes nothing of it"},
        {"{% for m in messages %}", "expected"}}) {
    std::ofstream(path) << source;
    const auto model = Load(path);
    EXPECT_TRUE(absl::IsInvalidArgument(model.status())) << source << ": " << model.status();
    EXPECT_THAT(std::string(model.status().message()), HasSubstr("--chat-template"));
    EXPECT_THAT(std::string(model.status().message()), HasSubstr(why));
  }
  std::ofstream(path) << "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}";
  const auto model = Load(path);
  EXPECT_TRUE(model.ok()) << model.status();
  std::remove(path.c_str());
}

TEST_F(ServedModelTest, ShapesAreMadeOnceAndTheLastOnesKept) {
  const auto model = Load("");
  ASSERT_TRUE(model.ok()) << model.status();
  const Shapes shapes((*model)->tokenizer(), (*model)->stop_tokens(), (*model)->model().config().n_vocab,
                      /*calls=*/{}, /*call_markers=*/{}, /*max_shapes=*/2);
  const auto of = [&](const std::string& regex) {
    v1::Shape shape;
    shape.set_regex(regex);
    return shapes.Of(shape);
  };
  const auto a = of("a"), b = of("b");
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ(*of("a"), *a);
  const auto c = of("c");  // b was asked for longest ago
  ASSERT_TRUE(c.ok());
  EXPECT_EQ(*of("a"), *a);
  EXPECT_EQ(*of("c"), *c);
  EXPECT_NE(*of("b"), *b);
  for (const char* wrong : {"(a", "((a{2000}){2000}){2000}"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(of(wrong).status())) << wrong << ": sent again it is wrong again";
  }
  const Shapes endless((*model)->tokenizer(), {}, (*model)->model().config().n_vocab);
  v1::Shape shape;
  shape.set_regex("a");
  EXPECT_TRUE(absl::IsFailedPrecondition(endless.Of(shape).status()));
}

TEST_F(ServedModelTest, TiersExchangeIdsOnlyWhereTheirTemplatesAgree) {
  const auto own = Load(""), zephyr = Load("zephyr"), same = Load("");
  ASSERT_TRUE(own.ok() && zephyr.ok() && same.ok());
  EXPECT_EQ((*own)->info().tokenizer_fingerprint(), (*same)->info().tokenizer_fingerprint());
  EXPECT_NE((*own)->info().tokenizer_fingerprint(), (*zephyr)->info().tokenizer_fingerprint());
  v1::GenerateRequest request;
  request.mutable_tokens()->add_ids(1);
  request.mutable_tokens()->set_tokenizer_fingerprint((*own)->info().tokenizer_fingerprint());
  EXPECT_TRUE((*same)->MakePrompt(request).ok());
  EXPECT_EQ((*zephyr)->MakePrompt(request).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ServedModelTest, AnAnswerThatWasBegunGoesOn) {
  const auto model = Load("");
  ASSERT_TRUE(model.ok()) << model.status();
  v1::GenerateRequest request = Asked();
  Say(request, "assistant", "Well, ");
  EXPECT_THAT(Text(**model, request), EndsWith("<|im_start|>assistant\nWell, "));
  EXPECT_FALSE((*model)->MakePrompt(request)->at_text_start);
  request.mutable_conversation()->set_continue_final_message(false);
  EXPECT_THAT(Text(**model, request), EndsWith("Well, <|im_end|>\n<|im_start|>assistant\n"));
  Say(request, "user", "so?");
  request.mutable_conversation()->set_continue_final_message(true);
  EXPECT_THAT(Text(**model, request), HasSubstr("messages[2].role: expected assistant"));
}

TEST_F(ServedModelTest, AFileWithATemplateThatWritesTools) {
  TempFile file;
  std::ofstream(file.path())
      << "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}{% for m in messages %}"
         "{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function | tojson }}"
         "{% endfor %}\n{% endfor %}{{ 'thought: ' ~ enable_thinking if enable_thinking is defined }}";
  const auto model = Load(file.path());
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_TRUE((*model)->can_use_tools());
  v1::GenerateRequest request = Asked();
  v1::Tool* tool = request.add_tools();
  tool->set_name("f");
  tool->set_parameters(R"({"z":1,"a":2})");
  request.mutable_conversation()->set_thinking(false);
  EXPECT_EQ(
      Text(**model, request),
      "{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"\", \"parameters\": {\"z\": 1, "
      "\"a\": 2}}}\nuser: hellothought: False");
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_NONE);
  EXPECT_EQ(Text(**model, request), "user: hellothought: False");
  std::ofstream(file.path()) << "{% if %}";
  EXPECT_THAT(std::string(Load(file.path()).status().message()), HasSubstr("line 1: expected an expression"));
}

}  // namespace
}  // namespace updraft::testing
