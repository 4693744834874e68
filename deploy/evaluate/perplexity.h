// Perplexity of a text under a model, by the protocol of llama.cpp's perplexity tool, so that figures can be set side
// by side: the text is cut into chunks of `context` tokens, each run from an empty context, and only the second half of
// a chunk is scored, so that every scored token has context. Where the tokenizer begins texts with BOS, BOS takes the
// place of the first token of each chunk.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "absl/status/statusor.h"
#include "deploy/evaluate/logits_source.h"

namespace updraft {

struct EvaluationOptions {
  int context = 512;                                       // tokens per chunk, >= 4
  int chunks = 0;                                          // chunks to score; 0: all that the text has
  kernels::KvType kv_type = kernels::KvType::kF16;         // of the model's keys and values; a reference has f16
  std::optional<int32_t> bos = {};                         // set: replaces the first token of each chunk
  std::function<void(int done, int total)> progress = {};  // after each chunk; may be empty
};

struct PerplexityResult {
  double perplexity = 0;
  double perplexity_error = 0;  // standard error of `perplexity`
  double nll = 0;               // mean negative log-likelihood, nats per token
  int64_t tokens = 0;           // scored
  int chunks = 0;
};

// tokens: the whole text, BOS included where the tokenizer adds it. InvalidArgument when the text is shorter than two
// chunks, or has ids that the model does not know.
absl::StatusOr<PerplexityResult> Perplexity(LogitsSource& source, std::span<const int32_t> tokens,
                                            const EvaluationOptions& options);
absl::StatusOr<PerplexityResult> Perplexity(const Model& model, std::span<const int32_t> tokens,
                                            const EvaluationOptions& options);

// log of the softmax mass of logits [n_vocab], so that log p(token) = logits[token] - LogMass(logits). Double
// precision.
double LogMass(std::span<const float> logits);

// One scored position: what the sources say of it, and the token that follows.
struct ScoredPosition {
  std::span<const std::span<const float>> logits;  // per source: [n_vocab]
  int32_t next = 0;
};

// Runs all sources over the chunks and hands out each scored position in order. Returns the number of chunks. Errors as
// Perplexity; the sources must have the same vocabulary size.
absl::StatusOr<int> ForEachScoredPosition(std::span<LogitsSource* const> sources, std::span<const int32_t> tokens,
                                          const EvaluationOptions& options,
                                          const std::function<void(const ScoredPosition&)>& visit);

}  // namespace updraft
