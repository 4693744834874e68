// One answer over OpenAI's HTTP: a JSON object, or a stream of events. It has one choice or several, each an answer of
// the backend's.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "common/http/openai.h"
#include "common/http/server.h"
#include "common/serving/backend.h"
#include "common/sync/mutex.h"
#include "common/text/tokenizer.h"
#include "common/tools/call_parser.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct CallReading {
  std::optional<tools::CallFormat> format;  // of answers that do not say theirs; none: those are text
  std::vector<int32_t> markers;             // control tokens that are part of this tier's answers
  bool one_call = false;
  bool was_named = false;  // the request named the tool; then, as OpenAI has it, the answer just stops
};

struct HttpAnswerOptions {
  http::openai::AnswerHeader header;
  std::string request_id;  // given back in the header X-Request-Id
  bool stream = false;
  bool include_usage = false;  // at the end of a stream
  int n_choices = 1;           // of all prompts, those of the first prompt first
  int n_prompts = 1;
  std::vector<std::string> echo = {};     // the text that each choice begins with, by prompt; none: nothing
  std::optional<CallReading> calls = {};  // none: calls are text like any other
};

// The head of a stream, with the request's id, is sent once the backend has accepted the request: what is refused until
// then gets its HTTP status, a later error is an event. A client that has gone meanwhile is nobody's error. Log
// probabilities are those of the text that is given: of what a stop string cut off there are none. The first choice
// that ends with an error ends the answer with it, and the other choices with CANCELLED.
class HttpAnswer final {
 public:
  // The tokenizer gives the bytes of tokens for log probabilities, and must outlive the answer.
  HttpAnswer(std::shared_ptr<http::Exchange> exchange, const text::Tokenizer* tokenizer, HttpAnswerOptions options);
  HttpAnswer(const HttpAnswer&) = delete;
  HttpAnswer& operator=(const HttpAnswer&) = delete;

  // Where the backend writes a choice. Each is taken once, and keeps the answer.
  static std::shared_ptr<AnswerSink> SinkOf(std::shared_ptr<HttpAnswer> answer, int choice);

  // The backend has taken the requests, which may have ended already. Any thread, also beside the sinks. handles: of
  // the choices that were submitted.
  void OnAccepted(std::vector<RequestHandle> handles) ABSL_LOCKS_EXCLUDED(mu_);
  // A choice ended with an error, so that no more are wanted.
  bool failed() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Sink;
  struct Choice {
    size_t n_text_bytes = 0, n_text_chars = 0;  // given, of the answer itself
    // Of tokens whose text was not given yet, or is cut off; text_offset is set when it is.
    struct Uncovered {
      http::openai::TokenLogprob token;
      size_t begin = 0;  // of its text in the answer's, in bytes
    };
    std::deque<Uncovered> uncovered;
    // What was made and not sent yet: of a stream, log probabilities at most.
    http::openai::Choice made;
    std::optional<tools::CallFormat> format;  // of the calls that are looked for, while no text was given: the last
    std::optional<tools::CallParser> calls;   // chunk's
  };

  absl::Status OnChunk(int index, const v1::Chunk& chunk) ABSL_LOCKS_EXCLUDED(mu_);
  void OnEnd(int index, const absl::Status& status, const v1::Done& done) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Send(const http::Json& object) { return exchange_->Write(http::openai::ServerSentEvent(object)); }
  // Takes the chunk's in and gives those of text that was given, in order.
  std::vector<http::openai::TokenLogprob> LogprobsUpTo(const v1::Chunk& chunk, Choice& choice) const;
  absl::Status Give(int index, const std::string& text, const std::vector<http::openai::TokenLogprob>& logprobs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status GiveCalls(int index, const std::vector<tools::CallEvent>& events) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::string CallIdOf(int choice, int call) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whose writer decides how calls are read.
  void ReadCallsAs(const v1::Chunk& chunk, Choice& choice) const;
  std::string BytesOf(int32_t token) const;
  void TakeLogprobs(const v1::Chunk& chunk, Choice& choice) const;
  int PromptOf(int choice) const { return choice / (options_.n_choices / options_.n_prompts); }
  http::openai::Usage UsageOfAll() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void StartStream(const std::vector<RequestHandle>& handles = {}) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndChoice(int index, const v1::Done& done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndWithError(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EndWhole() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::shared_ptr<http::Exchange> exchange_;
  const text::Tokenizer* const tokenizer_;
  const HttpAnswerOptions options_;
  mutable Mutex mu_;
  std::vector<Choice> choices_ ABSL_GUARDED_BY(mu_);
  size_t n_ended_ ABSL_GUARDED_BY(mu_) = 0;  // choices that ended well
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  bool failed_ ABSL_GUARDED_BY(mu_) = false;
  struct PromptUsage {
    std::optional<int> n_tokens;  // once a choice of it has ended
    int n_cached = 0;
  };
  std::vector<PromptUsage> prompts_ ABSL_GUARDED_BY(mu_);
  int n_completion_tokens_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<RequestHandle> handles_ ABSL_GUARDED_BY(mu_);  // of several choices, while not all have ended
};

// `response` with the header that says which request it answers.
http::Response WithRequestId(http::Response response, const std::string& request_id);

}  // namespace updraft
