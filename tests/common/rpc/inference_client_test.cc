#include "common/rpc/inference_client.h"

#include <gmock/gmock.h>
#include <grpcpp/support/server_callback.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/status/retry_delay.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Refuses every call with one status.
class RefusingService final : public v1::Inference::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                      v1::GetStatusResponse*) override {
    ++calls;
    auto* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpcStatus(refusal(), *context));
    return reactor;
  }
  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(grpc::CallbackServerContext* context,
                                                           const v1::GenerateRequest*) override {
    ++calls;
    class Reactor final : public grpc::ServerWriteReactor<v1::GenerateResponse> {
     public:
      explicit Reactor(grpc::Status status) { Finish(std::move(status)); }
      void OnDone() override { delete this; }
    };
    return new Reactor(ToGrpcStatus(refusal(), *context));
  }
  void set_refusal(const absl::Status& status) {
    std::lock_guard lock(mu_);
    refusal_ = status;
  }
  std::atomic<int> calls = 0;

 private:
  absl::Status refusal() {
    std::lock_guard lock(mu_);
    return refusal_;
  }
  std::mutex mu_;
  absl::Status refusal_;  // guarded by mu_
};

class InferenceClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto server = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<InferenceClient>(server_->address());
  }
  static v1::GenerateRequest Request(const std::string& text) {
    v1::GenerateRequest request;
    v1::Message* message = request.mutable_conversation()->add_messages();
    message->set_role("user");
    message->set_content(text);
    return request;
  }
  RefusingService service_;
  std::unique_ptr<ServerHandle> server_;
  std::unique_ptr<InferenceClient> client_;
};

TEST_F(InferenceClientTest, ARefusalIsTheServicesOwnMessage) {
  for (const absl::Status& refusal :
       {absl::UnavailableError("no tier can answer now"),
        WithRetryDelay(absl::UnavailableError("this tier is shutting down"), absl::Seconds(1))}) {
    service_.set_refusal(refusal);
    EXPECT_EQ(client_->GetStatus(absl::Seconds(20)).status().message(), refusal.message());
    const absl::Status generated = client_->Generate(Request("hi"), absl::Seconds(20)).status();
    EXPECT_EQ(generated.message(), refusal.message());
    EXPECT_EQ(RetryDelayOf(generated), RetryDelayOf(refusal));
  }
}

TEST_F(InferenceClientTest, NobodyThereIsSaidWithTheAddress) {
  const std::string address = server_->address();
  server_->Shutdown(absl::ZeroDuration());
  const absl::Status status = client_->GetStatus(absl::Seconds(20)).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("no service answers at"), HasSubstr(address)));
}

TEST_F(InferenceClientTest, WhatIsNotUtf8IsNotSent) {
  const auto message = [&](const v1::GenerateRequest& request) {
    const absl::Status status = client_->Generate(request, absl::Seconds(20)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_EQ(message(Request("warm\xff")), "message: is not valid UTF-8 at byte 4 of 5");
  v1::GenerateRequest two = Request("fine");
  two.mutable_conversation()->add_messages()->set_content("\xc3");
  EXPECT_EQ(message(two), "message 2: is not valid UTF-8 at byte 0 of 1");
  v1::GenerateRequest prompt;
  prompt.set_prompt("a\x80");
  EXPECT_EQ(message(prompt), "prompt: is not valid UTF-8 at byte 1 of 2");
  EXPECT_EQ(service_.calls, 0);
}

}  // namespace
}  // namespace updraft
