#include "common/serving/served_model.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/serving/request_check.h"
#include "common/serving/shapes.h"
#include "common/status/retry_delay.h"
#include "common/telemetry/log.h"
#include "common/text/utf8.h"

namespace updraft {
namespace {

constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxPathBytes = 4096;
constexpr absl::Duration kUntilStartedAgain = absl::Seconds(5);  // by whoever watches over the daemon

absl::Status Annotate(const absl::Status& status, const std::string& what) {
  return absl::Status(status.code(), absl::StrCat(what, ": ", std::string(status.message())));
}

v1::ModelInfo MakeInfo(const Model& model, const std::string& fingerprint, const std::string& path) {
  const ModelConfig& config = model.config();
  v1::ModelInfo info;
  // Neither a file nor its name need be UTF-8, and a message that is not is refused by whoever gets it.
  info.set_name(text::BoundedUtf8(config.name.empty() ? std::filesystem::path(path).stem().string() : config.name,
                                  kMaxNameBytes));
  info.set_architecture(ArchitectureName(config.architecture));
  int64_t n_parameters = 0;
  for (const gguf::TensorInfo& tensor : model.file().tensors()) n_parameters += tensor.elements();
  info.set_n_parameters(n_parameters);
  info.set_file_bytes(static_cast<int64_t>(model.file().file_bytes()));
  info.set_n_layer(config.n_layer);
  info.set_context_length(config.context_length);
  for (const int layer : config.exit_layers) info.add_exit_layers(layer);
  info.set_tokenizer_fingerprint(fingerprint);
  info.set_path(text::BoundedUtf8(path, kMaxPathBytes));
  if (const Adapter* adapter = model.adapter(); adapter != nullptr) {
    for (const gguf::TensorInfo& tensor : adapter->file().tensors()) n_parameters += tensor.elements();
    info.set_n_parameters(n_parameters);
    info.mutable_adapter()->set_path(text::BoundedUtf8(adapter->file().path(), kMaxPathBytes));
    info.mutable_adapter()->set_sha256(adapter->sha256());
  }
  return info;
}

text::ChatMessage ToChatMessage(const v1::Message& message) {
  text::ChatMessage out{message.role(), message.content()};
  for (const v1::ToolCall& call : message.tool_calls()) {
    out.tool_calls.push_back({call.id(), call.name(), call.arguments()});
  }
  out.tool_call_id = message.tool_call_id();
  out.name = message.name();
  return out;
}

absl::StatusOr<std::unique_ptr<Model>> LoadAndLog(const std::string& path, const LoadOptions& options) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  const int64_t bytes = error ? 0 : static_cast<int64_t>(size);
  LogEvent(LogLevel::kInfo, "loading", {{"model", path}, {"bytes", bytes}});
  const SteadyTime start = SteadyNow();
  absl::StatusOr<std::unique_ptr<Model>> model = Model::Load(path, options);
  if (!model.ok()) return model;
  const PackedCacheUse& packed = (*model)->packed_cache();
  for (const std::string& warning : packed.warnings) LogEvent(LogLevel::kWarn, "packed-cache", {{"problem", warning}});
  LogEvent(LogLevel::kInfo, "loaded",
           {{"model", path},
            {"bytes", (*model)->file().file_bytes()},
            {"seconds", absl::ToDoubleSeconds(SteadyNow() - start)},
            {"packed_cache", Name(packed.outcome)}});
  return model;
}

absl::Status CheckTokenIds(const char* field, const google::protobuf::RepeatedField<int32_t>& ids, int32_t n_vocab) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < n_vocab) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("%s[%d]: expected a token id in [0, %d), found %d", field, i, n_vocab, ids[i]));
  }
  return absl::OkStatus();
}

}  // namespace

ServedModel::ServedModel() = default;
ServedModel::~ServedModel() = default;

absl::Status ServedModel::CheckShapeHere(const v1::Shape& shape) const { return shapes_->Of(shape).status(); }

absl::Status ServedModel::CheckCallsHere(const v1::GenerateRequest& request) const {
  Prompt prompt;
  return TakeCalls(request, prompt);
}

absl::StatusOr<std::unique_ptr<ServedModel>> ServedModel::Load(const std::string& path, const LoadOptions& options,
                                                               const std::string& chat_template,
                                                               const std::string& name) {
  std::unique_ptr<ServedModel> served(new ServedModel);
  absl::StatusOr<std::unique_ptr<Model>> model = LoadAndLog(path, options);
  if (!model.ok()) return model.status();
  served->model_ = *std::move(model);
  // Tells whether the system let all threads be pinned.
  if (options.pin_threads) LogEvent(LogLevel::kInfo, "pinning", {{"backend", served->model_->ops().name()}});
  if (served->model_->config().ffn_group > 0) {
    LogEvent(LogLevel::kInfo, "sparsity", {{"measured", served->model_->DescribeSparsity()}});
  }
  if (const Adapter* adapter = served->model_->adapter(); adapter != nullptr) {
    LogEvent(LogLevel::kInfo, "adapter",
             {{"path", adapter->file().path()}, {"sha256", adapter->sha256()}, {"holds", adapter->Describe()}});
  }
  if (const std::string layouts = served->model_->DescribeLayouts(); !layouts.empty()) {
    LogEvent(LogLevel::kInfo, "layouts", {{"measured", layouts}});
  }
  const gguf::File& file = served->model_->file();
  auto tokenizer = text::Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), absl::StrFormat("model '%s'", path));
  served->tokenizer_ = *std::move(tokenizer);
  for (const std::string& warning : served->tokenizer_->warnings()) {
    LogEvent(LogLevel::kWarn, "tokenizer", {{"model", path}, {"problem", warning}});
  }
  if (absl::Status status = served->TakeChatTemplate(chat_template); !status.ok()) return status;
  for (int32_t id = 0; id < served->tokenizer_->vocab_size(); ++id) {
    served->max_token_bytes_ =
        std::max(served->max_token_bytes_, served->tokenizer_->TokenBytes(id, /*render_special=*/true).size());
  }
  const auto fingerprint = text::ChatFingerprint(*served->tokenizer_, served->chat_template_);
  if (!fingerprint.ok()) return fingerprint.status();
  served->shapes_ = std::make_unique<const Shapes>(served->tokenizer_, served->stop_tokens_,
                                                   served->model_->config().n_vocab, served->call_format_);
  served->info_ = MakeInfo(*served->model_, *fingerprint, path);
  served->name_ = name.empty() ? served->info_.name() : text::BoundedUtf8(name, kMaxNameBytes);
  return served;
}

absl::Status ServedModel::TakeChatTemplate(const std::string& choice) {
  chat_template_ = text::ChatTemplate::Choose(model_->FileWith("tokenizer.chat_template"), choice);
  stop_tokens_ = tokenizer_->EndOfGenerationIds();
  if (chat_template_.ok()) {
    stop_tokens_ = chat_template_->StopTokenIds(*tokenizer_);
    chat_stops_ = chat_template_->StopStrings(*tokenizer_);
    call_format_ = tools::CallFormatOf(*chat_template_);
    if (call_format_) call_markers_ = tools::MarkerTokens(*call_format_, *tokenizer_);
    LogEvent(LogLevel::kInfo, "chat-template",
             {{"name", chat_template_->name()},
              {"why", chat_template_->why()},
              {"tools", chat_template_->renders_tools()},
              {"calls", call_format_ ? call_format_->name : "none"}});
    return absl::OkStatus();
  }
  if (!choice.empty()) return chat_template_.status();
  LogEvent(LogLevel::kWarn, "chat-template", {{"problem", std::string(chat_template_.status().message())}});
  return absl::OkStatus();
}

absl::Status ServedModel::CheckBytes(const char* field, size_t n_bytes, size_t max_tokens) const {
  const size_t min_tokens = n_bytes / max_token_bytes_;
  if (min_tokens <= max_tokens) return absl::OkStatus();
  return ContextExceeded(static_cast<int64_t>(max_tokens) + 1,
                         absl::StrFormat("the %s's %d bytes are at least %d tokens, and an answer needs room, too; "
                                         "shorten the %s",
                                         field, n_bytes, min_tokens, field));
}

absl::Status ServedModel::CheckIntact() const { return WithRetryDelay(model_->CheckIntact(), kUntilStartedAgain); }

absl::StatusOr<Prompt> ServedModel::MakePrompt(const v1::GenerateRequest& request, size_t max_tokens) const {
  if (absl::Status status = CheckTools(request); !status.ok()) return status;
  if (absl::Status status = CheckBias(request.sampling().logit_bias()); !status.ok()) return status;
  absl::StatusOr<Prompt> prompt = FromInput(request, max_tokens);
  if (!prompt.ok()) return prompt;
  if (absl::Status status = TakeCalls(request, *prompt); !status.ok()) return status;
  if (!request.has_shape()) return prompt;
  auto shape = shapes_->Of(request.shape());
  if (!shape.ok()) return shape.status();
  prompt->shape = *std::move(shape);
  return prompt;
}

std::string ServedModel::CallFormatFor(const v1::GenerateRequest& request) const {
  return MayCall(request) && call_format_ ? call_format_->name : "";
}

// What an answer that may call tools is held to: calls that there are, with arguments that fit.
absl::Status ServedModel::TakeCalls(const v1::GenerateRequest& request, Prompt& prompt) const {
  if (!MayCall(request)) return absl::OkStatus();
  const bool required = request.tool_choice().mode() == v1::ToolChoice::MODE_REQUIRED;
  if (!call_format_ || stop_tokens_.empty()) {
    if (!required) return absl::OkStatus();
    return absl::InvalidArgumentError(
        call_format_ ? "tool_choice: this model's vocabulary has no token that ends an answer, so none can be held to "
                       "a call; leave the choice to the model"
                     : "tool_choice: how this model writes calls is not known here, so none can be required of it; "
                       "leave the choice to the model");
  }
  auto masks = shapes_->OfCalls(request);
  if (!masks.ok()) return masks.status();
  prompt.shape = *std::move(masks);
  prompt.shape_may_be_missed = true;
  prompt.spelled = call_markers_;
  return absl::OkStatus();
}

absl::StatusOr<Prompt> ServedModel::FromInput(const v1::GenerateRequest& request, size_t max_tokens) const {
  switch (request.input_case()) {
    case v1::GenerateRequest::kConversation:
      return FromConversation(request, max_tokens);
    case v1::GenerateRequest::kPrompt:
      return FromText(request.prompt(), request.parse_special(), max_tokens);
    case v1::GenerateRequest::kTokens:
      return FromTokens(request);
    case v1::GenerateRequest::kGiven:
      return FromGiven(request.given(), max_tokens);
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("input: missing; expected conversation, prompt or tokens");
}

absl::Status ServedModel::CheckBias(const v1::LogitBias& bias) const {
  const std::string& made_by = bias.tokenizer_fingerprint();
  if (!made_by.empty() && made_by != info_.tokenizer_fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("sampling.logit_bias.tokenizer_fingerprint: expected '%s', found '%s'; here these ids would be "
                        "other words",
                        info_.tokenizer_fingerprint(), made_by.substr(0, 80)));
  }
  const int32_t n_vocab = tokenizer_->vocab_size();
  for (const v1::LogitBias::Entry& entry : bias.entries()) {
    if (entry.token() >= 0 && entry.token() < n_vocab) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("sampling.logit_bias: expected token ids in [0, %d), found %d", n_vocab, entry.token()));
  }
  return absl::OkStatus();
}

absl::Status ServedModel::CheckTools(const v1::GenerateRequest& request) const {
  if (can_use_tools()) return absl::OkStatus();
  if (request.has_conversation() && !chat_template_.ok()) return absl::OkStatus();  // refused as a conversation
  const std::string format = chat_template_.ok() ? chat_template_->name() : "none";
  if (request.tools_size() > 0 && request.tool_choice().mode() != v1::ToolChoice::MODE_NONE) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tools: the model's chat template (%s) has none; leave them out", format));
  }
  for (int i = 0; i < request.conversation().messages_size(); ++i) {
    const v1::Message& message = request.conversation().messages(i);
    if (message.role() == "tool") {
      return absl::InvalidArgumentError(absl::StrFormat(
          "conversation.messages[%d].role: expected system, user or assistant, found 'tool': the model's chat template "
          "(%s) has no tools",
          i, format));
    }
    if (message.tool_calls_size() > 0) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "conversation.messages[%d].tool_calls: the model's chat template (%s) has no tools; leave the calls out", i,
          format));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Prompt> ServedModel::FromConversation(const v1::GenerateRequest& request, size_t max_tokens) const {
  if (!chat_template_.ok()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("conversation: this model cannot chat (%s); send a prompt instead (with parse_special where it "
                        "spells out control tokens)",
                        std::string(chat_template_.status().message())));
  }
  const v1::Conversation& conversation = request.conversation();
  std::vector<text::ChatMessage> messages;
  std::vector<std::string_view> user_messages;
  size_t n_bytes = 0;
  for (const v1::Message& message : conversation.messages()) {
    messages.push_back(ToChatMessage(message));
    if (message.role() == "user") user_messages.push_back(message.content());
    n_bytes += message.content().size();
  }
  if (absl::Status status = CheckBytes("conversation", n_bytes, max_tokens); !status.ok()) return status;
  std::vector<text::ChatTool> tools;
  if (request.tool_choice().mode() != v1::ToolChoice::MODE_NONE) {
    for (const v1::Tool& tool : request.tools()) tools.push_back({tool.name(), tool.description(), tool.parameters()});
  }
  text::Chat chat{.messages = messages, .tools = tools};
  const bool goes_on =
      conversation.has_continue_final_message()
          ? conversation.continue_final_message()
          : !messages.empty() && messages.back().role == "assistant" && messages.back().tool_calls.empty();
  if (goes_on) chat.ending = text::Chat::Ending::kContinuesAnswer;
  if (conversation.has_thinking()) chat.thinking = conversation.thinking();
  auto tokens = chat_template_->RenderTokens(*tokenizer_, chat);
  if (!tokens.ok()) return Annotate(tokens.status(), "conversation");
  Prompt prompt;
  prompt.tokens = *std::move(tokens);
  prompt.features = PromptFeaturesOf(user_messages, static_cast<int>(prompt.tokens.size()));
  prompt.at_text_start = !goes_on;
  prompt.stops = chat_stops_;
  return prompt;
}

absl::StatusOr<Prompt> ServedModel::FromText(const std::string& text, bool parse_special, size_t max_tokens) const {
  if (absl::Status status = CheckBytes("prompt", text.size(), max_tokens); !status.ok()) return status;
  auto tokens = tokenizer_->Encode(text, {.parse_special = parse_special});
  if (!tokens.ok()) return Annotate(tokens.status(), "prompt");
  // Whoever spells the control tokens out spells the first one out as well.
  const std::optional<int32_t> bos = tokenizer_->bos_id();
  if (tokenizer_->adds_bos() && tokens->size() > 1 && (*tokens)[0] == bos && (*tokens)[1] == bos) {
    tokens->erase(tokens->begin());
  }
  if (tokens->empty()) return absl::InvalidArgumentError("prompt: is empty; expected text to continue");
  Prompt prompt;
  prompt.tokens = *std::move(tokens);
  const std::string_view whole = text;
  prompt.features = PromptFeaturesOf({&whole, 1}, static_cast<int>(prompt.tokens.size()));
  prompt.at_text_start = false;
  return prompt;
}

absl::StatusOr<Prompt> ServedModel::FromGiven(const v1::GivenAnswer& given, size_t max_tokens) const {
  if (absl::Status status = CheckBytes("given.answer", given.answer().size(), max_tokens); !status.ok()) return status;
  if (stop_tokens_.empty()) {
    return absl::FailedPreconditionError(
        "given: this model has no token that ends an answer, so none can be read whole");
  }
  v1::GenerateRequest asked;
  *asked.mutable_conversation() = given.conversation();
  asked.mutable_conversation()->set_continue_final_message(false);
  auto prompt = FromConversation(asked, max_tokens);
  if (!prompt.ok()) return prompt.status();
  auto tokens = tokenizer_->Encode(given.answer(), {.add_special = false, .at_text_start = prompt->at_text_start});
  if (!tokens.ok()) return Annotate(tokens.status(), "given.answer");
  const auto end = std::find_first_of(tokens->begin(), tokens->end(), stop_tokens_.begin(), stop_tokens_.end());
  if (end != tokens->end()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("given.answer: its token %d of %d is one that ends an answer; give what stands before it",
                        end - tokens->begin() + 1, tokens->size()));
  }
  prompt->given = *std::move(tokens);
  prompt->given.push_back(stop_tokens_.front());
  prompt->stops.clear();  // it ends where it ends
  return prompt;
}

absl::StatusOr<Prompt> ServedModel::FromTokens(const v1::GenerateRequest& request) const {
  const v1::TokenIds& tokens = request.tokens();
  if (tokens.tokenizer_fingerprint() != info_.tokenizer_fingerprint()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("tokens.tokenizer_fingerprint: expected '%s', found '%s'; send text instead of token ids",
                        info_.tokenizer_fingerprint(), tokens.tokenizer_fingerprint().substr(0, 80)));
  }
  if (tokens.ids().empty()) return absl::InvalidArgumentError("tokens.ids: is empty; expected at least one token");
  const int32_t n_vocab = tokenizer_->vocab_size();
  if (absl::Status status = CheckTokenIds("tokens.ids", tokens.ids(), n_vocab); !status.ok()) return status;
  if (absl::Status status = CheckTokenIds("accepted_prefix", request.accepted_prefix(), n_vocab); !status.ok()) {
    return status;
  }
  Prompt prompt;
  prompt.tokens.assign(tokens.ids().begin(), tokens.ids().end());
  prompt.features.n_prompt_tokens = static_cast<int>(prompt.tokens.size());
  prompt.features.n_turns = std::max(0, tokens.n_turns());
  prompt.features.n_digits = std::max(0, tokens.n_digits());
  prompt.at_text_start = !tokens.raw();
  // A tier that renders conversations sends them as ids; the format's own stop strings then apply here as well.
  if (!tokens.raw()) prompt.stops = chat_stops_;
  return prompt;
}

}  // namespace updraft
