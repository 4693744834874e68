// Wire messages <-> native structs, for both ends.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/decode/sampler.h"
#include "common/routing/link.h"
#include "common/routing/names.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// Checks every field (SamplingOptions::Validate); absent optional fields take the defaults of SamplingOptions.
absl::StatusOr<SamplingOptions> SamplingFromProto(const v1::Sampling& proto);

// text_offset: AnswerPiece::text_offset.
v1::Evidence EvidenceToProto(const TokenEvidence& evidence, size_t text_offset);

// A peer's load is a hint: values that cannot be (negative, NaN) are taken as 0. A rate of 0 is one that the peer does
// not know.
UpstreamLoad LoadFromProto(const v1::Load& proto);

// Who may answer, as the caller wishes (kAuto: no wish, or one that CheckRequest has refused). Its names are NameOf's.
v1::TierChoice AskedToProto(PolicyMode asked);
PolicyMode AskedFromProto(v1::TierChoice choice);

// The one mapping of decisions to the wire and back; nothing for UNSPECIFIED and for kinds of a newer peer.
v1::DecisionKind DecisionToProto(Decision decision);
std::optional<Decision> DecisionFromProto(v1::DecisionKind kind);
std::string_view DecisionName(v1::DecisionKind kind);  // NameOf(Decision); "none" where there is nothing
// Counts an answer that ended well under what became of it.
void CountDecision(Decision decision, v1::RoutingSummary& summary);

// 0 where nothing is known.
v1::Link LinkToProto(const LinkEstimate& link);

// A value that a newer peer may send and that is not known here is taken as unspecified.
Disposition DispositionFromProto(v1::Disposition disposition);
// Its name for clients and metrics; empty: none was given; "unknown": of a newer peer, and no leave to act.
std::string_view DispositionLabel(v1::Disposition disposition);
v1::Disposition DispositionToProto(Disposition disposition);

}  // namespace updraft
