// Tokenizers out of parts, and what they write: shared by the tests of tokenizers.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/tokenizer.h"

namespace updraft::text {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;
using Ids = std::vector<int32_t>;

inline TokenizerPtr Made(const TokenizerParts& parts) {
  const auto made = Tokenizer::FromParts(parts);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

inline Ids Encoded(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids();
}

inline std::vector<std::string> Written(const Tokenizer& tokenizer, const Ids& ids) {
  std::vector<std::string> tokens;
  for (const int32_t id : ids) tokens.push_back(tokenizer.TokenBytes(id, /*render_special=*/true));
  return tokens;
}

}  // namespace updraft::text
