#include "common/routing/confidence.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/routing/risk_control.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/routing/synthetic_answers.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;
using testing::Judge;
using testing::SyntheticAnswers;

int FeatureIndex(std::string_view name) {
  const auto names = AnswerFeatures::Names();
  for (int i = 0; i < AnswerFeatures::kCount; ++i) {
    if (names[i] == name) return i;
  }
  ADD_FAILURE() << "no feature '" << name << "'";
  return 0;
}

float Feature(const AnswerFeatures& features, std::string_view name) { return features.values[FeatureIndex(name)]; }

TokenEvidence Token(double probability, double margin, int exit_layer) {
  TokenEvidence token;
  token.exit_layer = exit_layer;
  token.top_prob = static_cast<float>(probability);
  token.margin = static_cast<float>(margin);
  token.entropy = static_cast<float>(1.0 - probability);
  token.logprob = static_cast<float>(std::log(probability));
  return token;
}

TEST(FeaturesTest, AgainstHandComputedValues) {
  const TokenEvidence evidence[] = {Token(0.9, 0.8, 2), Token(0.5, 0.1, 4), Token(0.8, 0.7, 2), Token(0.6, 0.3, 4)};
  PromptFeatures prompt;
  prompt.n_digits = 3;
  prompt.n_turns = 2;
  const AnswerFeatures features = FeaturesOf(evidence, prompt, 4);
  const double product = 0.9 * 0.5 * 0.8 * 0.6, opening = 0.9 * 0.5;
  EXPECT_NEAR(Feature(features, "mean_logprob"), std::log(product) / 4, 1e-5);
  EXPECT_NEAR(Feature(features, "sequence_logit"), std::log(product / (1 - product)), 1e-5);
  EXPECT_NEAR(Feature(features, "opening_logit"), std::log(opening / (1 - opening)), 1e-5);
  EXPECT_NEAR(Feature(features, "min_token_logit"), 0.0, 1e-5);
  EXPECT_NEAR(Feature(features, "min_margin_logit"), std::log(0.1 / 0.9), 2e-3);
  EXPECT_NEAR(Feature(features, "third_margin_logit"), std::log(0.7 / 0.3), 2e-3);
  EXPECT_NEAR(Feature(features, "log_low_margin"), std::log(3.0), 1e-5);
  EXPECT_NEAR(Feature(features, "max_entropy"), 0.5, 1e-5);
  EXPECT_NEAR(Feature(features, "early_exit_share"), 0.5, 1e-6);
  EXPECT_NEAR(Feature(features, "log_answer_tokens"), std::log(5.0), 1e-5);
  EXPECT_NEAR(Feature(features, "log_prompt_digits"), std::log(4.0), 1e-5);
  EXPECT_NEAR(Feature(features, "log_turns"), std::log(3.0), 1e-5);
}

// How the reply is worded, and the token that ends it, are none of what acts.
TEST(FeaturesTest, WhatActsIsSummarizedApart) {
  std::vector<TokenEvidence> evidence = {Token(0.9, 0.8, 4), Token(0.5, 0.1, 4), Token(0.3, 0.01, 4),
                                         Token(0.2, 0.0, 4)};
  const uint32_t offsets[] = {0, 11, 12, TokenEvidence::kNoText};
  for (size_t i = 0; i < evidence.size(); ++i) evidence[i].text_offset = offsets[i];
  const AnswerFeatures features =
      FeaturesOf(evidence, {}, 4, {.acting_bytes = 12, .n_settings = 3, .calls = true, .refuses = false});
  const double product = 0.9 * 0.5;
  EXPECT_NEAR(Feature(features, "acting_mean_logprob"), std::log(product) / 2, 1e-5);
  EXPECT_NEAR(Feature(features, "acting_sequence_logit"), std::log(product / (1 - product)), 1e-5);
  EXPECT_NEAR(Feature(features, "acting_min_token_logit"), 0.0, 1e-5);
  EXPECT_NEAR(Feature(features, "acting_min_margin_logit"), std::log(0.1 / 0.9), 2e-3);
  EXPECT_NEAR(Feature(features, "acting_third_margin_logit"), std::log(1e4), 0.1) << "there is no third";
  EXPECT_NEAR(Feature(features, "acting_log_low_margin"), std::log(2.0), 1e-5);
  EXPECT_NEAR(Feature(features, "acting_max_entropy"), 0.5, 1e-5);
  EXPECT_NEAR(Feature(features, "acting_log_tokens"), std::log(3.0), 1e-5);
  EXPECT_NEAR(Feature(features, "log_settings"), std::log(4.0), 1e-5);
  EXPECT_EQ(Feature(features, "calls"), 1.0f);
  EXPECT_EQ(Feature(features, "refuses"), 0.0f);
  EXPECT_NEAR(Feature(features, "log_answer_tokens"), std::log(5.0), 1e-5);
  // Of an answer that is text all of it counts.
  const AnswerFeatures text = FeaturesOf(evidence, {}, 4);
  EXPECT_EQ(Feature(text, "acting_mean_logprob"), Feature(text, "mean_logprob"));
  EXPECT_EQ(Feature(text, "acting_sequence_logit"), Feature(text, "sequence_logit"));
  EXPECT_EQ(Feature(text, "acting_log_tokens"), Feature(text, "log_answer_tokens"));
}

TEST(FeaturesTest, DoubtIsTheSameWhereverItStands) {
  std::vector<TokenEvidence> evidence(20, Token(0.99, 0.98, 4));
  evidence[3] = Token(0.4, 0.05, 4);
  const AnswerFeatures first = FeaturesOf(evidence, {}, 4);
  std::swap(evidence[3], evidence[7]);
  const AnswerFeatures second = FeaturesOf(evidence, {}, 4);
  for (int i = 0; i < AnswerFeatures::kCount; ++i) EXPECT_NEAR(first.values[i], second.values[i], 1e-5) << i;
}

TEST(FeaturesTest, HostileEvidenceStaysFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {kInf, -kInf, kNan, 1e30f, -1e30f}) {
    TokenEvidence token;
    token.exit_layer = -5;
    token.top_prob = token.margin = token.entropy = token.logprob = bad;
    PromptFeatures prompt;
    prompt.n_digits = prompt.n_turns = std::numeric_limits<int>::min();
    const TokenEvidence evidence[] = {token, token};
    const AnswerFeatures features = FeaturesOf(evidence, prompt, 0);
    for (int i = 0; i < AnswerFeatures::kCount; ++i)
      EXPECT_TRUE(std::isfinite(features.values[i])) << i << " at " << bad;
  }
}

TEST(FeaturesTest, NoTokensNoConfidence) {
  EXPECT_LT(ConfidenceModel::Uncalibrated().Predict(FeaturesOf({}, {}, 4)), 1e-6);
  auto model = ConfidenceModel::Fit(SyntheticAnswers(2000, 5));
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_LT(model->Predict(FeaturesOf({}, {}, 4)), 0.2);
}

TEST(FeaturesTest, PromptDigitsAreThoseOfTheLastMessage) {
  const std::string_view messages[] = {"range 420?", "and from 37% to 80 in \u4e94\u5206\u949f"};
  const PromptFeatures features = PromptFeaturesOf(messages, 44);
  EXPECT_EQ(features.n_turns, 2);
  EXPECT_EQ(features.n_digits, 4);
  EXPECT_EQ(features.n_prompt_tokens, 44);
}

TEST(ConfidenceTest, UncalibratedIsTheGeometricMean) {
  const TokenEvidence evidence[] = {Token(0.9, 0.8, 4), Token(0.4, 0.1, 4)};
  const ConfidenceModel model = ConfidenceModel::Uncalibrated();
  EXPECT_FALSE(model.calibrated());
  EXPECT_NEAR(model.Predict(FeaturesOf(evidence, {}, 4)), std::sqrt(0.9 * 0.4), 1e-6);
}

// What the project promises of a real model file, on answers that neither fit nor isotonic map saw.
TEST(ConfidenceTest, CalibratedAndDiscriminatingOnHeldOutAnswers) {
  for (const uint64_t seed : {1, 2, 3, 4}) {
    auto model = ConfidenceModel::Fit(SyntheticAnswers(2000, seed));
    ASSERT_TRUE(model.ok()) << model.status();
    const auto judged = Judge(*model, SyntheticAnswers(4000, seed + 100));
    EXPECT_LE(ExpectedCalibrationError(judged), 0.05) << "seed " << seed;
    EXPECT_GE(AreaUnderRoc(judged), 0.80) << "seed " << seed;
    // And it is better than the uncalibrated fallback on both counts.
    const auto fallback = Judge(ConfidenceModel::Uncalibrated(), SyntheticAnswers(4000, seed + 100));
    EXPECT_LT(ExpectedCalibrationError(judged), ExpectedCalibrationError(fallback)) << "seed " << seed;
    EXPECT_GT(AreaUnderRoc(judged), AreaUnderRoc(fallback)) << "seed " << seed;
  }
}

// All samples serve the fit and the choice of the threshold, and still the model that serves keeps the promise on new
// answers: the price of cross-fitting, measured.
TEST(ConfidenceTest, AThresholdChosenOnTheSamplesOfTheFitHolds) {
  constexpr int kRuns = 150, kSamples = 1000;
  constexpr double kDelta = 0.05, kLimits[] = {0.02, 0.05};
  const auto fresh = SyntheticAnswers(20000, 77);
  int violations[2] = {};
  double coverage[2] = {}, risk[2] = {};
  for (int run = 0; run < kRuns; ++run) {
    const auto samples = SyntheticAnswers(kSamples, 5000 + run);
    const auto model = ConfidenceModel::Fit(samples);
    ASSERT_TRUE(model.ok()) << model.status();
    const auto confidences = model->HeldOutConfidences(samples);
    ASSERT_TRUE(confidences.ok()) << confidences.status();
    std::vector<RiskSample> risks;
    for (int i = 0; i < kSamples; ++i) risks.push_back({(*confidences)[i], samples[i].correct ? 0.0 : 1.0});
    const std::vector<Judged> judged = Judge(*model, fresh);
    for (int l = 0; l < 2; ++l) {
      const auto choice = ChooseKeepThreshold(risks, {.max_risk = kLimits[l], .delta = kDelta});
      ASSERT_TRUE(choice.ok()) << choice.status();
      double kept = 0.0, wrong = 0.0;
      for (const Judged& answer : judged) {
        if (answer.confidence < choice->threshold) continue;
        kept += 1.0;
        wrong += answer.correct ? 0.0 : 1.0;
      }
      violations[l] += wrong / fresh.size() > kLimits[l] ? 1 : 0;
      coverage[l] += kept / fresh.size() / kRuns;
      risk[l] += wrong / fresh.size() / kRuns;
    }
  }
  for (int l = 0; l < 2; ++l) {
    std::printf("limit %.0f %%: broken in %.1f %% of %d runs, %.1f %% kept, risk %.2f %%\n", 100 * kLimits[l],
                100.0 * violations[l] / kRuns, kRuns, 100 * coverage[l], 100 * risk[l]);
    EXPECT_LE(violations[l], kRuns * (kDelta + 2.0 * std::sqrt(kDelta * (1.0 - kDelta) / kRuns)));
    EXPECT_GT(risk[l], 0.4 * kLimits[l]) << "the promise is kept at more than its price";
  }
}

TEST(ConfidenceTest, CrossFitPredictsWhatHeldOutShows) {
  const auto samples = SyntheticAnswers(3000, 21);
  auto predicted = ConfidenceModel::CrossFit(samples);
  ASSERT_TRUE(predicted.ok()) << predicted.status();
  std::vector<Judged> inside;
  for (size_t i = 0; i < samples.size(); ++i) inside.push_back({(*predicted)[i], samples[i].correct});
  const auto model = ConfidenceModel::Fit(samples);
  const auto outside = Judge(*model, SyntheticAnswers(6000, 22));
  // Three deviations of an AUROC of 0.85 on 3,000 answers is about 0.02 (Hanley & McNeil 1982).
  EXPECT_NEAR(AreaUnderRoc(inside), AreaUnderRoc(outside), 0.03);
  EXPECT_LE(ExpectedCalibrationError(inside), 0.05);
}

TEST(ConfidenceTest, NewtonFindsTheMaximumOfTheLogLikelihood) {
  // With one informative feature the fitted score must order answers as that feature does.
  std::mt19937_64 rng(9);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  std::vector<ConfidenceModel::Sample> samples(1000);
  for (auto& sample : samples) {
    const double x = 6.0 * uniform(rng) - 3.0;
    sample.features.values[1] = static_cast<float>(x);
    sample.correct = uniform(rng) < 1.0 / (1.0 + std::exp(-(2.0 * x - 1.0)));
  }
  const auto model = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(model.ok()) << model.status();
  for (const double x : {-2.0, -1.0, 0.0, 0.5, 1.0, 2.0}) {
    AnswerFeatures features;
    features.values[1] = static_cast<float>(x);
    // 1,000 answers over six units: a block of the map holds at least 10, so 0.16 is two deviations of its mean.
    EXPECT_NEAR(model->Predict(features), 1.0 / (1.0 + std::exp(-(2.0 * x - 1.0))), 0.16) << "at " << x;
  }
  // The weight itself, from the metadata: within three standard errors (0.16) of the truth, on the feature's own scale.
  const auto metadata = model->ToMetadata();
  EXPECT_NEAR(metadata.weights[1] / metadata.scale[1], 2.0, 0.5);
}

TEST(ConfidenceTest, PredictIsMonotoneInTheScoreAndBelowOne) {
  const auto model = ConfidenceModel::Fit(SyntheticAnswers(1500, 31));
  ASSERT_TRUE(model.ok()) << model.status();
  const auto metadata = model->ToMetadata();
  for (size_t i = 1; i < metadata.isotonic_x.size(); ++i) {
    EXPECT_GT(metadata.isotonic_x[i], metadata.isotonic_x[i - 1]);
    EXPECT_GE(metadata.isotonic_y[i], metadata.isotonic_y[i - 1]);
  }
  // Along the gradient of the score, far out on both sides.
  double previous = 0.0;
  for (double t = -50.0; t <= 50.0; t += 0.05) {
    AnswerFeatures features;
    for (int i = 0; i < AnswerFeatures::kCount; ++i) {
      features.values[i] = static_cast<float>(metadata.mean[i] + t * metadata.scale[i] * metadata.weights[i]);
    }
    const double p = model->Predict(features);
    EXPECT_GE(p, previous - 1e-12) << "at " << t;
    EXPECT_GE(p, 0.0);
    EXPECT_LT(p, 1.0);
    previous = p;
  }
}

TEST(ConfidenceTest, TheFitIsDeterministic) {
  const auto samples = SyntheticAnswers(800, 77);
  const auto a = ConfidenceModel::Fit(samples)->ToMetadata(), b = ConfidenceModel::Fit(samples)->ToMetadata();
  EXPECT_EQ(a.weights, b.weights);
  EXPECT_EQ(a.isotonic_x, b.isotonic_x);
  EXPECT_EQ(a.isotonic_y, b.isotonic_y);
}

TEST(ConfidenceTest, RefusesWhatCannotBeFitted) {
  auto samples = SyntheticAnswers(49, 1);
  EXPECT_THAT(ConfidenceModel::Fit(samples).status().ToString(), HasSubstr("at least 50"));
  samples = SyntheticAnswers(100, 1);
  for (auto& sample : samples) sample.correct = true;
  EXPECT_THAT(ConfidenceModel::Fit(samples).status().ToString(), HasSubstr("only right"));
  samples = SyntheticAnswers(100, 1);
  samples[7].features.values[2] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(ConfidenceModel::Fit(samples).status().ToString(), HasSubstr("opening_logit"));
  EXPECT_EQ(ConfidenceModel::CrossFit({}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto some = SyntheticAnswers(200, 1);
  EXPECT_THAT(std::string(ConfidenceModel::Uncalibrated().HeldOutConfidences(some).status().message()),
              HasSubstr("uncalibrated"));
  EXPECT_EQ(ConfidenceModel::Fit(some)->HeldOutConfidences({}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ConfidenceTest, SeparableAnswersAndConstantFeaturesFit) {
  std::vector<ConfidenceModel::Sample> samples(60);
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].correct = i % 3 == 0;
    samples[i].features.values[4] = samples[i].correct ? 1.0f : -1.0f;
  }
  const auto model = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_GT(model->Predict(samples[0].features), 0.8);
  EXPECT_LT(model->Predict(samples[1].features), 0.2);
}

TEST(ConfidenceTest, OneRightAnswerAmongManyFits) {
  auto samples = SyntheticAnswers(200, 3);
  for (size_t i = 0; i < samples.size(); ++i) samples[i].correct = i == 100;
  const auto model = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_LT(model->Predict(samples[0].features), 0.2);
}

class ConfidenceFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::temp_directory_path() / ("routing_confidence_" + std::to_string(::getpid()) + ".gguf"))
                .string();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  absl::StatusOr<ConfidenceModel> Reload(const std::function<void(gguf::Writer&)>& fill) {
    auto writer = gguf::Writer::Create(path_);
    if (!writer.ok()) return writer.status();
    writer->SetString("general.architecture", "llama");
    fill(*writer);
    if (auto status = writer->Finish(); !status.ok()) return status;
    auto file = gguf::File::Open(path_);
    if (!file.ok()) return file.status();
    return ConfidenceModel::FromGguf(*file);
  }
  std::string path_;
};

TEST_F(ConfidenceFileTest, RoundTripPredictsTheSame) {
  const auto samples = SyntheticAnswers(600, 41);
  auto model = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(model.ok()) << model.status();
  model->set_threshold(0.7310585786300049);
  model->set_data_fingerprint("sha256:abc");
  auto reloaded = Reload([&](gguf::Writer& writer) { model->AddTo(writer); });
  ASSERT_TRUE(reloaded.ok()) << reloaded.status();
  EXPECT_TRUE(reloaded->calibrated());
  EXPECT_EQ(reloaded->data_fingerprint(), "sha256:abc");
  EXPECT_GE(reloaded->threshold(), model->threshold());  // never rounded to let more through
  EXPECT_NEAR(reloaded->threshold(), model->threshold(), 1e-7);
  for (const auto& sample : samples) EXPECT_EQ(reloaded->Predict(sample.features), model->Predict(sample.features));
}

TEST_F(ConfidenceFileTest, TheTwoMeaningsStandBesideEachOther) {
  const auto samples = SyntheticAnswers(600, 43);
  auto kept = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(kept.ok()) << kept.status();
  ConfidenceModel right = *kept;
  kept->set_threshold(0.8);
  right.set_threshold(0.3);
  using Meaning = ConfidenceModel::Meaning;
  const auto fill = [&](gguf::Writer& writer) {
    kept->AddTo(writer);
    right.AddTo(writer, Meaning::kRight);
  };
  auto reloaded = Reload(fill);
  ASSERT_TRUE(reloaded.ok()) << reloaded.status();
  EXPECT_NEAR(reloaded->threshold(), 0.8, 1e-6);
  const auto read_right = [&] { return ConfidenceModel::FromGguf(*gguf::File::Open(path_), Meaning::kRight); };
  ASSERT_TRUE(read_right().ok()) << read_right().status();
  EXPECT_TRUE(read_right()->calibrated());
  EXPECT_NEAR(read_right()->threshold(), 0.3, 1e-6);

  ASSERT_TRUE(Reload([&](gguf::Writer& writer) { kept->AddTo(writer); }).ok());
  EXPECT_FALSE(read_right()->calibrated()) << "one does not stand in for the other";

  ASSERT_TRUE(Reload([&](gguf::Writer& writer) {
                fill(writer);
                writer.SetF32s("updraft.p_right.mean", std::vector<float>(3, 0.0f));
              }).ok());
  EXPECT_EQ(read_right().status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(read_right().status().message()), ::testing::HasSubstr("updraft.p_right.mean"));
}

TEST_F(ConfidenceFileTest, AFileWithoutCalibrationIsUncalibrated) {
  auto model = Reload([](gguf::Writer&) {});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_FALSE(model->calibrated());
}

// As the version before those features wrote it: a model of what it knew, in the order that it had.
ConfidenceModel::Metadata Without(ConfidenceModel::Metadata metadata, std::span<const std::string_view> unknown_then) {
  for (const std::string_view name : unknown_then) {
    const auto at = std::find(metadata.names.begin(), metadata.names.end(), name) - metadata.names.begin();
    metadata.names.erase(metadata.names.begin() + at);
    metadata.mean.erase(metadata.mean.begin() + at);
    metadata.scale.erase(metadata.scale.begin() + at);
    metadata.weights.erase(metadata.weights.begin() + at);
  }
  return metadata;
}

void Write(const ConfidenceModel::Metadata& metadata, const std::string& prefix, gguf::Writer& writer) {
  writer.SetStrings(prefix + "names", std::span<const std::string>(metadata.names));
  writer.SetF32s(prefix + "mean", metadata.mean);
  writer.SetF32s(prefix + "scale", metadata.scale);
  writer.SetF32s(prefix + "weights", metadata.weights);
}

// Whichever features came later, one or all but one: the file says what it said, and what it does not know is not
// asked.
TEST_F(ConfidenceFileTest, AFileFittedBeforeAFeatureWasThereSaysWhatItSaidThen) {
  const auto samples = SyntheticAnswers(600, 47);
  auto fitted = ConfidenceModel::Fit(samples);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  fitted->set_threshold(0.625);
  const auto names = AnswerFeatures::Names();
  const std::vector<std::string_view> later[] = {
      {names[0]}, {names[5], names[7]}, {names[11]}, {names.begin() + 1, names.end()}};
  for (const auto& unknown_then : later) {
    const ConfidenceModel::Metadata whole = fitted->ToMetadata();
    auto old = Reload([&](gguf::Writer& writer) {
      fitted->AddTo(writer);
      Write(Without(whole, unknown_then), "updraft.confidence.", writer);
    });
    ASSERT_TRUE(old.ok()) << old.status();
    EXPECT_TRUE(old->calibrated());
    EXPECT_EQ(old->threshold(), fitted->threshold());
    ConfidenceModel::Metadata ignoring = whole;
    for (const std::string_view name : unknown_then) ignoring.weights[FeatureIndex(name)] = 0.0f;
    const auto expected = ConfidenceModel::FromMetadata(ignoring);
    ASSERT_TRUE(expected.ok()) << expected.status();
    bool differs = false;
    for (const auto& sample : samples) {
      const double p = old->Predict(sample.features);
      EXPECT_EQ(p, expected->Predict(sample.features));
      differs = differs || p != fitted->Predict(sample.features);
      AnswerFeatures other = sample.features;
      for (const std::string_view name : unknown_then) other.values[FeatureIndex(name)] += 100.0f;
      EXPECT_EQ(p, old->Predict(other));
    }
    EXPECT_TRUE(differs) << "the features left out had no weight: nothing was tested";
  }
}

// Such a file would mean something else without it.
TEST_F(ConfidenceFileTest, AFileFittedOnAFeatureOfALaterVersionIsRefusedWithWhatToDo) {
  auto fitted = ConfidenceModel::Fit(SyntheticAnswers(300, 48));
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  auto newer = fitted->ToMetadata();
  newer.names.insert(newer.names.begin() + 3, "mean_surprise");
  for (std::vector<float>* values : {&newer.mean, &newer.scale, &newer.weights})
    values->insert(values->begin() + 3, 1.0f);
  using Meaning = ConfidenceModel::Meaning;
  for (const auto& [meaning, prefix] :
       {std::pair(Meaning::kAsGoodAsUpstream, "updraft.confidence."), std::pair(Meaning::kRight, "updraft.p_right.")}) {
    Reload([&](gguf::Writer& writer) {
      fitted->AddTo(writer, meaning);
      Write(newer, prefix, writer);
    }).IgnoreError();
    const absl::Status status = ConfidenceModel::FromGguf(*gguf::File::Open(path_), meaning).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat(prefix, "names: 'mean_surprise' is no feature")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("`updraft calibrate`"));
  }
  auto version = Reload([&](gguf::Writer& writer) {
    fitted->AddTo(writer);
    writer.SetU32("updraft.confidence.version", ConfidenceModel::kVersion + 1);
  });
  EXPECT_THAT(std::string(version.status().message()), HasSubstr("a newer version wrote"));
}

TEST_F(ConfidenceFileTest, DamagedMetadataIsRefusedByName) {
  auto fitted = ConfidenceModel::Fit(SyntheticAnswers(300, 2));
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  const auto good = fitted->ToMetadata();
  struct Case {
    const char* field;
    std::function<void(gguf::Writer&)> damage;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Case> cases = {
      {"version", [](gguf::Writer& w) { w.SetU32("updraft.confidence.version", 99); }},
      {"names",
       [&](gguf::Writer& w) {
         auto names = good.names;
         std::swap(names[0], names[1]);
         w.SetStrings("updraft.confidence.names", std::span<const std::string>(names));
       }},
      {"names",
       [&](gguf::Writer& w) {
         auto names = good.names;
         names[1] = names[0];
         w.SetStrings("updraft.confidence.names", std::span<const std::string>(names));
       }},
      {"names", [](gguf::Writer& w) { w.SetStrings("updraft.confidence.names", std::span<const std::string>()); }},
      {"mean",  // for each name
       [&](gguf::Writer& w) {
         w.SetStrings("updraft.confidence.names", std::span<const std::string>(good.names).first(3));
       }},
      {"mean", [&](gguf::Writer& w) { w.SetF32s("updraft.confidence.mean", std::span(good.mean).first(5)); }},
      {"scale",
       [&](gguf::Writer& w) {
         auto scale = good.scale;
         scale[3] = 0.0f;
         w.SetF32s("updraft.confidence.scale", scale);
       }},
      {"weights",
       [&](gguf::Writer& w) {
         auto weights = good.weights;
         weights.back() = nan;
         w.SetF32s("updraft.confidence.weights", weights);
       }},
      {"weights", [](gguf::Writer& w) { w.SetString("updraft.confidence.weights", "none"); }},
      {"isotonic_x", [](gguf::Writer& w) { w.SetF32s("updraft.confidence.isotonic_x", {}); }},
      {"isotonic_x",
       [&](gguf::Writer& w) {
         auto x = good.isotonic_x;
         x.back() = x.front();
         w.SetF32s("updraft.confidence.isotonic_x", x);
       }},
      {"isotonic_y",
       [&](gguf::Writer& w) {
         auto y = good.isotonic_y;
         y.back() = 1.5f;
         w.SetF32s("updraft.confidence.isotonic_y", y);
       }},
      {"isotonic_y",
       [&](gguf::Writer& w) {
         auto y = good.isotonic_y;
         y.front() = 0.99f;
         w.SetF32s("updraft.confidence.isotonic_y", y);
       }},
      {"threshold", [&](gguf::Writer& w) { w.SetF32("updraft.confidence.threshold", nan); }},
      {"threshold", [](gguf::Writer& w) { w.SetF32("updraft.confidence.threshold", -0.5f); }},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    auto model = Reload([&](gguf::Writer& writer) {
      fitted->AddTo(writer);
      cases[i].damage(writer);
    });
    EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument) << "case " << i;
    EXPECT_THAT(model.status().ToString(), HasSubstr(cases[i].field)) << "case " << i;
  }
}

}  // namespace
}  // namespace updraft
