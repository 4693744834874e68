// One answer being generated here.
#pragma once

#include <cstdint>
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
  int max_tokens = 0;  // answer tokens, those accepted already included
  std::vector<std::string> stops;
};

// One thread; the model must outlive it.
class LocalRun {
 public:
  // REQUIRES: prompt and accepted tokens leave room for one more (LocalModel::max_sequence_tokens).
  LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, const AnswerSoFar& so_far);

  // Runs the next piece of prompt and accepted tokens. Call until it says true, which lets the caller look up in
  // between.
  absl::StatusOr<bool> Prefill();

  struct Step {
    AnswerPiece piece;
    std::optional<TokenEvidence> evidence;  // of whatever was chosen, an end-of-generation token included
  };
  // After Prefill, until piece.end says that this was the last one.
  absl::StatusOr<Step> Next();

  int n_tokens() const { return static_cast<int>(generator_.tokens().size()); }  // in KV
  double mean_exit_layer() const { return n_generated_ == 0 ? 0.0 : double(generator_.layers_run()) / n_generated_; }

 private:
  Generator generator_;
  AnswerAssembler assembler_;
  AnswerEnd resumed_;  // other than kOpen: what was accepted is a whole answer
  std::vector<int32_t> prefill_;
  size_t prefilled_ = 0;
  int n_generated_ = 0;  // chosen here, end of generation included
};

}  // namespace updraft
