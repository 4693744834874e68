// DraftThenDecide: the draft is held back until its evidence has decided.
#include "absl/strings/str_format.h"
#include "edge/answer/writing_way.h"

namespace updraft {
namespace {

constexpr int kFirstLook = 8;  // tokens of a draft before it is judged; fewer say little
constexpr int kLookEvery = 4;

class DraftWay final : public WritingWay {
 public:
  using AnswerWay::On;

  Next On(const LocalStep& step, AnswerContext& answer) override {
    if (phase_ != Phase::kWriting) return nullptr;
    answer.TakeEvidence(step);
    answer.ledger().Draft(step.chunk, step.chunk.tokens_size(), IdSpace::kOurs);
    if (step.end != AnswerEnd::kOpen) {
      end_ = step.end;
      phase_ = Phase::kComplete;
      return nullptr;
    }
    if (!IsHopeless(answer)) return StopIfInterrupted(answer);
    Stop(Phase::kGivenUp, answer);
    return nullptr;
  }

  Next On(const LocalStopped& stopped, AnswerContext& answer) override {
    answer.AccountLocal(stopped, run_end());
    if (!stopped.status.ok()) {
      answer.End(stopped.status);
      return nullptr;
    }
    if (phase_ == Phase::kWriting || phase_ == Phase::kStopping) {
      answer.EndInterrupted();
      return nullptr;
    }
    if (!answer.Interrupted().ok()) {
      answer.EndInterrupted();
      return nullptr;
    }
    answer.Judge();
    return phase_ == Phase::kComplete && Keeps(answer) ? Keep(answer) : HandOver(answer);
  }

 private:
  // While it is written: whether it is so doubtful already that it will be handed over anyway.
  static bool IsHopeless(AnswerContext& answer) {
    const int n = answer.n_evidence();
    if (n < kFirstLook || n % kLookEvery != 0) return false;
    answer.Judge();
    const DecisionRecord record = answer.Decide(Stage::kDuring);
    if (DecisionOf(record) != Decision::kHandOver) return false;
    answer.provenance().set_reason(absl::StrFormat("after %d tokens: %s", n, Explain(record)));
    return true;
  }

  bool Keeps(AnswerContext& answer) {
    if (!answer.confidence()) return true;  // all was accepted by the tier below: there is nothing to doubt
    const DecisionRecord record = answer.Decide(Stage::kAfter);
    answer.provenance().set_reason(Explain(record));
    answer.provenance().set_degraded(record.degraded);
    if (record.degraded) last_ = LastTier::kYes;
    return DecisionOf(record) != Decision::kHandOver;
  }

  Next Keep(AnswerContext& answer) {
    answer.provenance().set_decision(v1::DECISION_KIND_KEEP);
    answer.set_finish(FinishReasonOf(end_));
    answer.Conclude(last_);
    answer.End(absl::OkStatus());
    return nullptr;
  }

  Next HandOver(AnswerContext& answer) {
    answer.provenance().set_decision(v1::DECISION_KIND_HAND_OVER);
    return BeginStreamUp(answer, {.end = end_});
  }

  AnswerEnd end_ = AnswerEnd::kOpen;
  LastTier last_ = LastTier::kNo;  // it was to be handed over, and nobody takes it
};

}  // namespace

AnswerWay::Next BeginDraft(AnswerContext& answer, AnswerSoFar so_far) {
  answer.Do(StartLocal{.so_far = std::move(so_far), .turn = StartLocal::Turn::kInOrder});
  return std::make_unique<DraftWay>();
}

}  // namespace updraft
