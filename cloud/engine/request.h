// What a caller gives to the engine and what it gets back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"

namespace updraft::engine {

// Tokens -> text of one answer. The engine calls it on its own thread, token by token.
class TextStream {
 public:
  virtual ~TextStream() = default;
  // The text that this token completes; whole UTF-8 characters, often empty.
  virtual std::string Push(int32_t token) = 0;
  // What is left at the end of the answer.
  virtual std::string Flush() = 0;
};

struct Request {
  std::vector<int32_t> prompt;           // at least 1 token, each in [0, n_vocab)
  std::vector<int32_t> accepted_prefix;  // answer tokens accepted by a tier below: the answer goes on after them
  SamplingOptions sampling;
  int max_tokens = 0;                // answer tokens including accepted_prefix, >= 1; the context may end it earlier
  std::vector<std::string> stop;     // the answer ends before the first that appears in its text; needs `text`
  std::vector<int32_t> stop_tokens;  // end-of-generation ids: end the answer and are no part of it
  bool include_evidence = false;
  absl::Time deadline = absl::InfiniteFuture();
  std::unique_ptr<TextStream> text;  // null: tokens only
};

// New tokens of one answer, in order. The spans are valid during the call.
struct Output {
  std::span<const int32_t> tokens;
  std::string text;                         // new text; joined over outputs it is the answer's text
  std::span<const TokenEvidence> evidence;  // one per token when asked for
};

enum class FinishReason { kNone, kStop, kLength };  // kNone: ended by an error

struct Summary {
  FinishReason finish_reason = FinishReason::kNone;
  int n_prompt_tokens = 0;
  int n_answer_tokens = 0;  // generated here: without accepted_prefix and without a stop token
  int n_preemptions = 0;
  absl::Duration queued = absl::ZeroDuration();       // arrival to first step
  absl::Duration first_token = absl::ZeroDuration();  // arrival to first generated token; 0: none
  absl::Duration total = absl::ZeroDuration();        // arrival to end
};

// Where an answer goes. Called on the engine thread, so it must neither block nor call back into Engine except Cancel.
class Sink {
 public:
  virtual ~Sink() = default;
  // False: the reader cannot keep up and the buffer is full. The request then ends with RESOURCE_EXHAUSTED; others are
  // untouched.
  virtual bool OnTokens(const Output& output) = 0;
  // Exactly once, always last.
  virtual void OnDone(const absl::Status& status, const Summary& summary) = 0;
};

// What the engine says of itself. Mirrors updraft.v1.Load.
struct LoadReport {
  int running_requests = 0;
  int queued_requests = 0;
  int running_tokens = 0;            // tokens held in KV by running requests
  int queued_tokens = 0;             // prompt tokens not yet processed, of queued and running requests
  double kv_used_fraction = 0.0;     // of blocks
  double predicted_wait_ms = 0.0;    // until a request that arrives now starts
  double decode_tokens_per_s = 0.0;  // recent, per running request; 0: nothing measured yet
};

// Counters since start; for metrics and tests.
struct Stats {
  int n_blocks = 0;
  int n_free_blocks = 0;
  int64_t n_steps = 0;
  int64_t n_rows = 0;       // tokens processed, prefill and decode
  int64_t n_generated = 0;  // tokens chosen
  int64_t n_submitted = 0;  // accepted by Submit
  int64_t n_refused = 0;    // refused by Submit
  int64_t n_finished = 0;   // OnDone with OK
  int64_t n_failed = 0;     // OnDone with an error, cancelled and expired ones included
  int64_t n_preemptions = 0;
  int max_rows_in_step = 0;
  int max_running = 0;
};

}  // namespace updraft::engine
