#include "common/serving/http_answer.h"

#include <utility>

#include "common/serving/provenance_json.h"

namespace updraft {

using http::Json;
using http::Response;
namespace openai = http::openai;

Response WithRequestId(Response response, const std::string& request_id) {
  if (!request_id.empty()) response.headers.emplace_back("X-Request-Id", request_id);
  return response;
}

std::vector<openai::TokenLogprob> HttpAnswer::LogprobsUpTo(const v1::Chunk& chunk) {
  if (options_.header.logprobs && chunk.evidence_size() == chunk.tokens_size()) {
    for (int i = 0; i < chunk.tokens_size(); ++i) {
      const v1::Evidence& evidence = chunk.evidence(i);
      uncovered_.push_back({tokenizer_->TokenBytes(chunk.tokens(i)), evidence.logprob(),
                            evidence.has_text_offset() ? evidence.text_offset() : n_text_bytes_});
    }
  }
  n_text_bytes_ += chunk.text().size();
  std::vector<openai::TokenLogprob> covered;
  for (; !uncovered_.empty() && uncovered_.front().text_offset < n_text_bytes_; uncovered_.pop_front()) {
    covered.push_back(std::move(uncovered_.front()));
  }
  return covered;
}

void HttpAnswer::OnAccepted() {
  MutexLock lock(mu_);
  if (options_.stream && !ended_) StartStream();
}

absl::Status HttpAnswer::OnChunk(const v1::Chunk& chunk) {
  MutexLock lock(mu_);
  const std::vector<openai::TokenLogprob> logprobs = LogprobsUpTo(chunk);
  if (!options_.stream) {
    text_ += chunk.text();
    logprobs_.insert(logprobs_.end(), logprobs.begin(), logprobs.end());
    return absl::OkStatus();
  }
  if (chunk.text().empty() && logprobs.empty()) return absl::OkStatus();
  StartStream();
  return Send(openai::StreamDelta(options_.header, chunk.text(), logprobs));
}

void HttpAnswer::OnEnd(const absl::Status& status, const v1::Done& done) {
  MutexLock lock(mu_);
  ended_ = true;
  const std::string& id = options_.request_id;
  if (!status.ok()) {
    if (!started_) return exchange_->Respond(WithRequestId(openai::ErrorResponse(status, id), id));
    Send(openai::ErrorObject(status, id)).IgnoreError();
    return exchange_->Finish();
  }
  const openai::Usage usage{done.usage().prompt_tokens(), done.usage().completion_tokens()};
  const Json provenance = ProvenanceToJson(done);
  const std::string finish_reason = done.finish_reason() == v1::FINISH_REASON_LENGTH ? "length" : "stop";
  // Nothing is cut off from an answer that ends by its length: the last tokens may have no text.
  if (done.finish_reason() == v1::FINISH_REASON_LENGTH) {
    logprobs_.insert(logprobs_.end(), uncovered_.begin(), uncovered_.end());
  }
  if (options_.stream) return EndStream(finish_reason, usage, provenance);
  Response response;
  response.body =
      http::DumpJson(openai::AnswerObject(options_.header, text_, finish_reason, logprobs_, usage, provenance));
  exchange_->Respond(WithRequestId(std::move(response), options_.request_id));
}

void HttpAnswer::EndStream(const std::string& finish_reason, const openai::Usage& usage, const Json& provenance) {
  StartStream();
  if (!logprobs_.empty()) Send(openai::StreamDelta(options_.header, "", logprobs_)).IgnoreError();
  Send(openai::StreamClosing(options_.header, finish_reason, provenance)).IgnoreError();
  if (options_.include_usage) Send(openai::StreamUsage(options_.header, usage)).IgnoreError();
  exchange_->Write(openai::kStreamEnd).IgnoreError();
  exchange_->Finish();
}

void HttpAnswer::StartStream() {
  if (std::exchange(started_, true)) return;
  Response head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  if (options_.header.chat) head.body = openai::ServerSentEvent(openai::StreamOpening(options_.header));
  exchange_->StartStream(WithRequestId(std::move(head), options_.request_id), openai::kStreamKeepAlive);
}

}  // namespace updraft
