#include "common/routing/record.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr char kDoesNotFitText[] = "the prompt does not fit on this tier";

bool Sooner(const Option& a, const Option& b) {
  if (a.feasible() != b.feasible()) return a.feasible();
  return a.total_s < b.total_s || (std::isnan(b.total_s) && !std::isnan(a.total_s));
}

// What stands against the upstream that would be asked; null: nothing is configured that could be.
std::string ObstacleText(const Situation& situation, const Option* asking) {
  if (asking == nullptr) return "no upstream configured";
  switch (asking->obstacle) {
    case ReasonCode::kTooManyHops:
      return absl::StrFormat("%d tiers have passed the request on already; see that no --upstream leads back",
                             situation.request.hops);
    case ReasonCode::kUnreachable:
      return absl::StrFormat("upstream unreachable (%d failed, tried again after %.1f s)",
                             situation.upstreams[asking->upstream].link.consecutive_failures, asking->limit);
    case ReasonCode::kBusy:
      return absl::StrFormat("upstream is busy and asked to be left alone for another %.2f s", asking->limit);
    case ReasonCode::kTooSlow:
      return absl::StrFormat("upstream would take %.2f s, more than the %.2f s allowed", asking->total_s,
                             asking->limit);
    case ReasonCode::kTooLate:
      return absl::StrFormat("upstream would take %.2f s, %.2f s are left", asking->total_s, asking->limit);
    default:
      return std::string(NameOf(asking->obstacle));
  }
}

std::string WhyText(const DecisionRecord& record) {
  const Situation& situation = record.situation;
  const double found = situation.evidence.confidence, confidence = std::isfinite(found) ? found : 0.0;
  switch (record.reason) {
    case ReasonCode::kPolicyLocal:
      return "policy 'local'";
    case ReasonCode::kPolicyUpstream:
      return "policy 'upstream'";
    case ReasonCode::kDoesNotFit:
      return kDoesNotFitText;
    case ReasonCode::kDraftFirst:
      return "local draft first";
    case ReasonCode::kExpectedGain:
      return absl::StrFormat("expected gain %.2f of going up", situation.evidence.gain);
    case ReasonCode::kLocalTooSlow:
      return absl::StrFormat("local answer would take %.2f s of %.2f s left", record.options[0].total_s,
                             situation.request.deadline_s);
    case ReasonCode::kConfident:
      return absl::StrFormat("confidence %.2f reaches %.2f", confidence, record.threshold);
    case ReasonCode::kUnsure:
      return absl::StrFormat("confidence %.2f below %.2f", confidence, record.threshold);
    case ReasonCode::kNoUpstream:
      return ObstacleText(situation, nullptr);
    default:
      return std::string(NameOf(record.reason));
  }
}

}  // namespace

RequestKey::RequestKey(std::string_view id) : size_(static_cast<uint8_t>(std::min(id.size(), kMaxBytes))) {
  std::transform(id.begin(), id.begin() + size_, bytes_.begin(), [](char c) { return c >= ' ' && c <= '~' ? c : '?'; });
}

double DrawOf(const RequestKey& request, Stage stage) {
  uint64_t h = 0xcbf29ce484222325ull ^ static_cast<uint64_t>(stage);
  for (const char c : request.view()) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  // FNV's high bits know little of the last characters: mixed as splitmix64 ends.
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  h ^= h >> 31;
  return static_cast<double>(h >> 11) * 0x1p-53;
}

const Option* BestUpstreamOption(const DecisionRecord& record) {
  const Option* best = nullptr;
  for (uint8_t i = 0; i < std::min<int>(record.n_options, kMaxOptions); ++i) {
    const Option& option = record.options[i];
    if (option.upstream >= record.situation.n_upstreams) continue;
    // Before local generation drafting asks nobody yet.
    if (option.way == Way::kDraftThenDecide && record.situation.stage == Stage::kBefore) continue;
    if (best == nullptr || Sooner(option, *best)) best = &option;
  }
  return best;
}

Decision DecisionOf(const DecisionRecord& record) {
  if (record.choice >= record.n_options) return Decision::kKeep;
  switch (record.chosen().way) {
    case Way::kUnspecified:
    case Way::kLocal:
      return Decision::kKeep;
    case Way::kDraftThenDecide:
      return record.situation.stage == Stage::kBefore ? Decision::kKeep : Decision::kHandOver;
    case Way::kStreamUp:
      return Decision::kStreamUpstream;
    case Way::kDraftVerify:
      return Decision::kVerify;
    case Way::kDefer:
      return Decision::kDefer;
  }
  return Decision::kKeep;
}

std::string Explain(const DecisionRecord& record) {
  const std::string why = WhyText(record);
  const bool wanted_upstream = record.reason == ReasonCode::kPolicyUpstream ||
                               record.reason == ReasonCode::kDoesNotFit || record.reason == ReasonCode::kLocalTooSlow ||
                               record.reason == ReasonCode::kUnsure;
  const bool defers = DecisionOf(record) == Decision::kDefer;
  if (!wanted_upstream) {
    return defers ? absl::StrFormat("%s, but %s: no tier can answer now", why, kDoesNotFitText) : why;
  }
  const Option* asking = BestUpstreamOption(record);
  if (asking != nullptr && asking->feasible()) {
    const char* about = record.reason == ReasonCode::kLocalTooSlow ? "upstream about" : "upstream in about";
    return absl::StrFormat("%s; %s %.2f s", why, about, asking->total_s);
  }
  const bool wanted_alone = record.reason == ReasonCode::kPolicyUpstream || record.reason == ReasonCode::kDoesNotFit;
  const char* instead = !wanted_alone ? "" : defers ? ": no tier can answer now" : ": answered locally";
  return absl::StrFormat("%s, but %s%s", why, ObstacleText(record.situation, asking), instead);
}

}  // namespace updraft
