#include "edge/answer/answer.h"

#include <utility>

#include "edge/answer/context.h"
#include "edge/answer/ways.h"

namespace updraft {

Answer::Answer(const TierFacts* tier, AnswerHost* host, Asked asked)
    : context_(std::make_unique<AnswerContext>(tier, host, std::move(asked))) {}

Answer::~Answer() = default;

bool Answer::ended() const { return context_->ended(); }
const Asked& Answer::asked() const { return context_->asked(); }
const Ledger& Answer::ledger() const { return context_->ledger(); }
const DecisionRecord* Answer::record() const { return context_->record(); }

namespace {

// What happens outside of any way.
AnswerWay::Next Handle(const Admitted&, AnswerWay*, AnswerContext& answer) {
  // A tier that shuts down may interrupt what it has just taken in.
  if (answer.interrupted()) {
    answer.EndInterrupted();
    return nullptr;
  }
  return BeginAnswer(answer);
}

AnswerWay::Next Handle(const Refused& refused, AnswerWay*, AnswerContext& answer) {
  answer.End(refused.status);
  return nullptr;
}

AnswerWay::Next Handle(const Interrupt& interrupt, AnswerWay* way, AnswerContext& answer) {
  answer.Interrupt(interrupt.why);
  if (way != nullptr) way->OnInterrupt(answer);
  return nullptr;
}

template <typename LegEvent>
AnswerWay::Next Handle(const LegEvent& event, AnswerWay* way, AnswerContext& answer) {
  return way == nullptr ? nullptr : way->On(event, answer);
}

}  // namespace

Actions Answer::On(const Event& event, SteadyTime now) {
  if (context_->ended()) return {};
  context_->BeginEvent(now);
  AnswerWay::Next next = std::visit([this](const auto& e) { return Handle(e, way_.get(), *context_); }, event);
  if (next != nullptr) way_ = std::move(next);
  if (context_->ended()) way_.reset();
  return context_->TakeActions();
}

}  // namespace updraft
