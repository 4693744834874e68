// Deterministic automata over bytes, in which an edge may also call a rule: what a rule of a grammar is compiled into.
// Without calls they are regular languages, of which one can be intersected with another or taken from it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/grammar/expression.h"

namespace updraft::grammar {

// States beyond which a grammar is refused: of one rule, and of a whole grammar.
inline constexpr int kMaxStates = 200'000;

// Of all automata that are made on this thread while it lives: beyond it they are too large. About 8 million steps are
// a few tenths of a second. One within another has no more than that has left.
class WorkBudget {
 public:
  explicit WorkBudget(int64_t n_steps);
  ~WorkBudget();
  WorkBudget(const WorkBudget&) = delete;
  WorkBudget& operator=(const WorkBudget&) = delete;

  static bool Spend(int64_t n_steps);  // false: it is spent; without a budget never

 private:
  int64_t outer_ = -1;  // what the budget around it had left; -1: there is none
  int64_t granted_ = 0;
};

struct Automaton {
  struct Edge {
    uint8_t low = 0, high = 0;
    int32_t target = 0;
  };
  struct Call {
    RuleId rule = 0;
    int32_t target = 0;  // where it goes on once the rule is complete
  };
  struct State {
    std::vector<Edge> edges = {};  // ascending, apart
    std::vector<Call> calls = {};
    bool accepts = false;
  };
  std::vector<State> states = {};  // the first is where it starts; none: it accepts nothing

  bool has_calls() const;
  // REQUIRES: no calls.
  bool Accepts(std::string_view bytes) const;
};

// RESOURCE_EXHAUSTED: more than kMaxStates states.
absl::StatusOr<Automaton> MakeAutomaton(const Expressions& expressions, ExprId root);

// REQUIRES: neither has calls. Errors as above.
absl::StatusOr<Automaton> Intersection(const Automaton& a, const Automaton& b);
absl::StatusOr<Automaton> Difference(const Automaton& a, const Automaton& b);

// The same language, states that lead nowhere left out: of a call it leads on where `may_complete` [rule] says that
// the rule has a text at all.
Automaton Trimmed(const Automaton& automaton, const std::vector<bool>& may_complete);

}  // namespace updraft::grammar
