#include "edge/agent/local_model.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {

namespace {

constexpr size_t kPrefillPiece = 256;  // tokens run before the caller may look up

v1::ModelInfo MakeInfo(const Model& model, const text::Tokenizer& tokenizer, const std::string& path) {
  const ModelConfig& config = model.config();
  v1::ModelInfo info;
  const std::filesystem::path file(path);
  info.set_name(config.name.empty() ? file.stem().string() : config.name);
  info.set_architecture(ArchitectureName(config.architecture));
  int64_t parameters = 0;
  for (const gguf::TensorInfo& tensor : model.file().tensors()) parameters += tensor.elements();
  info.set_n_parameters(parameters);
  std::error_code ignored;
  info.set_file_bytes(static_cast<int64_t>(std::filesystem::file_size(file, ignored)));
  info.set_n_layer(config.n_layer);
  info.set_context_length(config.context_length);
  for (int layer : config.exit_layers) info.add_exit_layers(layer);
  info.set_tokenizer_fingerprint(tokenizer.fingerprint());
  info.set_path(path);
  return info;
}

absl::Status Annotate(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), what + ": " + std::string(status.message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalModel>> LocalModel::Load(const LocalModelOptions& options) {
  std::unique_ptr<LocalModel> local(new LocalModel);
  local->options_ = options;
  auto model = Model::Load(options.path, {.n_threads = options.n_threads});
  if (!model.ok()) return model.status();
  local->model_ = *std::move(model);
  const gguf::File& file = local->model_->file();
  auto tokenizer = text::Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), absl::StrFormat("model '%s'", options.path));
  local->tokenizer_ = *std::move(tokenizer);
  local->chat_template_ = text::ChatTemplate::FromGguf(file);
  if (local->chat_template_.ok()) local->stop_tokens_ = local->chat_template_->StopTokenIds(*local->tokenizer_);
  auto confidence = ConfidenceModel::FromGguf(file);
  if (!confidence.ok()) return Annotate(confidence.status(), absl::StrFormat("model '%s'", options.path));
  local->confidence_ = *std::move(confidence);

  KvPoolOptions pool_options;
  const int context = local->model_->config().context_length;
  const int capacity = std::min(options.kv_tokens, context);
  pool_options.n_blocks = (capacity + pool_options.block_tokens - 1) / pool_options.block_tokens;
  auto pool = KvPool::Create(local->model_->config(), pool_options);
  if (!pool.ok()) return Annotate(pool.status(), "kv_tokens");
  local->pool_ = *std::move(pool);
  local->max_sequence_tokens_ = std::min(context, pool_options.n_blocks * pool_options.block_tokens);
  local->info_ = MakeInfo(*local->model_, *local->tokenizer_, options.path);
  return local;
}

absl::StatusOr<Prompt> LocalModel::MakePrompt(const v1::GenerateRequest& request) const {
  Prompt prompt;
  switch (request.input_case()) {
    case v1::GenerateRequest::kConversation: {
      if (!chat_template_.ok()) {
        return absl::FailedPreconditionError(
            absl::StrFormat("conversation: this model cannot chat (%s); send a prompt instead",
                            std::string(chat_template_.status().message())));
      }
      std::vector<text::ChatMessage> messages;
      std::vector<std::string_view> user_messages;
      for (const v1::Message& message : request.conversation().messages()) {
        messages.push_back({message.role(), message.content()});
        if (message.role() == "user") user_messages.push_back(message.content());
      }
      auto tokens = chat_template_->RenderTokens(*tokenizer_, messages, /*add_generation_prompt=*/true);
      if (!tokens.ok()) return Annotate(tokens.status(), "conversation");
      prompt.tokens = *std::move(tokens);
      prompt.features = PromptFeaturesOf(user_messages, static_cast<int>(prompt.tokens.size()));
      prompt.stops = chat_template_->StopStrings();
      return prompt;
    }
    case v1::GenerateRequest::kPrompt: {
      auto tokens = tokenizer_->Encode(request.prompt());
      if (!tokens.ok()) return Annotate(tokens.status(), "prompt");
      if (tokens->empty()) return absl::InvalidArgumentError("prompt: is empty; expected text to continue");
      prompt.tokens = *std::move(tokens);
      const std::string_view whole = request.prompt();
      prompt.features = PromptFeaturesOf({&whole, 1}, static_cast<int>(prompt.tokens.size()));
      prompt.at_text_start = false;
      return prompt;
    }
    case v1::GenerateRequest::kTokens: {
      const v1::TokenIds& ids = request.tokens();
      if (ids.tokenizer_fingerprint() != tokenizer_->fingerprint()) {
        return absl::FailedPreconditionError(
            absl::StrFormat("tokens.tokenizer_fingerprint: expected '%s', found '%s'; send text instead of token ids",
                            tokenizer_->fingerprint(), ids.tokenizer_fingerprint().substr(0, 80)));
      }
      if (ids.ids_size() == 0) return absl::InvalidArgumentError("tokens.ids: is empty; expected at least one token");
      prompt.tokens.assign(ids.ids().begin(), ids.ids().end());
      prompt.features = PromptFeaturesOf({}, static_cast<int>(prompt.tokens.size()));
      return prompt;
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("input: missing; expected conversation, prompt or tokens");
}

absl::StatusOr<std::vector<int32_t>> LocalModel::EncodeAnswer(const std::string& text) const {
  return tokenizer_->Encode(text, {.add_special = false});
}

bool LocalModel::IsEnd(int32_t token) const {
  return tokenizer_->IsEndOfGeneration(token) ||
         std::find(stop_tokens_.begin(), stop_tokens_.end(), token) != stop_tokens_.end();
}

// ---- LocalRun
// --------------------------------------------------------------------------------------------------------

LocalRun::LocalRun(const LocalModel* model, const Prompt& prompt, RunOptions options, AnswerSoFar so_far)
    : model_(model),
      options_(std::move(options)),
      generator_(model->model_.get(), model->pool_.get(),
                 {.sampling = options_.sampling, .exit_mode = model->options_.exit_mode}),
      detokenizer_(model->tokenizer_, {.render_special = false, .at_text_start = prompt.at_text_start}),
      stops_(options_.stops),
      prefill_(prompt.tokens),
      n_answer_(static_cast<int>(so_far.tokens.size())) {
  prefill_.insert(prefill_.end(), so_far.tokens.begin(), so_far.tokens.end());
  // The detokenizer and the stop strings see the whole answer, so that a character or a stop string that began before
  // is completed here; what the client has is dropped again.
  for (size_t i = 0; i < so_far.tokens.size(); ++i) {
    pending_ += stops_.Push(detokenizer_.Push(so_far.tokens[i]));
    if (static_cast<int>(i) + 1 == so_far.n_prefix_tokens) skip_bytes_ = pending_.size();
  }
  skip_bytes_ = so_far.sent_text_bytes ? skip_bytes_ + *so_far.sent_text_bytes : pending_.size();
}

absl::StatusOr<bool> LocalRun::Prefill() {
  const std::span<const int32_t> rest = std::span<const int32_t>(prefill_).subspan(prefilled_);
  const auto piece = rest.first(std::min(rest.size(), kPrefillPiece));
  if (absl::Status status = generator_.Prefill(piece); !status.ok()) return status;
  prefilled_ += piece.size();
  return prefilled_ == prefill_.size();
}

void LocalRun::Pass(std::string text, Step& step) {
  pending_ += text;
  const size_t skip = std::min(skip_bytes_, pending_.size());
  skip_bytes_ -= skip;
  step.text += pending_.substr(skip);
  pending_.clear();
}

void LocalRun::Finish(v1::FinishReason reason, Step& step) {
  step.finish = reason;
  Pass(stops_.Push(detokenizer_.Flush()) + stops_.Flush(), step);
}

absl::StatusOr<LocalRun::Step> LocalRun::Next() {
  Step step;
  if (stops_.stopped()) {  // in what was accepted
    Finish(v1::FINISH_REASON_STOP, step);
    return step;
  }
  if (n_answer_ >= options_.max_tokens || n_tokens() >= model_->max_sequence_tokens()) {
    Finish(v1::FINISH_REASON_LENGTH, step);
    return step;
  }
  auto next = generator_.Next();
  if (!next.ok()) return next.status();
  ++n_generated_;
  step.evidence = next->evidence;
  if (model_->IsEnd(next->token)) {
    Finish(v1::FINISH_REASON_STOP, step);
    return step;
  }
  ++n_answer_;
  step.token = next->token;
  Pass(stops_.Push(detokenizer_.Push(next->token)), step);
  if (stops_.stopped()) {
    Finish(v1::FINISH_REASON_STOP, step);
  } else if (n_answer_ >= options_.max_tokens || n_tokens() >= model_->max_sequence_tokens()) {
    Finish(v1::FINISH_REASON_LENGTH, step);
  }
  return step;
}

}  // namespace updraft
