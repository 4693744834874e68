// A pair without labels, the upper one a running cloud.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/inference_client.h"
#include "deploy/calibrate/upstream.h"
#include "tests/e2e/process.h"
#include "tests/e2e/request.h"
#include "tests/e2e/two_models.h"
#include "tests/files.h"

namespace updraft::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using CalibrateTest = TwoModelsTest;

TEST_F(CalibrateTest, ARunningCloudFindsAnAnswerAsLikelyAsItsModelDoesHere) {
  SKIP_WITHOUT("updraft-cloud");
  SKIP_WITHOUT("updraft-edge");
  Daemon cloud("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(cloud.ready());
  auto remote = RemoteUpstream(cloud.address(), 16, absl::Seconds(60));
  ASSERT_TRUE(remote.ok()) << remote.status();
  EXPECT_THAT((*remote)->name(), AllOf(HasSubstr(cloud.address()), HasSubstr(*small_)));
  AnswerOptions options;
  options.max_tokens = 16;
  auto local = LocalUpstream(*small_, options);
  ASSERT_TRUE(local.ok()) << local.status();
  auto loaded = Answerer::Load(*small_, 1);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_GT((*loaded)->stop_tokens().size(), 1u) << "or the sum over them is not tried";
  for (const std::string answer : {"", "hello", "a longer answer, of several words: 12345.", "\u4f60\u597d"}) {
    const Conversation conversation = {{"user", "what is it?"}, {"assistant", "this"}, {"user", "and now?"}};
    const auto here = (*local)->LikelihoodOf(conversation, answer),
               there = (*remote)->LikelihoodOf(conversation, answer);
    ASSERT_TRUE(here.ok() && there.ok()) << here.status() << there.status();
    EXPECT_EQ(there->n_tokens, here->n_tokens) << answer;
    // The same arithmetic in batches of other shapes; the end is any of the tokens that end an answer.
    EXPECT_NEAR(there->logprob, here->logprob, 1e-2) << answer;
  }
  EXPECT_EQ((*remote)->Answer({{"user", "hello"}})->text, (*local)->Answer({{"user", "hello"}})->text);
  EXPECT_TRUE((*remote)->CheckSame().ok());

  // One that has an upstream does not speak for another's model.
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address()});
  ASSERT_TRUE(edge.ready());
  auto middle = RemoteUpstream(edge.address(), 16, absl::Seconds(60));
  ASSERT_TRUE(middle.ok()) << middle.status();
  const auto asked = (*middle)->LikelihoodOf({{"user", "hello"}}, "x");
  EXPECT_TRUE(absl::IsUnimplemented(asked.status())) << asked.status();
  EXPECT_THAT(asked.status().ToString(), HasSubstr("ask the tier that serves the model"));
}

TEST_F(CalibrateTest, GoesOnAfterTheCloudWasKilled) {
  SKIP_WITHOUT("updraft-cloud");
  SKIP_WITHOUT("updraft");
  const std::string prompts = TempPath("_prompts.jsonl"), out = TempPath("_out.gguf"), page = TempPath("_page.html");
  {
    std::ofstream file(prompts);
    // Where the answer is known nobody needs to be as likely as another: both classes are there for certain.
    for (int i = 0; i < 80; ++i) {
      file << R"({"prompt":"question )" << i * 7919 << (i % 8 == 0 ? "\",\"answer\":\"never\"}" : "\"}") << "\n";
    }
  }
  const auto arguments = [&](const Daemon& cloud) {
    return std::vector<std::string>{Program("updraft"),
                                    "calibrate",
                                    "--model",
                                    *small_,
                                    "--upstream",
                                    cloud.address(),
                                    "--prompts",
                                    prompts,
                                    "--out",
                                    out,
                                    "--report",
                                    page,
                                    "--max-tokens",
                                    "12",
                                    "--max-loss",
                                    "0.5",
                                    "--likelihood-margin",
                                    "0.3",
                                    "--workers",
                                    "1"};
  };
  const std::string progress = out + ".progress.jsonl";
  const auto n_known = [&] {
    const std::string text = std::filesystem::exists(progress) ? ReadAll(progress) : "";
    size_t n = 0;
    for (size_t at = 0; (at = text.find("upstream answers", at)) != std::string::npos; ++at) ++n;
    return n;
  };
  {
    Daemon cloud("updraft-cloud", {"--model", *large_});
    ASSERT_TRUE(cloud.ready());
    Process calibrate(arguments(cloud));
    for (int i = 0; i < 6000 && n_known() < 12; ++i) absl::SleepFor(absl::Milliseconds(10));
    cloud.process().Signal(SIGKILL);
    EXPECT_EQ(calibrate.Wait(absl::Seconds(120)), 1) << calibrate.Output();
    EXPECT_THAT(calibrate.Output(), AllOf(HasSubstr("of 80"), HasSubstr(cloud.address()), HasSubstr(progress)));
  }
  const size_t n_before = n_known();
  EXPECT_GE(n_before, 12u);
  EXPECT_LT(n_before, 80u);
  EXPECT_FALSE(std::filesystem::exists(out));
  Daemon cloud("updraft-cloud", {"--model", *large_});
  ASSERT_TRUE(cloud.ready());
  Process calibrate(arguments(cloud));
  EXPECT_EQ(calibrate.Wait(absl::Seconds(300)), 0) << calibrate.Output();
  EXPECT_THAT(calibrate.Output(), AllOf(HasSubstr("goes on with"), HasSubstr("70 of them have no label")));
  EXPECT_FALSE(std::filesystem::exists(progress));
  EXPECT_THAT(ReadAll(page), AllOf(HasSubstr("difference"), HasSubstr("Where it fails")));
  // And the edge routes by it.
  Daemon edge("updraft-edge", {"--model", out, "--upstream", cloud.address()});
  EXPECT_TRUE(edge.ready());
  for (const std::string& path : {prompts, out, page}) std::filesystem::remove(path);
}

// From outcomes of both tiers to a request that goes up without a draft.
TEST_F(CalibrateTest, ARouterSendsUpUndraftedWhatItExpectsToGain) {
  SKIP_WITHOUT("updraft-cloud");
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft");
  const std::string table = TempPath("_table.jsonl"), model = TempPath("_router.gguf");
  {
    std::ofstream file(table);
    for (int i = 0; i < 200; ++i) {
      const bool hard = i % 2 == 0;
      file << R"({"messages":[{"role":"user","content":")" << (hard ? "prove number " : "greet guest ") << i * 7919
           << R"("}],"weak":)" << (hard && i % 10 != 0 ? "false" : "true") << R"(,"strong":true})"
           << "\n";
    }
  }
  Process train({Program("updraft"), "train", "router", "--data", table, "--model", *small_, "--out", model});
  ASSERT_EQ(train.Wait(absl::Seconds(120)), 0) << train.Output();
  Daemon cloud("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(cloud.ready());
  const auto reason_of = [&](Daemon& edge, const std::string& words) {
    v1::GenerateRequest request = Request(8);
    request.mutable_conversation()->mutable_messages(0)->set_content(words);
    const auto answer = InferenceClient(edge.address()).Generate(request, absl::Seconds(60));
    EXPECT_TRUE(answer.ok()) << answer.status();
    const v1::Provenance& provenance = answer->done.provenance();
    EXPECT_EQ(provenance.decision() == v1::DECISION_KIND_STREAM_UPSTREAM, provenance.draft_tokens() == 0) << words;
    return provenance.reason();
  };
  Daemon edge("updraft-edge", {"--model", model, "--upstream", cloud.address(), "--router-gain", "0.4"});
  ASSERT_TRUE(edge.ready());
  EXPECT_THAT(reason_of(edge, "prove number 17"), HasSubstr("expected gain"));
  EXPECT_THAT(reason_of(edge, "greet guest 17"), HasSubstr("confidence"));
  Daemon silent("updraft-edge", {"--model", model, "--upstream", cloud.address()});
  ASSERT_TRUE(silent.ready());
  EXPECT_THAT(reason_of(silent, "prove number 17"), HasSubstr("confidence")) << "it is not asked";
  cloud.process().Signal(SIGKILL);
  cloud.process().Wait(absl::Seconds(30));
  const auto alone = InferenceClient(edge.address()).Generate(Request(8), absl::Seconds(60));
  EXPECT_TRUE(alone.ok()) << alone.status();

  Process without({Program("updraft-edge"), "--model", *small_, "--upstream", cloud.address(), "--router-gain", "0.4"});
  EXPECT_EQ(without.Wait(absl::Seconds(60)), 2);
  EXPECT_THAT(without.Output(), AllOf(HasSubstr("router_gain"), HasSubstr("train router")));
  for (const std::string& path : {table, model}) std::filesystem::remove(path);
}

}  // namespace
}  // namespace updraft::testing
