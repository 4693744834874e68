// The first decision of a request.
#include "common/rpc/convert.h"
#include "common/status/this_request.h"
#include "edge/answer/ways.h"

namespace updraft {

AnswerWay::Next BeginAnswer(AnswerContext& answer) {
  const DecisionRecord record = answer.Decide(Stage::kBefore);
  const Decision decision = DecisionOf(record);
  answer.provenance().set_decision(DecisionToProto(decision));
  answer.provenance().set_reason(Explain(record));
  answer.provenance().set_degraded(record.degraded);
  if (decision == Decision::kStreamUpstream) return BeginStreamUp(answer, {});
  if (decision == Decision::kDefer) {
    // This tier answers others: only this one needs the tier above.
    answer.End(OfThisRequestAlone(absl::UnavailableError(Explain(record))));
    return nullptr;
  }
  AnswerSoFar so_far;
  so_far.tokens = answer.ledger().accepted_prefix();
  so_far.n_prefix_tokens = static_cast<int>(so_far.tokens.size());
  so_far.given_bytes = 0;
  // Text that went out cannot be replaced: while the answer may still be handed over, it is held back.
  if (record.chosen().way == Way::kDraftThenDecide) return BeginDraft(answer, std::move(so_far));
  const bool would_draft = record.reason == ReasonCode::kDraftFirst;
  return BeginLocal(answer, would_draft ? StreamsBecause::kUpstreamIsAway : StreamsBecause::kDecided, std::move(so_far),
                    StartLocal::Turn::kInOrder);
}

}  // namespace updraft
