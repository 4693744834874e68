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
  options.presence_penalty = proto.presence_penalty();
  options.frequency_penalty = proto.frequency_penalty();
  for (const v1::LogitBias::Entry& entry : proto.logit_bias().entries()) {
    options.logit_bias.push_back({.token = entry.token(), .bias = entry.bias()});
  }
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return options;
}

v1::Evidence EvidenceToProto(const TokenEvidence& evidence, size_t text_offset) {
  v1::Evidence proto;
  proto.set_exit_layer(evidence.exit_layer);
  proto.set_top_prob(evidence.top_prob);
  proto.set_margin(evidence.margin);
  proto.set_entropy(evidence.entropy);
  proto.set_logprob(evidence.logprob);
  proto.set_text_offset(static_cast<uint32_t>(text_offset));
  for (const TokenLogprob& likely : evidence.top) {
    v1::TokenLogprob* told = proto.add_top();
    told->set_token(likely.token);
    told->set_logprob(likely.logprob);
  }
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
  if (const double rate = NonNegative(proto.decode_tokens_per_s()); rate > 0.0) load.decode_tokens_per_s = rate;
  if (const double rate = NonNegative(proto.prefill_tokens_per_s()); rate > 0.0) load.prefill_tokens_per_s = rate;
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

std::string_view DispositionLabel(v1::Disposition disposition) {
  if (disposition == v1::DISPOSITION_UNSPECIFIED) return {};
  const Disposition native = DispositionFromProto(disposition);
  return native == Disposition::kUnspecified ? "unknown" : NameOf(native);
}

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

void CountDecision(Decision decision, v1::RoutingSummary& summary) {
  switch (decision) {
    case Decision::kKeep:
      return summary.set_kept(summary.kept() + 1);
    case Decision::kHandOver:
      return summary.set_handed_over(summary.handed_over() + 1);
    case Decision::kVerify:
      return summary.set_verified(summary.verified() + 1);
    case Decision::kStreamUpstream:
      return summary.set_streamed_upstream(summary.streamed_upstream() + 1);
    case Decision::kDefer:
      return summary.set_deferred(summary.deferred() + 1);
  }
}

v1::Link LinkToProto(const LinkEstimate& link) {
  const auto known = [](double value) { return std::isfinite(value) ? value : 0.0; };
  v1::Link proto;
  proto.set_reachable(link.reachable);
  proto.set_rtt_ms(known(link.rtt_s) * 1e3);
  proto.set_rtt_jitter_ms(known(link.rtt_jitter_s) * 1e3);
  proto.set_goodput_up_bytes_per_s(known(link.goodput_up_bytes_per_s));
  proto.set_goodput_down_bytes_per_s(known(link.goodput_down_bytes_per_s));
  proto.set_samples(link.samples);
  proto.set_age_s(known(link.age_s));
  return proto;
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
