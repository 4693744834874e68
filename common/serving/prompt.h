// A request's input as a model reads it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/routing/confidence.h"

namespace updraft {

namespace grammar {
class TokenMasks;  // common/grammar/token_masks.h
}

struct Prompt {
  std::vector<int32_t> tokens;
  PromptFeatures features;
  bool at_text_start = true;   // the answer begins a text (conversation) rather than continues one (raw prompt)
  std::vector<int32_t> given;  // the answer that is read rather than made up, its end included; empty: none is
  std::shared_ptr<const grammar::TokenMasks> shape;  // that the answer is held to; null: none
  // An answer whose beginning, another tier's, has not the shape goes on without it: calls of one that does not hold
  // its answers to them.
  bool shape_may_be_missed = false;
  std::vector<std::string> stops;  // texts at which the chat format ends an answer, where they are not tokens
  std::vector<int32_t> spelled;    // control tokens that are part of the answer's text: those that mark calls of tools
};

}  // namespace updraft
