// Masks against looking at each token by itself; going back; the end; random walks that stay within the grammar.
#include "common/grammar/token_masks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/grammar/gbnf.h"
#include "common/grammar/json_schema.h"
#include "nlohmann/json.hpp"

namespace updraft::grammar {
namespace {

constexpr int32_t kEnd = 0;

// All single bytes, and pieces that cross what grammars tell apart.
std::shared_ptr<const Vocabulary> MakeVocabulary(uint32_t seed) {
  std::vector<std::string> texts = {"<end>", ""};
  for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* piece : {"true",      "false",    "null", "\": ",    "\":", "\",",      "\", ", "\"}",    "{\"",
                            "[{\"",      "}]",       "},",   "}, {\"",  "]]",  "[[",       "name", "\"name", "\"name\"",
                            "\"name\":", "age\":",   "12",   "123",     "1,",  "1}",       "1]",   "0.",     ".5",
                            "e+",        "-1",       "\n  ", "\n",      "  ",  " \"",      "\\\"", "\\u00",  "é",
                            "\xF0\x9F",  "\x98\x80", "a\"",  "ab\",\"", "abc", "aaaaaaaa", "(((",  "))"}) {
    texts.push_back(piece);
  }
  std::mt19937 random(seed);
  const std::string letters = "{}[]\",:0123.eE-truefalsnull \\nameg\n";
  for (int i = 0; i < 400; ++i) {
    std::string text;
    for (uint32_t n = 2 + random() % 5; n > 0; --n) text += letters[random() % letters.size()];
    texts.push_back(text);
  }
  texts.push_back("true");  // a second token of the same bytes
  return std::make_shared<Vocabulary>(texts, std::vector<int32_t>{kEnd}, static_cast<int>(texts.size()) + 7);
}

std::vector<std::pair<std::string, absl::StatusOr<Grammar>>> Grammars() {
  const char* const person = R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer",
    "minimum":0,"maximum":130},"tags":{"type":"array","items":{"enum":["a","ab","abc"]},"maxItems":3}},"required":["name"]})";
  std::vector<std::pair<std::string, absl::StatusOr<Grammar>>> all;
  all.emplace_back("any JSON", GrammarOfJsonSchema("true"));
  all.emplace_back("person", GrammarOfJsonSchema(person));
  all.emplace_back("map",
                   GrammarOfJsonSchema(R"({"type":"object","additionalProperties":{"type":"number","minimum":-1.5}})"));
  all.emplace_back("bounded",
                   GrammarOfJsonSchema(R"({"type":"array","items":{"type":"string","maxLength":5},"minItems":2})"));
  all.emplace_back("pattern", GrammarOfJsonSchema(R"({"type":"string","pattern":"^a+b?$"})"));
  all.emplace_back("brackets", GrammarOfGbnf("root ::= \"(\" root \")\" root | \"\""));
  all.emplace_back("ambiguous", GrammarOfGbnf("root ::= (x | y)+\nx ::= \"a\"+\ny ::= \"aa\" | \"ab\" x?"));
  all.emplace_back("texts", GrammarOfTexts(std::vector<std::string>{"true", "trueish", "name", "n"}));
  return all;
}

// Byte by byte, without anything remembered.
bool FitsAt(const CompiledGrammar& grammar, const std::string& text, const std::string& token) {
  Frames frames;
  Walker walker(&grammar, &frames);
  Places places, next;
  walker.Begin(grammar.start(), Frames::kDone, places);
  for (const char c : text + token) {
    walker.Step(places, static_cast<uint8_t>(c), next);
    std::swap(places, next);
  }
  return places.done || !places.ways.empty();
}

TEST(GrammarMaskTest, AsEveryTokenByItself) {
  const auto vocabulary = MakeVocabulary(1);
  for (auto& [name, grammar] : Grammars()) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    absl::StatusOr<CompiledGrammar> compiled = CompiledGrammar::Compile(*grammar);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    const auto masks = std::make_shared<const TokenMasks>(*compiled, vocabulary);
    for (uint32_t seed = 1; seed <= 12; ++seed) {
      std::mt19937 random(seed);
      GrammarMask mask(masks);
      std::string text;
      for (int step = 0; step < 30; ++step) {
        const auto allowed = mask.Allowed();
        std::vector<int32_t> choices;
        for (int32_t token = 0; token < vocabulary->n_vocab(); ++token) {
          const std::string& bytes = vocabulary->text(token);
          const bool expected = token == kEnd ? mask.may_end() : !bytes.empty() && FitsAt(*compiled, text, bytes);
          ASSERT_EQ(MaskAllows(allowed, token), expected)
              << "seed " << seed << " after '" << text << "': '" << bytes << "'";
          if (expected && token != kEnd) choices.push_back(token);
        }
        ASSERT_FALSE(mask.broken());
        if (choices.empty()) break;
        const int32_t token = choices[random() % choices.size()];
        text += vocabulary->text(token);
        mask.Advance(token);
      }
    }
  }
}

// What was gone on with and taken back leaves no trace, ends included.
TEST(GrammarMaskTest, GoingBackIsAsIfNothingHadBeen) {
  const auto vocabulary = MakeVocabulary(2);
  for (auto& [name, grammar] : Grammars()) {
    SCOPED_TRACE(name);
    const auto masks = std::make_shared<const TokenMasks>(CompiledGrammar::Compile(*grammar).value(), vocabulary);
    std::mt19937 random(9);
    GrammarMask mask(masks);
    std::vector<int32_t> taken;
    const auto shown = [](std::span<const uint64_t> allowed) {
      return std::vector<uint64_t>(allowed.begin(), allowed.end());
    };
    for (int round = 0; round < 300; ++round) {
      if (!taken.empty() && random() % 3 == 0) {
        const int n = 1 + static_cast<int>(random() % std::min<size_t>(taken.size(), 4));
        mask.Rollback(n);
        taken.resize(taken.size() - static_cast<size_t>(n));
      } else {
        std::vector<int32_t> choices;
        for (int32_t token = 0; token < vocabulary->n_vocab(); ++token) {
          if (MaskAllows(mask.Allowed(), token)) choices.push_back(token);
        }
        ASSERT_FALSE(choices.empty());
        taken.push_back(choices[random() % choices.size()]);
        mask.Advance(taken.back());
      }
      GrammarMask fresh(masks);
      for (const int32_t token : taken) fresh.Advance(token);
      ASSERT_EQ(shown(mask.Allowed()), shown(fresh.Allowed()));
      ASSERT_EQ(mask.ended(), fresh.ended());
    }
  }
}

TEST(GrammarMaskTest, AfterTheEndThereAreEndsAlone) {
  const auto vocabulary = MakeVocabulary(3);
  const auto masks = std::make_shared<const TokenMasks>(
      CompiledGrammar::Compile(*GrammarOfTexts(std::vector<std::string>{"n"})).value(), vocabulary);
  GrammarMask mask(masks);
  EXPECT_FALSE(MaskAllows(mask.Allowed(), kEnd));
  mask.Advance(2 + 'n');
  EXPECT_TRUE(mask.may_end());
  EXPECT_TRUE(MaskAllows(mask.Allowed(), kEnd));
  for (int i = 0; i < 3; ++i) mask.Advance(kEnd);
  EXPECT_TRUE(mask.ended());
  int n_allowed = 0;
  for (int32_t token = 0; token < vocabulary->n_vocab(); ++token)
    n_allowed += MaskAllows(mask.Allowed(), token) ? 1 : 0;
  EXPECT_EQ(n_allowed, 1);
  mask.Rollback(3);
  EXPECT_FALSE(mask.ended());
  mask.Rollback(1);
  EXPECT_FALSE(MaskAllows(mask.Allowed(), kEnd));
}

// What may be empty takes nothing of a token's reach.
TEST(GrammarMaskTest, BehindManyThatMayBeEmpty) {
  std::string calls;
  for (int i = 0; i < 40; ++i) calls += " w";
  const auto vocabulary = MakeVocabulary(6);
  const auto grammar = GrammarOfGbnf("root ::= \"1x\"" + calls + " \"a\" | \"2x\"" + calls + " \"b\"\nw ::= \" \"?");
  const absl::StatusOr<CompiledGrammar> compiled = CompiledGrammar::Compile(*grammar);
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const auto masks = std::make_shared<const TokenMasks>(*compiled, vocabulary);
  for (const char* text : {"1", "2", "1x", "2x", "2x "}) {
    GrammarMask mask(masks);
    for (const char* c = text; *c != 0; ++c) mask.Advance(2 + static_cast<unsigned char>(*c));
    for (int32_t token = 1; token < vocabulary->n_vocab(); ++token) {
      const std::string& bytes = vocabulary->text(token);
      EXPECT_EQ(MaskAllows(mask.Allowed(), token), !bytes.empty() && FitsAt(*compiled, text, bytes)) << text << bytes;
    }
  }
}

// Many ways at once, walked together, and more than are followed.
TEST(GrammarMaskTest, ManyWays) {
  std::string schema = R"({"type":"object","properties":{)";
  for (int i = 0; i < 60; ++i) schema += (i > 0 ? ",\"p" : "\"p") + std::to_string(i) + R"(":{"type":"integer"})";
  const auto vocabulary = MakeVocabulary(7);
  const absl::StatusOr<CompiledGrammar> compiled = CompiledGrammar::Compile(*GrammarOfJsonSchema(schema + "}}"));
  ASSERT_TRUE(compiled.ok()) << compiled.status();
  const auto masks = std::make_shared<const TokenMasks>(*compiled, vocabulary);
  for (const char* text : {"{", "{\"p1", "{\"p10\": 1", "{\"p1\": 1,"}) {
    GrammarMask mask(masks);
    for (const char* c = text; *c != 0; ++c) mask.Advance(2 + static_cast<unsigned char>(*c));
    for (int32_t token = 1; token < vocabulary->n_vocab(); ++token) {
      const std::string& bytes = vocabulary->text(token);
      EXPECT_EQ(MaskAllows(mask.Allowed(), token), !bytes.empty() && FitsAt(*compiled, text, bytes)) << text << bytes;
    }
  }
  const auto hostile = GrammarOfGbnf("root ::= (w x){0,300}\nw ::= \" \"?\nx ::= [^\\n]*");
  ASSERT_TRUE(hostile.ok()) << hostile.status();
  const absl::StatusOr<CompiledGrammar> many = CompiledGrammar::Compile(*hostile);
  if (!many.ok()) return;
  GrammarMask mask(std::make_shared<const TokenMasks>(*many, vocabulary));
  mask.Allowed();  // ends soon, whatever it allows
}

// A vocabulary that puts a space before the first word: that space is none of the text.
TEST(GrammarMaskTest, TheFirstSpaceIsDropped) {
  const auto vocabulary = std::make_shared<Vocabulary>(
      std::vector<std::string>{"<end>", " yes", "yes", " no", " ", "y", "es", "no"}, std::vector<int32_t>{kEnd}, 8);
  const auto masks = std::make_shared<const TokenMasks>(
      CompiledGrammar::Compile(*GrammarOfTexts(std::vector<std::string>{"yes", "no yes"})).value(), vocabulary);
  const auto allowed = [](GrammarMask& mask) {
    std::vector<int32_t> tokens;
    for (int32_t token = 0; token < 8; ++token) {
      if (MaskAllows(mask.Allowed(), token)) tokens.push_back(token);
    }
    return tokens;
  };
  GrammarMask dropping(masks, /*drops_space=*/true), keeping(masks);
  EXPECT_EQ(allowed(keeping), (std::vector<int32_t>{2, 5, 7}));
  EXPECT_EQ(allowed(dropping), (std::vector<int32_t>{1, 2, 3, 5, 7}));
  dropping.Advance(3);
  EXPECT_EQ(allowed(dropping), (std::vector<int32_t>{1, 4})) << "only the first";
  dropping.Advance(1);
  EXPECT_TRUE(dropping.may_end());
}

// A vocabulary that lacks a byte cannot say what is needed.
TEST(GrammarMaskTest, WhatNoTokenFitsIsBroken) {
  const auto vocabulary =
      std::make_shared<Vocabulary>(std::vector<std::string>{"<end>", "a"}, std::vector<int32_t>{kEnd}, 2);
  const auto masks = std::make_shared<const TokenMasks>(
      CompiledGrammar::Compile(*GrammarOfTexts(std::vector<std::string>{"ab"})).value(), vocabulary);
  GrammarMask mask(masks);
  EXPECT_FALSE(mask.broken());
  mask.Advance(1);
  EXPECT_TRUE(mask.broken());
  EXPECT_TRUE(MaskAllows(mask.Allowed(), kEnd)) << "at least one is allowed";
}

// Whatever is chosen among what is allowed, the text is JSON in the end.
TEST(GrammarMaskTest, RandomAnswersParse) {
  const auto vocabulary = MakeVocabulary(4);
  const auto masks =
      std::make_shared<const TokenMasks>(CompiledGrammar::Compile(*GrammarOfJsonSchema("true")).value(), vocabulary);
  int n_ended = 0;
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    GrammarMask mask(masks);
    std::string text;
    for (int step = 0; step < 200 && !mask.ended(); ++step) {
      std::vector<int32_t> choices;
      for (int32_t token = 0; token < vocabulary->n_vocab(); ++token) {
        if (MaskAllows(mask.Allowed(), token)) choices.push_back(token);
      }
      const bool end = MaskAllows(mask.Allowed(), kEnd) && step > 10;
      const int32_t token = end ? kEnd : choices[random() % choices.size()];
      if (token != kEnd) text += vocabulary->text(token);
      mask.Advance(token);
    }
    if (!mask.ended()) continue;
    ++n_ended;
    EXPECT_TRUE(nlohmann::json::accept(text)) << "seed " << seed << ": " << text;
  }
  EXPECT_GT(n_ended, 20);
}

TEST(TokenMasksTest, ManyAnswersShareThem) {
  const auto vocabulary = MakeVocabulary(5);
  const auto masks =
      std::make_shared<const TokenMasks>(CompiledGrammar::Compile(*GrammarOfJsonSchema("true")).value(), vocabulary);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int answer = 0; answer < 20; ++answer) {
        GrammarMask mask(masks);
        for (int step = 0; step < 40; ++step) {
          std::vector<int32_t> choices;
          for (int32_t token = 0; token < vocabulary->n_vocab(); ++token) {
            if (MaskAllows(mask.Allowed(), token)) choices.push_back(token);
          }
          mask.Advance(choices[random() % choices.size()]);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace updraft::grammar
