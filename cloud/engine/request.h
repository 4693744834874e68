// What a caller gives to the engine and what it gets back.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/answer/assembler.h"
#include "common/clock/steady.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"
#include "common/decode/token_mask.h"

namespace updraft::engine {

struct Request {
  std::vector<int32_t> prompt;           // at least 1 token, each in [0, n_vocab)
  std::vector<int32_t> accepted_prefix;  // answer tokens accepted by a tier below: the answer goes on after them
  // The answer, whatever the model would choose: with include_evidence it is told how likely it finds each token. Its
  // end, a stop token or max_tokens, is in it; of a stop token the evidence is how likely any of them is. Read like a
  // prompt, many tokens a step. Not with accepted_prefix. Empty: the model chooses.
  std::vector<int32_t> given;
  SamplingOptions sampling;
  int max_tokens = 0;                // answer tokens including accepted_prefix, >= 1; the context may end it earlier
  std::vector<std::string> stop;     // the answer ends before the first that appears in its text; needs `text`
  std::vector<int32_t> stop_tokens;  // end-of-generation ids: end the answer and are no part of it
  bool include_evidence = false;
  int n_top_logprobs = 0;                     // TokenEvidence::top, with the evidence
  std::unique_ptr<TokenMask> mask = nullptr;  // tokens that may be chosen; null: all. The engine's from here on
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  std::unique_ptr<TextStream> text;  // null: tokens only; the engine calls it on its own thread
  // As in common/engine/core.h.
  int priority = 0;
  uint32_t tenant = 0;
  uint64_t cache_salt = 0;
};

// New tokens of one answer, in order. The spans are valid during the call.
struct Output {
  std::span<const int32_t> tokens;
  std::string text;                         // new text; joined over outputs it is the answer's text
  std::span<const TokenEvidence> evidence;  // one per token when asked for
  std::span<const size_t> text_offsets;     // beside it: AnswerPiece::text_offset
};

struct Summary {
  AnswerEnd end = AnswerEnd::kOpen;  // kOpen: ended by an error
  int n_prompt_tokens = 0;
  int n_answer_tokens = 0;  // generated here: without accepted_prefix and without a stop token
  int n_cached_tokens = 0;  // of prompt and accepted_prefix, not computed because their KV was there
  int n_preemptions = 0;
  std::optional<TokenEvidence> end_evidence;     // of the end-of-generation token, when asked for and there was one
  absl::Duration queued = absl::ZeroDuration();  // arrival to first step
  absl::Duration first_token = absl::ZeroDuration();  // arrival to first generated token; 0: none
  absl::Duration total = absl::ZeroDuration();        // arrival to end
};

// Where an answer goes. Called on the engine thread, so it must neither block nor call back into Engine except for
// Submit and Cancel.
class Sink {
 public:
  virtual ~Sink() = default;
  // False: the reader cannot keep up and the buffer is full. The request then ends with RESOURCE_EXHAUSTED; others are
  // untouched.
  virtual bool OnTokens(const Output& output) = 0;
  // Exactly once, always last.
  virtual void OnDone(const absl::Status& status, const Summary& summary) = 0;
};

// A step that ran.
struct StepMeasured {
  int n_rows = 0;
  int n_sequences = 0;
  absl::Duration time;
};

// Counters since start; for metrics and tests.
struct Stats {
  int n_blocks = 0;
  int n_free_blocks = 0;  // free or evictable
  int64_t n_steps = 0;
  int64_t n_rows = 0;       // tokens processed, prefill and decode
  int64_t n_generated = 0;  // tokens that became part of an answer
  int64_t n_overrun = 0;    // tokens chosen after their answer was complete, and dropped
  int64_t n_submitted = 0;  // accepted by Submit
  int64_t n_refused = 0;    // refused by Submit
  int64_t n_finished = 0;   // OnDone with OK
  int64_t n_failed = 0;     // OnDone with an error, cancelled and expired ones included
  int64_t n_preemptions = 0;
  int64_t n_started_tokens = 0;  // known to sequences when they started; of a preempted one again
  int64_t n_cached_tokens = 0;   // of these, not computed because their KV was there
  int max_rows_in_step = 0;
  int max_running = 0;
};

}  // namespace updraft::engine
