// An answer that acts: held until it is whole, judged, and where it is too doubtful exchanged for a question.
#include <utility>

#include "cloud/service/answer_feed.h"
#include "common/answer/detokenized_text.h"
#include "common/rpc/convert.h"

namespace updraft {
namespace {

// Further answers to a request that the model is not sure of: enough that what it thinks of most comes up, and few
// enough that a question is not much later than an answer would have been. They run together in the engine's batch.
constexpr int kCandidates = 4;
constexpr float kCandidateTemperature = 1.0f;
// So often whoever waits is told that the answer is being made.
constexpr absl::Duration kSignEvery = absl::Seconds(1);

}  // namespace

class HeldAnswerFeed::Candidate final : public engine::Sink {
 public:
  explicit Candidate(std::shared_ptr<HeldAnswerFeed> feed) : feed_(std::move(feed)) {}
  bool OnTokens(const engine::Output& output) override {
    text_ += output.text;
    return feed_->SignOfLife();
  }
  void OnDone(const absl::Status& status, const engine::Summary& summary) override {
    const bool whole = status.ok() && summary.end == AnswerEnd::kStop;
    feed_->OnCandidate(whole ? std::move(text_) : "");
  }

 private:
  const std::shared_ptr<HeldAnswerFeed> feed_;
  std::string text_;
};

bool HeldAnswerFeed::OnTokens(const engine::Output& output) {
  whole_.MergeFrom(ChunkOf(output));
  text_ += output.text;
  evidence_.insert(evidence_.end(), output.evidence.begin(), output.evidence.end());
  return SignOfLife();
}

// Who waits behind a link would otherwise take a long answer for a dead one.
bool HeldAnswerFeed::SignOfLife() {
  const SteadyTime now = SteadyNow();
  if (now - last_sign_ < kSignEvery) return true;
  last_sign_ = now;
  v1::Chunk sign;
  sign.set_tier(tier_.name);
  return Give(sign);
}

void HeldAnswerFeed::OnDone(const absl::Status& status, const engine::Summary& summary) {
  if (!status.ok()) return End(status, summary, {});
  summary_ = summary;
  whole_.set_text(text_);
  if (summary.end_evidence) {
    evidence_.push_back(*summary.end_evidence);
    evidence_.back().text_offset = TokenEvidence::kNoText;
  }
  verdict_ = tier_.rule.Judge(whole_.text(), evidence_, request_.features);
  if (verdict_.doubtful) return AskAgain();
  v1::Done done = request_.wants_evidence ? DoneWithEvidence(summary) : v1::Done();
  done.set_disposition(DispositionToProto(verdict_.disposition));
  if (verdict_.p_right) done.mutable_provenance()->set_p_right(*verdict_.p_right);
  if (!request_.wants_evidence) whole_.clear_evidence();
  Give(whole_);
  End(absl::OkStatus(), summary_, std::move(done));
}

void HeldAnswerFeed::AskAgain() {
  doubted_ = SteadyNow();
  candidates_.push_back(whole_.text());
  n_awaited_ = 1;  // this call itself, so that none of them concludes before all are on their way
  for (int i = 0; i < kCandidates; ++i) {
    engine::Request request;
    request.prompt = request_.prompt;
    request.sampling.temperature = kCandidateTemperature;
    request.sampling.seed = request_.seed * 1000003 + static_cast<uint64_t>(i) + 1;
    request.max_tokens = request_.max_tokens;
    request.stop = request_.stop;
    request.stop_tokens = tier_.model->stop_tokens();
    request.deadline = request_.deadline;
    request.priority = request_.priority;
    request.cache_salt = request_.cache_salt;
    request.text = std::make_unique<DetokenizedText>(tier_.model->tokenizer(), /*at_text_start=*/true);
    const auto ticket = tier_.engine->Submit(std::move(request), std::make_shared<Candidate>(shared_from_this()));
    if (!ticket.ok()) break;  // others need the room more
    ++n_awaited_;
    MutexLock lock(mu_);
    tickets_.push_back(*ticket);
    if (cancelled_) tier_.engine->Cancel(*ticket);
  }
  OnCandidate("");
}

void HeldAnswerFeed::Cancel() {
  MutexLock lock(mu_);
  cancelled_ = true;
  for (const uint64_t ticket : tickets_) tier_.engine->Cancel(ticket);
}

void HeldAnswerFeed::OnCandidate(std::string text) {
  if (!text.empty()) candidates_.push_back(std::move(text));
  if (--n_awaited_ == 0) AskBack();
}

void HeldAnswerFeed::AskBack() {
  summary_.total += SteadyNow() - doubted_;  // whoever asked waited for the samples, too
  {
    MutexLock lock(mu_);
    if (cancelled_) return End(absl::CancelledError("the request was cancelled"), summary_, {});
  }
  const AskingBack asking = tier_.rule.AskBack(candidates_, request_.said_last);
  v1::Done done;
  done.set_disposition(DispositionToProto(asking.disposition));
  for (const std::string& alternative : asking.alternatives) done.add_alternatives(alternative);
  if (verdict_.p_right) done.mutable_provenance()->set_p_right(*verdict_.p_right);
  v1::Chunk question;
  question.set_tier(tier_.name);
  question.set_text(asking.text);
  Give(question);
  End(absl::OkStatus(), summary_, std::move(done));
}

}  // namespace updraft
