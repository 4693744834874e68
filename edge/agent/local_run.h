// One answer being generated here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/answer/assembler.h"
#include "common/decode/generator.h"
#include "edge/agent/local_model.h"

namespace updraft {

struct RunOptions {
  SamplingOptions sampling;
  int n_top_logprobs = 0;  // TokenEvidence::top of every step
  int max_tokens = 0;      // answer tokens, those accepted already included
  std::vector<std::string> stops;
};

// Answers that take turns are runs on one thread, of which each goes on where it stood. The model must outlive it.
class LocalRun {
 public:
  // REQUIRES: prompt and accepted tokens leave room for one more (LocalModel::max_sequence_tokens).
  LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, const AnswerSoFar& so_far);

  // Runs the next piece of prompt and accepted tokens. Call until it says true, which lets the caller look up in
  // between.
  // RESOURCE_EXHAUSTED, as of Next: the KV pool has no room now; the run stands where it stood.
  absl::StatusOr<bool> Prefill();

  // Gives its part of the KV pool back; Prefill reads all tokens anew, after which the answer goes on.
  void Park();

  struct Step {
    AnswerPiece piece;
    std::optional<TokenEvidence> evidence;  // of whatever was chosen, an end-of-generation token included
  };
  // After Prefill, until piece.end says that this was the last one.
  absl::StatusOr<Step> Next();

  int n_known() const { return static_cast<int>(std::max(prefill_.size(), generator_.tokens().size())); }
  int n_unread() const { return static_cast<int>(prefill_.size() - prefilled_); }  // Prefill's to come
  int n_tokens() const { return static_cast<int>(generator_.tokens().size()); }    // in KV
  double mean_exit_layer() const { return n_generated_ == 0 ? 0.0 : double(generator_.layers_run()) / n_generated_; }

 private:
  LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, const AnswerSoFar& so_far,
           std::unique_ptr<TokenMask> mask);
  static absl::Status Broken();

  TokenMask* const mask_;  // the generator's; null: none
  Generator generator_;
  AnswerAssembler assembler_;
  AnswerEnd resumed_;  // other than kOpen: what was accepted is a whole answer
  std::vector<int32_t> prefill_;
  size_t prefilled_ = 0;
  bool parked_ =
      false;  // prefill_ ends with a token that was chosen: what comes after it is chosen as it would have been
  int n_generated_ = 0;  // chosen here, end of generation included
};

}  // namespace updraft
