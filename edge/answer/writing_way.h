// What the ways share in which this tier's model writes: a run that begins, goes on and is stopped. Private to this
// folder.
#pragma once

#include "edge/answer/ways.h"

namespace updraft {

class WritingWay : public AnswerWay {
 public:
  using AnswerWay::On;
  Next On(const LocalBegan& began, AnswerContext& answer) final {
    answer.AccountQueue(began.queued);
    return StopIfInterrupted(answer);
  }
  Next On(const LocalAdvanced&, AnswerContext& answer) final { return StopIfInterrupted(answer); }
  void OnInterrupt(AnswerContext& answer) final { StopIfInterrupted(answer); }

 protected:
  enum class Phase : uint8_t {
    kWriting,
    kComplete,  // the model wrote the whole answer
    kGivenUp,   // as hopeless
    kStopping   // nobody wants it
  };

  // A whole answer, or one that was given up, has nothing left to interrupt.
  Next StopIfInterrupted(AnswerContext& answer) {
    if (phase_ == Phase::kWriting && !answer.Interrupted().ok()) Stop(Phase::kStopping, answer);
    return nullptr;
  }
  void Stop(Phase why, AnswerContext& answer) {
    phase_ = why;
    answer.Do(StopLocal{});
  }
  // The end of the run, for the account.
  RunEnd run_end() const {
    if (phase_ == Phase::kComplete) return RunEnd::kComplete;
    return phase_ == Phase::kGivenUp ? RunEnd::kGivenUp : RunEnd::kBroken;
  }

  Phase phase_ = Phase::kWriting;
};

}  // namespace updraft
