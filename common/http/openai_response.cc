#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/http/openai.h"
#include "common/status/retry_delay.h"

namespace updraft::http::openai {

namespace {

// JSON has no infinities: the lowest float stands for log 0, as OpenAI's own servers give -9999.
double FiniteLogprob(double logprob) { return std::isfinite(logprob) ? logprob : -9999.0; }

Json LogprobEntry(const std::string& token, double logprob) {
  Json bytes = Json::array();
  for (const unsigned char byte : token) bytes.push_back(byte);
  return {{"token", token}, {"logprob", FiniteLogprob(logprob)}, {"bytes", std::move(bytes)}};
}

Json ChatLogprobs(const std::vector<TokenLogprob>& tokens) {
  Json content = Json::array();
  for (const TokenLogprob& token : tokens) {
    Json entry = LogprobEntry(token.bytes, token.logprob);
    entry["top_logprobs"] = Json::array();
    for (const LikelyToken& likely : token.top) {
      entry["top_logprobs"].push_back(LogprobEntry(likely.bytes, likely.logprob));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// A key cannot hold what is no text, and two such tokens are not one: as OpenAI spells them.
std::string Spelled(const std::string& token) {
  if (Json::parse(DumpJson(token)) == Json(token)) return token;
  std::string spelled = "bytes:";
  for (const unsigned char byte : token) spelled += absl::StrFormat("\\x%02x", byte);
  return spelled;
}

Json CompletionLogprobs(const AnswerHeader& header, const std::vector<TokenLogprob>& tokens) {
  Json result = {{"tokens", Json::array()}, {"token_logprobs", Json::array()}, {"text_offset", Json::array()}};
  Json top = Json::array();
  for (const TokenLogprob& token : tokens) {
    result["tokens"].push_back(Spelled(token.bytes));
    result["token_logprobs"].push_back(FiniteLogprob(token.logprob));
    result["text_offset"].push_back(token.text_offset);
    // As OpenAI has it: the chosen token is there, too, also where it is none of the likeliest.
    Json likely = {{Spelled(token.bytes), FiniteLogprob(token.logprob)}};
    for (const LikelyToken& other : token.top) likely.emplace(Spelled(other.bytes), FiniteLogprob(other.logprob));
    top.push_back(std::move(likely));
  }
  result["top_logprobs"] = header.top_logprobs > 0 ? std::move(top) : Json(nullptr);
  return result;
}

Json Logprobs(const AnswerHeader& header, const std::vector<TokenLogprob>& tokens) {
  if (!header.logprobs) return nullptr;
  return header.chat ? ChatLogprobs(tokens) : CompletionLogprobs(header, tokens);
}

Json UsageObject(const Usage& usage) {
  Json object = {{"prompt_tokens", usage.prompt_tokens},
                 {"completion_tokens", usage.completion_tokens},
                 {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
  if (usage.cached_tokens > 0) object["prompt_tokens_details"] = {{"cached_tokens", usage.cached_tokens}};
  return object;
}

Json Envelope(const AnswerHeader& header, const char* chat_object) {
  return {{"id", header.id},
          {"object", header.chat ? chat_object : "text_completion"},
          {"created", header.created},
          {"model", header.model}};
}

Json CallObject(const ToolCall& call) {
  return {{"id", call.id}, {"type", "function"}, {"function", {{"name", call.name}, {"arguments", call.arguments}}}};
}

// One object of a stream, of one choice. `delta` is the chat form's; `text` the completion form's.
Json StreamObject(const AnswerHeader& header, int index, Json delta, const std::string& text, Json finish_reason,
                  Json logprobs) {
  Json choice = {{"index", index}, {"finish_reason", std::move(finish_reason)}, {"logprobs", std::move(logprobs)}};
  if (header.chat) {
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = text;
  }
  Json object = Envelope(header, "chat.completion.chunk");
  object["choices"] = Json::array({std::move(choice)});
  return object;
}

const char* ErrorType(int http_status) {
  switch (http_status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return http_status < 500 ? "invalid_request_error" : "server_error";
  }
}

Json ErrorJson(int http_status, const std::string& message, const std::string& field, Json code,
               const std::string& request_id) {
  Json error = {{"message", message},
                {"type", ErrorType(http_status)},
                {"param", field.empty() ? Json(nullptr) : Json(field)},
                {"code", std::move(code)}};
  if (!request_id.empty()) error["request_id"] = request_id;
  return {{"error", std::move(error)}};
}

Json ErrorCode(const absl::Status& status, const std::string& field) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return field == "model" ? "model_not_found" : "not_found";
    case absl::StatusCode::kPermissionDenied:
      return "forbidden";
    case absl::StatusCode::kUnauthenticated:
      return "invalid_api_key";
    case absl::StatusCode::kResourceExhausted:
      return "rate_limit_exceeded";
    case absl::StatusCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case absl::StatusCode::kOutOfRange:
      return "context_length_exceeded";
    default:
      return nullptr;
  }
}

}  // namespace

Json AnswerObject(const AnswerHeader& header, const std::vector<Choice>& choices, const Usage& usage) {
  Json object = Envelope(header, "chat.completion");
  object["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& made = choices[i];
    Json choice = {{"index", i}, {"finish_reason", made.finish_reason}, {"logprobs", Logprobs(header, made.logprobs)}};
    if (header.chat) {
      const bool only_calls = made.text.empty() && !made.tool_calls.empty();
      choice["message"] = {
          {"role", "assistant"}, {"content", only_calls ? Json(nullptr) : Json(made.text)}, {"refusal", nullptr}};
      for (const ToolCall& call : made.tool_calls) choice["message"]["tool_calls"].push_back(CallObject(call));
    } else {
      choice["text"] = made.text;
    }
    if (!made.updraft.is_null()) (choices.size() == 1 ? object : choice)["updraft"] = made.updraft;
    object["choices"].push_back(std::move(choice));
  }
  object["usage"] = UsageObject(usage);
  return object;
}

Json StreamOpening(const AnswerHeader& header, int choice) {
  const Json content = header.may_call ? Json(nullptr) : Json("");
  return StreamObject(header, choice, {{"role", "assistant"}, {"content", content}}, "", nullptr, nullptr);
}

Json StreamDelta(const AnswerHeader& header, const std::string& text, const std::vector<TokenLogprob>& logprobs,
                 int choice) {
  return StreamObject(header, choice, {{"content", text}}, text, nullptr, Logprobs(header, logprobs));
}

Json StreamCallOpening(const AnswerHeader& header, int index, const std::string& id, const std::string& name,
                       int choice) {
  Json call = CallObject({.id = id, .name = name, .arguments = ""});
  call["index"] = index;
  return StreamObject(header, choice, {{"tool_calls", Json::array({std::move(call)})}}, "", nullptr, nullptr);
}

Json StreamCallDelta(const AnswerHeader& header, int index, const std::string& arguments, int choice) {
  Json call = {{"index", index}, {"function", {{"arguments", arguments}}}};
  return StreamObject(header, choice, {{"tool_calls", Json::array({std::move(call)})}}, "", nullptr, nullptr);
}

Json StreamClosing(const AnswerHeader& header, const std::string& finish_reason, const Json& updraft, int choice) {
  Json object = StreamObject(header, choice, Json::object(), "", finish_reason, nullptr);
  if (!updraft.is_null()) object["updraft"] = updraft;
  return object;
}

Json StreamUsage(const AnswerHeader& header, const Usage& usage) {
  Json object = Envelope(header, "chat.completion.chunk");
  object["choices"] = Json::array();
  object["usage"] = UsageObject(usage);
  return object;
}

std::string ServerSentEvent(const Json& value) { return "data: " + DumpJson(value) + "\n\n"; }

std::string StreamKeepAlive(std::optional<int> queue_place) {
  if (!queue_place) return ": keep-alive\n\n";
  return absl::StrFormat(": keep-alive, queued behind %d\n\n", *queue_place);
}

Json ModelObject(const ModelEntry& model) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", model.owned_by},
          {"max_model_len", model.max_model_len}};
}

Json ModelList(const std::vector<ModelEntry>& models) {
  Json data = Json::array();
  for (const ModelEntry& model : models) data.push_back(ModelObject(model));
  return {{"object", "list"}, {"data", std::move(data)}};
}

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument: {
      const std::string field = FieldOf(status);
      if (field == "Content-Type" || field == "Content-Encoding") return 415;
      return field == "request_id" ? 422 : 400;
    }
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kAlreadyExists:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kCancelled:
      return 499;  // the client closed the request; no standard status says so
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

Json ErrorObject(const absl::Status& status, const std::string& request_id) {
  const std::string field = FieldOf(status);
  return ErrorJson(HttpStatusOf(status), std::string(status.message()), field, ErrorCode(status, field), request_id);
}

Response ErrorResponse(const absl::Status& status, const std::string& request_id) {
  Response response;
  response.status = HttpStatusOf(status);
  response.body = DumpJson(ErrorObject(status, request_id));
  if (response.status == 429 || response.status == 503) {
    const absl::Duration delay = RetryDelayOf(status).value_or(absl::Seconds(1));
    const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(delay, absl::Seconds(1)));
    response.headers.emplace_back("Retry-After", absl::StrFormat("%d", std::max<int64_t>(seconds, 1)));
    // What OpenAI's clients look at first; whole seconds are long for a device.
    response.headers.emplace_back("Retry-After-Ms",
                                  absl::StrFormat("%d", std::max<int64_t>(absl::ToInt64Milliseconds(delay), 1)));
  }
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");  // RFC 9110, section 15.5.2
  // What may be sent instead (RFC 9110, section 15.5.16).
  if (FieldOf(status) == "Content-Encoding") response.headers.emplace_back("Accept-Encoding", "identity");
  return response;
}

Response ServerErrorBody(int http_status, const std::string& message, const std::string& request_id) {
  return Response{
      http_status, "application/json", DumpJson(ErrorJson(http_status, message, "", nullptr, request_id)), {}};
}

}  // namespace updraft::http::openai
