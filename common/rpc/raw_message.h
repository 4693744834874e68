// Messages as bytes, for handlers that parse their requests themselves. gRPC answers a request that it cannot parse
// with a bare UNIMPLEMENTED; a handler registered as raw can say what is wrong instead.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"

namespace updraft {

// InvalidArgument when `bytes` are no such message; text that is not UTF-8 is the usual reason.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace updraft
