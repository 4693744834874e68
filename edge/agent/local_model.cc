#include "edge/agent/local_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/serving/admission.h"

namespace updraft {

namespace {

absl::Status Annotate(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), what + ": " + std::string(status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Load(const LocalModelOptions& options) {
  std::unique_ptr<LocalModel> local(new LocalModel);
  local->options_ = options;
  LoadOptions load = options.load;
  const ServedAtOnce at_once{.kv_tokens = options.kv_tokens,
                             .kv = {.type = options.kv_type},
                             .max_rows = kPrefillPiece,
                             .n_in_turn = options.answers_at_once};
  load.admit = AdmitWithinMemory(at_once);
  auto served = ServedModel::Load(options.path, load, options.chat_template, options.served_name);
  if (!served.ok()) return served.status();
  local->served_ = *std::move(served);
  const Model& model = local->served_->model();
  auto confidence = ConfidenceModel::FromGguf(model.confidence_file());
  if (!confidence.ok()) {
    return Annotate(confidence.status(), absl::StrFormat("model '%s'", model.confidence_file().path()));
  }
  local->confidence_ = *std::move(confidence);
  if (options.with_router) {
    const gguf::File& file = model.FileWith("updraft.router.version");
    auto router = Router::FromGguf(file);
    if (!router.ok()) return Annotate(router.status(), absl::StrFormat("model '%s'", file.path()));
    local->router_ = *std::move(router);
  }
  auto rule = DispositionRule::Of(model);
  if (!rule.ok()) return rule.status();
  local->disposition_rule_ = *std::move(rule);

  KvPoolOptions pool_options;
  const int capacity = KvTokensOf(at_once, model.config());
  pool_options.type = options.kv_type;
  pool_options.n_blocks = (capacity + pool_options.block_tokens - 1) / pool_options.block_tokens;
  auto pool = KvPool::Create(model.ops(), model.config(), pool_options);
  if (!pool.ok()) return Annotate(pool.status(), "kv_tokens");
  local->pool_ = *std::move(pool);
  local->max_sequence_tokens_ =
      std::min(model.config().context_length, pool_options.n_blocks * pool_options.block_tokens);
  local->workspace_ = std::make_shared<RowsWorkspace>();
  return local;
}

absl::StatusOr<std::vector<int32_t>> LocalModel::EncodeAnswer(const std::string& text, bool begins_text) const {
  return served_->tokenizer()->Encode(text, {.add_special = false, .at_text_start = begins_text});
}

}  // namespace updraft
