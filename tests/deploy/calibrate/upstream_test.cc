// An upstream that runs somewhere, and may say anything.
#include "deploy/calibrate/upstream.h"

#include <grpcpp/server_builder.h>

#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

// Says of a given answer what a test likes.
class FakeTier final : public v1::Inference::Service {
 public:
  std::function<grpc::Status(const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>*)> generate;
  std::atomic<int> n_calls = 0;
  std::atomic<int> file_bytes = 1;

  std::atomic<int> n_full = 0;  // so many calls find the queue full

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    ++n_calls;
    if (n_full-- > 0) {
      context->AddTrailingMetadata("updraft-retry-delay-ms", "5");
      return {grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full"};
    }
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

TEST_F(RemoteTest, AFullQueueIsWaitedForAFewTimes) {
  tier_.generate = [](const v1::GenerateRequest&, grpc::ServerWriter<v1::GenerateResponse>* writer) {
    v1::GenerateResponse response;
    response.mutable_chunk()->set_text("at last");
    writer->Write(response);
    response.mutable_done()->set_finish_reason(v1::FINISH_REASON_STOP);
    writer->Write(response);
    return grpc::Status::OK;
  };
  tier_.n_full = 3;
  const auto answer = remote_->Answer({{"user", "q"}});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, "at last");
  EXPECT_TRUE(answer->finished);
  EXPECT_EQ(tier_.n_calls, 4);
  tier_.n_full = 1000;
  const absl::Status full = remote_->Answer({{"user", "q"}}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(full)) << full;
  EXPECT_LT(tier_.n_calls, 20) << "not for ever";
}

}  // namespace
}  // namespace updraft
