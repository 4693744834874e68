#include "edge/agent/live_answer.h"

#include <utility>
#include <variant>

namespace updraft {
namespace {

UpstreamDone DoneOf(const v1::Done& done) {
  UpstreamDone event{.finish_reason = done.finish_reason(), .disposition = done.disposition()};
  if (done.provenance().has_p_right()) event.p_right = done.provenance().p_right();
  event.alternatives.assign(done.alternatives().begin(), done.alternatives().end());
  return event;
}

}  // namespace

// Ties one call upstream to its answer.
class LiveAnswer::UpstreamLeg final : public UpstreamListener {
 public:
  explicit UpstreamLeg(std::shared_ptr<LiveAnswer> live) : live_(std::move(live)) {}

  void OnResponse(const v1::GenerateResponse& response) override {
    if (response.has_chunk()) live_->Post(UpstreamChunk{response.chunk()});
    if (response.has_done()) live_->Post(DoneOf(response.done()));
  }
  void OnFinished(const absl::Status& status, const UpstreamTraffic& traffic) override {
    live_->Post(UpstreamEnded{.status = status, .bytes_up = traffic.bytes_up, .bytes_down = traffic.bytes_down});
  }

 private:
  const std::shared_ptr<LiveAnswer> live_;
};

LiveAnswer::LiveAnswer(const AnswerLegs* legs, AnswerKeeper* keeper, std::unique_ptr<Answer> answer,
                       std::shared_ptr<AnswerSink> sink)
    : legs_(legs), keeper_(keeper), answer_(std::move(answer)), sink_(std::move(sink)) {}

void LiveAnswer::Post(Event event) {
  // A handler may drop the last reference to this answer but ours.
  const auto self = shared_from_this();
  mailbox_.Post(std::move(event), [this](Event next) { Handle(std::move(next)); });
}

void LiveAnswer::Handle(Event event) {
  const bool took_all = refused_.ok();
  Deliver(event);
  // Before what waits in the mailbox: nothing more is for a reader that refused.
  if (took_all && !refused_.ok()) Deliver(Interrupt{refused_});
}

void LiveAnswer::Deliver(const Event& event) {
  if (answer_ == nullptr) return;
  if (std::holds_alternative<UpstreamEnded>(event)) call_.reset();
  Actions actions = answer_->On(event, SteadyNow());
  for (Action& action : actions) {
    std::visit([this](auto& a) { Carry(a); }, action);
  }
}

void LiveAnswer::Carry(GiveChunk& give) { refused_.Update(sink_->OnChunk(give.chunk)); }

void LiveAnswer::Carry(StartLocal& start) {
  if (start.turn == StartLocal::Turn::kInOrder) holds_place_ = false;  // taken
  legs_->worker->Start(shared_from_this(), std::move(start.so_far), start.turn);
}

void LiveAnswer::Carry(StopLocal&) { legs_->worker->Stop(this); }

void LiveAnswer::Carry(CallUpstream& call) {
  GiveBackPlace();
  call_ = legs_->upstream->Generate(call.request, answer_->asked().deadline,
                                    std::make_shared<UpstreamLeg>(shared_from_this()));
}

void LiveAnswer::Carry(CancelUpstream&) {
  if (call_ != nullptr) call_->Cancel();
}

void LiveAnswer::Carry(ForgetVocabulary&) { legs_->upstream->ForgetFingerprint(); }

void LiveAnswer::GiveBackPlace() {
  if (std::exchange(holds_place_, false)) legs_->worker->Release();
}

void LiveAnswer::Carry(EndAnswer& end) {
  GiveBackPlace();
  end.status.Update(refused_);  // an answer is whole when its reader has it
  keeper_->OnEnded(*this, *answer_, end);
  answer_.reset();
  // The sink holds the request's handle, so keeping it would keep both for ever.
  std::shared_ptr<AnswerSink> sink = std::exchange(sink_, nullptr);
  sink->OnEnd(end.status, end.done);
  sink.reset();
  keeper_->OnTold();
}

}  // namespace updraft
