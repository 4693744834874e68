#include "common/grammar/automaton.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft::grammar {
namespace {

constexpr int64_t kStepsOfState = 100;  // what a state takes beside those that it is made of
thread_local int64_t steps_left = -1;   // -1: no budget

absl::Status TooLarge() {
  return absl::ResourceExhaustedError(absl::StrFormat(
      "expected a grammar of at most %d states, found more; use smaller bounds of lengths and counts", kMaxStates));
}

// ---- Thompson's construction ----------------------------------------------------------------------------------------

struct Nfa {
  struct State {
    std::vector<int32_t> empty = {};
    std::vector<Automaton::Edge> edges = {};
    std::vector<Automaton::Call> calls = {};
  };
  std::vector<State> states = {};
};

// Builds expressions between two states. A depth is bounded by that of the expressions, which their makers bound.
class NfaBuilder {
 public:
  explicit NfaBuilder(const Expressions& expressions) : e_(expressions) {}

  absl::Status Build(ExprId root, int32_t from, int32_t to, int depth = 0);
  int32_t Add() {
    nfa_.states.emplace_back();
    return static_cast<int32_t>(nfa_.states.size() - 1);
  }
  Nfa& nfa() { return nfa_; }

 private:
  absl::Status BuildRepeat(const Expressions::Node& node, int32_t from, int32_t to, int depth);
  void Skip(int32_t from, int32_t to) {
    nfa_.states[from].empty.push_back(to);
    ++n_edges_;
  }

  // Empty edges of repetitions multiply in the construction of subsets: the bound is for these states as well.
  static constexpr size_t kMaxNfaStates = 4 * kMaxStates;
  static constexpr int kMaxDepth = 1000;  // of expressions within expressions: each is a call
  const Expressions& e_;
  Nfa nfa_;
  size_t n_edges_ = 0;
};

absl::Status NfaBuilder::Build(ExprId root, int32_t from, int32_t to, int depth) {
  if (nfa_.states.size() + ++n_edges_ > kMaxNfaStates || depth > kMaxDepth) return TooLarge();
  const Expressions::Node& node = e_.at(root);
  using Kind = Expressions::Node::Kind;
  switch (node.kind) {
    case Kind::kEmpty:
      Skip(from, to);
      return absl::OkStatus();
    case Kind::kNothing:
      return absl::OkStatus();
    case Kind::kBytes:
      nfa_.states[from].edges.push_back({.low = node.low, .high = node.high, .target = to});
      return absl::OkStatus();
    case Kind::kRule:
      nfa_.states[from].calls.push_back({.rule = node.rule, .target = to});
      return absl::OkStatus();
    case Kind::kChoice:
      for (const ExprId part : node.parts) {
        if (absl::Status status = Build(part, from, to, depth + 1); !status.ok()) return status;
      }
      return absl::OkStatus();
    case Kind::kSequence: {
      int32_t at = from;
      for (size_t i = 0; i < node.parts.size(); ++i) {
        const int32_t next = i + 1 == node.parts.size() ? to : Add();
        if (absl::Status status = Build(node.parts[i], at, next, depth + 1); !status.ok()) return status;
        at = next;
      }
      return absl::OkStatus();
    }
    case Kind::kRepeat:
      return BuildRepeat(node, from, to, depth);
  }
  return absl::OkStatus();
}

absl::Status NfaBuilder::BuildRepeat(const Expressions::Node& node, int32_t from, int32_t to, int depth) {
  // States of its own: an edge back into `from` would be one of whatever else begins there.
  int32_t at = Add();
  Skip(from, at);
  for (int i = 0; i < node.minimum; ++i) {
    const int32_t next = Add();
    if (absl::Status status = Build(node.parts.front(), at, next, depth + 1); !status.ok()) return status;
    at = next;
  }
  if (node.maximum == kNoMaximum) {
    const int32_t loop = Add();
    Skip(at, loop);
    const int32_t back = Add();
    if (absl::Status status = Build(node.parts.front(), loop, back, depth + 1); !status.ok()) return status;
    Skip(back, loop);
    Skip(loop, to);
    return absl::OkStatus();
  }
  for (int i = node.minimum; i < node.maximum; ++i) {
    Skip(at, to);
    const int32_t next = Add();
    if (absl::Status status = Build(node.parts.front(), at, next, depth + 1); !status.ok()) return status;
    at = next;
  }
  Skip(at, to);
  return absl::OkStatus();
}

// ---- Subsets --------------------------------------------------------------------------------------------------------

// Ranges that targets overlap in -> ranges apart, each with all its targets.
std::vector<std::pair<std::pair<int, int>, std::vector<int32_t>>> Apart(const std::vector<Automaton::Edge>& edges) {
  std::vector<int> cuts;
  for (const Automaton::Edge& edge : edges) {
    cuts.push_back(edge.low);
    cuts.push_back(edge.high + 1);
  }
  std::sort(cuts.begin(), cuts.end());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  std::vector<std::pair<std::pair<int, int>, std::vector<int32_t>>> apart;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    std::vector<int32_t> targets;
    for (const Automaton::Edge& edge : edges) {
      if (edge.low <= cuts[i] && edge.high >= cuts[i + 1] - 1) targets.push_back(edge.target);
    }
    if (targets.empty()) continue;
    std::sort(targets.begin(), targets.end());
    targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
    apart.push_back({{cuts[i], cuts[i + 1] - 1}, std::move(targets)});
  }
  return apart;
}

class SubsetBuilder {
 public:
  SubsetBuilder(const Nfa& nfa, int32_t end) : nfa_(nfa), end_(end), seen_(nfa.states.size(), 0) {}

  absl::StatusOr<Automaton> Build(int32_t start) {
    StateOf({start});
    for (size_t i = 0; i < subsets_.size(); ++i) {
      if (subsets_.size() > kMaxStates || work_ > kMaxWork) return TooLarge();
      if (!WorkBudget::Spend(kStepsOfState + static_cast<int64_t>(work_ - spent_))) return TooLarge();
      spent_ = work_;
      const std::vector<int32_t> subset = *subsets_[i];
      std::vector<Automaton::Edge> edges;
      std::map<RuleId, std::vector<int32_t>> calls;
      for (const int32_t state : subset) {
        const Nfa::State& from = nfa_.states[state];
        edges.insert(edges.end(), from.edges.begin(), from.edges.end());
        for (const Automaton::Call& call : from.calls) calls[call.rule].push_back(call.target);
      }
      for (auto& [range, targets] : Apart(edges)) {
        const int32_t target = StateOf(std::move(targets));
        std::vector<Automaton::Edge>& made = automaton_.states[i].edges;
        if (!made.empty() && made.back().target == target && made.back().high + 1 == range.first) {
          made.back().high = static_cast<uint8_t>(range.second);
        } else {
          made.push_back(
              {.low = static_cast<uint8_t>(range.first), .high = static_cast<uint8_t>(range.second), .target = target});
        }
      }
      for (auto& [rule, targets] : calls) {
        const int32_t target = StateOf(std::move(targets));
        automaton_.states[i].calls.push_back({.rule = rule, .target = target});
      }
    }
    return std::move(automaton_);
  }

 private:
  // With what empty edges lead to; only states that do something tell subsets apart.
  std::vector<int32_t> Closure(std::vector<int32_t> states) {
    ++round_;
    std::vector<int32_t> found;
    while (!states.empty()) {
      const int32_t state = states.back();
      states.pop_back();
      ++work_;
      if (work_ > kMaxWork) break;
      if (seen_[state] == round_) continue;
      seen_[state] = round_;
      const Nfa::State& node = nfa_.states[state];
      if (state == end_ || !node.edges.empty() || !node.calls.empty()) found.push_back(state);
      states.insert(states.end(), node.empty.begin(), node.empty.end());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  int32_t StateOf(std::vector<int32_t> states) {
    auto [it, is_new] = ids_.emplace(Closure(std::move(states)), static_cast<int32_t>(subsets_.size()));
    if (is_new) {
      work_ += it->first.size();
      subsets_.push_back(&it->first);
      automaton_.states.emplace_back();
      automaton_.states.back().accepts = std::binary_search(it->first.begin(), it->first.end(), end_);
    }
    return it->second;
  }

  const Nfa& nfa_;
  const int32_t end_;
  std::vector<uint32_t> seen_;
  uint32_t round_ = 0;
  // States looked at and held in subsets: they, not the subsets alone, are what takes time and memory.
  static constexpr size_t kMaxWork = 24'000'000;
  size_t work_ = 0, spent_ = 0;
  std::map<std::vector<int32_t>, int32_t> ids_;
  std::vector<const std::vector<int32_t>*> subsets_;  // keys of ids_, which stay where they are
  Automaton automaton_;
};

// Where `state` goes with a byte; -1: nowhere.
int32_t Step(const Automaton& automaton, int32_t state, int byte) {
  const std::vector<Automaton::Edge>& edges = automaton.states[state].edges;
  const auto edge = std::partition_point(edges.begin(), edges.end(), [byte](const auto& e) { return e.high < byte; });
  return edge != edges.end() && edge->low <= byte ? edge->target : -1;
}

enum class Accepting { kBoth, kFirstAlone };

// Pairs of states; of kFirstAlone the second may be -1, from where it accepts nothing.
absl::StatusOr<Automaton> Product(const Automaton& a, const Automaton& b, Accepting accepting) {
  Automaton product;
  if (a.states.empty()) return product;
  std::map<std::pair<int32_t, int32_t>, int32_t> ids;
  std::vector<std::pair<int32_t, int32_t>> pairs;
  const auto state_of = [&](std::pair<int32_t, int32_t> pair) {
    const auto [it, is_new] = ids.emplace(pair, static_cast<int32_t>(pairs.size()));
    if (is_new) {
      pairs.push_back(pair);
      product.states.emplace_back();
      const bool second = pair.second >= 0 && b.states[pair.second].accepts;
      product.states.back().accepts = a.states[pair.first].accepts && (accepting == Accepting::kBoth) == second;
    }
    return it->second;
  };
  const int32_t second_start = b.states.empty() ? -1 : 0;
  if (second_start < 0 && accepting == Accepting::kBoth) return product;
  state_of({0, second_start});
  size_t n_edges = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    n_edges += product.states[i].edges.size();
    if (pairs.size() > kMaxStates || n_edges > 16 * kMaxStates || !WorkBudget::Spend(kStepsOfState)) return TooLarge();
    const auto [first, second] = pairs[i];
    for (const Automaton::Edge& edge : a.states[first].edges) {
      for (int byte = edge.low; byte <= edge.high;) {
        const int32_t next = second < 0 ? -1 : Step(b, second, byte);
        int last = byte;  // of a run of bytes that lead the second to the same place
        while (last < edge.high && (second < 0 || Step(b, second, last + 1) == next)) ++last;
        if (next >= 0 || accepting == Accepting::kFirstAlone) {
          const int32_t target = state_of({edge.target, next});
          product.states[i].edges.push_back(
              {.low = static_cast<uint8_t>(byte), .high = static_cast<uint8_t>(last), .target = target});
        }
        byte = last + 1;
      }
    }
  }
  return Trimmed(product, {});
}

}  // namespace

WorkBudget::WorkBudget(int64_t n_steps)
    : outer_(steps_left), granted_(outer_ < 0 ? n_steps : std::min(outer_, n_steps)) {
  steps_left = granted_;
}
WorkBudget::~WorkBudget() { steps_left = outer_ < 0 ? -1 : outer_ - (granted_ - steps_left); }

bool WorkBudget::Spend(int64_t n_steps) {
  if (steps_left < 0) return true;
  steps_left = std::max<int64_t>(0, steps_left - n_steps);
  return steps_left > 0;
}

bool Automaton::has_calls() const {
  return std::any_of(states.begin(), states.end(), [](const State& state) { return !state.calls.empty(); });
}

bool Automaton::Accepts(std::string_view bytes) const {
  int32_t at = states.empty() ? -1 : 0;
  for (const char c : bytes) {
    if (at < 0) return false;
    at = Step(*this, at, static_cast<uint8_t>(c));
  }
  return at >= 0 && states[at].accepts;
}

absl::StatusOr<Automaton> MakeAutomaton(const Expressions& expressions, ExprId root) {
  NfaBuilder builder(expressions);
  const int32_t start = builder.Add(), end = builder.Add();
  if (absl::Status status = builder.Build(root, start, end); !status.ok()) return status;
  return SubsetBuilder(builder.nfa(), end).Build(start);
}

absl::StatusOr<Automaton> Intersection(const Automaton& a, const Automaton& b) {
  return Product(a, b, Accepting::kBoth);
}

absl::StatusOr<Automaton> Difference(const Automaton& a, const Automaton& b) {
  return Product(a, b, Accepting::kFirstAlone);
}

Automaton Trimmed(const Automaton& automaton, const std::vector<bool>& may_complete) {
  const size_t n = automaton.states.size();
  const auto leads_on = [&](const Automaton::Call& call) { return may_complete[static_cast<size_t>(call.rule)]; };
  std::vector<std::vector<int32_t>> from(n);
  std::vector<bool> useful(n, false);
  std::vector<int32_t> open;
  for (size_t i = 0; i < n; ++i) {
    for (const Automaton::Edge& edge : automaton.states[i].edges) from[edge.target].push_back(static_cast<int32_t>(i));
    for (const Automaton::Call& call : automaton.states[i].calls) {
      if (leads_on(call)) from[call.target].push_back(static_cast<int32_t>(i));
    }
    if (!automaton.states[i].accepts) continue;
    useful[i] = true;
    open.push_back(static_cast<int32_t>(i));
  }
  while (!open.empty()) {
    const int32_t state = open.back();
    open.pop_back();
    for (const int32_t before : from[state]) {
      if (useful[before]) continue;
      useful[before] = true;
      open.push_back(before);
    }
  }
  Automaton trimmed;
  if (n == 0 || !useful[0]) return trimmed;
  std::vector<int32_t> ids(n, -1);
  int32_t next = 0;
  for (size_t i = 0; i < n; ++i) {
    if (useful[i]) ids[i] = next++;
  }
  for (size_t i = 0; i < n; ++i) {
    if (!useful[i]) continue;
    Automaton::State& state = trimmed.states.emplace_back();
    state.accepts = automaton.states[i].accepts;
    for (Automaton::Edge edge : automaton.states[i].edges) {
      edge.target = ids[edge.target];
      if (edge.target >= 0) state.edges.push_back(edge);
    }
    for (Automaton::Call call : automaton.states[i].calls) {
      if (!leads_on(call) || ids[call.target] < 0) continue;
      call.target = ids[call.target];
      state.calls.push_back(call);
    }
  }
  return trimmed;
}

}  // namespace updraft::grammar
