// A sequence inside the core. For the core's own sources.
#pragma once

#include <cstdint>
#include <vector>

#include "common/engine/core.h"

namespace updraft::engine {

// A rate smoothed exponentially; 0: nothing measured yet.
inline double Smoothed(double value, double newest) {
  constexpr double kWeight = 0.1;  // of the newest measurement
  return value == 0.0 ? newest : value + kWeight * (newest - value);
}

struct alignas(64) Core::Sequence {
  enum class Phase : uint8_t { kWaiting, kRunning, kParked, kGone };
  // What Commit does with it: what was asked for while its step was under way.
  enum class AtCommit : uint8_t { kNotInStep, kStay, kPark, kGo };

  bool Before(const Sequence& other) const {
    return order_ns != other.order_ns ? order_ns < other.order_ns : n_earlier < other.n_earlier;
  }
  bool in_step() const { return at_commit != AtCommit::kNotInStep; }
  int n_tokens() const { return static_cast<int>(tokens.size()); }
  int n_owed() const { return n_known - n_begun; }  // known tokens whose rows have not begun; <= 0: a choice is open
  int n_ready() const { return n_tokens() - n_begun; }  // rows that could begin, drafts included

  // What every step looks at, in two cache lines.
  std::vector<int32_t> tokens;  // known, then drafts; capacity n_total_max from the start, so spans of it stay valid
  int n_known = 0;
  int n_begun = 0;     // <= tokens.size()
  int n_complete = 0;  // <= n_begun, < n_known
  Phase phase = Phase::kWaiting;
  AtCommit at_commit = AtCommit::kNotInStep;
  std::vector<int32_t> blocks;  // capacity for n_total_max - 1 tokens
  Ticket ticket = 0;
  int n_total_max = 0;
  int n_start = 0;   // known when admitted
  int n_sealed = 0;  // leading blocks that are sealed

  int64_t order_ns = 0;    // arrival - priority * class_rise
  uint64_t n_earlier = 0;  // sequences admitted before; breaks ties
  uint64_t cache_salt = 0;
  int priority = 0;
  uint32_t tenant = 0;
  SteadyTime deadline, parked_until;
  SteadyTime started = SteadyTime::InfiniteFuture();
  std::vector<uint64_t> chain;  // hashes of the leading full blocks of known tokens, as far as asked for
  int n_adopted = 0;            // tokens whose KV it adopted since it ran last
  int n_cached = 0;             // of these, at its last start

  Sequence *prev = nullptr, *next = nullptr;            // waiting_ or parked_
  Sequence *idle_prev = nullptr, *idle_next = nullptr;  // idle_holders_
  bool is_idle_holder = false;
};

}  // namespace updraft::engine
