// By what an answer is judged where there is no label.
#include "deploy/calibrate/judge.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "deploy/calibrate/progress_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/deploy/calibrate/pair.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using testing::FakeUpstream;
using ::testing::HasSubstr;
using testing::Labelled;
using testing::Prompt;
using testing::TempFile;

TEST(JudgeTest, ByLabelThenEqualityThenLikelihood) {
  FakeUpstream upstream;
  upstream.answers = {{"capital", "Paris."},
                      {"sky", "It is blue."},
                      {"sea", "The sea is blue"},
                      {"warm", R"({"set":{"Vehicle.Cabin.HVAC.AmbientAirTemperature":24},"say":"Warmer."})"},
                      {"song", "la la"},
                      {"sum", "5"},
                      {"twice", "8"}};
  upstream.per_token = {
      {"It is blue.", -0.1}, {"Blue, mostly.", -0.14}, {"The sea is blue", -0.1}, {"It is wine", -0.9}};
  const std::vector<TaskItem> items = {Prompt("capital"), Prompt("sky"),        Prompt("sea"),         Prompt("warm"),
                                       Prompt("song"),    Labelled("sum", "4"), Labelled("twice", "8")};
  const std::vector<Said> answers = {
      {"paris"},      {"Blue, mostly."},
      {"It is wine"}, {R"({"set":{"Vehicle.Cabin.HVAC.AmbientAirTemperature":24.0},"say":"There you are."})"},
      {"do re"},      {"6"},
      {"9"}};
  const auto judged = JudgeAgainst(upstream, items, answers, {.likelihood_margin = 0.05});
  ASSERT_TRUE(judged.ok()) << judged.status();
  const JudgedBy by[] = {JudgedBy::kEquality,   JudgedBy::kLikelihood, JudgedBy::kLikelihood, JudgedBy::kEquality,
                         JudgedBy::kDifference, JudgedBy::kLabel,      JudgedBy::kLabel};
  const bool as_good[] = {true, true, false, true, false, true, false};
  for (size_t i = 0; i < items.size(); ++i) {
    EXPECT_EQ((*judged)[i].by, by[i]) << i;
    EXPECT_EQ((*judged)[i].as_good(), as_good[i]) << i;
    EXPECT_EQ((*judged)[i].upstream, upstream.answers.at(items[i].messages[0].content)) << i;
  }
  EXPECT_FALSE((*judged)[5].right) << "both are wrong";
  EXPECT_NEAR((*judged)[1].gap, 0.04, 1e-9);
  EXPECT_NEAR((*judged)[2].gap, 0.8, 1e-9);
}

// An upstream that asks back has doubts, not an answer that others could be as likely as.
TEST(JudgeTest, WhereUpstreamAsksBackItsFirstReadingCounts) {
  FakeUpstream upstream;
  const std::string question = R"({"set":{},"clarify":[{"set":{"A":1}},{"set":{"A":2}}],"say":"one or two?"})";
  upstream.answers = {{"x", question}};
  upstream.per_token = {{question, -9.0}, {R"({"set":{"A":2}})", -0.1}, {R"({"set":{"A":1},"say":"one"})", -0.1}};
  const std::pair<const char*, bool> cases[] = {{R"({"set":{"A":1},"say":"one"})", true},
                                                {R"({"set":{"A":2}})", false},
                                                {R"({"set":{},"clarify":[{"set":{"A":7}}]})", true}};
  for (const auto& [answer, as_good] : cases) {
    const std::vector<TaskItem> items = {Prompt("x")};
    const std::vector<Said> answers = {{answer}};
    const auto judged = JudgeAgainst(upstream, items, answers, {});
    ASSERT_TRUE(judged.ok()) << judged.status();
    EXPECT_EQ((*judged)[0].as_good(), as_good) << answer;
    EXPECT_EQ((*judged)[0].by, as_good ? JudgedBy::kEquality : JudgedBy::kDifference);
  }
  // The other way round it is the edge that asks.
  upstream.answers["x"] = R"({"set":{"A":1},"say":"one"})";
  const auto judged = JudgeAgainst(upstream, std::vector<TaskItem>{Prompt("x")}, std::vector<Said>{{question}}, {});
  ASSERT_TRUE(judged.ok()) << judged.status();
  EXPECT_EQ((*judged)[0].by, JudgedBy::kDifference);
  EXPECT_EQ(upstream.n_likelihoods(), 0);
}

// What was cut off has no end that could be likely.
TEST(JudgeTest, AnswersThatWereCutOffAreNotScored) {
  FakeUpstream upstream;
  upstream.answers = {{"x", "a long story that"}};
  upstream.per_token = {{"a long story that", -3.0}, {"short", -0.1}, {"a long tale that", -0.1}};
  const std::vector<TaskItem> items = {Prompt("x")};
  const auto by = [&](const Said& said) {
    const auto judged = JudgeAgainst(upstream, items, std::vector<Said>{said}, {});
    EXPECT_TRUE(judged.ok()) << judged.status();
    return (*judged)[0].by;
  };
  EXPECT_EQ(by({"short"}), JudgedBy::kLikelihood);
  EXPECT_EQ(by({"a long tale that", false}), JudgedBy::kDifference);
  upstream.cut_off = "a long story that";
  EXPECT_EQ(by({"short"}), JudgedBy::kDifference);
  EXPECT_EQ(by({"a long story that", false}), JudgedBy::kEquality);
}

TEST(JudgeTest, AnUpstreamThatIsAnotherByNowIsNotJudgedBy) {
  FakeUpstream upstream;
  upstream.answers = {{"x", "y"}};
  upstream.same = absl::FailedPreconditionError("another model");
  const std::vector<TaskItem> items = {Prompt("x")};
  EXPECT_THAT(JudgeAgainst(upstream, items, std::vector<Said>{{"y"}}, {}).status().ToString(),
              HasSubstr("another model"));
}

// A finding about likelihood is of two answers: where one of them changes it is not taken for theirs, nor one that
// cannot be read.
TEST(JudgeTest, KnownLikelihoodsAreOfTheseAnswers) {
  FakeUpstream upstream;
  upstream.answers = {{"x", "own"}};
  upstream.per_token = {{"own", -0.1}, {"near", -0.12}, {"far", -4.0}};
  const TempFile file("gaps.jsonl");
  auto progress = ProgressFile::Open(file.path(), "run");
  ASSERT_TRUE(progress.ok()) << progress.status();
  const std::vector<TaskItem> items = {Prompt("x")};
  const auto as_good = [&](const std::string& answer) {
    const auto judged = JudgeAgainst(upstream, items, std::vector<Said>{{answer}}, {.progress = progress->get()});
    EXPECT_TRUE(judged.ok()) << judged.status();
    return (*judged)[0].as_good();
  };
  EXPECT_TRUE(as_good("near"));
  EXPECT_FALSE(as_good("far"));
  EXPECT_TRUE(as_good("near"));
  EXPECT_EQ(upstream.n_likelihoods(), 4);
  EXPECT_EQ(upstream.n_answers(), 1);
  ASSERT_TRUE((*progress)->Add("upstream answers", KeyOf(items[0].messages), "null").ok());
  EXPECT_TRUE(as_good("near"));
  EXPECT_EQ(upstream.n_answers(), 2) << "asked again";
}

TEST(JudgeTest, WhyLikelihoodDoesNotJudgeIsSaidOnce) {
  FakeUpstream upstream;
  upstream.answers = {{"x", "own"}, {"y", "own"}};
  std::vector<std::string> said;
  JudgeOptions options;
  options.on_silent = [&](const std::string& why) { said.push_back(why); };
  const std::vector<TaskItem> items = {Prompt("x"), Prompt("y")};
  ASSERT_TRUE(JudgeAgainst(upstream, items, std::vector<Said>{{"a"}, {"b"}}, options).ok());
  EXPECT_THAT(said, ::testing::ElementsAre("it cannot say"));
}

TEST(JudgeTest, SameAnswers) {
  for (const auto& [a, b] : {std::pair("Paris.", "paris"),
                             {"It is  \"so\"!", "it is so"},
                             {"", " "},
                             {R"({"set":{"A":1.0},"say":"x"})", R"({"say":"y","set":{"A":1}})"},
                             {"\u4f60\u597d\u3002", "\u4f60\u597d"}}) {
    EXPECT_TRUE(SameAnswer(a, b)) << a << " | " << b;
  }
  for (const auto& [a, b] : {std::pair("-5", "5"),
                             {"3.5", "35"},
                             {"yes", "no"},
                             {"a b", "ab"},
                             {"1,5", "15"},
                             {"a < b", "a > b"},
                             {"2 * 3", "2 3"},
                             {"5!", "5"},
                             {"A*", "A"},
                             {"...", ""},
                             {R"({"set":{"A":1}})", R"({"set":{"A":2}})"},
                             {"", "x"}}) {
    EXPECT_FALSE(SameAnswer(a, b)) << a << " | " << b;
  }
}

TEST(JudgeTest, AnUpstreamThatGoesAwayIsAskedForTheRestAlone) {
  FakeUpstream upstream;
  std::vector<TaskItem> items;
  std::vector<Said> answers;
  for (int i = 0; i < 20; ++i) {
    items.push_back(Prompt(absl::StrCat("prompt ", i)));
    upstream.answers[items.back().messages[0].content] = absl::StrCat("answer ", i);
    answers.push_back({absl::StrCat("answer ", i % 2 == 0 ? i : -i)});
    upstream.per_token[answers.back().text] = -2.0;
    upstream.per_token[absl::StrCat("answer ", i)] = -0.1;
  }
  const TempFile file("gone.jsonl");
  upstream.answers_until_gone = 7;
  {
    auto progress = ProgressFile::Open(file.path(), "run");
    ASSERT_TRUE(progress.ok()) << progress.status();
    const auto judged = JudgeAgainst(upstream, items, answers, {.n_workers = 1, .progress = progress->get()});
    EXPECT_TRUE(absl::IsUnavailable(judged.status())) << judged.status();
    EXPECT_THAT(judged.status().ToString(),
                AllOf(HasSubstr("after 7 of 20"), HasSubstr("prompt 8"), HasSubstr("fake:1"), HasSubstr(file.path())));
  }
  upstream.answers_until_gone = 1 << 30;
  auto progress = ProgressFile::Open(file.path(), "run");
  ASSERT_TRUE(progress.ok()) << progress.status();
  auto judged = JudgeAgainst(upstream, items, answers, {.n_workers = 2, .progress = progress->get()});
  ASSERT_TRUE(judged.ok()) << judged.status();
  EXPECT_EQ(upstream.n_answers(), 8 + 13) << "seven are known, the eighth was asked in vain";
  EXPECT_EQ(upstream.n_likelihoods(), 2 * 10);
  for (int i = 0; i < 20; ++i) EXPECT_EQ((*judged)[i].as_good(), i % 2 == 0) << i;
  // And once more, all of it is known.
  judged = JudgeAgainst(upstream, items, answers, {.n_workers = 2, .progress = progress->get()});
  ASSERT_TRUE(judged.ok()) << judged.status();
  EXPECT_EQ(upstream.n_answers(), 21);
  EXPECT_EQ(upstream.n_likelihoods(), 20);
  EXPECT_NEAR((*judged)[1].gap, 1.9, 1e-9);
}

}  // namespace
}  // namespace updraft
