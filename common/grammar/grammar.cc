#include "common/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft::grammar {
namespace {

// Which rules have a text at all, and which have the empty one.
struct Languages {
  std::vector<bool> some, empty;
};

// Whether `automaton` gets from its start to where it accepts, over edges and over calls that `passes`.
bool Reaches(const Automaton& automaton, bool over_edges, const std::vector<bool>& passes) {
  if (automaton.states.empty()) return false;
  std::vector<bool> seen(automaton.states.size(), false);
  std::vector<int32_t> open = {0};
  seen[0] = true;
  const auto visit = [&](int32_t state) {
    if (!seen[state]) open.push_back(state);
    seen[state] = true;
  };
  while (!open.empty()) {
    const Automaton::State& state = automaton.states[open.back()];
    open.pop_back();
    if (state.accepts) return true;
    if (over_edges) {
      for (const Automaton::Edge& edge : state.edges) visit(edge.target);
    }
    for (const Automaton::Call& call : state.calls) {
      if (passes[static_cast<size_t>(call.rule)]) visit(call.target);
    }
  }
  return false;
}

std::vector<bool> Fixpoint(const std::vector<Automaton>& rules, bool over_edges) {
  std::vector<bool> found(rules.size(), false);
  for (bool changed = true; std::exchange(changed, false);) {
    for (size_t i = 0; i < rules.size(); ++i) {
      if (found[i] || !Reaches(rules[i], over_edges, found)) continue;
      found[i] = changed = true;
    }
  }
  return found;
}

// Rules that `automaton` calls before it reads anything.
std::vector<RuleId> CalledAtOnce(const Automaton& automaton, const std::vector<bool>& empty) {
  std::vector<RuleId> called;
  std::vector<bool> seen(automaton.states.size(), false);
  std::vector<int32_t> open = {0};
  while (!open.empty()) {
    const int32_t at = open.back();
    open.pop_back();
    if (seen[at]) continue;
    seen[at] = true;
    for (const Automaton::Call& call : automaton.states[at].calls) {
      called.push_back(call.rule);
      if (empty[static_cast<size_t>(call.rule)]) open.push_back(call.target);
    }
  }
  return called;
}

// A rule that calls itself before it reads anything; -1: none does.
RuleId FindLeftRecursion(const std::vector<Automaton>& rules, const std::vector<bool>& empty) {
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(rules.size(), Mark::kNew);
  std::vector<std::vector<RuleId>> next(rules.size());
  for (size_t i = 0; i < rules.size(); ++i) {
    if (!rules[i].states.empty()) next[i] = CalledAtOnce(rules[i], empty);
  }
  for (size_t first = 0; first < rules.size(); ++first) {
    if (marks[first] != Mark::kNew) continue;
    std::vector<std::pair<RuleId, size_t>> path = {{static_cast<RuleId>(first), 0}};
    marks[first] = Mark::kOpen;
    while (!path.empty()) {
      auto& [rule, at] = path.back();
      if (at == next[static_cast<size_t>(rule)].size()) {
        marks[static_cast<size_t>(rule)] = Mark::kDone;
        path.pop_back();
        continue;
      }
      const RuleId to = next[static_cast<size_t>(rule)][at++];
      if (marks[static_cast<size_t>(to)] == Mark::kOpen) return to;
      if (marks[static_cast<size_t>(to)] == Mark::kDone) continue;
      marks[static_cast<size_t>(to)] = Mark::kOpen;
      path.emplace_back(to, 0);
    }
  }
  return -1;
}

}  // namespace

RuleId Grammar::Declare(std::string name) {
  rules_.push_back({.name = std::move(name)});
  return static_cast<RuleId>(rules_.size() - 1);
}

RuleId Grammar::Import(const Grammar& other) {
  const auto first_rule = static_cast<RuleId>(rules_.size());
  const ExprId first_expression = expressions_.Import(other.e(), first_rule);
  for (Rule rule : other.rules_) {
    if (rule.expression >= 0) rule.expression += first_expression;
    for (Automaton::State& state : rule.automaton.states) {
      for (Automaton::Call& call : state.calls) call.rule += first_rule;
    }
    rules_.push_back(std::move(rule));
  }
  return first_rule;
}

absl::StatusOr<CompiledGrammar> CompiledGrammar::Compile(const Grammar& grammar) {
  std::vector<Automaton> rules;
  size_t n_states = 0;
  for (const Grammar::Rule& rule : grammar.rules()) {
    if (rule.expression < 0) {
      rules.push_back(rule.automaton);
    } else {
      absl::StatusOr<Automaton> made = MakeAutomaton(grammar.e(), rule.expression);
      if (!made.ok()) return made.status();
      rules.push_back(*std::move(made));
    }
    n_states += rules.back().states.size();
    if (n_states > kMaxStates) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "expected a grammar of at most %d states, found more; use smaller bounds of lengths and counts", kMaxStates));
    }
  }
  const std::vector<bool> some = Fixpoint(rules, /*over_edges=*/true);
  if (rules.empty() || !some[0]) {
    return absl::InvalidArgumentError(
        "expected a grammar that some text fits, found that none does: it contradicts "
        "itself, or never ends");
  }
  for (Automaton& rule : rules) rule = Trimmed(rule, some);
  const RuleId left = FindLeftRecursion(rules, Fixpoint(rules, /*over_edges=*/false));
  if (left >= 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("rule '%s': expected that it reads something before it calls itself (no left recursion)",
                        grammar.rules()[static_cast<size_t>(left)].name));
  }

  CompiledGrammar compiled;
  std::vector<int32_t> first;
  int32_t next = 0;
  for (const Automaton& rule : rules) {
    first.push_back(next);
    next += static_cast<int32_t>(rule.states.size());
  }
  const auto ends_at_once = [](const Automaton::State& state) {
    return state.accepts && state.edges.empty() && state.calls.empty();
  };
  for (size_t r = 0; r < rules.size(); ++r) {
    for (const Automaton::State& from : rules[r].states) {
      State& state = compiled.states_.emplace_back();
      state.accepts = from.accepts;
      state.edges = from.edges;
      for (Automaton::Edge& edge : state.edges) edge.target += first[r];
      for (const Automaton::Call& call : from.calls) {
        const bool last = ends_at_once(rules[r].states[call.target]);
        state.calls.push_back(
            {.start = first[static_cast<size_t>(call.rule)], .target = last ? -1 : call.target + first[r]});
      }
    }
  }
  compiled.start_ = first[0];
  const bool is_called = std::any_of(compiled.states_.begin(), compiled.states_.end(), [&](const State& state) {
    return std::any_of(state.calls.begin(), state.calls.end(),
                       [&](const State::Call& call) { return call.start == compiled.start_; });
  });
  if (!is_called) compiled.n_outermost_ = static_cast<int32_t>(rules[0].states.size());
  return compiled;
}

// ---- Walking --------------------------------------------------------------------------------------------------------

int32_t Frames::Push(int32_t state, int32_t parent) {
  if (2 * frames_.size() >= table_.size()) {
    table_.assign(std::max<size_t>(64, 4 * frames_.size()), -1);
    for (size_t i = 1; i < frames_.size(); ++i) {
      size_t slot = absl::HashOf(frames_[i].state, frames_[i].parent) % table_.size();
      while (table_[slot] >= 0) slot = (slot + 1) % table_.size();
      table_[slot] = static_cast<int32_t>(i);
    }
  }
  size_t slot = absl::HashOf(state, parent) % table_.size();
  for (; table_[slot] >= 0; slot = (slot + 1) % table_.size()) {
    const Frame& frame = frames_[static_cast<size_t>(table_[slot])];
    if (frame.state == state && frame.parent == parent) return table_[slot];
  }
  table_[slot] = static_cast<int32_t>(frames_.size());
  frames_.push_back({.state = state, .parent = parent});
  return table_[slot];
}

void Walker::Add(Place place, Places& out) {
  open_.push_back(place);
  while (!open_.empty()) {
    const Place at = open_.back();
    open_.pop_back();
    if (Seen(at)) continue;
    ++n_looked_at_;
    if (seen_.size() + many_seen_.size() > kMaxWays || frames_->size() > kMaxFrames) return open_.clear();
    const CompiledGrammar::State& state = grammar_->states()[static_cast<size_t>(at.state)];
    if (!state.edges.empty()) out.ways.push_back(at);
    for (const auto& call : state.calls) {
      open_.push_back({call.start, call.target < 0 ? at.frame : frames_->Push(call.target, at.frame)});
    }
    if (!state.accepts) continue;
    if (at.frame == Frames::kDone) {
      out.done = true;
    } else {
      const Frames::Frame back = frames_->at(at.frame);
      open_.push_back({back.state, back.parent});
    }
  }
}

bool Walker::Seen(Place place) {
  constexpr size_t kFew = 16;
  if (std::find(seen_.begin(), seen_.end(), place) != seen_.end()) return true;
  if (seen_.size() < kFew) {
    seen_.push_back(place);
    return false;
  }
  return !many_seen_.emplace(place.state, place.frame).second;
}

void Walker::Settle(Places& out) {
  std::sort(out.ways.begin(), out.ways.end());
  out.ways.erase(std::unique(out.ways.begin(), out.ways.end()), out.ways.end());
}

void Walker::Begin(int32_t state, int32_t frame, Places& out) {
  out = {};
  seen_.clear();
  if (!many_seen_.empty()) many_seen_.clear();
  Add({state, frame}, out);
  Settle(out);
}

void Walker::Step(const Places& from, uint8_t byte, Places& out) {
  out.ways.clear();
  out.done = false;
  seen_.clear();
  if (!many_seen_.empty()) many_seen_.clear();
  for (const Place& way : from.ways) {
    const std::vector<Automaton::Edge>& edges = grammar_->states()[static_cast<size_t>(way.state)].edges;
    const auto edge = std::partition_point(edges.begin(), edges.end(), [byte](const auto& e) { return e.high < byte; });
    if (edge != edges.end() && edge->low <= byte) Add({edge->target, way.frame}, out);
  }
  Settle(out);
}

}  // namespace updraft::grammar
