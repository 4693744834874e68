// Which tokens may follow at a place of a grammar: the mask of generation, and what makes it quick.
//
// Of most tokens the state of the innermost rule alone decides, whoever called it: they fit within the rule, or do not.
// That is found out once per state (TokenMasks, shared by all answers of a grammar), by walking the tree of tokens, and
// once for all states that look alike as far as a token reaches. Where the rule may end within a token the rest of it
// is the caller's: from these nodes of the tree on an answer walks with whoever called (GrammarMask), once per state
// and frame. (After XGrammar, Dong et al. 2024: context-independent and context-dependent tokens.)
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/decode/token_mask.h"
#include "common/grammar/grammar.h"
#include "common/grammar/vocabulary.h"

namespace updraft::grammar {

// Of one state, whoever called its rule.
struct StateTokens {
  // Fit within the rule, or up to its end: whichever is the smaller of the two.
  std::vector<int32_t> list;
  std::vector<uint64_t> bits;
  // Nodes of the tree at which the rule may end, and tokens go on.
  std::vector<int32_t> ends;
};

// Any number of threads.
class TokenMasks {
 public:
  TokenMasks(CompiledGrammar grammar, std::shared_ptr<const Vocabulary> vocabulary);
  ~TokenMasks();
  TokenMasks(const TokenMasks&) = delete;
  TokenMasks& operator=(const TokenMasks&) = delete;

  const CompiledGrammar& grammar() const { return grammar_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  std::shared_ptr<const StateTokens> Of(int32_t state) const;
  size_t n_bytes() const { return n_bytes_; }  // that are kept, roughly
  // Makes what answers will meet: of all states, until so many nodes of the tree have been looked at.
  void Prepare(int64_t max_visits) const;

 private:
  std::shared_ptr<const StateTokens> Keep(std::atomic<const StateTokens*>& kept, StateTokens tokens) const;

  const CompiledGrammar grammar_;
  const std::shared_ptr<const Vocabulary> vocabulary_;
  const std::vector<int32_t> class_of_;  // by state: alike as far as a token reaches
  mutable std::atomic<size_t> n_bytes_{0};
  mutable std::vector<std::atomic<const StateTokens*>> classes_;  // made when they are first asked for
};

// Of one answer. As TokenMask says; beside the tokens of the grammar those that end an answer, where the text may end.
// Where no token fits they alone are allowed, and broken() says so: after a token that was not allowed, with a
// vocabulary that lacks a byte, and where a grammar goes on in more ways than are followed.
class GrammarMask final : public TokenMask {
 public:
  // drops_space: a space that the first token begins with is no part of the text (vocabularies that put one before the
  // first word).
  explicit GrammarMask(std::shared_ptr<const TokenMasks> masks, bool drops_space = false);

  std::span<const uint64_t> Allowed() override;
  void Advance(int32_t token) override;
  void Rollback(int n) override;

  bool may_end() const { return history_.back().done; }
  bool ended() const { return n_ended_ > 0; }  // by a token that ends it
  bool broken() override;

 private:
  void Fill();
  const std::vector<int32_t>& Leaving(const Place& way);
  void AllowEachWay();
  void AllowTogether(const Places& places, int32_t first, int32_t end, int depth);

  const std::shared_ptr<const TokenMasks> masks_;
  const bool drops_space_;
  Frames frames_;
  Walker walker_;
  std::vector<Places> history_;  // before each token, and now
  int n_ended_ = 0;              // tokens after the end, which change nothing
  std::vector<uint64_t> allowed_;
  bool filled_ = false;
  bool any_ = false;                                                                // token of the grammar in allowed_
  absl::flat_hash_map<std::pair<int32_t, int32_t>, std::vector<int32_t>> leaving_;  // by state and frame
  Places step_, next_;
};

}  // namespace updraft::grammar
