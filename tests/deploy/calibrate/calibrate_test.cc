#include "deploy/calibrate/calibrate.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "deploy/calibrate/exit_thresholds.h"
#include "deploy/synth/adapter.h"
#include "deploy/synth/synth.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string TempPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / ("updraft_calibrate_" + std::to_string(getpid()) + "_" + name))
      .string();
}

// Questions to a model with random weights. Its own answers are the expected ones where it is surest, others elsewhere:
// so that it is right about as often as asked, and its evidence says when.
class CalibrateTest : public ::testing::Test {
 protected:
  static constexpr int kItems = 240;
  static constexpr int kMaxTokens = 8;  // no more than may wait unfinished, so that no deep pass is forced

  static void SetUpTestSuite() {
    path_ = new std::string(TempPath("tiny.gguf"));
    SynthShape shape;
    shape.name = "tiny-exits";
    shape.n_layer = 4;
    shape.exit_layers = {1, 3};
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kQ8_0, *path_).ok());
    items_ = new std::vector<TaskItem>();
    for (int i = 0; i < kItems; ++i) {
      TaskItem item;
      item.messages = {{"user", "question " + std::to_string(i * 104729)}};
      items_->push_back(item);
    }
    AnswerOptions options;
    options.max_tokens = kMaxTokens;
    auto answers = AnswerAll(*path_, ConversationsOf(*items_), options);
    ASSERT_TRUE(answers.ok()) << answers.status();
    answers_ = new std::vector<LocalAnswer>(*std::move(answers));
    std::vector<float> sureness;
    for (const LocalAnswer& answer : *answers_) sureness.push_back(answer.Features("").values[0]);
    std::vector<float> sorted = sureness;
    std::sort(sorted.begin(), sorted.end());
    for (int i = 0; i < kItems; ++i) {
      const bool right = sureness[i] >= sorted[kItems / 3] ? i % 12 != 0 : i % 4 == 0;
      (*items_)[i].expected = (*answers_)[i].text + (right ? "" : " otherwise");
    }
  }
  static void TearDownTestSuite() {
    std::filesystem::remove(*path_);
    delete path_;
    delete items_;
    delete answers_;
  }
  static CalibrateOptions Options() {
    CalibrateOptions options;
    options.max_tokens = kMaxTokens;
    options.exit_budget = 0.05;
    options.max_loss = 0.15;
    return options;
  }

  static std::string* path_;
  static std::vector<TaskItem>* items_;
  static std::vector<LocalAnswer>* answers_;  // at full depth
};
std::string* CalibrateTest::path_ = nullptr;
std::vector<TaskItem>* CalibrateTest::items_ = nullptr;
std::vector<LocalAnswer>* CalibrateTest::answers_ = nullptr;

// Whether greedy decoding with these thresholds gives the full depth's answer, by the traces alone.
bool UnchangedByTraces(const std::vector<ExitTrace>& traces, const std::vector<float>& thresholds) {
  for (size_t token = 0; token < traces[0].top_prob.size(); ++token) {
    for (size_t exit = 0; exit < traces.size(); ++exit) {
      if (traces[exit].top_prob[token] < thresholds[exit]) continue;
      if (!traces[exit].agrees[token]) return false;
      break;
    }
  }
  return true;
}

TEST_F(CalibrateTest, TracesForetellWhatExitsDo) {
  auto answerer = Answerer::Load(*path_, 1);
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  std::vector<std::vector<ExitTrace>> traces;
  std::vector<float> probabilities;
  for (const LocalAnswer& answer : *answers_) {
    auto trace = TraceExits(**answerer, answer);
    ASSERT_TRUE(trace.ok()) << trace.status();
    ASSERT_EQ(trace->size(), 2u);
    for (const ExitTrace& exit : *trace) {
      ASSERT_EQ(exit.top_prob.size() + 1, answer.evidence.size());
      probabilities.insert(probabilities.end(), exit.top_prob.begin(), exit.top_prob.end());
    }
    traces.push_back(*std::move(trace));
  }
  std::sort(probabilities.begin(), probabilities.end());
  std::mt19937 rng(1);
  int changed = 0, unchanged = 0;
  for (int i = 0; i < kItems; ++i) {
    AnswerOptions options;
    options.max_tokens = kMaxTokens;
    options.exit_mode = ExitMode::kLossy;
    // High quantiles, so that some answers survive.
    for (int exit = 0; exit < 2; ++exit) {
      options.exit_thresholds.push_back(probabilities[probabilities.size() * (60 + rng() % 40) / 100]);
    }
    auto lossy = (*answerer)->Answer((*items_)[i].messages, options);
    ASSERT_TRUE(lossy.ok()) << lossy.status();
    const bool same = lossy->tokens == (*answers_)[i].tokens && lossy->end_token == (*answers_)[i].end_token;
    EXPECT_EQ(same, UnchangedByTraces(traces[i], options.exit_thresholds)) << "item " << i;
    (same ? unchanged : changed) += 1;
  }
  EXPECT_GT(changed, 10);
  EXPECT_GT(unchanged, 10);
}

TEST(ChooseExitThresholdsTest, KeepsTheBudgetAndIsTight) {
  std::mt19937 rng(2);
  std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
  for (int round = 0; round < 20; ++round) {
    std::vector<std::vector<ExitTrace>> traces(200, std::vector<ExitTrace>(2));
    for (auto& answer : traces) {
      for (ExitTrace& exit : answer) {
        for (int token = 0; token < 10; ++token) {
          exit.top_prob.push_back(uniform(rng));
          exit.agrees.push_back(uniform(rng) < exit.top_prob.back());
        }
      }
    }
    for (const double budget : {0.0, 0.02, 0.1, 0.5}) {
      const auto thresholds = ChooseExitThresholds(traces, budget);
      ASSERT_EQ(thresholds.size(), 2u);
      for (size_t exit = 0; exit < 2; ++exit) {
        const auto changed_at = [&](float threshold) {
          return std::count_if(traces.begin(), traces.end(), [&](const auto& answer) {
            for (size_t i = 0; i < answer[exit].top_prob.size(); ++i) {
              if (answer[exit].top_prob[i] >= threshold && !answer[exit].agrees[i]) return true;
            }
            return false;
          });
        };
        EXPECT_LE(changed_at(thresholds[exit]), budget * 200 / 2 + 1e-9) << "round " << round << ", budget " << budget;
        if (thresholds[exit] > 0.0f && thresholds[exit] <= 1.0f) {
          EXPECT_GT(changed_at(std::nextafter(thresholds[exit], 0.0f)), budget * 200 / 2 - 1e-9);
        }
      }
    }
  }
  EXPECT_TRUE(ChooseExitThresholds({}, 0.1).empty());
}

TEST_F(CalibrateTest, WritesAFileThatKnowsItself) {
  const std::string out = TempPath("out.gguf");
  std::vector<std::string> stages;
  CalibrateOptions options = Options();
  options.on_progress = [&](const std::string& stage, int, int) {
    if (stages.empty() || stages.back() != stage) stages.push_back(stage);
  };
  const auto report = CalibrateFile(*path_, out, *items_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(stages, ::testing::Contains("exits"));
  EXPECT_EQ(report->confidence.n, kItems);
  EXPECT_GT(report->confidence.auroc, 0.6);
  EXPECT_LT(report->confidence.ece, 0.12);  // 240 answers in ten groups: 24 each, with a deviation of up to 0.1
  EXPECT_LE(report->confidence.risk_bound, options.max_loss + 1e-9);
  EXPECT_LE(report->confidence.risk, report->confidence.risk_bound);
  EXPECT_EQ(report->confidence.bound, RiskBound::kClopperPearson);
  EXPECT_NEAR(report->confidence.coverage + report->confidence.escalated_share, 1.0, 1e-12);
  EXPECT_GT(report->confidence.coverage, 0.0);
  EXPECT_TRUE(report->guarantee.holds);
  const auto said = nlohmann::json::parse(ToJson(*report));
  EXPECT_EQ(said["guarantee"]["max_loss"], options.max_loss);
  EXPECT_EQ(said["guarantee"]["delta"], options.delta);
  EXPECT_EQ(said["guarantee"]["holds"], true);
  EXPECT_EQ(said["guarantee"]["assumes"], GuaranteeReport::Assumes());
  EXPECT_EQ(said["confidence"]["risk_bound_kind"], "clopper-pearson");
  EXPECT_EQ(said["confidence"]["coverage"], report->confidence.coverage);
  EXPECT_THAT(ToText(*report), AllOf(HasSubstr("promised: of all requests at most 15 % kept and regretted, with "
                                               "probability 0.95"),
                                     HasSubstr("cross-fitted")));
  ASSERT_EQ(report->exits.layers, (std::vector<int>{1, 3}));
  EXPECT_LE(report->exits.changed_share, 2 * options.exit_budget);
  EXPECT_LE(report->exits.mean_exit_layer, 4.0);

  auto before = gguf::File::Open(*path_);
  auto after = gguf::File::Open(out);
  ASSERT_TRUE(before.ok() && after.ok()) << after.status();
  ASSERT_EQ(before->tensors().size(), after->tensors().size());
  for (const gguf::TensorInfo& tensor : before->tensors()) {
    const gguf::TensorInfo* copy = after->FindTensor(tensor.name);
    ASSERT_NE(copy, nullptr) << tensor.name;
    EXPECT_EQ(copy->type, tensor.type);
    EXPECT_EQ(copy->dims, tensor.dims);
    ASSERT_EQ(copy->data.size(), tensor.data.size());
    EXPECT_EQ(std::memcmp(copy->data.data(), tensor.data.data(), tensor.data.size()), 0) << tensor.name;
  }
  for (const gguf::MetadataEntry& entry : before->metadata()) EXPECT_TRUE(after->Has(entry.key)) << entry.key;
  EXPECT_EQ(*after->GetF32s("updraft.exit.thresholds"), report->exits.thresholds);
  const auto model = ConfidenceModel::FromGguf(*after);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->calibrated());
  EXPECT_NEAR(model->threshold(), report->confidence.threshold, 1e-6);
  EXPECT_EQ(model->data_fingerprint(), report->data_fingerprint);
  EXPECT_EQ(model->data_fingerprint().size(), 64u);

  // The file, asked again, is as it said; and calibrating a calibrated file in place works.
  const auto evaluated = EvaluateConfidence(out, *items_, Options());
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  EXPECT_TRUE(evaluated->calibrated);
  EXPECT_NEAR(evaluated->threshold, report->confidence.threshold, 1e-6);
  EXPECT_EQ(evaluated->accuracy, report->confidence.accuracy);
  const auto again = CalibrateFile(out, out, *items_, Options());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->exits.thresholds, report->exits.thresholds);
  EXPECT_EQ(again->confidence.threshold, report->confidence.threshold);
  std::filesystem::remove(out);
}

// A model that is answered with an adapter is another one: the adapter carries what is said of it, the base nothing.
TEST_F(CalibrateTest, OfAnAdapterIsWrittenBesideTheAdapter) {
  const std::string adapter = TempPath("adapter.gguf"), out = TempPath("adapter_out.gguf");
  ASSERT_TRUE(SynthesizeAdapter(*path_, adapter, {.rank = 2, .strength = 1e-3}).ok());
  CalibrateOptions options = Options();
  options.adapter = adapter;
  const auto report = CalibrateFile(*path_, out, *items_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  const auto file = gguf::File::Open(out);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE(IsAdapter(*file));
  EXPECT_EQ(*file->GetF32s("updraft.exit.thresholds"), report->exits.thresholds);
  options.adapter = out;
  const auto evaluated = EvaluateConfidence(*path_, *items_, options);
  ASSERT_TRUE(evaluated.ok()) << evaluated.status();
  EXPECT_TRUE(evaluated->calibrated);
  EXPECT_EQ(evaluated->accuracy, report->confidence.accuracy);
  options.adapter = adapter;
  EXPECT_FALSE(EvaluateConfidence(*path_, *items_, options)->calibrated);
  std::filesystem::remove(adapter);
  std::filesystem::remove(out);
}

TEST_F(CalibrateTest, AFallibleUpstreamLowersTheThreshold) {
  CalibrateOptions options = Options();
  options.fit_exit_thresholds = false;
  options.exit_mode = ExitMode::kOff;
  options.max_loss = 0.08;
  const auto strict = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(strict.ok()) << strict.status();
  EXPECT_EQ(strict->report.confidence.upstream_accuracy, 1.0);
  for (int i = 0; i < kItems; ++i) options.upstream_answers.push_back(i % 2 == 0 ? (*items_)[i].expected : "wrong");
  const auto relaxed = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(relaxed.ok()) << relaxed.status();
  EXPECT_EQ(relaxed->report.confidence.upstream_accuracy, 0.5);
  EXPECT_LE(relaxed->report.confidence.risk_bound, options.max_loss);
  EXPECT_TRUE(relaxed->exit_thresholds.empty());
  // Confidence is of being as good as upstream's: where both are wrong, of all but every tenth here, it is high, too,
  // and more is kept.
  for (int i = 0; i < kItems; ++i) {
    const bool right = IsCorrect((*items_)[i], (*answers_)[i].text);
    options.upstream_answers[i] = right || i % 10 == 0 ? (*items_)[i].expected : "wrong";
  }
  const auto alike = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(alike.ok()) << alike.status();
  EXPECT_LT(alike->report.confidence.escalated_share, strict->report.confidence.escalated_share);
  EXPECT_LT(alike->report.confidence.accuracy, 0.9) << "few are right";
  // Right where upstream is wrong is no credit: an upstream that is wrong wherever this model is right loses nothing by
  // being right elsewhere, so the threshold is that of an upstream that is never wrong.
  for (int i = 0; i < kItems; ++i) {
    const bool right = IsCorrect((*items_)[i], (*answers_)[i].text);
    options.upstream_answers[i] = right ? "wrong" : (*items_)[i].expected;
  }
  const auto uncredited = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(uncredited.ok()) << uncredited.status();
  EXPECT_EQ(uncredited->confidence.threshold(), strict->confidence.threshold());
  EXPECT_EQ(uncredited->report.confidence.risk, strict->report.confidence.risk);
  EXPECT_GT(uncredited->report.confidence.collaborative_accuracy, uncredited->report.confidence.upstream_accuracy);
  // A limit on what may be handed over takes precedence, and the report owns up to what that costs.
  options.upstream_answers.clear();
  options.max_escalated = 0.1;
  const auto limited = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(limited.ok()) << limited.status();
  EXPECT_LE(limited->report.confidence.escalated_share, 0.1 + 1e-9);
  EXPECT_GT(strict->report.confidence.escalated_share, 0.1);
  EXPECT_GT(limited->report.confidence.risk_bound, options.max_loss);
  EXPECT_FALSE(limited->report.guarantee.holds);
  EXPECT_THAT(ToText(limited->report), HasSubstr("nothing is promised of 8 %"));
  EXPECT_TRUE(strict->report.guarantee.holds);
}

// The embedded edge model on requests of the calibration's side, as a tier that nobody stands above.
TEST(AskBackCalibrationTest, TheThresholdKeepsWhatIsActedOnWronglyWithinItsLimit) {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::string model = std::string(root == nullptr ? "." : root) + "/deploy/models/cockpit-edge.gguf";
  const std::string out = TempPath("acting.gguf");
  const std::vector<TaskItem> items = CockpitTask(cockpit::Split::kCalibrate, 300, 7);
  CalibrateOptions options;
  options.exit_mode = ExitMode::kOff;
  options.fit_exit_thresholds = false;
  options.acts = "cockpit";
  double last_threshold = 1.0;
  for (const double max_wrong : {0.03, 0.1}) {
    options.max_wrong = max_wrong;
    const auto report = CalibrateFile(model, out, items, options);
    ASSERT_TRUE(report.ok()) << report.status();
    ASSERT_TRUE(report->ask_back);
    const AskBackReport& ask = *report->ask_back;
    EXPECT_LE(ask.acted_wrong, ask.wrong_bound);
    EXPECT_LE(ask.wrong_bound, max_wrong + 1e-9);
    EXPECT_GT(ask.acted, 0.3) << "it is not silenced";
    EXPECT_GT(ask.asked_back, 0.0);
    EXPECT_LE(ask.asked_right, ask.asked_back);
    EXPECT_LT(ask.threshold, last_threshold) << "who may err more asks less";
    last_threshold = ask.threshold;
    const auto file = gguf::File::Open(out);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(*file->GetString("updraft.acts"), "cockpit");
    const auto p_right = ConfidenceModel::FromGguf(*file, ConfidenceModel::Meaning::kRight);
    ASSERT_TRUE(p_right.ok()) << p_right.status();
    EXPECT_NEAR(p_right->threshold(), ask.threshold, 1e-6);
    EXPECT_NE(p_right->threshold(), ConfidenceModel::FromGguf(*file)->threshold());
    EXPECT_THAT(ToText(*report), HasSubstr("it asks back"));
    EXPECT_EQ(nlohmann::json::parse(ToJson(*report))["ask_back"]["max_wrong"], max_wrong);
  }
  // The file says that it acts; nobody needs to say it again.
  options.acts.clear();
  const auto again = CalibrateFile(out, out, items, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(again->ask_back);
  std::filesystem::remove(out);
}

TEST_F(CalibrateTest, AnswersThatDoNotActAreNotAskedBack) {
  CalibrateOptions options = Options();
  options.exit_mode = ExitMode::kOff;
  const auto calibration = Calibrate(*path_, *items_, options);
  ASSERT_TRUE(calibration.ok()) << calibration.status();
  EXPECT_FALSE(calibration->p_right);
  EXPECT_FALSE(calibration->report.ask_back);
}

TEST_F(CalibrateTest, Refusals) {
  CalibrateOptions options = Options();
  EXPECT_THAT(Calibrate(*path_, std::span(*items_).first(20), options).status().ToString(), HasSubstr("at least 50"));
  EXPECT_FALSE(Calibrate("/no/such/model.gguf", *items_, options).ok());
  options.upstream_answers = {"one"};
  EXPECT_THAT(Calibrate(*path_, *items_, options).status().ToString(), HasSubstr("upstream_answers"));
  options = Options();
  options.max_loss = 0.0;
  EXPECT_THAT(Calibrate(*path_, *items_, options).status().ToString(), HasSubstr("max_loss"));
  options = Options();
  options.acts = "surgery";
  EXPECT_THAT(Calibrate(*path_, *items_, options).status().ToString(), HasSubstr("surgery"));
  options = Options();
  options.max_wrong = 1.0;
  EXPECT_THAT(Calibrate(*path_, *items_, options).status().ToString(), HasSubstr("max_wrong"));
  options = Options();
  options.delta = 1.0;
  EXPECT_THAT(Calibrate(*path_, *items_, options).status().ToString(), HasSubstr("delta"));
  EXPECT_THAT(EvaluateConfidence(*path_, {}, Options()).status().ToString(), HasSubstr("found none"));
  EXPECT_FALSE(CalibrateFile(*path_, "/no/such/folder/out.gguf", *items_, Options()).ok());
}

TEST_F(CalibrateTest, AnUncalibratedFileSaysSo) {
  const auto report = EvaluateConfidence(*path_, *items_, Options());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->calibrated);
  EXPECT_THAT(ToText(*report), HasSubstr("no calibration"));
  const auto parsed = nlohmann::json::parse(ToJson(*report));
  for (const char* key : {"ece", "auroc", "threshold", "risk", "risk_bound_kind", "coverage", "delta"})
    EXPECT_TRUE(parsed.contains(key)) << key;
}

}  // namespace
}  // namespace updraft
