#include "edge/agent/http_front.h"

#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/process.h"
#include "common/serving/request_check.h"

namespace updraft {

namespace {

using http::Exchange;
using http::Json;
using http::Response;
namespace openai = http::openai;

constexpr char kAnyModel[] = "updraft";  // a name that always fits, whatever file is loaded

const char* DecisionText(v1::DecisionKind kind) {
  switch (kind) {
    case v1::DECISION_KIND_KEEP:
      return DecisionName(Decision::kKeep);
    case v1::DECISION_KIND_HAND_OVER:
      return DecisionName(Decision::kHandOver);
    case v1::DECISION_KIND_VERIFY:
      return DecisionName(Decision::kVerify);
    case v1::DECISION_KIND_STREAM_UPSTREAM:
      return DecisionName(Decision::kStreamUpstream);
    case v1::DECISION_KIND_DEFER:
      return DecisionName(Decision::kDefer);
    default:
      return "none";
  }
}

std::string FinishText(v1::FinishReason reason) { return reason == v1::FINISH_REASON_LENGTH ? "length" : "stop"; }

// Turns one answer into a JSON object or a stream of events. The head of a stream waits for the first text, so that an
// early error still gets its HTTP status.
class HttpAnswer final : public AnswerSink {
 public:
  HttpAnswer(std::shared_ptr<Exchange> exchange, const text::Tokenizer* tokenizer, openai::AnswerHeader header,
             bool stream, bool include_usage)
      : exchange_(std::move(exchange)),
        tokenizer_(tokenizer),
        header_(std::move(header)),
        stream_(stream),
        include_usage_(include_usage) {}

  bool OnChunk(const v1::Chunk& chunk) override {
    std::vector<openai::TokenLogprob> logprobs;
    if (header_.logprobs && chunk.evidence_size() == chunk.tokens_size()) {
      for (int i = 0; i < chunk.tokens_size(); ++i) {
        logprobs.push_back({tokenizer_->TokenBytes(chunk.tokens(i)), chunk.evidence(i).logprob()});
      }
    }
    if (!stream_) {
      text_ += chunk.text();
      logprobs_.insert(logprobs_.end(), logprobs.begin(), logprobs.end());
      return true;
    }
    if (chunk.text().empty() && logprobs.empty()) return true;
    StartStream();
    const absl::Status status = Send(openai::StreamDelta(header_, chunk.text(), logprobs, n_text_bytes_));
    n_text_bytes_ += chunk.text().size();
    return status.ok();
  }

  void OnEnd(const absl::Status& status, const v1::Done& done) override {
    if (!status.ok()) {
      if (!started_) return exchange_->Respond(openai::ErrorResponse(status));
      Send(openai::ErrorObject(status)).IgnoreError();
      return exchange_->Finish();
    }
    const openai::Usage usage{done.usage().prompt_tokens(), done.usage().completion_tokens()};
    const Json provenance = ProvenanceToJson(done.provenance());
    const std::string finish = FinishText(done.finish_reason());
    if (!stream_) {
      Response response;
      response.body = http::DumpJson(openai::AnswerObject(header_, text_, finish, logprobs_, usage, provenance));
      return exchange_->Respond(std::move(response));
    }
    StartStream();
    // A client that has gone meanwhile is nobody's error.
    Send(openai::StreamClosing(header_, finish, provenance)).IgnoreError();
    if (include_usage_) Send(openai::StreamUsage(header_, usage)).IgnoreError();
    exchange_->Write(openai::kStreamEnd).IgnoreError();
    exchange_->Finish();
  }

 private:
  absl::Status Send(const Json& object) { return exchange_->Write(openai::ServerSentEvent(object)); }

  void StartStream() {
    if (std::exchange(started_, true)) return;
    Response head;
    head.content_type = "text/event-stream";
    head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    if (header_.chat) head.body = openai::ServerSentEvent(openai::StreamOpening(header_));
    exchange_->StartStream(std::move(head));
  }

  const std::shared_ptr<Exchange> exchange_;
  const text::Tokenizer* const tokenizer_;
  const openai::AnswerHeader header_;
  const bool stream_;
  const bool include_usage_;
  bool started_ = false;
  size_t n_text_bytes_ = 0;
  std::string text_;
  std::vector<openai::TokenLogprob> logprobs_;
};

absl::StatusOr<v1::TierChoice> TierOf(const http::Request& request) {
  const std::string_view value = request.header("x-updraft-tier");
  if (value.empty() || value == "auto") return v1::TIER_CHOICE_UNSPECIFIED;
  if (value == "local") return v1::TIER_CHOICE_LOCAL_ONLY;
  if (value == "upstream") return v1::TIER_CHOICE_UPSTREAM_ONLY;
  return openai::FieldError("X-Updraft-Tier", absl::StrFormat("expected local, upstream or auto, found '%s'",
                                                              std::string(value.substr(0, 64))));
}

// What both kinds of completion have in common, from the parsed parameters to the running request.
void Serve(Agent* agent, std::shared_ptr<Exchange> exchange, const openai::GenerationParams& params, bool chat,
           v1::GenerateRequest request) {
  const std::string& served = agent->model().info().name();
  if (!params.model.empty() && params.model != served && params.model != kAnyModel) {
    return exchange->Respond(openai::ErrorResponse(openai::FieldError(
        "model", absl::StrFormat("no model '%s' here; ask for '%s' or '%s'", params.model, served, kAnyModel),
        absl::StatusCode::kNotFound)));
  }
  auto tier = TierOf(exchange->request());
  if (!tier.ok()) return exchange->Respond(openai::ErrorResponse(tier.status()));
  request.set_tier(*tier);
  request.set_request_id(NewRequestId());
  request.set_max_tokens(params.max_tokens.value_or(0));
  for (const std::string& stop : params.stop) request.add_stop(stop);
  request.set_include_evidence(params.logprobs);
  v1::Sampling* sampling = request.mutable_sampling();
  sampling->set_temperature(static_cast<float>(params.temperature));
  sampling->set_top_p(static_cast<float>(params.top_p));
  sampling->set_top_k(params.top_k);
  sampling->set_min_p(static_cast<float>(params.min_p));
  sampling->set_repetition_penalty(static_cast<float>(params.repetition_penalty));
  sampling->set_seed(params.seed ? *params.seed : std::random_device{}());

  openai::AnswerHeader header;
  header.id = (chat ? "chatcmpl-" : "cmpl-") + request.request_id();
  header.model = served;
  header.created = absl::ToUnixSeconds(absl::Now());
  header.chat = chat;
  header.logprobs = params.logprobs;
  header.top_logprobs = params.top_logprobs;
  auto answer = std::make_shared<HttpAnswer>(exchange, agent->model().served().tokenizer().get(), std::move(header),
                                             params.stream, params.include_usage);
  const RequestHandle handle = agent->Submit(std::move(request), SteadyTime::InfiniteFuture(), std::move(answer));
  exchange->OnDisconnect([handle] { handle.Cancel(); });
}

void ServeChat(Agent* agent, std::shared_ptr<Exchange> exchange) {
  auto parsed = openai::ParseChatRequest(exchange->request().body);
  if (!parsed.ok()) return exchange->Respond(openai::ErrorResponse(parsed.status()));
  v1::GenerateRequest request;
  for (openai::Message& message : parsed->messages) {
    v1::Message* out = request.mutable_conversation()->add_messages();
    out->set_role(std::move(message.role));
    out->set_content(std::move(message.content));
  }
  Serve(agent, std::move(exchange), parsed->params, /*chat=*/true, std::move(request));
}

void ServeCompletion(Agent* agent, std::shared_ptr<Exchange> exchange) {
  auto parsed = openai::ParseCompletionRequest(exchange->request().body);
  if (!parsed.ok()) return exchange->Respond(openai::ErrorResponse(parsed.status()));
  v1::GenerateRequest request;
  request.set_prompt(std::move(parsed->prompt));
  Serve(agent, std::move(exchange), parsed->params, /*chat=*/false, std::move(request));
}

void ServeMetrics(Agent* agent, Metrics* metrics, std::shared_ptr<Exchange> exchange) {
  const v1::Load load = agent->CurrentLoad();
  metrics->SetLoad({load.running_requests(), load.queued_requests(), load.kv_used_fraction()});
  const v1::Link link = agent->CurrentLink();
  metrics->SetLink({!link.upstream().empty(), link.reachable(), link.rtt_ms() * 1e-3, link.rtt_jitter_ms() * 1e-3,
                    link.goodput_up_bytes_per_s(), link.goodput_down_bytes_per_s()});
  metrics->SetResidentBytes(ResidentBytes());
  exchange->Respond(Response{200, Metrics::kContentType, metrics->Render(), {}});
}

}  // namespace

Json ProvenanceToJson(const v1::Provenance& provenance) {
  Json spans = Json::array();
  for (const v1::Provenance::Span& span : provenance.spans()) {
    spans.push_back({{"tier", span.tier()}, {"n_tokens", span.n_tokens()}});
  }
  return {{"spans", std::move(spans)},
          {"confidence", provenance.confidence()},
          {"decision", DecisionText(provenance.decision())},
          {"reason", provenance.reason()},
          {"degraded", provenance.degraded()},
          {"bytes_up", provenance.bytes_up()},
          {"bytes_down", provenance.bytes_down()},
          {"queue_ms", provenance.queue_ms()},
          {"local_ms", provenance.local_ms()},
          {"upstream_ms", provenance.upstream_ms()},
          {"total_ms", provenance.total_ms()},
          {"first_token_ms", provenance.first_token_ms()},
          {"mean_exit_layer", provenance.mean_exit_layer()},
          {"draft_tokens", provenance.draft_tokens()}};
}

http::Router MakeHttpFront(Agent* agent, Metrics* metrics) {
  http::Router router;
  router.set_error_body(openai::ServerErrorBody);
  router.Handle("POST", "/v1/chat/completions",
                [agent](std::shared_ptr<Exchange> e) { ServeChat(agent, std::move(e)); });
  router.Handle("POST", "/v1/completions",
                [agent](std::shared_ptr<Exchange> e) { ServeCompletion(agent, std::move(e)); });
  const int64_t created = absl::ToUnixSeconds(absl::Now());
  router.Handle("GET", "/v1/models", [agent, created](std::shared_ptr<Exchange> e) {
    Response response;
    response.body = http::DumpJson(openai::ModelList({{agent->model().info().name(), created, "updraft"}}));
    e->Respond(std::move(response));
  });
  router.Handle("GET", "/metrics",
                [agent, metrics](std::shared_ptr<Exchange> e) { ServeMetrics(agent, metrics, std::move(e)); });
  router.Handle("GET", "/healthz", [agent](std::shared_ptr<Exchange> e) {
    const bool draining = agent->draining();
    e->Respond(Response{
        draining ? 503 : 200, "application/json", draining ? R"({"status":"draining"})" : R"({"status":"ok"})", {}});
  });
  return router;
}

}  // namespace updraft
