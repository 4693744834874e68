// Answers that act, of a live cloud with the embedded full model: held until they are whole, judged, and where they are
// doubted exchanged for a question.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/cockpit/ask_back.h"
#include "common/gguf/reader.h"
#include "common/http/json.h"
#include "common/routing/confidence.h"
#include "deploy/calibrate/calibrate.h"
#include "tests/cloud/service/live_cloud.h"
#include "tests/common/http/raw_client.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kRequest[] = "set the driver's seat heating to 40";

// The embedded full model, said to act, with a calibration that thinks every answer as likely right as p.
class ActingModel {
 public:
  ActingModel(double p, double threshold)
      : path_(absl::StrCat(::testing::TempDir(), "updraft_acting_", getpid(), "_", p, "_", threshold, ".gguf")) {
    ConfidenceModel::Metadata flat;
    for (const std::string_view name : AnswerFeatures::Names()) flat.names.emplace_back(name);
    flat.mean.assign(AnswerFeatures::kCount, 0.0f);
    flat.scale.assign(AnswerFeatures::kCount, 1.0f);
    flat.weights.assign(AnswerFeatures::kCount + 1, 0.0f);
    flat.isotonic_x = {-1.0f, 1.0f};
    flat.isotonic_y = {static_cast<float>(p), static_cast<float>(p)};
    flat.threshold = static_cast<float>(threshold);
    const auto p_right = ConfidenceModel::FromMetadata(flat);
    EXPECT_TRUE(p_right.ok()) << p_right.status();
    const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
    const auto file = gguf::File::Open(absl::StrCat(root == nullptr ? "." : root, "/deploy/models/cockpit-full.gguf"));
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return;
    const absl::Status written = CopyWithMetadata(*file, path_, [&](gguf::Writer& writer) {
      writer.SetString("updraft.acts", "cockpit");
      p_right->AddTo(writer, ConfidenceModel::Meaning::kRight);
    });
    EXPECT_TRUE(written.ok()) << written;
  }
  ~ActingModel() { std::filesystem::remove(path_); }
  ActingModel(const ActingModel&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

v1::GenerateRequest ChatOf(const std::string& text) {
  v1::GenerateRequest request;
  v1::Message& message = *request.mutable_conversation()->add_messages();
  message.set_role("user");
  message.set_content(text);
  return request;
}

// Responses that bring something of the answer; signs of life bring nothing.
int CountParts(const Answer& answer) {
  int n = 0;
  for (const v1::GenerateResponse& response : answer.responses) {
    if (response.has_chunk() && (!response.chunk().text().empty() || response.chunk().tokens_size() > 0)) ++n;
  }
  return n;
}

TEST(HeldAnswer, OneThatIsTrustedComesWholeAndSaysWhatItIs) {
  const ActingModel model(0.9, 0.5);
  const auto cloud = StartCloud({}, model.path());
  ASSERT_NE(cloud, nullptr);
  const auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
  v1::GenerateRequest request = ChatOf(kRequest);
  request.set_include_evidence(true);
  const Answer answer = Ask(*stub, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(CountParts(answer), 1) << "half of it must not be carried out";
  EXPECT_EQ(cockpit::EffectOf(answer.text), cockpit::Effect::kAct) << answer.text;
  EXPECT_EQ(answer.done.disposition(), v1::DISPOSITION_ACT);
  EXPECT_NEAR(answer.done.provenance().p_right(), 0.9, 1e-6);
  EXPECT_THAT(answer.done.alternatives(), IsEmpty());
  EXPECT_EQ(static_cast<int>(answer.tokens.size()), answer.done.usage().completion_tokens());
  EXPECT_EQ(answer.evidence.size(), answer.tokens.size());

  request.set_include_evidence(false);
  const Answer plain = Ask(*stub, request);
  EXPECT_EQ(plain.text, answer.text);
  EXPECT_THAT(plain.evidence, IsEmpty());
  EXPECT_TRUE(WaitForFreeBlocks(*cloud));
}

TEST(HeldAnswer, ADoubtedOneGivesWayToAQuestion) {
  const ActingModel model(0.2, 0.5);
  const auto cloud = StartCloud({"--http-listen=127.0.0.1:0"}, model.path());
  ASSERT_NE(cloud, nullptr);
  const auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
  const Answer answer = Ask(*stub, ChatOf(kRequest));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.done.disposition(), v1::DISPOSITION_CLARIFY);
  EXPECT_EQ(cockpit::EffectOf(answer.text), cockpit::Effect::kAsk) << answer.text;
  EXPECT_THAT(answer.text, HasSubstr("Did you mean"));
  ASSERT_GE(answer.done.alternatives_size(), 1);
  EXPECT_LE(answer.done.alternatives_size(), 3);
  EXPECT_THAT(answer.done.alternatives(0), HasSubstr("Heating")) << "what it would have done comes first";
  for (const std::string& alternative : answer.done.alternatives()) {
    EXPECT_NE(cockpit::EffectOf(alternative), cockpit::Effect::kNone) << alternative;
  }
  EXPECT_NEAR(answer.done.provenance().p_right(), 0.2, 1e-6);
  EXPECT_EQ(answer.done.finish_reason(), v1::FINISH_REASON_STOP);

  // The same in OpenAI's words, and the same alternatives: samples are drawn by the request's seed.
  const http::testing::RawResponse response =
      http::testing::Fetch(cloud->http_port(), "POST", "/v1/chat/completions",
                           absl::StrCat(R"({"messages":[{"role":"user","content":")", kRequest, R"("}]})"));
  const http::Json reply = http::Json::parse(response.body);
  EXPECT_EQ(reply["choices"][0]["message"]["content"], answer.text);
  EXPECT_EQ(reply["updraft"]["disposition"], "clarify");
  EXPECT_EQ(reply["updraft"]["alternatives"].size(), static_cast<size_t>(answer.done.alternatives_size()));
  EXPECT_NEAR(reply["updraft"]["p_right"].get<double>(), 0.2, 1e-6);
  EXPECT_TRUE(WaitForFreeBlocks(*cloud)) << "the samples are let go of";
}

// The samples are the tenant's as the answer is: they find its prompt, and leave it to nobody else.
TEST(HeldAnswer, SamplesAreOfTheSameTenant) {
  const ActingModel model(0.2, 0.5);
  const auto cloud = StartCloud({}, model.path());
  ASSERT_NE(cloud, nullptr);
  const auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
  v1::GenerateRequest request = ChatOf(kRequest);
  request.set_tenant("ann");
  ASSERT_EQ(Ask(*stub, request).done.disposition(), v1::DISPOSITION_CLARIFY);
  request.clear_tenant();
  EXPECT_EQ(Ask(*stub, request).done.usage().cached_tokens(), 0);
  request.set_tenant("ann");
  EXPECT_GT(Ask(*stub, request).done.usage().cached_tokens(), 0);
}

TEST(HeldAnswer, ARefusalSetsNothingAndIsNoQuestion) {
  const ActingModel model(0.2, 0.5);
  const auto cloud = StartCloud({}, model.path());
  ASSERT_NE(cloud, nullptr);
  const Answer answer = Ask(*v1::Inference::NewStub(ChannelTo(*cloud)), ChatOf("order me a pizza"));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.done.disposition(), v1::DISPOSITION_REFUSE) << answer.text;
}

// The features that confidence goes by are those of the calibration: they hold the turns, which ids do not show.
TEST(HeldAnswer, IdsBringWhatTheyNoLongerShow) {
  const ActingModel model(0.9, 0.5);
  const auto cloud = StartCloud({}, model.path());
  ASSERT_NE(cloud, nullptr);
  v1::GenerateRequest request = ChatOf("set the fan to 55");
  const auto by_text = cloud->backend().served().MakePrompt(request);
  ASSERT_TRUE(by_text.ok()) << by_text.status();
  v1::TokenIds ids;
  ids.set_tokenizer_fingerprint(cloud->model_info().tokenizer_fingerprint());
  ids.mutable_ids()->Add(by_text->tokens.begin(), by_text->tokens.end());
  ids.set_n_turns(by_text->features.n_turns);
  ids.set_n_digits(by_text->features.n_digits);
  *request.mutable_tokens() = ids;
  const auto by_ids = cloud->backend().served().MakePrompt(request);
  ASSERT_TRUE(by_ids.ok()) << by_ids.status();
  EXPECT_EQ(by_ids->features.n_turns, 1);
  EXPECT_EQ(by_ids->features.n_digits, 2);
  EXPECT_EQ(by_ids->features.n_prompt_tokens, by_text->features.n_prompt_tokens);
  const Answer answer = Ask(*v1::Inference::NewStub(ChannelTo(*cloud)), request);
  EXPECT_EQ(answer.done.disposition(), v1::DISPOSITION_ACT) << "ids are held and judged, too: " << answer.text;
}

// What is not a conversation, or begins in the middle, goes through as it comes.
TEST(HeldAnswer, RawPromptsShapedAndContinuedAnswersAreNotHeld) {
  const ActingModel model(0.2, 0.5);
  const auto cloud = StartCloud({}, model.path());
  ASSERT_NE(cloud, nullptr);
  const auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
  const Answer raw = Ask(*stub, PromptRequest("seat heating", 20));
  ASSERT_TRUE(raw.status.ok()) << raw.status.error_message();
  EXPECT_EQ(raw.done.disposition(), v1::DISPOSITION_UNSPECIFIED);
  EXPECT_FALSE(raw.done.provenance().has_p_right());
  // Nor is one whose shape its caller says: no question of ours could have it.
  v1::GenerateRequest shaped = ChatOf(kRequest);
  shaped.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE);
  shaped.mutable_shape()->mutable_choice()->add_texts("left");
  shaped.mutable_shape()->mutable_choice()->add_texts("right");
  const Answer chosen = Ask(*stub, shaped);
  ASSERT_TRUE(chosen.status.ok()) << chosen.status.error_message();
  EXPECT_TRUE(chosen.text == "left" || chosen.text == "right") << chosen.text;
  EXPECT_EQ(chosen.done.disposition(), v1::DISPOSITION_UNSPECIFIED);

  // The tier below has the beginning: what would be withdrawn is not all here.
  const ActingModel trusted(0.9, 0.5);
  const auto whole_cloud = StartCloud({}, trusted.path());
  ASSERT_NE(whole_cloud, nullptr);
  const Answer whole = Ask(*v1::Inference::NewStub(ChannelTo(*whole_cloud)), ChatOf(kRequest));
  ASSERT_GT(whole.tokens.size(), 8u);
  v1::GenerateRequest rest = ChatOf(kRequest);
  const auto prompt = cloud->backend().served().MakePrompt(rest);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  rest.mutable_tokens()->mutable_ids()->Add(prompt->tokens.begin(), prompt->tokens.end());
  rest.mutable_tokens()->set_tokenizer_fingerprint(cloud->model_info().tokenizer_fingerprint());
  rest.mutable_accepted_prefix()->Add(whole.tokens.begin(), whole.tokens.begin() + 4);
  const Answer continued = Ask(*stub, rest);
  ASSERT_TRUE(continued.status.ok()) << continued.status.error_message();
  EXPECT_EQ(continued.done.disposition(), v1::DISPOSITION_UNSPECIFIED);
  EXPECT_EQ(continued.tokens, std::vector<int32_t>(whole.tokens.begin() + 4, whole.tokens.end()));
}

TEST(HeldAnswer, ManyAtOnceAndSomeLeave) {
  const ActingModel model(0.2, 0.5);
  const auto cloud = StartCloud({"--max-running=4", "--max-queued=6"}, model.path());
  ASSERT_NE(cloud, nullptr);
  std::vector<std::thread> clients;
  std::atomic<int> n_asked_back{0}, n_left{0}, n_full{0};
  for (int i = 0; i < 12; ++i) {
    clients.emplace_back([&, i] {
      const auto stub = v1::Inference::NewStub(ChannelTo(*cloud));
      const absl::Duration patience = i % 3 == 0 ? absl::Milliseconds(5 + 10 * i) : absl::Seconds(120);
      const Answer answer = Ask(*stub, ChatOf(absl::StrCat("driver's seat heating to ", 10 + i)), patience);
      if (answer.status.ok()) {
        n_asked_back += answer.done.disposition() == v1::DISPOSITION_CLARIFY ? 1 : 0;
      } else if (answer.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
        ++n_full;
      } else {
        ++n_left;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(n_asked_back, 1);
  EXPECT_TRUE(WaitForFreeBlocks(*cloud)) << "whoever left, their samples end as well";
}

TEST(HeldAnswer, ATaskThatThisBuildDoesNotKnowIsRefusedAtStart) {
  const std::string path = absl::StrCat(::testing::TempDir(), "updraft_acting_unknown_", getpid(), ".gguf");
  const auto file = gguf::File::Open(TinyModelPath());
  ASSERT_TRUE(
      CopyWithMetadata(*file, path, [](gguf::Writer& writer) { writer.SetString("updraft.acts", "surgery"); }).ok());
  v1::CloudConfig config;
  const std::string flag = absl::StrCat("--model=", path);
  const std::vector<const char*> args = {flag.c_str(), "--listen=127.0.0.1:0"};
  ASSERT_TRUE(LoadConfig(args, &config).ok());
  const auto cloud = CloudServer::Start(config);
  EXPECT_EQ(cloud.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cloud.status().message()),
              ::testing::AllOf(HasSubstr("updraft.acts"), HasSubstr("surgery"), HasSubstr(path)));
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace updraft::testing
