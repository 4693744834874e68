#include "common/rpc/raw_message.h"

#include <grpcpp/support/slice.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"

namespace updraft {

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  std::vector<grpc::Slice> slices;
  std::string joined;
  const bool readable = bytes.Valid() && bytes.Dump(&slices).ok();
  for (const grpc::Slice& slice : slices) joined.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  if (readable && joined.size() <= std::numeric_limits<int>::max() && message->ParseFromString(joined)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: the %d bytes received are no valid message: cut off, or with text that is not UTF-8; send "
                      "protobuf with all text in UTF-8",
                      message->GetDescriptor()->full_name(), joined.size()));
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace updraft
