#include "tests/e2e/health.h"

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/byte_buffer.h>

#include <chrono>

#include "tests/common/http/raw_client.h"

namespace updraft::testing {

std::string GrpcHealth(const Daemon& daemon) {
  const auto channel = grpc::CreateChannel(daemon.address(), grpc::InsecureChannelCredentials());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  const grpc::Slice nothing("");  // of the server as a whole
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer response;
  const grpc::Status status = grpc::internal::BlockingUnaryCall<grpc::ByteBuffer, grpc::ByteBuffer>(
      channel.get(), grpc::internal::RpcMethod("/grpc.health.v1.Health/Check", grpc::internal::RpcMethod::NORMAL_RPC),
      &context, request, &response);
  if (!status.ok()) return status.error_message();
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (response.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (bytes == "\x08\x01") return "SERVING";  // field 1, the status
  return bytes == "\x08\x02" ? "NOT_SERVING" : "a reply of " + std::to_string(bytes.size()) + " bytes";
}

int HttpHealth(const Daemon& daemon) { return http::testing::Fetch(daemon.http_port(), "GET", "/healthz").status; }

}  // namespace updraft::testing
