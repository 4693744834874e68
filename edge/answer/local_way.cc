// Local: the model writes, the reader reads along.
#include "common/rpc/convert.h"
#include "edge/answer/writing_way.h"

namespace updraft {
namespace {

class LocalWay final : public WritingWay {
 public:
  using AnswerWay::On;
  explicit LocalWay(StreamsBecause why) : why_(why) {}

  Next On(const LocalStep& step, AnswerContext& answer) override {
    if (phase_ != Phase::kWriting) return nullptr;
    answer.TakeEvidence(step);
    if (answer.Holds()) {
      answer.ledger().Draft(step.chunk, step.chunk.tokens_size(), IdSpace::kOurs);
    } else {
      answer.Write(step.chunk, step.chunk.tokens_size());
    }
    if (step.end == AnswerEnd::kOpen) return StopIfInterrupted(answer);
    answer.set_finish(FinishReasonOf(step.end));
    phase_ = Phase::kComplete;
    return nullptr;
  }

  Next On(const LocalStopped& stopped, AnswerContext& answer) override {
    answer.AccountLocal(stopped, run_end());
    if (!stopped.status.ok()) {
      answer.End(stopped.status);
    } else if (phase_ == Phase::kComplete) {
      // What is finished after upstream is not this tier's alone: no confidence is fitted on such answers.
      if (why_ != StreamsBecause::kUpstreamFailed) answer.Judge();
      if (why_ == StreamsBecause::kUpstreamIsAway && answer.confidence()) ExplainKeeping(answer);
      if (answer.Holds()) answer.Conclude(LastTier::kYes);
      answer.End(absl::OkStatus());
    } else {
      answer.EndInterrupted();
    }
    return nullptr;
  }

 private:
  // Of an answer that was streamed because upstream could not be used when it began: whether it would have been wanted.
  static void ExplainKeeping(AnswerContext& answer) {
    const DecisionRecord record = answer.Decide(Stage::kAfter);
    const bool came_back = DecisionOf(record) == Decision::kHandOver;
    answer.provenance().set_degraded(record.degraded || came_back);
    answer.provenance().set_reason(came_back ? Explain(record) + ", but not when the answer began" : Explain(record));
  }

  const StreamsBecause why_;
};

}  // namespace

AnswerWay::Next BeginLocal(AnswerContext& answer, StreamsBecause why, AnswerSoFar so_far, StartLocal::Turn turn) {
  answer.Do(StartLocal{.so_far = std::move(so_far), .turn = turn});
  return std::make_unique<LocalWay>(why);
}

}  // namespace updraft
