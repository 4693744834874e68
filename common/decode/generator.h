// One sequence on one model, token by token, with early exits. The edge agent and `updraft generate` are built on it; the cloud
// engine batches many sequences instead (cloud/engine).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"
#include "common/model/forward.h"

namespace updraft {

enum class ExitMode {
  kOff,       // every token runs all layers
  kLossless,  // exits draft several tokens, the deep pass verifies them: output identical to kOff (self-speculation, LayerSkip)
  kLossy,     // a token leaves where its exit's top probability reaches the threshold; its state is finished in the next deep pass
};

struct GeneratorOptions {
  SamplingOptions sampling;
  ExitMode exit_mode = ExitMode::kOff;
  std::vector<float> exit_thresholds;  // empty: those of the file
  int max_draft_tokens = 4;            // lossless: tokens drafted per deep pass
  int max_pending_tokens = 8;          // lossy: tokens that may wait unfinished before a deep pass is forced
};

struct GeneratedToken {
  int32_t token = 0;
  TokenEvidence evidence;
};

// Not thread-safe; the model, and the pool it was given, must outlive it.
class Generator {
 public:
  Generator(const Model* model, KvPool* pool, GeneratorOptions options);

  // Appends prompt tokens (callable again to continue a conversation with more tokens; what the sequence already holds is kept).
  // ResourceExhausted when the pool has no room, InvalidArgument for ids outside the vocabulary or beyond the context length.
  absl::Status Prefill(std::span<const int32_t> tokens);

  // Chooses the next token and appends it. FailedPrecondition before Prefill; OutOfRange at the end of the context.
  absl::StatusOr<GeneratedToken> Next();

  // Appends a token chosen elsewhere (a hand-over back from the cloud).
  absl::Status Accept(int32_t token);

  // All tokens of the sequence so far, prompt included.
  std::span<const int32_t> tokens() const { return tokens_; }
  // Forgets all tokens at positions >= n_tokens.
  void Truncate(int n_tokens);
  // Layers run so far, summed over generated tokens, and generated tokens: mean exit depth = layers / tokens.
  int64_t layers_run() const { return layers_run_; }

 private:
  absl::Status RunTail();                       // brings hidden/KV up to date with tokens_
  absl::StatusOr<GeneratedToken> NextLossy();
  absl::StatusOr<GeneratedToken> NextLossless();
  absl::StatusOr<GeneratedToken> NextFull();

  const Model* model_;
  KvPool* pool_;
  GeneratorOptions options_;
  SequenceKv kv_;
  Scratch scratch_;
  std::vector<int32_t> tokens_;
  int64_t layers_run_ = 0;
};

}  // namespace updraft
