#include "deploy/task/task.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "deploy/synth/synth.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

std::string TempPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / ("updraft_task_" + std::to_string(getpid()) + "_" + name)).string();
}

TEST(ReadTaskTest, PromptsMessagesAndCockpit) {
  const std::string path = TempPath("good.jsonl");
  const auto cockpit_items = CockpitTask(cockpit::Split::kCalibrate, 1, 5);
  {
    std::ofstream file(path);
    file << R"({"prompt":"2+2?","answer":"4","id":"a"})"
         << "\n\n";
    file
        << R"({"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"yes?"},{"role":"user","content":"bye"}],"answer":"ok","family":"talk"})"
        << "\n";
    const nlohmann::json line = {{"family", cockpit_items[0].family},
                                 {"prompt", cockpit_items[0].messages.back().content},
                                 {"answer", cockpit_items[0].expected}};
    file << line.dump() << "\n";
  }
  const auto items = ReadTask(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3u);
  EXPECT_EQ((*items)[0].messages[0].content, "2+2?");
  EXPECT_EQ((*items)[1].messages.size(), 3u);
  EXPECT_FALSE((*items)[1].cockpit);
  EXPECT_TRUE((*items)[2].cockpit);
  EXPECT_TRUE(IsCorrect((*items)[2], cockpit_items[0].expected));
  EXPECT_FALSE(IsCorrect((*items)[2], "{"));
}

TEST(ReadTaskTest, LinesThatWereLabelledByHand) {
  const std::string path = TempPath("labelled.jsonl");
  {
    std::ofstream file(path);
    file << R"({"id": "en-1", "kind": "direct", "messages": [{"role": "user", "content": "fan up"}],)"
         << R"( "accept": [{"set": {"Fan": {"range": [50, 60]}}}]})"
         << "\n"
         << R"({"sheet": "zh1", "kind": "multi", "messages": [{"role": "user", "content": "风大一点"}],)"
         << R"( "answer": {"set": {"Fan": 60}, "adjust": {"Fan": "up"}, "partly": true}})"
         << "\n"
         << R"({"kind": "direct", "messages": [{"role": "user", "content": "set it to 20"}],)"
         << R"( "answer": {"clarify": [{"set": {"Fan": 20}}, {"set": {"Volume": 20}}]}})"
         << "\n";
  }
  const auto items = ReadTask(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3u);
  EXPECT_EQ((*items)[0].family, "direct");
  EXPECT_EQ((*items)[0].language, "en");
  EXPECT_TRUE(IsCorrect((*items)[0], R"({"set": {"Fan": 55}, "say": "The fan is at 55."})"));
  EXPECT_FALSE(IsCorrect((*items)[0], R"({"set": {"Fan": 45}})"));
  EXPECT_EQ((*items)[1].language, "zh");
  EXPECT_TRUE(IsCorrect((*items)[1], R"({"set": {"Fan": 60.0}, "say": ""})"));
  EXPECT_FALSE(IsCorrect((*items)[1], R"({"set": {"Fan": 61}})"));
  EXPECT_TRUE((*items)[2].clarify);
  EXPECT_FALSE(IsCorrect((*items)[2], R"({"set": {"Fan": 20}})"));
  EXPECT_FALSE(IsCorrect((*items)[2], R"({"set": {}})"));
  EXPECT_TRUE(IsCorrect((*items)[2], R"({"set": {}, "clarify": [{"set": {"Fan": 20}}]})"));
  const std::vector<std::string> answers = {R"({"set": {"Fan": 55}})", R"({"set": {"Fan": 50}})",
                                            R"({"clarify": [{"set": {"Fan": 20}}]})"};
  const TaskReport report = ScoreAnswers(*items, answers);
  EXPECT_NEAR(report.exact_match, 2.0 / 3, 1e-12);
  EXPECT_EQ(report.asked_back.correct, 1);
  EXPECT_EQ(report.acted_wrong.correct, 1);
  EXPECT_EQ(report.n_worded, 1);
  EXPECT_EQ(report.offered_right.n, 0) << "where asking back is right there is no right one to offer";
}

TEST(ReadTaskTest, AlternativesCountByWhetherARightOneIsAmongThem) {
  std::vector<TaskItem> items(4);
  for (TaskItem& item : items) {
    item.cockpit = true;
    item.expected = R"({"set":{"Fan":55},"say":""})";
  }
  const std::vector<std::string> answers = {R"({"set":{},"clarify":[{"set":{"Fan":20}},{"set":{"Fan":55}}]})",
                                            R"({"set":{},"clarify":[{"set":{"Fan":55.0}},{"refuse":true}]})",
                                            R"({"set":{},"clarify":[{"refuse":true}]})", R"({"set":{"Fan":55}})"};
  const TaskReport report = ScoreAnswers(items, answers);
  EXPECT_EQ(report.asked_back.correct, 3);
  EXPECT_EQ(report.offered_right.n, 3);
  EXPECT_EQ(report.offered_right.correct, 2);
  EXPECT_EQ(report.needless.correct, 1) << "what it would have done was right";
  EXPECT_NEAR(report.exact_match, 0.25, 1e-12) << "asking back is not right";
}

TEST(ReadTaskTest, RefusesByLine) {
  const std::string bad_lines[] = {"not json",
                                   "[1]",
                                   R"({"answer":"x"})",
                                   R"({"prompt":"x"})",
                                   R"({"prompt":"x","answer":3})",
                                   R"({"messages":[],"answer":"x"})",
                                   R"({"messages":[{"role":1,"content":"x"}],"answer":"x"})",
                                   R"({"messages":["x"],"answer":"x"})",
                                   R"({"prompt":"x","answer":"y","family":{}})",
                                   R"({"prompt":"x","answer":{"set":1}})",
                                   R"({"prompt":"x","answer":{},"kind":3})",
                                   R"({"prompt":"x","accept":[]})",
                                   R"({"prompt":"x","accept":[{"set":{"A":{"range":[2,1]}}}]})"};
  const std::string path = TempPath("bad.jsonl");
  for (const std::string& bad : bad_lines) {
    {
      std::ofstream file(path);
      file << R"({"prompt":"fine","answer":"x"})"
           << "\n"
           << bad << "\n";
    }
    const auto items = ReadTask(path);
    EXPECT_EQ(items.status().code(), absl::StatusCode::kDataLoss) << bad;
    EXPECT_THAT(items.status().ToString(), HasSubstr("line 2")) << bad;
  }
  std::ofstream(path).close();
  EXPECT_EQ(ReadTask(path).status().code(), absl::StatusCode::kDataLoss);
  std::filesystem::remove(path);
  EXPECT_EQ(ReadTask(path).status().code(), absl::StatusCode::kNotFound);
}

TEST(CockpitTaskTest, TheSameSeedGivesTheSameItems) {
  const auto a = CockpitTask(cockpit::Split::kTest, 50, 3), b = CockpitTask(cockpit::Split::kTest, 50, 3);
  ASSERT_EQ(a.size(), 50u);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].messages.back().content, b[i].messages.back().content);
    EXPECT_TRUE(IsCorrect(a[i], a[i].expected)) << a[i].expected;
  }
}

TEST(ScoreAnswersTest, CountsByFamilyAndLanguage) {
  auto items = CockpitTask(cockpit::Split::kTest, 60, 4);
  std::vector<std::string> answers;
  int right = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool correct = i % 3 != 0;
    right += correct ? 1 : 0;
    answers.push_back(correct ? items[i].expected : "no JSON");
  }
  const TaskReport report = ScoreAnswers(items, answers);
  EXPECT_EQ(report.n, 60);
  EXPECT_NEAR(report.exact_match, right / 60.0, 1e-12);
  int n = 0, correct = 0;
  for (const GroupScore& group : report.by_family) {
    n += group.n;
    correct += group.correct;
  }
  EXPECT_EQ(n, 60);
  EXPECT_EQ(correct, right);
  EXPECT_LT(report.exact_match_interval.low, report.exact_match);
  EXPECT_GT(report.exact_match_interval.high, report.exact_match);
  const auto parsed = nlohmann::json::parse(ToJson(report));
  EXPECT_EQ(parsed["n"], 60);
  EXPECT_TRUE(parsed.contains("f1") && parsed.contains("bleu"));
  EXPECT_THAT(ToText(report), HasSubstr("all"));
}

class AnswererTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    path_ = new std::string(TempPath("tiny.gguf"));
    SynthShape shape;
    shape.name = "tiny-exits";
    shape.n_layer = 4;
    shape.exit_layers = {1, 2};
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kQ4_0, *path_).ok());
  }
  static void TearDownTestSuite() {
    std::filesystem::remove(*path_);
    delete path_;
  }
  static std::vector<Conversation> Conversations(int n) {
    std::vector<Conversation> conversations;
    for (int i = 0; i < n; ++i) conversations.push_back({{"user", "question " + std::to_string(i * 7919)}});
    return conversations;
  }
  static std::string* path_;
};
std::string* AnswererTest::path_ = nullptr;

TEST_F(AnswererTest, AnswersEqualAGeneratorDrivenByHand) {
  auto answerer = Answerer::Load(*path_, 1);
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  AnswerOptions options;
  options.max_tokens = 20;
  for (const Conversation& conversation : Conversations(10)) {
    const auto answer = (*answerer)->Answer(conversation, options);
    ASSERT_TRUE(answer.ok()) << answer.status();
    Generator generator(&(*answerer)->model(), &(*answerer)->pool(), {});
    ASSERT_TRUE(generator.Prefill(answer->prompt_tokens).ok());
    ASSERT_EQ(answer->evidence.size(), answer->tokens.size() + (answer->end_token.has_value() ? 1 : 0));
    for (size_t i = 0; i < answer->evidence.size(); ++i) {
      const auto next = generator.Next();
      ASSERT_TRUE(next.ok()) << next.status();
      EXPECT_EQ(next->token, i < answer->tokens.size() ? answer->tokens[i] : *answer->end_token);
      EXPECT_EQ(next->evidence.top_prob, answer->evidence[i].top_prob);
    }
    EXPECT_EQ(answer->finished, answer->end_token.has_value());
    EXPECT_TRUE(answer->finished || answer->tokens.size() == 20u);
  }
  EXPECT_EQ((*answerer)->pool().n_free(), (*answerer)->pool().n_blocks());
}

TEST_F(AnswererTest, TheChosenTemplateMakesThePrompt) {
  AnswerOptions options;
  options.max_tokens = 1;
  const Conversation conversation = Conversations(1).front();
  const auto prompt_of = [&](const std::string& choice) {
    auto answerer = Answerer::Load(*path_, 1, /*adapter=*/"", choice);
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    return (*answerer)->Answer(conversation, options)->prompt_tokens;
  };
  auto file = gguf::File::Open(*path_);
  ASSERT_TRUE(file.ok());
  auto tokenizer = text::Tokenizer::FromGguf(*file);
  ASSERT_TRUE(tokenizer.ok());
  for (const std::string name : {"zephyr", "vicuna"}) {
    const auto chosen = text::ChatTemplate::Choose(*file, name);
    ASSERT_TRUE(chosen.ok()) << chosen.status();
    const auto expected = chosen->RenderTokens(**tokenizer, {.messages = conversation});
    ASSERT_TRUE(expected.ok()) << expected.status();
    EXPECT_EQ(prompt_of(name), *expected);
    options.chat_template = name;
    EXPECT_EQ(AnswerAll(*path_, {&conversation, 1}, options)->front().prompt_tokens, *expected);
  }
  EXPECT_NE(prompt_of(""), prompt_of("zephyr"));
  const auto none = Answerer::Load(*path_, 1, "", "no-such-template");
  EXPECT_EQ(none.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.status().message()), HasSubstr("zephyr")) << "names what there is";
}

TEST_F(AnswererTest, WorkersDoNotChangeAnswers) {
  const auto conversations = Conversations(23);
  AnswerOptions options;
  options.max_tokens = 12;
  options.exit_mode = ExitMode::kLossy;
  options.n_workers = 1;
  const auto one = AnswerAll(*path_, conversations, options);
  ASSERT_TRUE(one.ok()) << one.status();
  int calls = 0;
  options.n_workers = 4;
  options.on_progress = [&](int done, int total) {
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(total, 23);
  };
  const auto four = AnswerAll(*path_, conversations, options);
  ASSERT_TRUE(four.ok()) << four.status();
  EXPECT_EQ(calls, 23);
  for (size_t i = 0; i < conversations.size(); ++i) EXPECT_EQ((*one)[i].tokens, (*four)[i].tokens) << i;
}

TEST_F(AnswererTest, BadInput) {
  AnswerOptions options;
  EXPECT_FALSE(AnswerAll("/no/such/model.gguf", Conversations(3), options).ok());
  options.n_workers = 0;
  EXPECT_THAT(AnswerAll(*path_, Conversations(3), options).status().ToString(), HasSubstr("workers"));
  options.n_workers = 2;
  options.max_tokens = 0;
  EXPECT_THAT(AnswerAll(*path_, Conversations(3), options).status().ToString(), HasSubstr("max_tokens"));
  options.max_tokens = 4;
  EXPECT_TRUE(AnswerAll(*path_, {}, options).ok());
  auto conversations = Conversations(3);
  conversations[1][0].role = "wizard";
  EXPECT_THAT(AnswerAll(*path_, conversations, options).status().ToString(), HasSubstr("conversation 2 of 3"));
}

TEST_F(AnswererTest, AConversationBeyondTheContextIsAnUnfinishedAnswer) {
  auto conversations = Conversations(2);
  conversations[0][0].content = std::string(4000, 'x') + " y z";
  for (int i = 0; i < 600; ++i) conversations[0][0].content += " w" + std::to_string(i);
  AnswerOptions options;
  options.max_tokens = 4;
  const auto answers = AnswerAll(*path_, conversations, options);
  ASSERT_TRUE(answers.ok()) << answers.status();
  EXPECT_TRUE((*answers)[0].tokens.empty());
  EXPECT_FALSE((*answers)[0].finished);
  EXPECT_FALSE((*answers)[1].evidence.empty());
}

TEST_F(AnswererTest, EvaluateTaskReportsDepth) {
  const auto items = CockpitTask(cockpit::Split::kTest, 12, 1);
  AnswerOptions options;
  options.max_tokens = 10;
  options.exit_mode = ExitMode::kLossy;
  options.exit_thresholds = {0.0f, 0.0f};  // every token leaves at the first exit
  const auto report = EvaluateTask(*path_, items, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->n, 12);
  EXPECT_EQ(report->n_layer, 4);
  EXPECT_LT(report->mean_exit_layer, 4.0);
  EXPECT_GT(report->early_exit_share, 0.5);
  options.exit_mode = ExitMode::kOff;
  const auto full = EvaluateTask(*path_, items, options);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->mean_exit_layer, 4.0);
  EXPECT_EQ(full->early_exit_share, 0.0);
}

TEST(WriteAnswersTest, OneLineAnItemWhateverTheBytes) {
  const auto items = CockpitTask(cockpit::Split::kTest, 3, 1);
  const std::string path = TempPath("answers.jsonl");
  const std::vector<std::string> texts = {items[0].expected, "no JSON", "half a character \xE4\xBD"};
  ASSERT_TRUE(WriteAnswers(path, items, texts).ok());
  std::ifstream in(path);
  std::string line;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_TRUE(std::getline(in, line));
    const auto object = nlohmann::json::parse(line);
    EXPECT_EQ(object["correct"], i == 0);
    EXPECT_EQ(object["expected"], items[i].expected);
    EXPECT_EQ(object["messages"].size(), items[i].messages.size());
  }
  EXPECT_FALSE(std::getline(in, line));
  EXPECT_FALSE(WriteAnswers("/nonexistent/x.jsonl", items, texts).ok());
}

}  // namespace
}  // namespace updraft
