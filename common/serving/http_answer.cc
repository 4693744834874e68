#include "common/serving/http_answer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
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

// Code points, as many as begin in it.
size_t CharactersIn(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
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
      choices_(static_cast<size_t>(options_.n_choices)),
      prompts_(static_cast<size_t>(options_.n_prompts)) {}

std::shared_ptr<AnswerSink> HttpAnswer::SinkOf(std::shared_ptr<HttpAnswer> answer, int choice) {
  return std::make_shared<Sink>(std::move(answer), choice);
}

bool HttpAnswer::failed() const {
  MutexLock lock(mu_);
  return failed_;
}

std::string HttpAnswer::BytesOf(int32_t token) const {
  const bool is_marker = options_.calls && std::find(options_.calls->markers.begin(), options_.calls->markers.end(),
                                                     token) != options_.calls->markers.end();
  return tokenizer_->TokenBytes(token, /*render_special=*/is_marker);
}

void HttpAnswer::TakeLogprobs(const v1::Chunk& chunk, Choice& choice) const {
  if (!options_.header.logprobs || chunk.evidence_size() != chunk.tokens_size()) return;
  for (int i = 0; i < chunk.tokens_size(); ++i) {
    const v1::Evidence& evidence = chunk.evidence(i);
    Choice::Uncovered taken{.token = {.bytes = BytesOf(chunk.tokens(i)), .logprob = evidence.logprob()},
                            .begin = evidence.has_text_offset() ? evidence.text_offset() : choice.n_text_bytes};
    for (const v1::TokenLogprob& likely : evidence.top()) {
      if (likely.token() < 0 || likely.token() >= tokenizer_->vocab_size()) continue;  // of a tier that is not ours
      taken.token.top.push_back({.bytes = BytesOf(likely.token()), .logprob = likely.logprob()});
    }
    choice.uncovered.push_back(std::move(taken));
  }
}

std::vector<openai::TokenLogprob> HttpAnswer::LogprobsUpTo(const v1::Chunk& chunk, Choice& choice) const {
  TakeLogprobs(chunk, choice);
  const std::string& text = chunk.text();
  const size_t n_before = choice.n_text_bytes, end = n_before + text.size();
  std::vector<openai::TokenLogprob> covered;
  auto& uncovered = choice.uncovered;
  size_t counted = 0;  // bytes of the text whose characters are in n_text_chars
  const auto count_to = [&](size_t to) {
    if (to <= counted) return;
    choice.n_text_chars += CharactersIn(std::string_view(text).substr(counted, to - counted));
    counted = to;
  };
  for (; !uncovered.empty() && uncovered.front().begin < end; uncovered.pop_front()) {
    count_to(std::max(uncovered.front().begin, n_before) - n_before);
    covered.push_back(std::move(uncovered.front().token));
    covered.back().text_offset = choice.n_text_chars;
  }
  count_to(text.size());
  choice.n_text_bytes = end;
  return covered;
}

void HttpAnswer::OnAccepted(std::vector<RequestHandle> handles) {
  {
    MutexLock lock(mu_);
    if (!failed_) {
      if (n_ended_ == choices_.size()) return;
      if (options_.stream) StartStream(handles);
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
  ReadCallsAs(chunk, choice);
  if (!choice.calls) return Give(index, chunk.text(), logprobs);
  std::vector<tools::CallEvent> events;
  choice.calls->Push(chunk.text(), events);
  // Log probabilities are told with the text that they are of, or by themselves.
  const bool begins_with_text = !events.empty() && events[0].kind == tools::CallEvent::Kind::kText;
  if (absl::Status status = Give(index, begins_with_text ? events[0].text : "", logprobs); !status.ok()) return status;
  if (begins_with_text) events.erase(events.begin());
  return GiveCalls(index, events);
}

void HttpAnswer::ReadCallsAs(const v1::Chunk& chunk, Choice& choice) const {
  if (!options_.calls || choice.n_text_bytes > chunk.text().size()) return;
  choice.format = options_.calls->format;
  if (!chunk.call_format().empty() && (!choice.format || choice.format->name != chunk.call_format())) {
    choice.format = tools::CallFormatNamed(chunk.call_format());
  }
  choice.calls.reset();
  if (choice.format) choice.calls.emplace(*choice.format, options_.calls->one_call);
}

absl::Status HttpAnswer::Give(int index, const std::string& text, const std::vector<openai::TokenLogprob>& logprobs) {
  if (text.empty() && logprobs.empty()) return absl::OkStatus();
  openai::Choice& made = choices_[index].made;
  if (!options_.stream) {
    made.text += text;
    made.logprobs.insert(made.logprobs.end(), logprobs.begin(), logprobs.end());
    return absl::OkStatus();
  }
  StartStream();
  return Send(openai::StreamDelta(options_.header, text, logprobs, index));
}

absl::Status HttpAnswer::GiveCalls(int index, const std::vector<tools::CallEvent>& events) {
  std::vector<openai::ToolCall>& calls = choices_[index].made.tool_calls;
  const openai::AnswerHeader& header = options_.header;
  for (const tools::CallEvent& event : events) {
    if (event.kind == tools::CallEvent::Kind::kText) {
      if (absl::Status status = Give(index, event.text, {}); !status.ok()) return status;
      continue;
    }
    const bool begins = event.kind == tools::CallEvent::Kind::kCall;
    if (begins) {
      const int n_calls = static_cast<int>(calls.size());
      calls.push_back({.id = CallIdOf(index, n_calls), .name = event.text, .arguments = ""});
    } else if (!options_.stream) {
      calls.back().arguments += event.text;
    }
    if (!options_.stream) continue;
    const int call = static_cast<int>(calls.size()) - 1;
    StartStream();
    const absl::Status status =
        Send(begins ? openai::StreamCallOpening(header, call, calls.back().id, event.text, index)
                    : openai::StreamCallDelta(header, call, event.text, index));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

// The same request sent again gets the same ids with the same answer.
std::string HttpAnswer::CallIdOf(int choice, int call) const {
  // FNV-1a (Fowler, Noll, Vo): the same in every process.
  uint64_t hash = 0xCBF29CE484222325u;
  for (const unsigned char byte : absl::StrCat(options_.request_id, "/", choice, "/", call)) {
    hash = (hash ^ byte) * 0x100000001B3u;
  }
  return tools::CallId(choices_[choice].format.value_or(tools::CallFormat()), hash);
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
  if (choice.calls) {
    std::vector<tools::CallEvent> events;
    choice.calls->Finish(events);
    GiveCalls(index, events).IgnoreError();
    // A call that a stop string has cut is not one to act on.
    if (made.finish_reason == "stop" && !made.tool_calls.empty()) {
      made.finish_reason = !choice.calls->last_is_whole() ? "length"
                           : options_.calls->was_named    ? "stop"
                                                          : "tool_calls";
    }
  }
  made.updraft = ProvenanceToJson(done);
  // A prompt is one, however many answers it has, and what the first of them read the others find.
  PromptUsage& prompt = prompts_[PromptOf(index)];
  const int n_cached = done.usage().cached_tokens();
  prompt.n_cached = prompt.n_tokens ? std::min(prompt.n_cached, n_cached) : n_cached;
  prompt.n_tokens = done.usage().prompt_tokens();
  n_completion_tokens_ += done.usage().completion_tokens();
  // Nothing is cut off from an answer that ends by its length: the last tokens may have no text.
  if (done.finish_reason() == v1::FINISH_REASON_LENGTH) {
    for (Choice::Uncovered& last : choice.uncovered) {
      last.token.text_offset = choice.n_text_chars;
      made.logprobs.push_back(std::move(last.token));
    }
  }
  if (!options_.stream) return;
  StartStream();
  const openai::AnswerHeader& header = options_.header;
  if (!made.logprobs.empty()) Send(openai::StreamDelta(header, "", made.logprobs, index)).IgnoreError();
  Send(openai::StreamClosing(header, made.finish_reason, made.updraft, index)).IgnoreError();
}

void HttpAnswer::EndWhole() {
  if (options_.stream) {
    if (options_.include_usage) Send(openai::StreamUsage(options_.header, UsageOfAll())).IgnoreError();
    exchange_->Write(openai::kStreamEnd).IgnoreError();
    return exchange_->Finish();
  }
  std::vector<openai::Choice> choices;
  for (int i = 0; i < options_.n_choices; ++i) {
    openai::Choice& made = choices.emplace_back(std::move(choices_[i].made));
    if (!options_.echo.empty()) made.text.insert(0, options_.echo[PromptOf(i)]);
  }
  Response response;
  response.body = http::DumpJson(openai::AnswerObject(options_.header, choices, UsageOfAll()));
  exchange_->Respond(WithRequestId(std::move(response), options_.request_id));
}

openai::Usage HttpAnswer::UsageOfAll() const {
  openai::Usage usage{.completion_tokens = n_completion_tokens_};
  for (const PromptUsage& prompt : prompts_) {
    usage.prompt_tokens += prompt.n_tokens.value_or(0);
    usage.cached_tokens += prompt.n_cached;
  }
  return usage;
}

void HttpAnswer::StartStream(const std::vector<RequestHandle>& handles) {
  if (std::exchange(started_, true)) return;
  Response head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
  for (int i = 0; i < options_.n_choices; ++i) {
    if (options_.header.chat) head.body += openai::ServerSentEvent(openai::StreamOpening(options_.header, i));
  }
  // The last to have its turn says how long the whole takes.
  const auto filler = [handles] {
    std::optional<int> place;
    for (const RequestHandle& handle : handles) place = std::max(place, handle.QueuePlace());
    return openai::StreamKeepAlive(place);
  };
  exchange_->StartStream(WithRequestId(std::move(head), options_.request_id), filler);
  for (int i = 0; i < options_.n_choices && !options_.echo.empty(); ++i) {
    Send(openai::StreamDelta(options_.header, options_.echo[PromptOf(i)], {}, i)).IgnoreError();  // as of a next chunk
  }
}

}  // namespace updraft
