#include "common/rpc/convert.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace updraft {
namespace {

double NonNegative(double value) { return std::isfinite(value) && value > 0 ? value : 0.0; }

constexpr std::pair<PolicyMode, v1::TierChoice> kTiers[] = {
    {PolicyMode::kAuto, v1::TIER_CHOICE_UNSPECIFIED},
    {PolicyMode::kLocal, v1::TIER_CHOICE_LOCAL_ONLY},
    {PolicyMode::kUpstream, v1::TIER_CHOICE_UPSTREAM_ONLY},
};

}  // namespace

absl::StatusOr<SamplingOptions> SamplingFromProto(const v1::Sampling& proto) {
  SamplingOptions options;
  options.temperature = proto.temperature();
  options.top_k = proto.top_k();
  if (proto.has_top_p()) options.top_p = proto.top_p();
  options.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) options.repetition_penalty = proto.repetition_penalty();
  options.seed = proto.seed();
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return options;
}

v1::Sampling SamplingToProto(const SamplingOptions& options) {
  v1::Sampling proto;
  proto.set_temperature(options.temperature);
  proto.set_top_k(options.top_k);
  proto.set_top_p(options.top_p);
  proto.set_min_p(options.min_p);
  proto.set_repetition_penalty(options.repetition_penalty);
  proto.set_seed(options.seed);
  return proto;
}

TokenEvidence EvidenceFromProto(const v1::Evidence& proto) {
  return {.exit_layer = proto.exit_layer(),
          .top_prob = proto.top_prob(),
          .margin = proto.margin(),
          .entropy = proto.entropy(),
          .logprob = proto.logprob()};
}

v1::Evidence EvidenceToProto(const TokenEvidence& evidence) {
  v1::Evidence proto;
  proto.set_exit_layer(evidence.exit_layer);
  proto.set_top_prob(evidence.top_prob);
  proto.set_margin(evidence.margin);
  proto.set_entropy(evidence.entropy);
  proto.set_logprob(evidence.logprob);
  return proto;
}

UpstreamLoad LoadFromProto(const v1::Load& proto) {
  UpstreamLoad load;
  load.known = true;
  load.running_requests = std::max(0, proto.running_requests());
  load.queued_requests = std::max(0, proto.queued_requests());
  load.queued_tokens = std::max(0, proto.queued_tokens());
  load.kv_used_fraction = std::min(1.0, NonNegative(proto.kv_used_fraction()));
  load.predicted_wait_s = NonNegative(proto.predicted_wait_ms()) / 1e3;
  load.decode_tokens_per_s = NonNegative(proto.decode_tokens_per_s());
  return load;
}

v1::TierChoice AskedToProto(PolicyMode asked) {
  for (const auto& [native, wire] : kTiers) {
    if (native == asked) return wire;
  }
  return v1::TIER_CHOICE_UNSPECIFIED;
}

PolicyMode AskedFromProto(v1::TierChoice choice) {
  for (const auto& [native, wire] : kTiers) {
    if (wire == choice) return native;
  }
  return PolicyMode::kAuto;
}

namespace {

constexpr std::pair<Decision, v1::DecisionKind> kDecisions[] = {
    {Decision::kKeep, v1::DECISION_KIND_KEEP},     {Decision::kHandOver, v1::DECISION_KIND_HAND_OVER},
    {Decision::kVerify, v1::DECISION_KIND_VERIFY}, {Decision::kStreamUpstream, v1::DECISION_KIND_STREAM_UPSTREAM},
    {Decision::kDefer, v1::DECISION_KIND_DEFER},
};

constexpr std::pair<Disposition, v1::Disposition> kDispositions[] = {
    {Disposition::kAct, v1::DISPOSITION_ACT},
    {Disposition::kRefuse, v1::DISPOSITION_REFUSE},
    {Disposition::kClarify, v1::DISPOSITION_CLARIFY},
};

}  // namespace

v1::DecisionKind DecisionToProto(Decision decision) {
  for (const auto& [native, wire] : kDecisions) {
    if (native == decision) return wire;
  }
  return v1::DECISION_KIND_UNSPECIFIED;
}

std::optional<Decision> DecisionFromProto(v1::DecisionKind kind) {
  for (const auto& [native, wire] : kDecisions) {
    if (wire == kind) return native;
  }
  return std::nullopt;
}

std::string_view DecisionName(v1::DecisionKind kind) {
  const auto decision = DecisionFromProto(kind);
  return decision ? NameOf(*decision) : "none";
}

v1::Disposition DispositionToProto(Disposition disposition) {
  for (const auto& [native, wire] : kDispositions) {
    if (native == disposition) return wire;
  }
  return v1::DISPOSITION_UNSPECIFIED;
}

Disposition DispositionFromProto(v1::Disposition disposition) {
  for (const auto& [native, wire] : kDispositions) {
    if (wire == disposition) return native;
  }
  return Disposition::kUnspecified;
}

}  // namespace updraft
