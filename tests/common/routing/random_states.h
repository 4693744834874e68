// Random states and policies for property tests.
#pragma once

#include <cstdint>
#include <limits>
#include <random>

#include "tests/common/routing/policy_oracle.h"

namespace updraft {

// States with every kind of value in every field, impossible ones included.
class StateMaker {
 public:
  explicit StateMaker(uint64_t seed) : rng_(seed) {}

  double Number() {
    static constexpr double kOdd[] = {0.0,
                                      -1.0,
                                      1e9,
                                      -1e9,
                                      std::numeric_limits<double>::quiet_NaN(),
                                      std::numeric_limits<double>::infinity(),
                                      -std::numeric_limits<double>::infinity()};
    if (Below(4) == 0) return kOdd[Below(7)];
    return std::uniform_real_distribution<double>(0.0, 3.0)(rng_);
  }
  int Count() { return Below(10) == 0 ? std::numeric_limits<int>::min() / 4 : Below(500); }
  int Below(int n) { return static_cast<int>(rng_() % n); }

  oracle::RoutingState State() {
    oracle::RoutingState s;
    s.stage = static_cast<Stage>(Below(3));
    s.has_upstream = Below(4) != 0;
    s.fits_locally = Below(6) != 0;
    s.confidence = Number();
    s.hops = Below(3) == 0 ? Count() : 0;
    s.n_prompt_tokens = Count();
    s.n_draft_tokens = Count();
    s.expected_answer_tokens = Count();
    s.link.reachable = Below(2) == 0;
    s.link.measured = Below(3) != 0;
    s.link.rtt_s = Number();
    s.link.rtt_jitter_s = Number();
    s.link.goodput_up_bytes_per_s = Below(2) == 0 ? Number() : 1e5;
    s.link.consecutive_failures = Below(3) == 0 ? Below(40) : 0;
    s.load.known = Below(2) == 0;
    s.load.predicted_wait_s = Number();
    s.load.decode_tokens_per_s = Number() * 50.0;
    if (Below(2) == 0) s.deadline_s = Number();
    s.local_tokens_per_s = Number() * 50.0;
    s.previous = static_cast<Decision>(Below(5));
    s.since_failure_s = Number() * 10.0;
    return s;
  }
  RoutingPolicy Policy() {
    RoutingPolicy p;
    p.mode = static_cast<PolicyMode>(Below(3));
    p.confidence_threshold = Below(11) / 10.0;
    p.hysteresis = Below(3) / 10.0;
    if (Below(4) == 0) p.max_upstream_wait_s = Below(4);
    return p;
  }

 private:
  std::mt19937_64 rng_;
};

}  // namespace updraft
