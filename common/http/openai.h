// The part of OpenAI's HTTP API that Updraft speaks: chat completions, completions, models, errors. Requests are parsed
// and checked here; what they mean is the caller's business. Pure functions, thread-safe. Source:
// https://platform.openai.com/docs/api-reference (chat, completions, models).
//
// Unknown fields are ignored. A known field of the wrong type, out of range, or asking for what cannot be done (images,
// and tools unless the caller accepts them) is InvalidArgument; FieldOf(status) names the
// field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/http/json.h"
#include "common/http/server.h"

namespace updraft::http::openai {

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON, as the model wrote it
};

struct Message {
  std::string role;  // "system", "user" or "assistant" ("developer" becomes "system"); "tool" where tools are accepted
  std::string content;                    // UTF-8; text parts are joined
  std::vector<ToolCall> tool_calls = {};  // of an assistant
  std::string tool_call_id = {};          // of a tool
};

struct Tool {
  std::string name;
  std::string description;
  std::string parameters;  // JSON schema, an object, keys in the order of the request; empty: none
  bool strict = false;     // the arguments fit it to the letter
};

struct ToolChoice {
  enum class Mode { kAuto, kNone, kRequired } mode = Mode::kAuto;
  std::string name;       // kRequired: the one to call; empty: any
  bool one_call = false;  // parallel_tool_calls is false
};

inline constexpr size_t kMaxLogitBiases = 1024;
inline constexpr int kMaxChoices = 128;  // of one answer

struct LogitBias {
  int32_t token = 0;  // >= 0
  double bias = 0.0;  // [-100, 100]
};

// What the answer must look like.
struct Shape {
  enum class Kind { kJsonSchema, kRegex, kGrammar, kChoice } kind = Kind::kJsonSchema;
  std::string text;                // of the first three
  std::vector<std::string> texts;  // kChoice
  std::string field;               // that asked for it
};

// What both kinds of completion share.
struct GenerationParams {
  std::string model;              // empty: the server's
  std::optional<int> max_tokens;  // >= 1; max_completion_tokens wins over max_tokens; none: until the end
  double temperature = 0.0;  // [0, 2]; 0 (the default here: answers drive actions, so they should repeat) is greedy
  double top_p = 1.0;        // (0, 1]; a request's 0 is the most likely token, a very small nucleus
  int top_k = 0;             // >= 0; 0, or a request's -1: all; extension, as are the next two
  double min_p = 0.0;        // [0, 1)
  double repetition_penalty = 1.0;  // (0, 10]
  double presence_penalty = 0.0;    // [-2, 2], as is the next
  double frequency_penalty = 0.0;
  std::vector<LogitBias> logit_bias;  // ascending tokens, each once; at most kMaxLogitBiases
  int n = 1;                          // choices, [1, kMaxChoices]
  std::optional<uint64_t> seed;
  std::optional<Shape> shape;
  std::vector<std::string> stop;  // at most 16 of 1..128 bytes; empty ones of a request are left out
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  bool logprobs = false;
  int top_logprobs = 0;  // [0, 20]; likeliest tokens listed beside each
};

struct ChatRequest {
  std::vector<Message> messages;  // at least one; the last is not empty
  GenerationParams params;
  std::vector<Tool> tools = {};
  ToolChoice tool_choice = {};
  // As vLLM has it: whether the answer goes on with the last message. Nullopt: where that is an assistant's.
  std::optional<bool> continue_final_message = {};
  // chat_template_kwargs.enable_thinking, or enable_thinking beside it, or thinking.type as Anthropic has it.
  std::optional<bool> thinking = {};
};

struct CompletionPrompt {
  std::string text;          // not empty, or
  std::vector<int32_t> ids;  // token ids, each >= 0
};

struct CompletionRequest {
  std::vector<CompletionPrompt> prompts;  // at least one; with params.n at most kMaxChoices answers
  bool parse_special = false;             // ours: control tokens written in a text become those tokens
  bool echo = false;                      // each answer begins with its prompt
  GenerationParams params;
};

// What stands behind the server can do.
struct Accepts {
  bool tools = false;  // otherwise tools, calls and results are refused
};

absl::StatusOr<ChatRequest> ParseChatRequest(std::string_view body, const Accepts& accepts = {});
absl::StatusOr<CompletionRequest> ParseCompletionRequest(std::string_view body);

// An InvalidArgument (or `code`) that names the request's field, e.g. "messages[2].role".
absl::Status FieldError(std::string_view field, std::string_view message,
                        absl::StatusCode code = absl::StatusCode::kInvalidArgument);
// The field named by FieldError, or empty.
std::string FieldOf(const absl::Status& status);

// ---- Answers ------------------------------------------------------------------------------------------------------

struct Usage {
  int prompt_tokens = 0;
  int completion_tokens = 0;
  int cached_tokens = 0;  // of the prompt's; 0: not told
};

struct LikelyToken {
  std::string bytes;     // need not be whole characters
  double logprob = 0.0;  // nats
};

struct TokenLogprob {
  std::string bytes;
  double logprob = 0.0;
  size_t text_offset = 0;             // where its text begins in the answer's, in characters (code points)
  std::vector<LikelyToken> top = {};  // likeliest first; the token itself need not be among them
};

// What every object of one answer repeats.
struct AnswerHeader {
  std::string id;  // e.g. "chatcmpl-..."
  std::string model;
  int64_t created = 0;    // Unix seconds
  bool chat = true;       // chat.completion, otherwise text_completion
  bool logprobs = false;  // asked for
  int top_logprobs = 0;
  bool may_call = false;  // tools: a stream need not have content
};

struct Choice {
  std::string text;
  std::string finish_reason;  // "stop", "length", "tool_calls"; "unknown": of a newer tier
  std::vector<TokenLogprob> logprobs = {};
  Json updraft = nullptr;  // provenance; null: none
  std::vector<ToolCall> tool_calls = {};
};

// Provenance is the field "updraft": of the object where there is one choice, of each choice where there are several.
Json AnswerObject(const AnswerHeader& header, const std::vector<Choice>& choices, const Usage& usage);

// Objects of a stream. Of each choice: one opening (chat only: it carries the role), any number of deltas, one closing
// with provenance in "updraft"; of all, a usage object if the request asked for it.
Json StreamOpening(const AnswerHeader& header, int choice = 0);
Json StreamDelta(const AnswerHeader& header, const std::string& text, const std::vector<TokenLogprob>& logprobs,
                 int choice = 0);
// A call of a tool, index-th of its choice: its beginning, and what goes on with its arguments.
Json StreamCallOpening(const AnswerHeader& header, int index, const std::string& id, const std::string& name,
                       int choice = 0);
Json StreamCallDelta(const AnswerHeader& header, int index, const std::string& arguments, int choice = 0);
Json StreamClosing(const AnswerHeader& header, const std::string& finish_reason, const Json& updraft, int choice = 0);
Json StreamUsage(const AnswerHeader& header, const Usage& usage);

// One server-sent event carrying `value`, and the one that ends a stream (WHATWG HTML, section 9.2).
std::string ServerSentEvent(const Json& value);
inline constexpr std::string_view kStreamEnd = "data: [DONE]\n\n";
// A comment, which clients of server-sent events pass over. queue_place: how many requests come before this one, if it
// waits.
std::string StreamKeepAlive(std::optional<int> queue_place);

struct ModelEntry {
  std::string id;
  int64_t created = 0;
  int max_model_len = 0;  // tokens of prompt and answer together; a field of vLLM's
  std::string owned_by = "updraft";
};
Json ModelObject(const ModelEntry& model);
Json ModelList(const std::vector<ModelEntry>& models);

// ---- Errors -------------------------------------------------------------------------------------------------------

// 400, 403, 404, 429, 499, 500, 501, 503, 504, ... by the status's code; 415 where an InvalidArgument names the header
// Content-Type or Content-Encoding, 422 where it names "request_id": the id is another request's.
int HttpStatusOf(const absl::Status& status);
// {"error": {"message", "type", "param", "code", "request_id"}}. request_id: ours; empty: left out.
Json ErrorObject(const absl::Status& status, const std::string& request_id = "");
// The whole answer. ResourceExhausted and Unavailable carry Retry-After: the status's retry delay (common/status), or
// one second.
Response ErrorResponse(const absl::Status& status, const std::string& request_id = "");
// What the HTTP server itself refuses, in the same form.
Response ServerErrorBody(int http_status, const std::string& message, const std::string& request_id = "");

}  // namespace updraft::http::openai
