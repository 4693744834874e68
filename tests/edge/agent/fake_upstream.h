// An upstream tier on loopback that plays a script: answers, dies, stalls or refuses, as the test says.
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft::testing {

inline v1::Chunk CloudChunk(const std::string& text, std::vector<int32_t> tokens) {
  v1::Chunk chunk;
  chunk.set_text(text);
  chunk.mutable_tokens()->Add(tokens.begin(), tokens.end());
  return chunk;
}

struct Script {
  // One chunk each: the tokens and text of the answer.
  std::vector<v1::Chunk> chunks;
  int end_after = -1;  // chunks sent before `end` happens; negative: all of them, then Done
  enum class End { kStatus, kStall, kNoDone } end = End::kStatus;
  grpc::Status status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "the script says so");
  std::optional<int> retry_delay_ms;  // as trailer
  bool this_request_alone = false;    // as trailer
  absl::Duration sign_every;          // while it stalls: a response without an event; zero: none
  absl::Duration gap;                 // between chunks
  std::vector<v1::Chunk> after_done;  // against the contract
  v1::FinishReason finish = v1::FINISH_REASON_STOP;
  // Called before kStatus and kNoDone. gRPC may drop what was not read yet when an error follows it: who wants to know
  // what was read waits here until it was.
  std::function<void()> before_end = [] {};
};

class FakeUpstream final : public v1::Inference::Service {
 public:
  // port: 0 picks a free one.
  explicit FakeUpstream(std::string fingerprint, int port = 0) : fingerprint_(std::move(fingerprint)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeUpstream() override { Stop(); }

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void Stop() {
    {
      std::lock_guard lock(mu_);
      stopping_ = true;
      changed_.notify_all();
    }
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
  }

  // Called for every request; its script is played. Set before the first one.
  std::function<Script(const v1::GenerateRequest&)> on_generate = [](const v1::GenerateRequest&) { return Script(); };

  std::atomic<int> context_length{0};  // as GetStatus tells it; 0: not told. Set before the first probe

  std::vector<v1::GenerateRequest> requests() const {
    std::lock_guard lock(mu_);
    return requests_;
  }
  int n_cancelled() const { return n_cancelled_; }
  int n_probes() const { return n_probes_; }

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    const Script script = on_generate(*request);
    {
      std::lock_guard lock(mu_);
      requests_.push_back(*request);
    }
    const int n = static_cast<int>(script.chunks.size());
    const int last = script.end_after < 0 ? n : std::min(n, script.end_after);
    int n_tokens = 0;
    for (int i = 0; i < last; ++i) {
      if (script.gap > absl::ZeroDuration()) Pause(context, script.gap);
      v1::GenerateResponse response;
      *response.mutable_chunk() = script.chunks[i];
      if (response.chunk().tier().empty()) response.mutable_chunk()->set_tier("cloud");
      response.set_server_us(100);
      n_tokens += script.chunks[i].tokens_size();
      if (!writer->Write(response)) return Cancelled();
    }
    if (script.end_after >= 0) {
      switch (script.end) {
        case Script::End::kStall:
          Stall(context, script.sign_every, writer);
          return Cancelled();
        case Script::End::kNoDone:
          script.before_end();
          return grpc::Status::OK;
        case Script::End::kStatus:
          script.before_end();
          if (script.retry_delay_ms) {
            context->AddTrailingMetadata("updraft-retry-delay-ms", std::to_string(*script.retry_delay_ms));
          }
          if (script.this_request_alone) context->AddTrailingMetadata("updraft-this-request-alone", "1");
          return script.status;
      }
    }
    v1::GenerateResponse response;
    response.mutable_done()->set_finish_reason(script.finish);
    response.mutable_done()->mutable_usage()->set_completion_tokens(n_tokens);
    writer->Write(response);
    for (const v1::Chunk& chunk : script.after_done) {
      *response.mutable_chunk() = chunk;
      if (!writer->Write(response)) return Cancelled();
    }
    return grpc::Status::OK;
  }

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse* response) override {
    ++n_probes_;
    response->set_tier("cloud");
    response->mutable_model()->set_tokenizer_fingerprint(fingerprint_);
    response->mutable_model()->set_context_length(context_length);
    response->mutable_load()->set_decode_tokens_per_s(1000);
    return grpc::Status::OK;
  }

 private:
  grpc::Status Cancelled() {
    ++n_cancelled_;
    return grpc::Status(grpc::StatusCode::CANCELLED, "");
  }
  void Stall(grpc::ServerContext* context, absl::Duration sign_every,
             grpc::ServerWriter<v1::GenerateResponse>* writer) {
    const absl::Time end = absl::Now() + absl::Seconds(60);
    if (sign_every == absl::ZeroDuration()) return Pause(context, absl::Seconds(60));
    v1::GenerateResponse sign;
    sign.mutable_load()->set_queued_requests(1);
    while (absl::Now() < end && !context->IsCancelled() && writer->Write(sign)) Pause(context, sign_every);
  }
  void Pause(grpc::ServerContext* context, absl::Duration time) {
    const absl::Time end = absl::Now() + time;
    std::unique_lock lock(mu_);
    while (!stopping_ && !context->IsCancelled() && absl::Now() < end) {
      const absl::Duration left = std::min(end - absl::Now(), absl::Milliseconds(10));  // looks at the context so often
      changed_.wait_for(lock, absl::ToChronoMicroseconds(left));
    }
  }

  const std::string fingerprint_;
  int port_ = 0;
  mutable std::mutex mu_;
  std::condition_variable changed_;
  std::vector<v1::GenerateRequest> requests_;
  bool stopping_ = false;
  std::atomic<int> n_cancelled_{0};
  std::atomic<int> n_probes_{0};
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace updraft::testing
