// One answer over OpenAI's HTTP: a JSON object, or a stream of events.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/http/openai.h"
#include "common/http/server.h"
#include "common/serving/backend.h"
#include "common/sync/mutex.h"
#include "common/text/tokenizer.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct HttpAnswerOptions {
  http::openai::AnswerHeader header;
  std::string request_id;  // given back in the header X-Request-Id
  bool stream = false;
  bool include_usage = false;  // at the end of a stream
};

// The head of a stream, with the request's id, is sent once the backend has accepted the request: what is refused until
// then gets its HTTP status, a later error is an event. A client that has gone meanwhile is nobody's error. Log
// probabilities are those of the text that is given: of what a stop string cut off there are none.
class HttpAnswer final : public AnswerSink {
 public:
  // The tokenizer gives the bytes of tokens for log probabilities, and must outlive the answer.
  HttpAnswer(std::shared_ptr<http::Exchange> exchange, const text::Tokenizer* tokenizer, HttpAnswerOptions options)
      : exchange_(std::move(exchange)), tokenizer_(tokenizer), options_(std::move(options)) {}

  absl::Status OnChunk(const v1::Chunk& chunk) override ABSL_LOCKS_EXCLUDED(mu_);
  void OnEnd(const absl::Status& status, const v1::Done& done) override ABSL_LOCKS_EXCLUDED(mu_);
  // The backend has taken the request, which may have ended already. Any thread, also beside the two above.
  void OnAccepted() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Status Send(const http::Json& object) { return exchange_->Write(http::openai::ServerSentEvent(object)); }
  // Takes the chunk's in and gives those of text that was given, in order.
  std::vector<http::openai::TokenLogprob> LogprobsUpTo(const v1::Chunk& chunk) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartStream() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndStream(const std::string& finish_reason, const http::openai::Usage& usage, const http::Json& provenance)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::shared_ptr<http::Exchange> exchange_;
  const text::Tokenizer* const tokenizer_;
  const HttpAnswerOptions options_;
  Mutex mu_;
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  size_t n_text_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // given, that of the chunk in hand included
  // Of tokens whose text was not given yet, or is cut off.
  std::deque<http::openai::TokenLogprob> uncovered_ ABSL_GUARDED_BY(mu_);
  std::string text_ ABSL_GUARDED_BY(mu_);                                  // of an answer that is not streamed
  std::vector<http::openai::TokenLogprob> logprobs_ ABSL_GUARDED_BY(mu_);  // not sent yet
};

// `response` with the header that says which request it answers.
http::Response WithRequestId(http::Response response, const std::string& request_id);

}  // namespace updraft
