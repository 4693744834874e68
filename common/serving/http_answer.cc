#include "common/serving/http_answer.h"

#include <algorithm>
#include <utility>

#include "common/serving/provenance_json.h"

namespace updraft {

using http::Json;
using http::Response;
namespace openai = http::openai;

namespace {

// As OpenAI names it. A reason that only a newer tier knows need not mean that the answer is whole, so it is none of
// theirs.
const char* FinishReasonName(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_UNSPECIFIED:
    case v1::FINISH_REASON_STOP:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "unknown";
  }
}

}  // namespace

Response WithRequestId(Response response, const std::string& request_id) {
  if (!request_id.empty()) response.headers.emplace_back("X-Request-Id", request_id);
  return response;
}

class HttpAnswer::Sink final : public AnswerSink {
 public:
  Sink(std::shared_ptr<HttpAnswer> answer, int choice) : answer_(std::move(answer)), choice_(choice) {}
  absl::Status OnChunk(const v1::Chunk& chunk) override { return answer_->OnChunk(choice_, chunk); }
  void OnEnd(const absl::Status& status, const v1::Done& done) override { answer_->OnEnd(choice_, status, done); }

 private:
  const std::shared_ptr<HttpAnswer> answer_;
  const int choice_;
};

HttpAnswer::HttpAnswer(std::shared_ptr<http::Exchange> exchange, const text::Tokenizer* tokenizer,
                       HttpAnswerOptions options)
    : exchange_(std::move(exchange)),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      choices_(static_cast<size_t>(options_.n_choices)) {}

std::shared_ptr<AnswerSink> HttpAnswer::SinkOf(std::shared_ptr<HttpAnswer> answer, int choice) {
  return std::make_shared<Sink>(std::move(answer), choice);
}

bool HttpAnswer::failed() const {
  MutexLock lock(mu_);
  return failed_;
}

std::vector<openai::TokenLogprob> HttpAnswer::LogprobsUpTo(const v1::Chunk& chunk, Choice& choice) const {
  if (options_.header.logprobs && chunk.evidence_size() == chunk.tokens_size()) {
    for (int i = 0; i < chunk.tokens_size(); ++i) {
      const v1::Evidence& evidence = chunk.evidence(i);
      choice.uncovered.push_back({tokenizer_->TokenBytes(chunk.tokens(i)), evidence.logprob(),
                                  evidence.has_text_offset() ? evidence.text_offset() : choice.n_text_bytes});
    }
  }
  choice.n_text_bytes += chunk.text().size();
  std::vector<openai::TokenLogprob> covered;
  auto& uncovered = choice.uncovered;
  for (; !uncovered.empty() && uncovered.front().text_offset < choice.n_text_bytes; uncovered.pop_front()) {
    covered.push_back(std::move(uncovered.front()));
  }
  return covered;
}

void HttpAnswer::OnAccepted(std::vector<RequestHandle> handles) {
  {
    MutexLock lock(mu_);
    if (!failed_) {
      if (n_ended_ == choices_.size()) return;
      if (options_.stream) StartStream();
      if (choices_.size() > 1) handles_ = std::move(handles);  // one choice ends by itself
      return;
    }
  }
  for (const RequestHandle& handle : handles) handle.Cancel();
}

absl::Status HttpAnswer::OnChunk(int index, const v1::Chunk& chunk) {
  MutexLock lock(mu_);
  if (failed_) return absl::CancelledError("another choice of this answer failed");
  Choice& choice = choices_[index];
  const std::vector<openai::TokenLogprob> logprobs = LogprobsUpTo(chunk, choice);
  if (!options_.stream) {
    choice.made.text += chunk.text();
    choice.made.logprobs.insert(choice.made.logprobs.end(), logprobs.begin(), logprobs.end());
    return absl::OkStatus();
  }
  if (chunk.text().empty() && logprobs.empty()) return absl::OkStatus();
  StartStream();
  return Send(openai::StreamDelta(options_.header, chunk.text(), logprobs, index));
}

void HttpAnswer::OnEnd(int index, const absl::Status& status, const v1::Done& done) {
  std::vector<RequestHandle> unwanted;
  {
    MutexLock lock(mu_);
    if (failed_) return;
    if (status.ok()) {
      EndChoice(index, done);
      if (++n_ended_ < choices_.size()) return;
      handles_.clear();
      return EndWhole();
    }
    failed_ = true;
    EndWithError(status);
    unwanted.swap(handles_);
  }
  for (const RequestHandle& handle : unwanted) handle.Cancel();
}

void HttpAnswer::EndWithError(const absl::Status& status) {
  const std::string& id = options_.request_id;
  if (!started_) return exchange_->Respond(WithRequestId(openai::ErrorResponse(status, id), id));
  Send(openai::ErrorObject(status, id)).IgnoreError();
  exchange_->Finish();
}

void HttpAnswer::EndChoice(int index, const v1::Done& done) {
  Choice& choice = choices_[index];
  openai::Choice& made = choice.made;
  made.finish_reason = FinishReasonName(done.finish_reason());
  made.updraft = ProvenanceToJson(done);
  // The prompt was one, however many answers it has.
  usage_.prompt_tokens = done.usage().prompt_tokens();
  // What the first of them read the others find.
  const int n_cached = done.usage().cached_tokens();
  usage_.cached_tokens = n_ended_ == 0 ? n_cached : std::min(usage_.cached_tokens, n_cached);
  usage_.completion_tokens += done.usage().completion_tokens();
  // Nothing is cut off from an answer that ends by its length: the last tokens may have no text.
  if (done.finish_reason() == v1::FINISH_REASON_LENGTH) {
    made.logprobs.insert(made.logprobs.end(), choice.uncovered.begin(), choice.uncovered.end());
  }
  if (!options_.stream) return;
  StartStream();
  const openai::AnswerHeader& header = options_.header;
  if (!made.logprobs.empty()) Send(openai::StreamDelta(header, "", made.logprobs, index)).IgnoreError();
  Send(openai::StreamClosing(header, made.finish_reason, made.updraft, index)).IgnoreError();
}

void HttpAnswer::EndWhole() {
  if (options_.stream) {
    if (options_.include_usage) Send(openai::StreamUsage(options_.header, usage_)).IgnoreError();
    exchange_->Write(openai::kStreamEnd).IgnoreError();
    return exchange_->Finish();
  }
  std::vector<openai::Choice> choices;
  for (Choice& choice : choices_) choices.push_back(std::move(choice.made));
  Response response;
  response.body = http::DumpJson(openai::AnswerObject(options_.header, choices, usage_));
  exchange_->Respond(WithRequestId(std::move(response), options_.request_id));
}

void HttpAnswer::StartStream() {
  if (std::exchange(started_, true)) return;
  Response head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  for (int i = 0; options_.header.chat && i < options_.n_choices; ++i) {
    head.body += openai::ServerSentEvent(openai::StreamOpening(options_.header, i));
  }
  exchange_->StartStream(WithRequestId(std::move(head), options_.request_id), openai::kStreamKeepAlive);
}

}  // namespace updraft
