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
#include "common/routing/confidence.h"
#include "common/routing/router.h"
#include "common/serving/disposition_rule.h"
#include "common/serving/served_model.h"
#include "common/text/tokenizer.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

inline constexpr int kPrefillPiece = 256;  // tokens of a prompt run at once, before another answer may have its turn
inline constexpr int kAnswersAtOnce = 16;  // that take turns, at most; each has what it keeps between them in memory

struct LocalModelOptions {
  std::string path;
  LoadOptions load;
  std::string chat_template = {};  // ServedModel::Load, as is the next one
  std::string served_name = {};
  int kv_tokens = 4096;  // capacity of the KV pool, of all answers at once
  int answers_at_once = kAnswersAtOnce;
  kernels::KvType kv_type = kernels::KvType::kF16;
  ExitMode exit_mode = ExitMode::kLossy;
  bool with_router = false;  // what the file says of requests before the first token is wanted
};

// Thread-safe but for what LocalRun (local_run.h) does: all of them on one thread.
class LocalModel {
 public:
  // Errors name the file and what to do. A file whose chat template is missing or unknown loads, and refuses
  // conversations.
  static absl::StatusOr<std::unique_ptr<LocalModel>> Load(const LocalModelOptions& options);

  const ServedModel& served() const { return *served_; }
  const v1::ModelInfo& info() const { return served_->info(); }
  const ConfidenceModel& confidence() const { return confidence_; }
  // Of what going up would gain, by a request's words; null: the file has none, or it is not wanted.
  const Router* router() const { return router_ ? &*router_ : nullptr; }
  const DispositionRule& disposition_rule() const { return disposition_rule_; }
  int n_layer() const { return info().n_layer(); }
  // Prompt and answer of one: context or KV pool, what is less.
  int max_sequence_tokens() const { return max_sequence_tokens_; }

  int kv_tokens() const { return pool_->n_blocks() * pool_->block_tokens(); }

  const LocalModelOptions& options() const { return options_; }
  KvPool* pool() const { return pool_.get(); }  // LocalRun's, as is the next
  const std::shared_ptr<RowsWorkspace>& workspace() const { return workspace_; }

  // The answer's text in this vocabulary, for going on after tokens of another one. begins_text: the answer begins with
  // it, rather than continues a raw prompt or accepted tokens.
  absl::StatusOr<std::vector<int32_t>> EncodeAnswer(const std::string& text, bool begins_text) const;

 private:
  LocalModel() = default;

  LocalModelOptions options_;
  std::unique_ptr<ServedModel> served_;
  ConfidenceModel confidence_ = ConfidenceModel::Uncalibrated();
  std::optional<Router> router_;
  DispositionRule disposition_rule_;
  std::unique_ptr<KvPool> pool_;
  std::shared_ptr<RowsWorkspace> workspace_;
  int max_sequence_tokens_ = 0;
};

}  // namespace updraft
