#include "common/serving/http_front.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/http/openai.h"
#include "common/routing/names.h"
#include "common/rpc/convert.h"
#include "common/rpc/process.h"
#include "common/serving/health_watch.h"
#include "common/serving/http_answer.h"
#include "common/serving/request_check.h"
#include "common/serving/shapes.h"
#include "common/telemetry/log.h"

namespace updraft {

namespace {

using http::Exchange;
using http::Response;
namespace openai = http::openai;

constexpr char kAnyModel[] = "updraft";  // a name that always fits, whatever file is loaded
constexpr int64_t kMaxDeadline_ms = 24 * 3600 * 1000;
constexpr int64_t kMaxBudgetTokens = 1 << 20;
constexpr size_t kMaxLoggedBytes = 200;  // of a path
constexpr size_t kMaxEchoBytes = 1 << 20;

// ---- Headers --------------------------------------------------------------------------------------------------------

struct HeaderFields {
  std::string request_id;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  v1::TierChoice tier = v1::TIER_CHOICE_UNSPECIFIED;
  int budget_tokens = 0;  // 0: none
  int priority = 0;
  std::string tenant;
};

absl::StatusOr<v1::TierChoice> TierOf(const http::Request& request) {
  const std::string_view value = request.header("x-updraft-tier");
  if (value.empty()) return v1::TIER_CHOICE_UNSPECIFIED;
  if (const auto asked = FromName<PolicyMode>(value)) return AskedToProto(*asked);
  return openai::FieldError("X-Updraft-Tier", absl::StrFormat("expected local, upstream or auto, found '%s'",
                                                              std::string(value.substr(0, 64))));
}

// Absent: 0.
absl::StatusOr<int64_t> CountOf(const http::Request& request, const char* name, const char* of, int64_t most) {
  const std::string_view value = request.header(absl::AsciiStrToLower(name));
  int64_t count = 0;
  if (value.empty() || (absl::SimpleAtoi(std::string(value), &count) && count >= 1 && count <= most)) return count;
  return openai::FieldError(name, absl::StrFormat("expected a whole number of %s in [1, %d], found '%s'", of, most,
                                                  std::string(value.substr(0, 64))));
}

// The id that the response has: the caller's; one that cannot be is not given back, and one is made in its place.
std::string RequestIdOf(const http::Request& request) {
  const std::string id(request.header("x-request-id"));
  return !id.empty() && CheckId("", id).ok() ? id : NewRequestId();
}

absl::Status ReadPriority(const http::Request& request, int& priority) {
  const std::string value(request.header("x-updraft-priority"));
  if (value.empty() || (absl::SimpleAtoi(value, &priority) && priority >= -kMaxPriority && priority <= kMaxPriority)) {
    return absl::OkStatus();
  }
  return openai::FieldError("X-Updraft-Priority", absl::StrFormat("expected a whole number in [%d, %d], found '%s'",
                                                                  -kMaxPriority, kMaxPriority, value.substr(0, 64)));
}

absl::Status ReadHeaders(const http::Request& request, HeaderFields& fields) {
  fields.request_id = RequestIdOf(request);
  if (!CheckId("", std::string(request.header("x-request-id"))).ok()) {
    return openai::FieldError("X-Request-Id", absl::StrFormat("expected at most %d printable ASCII characters without "
                                                              "spaces",
                                                              kMaxIdBytes));
  }
  auto tier = TierOf(request);
  if (!tier.ok()) return tier.status();
  fields.tier = *tier;
  const auto deadline_ms = CountOf(request, "X-Updraft-Deadline-Ms", "milliseconds", kMaxDeadline_ms);
  if (!deadline_ms.ok()) return deadline_ms.status();
  if (*deadline_ms > 0) fields.deadline = request.arrived + absl::Milliseconds(*deadline_ms);
  const auto budget = CountOf(request, "X-Updraft-Budget-Tokens", "tokens", kMaxBudgetTokens);
  if (!budget.ok()) return budget.status();
  fields.budget_tokens = static_cast<int>(*budget);
  fields.tenant = std::string(request.header("x-updraft-tenant"));
  if (!CheckId("", fields.tenant).ok()) {
    return openai::FieldError("X-Updraft-Tenant",
                              absl::StrFormat("expected at most %d printable ASCII characters without "
                                              "spaces",
                                              kMaxIdBytes));
  }
  return ReadPriority(request, fields.priority);
}

// ---- Keys -----------------------------------------------------------------------------------------------------------

bool IsForEverybody(const http::Request& head) {
  std::string_view path = head.path;
  if (path.ends_with('/')) path.remove_suffix(1);
  return path == "/healthz" || path == "/health";
}

// Whose key came with it; empty where anybody may ask.
absl::StatusOr<std::string> TenantOfKey(const ApiKeys* keys, const http::Request& head) {
  if (keys == nullptr || IsForEverybody(head)) return "";
  const std::string_view authorization = head.header("authorization"), key = head.header("x-api-key");
  return authorization.empty() ? keys->TenantOf(key) : keys->TenantOfAuthorization(authorization);
}

// ---- Requests -------------------------------------------------------------------------------------------------------

void FillToolChoice(const openai::ToolChoice& parsed, v1::GenerateRequest& request) {
  using Mode = openai::ToolChoice::Mode;
  if (parsed.mode == Mode::kAuto && !(parsed.one_call && request.tools_size() > 0)) return;
  v1::ToolChoice* choice = request.mutable_tool_choice();
  choice->set_name(parsed.name);
  choice->set_one_call(parsed.one_call);
  if (parsed.mode == Mode::kNone) choice->set_mode(v1::ToolChoice::MODE_NONE);
  if (parsed.mode == Mode::kRequired) choice->set_mode(v1::ToolChoice::MODE_REQUIRED);
}

void FillConversation(openai::ChatRequest& parsed, v1::GenerateRequest& request) {
  for (openai::Message& message : parsed.messages) {
    v1::Message* out = request.mutable_conversation()->add_messages();
    out->set_role(std::move(message.role));
    out->set_content(std::move(message.content));
    out->set_tool_call_id(std::move(message.tool_call_id));
    for (openai::ToolCall& call : message.tool_calls) {
      v1::ToolCall* made = out->add_tool_calls();
      made->set_id(std::move(call.id));
      made->set_name(std::move(call.name));
      made->set_arguments(std::move(call.arguments));
    }
  }
  if (parsed.continue_final_message) {
    request.mutable_conversation()->set_continue_final_message(*parsed.continue_final_message);
  }
  if (parsed.thinking) request.mutable_conversation()->set_thinking(*parsed.thinking);
  for (openai::Tool& tool : parsed.tools) {
    v1::Tool* out = request.add_tools();
    out->set_name(std::move(tool.name));
    out->set_description(std::move(tool.description));
    out->set_parameters(std::move(tool.parameters));
    out->set_strict(tool.strict);
  }
  FillToolChoice(parsed.tool_choice, request);
}

// The smaller of what the header and the body allow.
int MaxTokensOf(const openai::GenerationParams& params, int budget) {
  const int asked = params.max_tokens.value_or(0);
  return budget > 0 && (asked == 0 || budget < asked) ? budget : asked;
}

void FillParams(const openai::GenerationParams& params, const HeaderFields& headers, v1::GenerateRequest& request) {
  request.set_max_tokens(MaxTokensOf(params, headers.budget_tokens));
  for (const std::string& stop : params.stop) request.add_stop(stop);
  request.set_include_evidence(params.logprobs);
  request.set_top_logprobs(params.top_logprobs);
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->set_temperature(static_cast<float>(params.temperature));
  sampling->set_top_p(static_cast<float>(params.top_p));
  sampling->set_top_k(params.top_k);
  sampling->set_min_p(static_cast<float>(params.min_p));
  sampling->set_repetition_penalty(static_cast<float>(params.repetition_penalty));
  // The same request sent again asks for the same answer.
  sampling->set_seed(params.seed ? *params.seed : absl::HashOf(headers.request_id));
  sampling->set_presence_penalty(static_cast<float>(params.presence_penalty));
  sampling->set_frequency_penalty(static_cast<float>(params.frequency_penalty));
  for (const openai::LogitBias& bias : params.logit_bias) {
    v1::LogitBias::Entry* entry = sampling->mutable_logit_bias()->add_entries();
    entry->set_token(bias.token);
    entry->set_bias(static_cast<float>(bias.bias));
  }
}

void FillShape(const openai::Shape& shape, v1::GenerateRequest& request) {
  request.clear_tools();  // which may not be called
  request.mutable_tool_choice()->set_mode(v1::ToolChoice::MODE_SHAPE);
  request.mutable_tool_choice()->clear_name();
  v1::Shape* out = request.mutable_shape();
  using Kind = openai::Shape::Kind;
  switch (shape.kind) {
    case Kind::kJsonSchema:
      out->set_json_schema(shape.text);
      break;
    case Kind::kRegex:
      out->set_regex(shape.text);
      break;
    case Kind::kGrammar:
      out->set_grammar(shape.text);
      break;
    case Kind::kChoice:
      for (const std::string& text : shape.texts) out->mutable_choice()->add_texts(text);
      break;
  }
}

// What makes one choice of a request that asks for several: it is the answer that the request would get with this
// prompt and this seed, so that each can be had again alone. The first is as if it were the only one.
void BecomeChoice(int index, int n_of_prompt, v1::GenerateRequest& request) {
  if (index == 0) return;
  request.mutable_sampling()->set_seed(request.sampling().seed() + static_cast<uint64_t>(index % n_of_prompt));
  const std::string suffix = absl::StrCat("/", index);
  request.set_request_id(request.request_id().substr(0, kMaxIdBytes - suffix.size()) + suffix);
}

absl::Status CheckModel(const std::string& asked, const std::string& served) {
  if (asked.empty() || asked == served || asked == kAnyModel) return absl::OkStatus();
  return openai::FieldError("model",
                            absl::StrFormat("no model '%s' here; ask for '%s' or '%s'", asked, served, kAnyModel),
                            absl::StatusCode::kNotFound);
}

// The daemon checks them, too, but does not know the field's name here.
absl::Status CheckBiases(const std::vector<openai::LogitBias>& biases, const ServedModel& model) {
  const int32_t n_vocab = model.tokenizer()->vocab_size();
  if (biases.empty() || biases.back().token < n_vocab) return absl::OkStatus();  // they ascend
  return openai::FieldError(
      "logit_bias", absl::StrFormat("expected token ids in [0, %d) as keys, found %d", n_vocab, biases.back().token));
}

// The same of a shape. What is made ready here is found again when the prompt is made.
absl::Status CheckShapeOf(const openai::GenerationParams& params, const ServedModel& model) {
  if (!params.shape) return absl::OkStatus();
  v1::GenerateRequest request;
  FillShape(*params.shape, request);
  absl::Status status = CheckShape(request.shape());
  if (status.ok()) status = model.CheckShapeHere(request.shape());
  return status.ok() ? status : openai::FieldError(params.shape->field, std::string(status.message()), status.code());
}

// And of tools.
absl::Status CheckCallsOf(const v1::GenerateRequest& request, const ServedModel& model) {
  if (request.tools_size() == 0 || !CheckRequest(request).ok())
    return absl::OkStatus();  // the backend says what is wrong
  absl::Status status = model.CheckCallsHere(request);
  if (status.ok()) return status;
  const std::string message(status.message());  // FIELD: what is wrong
  const size_t colon = message.find(": ");
  if (colon == std::string::npos) return openai::FieldError("tools", message, status.code());
  const std::string field = absl::StrReplaceAll(message.substr(0, colon), {{"].", "].function."}});
  return openai::FieldError(field, message.substr(colon + 2), status.code());
}

// How calls of tools are read out of the answers; none: they are not looked for.
std::optional<CallReading> CallsOf(const openai::ChatRequest& parsed, const ServedModel& model) {
  if (parsed.tools.empty() || parsed.tool_choice.mode == openai::ToolChoice::Mode::kNone) return std::nullopt;
  return CallReading{.format = model.call_format(),
                     .markers = model.call_markers(),
                     .one_call = parsed.tool_choice.one_call,
                     .was_named = !parsed.tool_choice.name.empty()};
}

// What an answer is of.
struct Wanted {
  bool chat = true;
  std::optional<CallReading> calls = {};
  std::vector<v1::GenerateRequest> requests = {};  // one per prompt, with its input
  std::vector<std::string> echo = {};              // beside them; none: the answers stand alone
};

HttpAnswerOptions OptionsOf(const openai::GenerationParams& params, const Wanted& wanted, const HeaderFields& headers,
                            const ServedModel& model) {
  HttpAnswerOptions options;
  options.request_id = headers.request_id;
  options.stream = params.stream;
  options.include_usage = params.include_usage;
  options.header.id = (wanted.chat ? "chatcmpl-" : "cmpl-") + headers.request_id;
  options.header.model = model.name();
  options.header.created = absl::ToUnixSeconds(absl::Now());
  options.header.chat = wanted.chat;
  options.header.logprobs = params.logprobs;
  options.header.top_logprobs = params.top_logprobs;
  options.header.may_call = wanted.calls.has_value();
  options.n_prompts = static_cast<int>(wanted.requests.size());
  options.n_choices = options.n_prompts * params.n;
  options.echo = wanted.echo;
  options.calls = wanted.calls;
  return options;
}

// What both kinds of completion have in common, from the parsed parameters to the running requests.
absl::Status Serve(Backend* backend, const std::shared_ptr<Exchange>& exchange, const openai::GenerationParams& params,
                   const HeaderFields& headers, Wanted wanted) {
  const ServedModel& model = backend->served();
  if (absl::Status status = CheckModel(params.model, model.name()); !status.ok()) return status;
  if (absl::Status status = CheckBiases(params.logit_bias, model); !status.ok()) return status;
  if (absl::Status status = CheckShapeOf(params, model); !status.ok()) return status;
  if (absl::Status status = CheckCallsOf(wanted.requests[0], model); !status.ok()) return status;
  const HttpAnswerOptions options = OptionsOf(params, wanted, headers, model);
  auto answer = std::make_shared<HttpAnswer>(exchange, model.tokenizer().get(), options);
  std::vector<RequestHandle> handles;
  for (int i = 0; i < options.n_choices && !answer->failed(); ++i) {
    v1::GenerateRequest choice = wanted.requests[static_cast<size_t>(i / params.n)];
    FillParams(params, headers, choice);
    if (params.shape) FillShape(*params.shape, choice);
    choice.set_request_id(headers.request_id);
    choice.set_tier(headers.tier);
    choice.set_priority(headers.priority);
    choice.set_tenant(headers.tenant);
    BecomeChoice(i, params.n, choice);
    handles.push_back(backend->Submit(std::move(choice), headers.deadline, HttpAnswer::SinkOf(answer, i)));
  }
  answer->OnAccepted(handles);
  exchange->OnDisconnect([handles = std::move(handles)] {
    for (const RequestHandle& handle : handles) handle.Cancel();
  });
  return absl::OkStatus();
}

absl::Status ServeChat(Backend* backend, const std::shared_ptr<Exchange>& exchange, const HeaderFields& headers) {
  auto parsed = openai::ParseChatRequest(exchange->request().body, {.tools = backend->served().can_use_tools()});
  if (!parsed.ok()) return parsed.status();
  Wanted wanted{.calls = CallsOf(*parsed, backend->served())};
  FillConversation(*parsed, wanted.requests.emplace_back());
  return Serve(backend, exchange, parsed->params, headers, std::move(wanted));
}

absl::Status CheckIds(const std::vector<int32_t>& ids, const std::string& field, int32_t n_vocab) {
  const auto beyond = std::find_if(ids.begin(), ids.end(), [n_vocab](int32_t id) { return id >= n_vocab; });
  if (beyond == ids.end()) return absl::OkStatus();
  return openai::FieldError(absl::StrFormat("%s[%d]", field, beyond - ids.begin()),
                            absl::StrFormat("expected token ids in [0, %d), found %d", n_vocab, *beyond));
}

absl::StatusOr<std::string> EchoOf(const openai::CompletionPrompt& prompt, const text::Tokenizer& tokenizer,
                                   size_t max_bytes) {
  const auto too_long = [] {
    return openai::FieldError("echo", absl::StrFormat("expected prompts of at most %d bytes, counted once for each "
                                                      "answer, found more; leave echo out",
                                                      kMaxEchoBytes));
  };
  if (prompt.ids.empty())
    return prompt.text.size() <= max_bytes ? prompt.text : absl::StatusOr<std::string>(too_long());
  size_t n_bytes = 0;
  for (const int32_t id : prompt.ids) n_bytes += tokenizer.TokenBytes(id).size();
  if (n_bytes > max_bytes) return too_long();
  return tokenizer.Decode(prompt.ids);
}

absl::Status ServeCompletion(Backend* backend, const std::shared_ptr<Exchange>& exchange, const HeaderFields& headers) {
  auto parsed = openai::ParseCompletionRequest(exchange->request().body);
  if (!parsed.ok()) return parsed.status();
  const ServedModel& model = backend->served();
  Wanted wanted{.chat = false};
  size_t n_echoed = 0;
  for (size_t i = 0; i < parsed->prompts.size(); ++i) {
    openai::CompletionPrompt& prompt = parsed->prompts[i];
    v1::GenerateRequest& request = wanted.requests.emplace_back();
    const std::string field = parsed->prompts.size() == 1 ? "prompt" : absl::StrFormat("prompt[%d]", i);
    if (absl::Status status = CheckIds(prompt.ids, field, model.tokenizer()->vocab_size()); !status.ok()) return status;
    if (parsed->echo) {
      const size_t n_left = kMaxEchoBytes - std::min(kMaxEchoBytes, n_echoed);
      auto echo = EchoOf(prompt, *model.tokenizer(), n_left / static_cast<size_t>(parsed->params.n));
      if (!echo.ok()) return echo.status();
      n_echoed += echo->size() * static_cast<size_t>(parsed->params.n);
      wanted.echo.push_back(*std::move(echo));
    }
    if (prompt.ids.empty()) {
      request.set_prompt(std::move(prompt.text));
      request.set_parse_special(parsed->parse_special);
    } else {
      request.mutable_tokens()->mutable_ids()->Add(prompt.ids.begin(), prompt.ids.end());
      request.mutable_tokens()->set_tokenizer_fingerprint(model.info().tokenizer_fingerprint());
      request.mutable_tokens()->set_raw(true);
    }
  }
  return Serve(backend, exchange, parsed->params, headers, std::move(wanted));
}

// ---- Refusals -------------------------------------------------------------------------------------------------------

// What the backend does not see it cannot count and log.
Response Refused(Metrics* metrics, const http::Request& request, const std::string& id, const std::string& reason,
                 Response response) {
  metrics->OnRefused("http", absl::StrCat(response.status));
  LogEvent(LogLevel::kInfo, "refused",
           {{"id", id},
            {"status", response.status},
            {"method", request.method},
            {"path", request.path.substr(0, kMaxLoggedBytes)},
            {"reason", reason}});
  return WithRequestId(std::move(response), id);
}

// The gate has looked at the key already; by now it may be nobody's any more.
absl::Status TakeTenant(const ApiKeys* keys, const http::Request& request, HeaderFields& headers) {
  if (keys == nullptr) return absl::OkStatus();
  const auto tenant = TenantOfKey(keys, request);
  if (!tenant.ok()) return tenant.status();
  auto below = TenantBelow(*tenant, headers.tenant);
  if (!below.ok()) return openai::FieldError("X-Updraft-Tenant", std::string(below.status().message()));
  headers.tenant = *std::move(below);
  return absl::OkStatus();
}

using Service = absl::Status (*)(Backend*, const std::shared_ptr<Exchange>&, const HeaderFields&);

// Whatever is refused before there is an answer to speak for itself.
http::Handler Handled(Backend* backend, Metrics* metrics, std::shared_ptr<const ApiKeys> keys, Service service) {
  return [backend, metrics, keys = std::move(keys), service](std::shared_ptr<Exchange> exchange) {
    HeaderFields headers;
    absl::Status status = ReadHeaders(exchange->request(), headers);
    if (status.ok()) status = TakeTenant(keys.get(), exchange->request(), headers);
    if (status.ok() && headers.deadline <= SteadyNow()) {
      status = absl::DeadlineExceededError("the deadline passed before the request was read");
    }
    if (status.ok()) status = service(backend, exchange, headers);
    if (status.ok()) return;
    exchange->Respond(Refused(metrics, exchange->request(), headers.request_id, std::string(status.message()),
                              openai::ErrorResponse(status, headers.request_id)));
  };
}

// ---- For operators --------------------------------------------------------------------------------------------------

Response MetricsOf(Backend* backend, Metrics* metrics) {
  const v1::GetStatusResponse status = backend->Status();
  const v1::Load& load = status.load();
  metrics->SetLoad({load.running_requests(), load.queued_requests(), load.kv_used_fraction()});
  const v1::Link& link = status.link();
  metrics->SetLink({!link.upstream().empty(), link.reachable(), link.rtt_ms() * 1e-3, link.rtt_jitter_ms() * 1e-3,
                    link.goodput_up_bytes_per_s(), link.goodput_down_bytes_per_s()});
  metrics->SetResidentBytes(ResidentBytes());
  backend->RefreshMetrics(metrics);
  return {200, Metrics::kContentType, metrics->Render(), {}};
}

Response HealthResponse(const Backend& backend) {
  http::Json body = {{"status", "ok"}};
  const absl::Status health = HealthOf(backend);
  if (!health.ok()) {
    body = {{"status", backend.draining() ? "draining" : "unavailable"}, {"reason", std::string(health.message())}};
  }
  return {health.ok() ? 200 : 503, "application/json", http::DumpJson(body), {}};
}

openai::ModelEntry EntryOf(const Backend& backend, int64_t created) {
  return {.id = backend.served().name(), .created = created, .max_model_len = backend.max_sequence_tokens()};
}

Response ModelsOf(Backend* backend, int64_t created) {
  Response response;
  response.body = http::DumpJson(openai::ModelList({EntryOf(*backend, created)}));
  return response;
}

// What follows the slash of /v1/models/, each %XX as its byte. What is no such sequence stays.
std::string Unescaped(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    const bool escaped = text[i] == '%' && i + 2 < text.size() && absl::ascii_isxdigit(text[i + 1]) &&
                         absl::ascii_isxdigit(text[i + 2]) &&
                         absl::SimpleHexAtoi(std::string(text.substr(i + 1, 2)), &byte);
    bytes += escaped ? static_cast<char>(byte) : text[i];
    if (escaped) i += 2;
  }
  return bytes;
}

constexpr char kModels[] = "/v1/models";

http::Handler OneModel(Backend* backend, Metrics* metrics, int64_t created) {
  return [backend, metrics, created](std::shared_ptr<Exchange> exchange) {
    const http::Request& request = exchange->request();
    const std::string id = RequestIdOf(request);
    std::string_view name = std::string_view(request.path).substr(sizeof(kModels));
    if (name.ends_with('/')) name.remove_suffix(1);
    const std::string asked = Unescaped(name);
    if (absl::Status status = CheckModel(asked, backend->served().name()); !status.ok()) {
      return exchange->Respond(
          Refused(metrics, request, id, std::string(status.message()), openai::ErrorResponse(status, id)));
    }
    Response response;
    response.body = http::DumpJson(openai::ModelObject(EntryOf(*backend, created)));
    exchange->Respond(WithRequestId(std::move(response), id));
  };
}

// A response that is there at once.
template <typename Make>
http::Handler Told(Make make) {
  return [make](std::shared_ptr<Exchange> exchange) {
    exchange->Respond(WithRequestId(make(), RequestIdOf(exchange->request())));
  };
}

// What the server itself refuses.
http::ErrorBody Errors(Metrics* metrics) {
  return [metrics](int status, const std::string& message, const http::Request& request) {
    const std::string id = RequestIdOf(request);
    return Refused(metrics, request, id, message, openai::ServerErrorBody(status, message, id));
  };
}

absl::Status CheckEncoding(const http::Request& head) {
  const std::string_view coding = head.header("content-encoding");
  if (coding.empty() || absl::EqualsIgnoreCase(std::string(coding), "identity")) return absl::OkStatus();
  return openai::FieldError("Content-Encoding", absl::StrFormat("expected a body that is not compressed, found '%s'",
                                                                std::string(coding.substr(0, 64))));
}

http::Gate GateOf(HttpAccess access, std::shared_ptr<const ApiKeys> keys, Metrics* metrics) {
  return [access = std::move(access), keys = std::move(keys), metrics](const http::Request& head) {
    http::Verdict verdict = access.Grant(head);
    absl::Status status = access.Check(head);
    // A preflight, which is answered already, has no key: a browser asks before it sends one.
    if (status.ok() && !verdict.answer) status = TenantOfKey(keys.get(), head).status();
    if (status.ok()) status = CheckEncoding(head);
    if (!status.ok()) {
      const std::string id = RequestIdOf(head);
      verdict.answer = Refused(metrics, head, id, std::string(status.message()), openai::ErrorResponse(status, id));
    } else if (verdict.answer) {
      verdict.answer = WithRequestId(*std::move(verdict.answer), RequestIdOf(head));
    }
    return verdict;
  };
}

}  // namespace

http::Router MakeHttpFront(Backend* backend, Metrics* metrics, HttpAccess access, std::shared_ptr<const ApiKeys> keys) {
  http::Router router;
  router.set_error_body(Errors(metrics));
  router.set_gate(GateOf(std::move(access), keys, metrics));
  // Bodies are parsed, rendered and tokenized in there.
  router.Handle("POST", "/v1/chat/completions", Handled(backend, metrics, keys, ServeChat), http::RunsOn::kLane);
  router.Handle("POST", "/v1/completions", Handled(backend, metrics, keys, ServeCompletion), http::RunsOn::kLane);
  const int64_t created = absl::ToUnixSeconds(absl::Now());
  router.Handle("GET", kModels, Told([backend, created] { return ModelsOf(backend, created); }));
  router.HandleBelow("GET", kModels, OneModel(backend, metrics, created));
  router.Handle("GET", "/metrics", Told([backend, metrics] { return MetricsOf(backend, metrics); }));
  for (const char* path : {"/healthz", "/health"}) {  // the second is what other servers have
    router.Handle("GET", path, Told([backend] { return HealthResponse(*backend); }));
  }
  return router;
}

}  // namespace updraft
