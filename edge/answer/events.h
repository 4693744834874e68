// What happens to an answer, and what it wants done: the whole of its dealings with threads, models, links and readers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/answer/assembler.h"
#include "common/decode/evidence.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// ---- Events -------------------------------------------------------------------------------------------------------

// The request is under way, or not. Exactly one of the two; only an interruption may come before it.
struct Admitted {};
struct Refused {
  absl::Status status;
};

// Of the local run that StartLocal asked for. LocalStopped comes exactly once for each, last; also after StopLocal, and
// for a run that never began.
struct LocalBegan {
  absl::Duration queued;
};
struct LocalAdvanced {};                  // more of the prompt is done
struct LocalStep {                        // one more token, or the text that ends the answer
  v1::Chunk chunk;                        // tier set
  std::optional<TokenEvidence> evidence;  // of whatever was chosen, an end-of-generation token included
  AnswerEnd end = AnswerEnd::kOpen;       // the answer is complete here
};
struct LocalStopped {
  absl::Status status;           // of the model; OK also when it was stopped
  absl::Duration ran;            // of the model's time; what it read anew left out
  absl::Duration decoded;        // of that, for steps
  int n_prefill_tokens = 0;      // that the model read before that
  double mean_exit_layer = 0.0;  // 0: no token
};

// Of the call that CallUpstream asked for. UpstreamEnded comes exactly once for each, last; also after CancelUpstream.
struct UpstreamChunk {
  v1::Chunk chunk;
};
struct UpstreamDone {
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
  v1::Disposition disposition = v1::DISPOSITION_UNSPECIFIED;
  std::optional<double> p_right = {};
  std::vector<std::string> alternatives = {};
};
struct UpstreamEnded {
  absl::Status status;
  uint64_t bytes_up = 0, bytes_down = 0;
};

// Nobody wants the answer any more: its reader went away or refused a chunk, or the tier shuts down. Any number of
// times; the first says what it ends with.
struct Interrupt {
  absl::Status why;  // not OK
};

using Event = std::variant<Admitted, Refused, LocalBegan, LocalAdvanced, LocalStep, LocalStopped, UpstreamChunk,
                           UpstreamDone, UpstreamEnded, Interrupt>;

// ---- Actions ------------------------------------------------------------------------------------------------------

struct GiveChunk {
  v1::Chunk chunk;
};
// Runs the model on the prompt and what is accepted so far.
struct StartLocal {
  AnswerSoFar so_far;
  enum class Turn : uint8_t { kInOrder, kFirst } turn = Turn::kInOrder;  // kFirst: before those who wait
};
struct StopLocal {};
struct CallUpstream {
  v1::GenerateRequest request;
};
struct CancelUpstream {};
// Upstream refused our token ids.
struct ForgetVocabulary {};
// The last action of an answer. The done message is filled as far as things went, also on error.
struct EndAnswer {
  absl::Status status;
  v1::Done done;
  std::optional<double> confidence;  // of what was written here, as it was judged last; none: it was not judged
};

using Action =
    std::variant<GiveChunk, StartLocal, StopLocal, CallUpstream, CancelUpstream, ForgetVocabulary, EndAnswer>;
using Actions = std::vector<Action>;

}  // namespace updraft
