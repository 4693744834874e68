#include "cloud/service/served_model.h"

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/convert.h"
#include "common/text/detokenizer.h"

namespace updraft {
namespace {

constexpr size_t kMaxIdBytes = 128;
constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 128;

class DetokenizedText final : public engine::TextStream {
 public:
  DetokenizedText(std::shared_ptr<const text::Tokenizer> tokenizer, bool at_text_start)
      : detokenizer_(std::move(tokenizer), {.render_special = false, .at_text_start = at_text_start}) {}
  std::string Push(int32_t token) override { return detokenizer_.Push(token); }
  std::string Flush() override { return detokenizer_.Flush(); }

 private:
  text::StreamDetokenizer detokenizer_;
};

absl::Status Annotate(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", std::string(status.message())));
}

v1::ModelInfo MakeInfo(const Model& model, const text::Tokenizer& tokenizer, const std::string& path) {
  const ModelConfig& config = model.config();
  v1::ModelInfo info;
  info.set_name(config.name.empty() ? std::filesystem::path(path).stem().string() : config.name);
  info.set_architecture(ArchitectureName(config.architecture));
  int64_t n_parameters = 0;
  for (const gguf::TensorInfo& tensor : model.file().tensors()) n_parameters += tensor.elements();
  info.set_n_parameters(n_parameters);
  std::error_code error;
  const auto file_bytes = std::filesystem::file_size(path, error);
  if (!error) info.set_file_bytes(static_cast<int64_t>(file_bytes));
  info.set_n_layer(config.n_layer);
  info.set_context_length(config.context_length);
  for (const int layer : config.exit_layers) info.add_exit_layers(layer);
  info.set_tokenizer_fingerprint(tokenizer.fingerprint());
  info.set_path(path);
  return info;
}

// Ids end up in logs and traces.
absl::Status CheckId(const char* field, const std::string& id) {
  const bool printable = std::all_of(id.begin(), id.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (printable && id.size() <= kMaxIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected at most %d printable ASCII characters, found %s",
                                                    field, kMaxIdBytes,
                                                    printable ? absl::StrCat(id.size()) : "others"));
}

absl::Status CheckStops(const v1::GenerateRequest& request) {
  if (request.stop_size() > kMaxStops) {
    return absl::InvalidArgumentError(
        absl::StrFormat("stop: expected at most %d strings, found %d", kMaxStops, request.stop_size()));
  }
  for (int i = 0; i < request.stop_size(); ++i) {
    if (request.stop(i).size() > kMaxStopBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("stop[%d]: expected at most %d bytes, found %d", i, kMaxStopBytes, request.stop(i).size()));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRoles(const v1::Conversation& conversation) {
  if (conversation.messages_size() == 0) {
    return absl::InvalidArgumentError("conversation: is empty; expected at least one message");
  }
  for (int i = 0; i < conversation.messages_size(); ++i) {
    const std::string& role = conversation.messages(i).role();
    if (role == "system" || role == "user" || role == "assistant") continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "conversation.messages[%d].role: expected system, user or assistant, found '%s'", i, role.substr(0, 80)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& path, int n_threads) {
  std::unique_ptr<ServedModel> served(new ServedModel);
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(path, {.n_threads = n_threads});
  if (!model.ok()) return model.status();
  served->model_ = *std::move(model);
  const gguf::File& file = served->model_->file();
  auto tokenizer = text::Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), absl::StrFormat("model '%s'", path));
  served->tokenizer_ = *std::move(tokenizer);
  served->stop_tokens_ = served->tokenizer_->EndOfGenerationIds();
  served->chat_template_ = text::ChatTemplate::FromGguf(file);
  if (served->chat_template_.ok()) served->stop_tokens_ = served->chat_template_->StopTokenIds(*served->tokenizer_);
  for (int32_t id = 0; id < served->tokenizer_->vocab_size(); ++id) {
    served->max_token_bytes_ =
        std::max(served->max_token_bytes_, served->tokenizer_->TokenBytes(id, /*render_special=*/true).size());
  }
  served->info_ = MakeInfo(*served->model_, *served->tokenizer_, path);
  return served;
}

// Refuses what cannot fit before time is spent on tokenizing it.
absl::Status ServedModel::CheckBytes(const char* field, size_t n_bytes) const {
  const size_t min_tokens = n_bytes / max_token_bytes_;
  const int context_length = model_->config().context_length;
  if (min_tokens < static_cast<size_t>(context_length)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: %d bytes are at least %d tokens, the model's context holds %d with the answer; shorten it",
                      field, n_bytes, min_tokens, context_length));
}

absl::Status ServedModel::BuildPrompt(const v1::GenerateRequest& request, engine::Request& built,
                                      bool& at_text_start) const {
  switch (request.input_case()) {
    case v1::GenerateRequest::kConversation: {
      if (absl::Status status = CheckRoles(request.conversation()); !status.ok()) return status;
      if (!chat_template_.ok()) return Annotate(chat_template_.status(), "conversation");
      std::vector<text::ChatMessage> messages;
      size_t n_bytes = 0;
      for (const v1::Message& message : request.conversation().messages()) {
        messages.push_back({message.role(), message.content()});
        n_bytes += message.content().size();
      }
      if (absl::Status status = CheckBytes("conversation", n_bytes); !status.ok()) return status;
      auto tokens = chat_template_->RenderTokens(*tokenizer_, messages, /*add_generation_prompt=*/true);
      if (!tokens.ok()) return Annotate(tokens.status(), "conversation");
      built.prompt = *std::move(tokens);
      built.stop = chat_template_->StopStrings();
      at_text_start = true;
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kPrompt: {
      if (absl::Status status = CheckBytes("prompt", request.prompt().size()); !status.ok()) return status;
      auto tokens = tokenizer_->Encode(request.prompt());
      if (!tokens.ok()) return Annotate(tokens.status(), "prompt");
      if (tokens->empty()) return absl::InvalidArgumentError("prompt: is empty; expected text to continue");
      built.prompt = *std::move(tokens);
      at_text_start = false;
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kTokens: {
      const v1::TokenIds& ids = request.tokens();
      if (ids.tokenizer_fingerprint() != tokenizer_->fingerprint()) {
        return absl::FailedPreconditionError(
            absl::StrFormat("tokens.tokenizer_fingerprint: expected '%s', found '%s'; send text instead of token ids",
                            tokenizer_->fingerprint(), ids.tokenizer_fingerprint().substr(0, 80)));
      }
      if (ids.ids_size() == 0) return absl::InvalidArgumentError("tokens.ids: is empty; expected at least one token");
      built.prompt.assign(ids.ids().begin(), ids.ids().end());
      // A tier that renders conversations sends them as ids; the formats' own stop strings then apply here as well.
      if (chat_template_.ok()) built.stop = chat_template_->StopStrings();
      at_text_start = true;
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("input: missing; expected conversation, prompt or tokens");
}

absl::StatusOr<engine::Request> ServedModel::BuildRequest(const v1::GenerateRequest& request,
                                                          const RequestLimits& limits) const {
  if (absl::Status status = CheckId("request_id", request.request_id()); !status.ok()) return status;
  if (absl::Status status = CheckId("tenant", request.tenant()); !status.ok()) return status;
  if (absl::Status status = CheckStops(request); !status.ok()) return status;
  if (request.max_tokens() < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_tokens: expected 0 (the default) or more, found %d", request.max_tokens()));
  }
  if (request.accepted_prefix_size() > 0 && request.input_case() != v1::GenerateRequest::kTokens) {
    return absl::InvalidArgumentError(
        "accepted_prefix: only works with tokens; send the prompt as token ids, or no prefix");
  }
  auto sampling = SamplingFromProto(request.sampling());
  if (!sampling.ok()) return Annotate(sampling.status(), "sampling");

  engine::Request built;
  bool at_text_start = true;
  if (absl::Status status = BuildPrompt(request, built, at_text_start); !status.ok()) return status;
  built.accepted_prefix.assign(request.accepted_prefix().begin(), request.accepted_prefix().end());
  built.sampling = *sampling;
  built.max_tokens = request.max_tokens();
  if (built.max_tokens == 0) {
    const int n_left = limits.max_sequence_tokens - static_cast<int>(built.prompt.size()) + 1;
    built.max_tokens = std::clamp(limits.max_tokens_default, 1, std::max(1, n_left));
  }
  built.stop.insert(built.stop.end(), request.stop().begin(), request.stop().end());
  built.stop_tokens = stop_tokens_;
  built.include_evidence = request.include_evidence();
  built.text = std::make_unique<DetokenizedText>(tokenizer_, at_text_start);
  return built;
}

}  // namespace updraft
