// The tokens of a model as a tree of their bytes, so that a grammar looks at what many tokens begin with once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/text/tokenizer.h"

namespace updraft::grammar {

// A longer token is no part of the tree: what it says shorter ones say, too, and the farther tokens reach, the fewer
// states look alike (token_masks.h).
inline constexpr int kMaxTokenBytes = 32;

// Immutable; any number of threads. Tokens without bytes (control tokens) are no part of the tree.
class Vocabulary {
 public:
  // In order of the bytes, each before what it begins.
  struct Node {
    uint8_t byte = 0;
    uint8_t depth = 0;                      // bytes up to here, this one included; at least 1
    int32_t skip = 0;                       // the first node behind all that this one begins
    int32_t first_token = 0, n_tokens = 0;  // of exactly these bytes, in tokens()
  };

  // texts: [n], by id; empty: no part of the tree. ends: tokens that end an answer. n_vocab: as the model has it, at
  // least n.
  Vocabulary(const std::vector<std::string>& texts, std::vector<int32_t> ends, int n_vocab);
  // spelled: control tokens that stand for the text that they are written as.
  static std::shared_ptr<const Vocabulary> Of(const text::Tokenizer& tokenizer, std::vector<int32_t> ends, int n_vocab,
                                              std::span<const int32_t> spelled = {});

  std::span<const Node> nodes() const { return nodes_; }
  std::span<const int32_t> tokens() const { return tokens_; }
  const std::string& text(int32_t token) const { return texts_[static_cast<size_t>(token)]; }
  std::span<const int32_t> ends() const { return ends_; }
  int n_vocab() const { return n_vocab_; }
  int max_depth() const { return max_depth_; }
  int32_t space_node() const { return space_node_; }  // of the byte ' ' alone; -1: no token begins with it
  size_t n_words() const { return (static_cast<size_t>(n_vocab_) + 63) / 64; }  // of a mask

 private:
  std::vector<std::string> texts_;
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;  // in order of their bytes
  std::vector<int32_t> ends_;
  int n_vocab_ = 0;
  int max_depth_ = 0;
  int32_t space_node_ = -1;
};

}  // namespace updraft::grammar
