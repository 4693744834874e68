#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/http/field_reader.h"
#include "common/http/openai.h"
#include "common/http/tool_parameters.h"

namespace updraft::http::openai {

namespace {

constexpr char kFieldPayload[] = "updraft/field";
constexpr size_t kMaxMessages = 1024;
constexpr size_t kMaxStops = 16;
constexpr size_t kMaxStopBytes = 128;
constexpr size_t kMaxModelBytes = 256;
constexpr size_t kMaxToolNameBytes = 64;
constexpr size_t kMaxToolIdBytes = 128;
constexpr size_t kMaxToolBytes = 64 << 10;
constexpr size_t kMaxLogprobEntries = 512;
constexpr int kMaxCompletionLogprobs = 20;  // OpenAI has 5, others more
// The nucleus of 0 is the most likely token: what no vocabulary has less of than its most likely one.
constexpr double kMinTopP = 1e-9;

void ReadStop(FieldReader& reader, std::vector<std::string>& stop) {
  const Json* value = reader.Find("stop");
  if (value == nullptr) return;
  if (!value->is_string() && !value->is_array()) {
    return reader.Fail(WrongType("stop", "a string or an array of strings", *value));
  }
  const Json list = value->is_string() ? Json::array({*value}) : *value;
  if (list.size() > kMaxStops) {
    return reader.Fail(
        FieldError("stop", absl::StrFormat("expected at most %d strings, found %d", kMaxStops, list.size())));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = absl::StrFormat("stop[%d]", i);
    if (!list[i].is_string()) return reader.Fail(WrongType(field, "a string", list[i]));
    std::string text = list[i].get<std::string>();
    if (text.size() > kMaxStopBytes) {
      return reader.Fail(
          FieldError(field, absl::StrFormat("expected at most %d bytes, found %d", kMaxStopBytes, text.size())));
    }
    if (!text.empty()) stop.push_back(std::move(text));  // clients send "" for none
  }
}

void ReadStreamOptions(FieldReader& reader, GenerationParams& params) {
  const Json* value = reader.Find("stream_options");
  if (value == nullptr) return;
  if (!value->is_object()) return reader.Fail(WrongType("stream_options", "an object", *value));
  if (!params.stream) return reader.Fail(FieldError("stream_options", "only allowed together with \"stream\": true"));
  FieldReader options(*value, "stream_options.");
  options.Bool("include_usage", params.include_usage);
  reader.Fail(options.status());
}

// Fields of OpenAI's API and of other servers' that change what an answer means. To ignore one would answer a question
// that was not asked. What only says how an answer is made or kept (user, store, service_tier, ...) is ignored.
constexpr std::pair<const char*, const char*> kUnserved[] = {
    {"functions", "functions are"},
    {"audio", "audio is"},
    {"min_tokens", "a least number of tokens is"},
    {"ignore_eos", "going on after the end is"},
    {"stop_token_ids", "stop tokens are"},
    {"include_stop_str_in_output", "a stop string within the answer is"},
    {"bad_words", "words to avoid are"},
    {"allowed_token_ids", "a choice of tokens is"},
    {"truncate_prompt_tokens", "a prompt that is cut is"},
    {"prompt_logprobs", "log probabilities of the prompt are"},
    {"use_beam_search", "beam search is"},
    {"guided_decoding_backend", "a choice of the constraints' engine is"},
    {"guided_whitespace_pattern", "white space of one's own is"},
    {"structural_tag", "a structural tag is"},
    {"chat_template", "a template of the request's own is"},
    {"documents", "documents beside the conversation are"},
    {"mirostat", "mirostat is"},
    {"reasoning", "an effort of thoughts is"},
    {"dry_multiplier", "the DRY penalty is"},
    {"xtc_probability", "XTC sampling is"},
    {"no_repeat_ngram_size", "a ban on repeated n-grams is"},
    {"logits_processors", "processors of logits are"},
    {"lora", "another adapter than the server's is"},
    {"return_token_ids", "token ids in the answer are"},
    {"return_tokens_as_token_ids", "token ids in place of tokens are"},
    {"thinking_token_budget", "a budget of thoughts is"},
};

// Numbers of which one value asks for nothing, and what is here in their place.
struct Neutral {
  const char* field;
  double nothing;
  const char* instead;
};
constexpr Neutral kNeutral[] = {
    {"repeat_penalty", 1.0, "it is repetition_penalty here"},
    {"typical_p", 1.0, "leave the field out"},
    {"length_penalty", 1.0, "leave the field out"},
    {"n_predict", -1.0, "it is max_tokens here"},
    {"priority", 0.0, "it is the header X-Updraft-Priority here"},
};

void ReadNeutral(FieldReader& reader) {
  for (const auto& [field, nothing, instead] : kNeutral) {
    const Json* value = reader.Find(field);
    if (value == nullptr || (value->is_number() && value->get<double>() == nothing)) continue;
    reader.Fail(FieldError(field, absl::StrCat("not supported; ", instead)));
  }
}

// Those whose default asks for something.
void ReadUnservedSwitches(FieldReader& reader) {
  bool skip_special_tokens = true, add_generation_prompt = true;
  reader.Bool("skip_special_tokens", skip_special_tokens);
  if (!skip_special_tokens) {
    reader.Fail(
        FieldError("skip_special_tokens", "control tokens in the answer are not supported; leave the field out"));
  }
  reader.Bool("add_generation_prompt", add_generation_prompt);
  if (!add_generation_prompt) {
    reader.Fail(FieldError("add_generation_prompt",
                           "an answer without its beginning is not supported; continue_final_message goes on with the "
                           "last message"));
  }
  if (reader.Find("web_search_options") != nullptr) {  // an empty object asks for one, too
    reader.Fail(FieldError("web_search_options", "a web search is not supported; leave the field out"));
  }
  const Json* modalities = reader.Find("modalities");
  if (modalities == nullptr) return;
  if (!modalities->is_array()) return reader.Fail(WrongType("modalities", "an array of strings", *modalities));
  for (const Json& modality : *modalities) {
    if (modality == "text") continue;
    return reader.Fail(
        FieldError("modalities", "only \"text\" is supported, found " + DumpJson(modality).substr(0, 64)));
  }
}

// An object of token ids, as strings, and numbers.
void ReadLogitBias(FieldReader& reader, std::vector<LogitBias>& biases) {
  const Json* value = reader.Find("logit_bias");
  if (value == nullptr) return;
  if (!value->is_object()) return reader.Fail(WrongType("logit_bias", "an object of token ids and numbers", *value));
  if (value->size() > kMaxLogitBiases) {
    return reader.Fail(FieldError(
        "logit_bias", absl::StrFormat("expected at most %d tokens, found %d", kMaxLogitBiases, value->size())));
  }
  FieldReader inner(*value, "logit_bias.");
  for (const auto& item : value->items()) {
    LogitBias bias;
    if (!absl::SimpleAtoi(item.key(), &bias.token) || item.key() != absl::StrCat(bias.token) || bias.token < 0) {
      return reader.Fail(
          FieldError("logit_bias", "expected token ids as keys, found " + DumpJson(item.key().substr(0, 64))));
    }
    inner.Number(item.key().c_str(), -100.0, 100.0, bias.bias);
    biases.push_back(bias);
  }
  reader.Fail(inner.status());
  std::sort(biases.begin(), biases.end(), [](const LogitBias& a, const LogitBias& b) { return a.token < b.token; });
}

// An entry is some 100 bytes; of an answer that is not streamed all are held until its end.
void CheckLogprobs(FieldReader& reader, const GenerationParams& params, size_t n_prompts) {
  const size_t n_entries = n_prompts * static_cast<size_t>(params.n) * static_cast<size_t>(1 + params.top_logprobs);
  if (!params.logprobs || n_entries <= kMaxLogprobEntries) return;
  reader.Fail(FieldError(
      "logprobs",
      absl::StrFormat("expected at most %d log probabilities for a token of all answers together, found %d "
                      "answers with %d each; ask for less of either",
                      kMaxLogprobEntries, n_prompts * static_cast<size_t>(params.n), 1 + params.top_logprobs)));
}

void ReadChoices(FieldReader& reader, int& n_choices) {
  std::optional<int64_t> n, best_of;
  reader.Integer("n", 1, kMaxChoices, n);
  n_choices = static_cast<int>(n.value_or(1));
  reader.Integer("best_of", 1, kMaxChoices, best_of);
  if (best_of && *best_of != n_choices) {
    reader.Fail(FieldError("best_of",
                           "to choose among more answers than are given is not supported; expected n, or "
                           "leave the field out"));
  }
}

void ReadParams(FieldReader& reader, std::string_view body, GenerationParams& params) {
  reader.String("model", kMaxModelBytes, params.model);
  constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
  std::optional<int64_t> max_tokens, seed, top_k;
  reader.Integer("max_tokens", 1, kMaxInt, max_tokens);
  reader.Integer("max_completion_tokens", 1, kMaxInt, max_tokens);
  reader.Number("temperature", 0.0, 2.0, params.temperature);
  reader.Number("top_p", 0.0, 1.0, params.top_p);
  params.top_p = std::max(params.top_p, kMinTopP);
  reader.Integer("top_k", -1, kMaxInt, top_k);
  reader.Number("min_p", 0.0, 1.0, params.min_p);
  if (params.min_p >= 1.0) reader.Fail(FieldError("min_p", "expected a number of at least 0 and below 1, found 1"));
  reader.Number("repetition_penalty", 0.0, 10.0, params.repetition_penalty);
  if (params.repetition_penalty <= 0.0) {
    reader.Fail(FieldError("repetition_penalty", "expected a number above 0 and at most 10, found 0"));
  }
  reader.Integer("seed", std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max(), seed);
  reader.Number("presence_penalty", -2.0, 2.0, params.presence_penalty);
  reader.Number("frequency_penalty", -2.0, 2.0, params.frequency_penalty);
  ReadLogitBias(reader, params.logit_bias);
  ReadChoices(reader, params.n);
  ReadStop(reader, params.stop);
  reader.Bool("stream", params.stream);
  ReadStreamOptions(reader, params);
  ReadShape(reader, body, params.shape);
  for (const auto& [field, what] : kUnserved) reader.Unsupported(field, what);
  ReadNeutral(reader);
  ReadUnservedSwitches(reader);
  if (max_tokens) params.max_tokens = static_cast<int>(*max_tokens);
  if (top_k) params.top_k = static_cast<int>(std::max<int64_t>(*top_k, 0));
  if (seed) params.seed = static_cast<uint64_t>(*seed);
}

absl::StatusOr<std::string> ReadContent(const Json& message, const std::string& field) {
  auto content = message.find("content");
  if (content == message.end()) return FieldError(field, "missing; expected a string");
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return WrongType(field, "a string or an array of text parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const Json& part = (*content)[i];
    const std::string name = absl::StrFormat("%s[%d]", field, i);
    if (!part.is_object()) return WrongType(name, "an object", part);
    auto type = part.find("type");
    if (type == part.end() || !type->is_string() || type->get_ref<const std::string&>() != "text") {
      return FieldError(name + ".type", "only parts of type \"text\" are supported");
    }
    auto value = part.find("text");
    if (value == part.end() || !value->is_string()) return FieldError(name + ".text", "expected a string");
    text += value->get_ref<const std::string&>();
  }
  return text;
}

// ---- Tools ----------------------------------------------------------------------------------------------------------

// {"type": "function", "function": {...}}: the inner object.
const Json* ReadFunction(FieldReader& reader, const std::string& field, const Json& json) {
  if (!json.is_object()) return reader.Fail(WrongType(field, "an object", json)), nullptr;
  auto type = json.find("type");
  if (type == json.end() || !type->is_string() || type->get_ref<const std::string&>() != "function") {
    return reader.Fail(FieldError(field + ".type", "only \"function\" is supported")), nullptr;
  }
  auto function = json.find("function");
  if (function == json.end()) return reader.Fail(FieldError(field + ".function", "missing")), nullptr;
  if (!function->is_object()) return reader.Fail(WrongType(field + ".function", "an object", *function)), nullptr;
  return &*function;
}

std::string ReadRequired(FieldReader& reader, const char* field, size_t max_bytes) {
  std::string text;
  reader.String(field, max_bytes, text);
  if (reader.status().ok() && text.empty()) reader.Fail(FieldError(reader.Name(field), "missing; expected a string"));
  return text;
}

void ReadTools(FieldReader& reader, std::string_view body, std::vector<Tool>& tools) {
  const Json* list = reader.Find("tools");
  if (list == nullptr) return;
  const std::vector<std::string> parameters_as_written = ToolParameters(body);
  if (!list->is_array()) return reader.Fail(WrongType("tools", "an array", *list));
  for (size_t i = 0; i < list->size() && reader.status().ok(); ++i) {
    const std::string field = absl::StrFormat("tools[%d]", i);
    const Json* function = ReadFunction(reader, field, (*list)[i]);
    if (function == nullptr) return;
    FieldReader inner(*function, field + ".function.");
    Tool tool;
    tool.name = ReadRequired(inner, "name", kMaxToolNameBytes);
    inner.String("description", kMaxToolBytes, tool.description);
    if (const Json* parameters = inner.Find("parameters")) {
      if (!parameters->is_object()) inner.Fail(WrongType(inner.Name("parameters"), "an object", *parameters));
      tool.parameters = i < parameters_as_written.size() ? parameters_as_written[i] : DumpJson(*parameters);
    }
    inner.Bool("strict", tool.strict);
    reader.Fail(inner.status());
    tools.push_back(std::move(tool));
  }
}

void ReadToolChoice(FieldReader& reader, ToolChoice& choice) {
  const Json* value = reader.Find("tool_choice");
  if (value == nullptr) return;
  if (value->is_object()) {
    const Json* function = ReadFunction(reader, "tool_choice", *value);
    if (function == nullptr) return;
    FieldReader inner(*function, "tool_choice.function.");
    choice.mode = ToolChoice::Mode::kRequired;
    choice.name = ReadRequired(inner, "name", kMaxToolNameBytes);
    return reader.Fail(inner.status());
  }
  const std::string text = value->is_string() ? value->get<std::string>() : "";
  if (text == "none") {
    choice.mode = ToolChoice::Mode::kNone;
  } else if (text == "required") {
    choice.mode = ToolChoice::Mode::kRequired;
  } else if (text != "auto") {
    reader.Fail(FieldError("tool_choice",
                           "expected \"auto\", \"none\", \"required\" or a function's name in an object, "
                           "found " +
                               DumpJson(*value).substr(0, 64)));
  }
}

void SetThinking(FieldReader& reader, const std::string& field, bool asked, std::optional<bool>& thinking) {
  if (thinking.value_or(asked) != asked) {
    return reader.Fail(FieldError(field, "contradicts another field that says whether to think; send one of them"));
  }
  thinking = asked;
}

// Whether to think has several names, of which all are known here.
void ReadThinking(FieldReader& reader, std::optional<bool>& thinking) {
  if (reader.Find("enable_thinking") != nullptr) {
    bool asked = false;
    reader.Bool("enable_thinking", asked);
    SetThinking(reader, "enable_thinking", asked, thinking);
  }
  if (const Json* effort = reader.Find("reasoning_effort")) {
    if (*effort != "none") {
      return reader.Fail(FieldError("reasoning_effort",
                                    "an effort of thoughts is not supported; only \"none\" is, or "
                                    "leave the field out"));
    }
    SetThinking(reader, "reasoning_effort", false, thinking);
  }
  const Json* value = reader.Find("thinking");
  if (value == nullptr) return;
  if (!value->is_object()) return reader.Fail(WrongType("thinking", "an object with a type", *value));
  for (const auto& item : value->items()) {
    if (item.key() == "type") continue;
    return reader.Fail(FieldError("thinking." + item.key().substr(0, 64), "not supported; only type is"));
  }
  std::string type;
  FieldReader inner(*value, "thinking.");
  inner.String("type", 64, type);
  reader.Fail(inner.status());
  if (type != "enabled" && type != "disabled") {
    return reader.Fail(
        FieldError("thinking.type", absl::StrFormat("expected \"enabled\" or \"disabled\", found \"%s\"", type)));
  }
  SetThinking(reader, "thinking.type", type == "enabled", thinking);
}

// Fields beside OpenAI's that say how the conversation is rendered.
void ReadTemplateFields(FieldReader& reader, ChatRequest& request) {
  if (reader.Find("continue_final_message") != nullptr) {
    request.continue_final_message.emplace();
    reader.Bool("continue_final_message", *request.continue_final_message);
  }
  ReadThinking(reader, request.thinking);
  const Json* kwargs = reader.Find("chat_template_kwargs");
  if (kwargs == nullptr) return;
  if (!kwargs->is_object()) return reader.Fail(WrongType("chat_template_kwargs", "an object", *kwargs));
  for (const auto& item : kwargs->items()) {
    if (item.key() == "enable_thinking") continue;
    return reader.Fail(
        FieldError("chat_template_kwargs." + item.key().substr(0, 64), "not known; only enable_thinking is"));
  }
  FieldReader inner(*kwargs, "chat_template_kwargs.");
  if (inner.Find("enable_thinking") == nullptr) return;
  bool thinking = false;
  inner.Bool("enable_thinking", thinking);
  reader.Fail(inner.status());
  SetThinking(reader, "chat_template_kwargs.enable_thinking", thinking, request.thinking);
}

absl::Status ReadToolCalls(const Json& json, const std::string& prefix, std::vector<ToolCall>& calls) {
  FieldReader message(json, prefix + ".");
  const Json* list = message.Find("tool_calls");
  if (list == nullptr) return absl::OkStatus();
  const std::string field = message.Name("tool_calls");
  if (!list->is_array()) return WrongType(field, "an array", *list);
  for (size_t i = 0; i < list->size() && message.status().ok(); ++i) {
    const std::string name = absl::StrFormat("%s[%d]", field, i);
    const Json* function = ReadFunction(message, name, (*list)[i]);
    if (function == nullptr) break;
    FieldReader outer((*list)[i], name + "."), inner(*function, name + ".function.");
    ToolCall call;
    call.id = ReadRequired(outer, "id", kMaxToolIdBytes);
    call.name = ReadRequired(inner, "name", kMaxToolNameBytes);
    inner.String("arguments", kMaxToolBytes, call.arguments);
    message.Fail(outer.status());
    message.Fail(inner.status());
    calls.push_back(std::move(call));
  }
  return message.status();
}

// ---- Messages -------------------------------------------------------------------------------------------------------

absl::StatusOr<Message> ReadMessage(const Json& json, size_t index, const Accepts& accepts) {
  const std::string prefix = absl::StrFormat("messages[%d]", index);
  if (!json.is_object()) return WrongType(prefix, "an object", json);
  auto role = json.find("role");
  if (role == json.end())
    return FieldError(prefix + ".role", "missing; expected \"system\", \"user\" or \"assistant\"");
  if (!role->is_string()) return WrongType(prefix + ".role", "a string", *role);
  Message message;
  message.role = role->get<std::string>();
  if (message.role == "developer") message.role = "system";
  const bool is_tool = message.role == "tool";
  if ((is_tool && !accepts.tools) || message.role == "function") {
    return FieldError(prefix + ".role", "tools are not supported; expected \"system\", \"user\" or \"assistant\"");
  }
  if (message.role != "system" && message.role != "user" && message.role != "assistant" && !is_tool) {
    return FieldError(prefix + ".role",
                      absl::StrFormat("expected \"system\", \"developer\", \"user\" or \"assistant\", "
                                      "found %s",
                                      DumpJson(message.role.substr(0, 64))));
  }
  if (message.role == "assistant") {
    if (accepts.tools) {
      if (absl::Status status = ReadToolCalls(json, prefix, message.tool_calls); !status.ok()) return status;
    }
    FieldReader reader(json, prefix + ".");
    if (!accepts.tools) reader.Unsupported("tool_calls", "tool calls are");
    reader.Unsupported("function_call", "function calls are");
    if (!reader.status().ok()) return reader.status();
  }
  if (is_tool) {
    FieldReader reader(json, prefix + ".");
    message.tool_call_id = ReadRequired(reader, "tool_call_id", kMaxToolIdBytes);
    if (!reader.status().ok()) return reader.status();
  }
  // An assistant that only called tools, or refused, said nothing; clients send null or leave the field out.
  const bool may_be_silent = message.role == "assistant";
  if (may_be_silent && (!json.contains("content") || json["content"].is_null())) return message;
  auto content = ReadContent(json, prefix + ".content");
  if (!content.ok()) return content.status();
  message.content = *std::move(content);
  return message;
}

// ---- Prompts of completions -----------------------------------------------------------------------------------------

absl::Status ReadIds(const Json& list, const std::string& field, std::vector<int32_t>& ids) {
  ids.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& id = list[i];
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() <= std::numeric_limits<int32_t>::max();
    if (!fits) {
      return FieldError(absl::StrFormat("%s[%d]", field, i),
                        "expected a token id, found " + DumpJson(id).substr(0, 64));
    }
    ids.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(const Json& json, const std::string& field, CompletionPrompt& prompt) {
  if (json.is_array() && !json.empty()) return ReadIds(json, field, prompt.ids);
  if (!json.is_string() && !json.is_array()) return WrongType(field, "a string or an array of token ids", json);
  if (json.is_string()) prompt.text = json.get<std::string>();
  return prompt.text.empty() ? FieldError(field, "is empty; expected something to continue") : absl::OkStatus();
}

// One or several; each a text or an array of token ids.
absl::Status ReadPrompts(const Json& json, std::vector<CompletionPrompt>& prompts) {
  const bool several = json.is_array() && !json.empty() && (json.front().is_string() || json.front().is_array());
  if (!several) return ReadPrompt(json, "prompt", prompts.emplace_back());
  if (json.size() > kMaxChoices) {
    return FieldError("prompt", absl::StrFormat("expected at most %d prompts, found %d", kMaxChoices, json.size()));
  }
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string field = json.size() == 1 ? "prompt" : absl::StrFormat("prompt[%d]", i);
    if (absl::Status status = ReadPrompt(json[i], field, prompts.emplace_back()); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> ParseObject(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return absl::InvalidArgumentError("body: is empty; expected one JSON object");
  }
  auto json = ParseJson(body);
  if (!json.ok()) return json.status();
  if (!json->is_object()) {
    return absl::InvalidArgumentError(absl::StrFormat("body: expected a JSON object, found %s", JsonTypeName(*json)));
  }
  return json;
}

}  // namespace

absl::Status FieldError(std::string_view field, std::string_view message, absl::StatusCode code) {
  absl::Status status(code, absl::StrFormat("%s: %s", std::string(field), std::string(message)));
  status.SetPayload(kFieldPayload, absl::Cord(std::string(field)));
  return status;
}

std::string FieldOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kFieldPayload);
  return payload ? std::string(*payload) : std::string();
}

absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const Accepts& accepts) {
  auto json = ParseObject(body);
  if (!json.ok()) return json.status();
  ChatRequest request;
  auto messages = json->find("messages");
  if (messages == json->end()) return FieldError("messages", "missing; expected an array of messages");
  if (!messages->is_array()) return WrongType("messages", "an array of messages", *messages);
  if (messages->empty() || messages->size() > kMaxMessages) {
    return FieldError("messages",
                      absl::StrFormat("expected 1 to %d messages, found %d", kMaxMessages, messages->size()));
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    auto message = ReadMessage((*messages)[i], i, accepts);
    if (!message.ok()) return message.status();
    request.messages.push_back(*std::move(message));
  }
  const Message& last = request.messages.back();
  if (last.role != "tool" && absl::StripAsciiWhitespace(last.content).empty()) {
    return FieldError(absl::StrFormat("messages[%d].content", messages->size() - 1),
                      "the last message is empty; expected something to answer");
  }
  FieldReader reader(*json);
  ReadParams(reader, body, request.params);
  reader.Unsupported("parse_special", "control tokens in messages are");
  reader.Unsupported("echo", "echoing the conversation is");
  ReadToolChoice(reader, request.tool_choice);
  bool parallel_tool_calls = true;
  reader.Bool("parallel_tool_calls", parallel_tool_calls);
  request.tool_choice.one_call = !parallel_tool_calls;
  if (accepts.tools) {
    ReadTools(reader, body, request.tools);
  } else if (request.tool_choice.mode != ToolChoice::Mode::kNone) {  // with it none of them may be called
    reader.Unsupported("tools", "tools are");
  }
  if (request.tool_choice.mode == ToolChoice::Mode::kRequired && request.tools.empty()) {
    reader.Fail(FieldError("tool_choice", "asks for a call, but there are no tools; expected tools beside it"));
  }
  if (request.params.shape && !request.tools.empty() && request.tool_choice.mode != ToolChoice::Mode::kNone) {
    reader.Fail(FieldError(request.params.shape->field, "does not work with tools; leave one of them out"));
  }
  ReadTemplateFields(reader, request);
  std::optional<int64_t> top_logprobs;
  reader.Bool("logprobs", request.params.logprobs);
  reader.Integer("top_logprobs", 0, 20, top_logprobs);
  if (top_logprobs.value_or(0) > 0 && !request.params.logprobs) {
    reader.Fail(FieldError("top_logprobs", "only allowed together with \"logprobs\": true"));
  }
  request.params.top_logprobs = static_cast<int>(top_logprobs.value_or(0));
  CheckLogprobs(reader, request.params, 1);
  if (!reader.status().ok()) return reader.status();
  return request;
}

absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body) {
  auto json = ParseObject(body);
  if (!json.ok()) return json.status();
  CompletionRequest request;
  auto prompt = json->find("prompt");
  if (prompt == json->end()) return FieldError("prompt", "missing; expected a string");
  if (absl::Status status = ReadPrompts(*prompt, request.prompts); !status.ok()) return status;
  FieldReader reader(*json);
  ReadParams(reader, body, request.params);
  reader.Unsupported("tools", "tools are");
  reader.Bool("parse_special", request.parse_special);
  reader.Bool("echo", request.echo);
  reader.Unsupported("suffix", "a suffix is");
  std::optional<int64_t> logprobs;
  reader.Integer("logprobs", 0, kMaxCompletionLogprobs, logprobs);
  if (request.echo && logprobs) {
    reader.Fail(FieldError("echo", "log probabilities of the prompt are not supported; leave echo or logprobs out"));
  }
  if (request.prompts.size() * static_cast<size_t>(request.params.n) > kMaxChoices) {
    reader.Fail(
        FieldError("n", absl::StrFormat("expected at most %d answers to one request, found %d prompts of %d each",
                                        kMaxChoices, request.prompts.size(), request.params.n)));
  }
  request.params.logprobs = logprobs.has_value();
  request.params.top_logprobs = static_cast<int>(logprobs.value_or(0));
  CheckLogprobs(reader, request.params, request.prompts.size());
  if (!reader.status().ok()) return reader.status();
  return request;
}

}  // namespace updraft::http::openai
