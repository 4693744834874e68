#include "deploy/calibrate/upstream.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/inference_client.h"
#include "common/status/retry_delay.h"
#include "common/sync/mutex.h"

namespace updraft {
namespace {

class Local final : public Upstream {
 public:
  Local(std::string path, AnswerOptions options, std::unique_ptr<Answerer> first)
      : path_(std::move(path)), options_(std::move(options)) {
    idle_.push_back(std::move(first));
  }

  std::string name() const override {
    return options_.adapter.empty() ? path_ : absl::StrFormat("%s with %s", path_, options_.adapter);
  }

  std::string identity() const override { return name(); }

  absl::StatusOr<UpstreamAnswer> Answer(const Conversation& conversation) override {
    return With([&](Answerer& answerer) -> absl::StatusOr<UpstreamAnswer> {
      auto answer = answerer.Answer(conversation, options_);
      if (!answer.ok()) return answer.status();
      return UpstreamAnswer{std::move(answer->text), answer->finished};
    });
  }

  absl::StatusOr<Likelihood> LikelihoodOf(const Conversation& conversation, const std::string& answer) override {
    return With([&](Answerer& answerer) { return updraft::LikelihoodOf(answerer, conversation, answer); });
  }

 private:
  template <typename Function>
  auto With(Function function) -> decltype(function(std::declval<Answerer&>())) {
    std::unique_ptr<Answerer> answerer;
    {
      MutexLock lock(mu_);
      if (!idle_.empty()) {
        answerer = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (answerer == nullptr) {
      auto loaded = Answerer::Load(path_, /*n_threads=*/1, options_.adapter, options_.chat_template);
      if (!loaded.ok()) return loaded.status();
      answerer = *std::move(loaded);
    }
    auto result = function(*answerer);
    MutexLock lock(mu_);
    idle_.push_back(std::move(answerer));
    return result;
  }

  const std::string path_;
  const AnswerOptions options_;
  Mutex mu_;
  std::vector<std::unique_ptr<Answerer>> idle_ ABSL_GUARDED_BY(mu_);
};

v1::Conversation ToProto(const Conversation& conversation) {
  v1::Conversation proto;
  for (const text::ChatMessage& message : conversation) {
    v1::Message* added = proto.add_messages();
    added->set_role(message.role);
    added->set_content(message.content);
  }
  return proto;
}

class Remote final : public Upstream {
 public:
  Remote(const std::string& address, int max_tokens, absl::Duration timeout)
      : address_(address), max_tokens_(max_tokens), timeout_(timeout), client_(address) {}

  absl::Status Meet() {
    auto identity = AskIdentity();
    if (!identity.ok()) return identity.status();
    identity_ = *std::move(identity);
    return absl::OkStatus();
  }

  std::string name() const override { return absl::StrFormat("%s (%s)", address_, model_); }
  std::string identity() const override { return identity_; }

  absl::Status CheckSame() override {
    auto identity = AskIdentity();
    if (!identity.ok()) return identity.status();
    if (*identity == identity_) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrFormat(
        "'%s' serves another model than at the start: expected '%s', found '%s'", address_, identity_, *identity));
  }

  absl::StatusOr<UpstreamAnswer> Answer(const Conversation& conversation) override {
    v1::GenerateRequest request;
    *request.mutable_conversation() = ToProto(conversation);
    request.set_max_tokens(max_tokens_);
    auto answer = Generate(request, static_cast<size_t>(max_tokens_));
    if (!answer.ok()) return answer.status();
    return UpstreamAnswer{std::move(answer->text), answer->done.finish_reason() == v1::FINISH_REASON_STOP};
  }

  absl::StatusOr<Likelihood> LikelihoodOf(const Conversation& conversation, const std::string& answer) override {
    v1::GenerateRequest request;
    *request.mutable_given()->mutable_conversation() = ToProto(conversation);
    request.mutable_given()->set_answer(answer);
    Likelihood likelihood;
    bool is_told = true;
    const auto add = [&](const v1::Evidence& evidence) {
      constexpr double kRounding = 1e-3;
      const double logprob = evidence.logprob();
      is_told = is_told && logprob <= kRounding;  // NaN is not
      likelihood.logprob += std::clamp(logprob, kLogprobFloor, 0.0);
      ++likelihood.n_tokens;
    };
    auto read = Generate(request, answer.size(), [&](const v1::Chunk& chunk) {
      std::for_each(chunk.evidence().begin(), chunk.evidence().end(), add);
    });
    if (absl::IsInvalidArgument(read.status()) || absl::IsFailedPrecondition(read.status())) {
      // A tier of an earlier version, an edge, or a model without a token for the end.
      return absl::UnimplementedError(std::string(read.status().message()));
    }
    if (!read.ok()) return read.status();
    is_told =
        is_told && static_cast<size_t>(likelihood.n_tokens) == read->tokens.size() && read->done.has_end_evidence();
    if (is_told) add(read->done.end_evidence());
    if (is_told) return likelihood;
    return absl::UnimplementedError(absl::StrFormat("'%s' did not tell how likely it finds each token", address_));
  }

 private:
  absl::StatusOr<std::string> AskIdentity() {
    auto status = client_.GetStatus(absl::Seconds(10));
    if (!status.ok()) return status.status();
    const v1::ModelInfo& model = status->model();
    const std::string& adapter = model.adapter().path();
    if (identity_.empty())
      model_ = adapter.empty() ? model.path() : absl::StrFormat("%s with %s", model.path(), adapter);
    return absl::StrFormat("%s %d %s %s", model.path(), model.file_bytes(), model.tokenizer_fingerprint(),
                           model.adapter().sha256());
  }

  // One answer of at most max_tokens, however often it is told to come back later.
  absl::StatusOr<ClientAnswer> Generate(const v1::GenerateRequest& request, size_t max_tokens,
                                        const std::function<void(const v1::Chunk&)>& on_chunk = {}) {
    constexpr int kTries = 5;
    for (int attempt = 1;; ++attempt) {
      size_t n_tokens = 0, n_bytes = 0;
      auto answer = client_.Generate(request, timeout_, [&](const v1::Chunk& chunk) {
        n_tokens += static_cast<size_t>(chunk.tokens_size());
        n_bytes += chunk.text().size();
        if (on_chunk) on_chunk(chunk);
        return n_tokens <= max_tokens + 1 && n_bytes <= kMaxAnswerBytes;
      });
      if (absl::IsCancelled(answer.status()) && (n_tokens > max_tokens + 1 || n_bytes > kMaxAnswerBytes)) {
        return absl::OutOfRangeError(
            absl::StrFormat("'%s': expected an answer of at most %d tokens and %d bytes, found more", address_,
                            max_tokens, kMaxAnswerBytes));
      }
      if (absl::IsDeadlineExceeded(answer.status())) {
        return absl::DeadlineExceededError(
            absl::StrFormat("'%s': no whole answer in %s; give it more time with --upstream-timeout", address_,
                            absl::FormatDuration(timeout_)));
      }
      const auto delay = RetryDelayOf(answer.status());
      if (answer.ok() || !delay || n_tokens > 0 || attempt == kTries) return answer;
      absl::SleepFor(std::min(*delay, absl::Seconds(30)));
    }
  }

  static constexpr size_t kMaxAnswerBytes = 4 << 20;

  const std::string address_;
  const int max_tokens_;
  const absl::Duration timeout_;
  InferenceClient client_;
  std::string model_, identity_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Upstream>> LocalUpstream(const std::string& model_path, const AnswerOptions& options) {
  auto first = Answerer::Load(model_path, /*n_threads=*/1, options.adapter, options.chat_template);
  if (!first.ok()) return first.status();
  return std::make_unique<Local>(model_path, options, *std::move(first));
}

absl::StatusOr<std::unique_ptr<Upstream>> RemoteUpstream(const std::string& address, int max_tokens,
                                                         absl::Duration timeout) {
  auto remote = std::make_unique<Remote>(address, max_tokens, timeout);
  if (absl::Status status = remote->Meet(); !status.ok()) return status;
  return remote;
}

}  // namespace updraft
