// What the engine asks of a model: run a step, choose the tokens. The real one is model_executor.h; paced_executor.h
// stands in for it in tests of time, tests have a fake. An executor owns the bytes of the KV blocks; which block is
// whose is the core's business (common/engine).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"
#include "common/engine/core.h"
#include "common/model/forward.h"

namespace updraft::engine {

// A row of the batch after which a token is chosen.
struct SampleRow {
  int row = 0;  // index into the batch
  const SamplingOptions* sampling = nullptr;
  SamplingContext context;  // tokens up to this row; the chosen token gets position context.tokens.size()
  bool include_evidence = false;
  int n_top_logprobs = 0;               // TokenEvidence::top, with the evidence
  std::span<const uint64_t> mask = {};  // SampleToken's
  int32_t given = -1;                   // the token to choose, whatever the logits; -1: choose by sampling
  // Of a given token that ends the answer: all that would, of which its evidence's logprob is then. Empty: it does not.
  std::span<const int32_t> ends = {};
};

struct SampledToken {
  int32_t token = 0;
  TokenEvidence evidence;  // filled when asked for
};

struct Step {
  std::span<const BlockMove> moves;  // carried out in this order, before any row
  Batch batch;
  std::span<const SampleRow> samples;  // ascending rows
};

struct KvBlocks {
  int n_blocks = 0;
  int block_tokens = 0;
};

// Used by one thread at a time.
class Executor {
 public:
  virtual ~Executor() = default;

  virtual int n_vocab() const = 0;
  virtual int context_length() const = 0;  // tokens of one sequence
  // The blocks that it has memory for; block ids and tables of a step are of these. None: it keeps no KV.
  virtual std::optional<KvBlocks> kv_blocks() const = 0;

  // Runs the batch, writes its KV, chooses one token per entry of `samples` into `sampled` [samples.size()]. What is
  // chosen for a sequence must depend on nothing but its own tokens and sampling options: preemption and batching rely
  // on it. An error ends every request of the step with that status. RESOURCE_EXHAUSTED, or std::bad_alloc thrown:
  // there was no memory for the step, and blocks that it did not write hold what they held. Any other: all blocks are
  // in doubt.
  virtual absl::Status Run(const Step& step, std::span<SampledToken> sampled) = 0;
};

}  // namespace updraft::engine
