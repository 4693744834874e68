#include "cloud/service/generate_reactor.h"

#include <utility>

#include "absl/time/time.h"
#include "common/rpc/convert.h"
#include "common/rpc/raw_message.h"
#include "common/rpc/status.h"
#include "common/telemetry/log.h"

namespace updraft {

// Holds the reactor for the engine.
class GenerateReactor::Feed final : public engine::Sink {
 public:
  explicit Feed(std::shared_ptr<GenerateReactor> reactor) : reactor_(std::move(reactor)) {}
  bool OnTokens(const engine::Output& output) override { return reactor_->Push(output); }
  void OnDone(const absl::Status& status, const engine::Summary& summary) override { reactor_->Close(status, summary); }

 private:
  const std::shared_ptr<GenerateReactor> reactor_;
};

v1::Load LoadToProto(const engine::LoadReport& report) {
  v1::Load load;
  load.set_running_requests(report.running_requests);
  load.set_queued_requests(report.queued_requests);
  load.set_running_tokens(report.running_tokens);
  load.set_queued_tokens(report.queued_tokens);
  load.set_kv_used_fraction(static_cast<float>(report.kv_used_fraction));
  load.set_predicted_wait_ms(static_cast<float>(report.predicted_wait_ms));
  load.set_decode_tokens_per_s(static_cast<float>(report.decode_tokens_per_s));
  return load;
}

std::shared_ptr<GenerateReactor> GenerateReactor::Create(grpc::CallbackServerContext* context, engine::Engine* engine,
                                                         std::string request_id,
                                                         const GenerateReactorOptions& options) {
  std::shared_ptr<GenerateReactor> reactor(new GenerateReactor(context, engine, std::move(request_id), options));
  const std::lock_guard<std::mutex> lock(reactor->mu_);
  reactor->self_ = reactor;
  return reactor;
}

GenerateReactor::GenerateReactor(grpc::CallbackServerContext* context, engine::Engine* engine, std::string request_id,
                                 const GenerateReactorOptions& options)
    : context_(context),
      engine_(engine),
      request_id_(std::move(request_id)),
      options_(options),
      received_(std::chrono::steady_clock::now()) {}

void GenerateReactor::Submit(engine::Request request) {
  std::shared_ptr<GenerateReactor> self;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    self = self_;
  }
  // Not under the lock: the engine may answer before Submit returns.
  const absl::StatusOr<uint64_t> ticket = engine_->Submit(std::move(request), std::make_shared<Feed>(self));
  if (!ticket.ok()) {
    Refuse(ticket.status());
    return;
  }
  bool cancelled = false;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    ticket_ = *ticket;
    cancelled = cancelled_;
  }
  if (cancelled) engine_->Cancel(*ticket);
}

void GenerateReactor::Refuse(absl::Status status) { Close(status, engine::Summary()); }

bool GenerateReactor::Push(const engine::Output& output) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (cancelled_) return true;  // nobody reads; the engine has been told, or is about to be
  const int n_tokens = static_cast<int>(output.tokens.size());
  if (n_writing_tokens_ + filling_.tokens_size() + n_tokens > options_.max_buffered_tokens) return false;
  for (const int32_t token : output.tokens) filling_.add_tokens(token);
  for (const TokenEvidence& evidence : output.evidence) *filling_.add_evidence() = EvidenceToProto(evidence);
  filling_.mutable_text()->append(output.text);
  has_filling_ = true;
  MaybeWrite();
  return true;
}

void GenerateReactor::Close(const absl::Status& status, const engine::Summary& summary) {
  const std::lock_guard<std::mutex> lock(mu_);
  closed_ = true;
  status_ = status;
  summary_ = summary;
  // An error is told at once; what it interrupts is not worth the wait for a reader that may be the reason.
  if (!status.ok()) has_filling_ = false;
  MaybeWrite();
}

void GenerateReactor::MaybeWrite() {
  if (is_writing_ || finished_) return;
  if (has_filling_ && !cancelled_) {
    v1::GenerateResponse response;
    *response.mutable_chunk() = std::exchange(filling_, v1::Chunk());
    response.mutable_chunk()->set_tier(options_.tier);
    has_filling_ = false;
    n_writing_tokens_ = response.chunk().tokens_size();
    n_sent_tokens_ += n_writing_tokens_;
    StampResponse(response, /*last=*/false);
    writing_ = SerializeMessage(response);
    is_writing_ = true;
    StartWrite(&writing_);
    return;
  }
  if (!closed_) return;
  finished_ = true;
  if (status_.ok() && cancelled_) status_ = absl::CancelledError("the caller went away before it had the whole answer");
  if (!status_.ok()) {
    Finish(ToGrpcStatus(status_, *context_));
    return;
  }
  v1::GenerateResponse response;
  *response.mutable_done() = MakeDone();
  StampResponse(response, /*last=*/true);
  writing_ = SerializeMessage(response);
  StartWriteAndFinish(&writing_, grpc::WriteOptions(), grpc::Status::OK);
}

void GenerateReactor::StampResponse(v1::GenerateResponse& response, bool last) {
  if (!wrote_first_) response.set_request_id(request_id_);
  if (!wrote_first_ || last) *response.mutable_load() = LoadToProto(engine_->load());
  wrote_first_ = true;
  response.set_server_us(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - received_).count()));
}

v1::Done GenerateReactor::MakeDone() const {
  v1::Done done;
  done.set_finish_reason(summary_.end == AnswerEnd::kStop ? v1::FINISH_REASON_STOP : v1::FINISH_REASON_LENGTH);
  done.mutable_usage()->set_prompt_tokens(summary_.n_prompt_tokens);
  done.mutable_usage()->set_completion_tokens(summary_.n_answer_tokens);
  v1::Provenance& provenance = *done.mutable_provenance();
  v1::Provenance::Span& span = *provenance.add_spans();
  span.set_tier(options_.tier);
  span.set_n_tokens(summary_.n_answer_tokens);
  provenance.set_decision(v1::DECISION_KIND_KEEP);
  provenance.set_reason("the last tier answers everything itself");
  provenance.set_queue_ms(absl::ToDoubleMilliseconds(summary_.queued));
  provenance.set_local_ms(absl::ToDoubleMilliseconds(summary_.total - summary_.queued));
  provenance.set_total_ms(absl::ToDoubleMilliseconds(summary_.total));
  provenance.set_first_token_ms(absl::ToDoubleMilliseconds(summary_.first_token));
  provenance.set_mean_exit_layer(summary_.n_answer_tokens > 0 ? options_.n_layer : 0);
  return done;
}

void GenerateReactor::OnWriteDone(bool ok) {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    is_writing_ = false;
    n_writing_tokens_ = 0;
    if (ok) {
      MaybeWrite();
      return;
    }
    cancelled_ = true;
    MaybeWrite();
  }
  CancelInEngine();
}

void GenerateReactor::OnCancel() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    cancelled_ = true;
    has_filling_ = false;
    MaybeWrite();
  }
  CancelInEngine();
}

void GenerateReactor::CancelInEngine() {
  uint64_t ticket = 0;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    if (!closed_) ticket = ticket_;
  }
  // Without a ticket yet, Submit sees cancelled_ and cancels.
  if (ticket != 0) engine_->Cancel(ticket);
}

void GenerateReactor::OnDone() {
  std::shared_ptr<GenerateReactor> self;
  const std::lock_guard<std::mutex> lock(mu_);
  self = std::move(self_);
  LogEvent(LogLevel::kInfo, "generate",
           {{"id", request_id_},
            {"status", status_},
            {"prompt_tokens", summary_.n_prompt_tokens},
            {"answer_tokens", summary_.n_answer_tokens},
            {"sent_tokens", n_sent_tokens_},
            {"queue_ms", absl::ToDoubleMilliseconds(summary_.queued)},
            {"first_token_ms", absl::ToDoubleMilliseconds(summary_.first_token)},
            {"total_ms", absl::ToDoubleMilliseconds(summary_.total)},
            {"preemptions", summary_.n_preemptions},
            {"peer", context_->peer()}});
}

}  // namespace updraft
