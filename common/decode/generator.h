// One sequence on one model, token by token, with early exits. The edge agent and `updraft generate` are built on it;
// the cloud engine batches many sequences instead (cloud/engine).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"

namespace updraft {

enum class ExitMode {
  kOff,       // every token runs all layers
  kLossless,  // exits draft several tokens, the deep pass verifies them: output identical to kOff (self-speculation,
              // after LayerSkip, Elhoushi et al. 2024)
  kLossy,     // a token leaves where its exit's top probability reaches the threshold; its state is finished in the
              // next deep pass
};

struct GeneratorOptions {
  SamplingOptions sampling = {};
  ExitMode exit_mode = ExitMode::kOff;      // a model without exits behaves as kOff
  std::vector<float> exit_thresholds = {};  // one per exit of the model; empty: those of the file
  int max_draft_tokens = 4;                 // lossless: tokens drafted per deep pass, in [1, 64]
  int max_pending_tokens = 8;  // lossy: tokens that may wait unfinished before a deep pass is forced, in [0, 64]

  absl::Status Validate(const ModelConfig& config) const;
};

struct GeneratedToken {
  int32_t token = 0;
  // exit_layer: the layers that chose it; of a draft that the deep pass confirmed, the exit that drafted it. The
  // probabilities are those of the logits that decided: an exit's in kLossy, the deep pass's in kLossless.
  TokenEvidence evidence;
};

// How early exit keeps the KV cache exact. Layers are cut into segments at the exits. Each position that is not
// finished (a "row") remembers the boundary it stands at and its hidden state there. A row runs a segment only together
// with every earlier row that has not run it, so K and V of a layer are always complete below a row that reads them,
// and since no row depends on its company in a batch, all bits are those of a pass that ran every layer for every
// token.
//
// Not thread-safe; the model, and the pool it was given, must outlive it.
class Generator {
 public:
  // Options that Validate refuses are reported by the first call of Prefill, Accept or Next.
  Generator(const Model* model, KvPool* pool, GeneratorOptions options);

  // Appends prompt tokens and runs them (callable again to continue a conversation with more tokens; what the sequence
  // already holds is kept). ResourceExhausted when the pool has no room, InvalidArgument for ids outside the
  // vocabulary, OutOfRange beyond the context length, a status of step_status.h; after an error the sequence is as it
  // was.
  absl::Status Prefill(std::span<const int32_t> tokens);

  // Chooses the next token and appends it. FailedPrecondition before Prefill; OutOfRange at the end of the context;
  // ResourceExhausted when the pool has no room, or a status of step_status.h (both: may be called again later).
  absl::StatusOr<GeneratedToken> Next();

  // Appends a token chosen elsewhere (a hand-over back from the cloud); it runs with the next token. Errors as Prefill.
  absl::Status Accept(int32_t token);

  // All tokens of the sequence so far, prompt included.
  std::span<const int32_t> tokens() const { return {tokens_.data(), tokens_.size() - lookahead_.size()}; }
  // Forgets all tokens at positions >= n_tokens.
  void Truncate(int n_tokens);
  // Sum of evidence.exit_layer over generated tokens: mean exit depth = layers_run() / tokens generated.
  int64_t layers_run() const { return layers_run_; }

 private:
  static constexpr size_t kAllRows = std::numeric_limits<size_t>::max();

  // A position whose KV is not complete in all layers, or the last one of a deep pass, whose hidden state is still
  // wanted.
  struct Row {
    int segment = 0;  // segments run so far: it stands at boundaries_[segment]
  };

  int n_segments() const { return static_cast<int>(boundaries_.size()) - 1; }
  bool LastRowFinished() const { return !rows_.empty() && rows_.back().segment == n_segments(); }
  absl::Status CheckTokens(std::span<const int32_t> tokens) const;
  void Append(int32_t token);
  void GrowHidden();  // to hold rows_
  // Where a step began, so that a fault in it can be undone: positions before first_row are finished.
  struct StepMark {
    size_t n_tokens = 0;
    size_t first_row = 0;
  };
  StepMark BeginStep() const;
  // OK, or the fault that the step had; then the sequence is what it was, and rows that were not finished run anew.
  absl::Status EndStep(const StepMark& mark);
  void ShrinkTo(size_t n_tokens);  // forgets later positions; what is left keeps its rows
  void RewindLast();               // makes the last position run again, so that its logits can be had anew
  void DropLookahead();

  // Runs segment `segment` for all rows that stand at its start. REQUIRES: room is reserved.
  void RunSegment(int segment, size_t n_wanted = kAllRows);
  // All segments for all rows; after the last one only the last `n_wanted` rows have a state.
  void RunDeep(size_t n_wanted = kAllRows);
  // Runs the last row until an exit's top probability reaches its threshold. True: that exit's logits are in logits_
  // and its layers in *exit_layer. False: no exit was sure; the last row stands at the last exit or beyond.
  bool RunToConfidentExit(int* exit_layer);
  // Head of exit `exit` (-1: the final head) for the last n_rows rows, for LogitsRow. False: a fault.
  bool LogitsOfLast(int exit, int n_rows);
  std::span<float> LogitsRow(int row);
  std::span<float> HiddenOf(size_t first_row, size_t n_rows) const;  // in rows_; an address in the model's memory
  int32_t Sample(std::span<float> logits, std::span<const int32_t> context);
  GeneratedToken Choose(std::span<float> logits, std::span<const int32_t> context, int exit_layer);

  GeneratedToken NextDeep();
  GeneratedToken NextLossy();
  GeneratedToken NextLossless();
  std::vector<int> Draft();                          // appends drafts; the layers that each exit had run
  void Verify(const std::vector<int>& exit_layers);  // deep pass; fills lookahead_ with what it confirms, and one more

  const Model* model_;
  KvPool* pool_;
  GeneratorOptions options_;
  absl::Status options_status_;
  std::vector<int> boundaries_;  // 0, exits, n_layer; without exits in use: 0, n_layer

  SequenceKv kv_;
  Scratch scratch_;
  std::vector<int32_t> tokens_;           // with the lookahead at the end
  std::deque<GeneratedToken> lookahead_;  // verified, not yet handed out
  size_t first_row_ = 0;                  // position of rows_[0]; all positions before it are finished
  std::vector<Row> rows_;                 // positions [first_row_, tokens_.size()); segments never increase
  kernels::Buffer hidden_;                // [>= rows_.size(), d_model], each row at its boundary
  kernels::Buffer logits_;                // [>= n_rows, n_vocab]
  std::span<float> host_logits_;          // [n_rows, n_vocab], of the last LogitsOfLast; empty after a fault
  std::vector<float> staging_;            // where a device's logits are copied to
  std::vector<float> sampled_logits_;     // [n_vocab], a copy where sampling would change what evidence still needs
  // Of the batch at hand.
  std::vector<int32_t> positions_, wanted_;
  std::vector<const int32_t*> block_tables_;
  int64_t layers_run_ = 0;
};

}  // namespace updraft
