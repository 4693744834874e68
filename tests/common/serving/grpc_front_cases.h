// The Inference service over real sockets, the same for every backend. Included by one file of a test program, which
// instantiates GrpcFrontCases.
#pragma once

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/inference_client.h"
#include "common/rpc/server.h"
#include "common/serving/inference_service.h"
#include "tests/common/rpc/future_messages.h"
#include "tests/common/serving/collecting_sink.h"
#include "tests/common/serving/tier_under_test.h"

namespace updraft::testing {

// The service of a backend on a free port.
struct GrpcServed {
  explicit GrpcServed(Backend* backend, SteadyTime process_start = SteadyNow(), const StreamLimits& limits = {})
      : service(backend, {.version = "test", .process_start = process_start, .stream = limits}) {
    auto started = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service});
    EXPECT_TRUE(started.ok()) << started.status();
    server = *std::move(started);
  }
  ~GrpcServed() { server->Shutdown(absl::ZeroDuration()); }
  const std::string& address() const { return server->address(); }

  InferenceService service;
  std::unique_ptr<ServerHandle> server;
};

// One call of Generate with any bytes for a request.
inline grpc::Status GenerateRaw(const std::string& address, const std::string& bytes) {
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(60));
  const grpc::Slice slice(bytes);
  grpc::ByteBuffer request(&slice, 1), response;
  grpc::CompletionQueue queue;
  grpc::Status status;
  auto call = stub.PrepareUnaryCall(&context, "/updraft.v1.Inference/Generate", request, &queue);
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag;
  bool ok;
  EXPECT_TRUE(queue.Next(&tag, &ok));
  queue.Shutdown();
  return status;
}

class GrpcFrontCases : public ::testing::TestWithParam<MakeTier> {
 protected:
  void SetUp() override {
    tier_ = GetParam()();
    ASSERT_NE(tier_, nullptr);
    served_ = std::make_unique<GrpcServed>(&tier_->backend());
  }
  void TearDown() override {
    served_.reset();
    if (tier_ != nullptr) tier_->Stop();
  }

  std::unique_ptr<TierUnderTest> tier_;
  std::unique_ptr<GrpcServed> served_;
};

TEST_P(GrpcFrontCases, StreamsTheAnswerWithItsAccount) {
  const v1::GenerateRequest request = ChatRequest("hello there");
  auto truth = AskOf(tier_->backend(), request);
  auto stub = v1::Inference::NewStub(grpc::CreateChannel(served_->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  auto reader = stub->Generate(&context, request);
  std::vector<v1::GenerateResponse> responses;
  v1::GenerateResponse response;
  while (reader->Read(&response)) responses.push_back(response);
  ASSERT_TRUE(reader->Finish().ok());
  ASSERT_GE(responses.size(), 2u);
  std::string text;
  uint64_t last_us = 0;
  for (const auto& r : responses) {
    text += r.chunk().text();
    EXPECT_GE(r.server_us(), last_us);
    last_us = r.server_us();
    if (r.has_chunk()) {
      EXPECT_EQ(r.chunk().tier(), tier_->tier());
    }
  }
  EXPECT_EQ(text, truth->text());
  EXPECT_EQ(responses.front().request_id().size(), 32u);
  EXPECT_TRUE(responses.front().has_load());
  EXPECT_TRUE(responses.back().has_load());
  EXPECT_TRUE(responses.back().has_done());
  EXPECT_EQ(responses.back().done().provenance().spans(0).tier(), tier_->tier());
}

TEST_P(GrpcFrontCases, StatusTellsWhatIsServed) {
  auto status = InferenceClient(served_->address()).GetStatus(absl::Seconds(60));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_EQ(status->tier(), tier_->tier());
  EXPECT_EQ(status->version(), "test");
  EXPECT_EQ(status->model().name(), tier_->model_name());
  EXPECT_EQ(status->model().tokenizer_fingerprint(), tier_->backend().served().info().tokenizer_fingerprint());
  EXPECT_GT(status->resident_bytes(), 1u << 20);
}

// Calls may come the moment the server listens: what they read must be final by then.
TEST_P(GrpcFrontCases, ReadyTimeIsThereWithTheFirstCall) {
  GrpcServed served(&tier_->backend(), SteadyNow() - absl::Seconds(5));
  InferenceClient client(served.address());
  auto first = client.GetStatus(absl::Seconds(60)), second = client.GetStatus(absl::Seconds(60));
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GE(first->ready_after_ms(), 5000.0);
  EXPECT_LE(first->ready_after_ms(), first->uptime_s() * 1000);
  EXPECT_EQ(first->ready_after_ms(), second->ready_after_ms());
}

TEST_P(GrpcFrontCases, ErrorsKeepTheirCode) {
  InferenceClient client(served_->address());
  auto bad = client.Generate(ChatRequest("hi", -1), absl::Seconds(60));
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(bad.status().message()), ::testing::HasSubstr("max_tokens"));
  v1::GenerateRequest request = ChatRequest("hi");
  request.set_request_id("two\nlines");
  EXPECT_THAT(std::string(client.Generate(request, absl::Seconds(60)).status().message()),
              ::testing::HasSubstr("request_id"));
  EXPECT_TRUE(client.Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
  tier_->BeginDrain();
  EXPECT_TRUE(absl::IsUnavailable(client.Generate(ChatRequest("hi"), absl::Seconds(60)).status()));
}

TEST_P(GrpcFrontCases, MalformedMessagesAreTheCallersFault) {
  // Field 3 (prompt) with text that is not UTF-8, and bytes that are no message at all.
  for (const std::string& bytes :
       {std::string("\x1a\x02\xff\xfe"), std::string("\xff\xff\xff"), std::string("\x1a\x7f")}) {
    const grpc::Status status = GenerateRaw(served_->address(), bytes);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << status.error_message();
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr("UTF-8"));
  }
  EXPECT_TRUE(InferenceClient(served_->address()).Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
}

// Requests with everything in them that a model of any kind takes.
inline std::vector<v1::GenerateRequest> WholeRequests(const ServedModel& served) {
  v1::GenerateRequest chat = ChatRequest("hello there");
  chat.mutable_sampling()->set_top_p(0.9f);
  chat.mutable_sampling()->mutable_logit_bias()->add_entries()->set_token(7);
  chat.add_stop("zzz");
  chat.set_tenant("fleet");
  chat.mutable_tool_choice();
  v1::GenerateRequest prompt = chat;
  prompt.set_prompt("hello there");
  v1::GenerateRequest ids = chat;
  ids.mutable_tokens()->set_tokenizer_fingerprint(served.info().tokenizer_fingerprint());
  for (const int32_t id : {72, 69, 76, 76, 79}) ids.mutable_tokens()->add_ids(id);
  return {chat, prompt, ids};
}

// Of a later version. They ask for nothing.
TEST_P(GrpcFrontCases, UnknownFieldsAreIgnored) {
  InferenceClient client(served_->address());
  for (const v1::GenerateRequest& request : WholeRequests(tier_->backend().served())) {
    const auto truth = client.Generate(request, absl::Seconds(60));
    ASSERT_TRUE(truth.ok()) << truth.status();
    for (uint64_t seed = 0; seed < 20; ++seed) {
      std::mt19937_64 random(seed);
      v1::GenerateRequest newer = request;
      AddUnknownFields(newer, random);
      auto answer = client.Generate(newer, absl::Seconds(60));
      ASSERT_TRUE(answer.ok()) << answer.status() << " seed " << seed;
      EXPECT_EQ(answer->text, truth->text);
      EXPECT_EQ(answer->tokens, truth->tokens);
    }
  }
}

// What a request asks for in a way that is not known here may be a promise, such as that it is sent nowhere.
TEST_P(GrpcFrontCases, UnknownValuesAreRefusedByName) {
  InferenceClient client(served_->address());
  const auto enums = EnumsOf(*v1::GenerateRequest::descriptor());
  ASSERT_GE(enums.size(), 2u);
  for (const FieldPath& path : enums) {
    for (const int value : UnknownValuesOf(path)) {
      v1::GenerateRequest newer = ChatRequest("hello there");
      SetEnum(newer, path, value);
      const absl::Status status = client.Generate(newer, absl::Seconds(60)).status();
      EXPECT_TRUE(absl::IsInvalidArgument(status)) << PathName(path) << " " << value << ": " << status;
      EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(absl::StrCat(PathName(path), ": ")));
    }
  }
}

TEST_P(GrpcFrontCases, AnInputOfAnotherKindIsRefusedByName) {
  InferenceClient client(served_->address());
  v1::GenerateRequest none = ChatRequest("hello there");
  none.clear_conversation();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::mt19937_64 random(seed);
    v1::GenerateRequest newer = none;
    AddUnknownFields(newer, random);
    const absl::Status status = client.Generate(newer, absl::Seconds(60)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                ::testing::HasSubstr("input: of a kind that this version does not know"));
  }
  EXPECT_THAT(std::string(client.Generate(none, absl::Seconds(60)).status().message()),
              ::testing::HasSubstr("input: missing"));
}

TEST_P(GrpcFrontCases, CancelledAndSlowClientsDoNotDisturbOthers) {
  auto truth = AskOf(tier_->backend(), ChatRequest("hello there"));
  std::atomic<int> n_ok{0}, n_cancelled{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 16; ++c) {
    clients.emplace_back([&, c] {
      InferenceClient client(served_->address());
      int n_chunks = 0;
      auto answer = client.Generate(ChatRequest("hello there"), absl::Seconds(120), [&](const v1::Chunk&) {
        if (c % 4 == 1) absl::SleepFor(absl::Milliseconds(3));
        return c % 4 != 0 || ++n_chunks < 3;
      });
      if (answer.ok() && answer->text == truth->text()) ++n_ok;
      if (absl::IsCancelled(answer.status())) ++n_cancelled;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GE(n_ok, 12);
  EXPECT_EQ(n_ok + n_cancelled, 16);
  for (int i = 0; i < 2000 && tier_->backend().CurrentLoad().running_requests() > 0; ++i) {
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ(tier_->backend().CurrentLoad().running_requests(), 0);
}

// Of tiers that run a model.
class GrpcModelCases : public GrpcFrontCases {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(GrpcModelCases);

// Of updraft_requests_total.
inline int NumWithOutcome(const Metrics& metrics, const std::string& outcome) {
  int n = 0;
  for (const absl::string_view line : absl::StrSplit(metrics.Render(), '\n')) {
    if (!absl::StartsWith(line, "updraft_requests_total{") || !absl::StrContains(line, "outcome=\"" + outcome + "\"")) {
      continue;
    }
    n += std::stoi(std::string(line.substr(line.rfind(' ') + 1)));
  }
  return n;
}

// One reason for the reader and for the books, whichever chunk it was; the last one too.
TEST_P(GrpcModelCases, AnAnswerThatItsReaderRefusesIsNotBookedAsServed) {
  const v1::GenerateRequest request = ChatRequest("hello there");
  const int n_chunks = static_cast<int>(AskOf(tier_->backend(), request)->chunks().size());
  ASSERT_GT(n_chunks, 2);
  int n_refused = 0;
  for (const int n_taken : {0, n_chunks / 2, n_chunks - 1}) {
    auto sink = std::make_shared<CollectingSink>();
    sink->set_accepts(n_taken, absl::ResourceExhaustedError("read too slowly"));
    tier_->backend().Submit(request, SteadyTime::InfiniteFuture(), sink);
    ASSERT_TRUE(sink->Wait());
    EXPECT_EQ(sink->status(), absl::ResourceExhaustedError("read too slowly")) << "after " << n_taken;
    EXPECT_EQ(NumWithOutcome(tier_->metrics(), "resource_exhausted"), ++n_refused);
  }
  EXPECT_EQ(NumWithOutcome(tier_->metrics(), "ok"), 1);
  EXPECT_LE(tier_->backend().Status().routing().kept(), 1) << "one where the tier routes";
}

TEST_P(GrpcModelCases, ADeadlineEndsTheAnswer) {
  InferenceClient client(served_->address());
  auto late = client.Generate(ChatRequest("hello there", 400), absl::Milliseconds(1));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(client.Generate(ChatRequest("hi"), absl::Seconds(60)).ok());
}

}  // namespace updraft::testing
