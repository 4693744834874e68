// A context-free grammar over bytes: rules that may call each other, each an expression or an automaton. Rule 0 is the
// whole text.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "common/grammar/automaton.h"
#include "common/grammar/expression.h"

namespace updraft::grammar {

class Grammar {
 public:
  struct Rule {
    std::string name;  // for messages
    ExprId expression = -1;
    Automaton automaton = {};  // where there is no expression
  };

  Expressions& e() { return expressions_; }
  const Expressions& e() const { return expressions_; }

  // To be defined later: rules may call themselves.
  RuleId Declare(std::string name);
  void Define(RuleId rule, ExprId expression) { rules_[static_cast<size_t>(rule)].expression = expression; }
  // Its calls, if it has any, are of rules of this grammar.
  void Define(RuleId rule, Automaton automaton) { rules_[static_cast<size_t>(rule)].automaton = std::move(automaton); }

  // Takes in all rules of another grammar; the id here of its rule 0.
  RuleId Import(const Grammar& other);

  const std::vector<Rule>& rules() const { return rules_; }

 private:
  Expressions expressions_;
  std::vector<Rule> rules_;
};

// A grammar, ready to be followed: what its rules' automata are, states numbered through. Immutable, so that any number
// of answers may share one.
class CompiledGrammar {
 public:
  struct State {
    std::vector<Automaton::Edge> edges;  // ascending, apart
    struct Call {
      int32_t start = 0;   // of the rule
      int32_t target = 0;  // -1: nothing is left to be done after it, so that whoever called this rule goes on
    };
    std::vector<Call> calls;
    bool accepts = false;  // the rule may end here
  };

  // INVALID_ARGUMENT: no text fits (which rule has none is said), a rule calls itself before it reads anything, or one
  // is not defined. RESOURCE_EXHAUSTED: too large.
  static absl::StatusOr<CompiledGrammar> Compile(const Grammar& grammar);

  const std::vector<State>& states() const { return states_; }
  int32_t start() const { return start_; }
  // Whether the state is of the whole text's rule, and that rule is called by none: nothing comes behind it.
  bool is_outermost(int32_t state) const { return state < n_outermost_; }

 private:
  std::vector<State> states_;
  int32_t start_ = 0, n_outermost_ = 0;
};

// Where a text stands in a grammar: all the ways in which it may have come there. Each is a state of a rule and, as a
// list of frames, who goes on when that rule ends. Frames are kept once (Frames), so that equal places are equal ids.
struct Place {
  int32_t state = 0;
  int32_t frame = 0;
  bool operator==(const Place&) const = default;
  auto operator<=>(const Place&) const = default;
};

class Frames {
 public:
  static constexpr int32_t kDone = 0;  // below the first rule: the text may end

  struct Frame {
    int32_t state = 0;   // where the caller goes on
    int32_t parent = 0;  // its own frame
  };

  Frames() : frames_(1) {}
  int32_t Push(int32_t state, int32_t parent);
  const Frame& at(int32_t frame) const { return frames_[static_cast<size_t>(frame)]; }
  size_t size() const { return frames_.size(); }

 private:
  std::vector<Frame> frames_;
  std::vector<int32_t> table_;  // open addressing, ids of frames_; -1: free
};

// Ascending, each once. `done`: the text may end here; of a walk that began in the midst of a rule with kDone below it,
// the rule may.
struct Places {
  std::vector<Place> ways;
  bool done = false;
  bool operator==(const Places&) const = default;
};

// Steps through a grammar. More ways at once than this, or deeper than that, end the text: it cannot be followed.
inline constexpr size_t kMaxWays = 1024;
inline constexpr size_t kMaxFrames = 1 << 18;

class Walker {
 public:
  // frames: grow as rules call.
  Walker(const CompiledGrammar* grammar, Frames* frames) : grammar_(grammar), frames_(frames) {}

  // At the beginning of `state`, called by `frame`.
  void Begin(int32_t state, int32_t frame, Places& out);
  // After one more byte; no ways: it does not fit.
  void Step(const Places& from, uint8_t byte, Places& out);
  // Places that were looked at so far: what following costs.
  int64_t n_looked_at() const { return n_looked_at_; }

 private:
  void Add(Place place, Places& out);
  void Settle(Places& out);

  const CompiledGrammar* grammar_;
  Frames* frames_;
  bool Seen(Place place);

  std::vector<Place> open_;
  std::vector<Place> seen_;  // few
  absl::flat_hash_set<std::pair<int32_t, int32_t>> many_seen_;
  int64_t n_looked_at_ = 0;
};

}  // namespace updraft::grammar
