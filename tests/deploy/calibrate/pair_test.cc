// A pair of models without labels: what is read, how answers are judged, what a run that was broken off still knows.
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/sync/mutex.h"
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
#include "tests/files.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ReadAll;

std::string TempPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / ("updraft_pair_" + std::to_string(getpid()) + "_" + name)).string();
}

class TempFile {
 public:
  explicit TempFile(const std::string& name) : path_(TempPath(name)) {}
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }
  void Write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }

 private:
  const std::string path_;
};

// ---- Prompts ----

TEST(ReadPromptsTest, AnswersMayBeMissing) {
  const TempFile file("prompts.jsonl");
  file.Write(R"({"prompt":"one"})"
             "\n\n"
             R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"one"}],"answer":"1","id":"x"})"
             "\n"
             R"({"prompt":"colder","answer":{"set":{"Vehicle.Cabin.HVAC.AmbientAirTemperature":18}}})"
             "\n");
  const auto items = ReadPrompts(file.path());
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 3u);
  EXPECT_FALSE((*items)[0].labelled);
  EXPECT_TRUE((*items)[1].labelled);
  EXPECT_TRUE(IsCorrect((*items)[1], " 1."));
  EXPECT_TRUE((*items)[2].labelled);
  EXPECT_TRUE((*items)[2].accept.has_value());
}

TEST(ReadPromptsTest, RefusesByLine) {
  const TempFile file("bad.jsonl");
  const std::pair<const char*, const char*> cases[] = {
      {"not json", "JSON"},
      {R"({"prompt":" \n"})", "empty"},
      {R"({"prompt":"fine"})", "the same prompt as line 1"},
      {R"({"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]})", "'assistant'"},
      {R"({"prompt":"x","answer":3})", "answer"},
      {R"({"answer":"x"})", "messages"}};
  for (const auto& [line, words] : cases) {
    file.Write(absl::StrCat(R"({"prompt":"fine"})", "\n", line, "\n"));
    EXPECT_THAT(ReadPrompts(file.path()).status().ToString(), AllOf(HasSubstr("line 2"), HasSubstr(words))) << line;
  }
  file.Write("\n \n");
  EXPECT_THAT(ReadPrompts(file.path()).status().ToString(), HasSubstr("found none"));
}

// ---- Progress ----

TEST(ProgressFileTest, GoesOnAfterABreak) {
  const TempFile file("progress.jsonl");
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    ASSERT_TRUE((*progress)->Add("kind", "3", "three\nlines \"x\"").ok());
    ASSERT_TRUE((*progress)->Add("other", "3", "3").ok());
  }
  std::ofstream(file.path(), std::ios::app) << R"({"kind":"kind","key":"4","finding":"torn)";  // no end of line
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    EXPECT_EQ((*progress)->n_found_at_start(), 2);
    EXPECT_EQ((*progress)->Find("kind", "3"), "three\nlines \"x\"");
    EXPECT_EQ((*progress)->Find("kind", "4"), std::nullopt);
    ASSERT_TRUE((*progress)->Add("kind", "4", "four").ok());
  }
  {
    auto progress = ProgressFile::Open(file.path(), "run a");
    ASSERT_TRUE(progress.ok()) << progress.status();
    EXPECT_EQ((*progress)->Find("kind", "4"), "four");
    EXPECT_EQ((*progress)->n_found_at_start(), 3);
  }
  auto other = ProgressFile::Open(file.path(), "run b");
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ((*other)->n_found_at_start(), 0) << "of another run";
  (*other)->Remove();
  EXPECT_FALSE(std::filesystem::exists(file.path()));
}

TEST(ProgressFileTest, SaysWhereItCannotWrite) {
  EXPECT_THAT(ProgressFile::Open("/nonexistent/progress.jsonl", "run").status().ToString(),
              HasSubstr("/nonexistent/progress.jsonl"));
  const TempFile file("full.jsonl");
  std::filesystem::create_symlink("/dev/full", file.path() + ".new");
  EXPECT_THAT(ProgressFile::Open(file.path(), "run").status().ToString(), HasSubstr("No space left"));
  std::filesystem::remove(file.path() + ".new");
}

// ---- Judging ----

// Answers by the text, likes by the text, and may be gone.
class FakeUpstream final : public Upstream {
 public:
  std::string name() const override { return "fake"; }
  std::string identity() const override { return "fake"; }
  absl::StatusOr<UpstreamAnswer> Answer(const Conversation& conversation) override {
    MutexLock lock(mu_);
    ++n_answers_;
    if (n_answers_ > answers_until_gone) return absl::UnavailableError("nobody answers at fake:1");
    const std::string& text = answers.at(conversation.back().content);
    return UpstreamAnswer{text, text != cut_off};
  }
  absl::Status CheckSame() override { return same; }
  absl::StatusOr<Likelihood> LikelihoodOf(const Conversation&, const std::string& answer) override {
    MutexLock lock(mu_);
    ++n_likelihoods_;
    const auto found = per_token.find(answer);
    if (found == per_token.end()) return absl::UnimplementedError("it cannot say");
    return Likelihood{.n_tokens = 4, .logprob = 4 * found->second};
  }
  int n_answers() const {
    MutexLock lock(mu_);
    return n_answers_;
  }
  int n_likelihoods() const {
    MutexLock lock(mu_);
    return n_likelihoods_;
  }

  std::map<std::string, std::string> answers;
  std::map<std::string, double> per_token;
  int answers_until_gone = 1 << 30;
  std::string cut_off;  // this answer is
  absl::Status same;

 private:
  mutable Mutex mu_;
  int n_answers_ = 0, n_likelihoods_ = 0;
};

TaskItem Prompt(const std::string& text) {
  TaskItem item;
  item.messages = {{"user", text}};
  item.labelled = item.worded = false;
  return item;
}

TaskItem Labelled(const std::string& text, const std::string& expected) {
  TaskItem item;
  item.messages = {{"user", text}};
  item.expected = expected;
  return item;
}

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

// ---- A tier that runs somewhere ----

// Says of a given answer what a test likes.
class FakeTier final : public v1::Inference::Service {
 public:
  std::function<grpc::Status(const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>*)> generate;
  std::atomic<int> n_calls = 0;
  std::atomic<int> file_bytes = 1;

  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    ++n_calls;
    return generate(*request, writer);
  }
  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) override {
    response->mutable_model()->set_path("model.gguf");
    response->mutable_model()->set_file_bytes(file_bytes);
    return grpc::Status::OK;
  }
};

class RemoteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&tier_);
    server_ = builder.BuildAndStart();
    auto remote = RemoteUpstream(absl::StrCat("127.0.0.1:", port), 8, absl::Seconds(20));
    ASSERT_TRUE(remote.ok()) << remote.status();
    remote_ = *std::move(remote);
  }
  void TearDown() override { server_->Shutdown(); }

  FakeTier tier_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Upstream> remote_;
};

TEST_F(RemoteTest, LikelihoodIsToldOrIsNone) {
  struct Case {
    std::vector<double> logprobs;  // of three tokens; fewer: of the others nothing is said
    std::optional<double> end;
    bool told;
  };
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  for (const Case& test :
       {Case{{-1, -2, -3}, -4.0, true}, Case{{}, std::nullopt, false}, Case{{-1, -2}, -4.0, false},
        Case{{-1, -2, -3}, std::nullopt, false}, Case{{-1, nan, -3}, -4.0, false}, Case{{-1, inf, -3}, -4.0, false},
        Case{{-1, 0.5, -3}, -4.0, false}, Case{{-1, -inf, -3}, -4.0, true}, Case{{-1, -2, -3}, nan, false}}) {
    tier_.generate = [&](const v1::GenerateRequest& request, grpc::ServerWriter<v1::GenerateResponse>* writer) {
      EXPECT_EQ(request.given().answer(), "an answer");
      v1::GenerateResponse chunk, done;
      for (int i = 0; i < 3; ++i) chunk.mutable_chunk()->add_tokens(i);
      for (const double logprob : test.logprobs) {
        chunk.mutable_chunk()->add_evidence()->set_logprob(static_cast<float>(logprob));
      }
      writer->Write(chunk);
      done.mutable_done()->set_finish_reason(v1::FINISH_REASON_STOP);
      if (test.end) done.mutable_done()->mutable_end_evidence()->set_logprob(static_cast<float>(*test.end));
      writer->Write(done);
      return grpc::Status::OK;
    };
    const auto likelihood = remote_->LikelihoodOf({{"user", "q"}}, "an answer");
    EXPECT_EQ(likelihood.ok(), test.told) << likelihood.status();
    if (!test.told) {
      EXPECT_TRUE(absl::IsUnimplemented(likelihood.status())) << likelihood.status();
    } else {
      EXPECT_EQ(likelihood->n_tokens, 4);
      EXPECT_NEAR(likelihood->logprob, std::isinf(test.logprobs[1]) ? -108.0 : -10.0, 1e-6);
    }
  }
  for (const grpc::StatusCode code : {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::FAILED_PRECONDITION}) {
    tier_.generate = [&](const auto&, auto*) { return grpc::Status(code, "of a kind that is not known"); };
    EXPECT_TRUE(absl::IsUnimplemented(remote_->LikelihoodOf({{"user", "q"}}, "an answer").status()));
  }
}

TEST_F(RemoteTest, AnEndlessAnswerIsCutAndARefusalIsTold) {
  tier_.generate = [&](const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>* writer) {
    v1::GenerateResponse chunk;
    chunk.mutable_chunk()->add_tokens(1);
    chunk.mutable_chunk()->set_text("more ");
    while (writer->Write(chunk)) {
    }
    return grpc::Status::OK;
  };
  EXPECT_THAT(remote_->Answer({{"user", "q"}}).status().ToString(), HasSubstr("at most 8 tokens"));

  tier_.n_calls = 0;
  tier_.generate = [&](const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>* writer) {
    v1::GenerateResponse response;
    if (tier_.n_calls > 1) {
      response.mutable_chunk()->set_text("at last");
      writer->Write(response);
      response.mutable_done()->set_finish_reason(v1::FINISH_REASON_LENGTH);
      writer->Write(response);
    }
    return tier_.n_calls > 1 ? grpc::Status::OK : grpc::Status(grpc::StatusCode::UNAVAILABLE, "gone");
  };
  EXPECT_TRUE(absl::IsUnavailable(remote_->Answer({{"user", "q"}}).status()))
      << "without a delay it is not asked again";
  const auto answer = remote_->Answer({{"user", "q"}});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, "at last");
  EXPECT_FALSE(answer->finished);
  EXPECT_TRUE(remote_->CheckSame().ok());
  tier_.file_bytes = 2;
  EXPECT_THAT(remote_->CheckSame().ToString(), HasSubstr("serves another model than at the start"));
}

// ---- With a model ----

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
    EXPECT_EQ((*all)[i].Features().values, (*fresh)[i].Features().values) << i;
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
  for (const LocalAnswer& answer : *own) sureness.push_back(answer.Features().values[0]);
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
