// A pair without labels, the upper one a running cloud.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/calibrate/upstream.h"
#include "tests/e2e/process.h"
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
  const int n_stops = static_cast<int>((*loaded)->stop_tokens().size());
  for (const std::string answer : {"", "hello", "a longer answer, of several words: 12345.", "\u4f60\u597d"}) {
    const Conversation conversation = {{"user", "what is it?"}, {"assistant", "this"}, {"user", "and now?"}};
    const auto here = (*local)->LikelihoodOf(conversation, answer),
               there = (*remote)->LikelihoodOf(conversation, answer);
    ASSERT_TRUE(here.ok() && there.ok()) << here.status() << there.status();
    EXPECT_EQ(there->n_tokens, here->n_tokens) << answer;
    // Here the end is any of the tokens that end an answer, there the usual one of them: a model with random weights
    // finds all about equally likely. Otherwise the same arithmetic in batches of other shapes.
    EXPECT_LE(there->logprob, here->logprob + 1e-2) << answer;
    EXPECT_GE(there->logprob, here->logprob - std::log(static_cast<double>(n_stops)) - 3.0) << answer;
    if (n_stops == 1) {
      EXPECT_NEAR(there->logprob, here->logprob, 1e-2) << answer;
    }
  }
  EXPECT_EQ(*(*remote)->Answer({{"user", "hello"}}), *(*local)->Answer({{"user", "hello"}}));

  // One that has an upstream does not speak for another's model.
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address()});
  ASSERT_TRUE(edge.ready());
  auto middle = RemoteUpstream(edge.address(), 16, absl::Seconds(60));
  ASSERT_TRUE(middle.ok()) << middle.status();
  const auto asked = (*middle)->LikelihoodOf({{"user", "hello"}}, "x");
  EXPECT_TRUE(absl::IsUnimplemented(asked.status())) << asked.status();
  EXPECT_THAT(asked.status().ToString(), HasSubstr("ask the tier whose model it is about"));
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
  EXPECT_THAT(ReadAll(page), AllOf(HasSubstr("likelihood"), HasSubstr("Where it fails")));
  // And the edge routes by it.
  Daemon edge("updraft-edge", {"--model", out, "--upstream", cloud.address()});
  EXPECT_TRUE(edge.ready());
  for (const std::string& path : {prompts, out, page}) std::filesystem::remove(path);
}

}  // namespace
}  // namespace updraft::testing
