#include "common/rpc/inference_client.h"

#include <grpcpp/grpcpp.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock/steady.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/retry_delay.h"
#include "common/text/utf8.h"

namespace updraft {
namespace {

constexpr absl::Duration kLossReported = absl::Milliseconds(50);

absl::Status CheckUtf8(const std::string& field, const std::string& text) {
  const size_t at = text::FirstIllFormed(text);
  if (at == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: is not valid UTF-8 at byte %d of %d", field, at, text.size()));
}

// protobuf sends such text and the service can only say that it received no valid message.
absl::Status CheckTexts(const v1::GenerateRequest& request) {
  const v1::Conversation& conversation = request.has_given() ? request.given().conversation() : request.conversation();
  const auto& messages = conversation.messages();
  for (int i = 0; i < messages.size(); ++i) {
    const std::string name = messages.size() == 1 ? "message" : absl::StrFormat("message %d", i + 1);
    if (absl::Status status = CheckUtf8(name, messages[i].content()); !status.ok()) return status;
  }
  for (const std::string& stop : request.stop()) {
    if (absl::Status status = CheckUtf8("stop", stop); !status.ok()) return status;
  }
  if (absl::Status status = CheckUtf8("given.answer", request.given().answer()); !status.ok()) return status;
  return CheckUtf8("prompt", request.prompt());
}

}  // namespace

InferenceClient::InferenceClient(const std::string& address, std::string key)
    : address_(address), key_(std::move(key)) {
  auto channel = MakeChannel(address, "address");
  if (channel.ok()) {
    channel_ = *std::move(channel);
    stub_ = v1::Inference::NewStub(channel_);
  } else {
    usable_ = channel.status();
  }
  if (usable_.ok()) usable_ = CheckKey(key_, "key");
}

absl::Status InferenceClient::Explain(const grpc::Status& status, const grpc::ClientContext& context) const {
  const absl::Status said = FromGrpcStatus(status, context);
  if (!absl::IsUnavailable(said) || RetryDelayOf(said).has_value()) return said;
  // gRPC reports a service that cannot be reached with the code of one that refuses; the connection to the latter is
  // still there. Its loss may be reported a moment after the call's.
  if (!channel_->WaitForStateChange(GRPC_CHANNEL_READY, GrpcDeadlineAfter(kLossReported))) return said;
  return absl::UnavailableError(absl::StrCat("no service answers at '", address_, "' (", std::string(said.message()),
                                             "); is the daemon running there? ./run up starts both"));
}

absl::StatusOr<ClientAnswer> InferenceClient::Generate(const v1::GenerateRequest& request, absl::Duration timeout,
                                                       const std::function<bool(const v1::Chunk&)>& on_chunk) {
  if (!usable_.ok()) return usable_;
  if (absl::Status status = CheckTexts(request); !status.ok()) return status;
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  SendKey(context, key_);
  ClientAnswer answer;
  const SteadyTime start = SteadyNow();
  SteadyTime previous = start;
  bool stopped = false;
  auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (response.has_load()) answer.load = response.load();
    if (response.has_done()) answer.done = response.done();
    if (!response.has_chunk()) continue;
    const v1::Chunk& chunk = response.chunk();
    const SteadyTime now = SteadyNow();
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
  answer.total = SteadyNow() - start;
  if (stopped) return absl::CancelledError("stopped by the caller");
  if (!status.ok()) return Explain(status, context);
  return answer;
}

absl::StatusOr<v1::GetStatusResponse> InferenceClient::GetStatus(absl::Duration timeout) {
  if (!usable_.ok()) return usable_;
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  SendKey(context, key_);
  v1::GetStatusResponse response;
  const grpc::Status status = stub_->GetStatus(&context, v1::GetStatusRequest(), &response);
  if (!status.ok()) return Explain(status, context);
  return response;
}

}  // namespace updraft
