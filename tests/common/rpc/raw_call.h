// Calls as bytes, in and out: what no stub of this version would send or read.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/rpc/channel.h"

namespace updraft::testing {

inline std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Valid() || !buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices) bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

inline grpc::ByteBuffer BufferOf(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

struct RawAnswer {
  std::vector<std::string> responses;
  grpc::Status status;
};

// method: "/updraft.v1.Inference/Generate". Reads until the call ends.
inline RawAnswer CallRaw(const std::string& address, const std::string& method, const std::string& request) {
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(60));
  grpc::CompletionQueue queue;
  const auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return ok;
  };
  auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  RawAnswer answer;
  if (next()) {
    call->WriteLast(BufferOf(request), grpc::WriteOptions(), nullptr);
    next();
    for (grpc::ByteBuffer buffer;;) {
      call->Read(&buffer, nullptr);
      if (!next()) break;
      answer.responses.push_back(BytesOf(buffer));
    }
  }
  call->Finish(&answer.status, nullptr);
  next();
  queue.Shutdown();
  return answer;
}

}  // namespace updraft::testing
