// DraftThenDecide: the draft is held back until its evidence has decided.
#include "absl/strings/str_format.h"
#include "edge/answer/ways.h"

namespace updraft {
namespace {

constexpr int kFirstLook = 8;  // tokens of a draft before it is judged; fewer say little
constexpr int kLookEvery = 4;

class DraftWay final : public AnswerWay {
 public:
  Next On(const LocalBegan& began, AnswerContext& answer) override {
    answer.AccountQueue(began.queued);
    return StopIfInterrupted(answer);
  }

  Next On(const LocalAdvanced&, AnswerContext& answer) override { return StopIfInterrupted(answer); }

  Next On(const LocalStep& step, AnswerContext& answer) override {
    if (phase_ != Phase::kDrafting) return nullptr;
    answer.TakeEvidence(step);
    answer.ledger().Draft(step.chunk, step.chunk.tokens_size(), IdSpace::kOurs);
    if (step.end != AnswerEnd::kOpen) {
      end_ = step.end;
      phase_ = Phase::kComplete;
      return nullptr;
    }
    if (!IsHopeless(answer)) return StopIfInterrupted(answer);
    phase_ = Phase::kGivenUp;
    answer.Do(StopLocal{});
    return nullptr;
  }

  Next On(const LocalStopped& stopped, AnswerContext& answer) override {
    answer.AccountLocal(stopped, RunEndOf(phase_));
    if (!stopped.status.ok()) {
      answer.End(stopped.status);
      return nullptr;
    }
    if (phase_ == Phase::kDrafting || phase_ == Phase::kStopping) {
      answer.EndInterrupted();
      return nullptr;
    }
    answer.JudgeOwnAnswer();
    if (phase_ == Phase::kComplete && Keeps(answer)) return Keep(answer);
    if (answer.Interrupted().ok()) return HandOver(answer);
    answer.EndInterrupted();
    return nullptr;
  }

  void OnInterrupt(AnswerContext& answer) override { StopIfInterrupted(answer); }

 private:
  enum class Phase : uint8_t { kDrafting, kComplete, kGivenUp, kStopping };

  static RunEnd RunEndOf(Phase phase) {
    if (phase == Phase::kComplete) return RunEnd::kComplete;
    return phase == Phase::kGivenUp ? RunEnd::kGivenUp : RunEnd::kBroken;
  }

  Next StopIfInterrupted(AnswerContext& answer) {
    if (phase_ == Phase::kDrafting && !answer.Interrupted().ok()) {
      phase_ = Phase::kStopping;
      answer.Do(StopLocal{});
    }
    return nullptr;
  }

  // While it is written: whether it is so doubtful already that it will be handed over anyway.
  static bool IsHopeless(AnswerContext& answer) {
    const int n = answer.n_evidence();
    if (n < kFirstLook || n % kLookEvery != 0) return false;
    answer.provenance().set_confidence(answer.Confidence());
    const DecisionRecord record = answer.Decide(Stage::kDuring);
    if (DecisionOf(record) != Decision::kHandOver) return false;
    answer.provenance().set_reason(absl::StrFormat("after %d tokens: %s", n, Explain(record)));
    return true;
  }

  static bool Keeps(AnswerContext& answer) {
    const DecisionRecord record = answer.Decide(Stage::kAfter);
    answer.provenance().set_reason(Explain(record));
    answer.provenance().set_degraded(record.degraded);
    return DecisionOf(record) != Decision::kHandOver;
  }

  Next Keep(AnswerContext& answer) {
    answer.provenance().set_decision(v1::DECISION_KIND_KEEP);
    answer.set_finish(FinishReasonOf(end_));
    answer.ledger().Decide(answer.tier().name);
    answer.Give();
    answer.End(answer.Interrupted());
    return nullptr;
  }

  Next HandOver(AnswerContext& answer) {
    answer.provenance().set_decision(v1::DECISION_KIND_HAND_OVER);
    return BeginStreamUp(answer, {.end = end_});
  }

  Phase phase_ = Phase::kDrafting;
  AnswerEnd end_ = AnswerEnd::kOpen;
};

}  // namespace

AnswerWay::Next BeginDraft(AnswerContext& answer, AnswerSoFar so_far) {
  answer.Do(StartLocal{.so_far = std::move(so_far), .turn = StartLocal::Turn::kInOrder});
  return std::make_unique<DraftWay>();
}

}  // namespace updraft
