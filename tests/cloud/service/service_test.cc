// One client at a time against a live cloud: answers, validation of every field, deadlines, health, reflection.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "common/gguf/reader.h"
#include "common/rpc/status.h"
#include "common/text/tokenizer.h"
#include "tests/cloud/service/live_cloud.h"

namespace updraft {
namespace {

using testing::Answer;
using testing::Ask;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::PromptRequest;

class ServiceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { cloud_ = testing::StartCloud({"--kv-tokens=2048"}).release(); }
  static void TearDownTestSuite() {
    delete cloud_;
    cloud_ = nullptr;
  }
  void SetUp() override {
    ASSERT_NE(cloud_, nullptr);
    channel_ = testing::ChannelTo(*cloud_);
    stub_ = v1::Inference::NewStub(channel_);
  }
  void TearDown() override { EXPECT_TRUE(testing::WaitForFreeBlocks(*cloud_)) << "leaked blocks"; }

  v1::GetStatusResponse Status() {
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(30));
    v1::GetStatusResponse response;
    const grpc::Status status = stub_->GetStatus(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  std::vector<int32_t> Encode(const std::string& text) {
    const auto file = gguf::File::Open(testing::TinyModelPath());
    const auto tokenizer = text::Tokenizer::FromGguf(*file);
    return (*tokenizer)->Encode(text).value();
  }

  v1::GenerateRequest TokensRequest(const std::string& text, int max_tokens) {
    v1::GenerateRequest request;
    for (const int32_t id : Encode(text)) request.mutable_tokens()->add_ids(id);
    request.mutable_tokens()->set_tokenizer_fingerprint(Status().model().tokenizer_fingerprint());
    request.set_max_tokens(max_tokens);
    return request;
  }

  void ExpectRefused(const v1::GenerateRequest& request, grpc::StatusCode code, const std::string& message) {
    const Answer answer = Ask(*stub_, request);
    EXPECT_EQ(answer.status.error_code(), code) << answer.status.error_message();
    EXPECT_THAT(answer.status.error_message(), HasSubstr(message));
    EXPECT_TRUE(answer.responses.empty());
  }

  static CloudServer* cloud_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

CloudServer* ServiceTest::cloud_ = nullptr;

TEST_F(ServiceTest, StreamsAnAnswerWithProvenanceAndLoad) {
  v1::GenerateRequest request = PromptRequest("hello", 20);
  request.set_request_id("req-1");
  request.set_include_evidence(true);
  const Answer answer = Ask(*stub_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  ASSERT_TRUE(answer.has_done);
  EXPECT_TRUE(answer.responses.back().has_done()) << "done is always last";
  EXPECT_EQ(answer.done.usage().completion_tokens(), static_cast<int>(answer.tokens.size()));
  EXPECT_EQ(answer.done.usage().prompt_tokens(), static_cast<int>(Encode("hello").size()));
  EXPECT_EQ(answer.evidence.size(), answer.tokens.size());
  for (const v1::Evidence& evidence : answer.evidence) {
    EXPECT_GT(evidence.top_prob(), 0.0f);
    EXPECT_LE(evidence.top_prob(), 1.0f);
    EXPECT_NEAR(evidence.logprob(), std::log(evidence.top_prob()), 1e-5) << "greedy takes the most probable token";
  }
  EXPECT_EQ(answer.responses.front().request_id(), "req-1");
  EXPECT_TRUE(answer.responses.front().has_load());
  EXPECT_TRUE(answer.responses.back().has_load());
  EXPECT_EQ(answer.done.provenance().spans(0).tier(), "cloud");
  EXPECT_EQ(answer.done.provenance().spans(0).n_tokens(), static_cast<int>(answer.tokens.size()));
  EXPECT_GT(answer.done.provenance().total_ms(), 0.0);
  uint64_t previous = 0;
  for (const v1::GenerateResponse& response : answer.responses) {
    EXPECT_GE(response.server_us(), previous);
    previous = response.server_us();
    if (response.has_chunk()) {
      EXPECT_EQ(response.chunk().tier(), "cloud");
    }
  }
  EXPECT_GT(previous, 0u);
}

TEST_F(ServiceTest, AnAnswerThatIsThereIsReadWithItsEvidence) {
  v1::GenerateRequest request;
  v1::Message* message = request.mutable_given()->mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content("hello");
  request.mutable_given()->set_answer("a given answer");
  const Answer answer = Ask(*stub_, request);
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_THAT(answer.tokens, ElementsAreArray(Encode("a given answer")));
  ASSERT_EQ(answer.evidence.size(), answer.tokens.size());
  for (const v1::Evidence& evidence : answer.evidence) {
    EXPECT_LE(evidence.logprob(), std::log(evidence.top_prob()) + 1e-5) << "no token is likelier than the likeliest";
    EXPECT_LT(evidence.logprob(), 0.0f);
  }
  EXPECT_TRUE(answer.done.has_end_evidence());
  EXPECT_EQ(answer.done.finish_reason(), v1::FINISH_REASON_STOP);

  const auto refused = [&](auto change, const std::string& message_part) {
    v1::GenerateRequest bad = request;
    change(bad);
    ExpectRefused(bad, grpc::StatusCode::INVALID_ARGUMENT, message_part);
  };
  refused([](auto& bad) { bad.add_stop("x"); }, "stop: does not work with given");
  refused([](auto& bad) { bad.set_max_tokens(3); }, "max_tokens: does not work with given");
  refused([](auto& bad) { bad.mutable_given()->clear_conversation(); }, "given.conversation: missing");
  refused([](auto& bad) { bad.mutable_given()->mutable_conversation()->set_continue_final_message(true); },
          "continue_final_message: does not work with given");
  refused([](auto& bad) { bad.mutable_given()->mutable_conversation()->mutable_messages(0)->set_role("x"); }, "given:");
  request.mutable_given()->set_answer(std::string(4000, 'x'));
  ExpectRefused(request, grpc::StatusCode::OUT_OF_RANGE, "shorten");
  request.mutable_given()->clear_answer();
  const Answer nothing = Ask(*stub_, request);
  ASSERT_TRUE(nothing.status.ok()) << nothing.status.error_message();
  EXPECT_TRUE(nothing.tokens.empty());
  EXPECT_TRUE(nothing.done.has_end_evidence());
}

TEST_F(ServiceTest, TextPromptAndTokensGiveTheSameAnswer) {
  const Answer from_text = Ask(*stub_, PromptRequest("hello there", 24));
  const Answer from_tokens = Ask(*stub_, TokensRequest("hello there", 24));
  ASSERT_TRUE(from_text.status.ok() && from_tokens.status.ok()) << from_tokens.status.error_message();
  EXPECT_THAT(from_tokens.tokens, ElementsAreArray(from_text.tokens));
  EXPECT_FALSE(from_text.tokens.empty());
}

TEST_F(ServiceTest, AHandOverContinuesAndDoesNotRepeat) {
  v1::GenerateRequest whole_request = TokensRequest("turn it up", 24);
  whole_request.mutable_sampling()->set_temperature(0.8f);
  whole_request.mutable_sampling()->set_seed(11);
  // Which count what was accepted as said, and the prompt not.
  whole_request.mutable_sampling()->set_presence_penalty(1.0f);
  whole_request.mutable_sampling()->set_frequency_penalty(0.5f);
  const Answer whole = Ask(*stub_, whole_request);
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  ASSERT_GT(whole.tokens.size(), 4u);
  for (size_t n = 1; n <= whole.tokens.size(); n += 3) {
    v1::GenerateRequest request = whole_request;
    for (size_t i = 0; i < n; ++i) request.add_accepted_prefix(whole.tokens[i]);
    const Answer rest = Ask(*stub_, request);
    ASSERT_TRUE(rest.status.ok()) << rest.status.error_message();
    EXPECT_THAT(rest.tokens, ElementsAreArray(whole.tokens.begin() + n, whole.tokens.end())) << n;
    EXPECT_EQ(rest.done.finish_reason(), whole.done.finish_reason());
    EXPECT_EQ(rest.done.usage().completion_tokens(), static_cast<int>(whole.tokens.size() - n));
  }
}

TEST_F(ServiceTest, ConversationsAreRenderedAndAnswered) {
  v1::GenerateRequest request;
  auto* system = request.mutable_conversation()->add_messages();
  system->set_role("system");
  system->set_content("You are a car.");
  auto* user = request.mutable_conversation()->add_messages();
  user->set_role("user");
  user->set_content("我很冷");
  request.set_max_tokens(8);
  const Answer answer = Ask(*stub_, request);
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_TRUE(answer.has_done);
}

TEST_F(ServiceTest, AStopStringEndsTheAnswerBeforeIt) {
  // Random weights end most answers soon: take the first seed with a long one.
  v1::GenerateRequest request = PromptRequest("abc", 60);
  request.mutable_sampling()->set_temperature(1.0f);
  Answer whole;
  for (uint64_t seed = 0; seed < 200 && whole.text.size() <= 12; ++seed) {
    request.mutable_sampling()->set_seed(seed);
    whole = Ask(*stub_, request);
  }
  ASSERT_GT(whole.text.size(), 12u);
  const size_t cut = whole.text.size() / 2;
  size_t begin = cut;
  while (begin > 0 && (whole.text[begin] & 0xC0) == 0x80) --begin;  // stop strings are UTF-8
  size_t end = std::min(begin + 4, whole.text.size());
  while (end < whole.text.size() && (whole.text[end] & 0xC0) == 0x80) ++end;
  const std::string stop = whole.text.substr(begin, end - begin);
  request.add_stop(stop);
  const Answer stopped = Ask(*stub_, request);
  ASSERT_TRUE(stopped.status.ok()) << stopped.status.error_message();
  EXPECT_EQ(stopped.text, whole.text.substr(0, whole.text.find(stop)));
  EXPECT_EQ(stopped.done.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ServiceTest, EveryFieldIsChecked) {
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  ExpectRefused({}, invalid, "input: missing");
  ExpectRefused(PromptRequest("", 4), invalid, "prompt: is empty");
  v1::GenerateRequest request;
  request.mutable_conversation();
  ExpectRefused(request, invalid, "conversation: is empty");
  request.mutable_conversation()->add_messages()->set_role("robot");
  ExpectRefused(request, invalid,
                "conversation.messages[0].role: expected system, user, assistant or tool, found 'robot'");
  request.mutable_conversation()->mutable_messages(0)->set_role("user");
  ExpectRefused(request, invalid, "conversation: the last message is empty");
  ExpectRefused(PromptRequest("a", -1), invalid, "max_tokens: expected 0 (the default) or more, found -1");
  const auto too_long = grpc::StatusCode::OUT_OF_RANGE;
  ExpectRefused(PromptRequest(std::string(100000, 'a'), 4), too_long, "shorten");
  std::string long_words;
  for (int i = 0; i < 300; ++i) long_words += "x ";
  ExpectRefused(PromptRequest(long_words, 4), too_long, "shorten the conversation");

  request = PromptRequest("a", 4);
  request.set_request_id(std::string(129, 'x'));
  ExpectRefused(request, invalid,
                "request_id: expected at most 128 printable ASCII characters without spaces, found 129");
  request.set_request_id("two\nlines");
  ExpectRefused(request, invalid, "request_id");
  request = PromptRequest("a", 4);
  request.set_tenant("\x7f");
  ExpectRefused(request, invalid, "tenant");

  request = PromptRequest("a", 4);
  for (int i = 0; i < 17; ++i) request.add_stop("s");
  ExpectRefused(request, invalid, "stop: expected at most 16 strings, found 17");
  request = PromptRequest("a", 4);
  request.add_stop(std::string(129, 's'));
  ExpectRefused(request, invalid, "stop[0]: expected 1 to 128 bytes, found 129");

  request = PromptRequest("a", 4);
  request.add_accepted_prefix(1);
  ExpectRefused(request, invalid, "accepted_prefix: only works with tokens");

  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {nan, -1.0f, 1e9f}) {
    request = PromptRequest("a", 4);
    request.mutable_sampling()->set_temperature(bad);
    ExpectRefused(request, invalid, "sampling: ");
  }
  request = PromptRequest("a", 4);
  request.mutable_sampling()->set_top_p(0.0f);
  ExpectRefused(request, invalid, "sampling: ");
}

TEST_F(ServiceTest, TokenIdsAreCheckedAgainstTheVocabulary) {
  v1::GenerateRequest request = TokensRequest("abc", 4);
  request.mutable_tokens()->set_tokenizer_fingerprint("deadbeef");
  ExpectRefused(request, grpc::StatusCode::FAILED_PRECONDITION, "found 'deadbeef'; send text instead of token ids");
  request = TokensRequest("abc", 4);
  request.mutable_tokens()->set_ids(1, 1 << 30);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids[1]: expected a token id in [0, ");
  request.mutable_tokens()->set_ids(1, -1);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "found -1");
  request = TokensRequest("abc", 4);
  request.add_accepted_prefix(-7);
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "accepted_prefix[0]");
  request = TokensRequest("abc", 4);
  request.mutable_tokens()->clear_ids();
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT, "tokens.ids: is empty");
}

// Bytes that no protobuf library of ours would send: text that is not UTF-8, and no message at all.
TEST_F(ServiceTest, BrokenMessagesFailTheirCallAlone) {
  grpc::GenericStub generic(channel_);
  for (const std::string& bytes :
       {std::string("\x1a\x02\xff\xfe", 4) /* prompt: FF FE */, std::string("\x1a\x7f", 2) /* truncated */}) {
    grpc::Slice slice(bytes);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(30));
    grpc::CompletionQueue queue;
    auto call = generic.PrepareUnaryCall(&context, "/updraft.v1.Inference/Generate", request, &queue);
    call->StartCall();
    grpc::Status status;
    call->Finish(&response, &status, reinterpret_cast<void*>(1));
    void* tag = nullptr;
    bool ok = false;
    ASSERT_TRUE(queue.Next(&tag, &ok));
    queue.Shutdown();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("text that is not UTF-8"));
  }
  EXPECT_TRUE(Ask(*stub_, PromptRequest("hello", 4)).status.ok());
}

TEST_F(ServiceTest, AnExplicitMaxTokensBeyondTheContextIsCutThere) {
  const Answer answer = Ask(*stub_, PromptRequest("hello", 1000000));
  ASSERT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_LE(answer.tokens.size() + Encode("hello").size(), static_cast<size_t>(Status().model().context_length()));
}

TEST_F(ServiceTest, ADeadlineInThePast) {
  const Answer answer = Ask(*stub_, PromptRequest("hello", 200), -absl::Seconds(1));
  EXPECT_EQ(answer.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

TEST_F(ServiceTest, StatusTellsWhatIsServed) {
  const v1::GetStatusResponse status = Status();
  EXPECT_EQ(status.tier(), "cloud");
  EXPECT_FALSE(status.version().empty());
  EXPECT_EQ(status.model().architecture(), "llama");
  EXPECT_EQ(status.model().path(), testing::TinyModelPath());
  EXPECT_GT(status.model().n_parameters(), 1000);
  EXPECT_GT(status.model().file_bytes(), 1000);
  EXPECT_EQ(status.model().tokenizer_fingerprint().size(), 64u);
  EXPECT_GT(status.resident_bytes(), 0u);
  EXPECT_GT(status.ready_after_ms(), 0.0);
  EXPECT_GE(status.uptime_s() * 1000, status.ready_after_ms() - 20) << "both count from the start of the process";
}

// Unary and one-message streaming calls of services whose C++ stubs are not generated here.
std::string CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method, const std::string& bytes,
                    grpc::Status& status) {
  grpc::GenericStub generic(channel);
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(30));
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  auto call = generic.PrepareCall(&context, method, &queue);
  void* const tag = reinterpret_cast<void*>(1);
  call->StartCall(tag);
  next();
  grpc::Slice slice(bytes);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions(), tag);
  next();
  grpc::ByteBuffer response;
  call->Read(&response, tag);
  std::string result;
  if (next()) {
    std::vector<grpc::Slice> slices;
    if (response.Dump(&slices).ok()) {
      for (const grpc::Slice& part : slices) result.append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  call->Finish(&status, tag);
  next();
  queue.Shutdown();
  return result;
}

TEST_F(ServiceTest, HealthIsServing) {
  grpc::Status status;
  // grpc.health.v1: HealthCheckResponse.status (field 1) == SERVING (1).
  EXPECT_EQ(CallRaw(channel_, "/grpc.health.v1.Health/Check", "", status), std::string("\x08\x01", 2));
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(ServiceTest, ReflectionListsTheService) {
  grpc::Status status;
  // grpc.reflection.v1alpha: ServerReflectionRequest.list_services (field 7) = "".
  const std::string reply = CallRaw(channel_, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                    std::string("\x3a\x00", 2), status);
  EXPECT_THAT(reply, HasSubstr("updraft.v1.Inference"));
  EXPECT_THAT(reply, HasSubstr("grpc.health.v1.Health"));
}

TEST(CloudServer, StartErrorsSayWhatToDo) {
  v1::CloudConfig config;
  const auto start = [&config](std::vector<const char*> args) {
    EXPECT_TRUE(LoadConfig(args, &config).ok());
    return CloudServer::Start(config).status();
  };
  const std::string model = absl::StrCat("--model=", testing::TinyModelPath());
  EXPECT_THAT(std::string(start({"--model=/nonexistent/m.gguf"}).message()), HasSubstr("/nonexistent/m.gguf"));
  EXPECT_THAT(std::string(start({model.c_str(), "--listen=7070"}).message()), HasSubstr("listen: expected HOST:PORT"));
  EXPECT_THAT(std::string(start({model.c_str(), "--listen=127.0.0.1:0", "--max-step-tokens=8"}).message()),
              HasSubstr("max_step_tokens: expected at least max_running (64)"));
  const auto first = testing::StartCloud();
  const std::string busy = absl::StrCat("--listen=", first->address());
  EXPECT_THAT(std::string(start({model.c_str(), busy.c_str()}).message()), HasSubstr("in use by another process"));
}

TEST(CloudServer, APoolSmallerThanTheDefaultAnswerStillServes) {
  const auto cloud = testing::StartCloud({"--kv-tokens=32", "--block-tokens=8"});
  auto stub = v1::Inference::NewStub(testing::ChannelTo(*cloud));
  const Answer fits = Ask(*stub, PromptRequest("ab", 0));
  EXPECT_TRUE(fits.status.ok()) << fits.status.error_message();
  const Answer too_large = Ask(*stub, PromptRequest("ab", 100));
  EXPECT_EQ(too_large.status.error_code(), grpc::StatusCode::OUT_OF_RANGE);
  EXPECT_THAT(too_large.status.error_message(),
              HasSubstr("maximum context length is 33 tokens. However, you requested 10"));
}

}  // namespace
}  // namespace updraft
