// Whose answers act, by what the file says: files of other versions say less, or what this one does not know.
#include "common/serving/disposition_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/common/model/test_models.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

constexpr char kActs[] = R"({"set":{"Vehicle.Cabin.Seat.Row1.DriverSide.HeatingCooling":40},"say":"Warm."})";

class DispositionRuleTest : public ::testing::Test {
 protected:
  // Of a model whose file has these keys beside its weights.
  static absl::StatusOr<DispositionRule> RuleOf(const std::function<void(gguf::Writer&)>& metadata) {
    const TempFile plain, file;
    EXPECT_TRUE(Synthesize(Shape("tiny-llama"), kernels::DType::kF32, plain.path(), {.n_threads = 1}).ok());
    EXPECT_TRUE(EditFile(plain.path(), file.path(), {.metadata = metadata}).ok());
    const auto model = Model::Load(file.path(), {.n_threads = 1});
    EXPECT_TRUE(model.ok()) << model.status();
    return DispositionRule::Of(**model);
  }

  // That every answer is as likely right, by features of these names.
  static void AddCalibration(double p, std::vector<std::string> names, gguf::Writer& writer) {
    const auto whole = ConfidenceModel::FromMetadata({.names = {std::string(AnswerFeatures::Names()[0])},
                                                      .mean = {0.0f},
                                                      .scale = {1.0f},
                                                      .weights = {0.0f, 0.0f},
                                                      .isotonic_x = {-1.0f, 1.0f},
                                                      .isotonic_y = {static_cast<float>(p), static_cast<float>(p)},
                                                      .threshold = 0.5f,
                                                      .data_fingerprint = ""});
    ASSERT_TRUE(whole.ok()) << whole.status();
    whole->AddTo(writer, ConfidenceModel::Meaning::kRight);
    const std::vector<float> ones(names.size(), 1.0f), weights(names.size() + 1, 0.0f);
    writer.SetStrings("updraft.p_right.names", std::span<const std::string>(names));
    writer.SetF32s("updraft.p_right.mean", ones);
    writer.SetF32s("updraft.p_right.scale", ones);
    writer.SetF32s("updraft.p_right.weights", weights);
  }

  const std::vector<TokenEvidence> evidence_ = {TokenEvidence{.exit_layer = 2, .top_prob = 0.9f, .margin = 0.8f}};
};

TEST_F(DispositionRuleTest, AFileThatSaysNothingHasAnswersThatAreText) {
  const auto rule = RuleOf([](gguf::Writer&) {});
  ASSERT_TRUE(rule.ok()) << rule.status();
  EXPECT_FALSE(rule->acts());
}

// As files did before there was `updraft.p_right`.
TEST_F(DispositionRuleTest, WithoutACalibrationOfBeingRightNoAnswerThatActsIsDoubted) {
  const auto rule = RuleOf([](gguf::Writer& writer) { writer.SetString("updraft.acts", "cockpit"); });
  ASSERT_TRUE(rule.ok()) << rule.status();
  ASSERT_TRUE(rule->acts());
  const Verdict verdict = rule->Judge(kActs, evidence_, {});
  EXPECT_EQ(verdict.disposition, Disposition::kAct);
  EXPECT_FALSE(verdict.p_right.has_value());
  EXPECT_FALSE(verdict.doubtful);
}

TEST_F(DispositionRuleTest, ACalibrationOfFewerFeaturesJudges) {
  for (const double p : {0.2, 0.8}) {
    const auto rule = RuleOf([p](gguf::Writer& writer) {
      writer.SetString("updraft.acts", "cockpit");
      AddCalibration(p, {"mean_logprob", "log_answer_tokens"}, writer);
    });
    ASSERT_TRUE(rule.ok()) << rule.status();
    const Verdict verdict = rule->Judge(kActs, evidence_, {});
    ASSERT_TRUE(verdict.p_right.has_value());
    EXPECT_NEAR(*verdict.p_right, p, 1e-6);
    EXPECT_EQ(verdict.doubtful, p < 0.5);
  }
}

TEST_F(DispositionRuleTest, WhatALaterVersionWroteIsRefusedWithTheFileAndWhatToDo) {
  const auto task = RuleOf([](gguf::Writer& writer) { writer.SetString("updraft.acts", "warehouse"); });
  EXPECT_TRUE(absl::IsInvalidArgument(task.status())) << task.status();
  EXPECT_THAT(std::string(task.status().message()), HasSubstr("updraft.acts: expected 'cockpit', found 'warehouse'"));
  const auto feature = RuleOf([](gguf::Writer& writer) {
    writer.SetString("updraft.acts", "cockpit");
    AddCalibration(0.5, {"mean_logprob", "mean_surprise"}, writer);
  });
  EXPECT_TRUE(absl::IsInvalidArgument(feature.status())) << feature.status();
  EXPECT_THAT(std::string(feature.status().message()), HasSubstr(".gguf': updraft.p_right.names: 'mean_surprise'"));
  EXPECT_THAT(std::string(feature.status().message()), HasSubstr("`updraft calibrate`"));
}

}  // namespace
}  // namespace updraft::testing
