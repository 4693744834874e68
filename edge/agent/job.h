// One request on its way through the agent. Private to this folder.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "edge/agent/agent.h"

namespace updraft {

// All but the atomics and what has a mutex belongs to whoever has the request: queue, worker or upstream call.
class Job {
 public:
  // After the end: frees all that grows with the request. Transports hold on to the job for as long as they like.
  void Release() {
    v1::GenerateRequest().Swap(&request);
    prompt = Prompt();
    std::vector<int32_t>().swap(tokens);
    std::string().swap(sent_text);
    std::vector<v1::Chunk>().swap(draft);
    std::vector<TokenEvidence>().swap(evidence);
    std::shared_ptr<UpstreamCall> last;  // freed without the lock
    std::lock_guard lock(call_mu);
    ++n_calls;  // a call that ended before it could be noted down is not kept either
    last.swap(call);
  }

  // ---- What was asked ----
  v1::GenerateRequest request;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  std::shared_ptr<AnswerSink> sink;
  Prompt prompt;
  RunOptions run_options;
  PolicyMode mode = PolicyMode::kAuto;
  bool fits_locally = true;

  // ---- Where the answer stands ----
  // Answer tokens in this tier's vocabulary, accepted_prefix first. Not kept once an upstream of another vocabulary
  // writes.
  std::vector<int32_t> tokens;
  bool tokens_valid = true;
  std::string sent_text;  // given to the client
  bool sent_any = false;
  int n_completion_tokens = 0;  // given to the client
  v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;

  // The local draft while it is held back: not yet part of the answer.
  bool hold = false;
  bool may_hand_over = false;  // by policy; hold says whether it could be when it began
  std::vector<v1::Chunk> draft;
  bool draft_complete = false;
  v1::FinishReason draft_finish = v1::FINISH_REASON_UNSPECIFIED;
  std::vector<TokenEvidence> evidence;  // of everything that was generated locally

  // ---- The call upstream ----
  bool same_vocabulary = false;  // as far as is known
  bool sent_tokens = false;      // token ids went up, not text
  bool text_only = false;        // upstream refused token ids

  // ---- Account ----
  v1::Provenance provenance;
  absl::Time arrived;
  absl::Time enqueued;
  absl::Time upstream_started;

  // Any thread.
  std::atomic<bool> cancelled{false};
  // Upstream's last message came, or all that the answer may have: what follows on that call is not read.
  std::atomic<bool> upstream_over{false};
  std::mutex call_mu;
  std::shared_ptr<UpstreamCall> call;  // guarded by call_mu
  int n_calls = 0;                     // guarded by call_mu
};

}  // namespace updraft
