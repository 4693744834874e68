// A session to which anything happens, in any order, on a fake clock.
#pragma once

#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "common/routing/session.h"
#include "tests/common/routing/random_states.h"

namespace updraft {

inline SessionOptions RandomSessionOptions(StateMaker& maker) {
  SessionOptions options;
  options.policy = maker.Policy();
  options.policy.unreachable_retry_s = maker.Below(4) == 0 ? 0.25 * maker.Below(20) : 2.0;
  options.model_fp = static_cast<uint64_t>(maker.Below(1 << 30)) << 34 | static_cast<uint64_t>(maker.Below(1 << 30));
  options.n_upstreams = maker.Below(kMaxUpstreams + 1);
  options.look_interval_s = maker.Below(5) == 0 ? 0.0 : 0.5 * (1 + maker.Below(20));
  return options;
}

class SessionDriver {
 public:
  explicit SessionDriver(uint64_t seed)
      : maker_(seed), session_(RandomSessionOptions(maker_)), now_s_(maker_.Below(1 << 20) / 64.0) {}

  const RoutingSession& session() const { return session_; }
  double now_s() const { return now_s_; }
  StateMaker& maker() { return maker_; }
  int RandomUpstream() { return maker_.Below(session_.n_upstreams()); }

  Situation RandomSituation() {
    const oracle::RoutingState state = maker_.State();
    Situation situation = oracle::SituationOf(state);
    situation.now_s = now_s_;
    situation.request.key = RequestKey("request \"" + std::to_string(maker_.Below(1000000)) + "\"");
    situation.request.asked = static_cast<PolicyMode>(maker_.Below(3));
    situation.request.max_tokens = maker_.Count();
    situation.request.local_wait_s = maker_.Number();
    situation.evidence.p_right = maker_.Number();
    situation.evidence.gain = maker_.Number();
    return situation;
  }

  // Time passes and something happens; no decision.
  void Event() {
    now_s_ += maker_.Below(4) == 0 ? maker_.Below(64 * 20) / 64.0 : maker_.Below(64) / 64.0;
    if (session_.n_upstreams() == 0) return OnTier();
    const int up = RandomUpstream();
    switch (maker_.Below(8)) {
      case 0:
        return session_.OnSample(up, RandomSample());
      case 1:
        return session_.OnLoad(up, RandomLoad());
      case 2:
        return session_.OnFailure(up, Failure::kLinkDead, kUnknown, now_s_);
      case 3:
        return session_.OnFailure(up, static_cast<Failure>(maker_.Below(5)), maker_.Number(), now_s_);
      case 4:
        return maker_.Below(4) == 0 ? session_.OnReady(up, now_s_) : session_.OnSample(up, RandomSample());
      case 5:
        return session_.OnLookStarted(up, now_s_);
      case 6:
        return session_.OnLookDone(up, {static_cast<Look::End>(maker_.Below(4)), RandomSample(), RandomLoad()}, now_s_);
      default:
        return OnTier();
    }
  }

  DecisionRecord Decide() {
    last_ = session_.Decide(RandomSituation());
    return last_;
  }

 private:
  LinkSample RandomSample() {
    LinkSample sample;
    sample.time_s = now_s_;
    sample.first_byte_s = maker_.Below(10) == 0 ? maker_.Number() : maker_.Below(500) / 1000.0;
    sample.server_s = maker_.Below(3) == 0 ? maker_.Below(300) / 1000.0 : 0.0;
    sample.bytes_up = static_cast<uint64_t>(maker_.Below(4) == 0 ? maker_.Below(200000) : maker_.Below(2000));
    sample.bytes_down = maker_.Below(4) == 0 ? 100000 : 0;
    sample.transfer_down_s = 0.1 * maker_.Below(10);
    return sample;
  }
  UpstreamLoad RandomLoad() {
    UpstreamLoad load = maker_.State().load;
    load.running_requests = maker_.Below(10);
    load.prefill_tokens_per_s = maker_.Number() * 100.0;
    load.queued_tokens = maker_.Count();
    load.kv_used_fraction = maker_.Number();
    return load;
  }
  void OnTier() {
    if (last_.seq > 0 && maker_.Below(2) == 0) {
      return session_.Outcome(last_, {static_cast<Decision>(maker_.Below(5)), maker_.Below(200)});
    }
    session_.OnLocalRun({maker_.Number(), maker_.Number(), maker_.Below(100), maker_.Below(1000)});
  }

  StateMaker maker_;
  RoutingSession session_;
  double now_s_;
  DecisionRecord last_;
};

}  // namespace updraft
