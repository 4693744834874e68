#include "common/routing/choose.h"

#include <algorithm>
#include <cmath>

namespace updraft {
namespace {

constexpr double kBytesPerToken = 3.0;        // a varint of an id below 2^21
constexpr double kCallOverheadBytes = 200;    // headers, names and framing of a call
constexpr int64_t kTypicalAnswerTokens = 64;  // when nobody says

double PositiveOr(double value, double otherwise) { return std::isfinite(value) && value > 0.0 ? value : otherwise; }

int64_t NonNegative(int n) { return std::max(n, 0); }

int64_t ExpectedAnswerTokens(const Situation& situation) {
  int64_t expected = 0;
  if (const double rounded = situation.local.answer_tokens + 0.5; rounded >= 1.0) {
    expected = std::min(static_cast<int64_t>(std::min(rounded, 1e9)), int64_t{situation.request.max_tokens});
  }
  if (expected <= 0) expected = kTypicalAnswerTokens;
  return std::max(expected, NonNegative(situation.request.n_draft_tokens) + 1);
}

// Until tokens are read at a rate that nobody knows yet, they take no time: a policy may assume how fast answers are
// written, which is most of an answer, but not this.
double PrefillSeconds(int64_t n_tokens, double tokens_per_s) {
  const double rate = PositiveOr(tokens_per_s, 0.0);
  return rate > 0.0 ? static_cast<double>(n_tokens) / rate : 0.0;
}

double PredictLocalSeconds(const Situation& situation, const RoutingPolicy& policy) {
  if (situation.stage == Stage::kAfter) return 0.0;
  const int64_t left = ExpectedAnswerTokens(situation) - NonNegative(situation.request.n_draft_tokens);
  const double decode_s =
      static_cast<double>(left) / PositiveOr(situation.local.tokens_per_s, policy.assumed_local_tokens_per_s);
  if (situation.stage != Stage::kBefore) return decode_s;
  const double wait_s = PositiveOr(situation.request.local_wait_s, 0.0);
  const int64_t n_prompt = NonNegative(situation.request.n_prompt_tokens);
  return decode_s + wait_s + PrefillSeconds(n_prompt, situation.local.prefill_tokens_per_s);
}

struct UpstreamPrediction {
  double ttft_s, total_s, bytes_up;
};

UpstreamPrediction PredictUpstream(const Situation& situation, const UpstreamFacts& facts,
                                   const RoutingPolicy& policy) {
  const LinkEstimate& link = facts.link;
  // One deviation above the mean: being late costs more than having waited for nothing. A new prediction does not rest
  // on retransmission timers, so RFC 6298's four would be too shy.
  const double rtt_s =
      link.measured ? std::max(link.rtt_s, 0.0) + std::max(link.rtt_jitter_s, 0.0) : policy.assumed_rtt_s;
  const int64_t tokens_up =
      NonNegative(situation.request.n_prompt_tokens) + NonNegative(situation.request.n_draft_tokens);
  const double bytes_up = kCallOverheadBytes + kBytesPerToken * static_cast<double>(tokens_up);
  const double transfer_s = link.goodput_up_bytes_per_s > 0.0 ? bytes_up / link.goodput_up_bytes_per_s : 0.0;
  const double wait_s = facts.load.known ? std::max(facts.load.predicted_wait_s, 0.0) : 0.0;
  const double rate =
      PositiveOr(facts.load.known ? facts.load.decode_tokens_per_s : kUnknown, policy.assumed_upstream_tokens_per_s);
  const double prefill_s = PrefillSeconds(tokens_up, facts.load.known ? facts.load.prefill_tokens_per_s : kUnknown);
  const double start_s = transfer_s + rtt_s + wait_s + prefill_s;
  return {start_s + 1.0 / rate, start_s + static_cast<double>(ExpectedAnswerTokens(situation)) / rate, bytes_up};
}

struct Standing {
  ReasonCode obstacle = ReasonCode::kNone;
  double limit = kUnknown;
};

// Builds a record's options and chooses among them.
class Chooser {
 public:
  Chooser(const Situation& situation, const RoutingPolicy& policy)
      : policy_(policy), mode_(EffectiveMode(policy.mode, situation.request.asked)) {
    record_.policy_fp = Fingerprint(policy);
    record_.situation = situation;
    record_.situation.n_upstreams = std::min<uint8_t>(situation.n_upstreams, kMaxUpstreams);
    local_s_ = PredictLocalSeconds(record_.situation, policy);
    local_in_time_ = !(local_s_ > situation.request.deadline_s);
  }

  DecisionRecord Run() {
    AddOptions();
    Decide();
    return record_;
  }

 private:
  const Situation& situation() const { return record_.situation; }
  bool before() const { return situation().stage == Stage::kBefore; }

  // ---- What there is ----

  Option& Add(Way way, Standing standing, uint8_t upstream = Option::kHere) {
    Option& option = record_.options[record_.n_options++];
    option.way = way;
    option.upstream = upstream;
    option.obstacle = standing.obstacle;
    option.limit = standing.limit;
    return option;
  }

  void AddOptions() {
    Option& local = Add(Way::kLocal, StandingOfLocal());
    local.total_s = local_s_;
    local.bytes_up = local.bytes_down = 0.0;
    local.p_wrong = 1.0 - situation().evidence.p_right;
    for (uint8_t up = 0; up < situation().n_upstreams; ++up) AddUpstream(up);
    Add(Way::kDefer, {});
  }

  void AddUpstream(uint8_t up) {
    const UpstreamFacts& facts = situation().upstreams[up];
    const UpstreamPrediction predicted = PredictUpstream(situation(), facts, policy_);
    const Standing standing = StandingOf(facts, predicted.total_s);
    const bool has_draft = !before() && situation().request.fits_locally;
    // What drafting first will take is not known before there is a draft to judge.
    if (before()) Add(Way::kDraftThenDecide, StandingOfDraft(standing), up);
    Option& asking = Add(has_draft ? Way::kDraftThenDecide : Way::kStreamUp, standing, up);
    asking.ttft_s = predicted.ttft_s;
    asking.total_s = predicted.total_s;
    asking.bytes_up = predicted.bytes_up;
  }

  Standing StandingOfLocal() const {
    if (!situation().request.fits_locally) return {ReasonCode::kDoesNotFit};
    if (before() && !local_in_time_) return {ReasonCode::kLocalTooSlow, situation().request.deadline_s};
    return {};
  }

  // What stands against asking an upstream now.
  Standing StandingOf(const UpstreamFacts& facts, double predicted_s) const {
    if (mode_ == PolicyMode::kLocal) return {ReasonCode::kPolicyLocal};
    const RequestFacts& request = situation().request;
    if (request.hops >= policy_.max_hops) return {ReasonCode::kTooManyHops, static_cast<double>(policy_.max_hops)};
    if (facts.link.consecutive_failures > 0) {
      const double backoff_s = BackoffSeconds(facts.link.consecutive_failures, policy_);
      if (!(facts.since_failure_s >= backoff_s)) return {ReasonCode::kUnreachable, backoff_s};
    }
    if (!(facts.busy_s <= 0.0)) return {ReasonCode::kBusy, facts.busy_s};
    if (!(predicted_s <= policy_.max_upstream_wait_s)) return {ReasonCode::kTooSlow, policy_.max_upstream_wait_s};
    if (!(predicted_s <= request.deadline_s)) return {ReasonCode::kTooLate, request.deadline_s};
    return {};
  }

  // Drafting first means holding the draft back, since text that went out cannot be replaced. Where not even an answer
  // without any confidence would be handed over, nothing speaks against streaming it.
  Standing StandingOfDraft(const Standing& upstream) const {
    if (mode_ == PolicyMode::kUpstream) return {ReasonCode::kPolicyUpstream};
    if (const Standing local = StandingOfLocal(); local.obstacle != ReasonCode::kNone) return local;
    if (const double threshold = Threshold(Stage::kAfter); 0.0 >= threshold) return {ReasonCode::kConfident, threshold};
    return upstream;
  }

  double Threshold(Stage stage) const {
    const bool kept_before = situation().local.previous == Decision::kKeep;
    double threshold = policy_.confidence_threshold + (kept_before ? -policy_.hysteresis : policy_.hysteresis);
    if (stage == Stage::kDuring) threshold -= policy_.during_margin;
    return threshold;
  }

  // ---- What is chosen ----

  void Take(Way way, ReasonCode reason, bool degraded = false, uint8_t upstream = Option::kHere) {
    for (uint8_t i = 0; i < record_.n_options; ++i) {
      if (record_.options[i].way != way || record_.options[i].upstream != upstream) continue;
      record_.choice = i;
      break;
    }
    record_.reason = reason;
    record_.degraded = degraded;
  }

  void Decide() {
    if (mode_ == PolicyMode::kLocal) {
      const bool fits = situation().request.fits_locally;
      return Take(fits ? Way::kLocal : Way::kDefer, ReasonCode::kPolicyLocal, /*degraded=*/!fits);
    }
    best_ = BestUpstreamOption(record_);
    if (!situation().request.fits_locally) return PreferUpstream(ReasonCode::kDoesNotFit);
    before() ? DecideBefore() : DecideByConfidence();
  }

  bool can_ask() const { return best_ != nullptr && best_->feasible(); }

  // Upstream is wanted whatever the confidence: as the mode says, or because the prompt does not fit here.
  void PreferUpstream(ReasonCode why) {
    if (can_ask()) return Take(best_->way, why, /*degraded=*/false, best_->upstream);
    Take(situation().request.fits_locally ? Way::kLocal : Way::kDefer, why, /*degraded=*/true);
  }

  void DecideBefore() {
    if (mode_ == PolicyMode::kUpstream) return PreferUpstream(ReasonCode::kPolicyUpstream);
    if (!local_in_time_) {
      if (can_ask()) return Take(Way::kStreamUp, ReasonCode::kLocalTooSlow, /*degraded=*/false, best_->upstream);
      return Take(Way::kLocal, ReasonCode::kLocalTooSlow, /*degraded=*/best_ != nullptr);
    }
    if (best_ == nullptr) return Take(Way::kLocal, ReasonCode::kNoUpstream);
    if (policy_.router_gain > 0.0 && situation().evidence.gain >= policy_.router_gain && can_ask()) {
      return Take(Way::kStreamUp, ReasonCode::kExpectedGain, /*degraded=*/false, best_->upstream);
    }
    Take(Way::kLocal, ReasonCode::kDraftFirst);
    for (uint8_t i = 0; i < record_.n_options; ++i) {
      const Option& option = record_.options[i];
      const bool drafts = option.way == Way::kDraftThenDecide && option.upstream == best_->upstream;
      if (drafts && option.feasible()) record_.choice = i;
    }
  }

  void DecideByConfidence() {
    const double found = situation().evidence.confidence;
    const double confidence = std::isfinite(found) ? found : 0.0;
    record_.threshold = Threshold(situation().stage);
    if (confidence >= record_.threshold) return Take(Way::kLocal, ReasonCode::kConfident);
    if (!can_ask()) return Take(Way::kLocal, ReasonCode::kUnsure, /*degraded=*/best_ != nullptr);
    Take(Way::kDraftThenDecide, ReasonCode::kUnsure, /*degraded=*/false, best_->upstream);
  }

  const RoutingPolicy& policy_;
  const PolicyMode mode_;
  double local_s_ = 0.0;
  bool local_in_time_ = true;
  DecisionRecord record_;
  const Option* best_ = nullptr;  // of record_'s
};

}  // namespace

DecisionRecord Choose(const Situation& situation, const RoutingPolicy& policy) {
  return Chooser(situation, policy).Run();
}

DecisionRecord Replay(const DecisionRecord& record, const RoutingPolicy& policy) {
  DecisionRecord replayed = Choose(record.situation, policy);
  replayed.seq = record.seq;
  replayed.model_fp = record.model_fp;
  return replayed;
}

}  // namespace updraft
