// A pair of models without labels: how likely one finds an answer, and a calibration from its first prompt to its page.
#include "tests/deploy/calibrate/pair.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "deploy/calibrate/answer_store.h"
#include "deploy/calibrate/calibrate.h"
#include "deploy/calibrate/judge.h"
#include "deploy/calibrate/page.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/evaluate/logits_source.h"
#include "deploy/synth/synth.h"
#include "deploy/task/likelihood.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using testing::FakeUpstream;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::Prompt;
using testing::TempFile;
using testing::TempPath;

class PairTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = new std::string(TempPath("tiny.gguf"));
    ASSERT_TRUE(Synthesize("tiny-llama", kernels::DType::kQ8_0, *path_).ok());
  }
  static void TearDownTestSuite() {
    std::filesystem::remove(*path_);
    delete path_;
  }
  static std::string* path_;
};
std::string* PairTest::path_ = nullptr;

TEST_F(PairTest, LikelihoodIsThatOfADoublePrecisionPass) {
  auto answerer = Answerer::Load(*path_, 1);
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  const Model& model = (*answerer)->model();
  const size_t n_vocab = model.config().n_vocab;
  ReferenceSource reference(&model, {.half_precision_kv = true});
  std::mt19937 rng(3);
  std::string answer;
  for (int round = 0; round < 4; ++round) {
    const Conversation conversation = {{"user", absl::StrCat("question ", rng())}};
    const auto likelihood = LikelihoodOf(**answerer, conversation, answer);
    ASSERT_TRUE(likelihood.ok()) << likelihood.status();
    std::vector<int32_t> tokens = (*answerer)->Render(conversation).value();
    const size_t first = tokens.size() - 1;
    const std::vector<int32_t> written = (*answerer)->tokenizer().Encode(answer, {.add_special = false}).value();
    tokens.insert(tokens.end(), written.begin(), written.end());
    ASSERT_EQ(static_cast<size_t>(likelihood->n_tokens), tokens.size() - first) << "its end counts";
    ASSERT_TRUE(reference.Run(tokens).ok());
    double expected = 0.0;
    std::vector<float> logits(n_vocab);
    for (size_t row = first; row < tokens.size(); ++row) {
      ASSERT_TRUE(reference.Logits(static_cast<int>(row), 1, logits).ok());
      double sum = 0.0, wanted = 0.0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
      if (row + 1 < tokens.size()) {
        wanted = std::exp(static_cast<double>(logits[tokens[row + 1]]));
      } else {
        for (const int32_t stop : (*answerer)->stop_tokens()) wanted += std::exp(static_cast<double>(logits[stop]));
      }
      expected += std::log(wanted / sum);
    }
    // 8-bit activations in the products: about 1e-2 of a logit whose spread is near 1, for each token.
    EXPECT_NEAR(likelihood->logprob, expected, 0.05 * likelihood->n_tokens) << "round " << round;
    answer += absl::StrCat(round == 2 ? "\xE4\xBD\xA0\xE5\xA5\xBD " : "word ", rng() % 1000, ". ");
  }
  const Conversation conversation = {{"user", "q"}};
  const std::string endless(100000, 'x');
  EXPECT_TRUE(absl::IsOutOfRange(LikelihoodOf(**answerer, conversation, endless).status()));
}

TEST_F(PairTest, AnswersOfABrokenRunAreNotMadeAgain) {
  std::vector<Conversation> conversations;
  std::vector<std::string> keys;
  for (int i = 0; i < 6; ++i) {
    conversations.push_back({{"user", absl::StrCat("question ", i)}});
    keys.push_back(KeyOf(conversations.back()));
  }
  AnswerOptions options;
  options.max_tokens = 5;
  options.n_workers = 1;
  const auto fresh = AnswerAll(*path_, conversations, options);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  const TempFile file("answers.jsonl");
  {
    auto progress = ProgressFile::Open(file.path(), "run");
    StoredAnswers store(progress->get(), keys);
    const auto some = AnswerAll(*path_, std::span(conversations).first(4), options, &store);
    ASSERT_TRUE(some.ok()) << some.status();
  }
  auto progress = ProgressFile::Open(file.path(), "run");
  EXPECT_EQ((*progress)->n_found_at_start(), 4);
  ASSERT_TRUE((*progress)->Add("own answers", keys[1], "{}").ok());  // cannot be read: made again
  std::string stored = *(*progress)->Find("own answers", keys[2]);
  stored.replace(stored.find("\"n_layer\":"), 11, "\"n_layer\":-");
  ASSERT_TRUE((*progress)->Add("own answers", keys[2], stored).ok());
  StoredAnswers store(progress->get(), keys);
  const auto all = AnswerAll(*path_, conversations, options, &store);
  ASSERT_TRUE(all.ok()) << all.status();
  for (size_t i = 0; i < conversations.size(); ++i) {
    EXPECT_EQ((*all)[i].text, (*fresh)[i].text) << i;
    EXPECT_EQ((*all)[i].tokens, (*fresh)[i].tokens) << i;
    EXPECT_EQ((*all)[i].Features("").values, (*fresh)[i].Features("").values) << i;
  }
}

// The model below itself with another vocabulary of answers: no label anywhere, and the file knows what it keeps.
TEST_F(PairTest, CalibratesWithoutLabels) {
  std::vector<TaskItem> items;
  for (int i = 0; i < 160; ++i) items.push_back(Prompt(absl::StrCat("question ", i * 104729)));
  AnswerOptions answer_options;
  answer_options.max_tokens = 6;
  const auto own = AnswerAll(*path_, ConversationsOf(items), answer_options);
  ASSERT_TRUE(own.ok()) << own.status();
  std::vector<float> sureness;
  for (const LocalAnswer& answer : *own) sureness.push_back(answer.Features("").values[0]);
  std::vector<float> sorted = sureness;
  std::sort(sorted.begin(), sorted.end());
  FakeUpstream upstream;  // agrees where the model is surest
  for (size_t i = 0; i < items.size(); ++i) {
    const bool agrees = sureness[i] >= sorted[items.size() / 3] ? i % 12 != 0 : i % 4 == 0;
    upstream.answers[items[i].messages[0].content] = (*own)[i].text + (agrees ? "" : " otherwise");
  }
  CalibrateOptions options;
  options.max_tokens = 6;
  options.max_loss = 0.2;
  EXPECT_THAT(Calibrate(*path_, items, options).status().ToString(), HasSubstr("has no answer to judge by"));
  options.judge = [&](std::span<const TaskItem> judged, std::span<const Said> answers) {
    return JudgeAgainst(upstream, judged, answers, {});
  };
  options.acts = "cockpit";
  EXPECT_THAT(Calibrate(*path_, items, options).status().ToString(), HasSubstr("expected at least 50 items with one"));
  options.acts.clear();
  const TempFile out("out.gguf");
  const auto report = CalibrateFile(*path_, out.path(), items, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->confidence.n_unlabelled, 160);
  EXPECT_GT(report->confidence.auroc, 0.7);
  EXPECT_LE(report->confidence.risk_bound, 0.2);
  EXPECT_FALSE(report->ask_back.has_value());
  EXPECT_THAT(ToText(*report), HasSubstr("as good as upstream's"));

  EXPECT_THAT(report->guarantee.Provided(), Not(HasSubstr("nats"))) << "nothing was judged by likelihood";
  // One that failed, so that it is on the page, with markup in all that comes from outside.
  CalibrationReport shown = *report;
  const auto failed = std::find_if(shown.answers.begin(), shown.answers.end(),
                                   [](const CalibratedAnswer& answer) { return !answer.judgement.as_good(); });
  ASSERT_NE(failed, shown.answers.end());
  failed->kept_by = 1.0;
  failed->text = "<b>mine</b>";
  failed->judgement.upstream = "<b>theirs</b>";
  TaskItem& item = items[static_cast<size_t>(failed - shown.answers.begin())];
  item.messages[0].content = "<script>alert(1)</script> & more";
  item.id = "<b>id</b>";
  const std::string page = CalibrationPage(shown, items, {.model = "small <b>", .upstream = "big"});
  EXPECT_THAT(page, AllOf(HasSubstr("Reliability"), HasSubstr("Where it fails"), HasSubstr("otherwise")));
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script>")), HasSubstr("&lt;script&gt;"), HasSubstr("small &lt;b&gt;")));
  for (const char* text : {"mine", "theirs", "id"}) {
    EXPECT_THAT(page, AllOf(HasSubstr(absl::StrCat("&lt;b&gt;", text)), Not(HasSubstr(absl::StrCat("<b>", text)))));
  }
  EXPECT_THAT(page, Not(HasSubstr("http"))) << "no external assets";
  const auto file = gguf::File::Open(out.path());
  ASSERT_TRUE(file.ok()) << file.status();
  const auto confidence = ConfidenceModel::FromGguf(*file);
  ASSERT_TRUE(confidence.ok()) << confidence.status();
  EXPECT_TRUE(confidence->calibrated());
  const auto p_right = ConfidenceModel::FromGguf(*file, ConfidenceModel::Meaning::kRight);
  EXPECT_FALSE(p_right->calibrated()) << "nobody said what is right";
}

}  // namespace
}  // namespace updraft
