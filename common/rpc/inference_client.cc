#include "common/rpc/inference_client.h"

#include <grpcpp/grpcpp.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"

namespace updraft {
namespace {

std::chrono::system_clock::time_point DeadlineAfter(absl::Duration timeout) {
  return std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout);
}

}  // namespace

InferenceClient::InferenceClient(const std::string& address) : address_(address) {
  auto channel = MakeChannel(address, "address");
  if (channel.ok()) {
    stub_ = v1::Inference::NewStub(*channel);
  } else {
    usable_ = channel.status();
  }
}

absl::Status InferenceClient::Explain(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  std::string message = status.error_message();
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) {
    message = absl::StrCat("no service answers at '", address_, "' (", message,
                           "); is the daemon running there? ./run up starts both");
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

absl::StatusOr<ClientAnswer> InferenceClient::Generate(const v1::GenerateRequest& request, absl::Duration timeout,
                                                       const std::function<bool(const v1::Chunk&)>& on_chunk) {
  if (!usable_.ok()) return usable_;
  grpc::ClientContext context;
  context.set_deadline(DeadlineAfter(timeout));
  ClientAnswer answer;
  const absl::Time start = absl::Now();
  absl::Time previous = start;
  bool stopped = false;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_load()) answer.load = response.load();
    if (response.has_done()) answer.done = response.done();
    if (!response.has_chunk()) continue;
    const v1::Chunk& chunk = response.chunk();
    const absl::Time now = absl::Now();
    if (answer.tokens.empty() && answer.text.empty()) {
      answer.first_chunk = now - start;
    } else if (chunk.tokens_size() > 0) {
      answer.gaps.push_back((now - previous) / chunk.tokens_size());
    }
    previous = now;
    answer.text += chunk.text();
    answer.tokens.insert(answer.tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
    if (on_chunk && !on_chunk(chunk) && !stopped) {
      stopped = true;
      context.TryCancel();
    }
  }
  const grpc::Status status = reader->Finish();
  answer.total = absl::Now() - start;
  if (stopped) return absl::CancelledError("stopped by the caller");
  if (!status.ok()) return Explain(status);
  return answer;
}

absl::StatusOr<v1::GetStatusResponse> InferenceClient::GetStatus(absl::Duration timeout) {
  if (!usable_.ok()) return usable_;
  grpc::ClientContext context;
  context.set_deadline(DeadlineAfter(timeout));
  v1::GetStatusResponse response;
  const grpc::Status status = stub_->GetStatus(&context, v1::GetStatusRequest(), &response);
  if (!status.ok()) return Explain(status);
  return response;
}

}  // namespace updraft
