// One sequence on one model, token by token, with early exits. The edge agent and `updraft generate` are built on it;
// the cloud engine batches many sequences instead (cloud/engine).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/drafter.h"
#include "common/decode/evidence.h"
#include "common/decode/exit_rule.h"
#include "common/decode/rows.h"
#include "common/decode/sampler.h"
#include "common/decode/token_mask.h"

namespace updraft {

enum class ExitMode {
  kOff,       // every token runs all layers
  kLossless,  // exits draft several tokens, the deep pass verifies them: output identical to kOff (self-speculation,
              // after LayerSkip, Elhoushi et al. 2024)
  kLossy,     // a token leaves where its exit's rule says so; its state is finished in the next deep pass
};

struct GeneratorOptions {
  SamplingOptions sampling = {};
  int n_top_logprobs = 0;  // TokenEvidence::top of what is chosen
  // At the front of the sequence, where the answer's penalties do not look, and its mask. 0: not told; then a mask
  // takes what is prefilled for the prompt's.
  int n_prompt_tokens = 0;
  ExitMode exit_mode = ExitMode::kOff;  // a model without exits behaves as kOff
  // Top probabilities (ThresholdExitRule), one per exit of the model; empty: those of the file.
  std::vector<float> exit_thresholds = {};
  int max_draft_tokens = 4;    // lossless: tokens drafted per deep pass, in [1, 64]
  int max_pending_tokens = 8;  // lossy: tokens that may wait unfinished before a deep pass is forced, in [0, 64]

  absl::Status Validate(const ModelConfig& config) const;
};

// What a generator is given beside its options, each for it alone but the rule and the workspace; null: as its comment
// says.
struct GeneratorStrategies {
  // Who may leave at an exit; null: the thresholds of the options.
  std::shared_ptr<const ExitRule> exit_rule = nullptr;
  // In kLossless, asked before the exits are; null, or no guess: the exits draft. Never changes what is chosen.
  std::unique_ptr<Drafter> drafter = nullptr;
  // Which tokens may be chosen, drafts included; null: all. Follows what Next chooses and Accept takes, back as well.
  std::unique_ptr<TokenMask> mask = nullptr;
  // Shared with generators that run in turn, on one thread; null: its own.
  std::shared_ptr<RowsWorkspace> workspace = nullptr;
};

struct GeneratedToken {
  int32_t token = 0;
  // exit_layer: the layers that chose it; of a draft that the deep pass confirmed, the exit that drafted it. The
  // probabilities are those of the logits that decided, before any mask: an exit's in kLossy, the deep pass's in
  // kLossless.
  TokenEvidence evidence;
};

// Early exit keeps the KV cache exact: rows.h says how.
//
// Not thread-safe; the model, and the pool it was given, must outlive it.
class Generator {
 public:
  // Options that Validate refuses, and a rule for another number of exits, are reported by the first call of Prefill,
  // Accept or Next.
  Generator(const Model* model, KvPool* pool, GeneratorOptions options, GeneratorStrategies strategies = {});

  // Appends prompt tokens and runs them (callable again to continue a conversation with more tokens; what the sequence
  // already holds is kept). Those behind n_prompt_tokens are the answer's, chosen earlier or elsewhere: the mask goes
  // on past them. ResourceExhausted when the pool has no room, InvalidArgument for ids outside the vocabulary,
  // OutOfRange beyond the context length, a status of step_status.h; after an error the sequence is as it was.
  absl::Status Prefill(std::span<const int32_t> tokens);

  // Chooses the next token and appends it. FailedPrecondition before Prefill; OutOfRange at the end of the context;
  // ResourceExhausted when the pool has no room, or a status of step_status.h (both: may be called again later).
  absl::StatusOr<GeneratedToken> Next();

  // Appends a token chosen elsewhere (a hand-over back from the cloud); it runs with the next token. Errors as Prefill;
  // InvalidArgument for a token that the mask does not allow.
  absl::Status Accept(int32_t token);

  // All tokens of the sequence so far, prompt included.
  std::span<const int32_t> tokens() const { return {rows_.tokens().data(), rows_.tokens().size() - lookahead_.size()}; }
  // Forgets all tokens at positions >= n_tokens.
  void Truncate(int n_tokens);
  // Sum of evidence.exit_layer over generated tokens: mean exit depth = layers_run() / tokens generated.
  int64_t layers_run() const { return layers_run_; }

 private:
  absl::Status CheckTokens(std::span<const int32_t> tokens) const;
  absl::Status EndStep(const SequenceRows::Mark& mark);
  void AppendChosen(int32_t token);
  void ShrinkTo(size_t n_tokens);
  void DropLookahead();

  // Runs the last row until its exit's rule lets it leave: the layers it ran and the exit's logits. No layers: no exit
  // was sure (or a fault); the last row stands at the last exit or beyond.
  struct Exited {
    int layers = 0;
    std::span<float> logits;
  };
  Exited RunToSureExit();
  int32_t Sample(std::span<float> logits, std::span<const int32_t> context);
  GeneratedToken Choose(std::span<float> logits, std::span<const int32_t> context, int exit_layer);

  // These give anything after a fault, which EndStep tells.
  GeneratedToken NextDeep();
  GeneratedToken NextLossy();
  GeneratedToken NextLossless();
  // Append drafts to the sequence, and to draft_layers_ the layers that each is owed to.
  void DraftIds();
  void DraftByExits();
  bool RoomForDraft();
  void Verify();  // deep pass; fills lookahead_ with the drafts that it confirms, and one more

  const Model* model_;
  GeneratorOptions options_;
  GeneratorStrategies strategies_;
  absl::Status options_status_;
  MaskOfSequence mask_;                   // over strategies_.mask
  SequenceRows rows_;                     // with the lookahead at the end
  std::deque<GeneratedToken> lookahead_;  // verified, not yet handed out
  std::vector<int> draft_layers_;         // of the drafts at the end of rows_, on trial
  std::vector<int32_t> draft_ids_;
  std::vector<float> sampled_logits_;  // [n_vocab], a copy where sampling would change what evidence still needs
  int64_t layers_run_ = 0;
};

}  // namespace updraft
