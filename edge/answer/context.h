// What all ways of answering share: the request, the ledger, the account, and how chunks are given and the answer
// ended. Private to this folder.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/serving/request_check.h"
#include "edge/answer/answer.h"

namespace updraft {

// How a local run ended, as far as its measurements go.
enum class RunEnd : uint8_t {
  kComplete,  // with the answer
  kGivenUp,   // as hopeless: its length says nothing of the rate
  kBroken     // interrupted or failed: says nothing
};

// Whether anybody could still have answered better.
enum class LastTier : uint8_t { kNo, kYes };

class AnswerContext {
 public:
  AnswerContext(const TierFacts* tier, AnswerHost* host, Asked asked);

  const TierFacts& tier() const { return *tier_; }
  const Asked& asked() const { return asked_; }
  AnswerHost& host() const { return *host_; }
  Ledger& ledger() { return ledger_; }
  const Ledger& ledger() const { return ledger_; }
  v1::Provenance& provenance() { return provenance_; }
  SteadyTime now() const { return now_; }
  bool ended() const { return ended_; }
  const DecisionRecord* record() const { return record_ ? &*record_ : nullptr; }

  // ---- One event ----
  void BeginEvent(SteadyTime now) { now_ = now; }
  Actions TakeActions() { return std::exchange(actions_, {}); }
  void Do(Action action) { actions_.push_back(std::move(action)); }

  // ---- Decisions ----
  // Asks the routing session, with the confidence as it was judged last.
  DecisionRecord Decide(Stage stage);
  // Why nobody wants the answer any more; OK: somebody does.
  absl::Status Interrupted() const;
  bool interrupted() const { return !interruption_.ok(); }
  void Interrupt(const absl::Status& why) { interruption_.Update(why); }

  // ---- The local run ----
  void TakeEvidence(const LocalStep& step);
  int n_evidence() const { return static_cast<int>(evidence_.size()); }
  // What was written here so far has a confidence from here on. Nothing was: it has none.
  void Judge();
  const std::optional<double>& confidence() const { return confidence_; }
  void AccountQueue(absl::Duration queued);
  void AccountLocal(const LocalStopped& stopped, RunEnd end);

  // ---- An answer that acts ----
  // Of a tier that acts: the answer is held until Conclude, unless a part of it has been given by another tier already.
  // A raw prompt's is text, whatever the model: nothing says that it is an answer of the task.
  bool Holds() const {
    return tier_->acts && !IsRaw(asked_.request) && !HasForm(asked_.request) && ledger_.accepted_prefix().empty() &&
           !ledger_.given_any();
  }
  // What was written here is whole and stands: it is decided and given, with its disposition where the tier acts. Where
  // nobody stands above this tier, an answer that is too doubtful to be carried out gives way to a question.
  void Conclude(LastTier last);
  // Upstream's, of the answer that it wrote. What is beyond the bounds of the wire is cut off.
  void TakeVerdict(const UpstreamDone& done);

  // ---- Out ----
  // Adds a chunk to the answer that stands as its writer made it, and gives it to the reader.
  void Write(v1::Chunk chunk, int n_tokens, IdSpace ids = IdSpace::kOurs);
  // Gives the reader what is decided.
  void Give();
  void set_finish(v1::FinishReason finish) { finish_ = finish; }
  v1::FinishReason finish() const { return finish_; }
  void End(const absl::Status& status);
  // For the reason that Interrupted() gives.
  void EndInterrupted();

 private:
  Situation SituationOf(Stage stage) const;

  const TierFacts* const tier_;
  AnswerHost* const host_;
  const Asked asked_;
  Ledger ledger_;
  v1::Provenance provenance_;
  std::vector<TokenEvidence> evidence_;  // of everything that was generated locally
  std::optional<double> confidence_;     // as it was judged last; none: it was not
  int n_drafted_before_run_ = 0;         // tokens of earlier local runs
  std::optional<DecisionRecord> record_;
  absl::Status interruption_;
  v1::FinishReason finish_ = v1::FINISH_REASON_UNSPECIFIED;
  v1::Disposition disposition_ = v1::DISPOSITION_UNSPECIFIED;
  std::vector<std::string> alternatives_;
  bool ended_ = false;
  SteadyTime now_;
  Actions actions_;
};

v1::FinishReason FinishReasonOf(AnswerEnd end);

}  // namespace updraft
