// One answer on its way from the engine to its sink, with the account of it: chunks, provenance, metrics and a log
// line.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "cloud/engine/engine.h"
#include "common/serving/backend.h"
#include "common/serving/disposition_rule.h"
#include "common/sync/mutex.h"
#include "common/telemetry/metrics.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// What all answers of a tier have in common. Must outlive them.
struct FeedTier {
  std::string name;
  const ServedModel* model = nullptr;
  engine::Engine* engine = nullptr;
  Metrics* metrics = nullptr;
  DispositionRule rule;
};

// As it comes. Every request has one, those that are refused too, so that all are counted and logged alike.
class AnswerFeed : public engine::Sink {
 public:
  // call_format: v1::Chunk's.
  AnswerFeed(const FeedTier* tier, std::string request_id, std::shared_ptr<AnswerSink> sink,
             std::string call_format = "")
      : tier_(*tier),
        request_id_(std::move(request_id)),
        call_format_(std::move(call_format)),
        sink_(std::move(sink)) {}

  bool OnTokens(const engine::Output& output) override;
  void OnDone(const absl::Status& status, const engine::Summary& summary) override;
  // Instead of the engine's end.
  void Refuse(const absl::Status& status);
  // Any thread: whatever else goes on for this answer ends.
  virtual void Cancel() {}

 protected:
  // False: nobody takes it any more.
  bool Give(const v1::Chunk& chunk);
  // Once, last. done: what is known beside the summary.
  void End(const absl::Status& status, const engine::Summary& summary, v1::Done done);
  v1::Chunk ChunkOf(const engine::Output& output) const;
  // With what is known of the token that ended the answer.
  static v1::Done DoneWithEvidence(const engine::Summary& summary);

  const FeedTier& tier_;

 private:
  void FillDone(const engine::Summary& summary, v1::Done& done) const;
  void Account(const absl::Status& status, std::string_view decision, const v1::Done& done, int n_preemptions) const;

  const std::string request_id_, call_format_;
  const std::shared_ptr<AnswerSink> sink_;
  absl::Status refused_;  // by the sink
};

// What an answer that acts is judged by and asked again with.
struct HeldRequest {
  std::vector<int32_t> prompt;
  std::vector<std::string> stop;
  int max_tokens = 0;
  uint64_t seed = 0;
  int priority = 0;
  uint64_t cache_salt = 0;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
  PromptFeatures features;
  std::string said_last;  // by the user; empty: not known
  bool wants_evidence = false;
};

// Held until it is whole. One that is too doubtful to be carried out gives way to a question; what else could have been
// meant is sampled then, several answers at once, as far as the engine has room for them.
class HeldAnswerFeed final : public AnswerFeed, public std::enable_shared_from_this<HeldAnswerFeed> {
 public:
  HeldAnswerFeed(const FeedTier* tier, std::string request_id, std::shared_ptr<AnswerSink> sink, HeldRequest request)
      : AnswerFeed(tier, std::move(request_id), std::move(sink)), request_(std::move(request)) {}

  bool OnTokens(const engine::Output& output) override;
  void OnDone(const absl::Status& status, const engine::Summary& summary) override;
  void Cancel() override;

 private:
  class Candidate;  // the sink of one sampled answer

  void AskAgain();
  void OnCandidate(std::string text);
  void AskBack();
  bool SignOfLife();

  const HeldRequest request_;
  // ---- Of the engine's thread ----
  v1::Chunk whole_;   // text at the end alone
  std::string text_;  // so far
  std::vector<TokenEvidence> evidence_;
  SteadyTime last_sign_ = SteadyNow();
  Verdict verdict_;
  engine::Summary summary_;
  std::vector<std::string> candidates_;  // the answer itself first
  int n_awaited_ = 0;
  SteadyTime doubted_;  // when the first of them was asked for
  // ---- Of all ----
  Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<uint64_t> tickets_ ABSL_GUARDED_BY(mu_);  // of the candidates
};

}  // namespace updraft
