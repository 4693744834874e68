// A blocking client of the Inference service, for tools and tests. Daemons use the asynchronous stub instead.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {

struct ClientAnswer {
  std::string text;
  std::vector<int32_t> tokens;
  v1::Done done;
  v1::Load load;               // of the last response
  absl::Duration first_chunk;  // from sending the request to the first chunk with text or tokens
  absl::Duration total;
  std::vector<absl::Duration> gaps;  // between chunks after the first, divided by the tokens of the later chunk
};

// Thread-safe; calls may run in parallel over one HTTP/2 connection.
class InferenceClient {
 public:
  // HOST:PORT; connects lazily. An address that cannot be is told by every call, as InvalidArgument. key: SendKey.
  explicit InferenceClient(const std::string& address, std::string key = "");

  // Streams one answer. `on_chunk` (may be empty) is called on this thread for every chunk; returning false cancels the
  // call (then the result is CancelledError). UNAVAILABLE names the address and what to check when nobody answers
  // there, and is the service's own message when it refused. Text that is not UTF-8 is InvalidArgument and is not sent.
  absl::StatusOr<ClientAnswer> Generate(const v1::GenerateRequest& request, absl::Duration timeout,
                                        const std::function<bool(const v1::Chunk&)>& on_chunk = {});
  absl::StatusOr<v1::GetStatusResponse> GetStatus(absl::Duration timeout);

 private:
  absl::Status Explain(const grpc::Status& status, const grpc::ClientContext& context) const;
  std::string address_, key_;
  absl::Status usable_;  // of the address
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace updraft
