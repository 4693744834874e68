#include "common/grammar/token_masks.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

namespace updraft::grammar {
namespace {

// Of one walk: a vocabulary's tree several times over, or a fraction of a second.
constexpr int64_t kMaxVisits = 4'000'000;
constexpr size_t kMaxKeptBytes = 32 << 20;  // of one grammar
// More ways than this are walked together, which keeps nothing, and costs no more than one of them.
constexpr size_t kMaxSeparateWays = 12;

// Walks with many tokens at once. What follows a set of ways by a byte is remembered, since the same sets come again
// and again: a string's letters lead back into the string.
class TreeWalk {
 public:
  TreeWalk(const CompiledGrammar& grammar, const Vocabulary& vocabulary, Frames* frames)
      : vocabulary_(vocabulary), walker_(&grammar, frames) {}

  // Nodes [first, end) of the tree, which hang at `depth`, from `start` on. on_fit(node): its tokens fit. on_end(node):
  // beside, or in place of ways that go on, all is done there.
  template <typename OnFit, typename OnEnd>
  void Run(Places start, int32_t first, int32_t end, int depth, const OnFit& on_fit, const OnEnd& on_end);
  // Nodes and places that were looked at: what it cost.
  int64_t n_visits() const { return n_visits_ + walker_.n_looked_at(); }

 private:
  static constexpr int32_t kUnknown = -2, kNone = -1;  // kNone: no way, and nothing is done

  int32_t IdOf(Places places);
  int32_t Next(int32_t set, uint8_t byte);

  const Vocabulary& vocabulary_;
  Walker walker_;
  std::vector<Places> sets_;
  std::vector<int32_t> next_;  // [sets, 256]
  std::map<std::pair<std::vector<Place>, bool>, int32_t> ids_;
  int64_t n_visits_ = 0;
};

int32_t TreeWalk::IdOf(Places places) {
  if (places.ways.empty() && !places.done) return kNone;
  const auto [it, is_new] = ids_.emplace(std::pair(places.ways, places.done), static_cast<int32_t>(sets_.size()));
  if (is_new) {
    sets_.push_back(std::move(places));
    next_.resize(next_.size() + 256, kUnknown);
  }
  return it->second;
}

int32_t TreeWalk::Next(int32_t set, uint8_t byte) {
  const size_t at = 256 * static_cast<size_t>(set) + byte;
  if (next_[at] != kUnknown) return next_[at];
  Places next;
  walker_.Step(sets_[static_cast<size_t>(set)], byte, next);
  const int32_t id = IdOf(std::move(next));
  next_[at] = id;
  return id;
}

template <typename OnFit, typename OnEnd>
void TreeWalk::Run(Places start, int32_t first, int32_t end, int depth, const OnFit& on_fit, const OnEnd& on_end) {
  std::array<int32_t, kMaxTokenBytes + 1> set_at{};
  set_at[static_cast<size_t>(depth)] = IdOf(std::move(start));
  if (set_at[static_cast<size_t>(depth)] == kNone) return;
  const auto nodes = vocabulary_.nodes();
  for (int32_t i = first; i < end;) {
    const Vocabulary::Node& node = nodes[static_cast<size_t>(i)];
    ++n_visits_;
    if (n_visits() > kMaxVisits) return;  // what is left is not allowed
    const int32_t set = Next(set_at[node.depth - 1u], node.byte);
    if (set == kNone) {
      i = node.skip;
      continue;
    }
    set_at[node.depth] = set;
    if (node.n_tokens > 0) on_fit(node);
    if (sets_[static_cast<size_t>(set)].done && node.skip > i + 1) on_end(i);
    ++i;
  }
}

struct Walked {
  StateTokens tokens;
  int64_t n_visits = 0;
};

// From the midst of a rule: what called it is not looked at.
Walked WalkFrom(const CompiledGrammar& grammar, const Vocabulary& vocabulary, int32_t state) {
  Walked walked;
  StateTokens& made = walked.tokens;
  Frames frames;
  TreeWalk walk(grammar, vocabulary, &frames);
  const auto on_fit = [&](const Vocabulary::Node& node) {
    const auto tokens =
        vocabulary.tokens().subspan(static_cast<size_t>(node.first_token), static_cast<size_t>(node.n_tokens));
    made.list.insert(made.list.end(), tokens.begin(), tokens.end());
  };
  const bool is_outermost = grammar.is_outermost(state);
  walk.Run({.ways = {{state, Frames::kDone}}}, 0, static_cast<int32_t>(vocabulary.nodes().size()), 0, on_fit,
           [&](int32_t node) {
             if (!is_outermost) made.ends.push_back(node);  // otherwise nobody goes on
           });
  walked.n_visits = walk.n_visits();
  if (made.list.size() * sizeof(int32_t) < vocabulary.n_words() * sizeof(uint64_t)) return walked;
  made.bits.resize(vocabulary.n_words());
  for (const int32_t token : made.list) made.bits[token / 64] |= uint64_t{1} << (token % 64);
  made.list = {};
  return walked;
}

// States that look alike for as many bytes as a token may have: with the same edges and calls to states that look alike
// for one byte less. What is far from its end looks like what is farther.
std::vector<int32_t> ClassesOf(const CompiledGrammar& grammar, int n_bytes) {
  const std::vector<CompiledGrammar::State>& states = grammar.states();
  std::vector<int32_t> own(states.size());
  std::iota(own.begin(), own.end(), 0);
  constexpr size_t kMaxCompared = 100'000;
  if (states.size() > kMaxCompared) return own;
  std::vector<uint64_t> hashes(states.size(), 0), next(states.size());
  for (int round = 0; round <= n_bytes; ++round) {
    for (size_t i = 0; i < states.size(); ++i) {
      uint64_t hash = states[i].accepts ? 0x9E3779B97F4A7C15u : 0x517CC1B727220A95u;
      if (grammar.is_outermost(static_cast<int32_t>(i))) hash = ~hash;  // its ends are left out
      const auto mix = [&hash](uint64_t value) { hash = (hash ^ value) * 0xD6E8FEB86659FD93u, hash ^= hash >> 32; };
      for (const Automaton::Edge& edge : states[i].edges) {
        mix((uint64_t{edge.low} << 8) | edge.high);
        mix(hashes[static_cast<size_t>(edge.target)]);
      }
      for (const CompiledGrammar::State::Call& call : states[i].calls) {
        mix(0xCA11 + static_cast<uint64_t>(call.start));  // not only alike: what it calls begins elsewhere
        // What may be empty is no step: behind it a token reaches as far as before.
        const CompiledGrammar::State& start = states[static_cast<size_t>(call.start)];
        const bool may_be_empty = start.accepts || !start.calls.empty();
        mix(call.target < 0 ? 1
            : may_be_empty  ? ~static_cast<uint64_t>(call.target)
                            : hashes[static_cast<size_t>(call.target)]);
      }
      next[i] = hash;
    }
    hashes.swap(next);
  }
  std::unordered_map<uint64_t, int32_t> first;
  for (size_t i = 0; i < states.size(); ++i)
    own[i] = first.try_emplace(hashes[i], static_cast<int32_t>(i)).first->second;
  return own;
}

}  // namespace

TokenMasks::TokenMasks(CompiledGrammar grammar, std::shared_ptr<const Vocabulary> vocabulary)
    : grammar_(std::move(grammar)),
      vocabulary_(std::move(vocabulary)),
      class_of_(ClassesOf(grammar_, vocabulary_->max_depth())),
      classes_(grammar_.states().size()) {}

TokenMasks::~TokenMasks() {
  for (auto& made : classes_) delete made.load();
}

std::shared_ptr<const StateTokens> TokenMasks::Of(int32_t state) const {
  const int32_t of_class = class_of_[static_cast<size_t>(state)];
  std::atomic<const StateTokens*>& kept = classes_[static_cast<size_t>(of_class)];
  if (const StateTokens* known = kept.load(std::memory_order_acquire)) return {std::shared_ptr<void>(), known};
  return Keep(kept, WalkFrom(grammar_, *vocabulary_, of_class).tokens);
}

// Once much is kept, what is made is whoever's asked for it.
std::shared_ptr<const StateTokens> TokenMasks::Keep(std::atomic<const StateTokens*>& kept, StateTokens tokens) const {
  const size_t n_bytes = sizeof(StateTokens) + sizeof(int32_t) * (tokens.list.capacity() + tokens.ends.capacity()) +
                         sizeof(uint64_t) * tokens.bits.capacity();
  auto made = std::make_unique<const StateTokens>(std::move(tokens));
  if (n_bytes_ + n_bytes > kMaxKeptBytes) return made;
  const StateTokens* expected = nullptr;
  if (!kept.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel)) {
    return {std::shared_ptr<void>(), expected};  // somebody else was quicker
  }
  n_bytes_ += n_bytes;
  return {std::shared_ptr<void>(), made.release()};
}

void TokenMasks::Prepare(int64_t max_visits) const {
  for (size_t i = 0; i < classes_.size() && max_visits > 0; ++i) {
    const bool wanted = class_of_[i] == static_cast<int32_t>(i) && !grammar_.states()[i].edges.empty();
    if (!wanted || classes_[i].load(std::memory_order_acquire) != nullptr) continue;
    Walked walked = WalkFrom(grammar_, *vocabulary_, static_cast<int32_t>(i));
    max_visits -= walked.n_visits;
    Keep(classes_[i], std::move(walked.tokens));
  }
}

GrammarMask::GrammarMask(std::shared_ptr<const TokenMasks> masks, bool drops_space)
    : masks_(std::move(masks)),
      drops_space_(drops_space),
      walker_(&masks_->grammar(), &frames_),
      allowed_(masks_->vocabulary().n_words()) {
  history_.emplace_back();
  walker_.Begin(masks_->grammar().start(), Frames::kDone, history_.back());
}

// Of the tokens that leave the rule of `way`, those with which whoever called it can go on.
const std::vector<int32_t>& GrammarMask::Leaving(const Place& way) {
  const auto [it, is_new] = leaving_.try_emplace(std::pair(way.state, way.frame));
  if (!is_new || way.frame == Frames::kDone) return it->second;
  std::vector<int32_t>& tokens = it->second;
  const Vocabulary& vocabulary = masks_->vocabulary();
  const Frames::Frame back = frames_.at(way.frame);
  Places start;
  walker_.Begin(back.state, back.parent, start);
  TreeWalk walk(masks_->grammar(), vocabulary, &frames_);
  const auto on_fit = [&](const Vocabulary::Node& node) {
    const auto fit =
        vocabulary.tokens().subspan(static_cast<size_t>(node.first_token), static_cast<size_t>(node.n_tokens));
    tokens.insert(tokens.end(), fit.begin(), fit.end());
  };
  const std::shared_ptr<const StateTokens> of_state = masks_->Of(way.state);
  for (const int32_t end : of_state->ends) {
    const Vocabulary::Node& node = vocabulary.nodes()[static_cast<size_t>(end)];
    walk.Run(start, end + 1, node.skip, node.depth, on_fit, [](int32_t) {});
  }
  return tokens;
}

void GrammarMask::AllowEachWay() {
  for (const Place& way : history_.back().ways) {
    const std::shared_ptr<const StateTokens> tokens = masks_->Of(way.state);
    for (const int32_t token : tokens->list) allowed_[token / 64] |= uint64_t{1} << (token % 64);
    for (size_t i = 0; i < tokens->bits.size(); ++i) allowed_[i] |= tokens->bits[i];
    for (const int32_t token : Leaving(way)) allowed_[token / 64] |= uint64_t{1} << (token % 64);
  }
}

// Tokens of nodes [first, end), which hang at `depth`, from `places` on.
void GrammarMask::AllowTogether(const Places& places, int32_t first, int32_t end, int depth) {
  const Vocabulary& vocabulary = masks_->vocabulary();
  TreeWalk walk(masks_->grammar(), vocabulary, &frames_);
  const auto on_fit = [&](const Vocabulary::Node& node) {
    const auto tokens =
        vocabulary.tokens().subspan(static_cast<size_t>(node.first_token), static_cast<size_t>(node.n_tokens));
    for (const int32_t token : tokens) allowed_[token / 64] |= uint64_t{1} << (token % 64);
  };
  walk.Run(places, first, end, depth, on_fit, [](int32_t) {});
}

void GrammarMask::Fill() {
  std::fill(allowed_.begin(), allowed_.end(), 0);
  const Vocabulary& vocabulary = masks_->vocabulary();
  if (n_ended_ == 0) {
    const Places& places = history_.back();
    const auto n_nodes = static_cast<int32_t>(vocabulary.nodes().size());
    if (places.ways.size() <= kMaxSeparateWays) {
      AllowEachWay();
    } else {
      AllowTogether(places, 0, n_nodes, 0);
    }
    if (drops_space_ && history_.size() == 1) {
      const int32_t space = vocabulary.space_node();
      if (space >= 0) AllowTogether(places, space + 1, vocabulary.nodes()[static_cast<size_t>(space)].skip, 1);
    }
  }
  any_ = std::any_of(allowed_.begin(), allowed_.end(), [](uint64_t word) { return word != 0; });
  if (!any_ || may_end()) {
    for (const int32_t token : vocabulary.ends()) allowed_[token / 64] |= uint64_t{1} << (token % 64);
  }
  filled_ = true;
}

std::span<const uint64_t> GrammarMask::Allowed() {
  if (!filled_) Fill();
  return allowed_;
}

bool GrammarMask::broken() {
  if (!filled_) Fill();
  return !any_ && !may_end() && !ended();
}

void GrammarMask::Advance(int32_t token) {
  filled_ = false;
  const std::span<const int32_t> ends = masks_->vocabulary().ends();
  if (n_ended_ > 0 || std::find(ends.begin(), ends.end(), token) != ends.end()) {
    ++n_ended_;
    history_.push_back(history_.back());
    return;
  }
  step_ = history_.back();
  std::string_view text = masks_->vocabulary().text(token);
  if (text.empty()) step_ = {};  // a control token is no text of a grammar's
  if (drops_space_ && history_.size() == 1 && text.size() > 1 && text[0] == ' ') text.remove_prefix(1);
  for (const char c : text) {
    walker_.Step(step_, static_cast<uint8_t>(c), next_);
    std::swap(step_, next_);
  }
  history_.push_back(step_);
}

void GrammarMask::Rollback(int n) {
  filled_ = false;
  for (; n > 0 && history_.size() > 1; --n) {
    history_.pop_back();
    if (n_ended_ > 0) --n_ended_;
  }
}

}  // namespace updraft::grammar
