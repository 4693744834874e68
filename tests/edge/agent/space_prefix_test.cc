// Answers that are gone on from their text under a vocabulary that puts a space before the first word of a text: what
// continues a text gets none.
#include <gmock/gmock.h>

#include <string>

#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/sentence_piece_model.h"

namespace updraft::testing {
namespace {

class SpacePrefixTest : public AgentTest {
 protected:
  static void SetUpTestSuite() {
    path_ = new std::string(::testing::TempDir() + "updraft_space_" + std::to_string(getpid()) + ".gguf");
    const absl::Status status = MakeSentencePieceModel(*path_);
    ASSERT_TRUE(status.ok()) << status;
  }

  static v1::GenerateRequest RawRequest(const std::string& prompt, int max_tokens) {
    v1::GenerateRequest request;
    request.set_prompt(prompt);
    request.set_max_tokens(max_tokens);
    return request;
  }
};

TEST_F(SpacePrefixTest, TextThatContinuesGetsNoSpace) {
  const auto model = LoadModel();
  const text::Tokenizer& tokenizer = *model->served().tokenizer();
  const auto begins = model->EncodeAnswer("hello", /*begins_text=*/true);
  const auto continues = model->EncodeAnswer("hello", /*begins_text=*/false);
  ASSERT_TRUE(begins.ok() && continues.ok());
  EXPECT_EQ(tokenizer.TokenBytes(begins->front())[0], ' ');
  EXPECT_EQ(tokenizer.TokenBytes(continues->front())[0], 'h');
}

// An upstream of another vocabulary writes the next word of a raw prompt and dies; from there on the answer is the one
// to the prompt with that word.
TEST_F(SpacePrefixTest, ARawPromptIsGoneOnAsIfItHadBeenLonger) {
  for (const std::string prompt : {"the", "the hello t"}) {
    for (const std::string next : {" hello", "he", " the t"}) {
      SCOPED_TRACE("'" + prompt + "' + '" + next + "'");
      FakeUpstream cloud("another fingerprint");
      cloud.on_generate = [&](const v1::GenerateRequest&) {
        Script script;
        script.chunks = {CloudChunk(next, {70000})};
        script.end_after = 1;
        return script;
      };
      auto agent = MakeAgent(cloud.address(), {.threshold = 1.0});
      const auto answer = Ask(*agent, RawRequest(prompt, 20));
      ASSERT_TRUE(answer->status().ok()) << answer->status();
      const text::Tokenizer& tokenizer = *agent->served().tokenizer();
      std::vector<int32_t> tokens = tokenizer.Encode(prompt).value();
      const std::vector<int32_t> added = tokenizer.Encode(next, {.add_special = false, .at_text_start = false}).value();
      tokens.insert(tokens.end(), added.begin(), added.end());
      v1::GenerateRequest longer;
      longer.mutable_tokens()->mutable_ids()->Add(tokens.begin(), tokens.end());
      longer.mutable_tokens()->set_tokenizer_fingerprint(Fingerprint());
      longer.set_max_tokens(20 - static_cast<int>(added.size()));
      const auto truth = LocalTruth(longer);
      ASSERT_TRUE(truth->status().ok()) << truth->status();
      EXPECT_EQ(answer->tokens(), truth->tokens());  // the upstream's ids are not ours to give
    }
  }
}

}  // namespace
}  // namespace updraft::testing
