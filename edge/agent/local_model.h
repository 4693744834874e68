// The edge's own model with everything it needs to answer: what serving needs, confidence, KV pool.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/generator.h"
#include "common/decode/stop.h"
#include "common/routing/confidence.h"
#include "common/serving/served_model.h"
#include "common/text/detokenizer.h"
#include "common/text/tokenizer.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct LocalModelOptions {
  std::string path;
  int n_threads = 0;     // 0: what the process may use
  int kv_tokens = 4096;  // capacity of the KV pool; one sequence runs at a time
  kernels::KvType kv_type = kernels::KvType::kF16;
  ExitMode exit_mode = ExitMode::kLossy;
  std::string packed_cache = {};  // folder of packed files (LoadOptions); empty: none
};

// Where an answer stands when a LocalRun takes it up.
struct AnswerSoFar {
  std::vector<int32_t> tokens;  // accepted answer tokens
  int n_prefix_tokens = 0;      // the first of them, accepted by the tier below, which has their text
  // Bytes of the text after the prefix that the client has; nullopt: all of it.
  std::optional<size_t> sent_text_bytes;
};

struct RunOptions {
  SamplingOptions sampling;
  int max_tokens = 0;  // answer tokens, those accepted already included
  std::vector<std::string> stops;
};

class LocalRun;

// Thread-safe but for what LocalRun does: one LocalRun at a time, on one thread.
class LocalModel {
 public:
  // Errors name the file and what to do. A file whose chat template is missing or unknown loads, and refuses
  // conversations.
  static absl::StatusOr<std::unique_ptr<LocalModel>> Load(const LocalModelOptions& options);

  const ServedModel& served() const { return *served_; }
  const v1::ModelInfo& info() const { return served_->info(); }
  const ConfidenceModel& confidence() const { return confidence_; }
  int n_layer() const { return info().n_layer(); }
  // Prompt and answer: context or KV pool, what is less.
  int max_sequence_tokens() const { return max_sequence_tokens_; }

  // The answer's text in this vocabulary, for going on after tokens of another one.
  absl::StatusOr<std::vector<int32_t>> EncodeAnswer(const std::string& text) const;

 private:
  friend class LocalRun;
  LocalModel() = default;

  LocalModelOptions options_;
  std::unique_ptr<ServedModel> served_;
  ConfidenceModel confidence_ = ConfidenceModel::Uncalibrated();
  std::unique_ptr<KvPool> pool_;
  int max_sequence_tokens_ = 0;
};

// One answer being generated here. One thread; the model must outlive it.
class LocalRun {
 public:
  LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, AnswerSoFar so_far);

  // Runs the next piece of prompt and accepted tokens. Call until it says true, which lets the caller look up in
  // between.
  absl::StatusOr<bool> Prefill();

  struct Step {
    std::optional<int32_t>
        token;  // a new answer token; none: the end-of-generation token was chosen, or the room is used up
    std::optional<TokenEvidence> evidence;                    // of whatever was chosen, end of generation included
    std::string text;                                         // whole characters, stop strings excluded
    v1::FinishReason finish = v1::FINISH_REASON_UNSPECIFIED;  // set: this was the last step
  };
  // After Prefill.
  absl::StatusOr<Step> Next();

  int n_tokens() const { return static_cast<int>(generator_.tokens().size()); }  // in KV
  double mean_exit_layer() const { return n_generated_ == 0 ? 0.0 : double(generator_.layers_run()) / n_generated_; }

 private:
  void Pass(std::string text, Step& step);  // passes new text on, less what the client has already
  void Finish(v1::FinishReason reason, Step& step);

  const LocalModel* const model_;
  const RunOptions options_;
  Generator generator_;
  text::StreamDetokenizer detokenizer_;
  StopMatcher stops_;
  std::vector<int32_t> prefill_;
  size_t prefilled_ = 0;
  int n_answer_ = 0;       // answer tokens, accepted ones included
  int n_generated_ = 0;    // chosen here, end of generation included
  std::string pending_;    // text of accepted tokens, on its way into the first step
  size_t skip_bytes_ = 0;  // of the text from here on: the client has it
};

}  // namespace updraft
