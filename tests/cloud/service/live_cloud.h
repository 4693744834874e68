// A live cloud on a free port with a small random model, made for the test.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cloud/service/cloud_server.h"
#include "common/rpc/channel.h"
#include "common/rpc/config.h"
#include "common/telemetry/log.h"
#include "deploy/synth/synth.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft::testing {

// A file that is written once per process and removed at its end.
struct ModelFile {
  ModelFile(const std::string& name, const SynthShape& shape)
      : path(absl::StrCat(::testing::TempDir(), "updraft_service_", getpid(), "_", name, ".gguf")) {
    const absl::Status status = Synthesize(shape, kernels::DType::kF32, path, {.seed = 7, .n_threads = 1});
    EXPECT_TRUE(status.ok()) << status;
  }
  ~ModelFile() { std::remove(path.c_str()); }
  ModelFile(const ModelFile&) = delete;
  std::string path;
};

// Some 20 microseconds per token: whole answers come in less than a millisecond.
inline const std::string& TinyModelPath() {
  static const ModelFile file("tiny", FindShape("tiny-llama").value());
  return file.path;
}

// Large enough that an answer can be interrupted: some 2 million weights.
inline const std::string& SlowModelPath() {
  static const ModelFile file("slow", [] {
    SynthShape shape = FindShape("tiny-llama").value();
    shape.n_layer = 6;
    shape.d_model = 192;
    shape.head_dim = 48;
    shape.d_ff = 512;
    return shape;
  }());
  return file.path;
}

// Flags on top of the model and a free port.
inline std::unique_ptr<CloudServer> StartCloud(std::vector<std::string> flags = {},
                                               const std::string& model_path = TinyModelPath()) {
  flags.insert(flags.begin(), {absl::StrCat("--model=", model_path), "--listen=127.0.0.1:0", "--threads=1"});
  std::vector<const char*> args;
  for (const std::string& flag : flags) args.push_back(flag.c_str());
  static const absl::Status quiet = SetUpLogging("warn", "cloud");
  EXPECT_TRUE(quiet.ok()) << quiet;
  v1::CloudConfig config;
  const auto action = LoadConfig(args, &config);
  EXPECT_TRUE(action.ok()) << action.status();
  auto cloud = CloudServer::Start(config);
  EXPECT_TRUE(cloud.ok()) << cloud.status();
  return cloud.ok() ? *std::move(cloud) : nullptr;
}

inline std::shared_ptr<grpc::Channel> ChannelTo(const CloudServer& cloud) {
  return MakeChannel(cloud.address(), "cloud").value();
}

// What a client saw of one call.
struct Answer {
  std::vector<int32_t> tokens;
  std::string text;
  std::vector<v1::Evidence> evidence;
  std::vector<v1::GenerateResponse> responses;
  grpc::Status status;
  bool has_done = false;
  v1::Done done;
};

inline void AddTo(Answer& answer, const v1::GenerateResponse& response) {
  answer.responses.push_back(response);
  if (response.has_done()) {
    answer.has_done = true;
    answer.done = response.done();
  }
  if (!response.has_chunk()) return;
  answer.tokens.insert(answer.tokens.end(), response.chunk().tokens().begin(), response.chunk().tokens().end());
  answer.text += response.chunk().text();
  answer.evidence.insert(answer.evidence.end(), response.chunk().evidence().begin(), response.chunk().evidence().end());
}

inline Answer Ask(v1::Inference::Stub& stub, const v1::GenerateRequest& request,
                  absl::Duration timeout = absl::Seconds(120)) {
  grpc::ClientContext context;
  SetTimeout(context, timeout);
  Answer answer;
  auto reader = stub.Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) AddTo(answer, response);
  answer.status = reader->Finish();
  return answer;
}

inline v1::GenerateRequest PromptRequest(const std::string& prompt, int max_tokens) {
  v1::GenerateRequest request;
  request.set_prompt(prompt);
  request.set_max_tokens(max_tokens);
  return request;
}

// The engine has let go of everything: every block is free and every request was told so.
inline bool WaitForFreeBlocks(const CloudServer& cloud, absl::Duration timeout = absl::Seconds(30)) {
  const absl::Time end = absl::Now() + timeout;
  while (absl::Now() < end) {
    const engine::Stats stats = cloud.stats();
    if (stats.n_free_blocks == stats.n_blocks && stats.n_finished + stats.n_failed == stats.n_submitted) return true;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return false;
}

}  // namespace updraft::testing
