// An answer with the threads around it: its mailbox, its reader, and the legs on which its actions are carried out.
// What it decides is edge/answer's business.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/clock/steady.h"
#include "common/serving/backend.h"
#include "edge/agent/local_worker.h"
#include "edge/agent/mailbox.h"
#include "edge/agent/upstream.h"
#include "edge/answer/answer.h"

namespace updraft {

class LiveAnswer;

// What carries out an answer's actions.
struct AnswerLegs {
  LocalWorker* worker = nullptr;
  Upstream* upstream = nullptr;  // null: none
};

// Hears the end of answers, on the thread that handled the last event, before the answer's sink does.
class AnswerKeeper {
 public:
  virtual ~AnswerKeeper() = default;
  // `answer` is whole still; after this returns the sink is told, then OnTold is called.
  virtual void OnEnded(LiveAnswer& live, const Answer& answer, const EndAnswer& end) = 0;
  virtual void OnTold() = 0;
};

class LiveAnswer final : public LocalClient, public std::enable_shared_from_this<LiveAnswer> {
 public:
  // legs and keeper must outlive the answer.
  LiveAnswer(const AnswerLegs* legs, AnswerKeeper* keeper, std::unique_ptr<Answer> answer,
             std::shared_ptr<AnswerSink> sink);

  std::shared_ptr<LiveAnswer> shared() { return shared_from_this(); }

  // Any thread; after the end nothing. It and what came meanwhile are handled before this returns, or by the thread
  // that is at it.
  void Post(Event event) override;

  // Before it is posted Admitted: the worker holds a place in its queue for it, which it takes or gives back.
  void HoldsPlace() { holds_place_ = true; }

  // While the answer lives, for the legs; until the end for others.
  const Asked& asked() const override { return answer_->asked(); }

 private:
  class UpstreamLeg;

  void Handle(Event event);
  void Deliver(const Event& event);
  void Carry(GiveChunk& give);
  void Carry(StartLocal& start);
  void Carry(StopLocal& stop);
  void Carry(CallUpstream& call);
  void Carry(CancelUpstream& cancel);
  void Carry(ForgetVocabulary& forget);
  void Carry(EndAnswer& end);
  void GiveBackPlace();

  const AnswerLegs* const legs_;
  AnswerKeeper* const keeper_;
  Mailbox<Event> mailbox_;
  // Of the thread that handles the mailbox. Null after the end: handles of requests live as long as their transports
  // like, and hold nothing that grows with the request.
  std::unique_ptr<Answer> answer_;
  std::shared_ptr<AnswerSink> sink_;
  std::shared_ptr<UpstreamCall> call_;
  bool holds_place_ = false;
  absl::Status refused_;  // the first chunk that the sink refused, and why
};

}  // namespace updraft
