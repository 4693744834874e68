// The ways to answer, one small strategy each. Private to this folder.
//
//   Local            the model writes, the reader reads along
//   DraftThenDecide  the model writes a draft that is held back; confidence decides whether it stands or is handed over
//   StreamUp         upstream writes; when it fails, Local goes on from what was given
//
// A way handles the events of its own legs (a local run, a call upstream) and may give way to another; the new one
// begins when the old one's legs have ended.
#pragma once

#include <memory>

#include "edge/answer/context.h"

namespace updraft {

class AnswerWay {
 public:
  virtual ~AnswerWay() = default;
  // Null: this way goes on. Otherwise the way that takes over, begun already. An answer that has ended gets no more
  // events.
  using Next = std::unique_ptr<AnswerWay>;

  virtual Next On(const LocalBegan&, AnswerContext&) { return nullptr; }
  virtual Next On(const LocalAdvanced&, AnswerContext&) { return nullptr; }
  virtual Next On(const LocalStep&, AnswerContext&) { return nullptr; }
  virtual Next On(const LocalStopped&, AnswerContext&) { return nullptr; }
  virtual Next On(const UpstreamChunk&, AnswerContext&) { return nullptr; }
  virtual Next On(const UpstreamDone&, AnswerContext&) { return nullptr; }
  virtual Next On(const UpstreamEnded&, AnswerContext&) { return nullptr; }
  // Nobody wants the answer any more: ends its legs. The answer ends when they have.
  virtual void OnInterrupt(AnswerContext&) = 0;
};

// Why an answer is written here as its reader reads along.
enum class StreamsBecause : uint8_t {
  kDecided,         // policy, or nothing above to ask
  kUpstreamIsAway,  // it would be drafted, but not even a hopeless draft could be handed over now
  kUpstreamFailed   // it goes on after upstream
};

// The first way of a request, as the routing session decides; null when the answer has ended with that.
AnswerWay::Next BeginAnswer(AnswerContext& answer);

// turn: kFirst for answers that have waited already.
AnswerWay::Next BeginLocal(AnswerContext& answer, StreamsBecause why, AnswerSoFar so_far, StartLocal::Turn turn);
AnswerWay::Next BeginDraft(AnswerContext& answer, AnswerSoFar so_far);

// What a draft that was handed over came to, in case that upstream fails: it is in the ledger, undecided. finish: as
// the draft ended; kOpen: it was given up.
struct HandedDraft {
  AnswerEnd end = AnswerEnd::kOpen;
};
AnswerWay::Next BeginStreamUp(AnswerContext& answer, HandedDraft draft);

}  // namespace updraft
