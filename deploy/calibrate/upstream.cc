#include "deploy/calibrate/upstream.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_format.h"
#include "common/rpc/inference_client.h"
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

  absl::StatusOr<std::string> Answer(const Conversation& conversation) override {
    return With([&](Answerer& answerer) -> absl::StatusOr<std::string> {
      auto answer = answerer.Answer(conversation, options_);
      if (!answer.ok()) return answer.status();
      return std::move(answer->text);
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
    auto status = client_.GetStatus(absl::Seconds(10));
    if (!status.ok()) return status.status();
    const v1::ModelInfo& model = status->model();
    identity_ = absl::StrFormat("%s %d %s %s", model.path(), model.file_bytes(), model.tokenizer_fingerprint(),
                                model.adapter().sha256());
    model_ = model.adapter().path().empty() ? model.path()
                                            : absl::StrFormat("%s with %s", model.path(), model.adapter().path());
    return absl::OkStatus();
  }

  std::string name() const override { return absl::StrFormat("%s (%s)", address_, model_); }
  std::string identity() const override { return identity_; }

  absl::StatusOr<std::string> Answer(const Conversation& conversation) override {
    v1::GenerateRequest request;
    *request.mutable_conversation() = ToProto(conversation);
    request.set_max_tokens(max_tokens_);
    auto answer = client_.Generate(request, timeout_);
    if (!answer.ok()) return answer.status();
    return std::move(answer->text);
  }

  absl::StatusOr<Likelihood> LikelihoodOf(const Conversation& conversation, const std::string& answer) override {
    v1::GenerateRequest request;
    *request.mutable_given()->mutable_conversation() = ToProto(conversation);
    request.mutable_given()->set_answer(answer);
    Likelihood likelihood;
    const auto add = [&](const v1::Evidence& evidence) {
      likelihood.logprob += std::max(static_cast<double>(evidence.logprob()), kLogprobFloor);
      ++likelihood.n_tokens;
    };
    auto read = client_.Generate(request, timeout_, [&](const v1::Chunk& chunk) {
      std::for_each(chunk.evidence().begin(), chunk.evidence().end(), add);
      return true;
    });
    if (absl::IsInvalidArgument(read.status())) {
      // A tier of an earlier version, or one that answers with another's help. What it cannot read it says of others.
      return absl::UnimplementedError(std::string(read.status().message()));
    }
    if (!read.ok()) return read.status();
    if (read->done.has_end_evidence()) add(read->done.end_evidence());
    return likelihood;
  }

 private:
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
