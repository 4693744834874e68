// Assembled answers against a reference that knows the whole answer at once, over random vocabularies, cuts and limits.
#include "common/answer/assembler.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <random>

namespace updraft {
namespace {

// A vocabulary of byte strings; text is given in whole "characters", where 0xC0..0xDF begin one of two bytes.
class FakeText final : public TextStream {
 public:
  explicit FakeText(const std::vector<std::string>* vocabulary) : vocabulary_(vocabulary) {}
  std::string Push(int32_t token) override {
    held_ += (*vocabulary_)[token];
    std::string out;
    while (!held_.empty()) {
      const size_t n = (static_cast<unsigned char>(held_[0]) & 0xE0) == 0xC0 ? 2 : 1;
      if (held_.size() < n) break;
      out += held_.substr(0, n);
      held_.erase(0, n);
    }
    return out;
  }
  std::string Flush() override { return std::exchange(held_, "").empty() ? "" : "?"; }

 private:
  const std::vector<std::string>* vocabulary_;
  std::string held_;
};

const std::vector<std::string>& Vocabulary() {
  static const std::vector<std::string> vocabulary = {"a",
                                                      "b",
                                                      "ab",
                                                      "ba",
                                                      "\xC3",
                                                      "\xA9",
                                                      "\xA9"
                                                      "a",
                                                      "",
                                                      "aab",
                                                      "<end>"};
  return vocabulary;
}
constexpr int32_t kEnd = 9;

struct Whole {
  std::vector<int32_t> tokens;
  std::string text;
  AnswerEnd end = AnswerEnd::kOpen;
};

// The answer that `tokens` are, looked at as a whole.
Whole Reference(const std::vector<int32_t>& tokens, const AssemblerOptions& options) {
  Whole whole;
  std::string text;
  FakeText stream(&Vocabulary());
  const auto cut = [&](const std::string& all) {
    size_t best_end = std::string::npos, best_begin = 0;
    for (const std::string& stop : options.stops) {
      const size_t at = all.find(stop);
      if (at == std::string::npos) continue;
      const size_t end = at + stop.size();
      if (best_end == std::string::npos || end < best_end || (end == best_end && at < best_begin)) {
        best_end = end;
        best_begin = at;
      }
    }
    if (best_end == std::string::npos) return false;
    text = all.substr(0, best_begin);
    return true;
  };
  std::string all;
  for (const int32_t token : tokens) {
    if (token == kEnd) {
      whole.end = AnswerEnd::kStop;
      break;
    }
    whole.tokens.push_back(token);
    all += stream.Push(token);
    if (cut(all)) {
      whole.end = AnswerEnd::kStop;
      whole.text = text;
      return whole;
    }
    if (static_cast<int>(whole.tokens.size()) >= options.max_tokens) {
      whole.end = AnswerEnd::kLength;
      break;
    }
  }
  if (whole.end == AnswerEnd::kOpen) whole.end = AnswerEnd::kLength;  // the caller closes it
  all += stream.Flush();
  whole.text = cut(all) ? text : all;
  return whole;
}

TEST(AnswerAssemblerTest, EqualsTheWholeAnswerHoweverItIsTakenUp) {
  for (uint32_t seed = 1; seed <= 20000; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 rng(seed);
    std::vector<int32_t> tokens(rng() % 12 + 1);
    for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % (rng() % 8 == 0 ? 10 : 9));
    AssemblerOptions options;
    options.stop_tokens = {kEnd};
    options.max_tokens = static_cast<int>(rng() % 14 + 1);
    const std::vector<std::string> stops = {"aab", "bb", "\xC3\xA9", "ba", "abab"};
    for (const std::string& stop : stops) {
      if (rng() % 4 == 0) options.stops.push_back(stop);
    }
    const Whole whole = Reference(tokens, options);
    std::vector<size_t> begins;  // of the tokens' texts
    {
      FakeText stream(&Vocabulary());
      size_t n_bytes = 0;
      for (const int32_t token : tokens) {
        begins.push_back(n_bytes);
        n_bytes += stream.Push(token).size();
      }
    }

    // First part: what the reader has been given by somebody else, of which `n_prefix` tokens by the tier below.
    const size_t n_first = rng() % (whole.tokens.size() + 1);
    const auto first = std::vector<int32_t>(tokens.begin(), tokens.begin() + n_first);
    std::string given;
    bool over = false;
    {
      AnswerAssembler before(std::make_unique<FakeText>(&Vocabulary()), options);
      for (const int32_t token : first) {
        if (before.end() != AnswerEnd::kOpen) break;
        given += before.Push(token).text;
      }
      over = before.end() != AnswerEnd::kOpen;
    }
    if (over) given = given.substr(0, rng() % (given.size() + 1));  // it was cut off before its end was told

    AnswerAssembler assembler(std::make_unique<FakeText>(&Vocabulary()), options);
    std::string rest;
    std::vector<int32_t> added;
    const AnswerEnd resumed = assembler.Resume({.tokens = first, .n_prefix_tokens = 0, .given_bytes = given.size()});
    AnswerEnd end = AnswerEnd::kOpen;
    if (resumed != AnswerEnd::kOpen) {
      const AnswerPiece piece = assembler.Close(resumed);
      rest += piece.text;
      end = piece.end;
    }
    for (size_t i = n_first; i < tokens.size() && end == AnswerEnd::kOpen; ++i) {
      const AnswerPiece piece = assembler.Push(tokens[i], TokenEvidence{.logprob = -float(i)});
      rest += piece.text;
      if (piece.token) {
        EXPECT_EQ(piece.text_offset, begins[i]) << "where it stands does not depend on who wrote what was before";
        ASSERT_TRUE(piece.evidence.has_value());
        EXPECT_EQ(piece.evidence->logprob, -float(i));
      }
      if (piece.token) added.push_back(*piece.token);
      end = piece.end;
    }
    if (end == AnswerEnd::kOpen) {
      const AnswerPiece piece = assembler.Close(AnswerEnd::kLength);
      rest += piece.text;
      end = piece.end;
    }
    EXPECT_EQ(given + rest, whole.text);
    std::vector<int32_t> all = first;
    all.insert(all.end(), added.begin(), added.end());
    EXPECT_EQ(all, whole.tokens);
    EXPECT_EQ(end, whole.end);
    EXPECT_EQ(assembler.end(), whole.end);
    if (::testing::Test::HasFailure()) return;
  }
}

// Tokens of the stop string are tokens of the answer, but have no text in it.
TEST(AnswerAssemblerTest, WhatAStopStringCutsOffBeginsWhereTheTextHasEnded) {
  AnswerAssembler assembler(std::make_unique<FakeText>(&Vocabulary()), {.stops = {"bab"}});
  std::string text;
  std::vector<size_t> offsets;
  for (const int32_t token : {0, 2, 0, 1}) {  // a, ab, a, b: "aabab" is cut to "aa"
    const AnswerPiece piece = assembler.Push(token, TokenEvidence());
    text += piece.text;
    offsets.push_back(piece.text_offset);
    ASSERT_TRUE(piece.evidence.has_value());
    EXPECT_EQ(piece.evidence->text_offset, piece.text_offset);
  }
  EXPECT_EQ(assembler.end(), AnswerEnd::kStop);
  EXPECT_EQ(text, "aa");
  EXPECT_THAT(offsets, ::testing::ElementsAre(0, 1, 3, 4)) << "the last two are of no text";
}

// The tier below has the text of its prefix but not what its last token left unfinished.
TEST(AnswerAssemblerTest, PrefixOfTheTierBelowIsNotRepeated) {
  AnswerAssembler assembler(std::make_unique<FakeText>(&Vocabulary()), {.stops = {"abab"}});
  ASSERT_EQ(assembler.Resume({.tokens = {0, 2, 4}, .n_prefix_tokens = 3}), AnswerEnd::kOpen);  // "a" + "ab" + half
  const AnswerPiece piece = assembler.Push(5);
  EXPECT_EQ(piece.text, "ab\xC3\xA9") << "held back as the start of a stop string, and half a character";
  EXPECT_EQ(piece.text_offset, 2u) << "of the text that is given here";
}

TEST(AnswerAssemblerTest, PrefixThatIsAWholeAnswer) {
  AnswerAssembler limited(std::make_unique<FakeText>(&Vocabulary()), {.max_tokens = 2});
  EXPECT_EQ(limited.Resume({.tokens = {0, 4}, .n_prefix_tokens = 2}), AnswerEnd::kLength);
  EXPECT_EQ(limited.Close(AnswerEnd::kLength).text, "?") << "the half character that the tier below could not finish";
  AnswerAssembler stopped(std::make_unique<FakeText>(&Vocabulary()), {.stop_tokens = {kEnd}});
  EXPECT_EQ(stopped.Resume({.tokens = {0, kEnd}, .n_prefix_tokens = 2}), AnswerEnd::kStop);
}

TEST(AnswerAssemblerTest, TokensOnly) {
  AnswerAssembler assembler(nullptr, {.stop_tokens = {kEnd}, .max_tokens = 3});
  EXPECT_EQ(assembler.Push(1).token, 1);
  EXPECT_EQ(assembler.Push(2).end, AnswerEnd::kOpen);
  const AnswerPiece last = assembler.Push(3);
  EXPECT_EQ(last.end, AnswerEnd::kLength);
  EXPECT_EQ(last.text, "");
}

}  // namespace
}  // namespace updraft
