// Clouds of other versions and this agent: what earlier ones sent, recorded between real daemons (tests/golden/wire),
// and what later ones may send.
#include <gmock/gmock.h>

#include <condition_variable>
#include <mutex>
#include <random>

#include "tests/common/rpc/future_messages.h"
#include "tests/common/rpc/raw_call.h"
#include "tests/common/rpc/recorded_wire.h"
#include "tests/edge/agent/agent_fixture.h"

namespace updraft::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

// Plays responses as bytes. Both are set before the first call.
class RawUpstream final : public v1::Inference::WithRawCallbackMethod_Generate<
                              v1::Inference::WithRawCallbackMethod_GetStatus<v1::Inference::Service>> {
 public:
  RawUpstream() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~RawUpstream() override {
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  std::vector<std::string> responses;
  std::string status;

  std::vector<std::string> requests() const {
    std::lock_guard lock(mu_);
    return requests_;
  }

  grpc::ServerWriteReactor<grpc::ByteBuffer>* Generate(grpc::CallbackServerContext*,
                                                       const grpc::ByteBuffer* request) override {
    {
      std::lock_guard lock(mu_);
      requests_.push_back(BytesOf(*request));
    }
    return new Play(responses);
  }
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                      grpc::ByteBuffer* response) override {
    *response = BufferOf(status);
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  class Play final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
   public:
    explicit Play(std::vector<std::string> responses) : responses_(std::move(responses)) { Next(); }
    void OnWriteDone(bool ok) override { ok ? Next() : Finish(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }

   private:
    void Next() {
      if (at_ == responses_.size()) return Finish(grpc::Status::OK);
      buffer_ = BufferOf(responses_[at_++]);
      StartWrite(&buffer_);
    }
    const std::vector<std::string> responses_;
    size_t at_ = 0;
    grpc::ByteBuffer buffer_;
  };

  int port_ = 0;
  mutable std::mutex mu_;
  std::vector<std::string> requests_;
  std::unique_ptr<grpc::Server> server_;
};

// What the responses say, read with today's schema.
struct Said {
  std::string text;
  std::vector<int32_t> tokens;
  v1::Done done;
};

Said SaidBy(const std::vector<std::string>& responses) {
  Said said;
  for (const std::string& bytes : responses) {
    v1::GenerateResponse response;
    EXPECT_TRUE(response.ParseFromString(bytes));
    said.text += response.chunk().text();
    said.tokens.insert(said.tokens.end(), response.chunk().tokens().begin(), response.chunk().tokens().end());
    if (response.has_done()) said.done = response.done();
  }
  return said;
}

class VersionsTest : public AgentTest {
 protected:
  // The recorder's model: the ids of the recording are of its vocabulary.
  static void SetUpTestSuite() {
    path_ = new std::string(::testing::TempDir() + "updraft_versions_" + std::to_string(getpid()) + ".gguf");
    ASSERT_TRUE(Synthesize("tiny-qwen2", kernels::DType::kF32, *path_, {.seed = 7, .n_threads = 1}).ok());
  }

  void SetUp() override {
    ASSERT_FALSE(RecordedVersions().empty());
    for (const RecordedCall& call : ReadRecording(RecordedVersions()[0])) {
      if (call.name == "probe") upstream_.status = call.responses.at(0);
      if (call.name == "evidence_ids") upstream_.responses = call.responses;
    }
    ASSERT_FALSE(upstream_.status.empty());
    ASSERT_GE(upstream_.responses.size(), 2u);
  }

  // Whatever the agent drafts it hands over.
  std::shared_ptr<CollectingSink> AskAbove(const v1::GenerateRequest& request = ChatRequest("hello there")) {
    auto agent = MakeAgent(upstream_.address(), {.threshold = 1.0});
    auto answer = Ask(*agent, request);
    agent->Stop();
    return answer;
  }

  static void ExpectWhole(const CollectingSink& answer, const Said& said) {
    ASSERT_TRUE(answer.status().ok()) << answer.status();
    EXPECT_EQ(answer.text(), said.text);
    EXPECT_THAT(answer.tokens(), ElementsAreArray(said.tokens));
    EXPECT_FALSE(answer.provenance().degraded()) << answer.provenance().reason();
    EXPECT_EQ(answer.provenance().decision(), v1::DECISION_KIND_HAND_OVER);
    EXPECT_EQ(answer.done().usage().completion_tokens(), static_cast<int>(said.tokens.size()));
  }

  RawUpstream upstream_;
};

// They say nothing of dispositions, of being right, and nothing while a request waits.
TEST_F(VersionsTest, AnswersOfEarlierCloudsArriveWhole) {
  for (const std::string& version : RecordedVersions()) {
    const std::vector<RecordedCall> calls = ReadRecording(version);
    for (const RecordedCall& call : calls) {
      if (call.name == "probe") upstream_.status = call.responses.at(0);
    }
    for (const RecordedCall& call : calls) {
      if (call.name == "probe") continue;
      SCOPED_TRACE(version + " " + call.name);
      upstream_.responses = call.responses;
      const Said said = SaidBy(call.responses);
      ASSERT_FALSE(said.text.empty());
      const auto answer = AskAbove();
      ExpectWhole(*answer, said);
      EXPECT_EQ(answer->done().finish_reason(), said.done.finish_reason());
      EXPECT_EQ(answer->done().disposition(), v1::DISPOSITION_UNSPECIFIED);
      EXPECT_FALSE(answer->provenance().has_p_right());
    }
    for (const std::string& bytes : upstream_.requests()) {
      v1::GenerateRequest sent;
      ASSERT_TRUE(sent.ParseFromString(bytes));
      EXPECT_TRUE(sent.has_tokens()) << "the earlier cloud's vocabulary is not known for the same";
    }
  }
}

// ---- Of later versions ----------------------------------------------------------------------------------------------

// Fields at every level, and events of other kinds before, between and after.
TEST_F(VersionsTest, UnknownFieldsAndEventsChangeNothing) {
  const std::vector<std::string> plain = upstream_.responses;
  const std::string plain_status = upstream_.status;
  const Said said = SaidBy(plain);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    SCOPED_TRACE(seed);
    upstream_.responses.clear();
    const auto add = [&](const std::string& bytes) {
      v1::GenerateResponse response;
      ASSERT_TRUE(response.ParseFromString(bytes));
      AddUnknownFields(response, random);
      upstream_.responses.push_back(response.SerializeAsString());
    };
    for (const std::string& bytes : plain) {
      for (uint64_t i = random() % 3; i > 0; --i) add("");
      add(bytes);
    }
    v1::GetStatusResponse status;
    ASSERT_TRUE(status.ParseFromString(plain_status));
    AddUnknownFields(status, random);
    upstream_.status = status.SerializeAsString();
    const auto answer = AskAbove();
    ExpectWhole(*answer, said);
    EXPECT_EQ(answer->done().finish_reason(), said.done.finish_reason());
  }
}

// They go on to whoever asked, who may know them; the decision is this tier's own.
TEST_F(VersionsTest, UnknownValuesArePassedOnAndChangeNothingElse) {
  const std::vector<std::string> plain = upstream_.responses;
  const Said said = SaidBy(plain);
  const auto enums = EnumsOf(*v1::GenerateResponse::descriptor());
  ASSERT_GE(enums.size(), 3u);
  for (const FieldPath& path : enums) {
    for (const int value : UnknownValuesOf(path)) {
      SCOPED_TRACE(PathName(path) + " " + std::to_string(value));
      v1::GenerateResponse last;
      ASSERT_TRUE(last.ParseFromString(plain.back()));
      SetEnum(last, path, value);
      upstream_.responses = plain;
      upstream_.responses.back() = last.SerializeAsString();
      const auto answer = AskAbove();
      ExpectWhole(*answer, said);
      EXPECT_EQ(answer->done().finish_reason(), last.done().finish_reason());
      EXPECT_EQ(answer->done().disposition(), last.done().disposition());
    }
  }
}

// A last message of a kind that is not known here ends nothing: the answer is finished here, and says so.
TEST_F(VersionsTest, AnEndOfAnotherKindIsNoEnd) {
  std::mt19937_64 random(5);
  v1::GenerateResponse other;
  AddUnknownFields(other, random);
  upstream_.responses.back() = other.SerializeAsString();
  const auto answer = AskAbove();
  ASSERT_TRUE(answer->status().ok()) << answer->status();
  EXPECT_TRUE(answer->provenance().degraded());
  EXPECT_THAT(answer->provenance().reason(), HasSubstr("ended without its last message"));
  EXPECT_EQ(answer->text().find(SaidBy(upstream_.responses).text), 0u) << "what was given stays given";
}

// What this tier does not know of a request the tier above may.
TEST_F(VersionsTest, UnknownFieldsOfARequestTravelOn) {
  v1::GenerateRequest request = ChatRequest("hello there");
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(5000, "from the future");
  ExpectWhole(*AskAbove(request), SaidBy(upstream_.responses));
  ASSERT_EQ(upstream_.requests().size(), 1u);
  v1::GenerateRequest sent;
  ASSERT_TRUE(sent.ParseFromString(upstream_.requests()[0]));
  const auto& fields = sent.GetReflection()->GetUnknownFields(sent);
  ASSERT_EQ(fields.field_count(), 1);
  EXPECT_EQ(fields.field(0).number(), 5000);
  EXPECT_EQ(fields.field(0).length_delimited(), "from the future");
}

// ---- What is absent -------------------------------------------------------------------------------------------------

class Ended final : public UpstreamListener {
 public:
  void OnResponse(const v1::GenerateResponse&) override {}
  void OnFinished(const absl::Status& status, const UpstreamTraffic&) override {
    std::lock_guard lock(mu_);
    status_ = status;
    ended_ = true;
    changed_.notify_all();
  }
  absl::Status Wait() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return ended_; });
    return status_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  absl::Status status_;
  bool ended_ = false;
};

// A load that was not told is unknown and not zero, and an answer needs neither an id nor times.
TEST_F(VersionsTest, WhatACloudDoesNotSayIsUnknown) {
  const Said said = SaidBy(upstream_.responses);
  for (std::string& bytes : upstream_.responses) {
    v1::GenerateResponse response;
    ASSERT_TRUE(response.ParseFromString(bytes));
    response.clear_load();
    response.clear_request_id();
    response.clear_server_us();
    if (response.has_done()) response.mutable_done()->clear_provenance();
    bytes = response.SerializeAsString();
  }
  v1::GetStatusResponse status;
  ASSERT_TRUE(status.ParseFromString(upstream_.status));
  const std::string whole_status = upstream_.status;
  status.clear_load();
  upstream_.status = status.SerializeAsString();
  ExpectWhole(*AskAbove(), said);

  for (const bool told : {false, true}) {
    upstream_.status = told ? whole_status : status.SerializeAsString();
    auto session = MakeSession(/*n_upstreams=*/1);
    auto upstream = GrpcUpstream::Create({.address = upstream_.address()}, session);
    ASSERT_TRUE(upstream.ok()) << upstream.status();
    for (int i = 0; (*upstream)->Identity().tokenizer_fingerprint.empty() && i < 4000; ++i) {
      absl::SleepFor(absl::Milliseconds(5));
    }
    auto ended = std::make_shared<Ended>();
    auto call = (*upstream)->Generate(ChatRequest("hello there"), SteadyTime::InfiniteFuture(), ended);
    EXPECT_TRUE(ended->Wait().ok());
    const UpstreamFacts facts =
        session->With([](const RoutingSession& s) { return s.Facts(0, SteadyNow().seconds()); });
    EXPECT_EQ(facts.load.known, told);
    EXPECT_TRUE(facts.link.reachable);
    (*upstream)->Stop();
  }
}

}  // namespace
}  // namespace updraft::testing
