// A load generator for serving: this project's gRPC service or anyone's OpenAI-compatible server.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace updraft {

struct ServeBenchOptions {
  std::string grpc;          // HOST:PORT of an Inference service, or
  std::string openai;        // http://HOST:PORT[/v1] of an OpenAI-compatible server; exactly one of the two
  std::string openai_model;  // "model" field; empty: the first that /v1/models lists
  int concurrency = 8;       // requests in flight at most
  int requests = 64;
  int prompt_tokens = 64;  // gRPC: exactly; OpenAI: about (words of one or two tokens)
  int output_tokens = 64;  // asked for; a model may end earlier
  // Of every prompt so much is the same beginning, in [0, 1): what a shared system prompt is.
  double shared_prefix = 0.0;
  // Lengths of prompts and answers are drawn from [1 - vary, 1 + vary] of those above, in [0, 1).
  double vary = 0.0;
  double rate = 0.0;  // requests per second, Poisson arrivals; 0: as fast as `concurrency` allows
  uint64_t seed = 1;
  absl::Duration timeout = absl::Seconds(120);
};

struct Percentiles {
  double p50 = 0, p95 = 0, p99 = 0;
};
// Nearest-rank percentiles; zeros for an empty list.
Percentiles PercentilesOf(std::vector<double> values);

struct ServeBenchResult {
  int completed = 0, errors = 0;
  std::string first_error;
  int64_t output_tokens = 0;
  double seconds = 0;  // wall time of the whole run
  double output_tok_s = 0;
  Percentiles ttft_ms;     // request sent to first token
  Percentiles itl_ms;      // between tokens of one answer
  Percentiles latency_ms;  // request sent to last token
};

// Blocks until all requests have ended. Errors of single requests are counted; a status is returned when nothing could
// be started.
absl::StatusOr<ServeBenchResult> RunServeBench(const ServeBenchOptions& options);

}  // namespace updraft
