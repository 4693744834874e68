#include "common/text/tokenizer.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "common/text/field_hasher.h"
#include "common/text/score_bpe.h"
#include "common/text/utf8.h"
#include "tests/common/text/made_tokenizer.h"
#include "tests/common/text/small_vocab.h"

namespace updraft::text {
namespace {

std::string RandomBytes(std::mt19937_64* rng, size_t n) {
  static const std::vector<std::string> kWords = {"hello", " world", " the",    "我",         "我想", "aaaa",   "  ",
                                                  "\n\n",  "<|",     "<think>", "<|im_end|>", "</s>", "\u2581", "12"};
  std::string text;
  while (text.size() < n) {
    if ((*rng)() % 3 == 0) {
      text.push_back(static_cast<char>((*rng)()));
    } else {
      text += kWords[(*rng)() % kWords.size()];
    }
  }
  return text;
}

// ---- Byte-level BPE -----------------------------------------------------------------------------------------------

TEST(ByteLevelTest, MergesAndPieces) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(Written(*t, Encoded(*t, "hello world 12")),
            (std::vector<std::string>{"hello", " worl", "d", " ", "1", "2"}));  // digits are pieces of their own
  EXPECT_EQ(Written(*t, Encoded(*t, "我")), (std::vector<std::string>{"我"}));
}

TEST(ByteLevelTest, RoundTripsAnyBytes) {
  for (const char* pre : {"qwen2", "gpt-2", "llama-bpe", "deepseek-llm", "falcon", "tekken", "default"}) {
    const TokenizerPtr t = Made(SmallByteLevelParts(pre));
    ASSERT_NE(t, nullptr);
    for (uint64_t seed = 1; seed <= 500; ++seed) {
      std::mt19937_64 rng(seed);
      const std::string text = RandomBytes(&rng, seed % 200);
      const Ids plain = Encoded(*t, text);
      ASSERT_EQ(t->Decode(plain), text) << pre << ", seed " << seed;
      for (const int32_t id : plain) ASSERT_NE(t->type(id), TokenType::kControl) << pre << ", seed " << seed;
      const Ids special = Encoded(*t, text, {.parse_special = true});
      ASSERT_EQ(t->Decode(special, /*render_special=*/true), text) << pre << ", seed " << seed;
    }
  }
}

TEST(ByteLevelTest, WholePiecesComeFirstForLlama3) {
  TokenizerParts parts = SmallByteLevelParts("llama-bpe");
  parts.tokens.push_back("thx");  // no merge makes it
  parts.types.push_back(TokenType::kNormal);
  const TokenizerPtr llama3 = Made(parts);
  parts.pre = "gpt-2";
  const TokenizerPtr gpt2 = Made(parts);
  EXPECT_EQ(Encoded(*llama3, "thx").size(), 1u);
  EXPECT_EQ(Encoded(*gpt2, "thx").size(), 2u);
}

TEST(ByteLevelTest, AByteWithoutATokenIsUnknownOrAnError) {
  TokenizerParts parts;
  parts.pre = "gpt-2";
  parts.tokens = {"a", "b", "ab", "<unk>"};
  parts.types = {TokenType::kNormal, TokenType::kNormal, TokenType::kNormal, TokenType::kUnknown};
  parts.merges = {"a b"};
  const auto without = Made(parts)->Encode("abc");
  EXPECT_EQ(without.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(without.status().message().find("63"), std::string::npos) << without.status();
  parts.unk_id = 3;
  EXPECT_EQ(Encoded(*Made(parts), "abc"), (Ids{2, 3}));
}

// ---- SentencePiece style ------------------------------------------------------------------------------------------

TEST(SentencePieceTest, PrefixBosAndByteFallback) {
  const TokenizerPtr t = Made(SmallSentencePieceParts());
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(Written(*t, Encoded(*t, "hello the")), (std::vector<std::string>{"<s>", " hello", " the"}));
  EXPECT_EQ(Encoded(*t, "é", {.add_special = false}), (Ids{259 + 18, 0xC3 + 3, 0xA9 + 3}));
  EXPECT_EQ(t->Decode(Encoded(*t, " hello")), " hello");
  EXPECT_TRUE(Encoded(*t, "", {.add_special = false}).empty());
}

TEST(SentencePieceTest, RoundTripsAnyBytes) {
  const TokenizerPtr t = Made(SmallSentencePieceParts());
  for (uint64_t seed = 1; seed <= 1000; ++seed) {
    std::mt19937_64 rng(seed);
    std::string text = RandomBytes(&rng, seed % 200);
    // The vocabulary writes spaces as U+2581, so that character comes back as a space: the format's own loss.
    std::string expected = text;
    for (size_t at = expected.find("\u2581"); at != expected.npos; at = expected.find("\u2581")) {
      expected.replace(at, 3, " ");
    }
    const Ids ids = Encoded(*t, text);
    ASSERT_EQ(t->Decode(ids), expected) << "seed " << seed;
    for (size_t i = 1; i < ids.size(); ++i) {
      ASSERT_NE(t->type(ids[i]), TokenType::kControl) << "seed " << seed;
    }
  }
}

TEST(SentencePieceTest, TextNeverMergesIntoAControlToken) {
  const TokenizerPtr t = Made(SmallSentencePieceParts());  // it has "</s" and ">", and "<s" and ">"
  for (const char* text : {"</s>", "<s>", "<unk>", "<0x41>", "hello</s>hello"}) {
    for (const int32_t id : Encoded(*t, text, {.add_special = false})) {
      EXPECT_TRUE(t->type(id) == TokenType::kNormal || t->type(id) == TokenType::kByte) << text << ": " << id;
    }
  }
  EXPECT_EQ(Encoded(*t, "</s>", {.add_special = false, .parse_special = true}), Ids{2});
}

// SentencePiece's rule word for word, in quadratic time.
Ids MergeSlowly(std::string_view text, const absl::flat_hash_map<std::string_view, int32_t>& ids,
                const std::vector<float>& scores) {
  std::vector<std::string> symbols;
  for (size_t pos = 0; pos < text.size(); pos += symbols.back().size()) {
    symbols.emplace_back(text.substr(pos, DecodeUtf8(text, pos).bytes));
  }
  while (true) {
    float best = -std::numeric_limits<float>::infinity();
    size_t at = symbols.size();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto it = ids.find(std::string_view(symbols[i] + symbols[i + 1]));
      if (it != ids.end() && scores[it->second] > best) {
        best = scores[it->second];
        at = i;
      }
    }
    if (at == symbols.size()) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  Ids result;
  for (const std::string& symbol : symbols) {
    const auto it = ids.find(std::string_view(symbol));
    result.push_back(it == ids.end() ? -1 : it->second);
  }
  return result;
}

TEST(ScoreBpeTest, EqualsTheDefinitionOnRandomVocabularies) {
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    std::mt19937_64 rng(seed);
    std::vector<std::string> tokens;
    for (size_t n = 1 + rng() % 25; n > 0; --n) {
      std::string token;
      for (size_t k = 1 + rng() % 5; k > 0; --k) token += std::vector<std::string>{"a", "b", "é", "我"}[rng() % 4];
      tokens.push_back(token);
    }
    absl::flat_hash_map<std::string_view, int32_t> ids;
    std::vector<float> scores;
    size_t longest = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      ids.try_emplace(tokens[i], static_cast<int32_t>(i));
      scores.push_back(static_cast<float>(rng() % 7));  // few values, so that ties are common
      longest = std::max(longest, tokens[i].size());
    }
    std::string text;
    for (size_t k = rng() % 60; k > 0; --k) text += std::vector<std::string>{"a", "b", "é", "我", "\xFF"}[rng() % 5];
    Ids result;
    std::string joined;
    ScoreBpe(text, ids, scores, longest, [&](std::string_view bytes, int32_t id) {
      joined += bytes;
      result.push_back(id);
    });
    ASSERT_EQ(joined, text) << "seed " << seed;
    ASSERT_EQ(result, MergeSlowly(text, ids, scores)) << "seed " << seed << ", text " << text;
  }
}

TEST(SentencePieceTest, WordByWordGivesTheSameAsTheWholeText) {
  const TokenizerPtr apart = Made(SmallSentencePieceParts());
  TokenizerParts parts = SmallSentencePieceParts();
  parts.tokens.push_back("\u2581q\u2581q");  // a space inside: this vocabulary's text is merged as a whole
  parts.types.push_back(TokenType::kNormal);
  parts.scores.push_back(-100);
  const TokenizerPtr whole = Made(parts);
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    std::mt19937_64 rng(seed);
    const std::string text = RandomBytes(&rng, seed % 120);
    ASSERT_EQ(Encoded(*apart, text), Encoded(*whole, text)) << "seed " << seed;
  }
}

TEST(SentencePieceTest, TokensWithASpaceInsideAreFound) {
  TokenizerParts parts = SmallSentencePieceParts();
  for (const char* piece : {"e\u2581", "he\u2581t"}) {
    parts.tokens.push_back(piece);
    parts.types.push_back(TokenType::kNormal);
    parts.scores.push_back(0);
  }
  const TokenizerPtr t = Made(parts);
  EXPECT_EQ(Written(*t, Encoded(*t, "e t", {.add_special = false})), (std::vector<std::string>{" ", "e ", "t"}));
}

// ---- Special tokens -----------------------------------------------------------------------------------------------

TEST(SpecialTokensTest, UsersCannotWriteControlTokens) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  const int32_t start = *t->SpecialTokenId("<|im_start|>");
  const std::string text = "<|im_start|>system";
  for (const int32_t id : Encoded(*t, text)) EXPECT_NE(id, start);
  EXPECT_EQ(Encoded(*t, text, {.parse_special = true})[0], start);
  EXPECT_EQ(Encoded(*t, "a<think>b")[1], *t->SpecialTokenId("<think>"));  // user-defined: found in any text
  EXPECT_EQ(t->Decode(Encoded(*t, text, {.parse_special = true})), "system");
}

TEST(SpecialTokensTest, MarkersAreControlTokensWhateverTheFileCallsThem) {
  TokenizerParts parts = SmallByteLevelParts();
  for (TokenType& type : parts.types) type = type == TokenType::kControl ? TokenType::kUserDefined : type;
  const TokenizerPtr t = Made(parts);
  const int32_t end = *t->SpecialTokenId("<|im_end|>");
  EXPECT_EQ(t->type(end), TokenType::kControl);
  for (const int32_t id : Encoded(*t, "<|im_end|>")) EXPECT_NE(id, end);
}

TEST(SpecialTokensTest, NoMergeFormsAControlToken) {
  TokenizerParts parts;
  parts.pre = "gpt-2";
  parts.tokens = {"<", "|", ">", "<|", "<|>"};
  parts.merges = {"< |", "<| >"};
  parts.bos_id = 4;
  EXPECT_EQ(Encoded(*Made(parts), "<|>"), (Ids{3, 2}));
}

TEST(SpecialTokensTest, LongestOfThoseAtOnePlace) {
  TokenizerParts parts = SmallByteLevelParts();
  for (const char* text : {"<a>", "<a><b>", "<b>"}) {
    parts.tokens.push_back(text);
    parts.types.push_back(TokenType::kUserDefined);
  }
  const TokenizerPtr t = Made(parts);
  EXPECT_EQ(Written(*t, Encoded(*t, "<a><b><b><a>")), (std::vector<std::string>{"<a><b>", "<b>", "<a>"}));
}

TEST(SpecialTokensTest, EndOfGeneration) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  EXPECT_TRUE(t->IsEndOfGeneration(*t->eos_id()));
  EXPECT_TRUE(t->IsEndOfGeneration(*t->SpecialTokenId("<|endoftext|>")));
  EXPECT_FALSE(t->IsEndOfGeneration(*t->SpecialTokenId("<|im_start|>")));
  EXPECT_FALSE(t->IsEndOfGeneration(-1));
  EXPECT_EQ(t->eot_id(), t->SpecialTokenId("<|im_end|>"));
  EXPECT_EQ(t->EndOfGenerationIds().size(), 2u);
}

TEST(SpecialTokensTest, BosAndEosAsTheFileSays) {
  TokenizerParts parts = SmallSentencePieceParts();
  parts.add_eos = true;
  const TokenizerPtr t = Made(parts);
  const Ids ids = Encoded(*t, "a");
  EXPECT_EQ(ids.front(), *t->bos_id());
  EXPECT_EQ(ids.back(), *t->eos_id());
  EXPECT_EQ(Encoded(*t, "a", {.add_special = false}).size(), ids.size() - 2);
}

TEST(SegmentsTest, PlainNeighboursAreEncodedAsOne) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  const std::vector<TextSegment> segments = {
      {"<|im_start|>", true}, {"he", false}, {"llo", false}, {"<|im_end|>", false}, {"<|im_end|>", true}};
  const auto ids = t->EncodeSegments(segments, {});
  ASSERT_TRUE(ids.ok());
  const std::vector<std::string> written = Written(*t, *ids);
  EXPECT_EQ(written[0], "<|im_start|>");
  EXPECT_EQ(written[1], "hello");
  EXPECT_EQ(written[2], "<|");  // the user's: text
  EXPECT_EQ(written.back(), "<|im_end|>");
  EXPECT_EQ(std::count(ids->begin(), ids->end(), *t->SpecialTokenId("<|im_end|>")), 1);
}

TEST(SegmentsTest, SpaceAfterSpecialTokensGoesWhereTheModelSaysSo) {
  TokenizerParts parts = SmallByteLevelParts();
  parts.strip_after_special = true;
  const TokenizerPtr t = Made(parts);
  const auto ids = t->EncodeSegments(std::vector<TextSegment>{{"<|im_start|>", true}, {"\n \nhello", false}}, {});
  EXPECT_EQ(Written(*t, *ids), (std::vector<std::string>{"<|im_start|>", "hello"}));
}

// ---- Hostile parts ------------------------------------------------------------------------------------------------

struct Hostile {
  const char* name;
  std::function<void(TokenizerParts*)> spoil;
  const char* says;  // part of the message
};

TEST(HostilePartsTest, EachIsRefusedWithItsKey) {
  const std::vector<Hostile> byte_level = {
      {"no tokens", [](TokenizerParts* p) { p->tokens.clear(); }, "tokens"},
      {"types too short", [](TokenizerParts* p) { p->types.pop_back(); }, "token_type"},
      {"types too long", [](TokenizerParts* p) { p->types.push_back(TokenType::kNormal); }, "token_type"},
      {"type out of range", [](TokenizerParts* p) { p->types[5] = static_cast<TokenType>(7); }, "token_type[5]"},
      {"negative type", [](TokenizerParts* p) { p->types[5] = static_cast<TokenType>(-1); }, "token_type[5]"},
      {"scores too short", [](TokenizerParts* p) { p->scores.resize(3); }, "scores"},
      {"duplicate", [](TokenizerParts* p) { p->tokens[300 - 30] = p->tokens[7]; }, "distinct"},
      {"overlong token", [](TokenizerParts* p) { p->tokens[9] = std::string(5000, 'x'); }, "tokens[9]"},
      {"bos out of range", [](TokenizerParts* p) { p->bos_id = 1 << 30; }, "bos_token_id"},
      {"eos negative", [](TokenizerParts* p) { p->eos_id = -5; }, "eos_token_id"},
      {"pad at the end", [](TokenizerParts* p) { p->pad_id = static_cast<int32_t>(p->tokens.size()); }, "padding"},
      {"add_bos without bos", [](TokenizerParts* p) { p->add_bos = true; }, "add_bos"},
      {"add_eos without eos", [](TokenizerParts* p) { p->add_eos = true, p->eos_id.reset(); }, "add_eos"},
      {"merge of an unknown token", [](TokenizerParts* p) { p->merges.push_back("q zzz"); }, "zzz"},
      {"merge into an unknown token", [](TokenizerParts* p) { p->merges.push_back("q q"); }, "qq"},
      {"merge of one", [](TokenizerParts* p) { p->merges[2] = "hell"; }, "merges[2]"},
      {"merge with nothing", [](TokenizerParts* p) { p->merges[2] = "hell "; }, "merges[2]"},
      {"empty merge", [](TokenizerParts* p) { p->merges[0] = ""; }, "merges[0]"},
      {"a merge that would be a cycle", [](TokenizerParts* p) { p->merges[1] = " h"; }, "merges[1]"},
      {"unknown pre", [](TokenizerParts* p) { p->pre = "no-such-pre"; }, "no-such-pre"},
      {"byte token without a byte", [](TokenizerParts* p) { p->types[7] = TokenType::kByte; }, "tokens[7]"},
  };
  for (const Hostile& h : byte_level) {
    TokenizerParts parts = SmallByteLevelParts();
    h.spoil(&parts);
    const auto made = Tokenizer::FromParts(parts);
    ASSERT_FALSE(made.ok()) << h.name;
    EXPECT_NE(made.status().message().find(h.says), std::string::npos) << h.name << ": " << made.status();
  }
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    TokenizerParts parts = SmallSentencePieceParts();
    parts.scores[20] = bad;
    const auto made = Tokenizer::FromParts(parts);
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(made.status().message().find("scores[20]"), std::string::npos) << made.status();
  }
}

TEST(HostilePartsTest, OddButUsable) {
  TokenizerParts parts = SmallByteLevelParts();
  for (int i = 0; i < 3; ++i) {  // padding that published files have
    parts.tokens.push_back("");
    parts.types.push_back(TokenType::kUnused);
  }
  parts.merges.push_back(parts.merges[0]);  // said twice
  const TokenizerPtr t = Made(parts);
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(t->Decode(Encoded(*t, "hello")), "hello");
  EXPECT_EQ(t->TokenBytes(t->vocab_size()), "");
  EXPECT_EQ(t->TokenBytes(-1), "");
  EXPECT_EQ(t->Decode(Ids{1 << 30, 'a'}), "a");
}

TEST(HostileTextTest, TooLongIsRefusedWithTheLimit) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  const auto ids = t->Encode(std::string(101, 'a'), {.max_bytes = 100});
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(ids.status().message().find("at most 100 bytes, found 101"), std::string::npos) << ids.status();
  const std::vector<TextSegment> segments = {{std::string(60, 'a'), false}, {std::string(60, 'a'), false}};
  EXPECT_FALSE(t->EncodeSegments(segments, {.max_bytes = 100}).ok());
}

TEST(HostileTextTest, AMegabyteOfOneThingTakesSeconds) {
  // Quadratic work would take hours; the bound leaves room for a slow, sanitized build.
  for (const TokenizerPtr& t : {Made(SmallByteLevelParts()), Made(SmallSentencePieceParts())}) {
    for (const char* atom : {"a", " ", "\n", "我", "\xFF", "<", "<|im_start|>", "hello ", "1"}) {
      std::string text;
      while (text.size() < (1u << 20)) text += atom;
      const auto start = std::chrono::steady_clock::now();
      const Ids ids = Encoded(*t, text, {.add_special = false, .parse_special = true});
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      EXPECT_LT(took.count(), 30.0) << atom;
      EXPECT_EQ(t->Decode(ids, /*render_special=*/true), text) << atom;
    }
  }
}

// ---- Fingerprint --------------------------------------------------------------------------------------------------

TEST(FingerprintTest, ChangesWithAnythingThatGivesIdsTheirMeaning) {
  const std::string base = Made(SmallByteLevelParts())->fingerprint();
  EXPECT_EQ(base.size(), 64u);
  EXPECT_EQ(Made(SmallByteLevelParts())->fingerprint(), base);
  const std::vector<std::function<void(TokenizerParts*)>> changes = {
      [](TokenizerParts* p) { p->pre = "gpt-2"; },
      [](TokenizerParts* p) { std::swap(p->tokens[1], p->tokens[2]); },
      [](TokenizerParts* p) { std::swap(p->merges[0], p->merges[1]); },
      [](TokenizerParts* p) { p->merges.pop_back(); },
      [](TokenizerParts* p) { p->types.back() = TokenType::kNormal; },
      [](TokenizerParts* p) { p->eos_id = 3; },
      [](TokenizerParts* p) { p->unk_id = 3; },
      [](TokenizerParts* p) { p->bos_id = 3, p->add_bos = true; },
      [](TokenizerParts* p) { p->strip_after_special = true; },
  };
  std::vector<std::string> seen = {base};
  for (size_t i = 0; i < changes.size(); ++i) {
    TokenizerParts parts = SmallByteLevelParts();
    changes[i](&parts);
    const std::string changed = Made(parts)->fingerprint();
    for (const std::string& other : seen) EXPECT_NE(changed, other) << "change " << i;
    seen.push_back(changed);
  }
  TokenizerParts scores = SmallSentencePieceParts();
  const std::string before = Made(scores)->fingerprint();
  scores.scores[270] -= 0.5f;
  EXPECT_NE(Made(scores)->fingerprint(), before);
}

TEST(FingerprintTest, HashIsSha256OfLengthPrefixedFields) {
  FieldHasher hash;
  hash.Add("abc");
  hash.Add(int64_t{258});
  const std::string bytes("\3\0\0\0\0\0\0\0abc\2\1\0\0\0\0\0\0", 19);
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  std::string hex;
  for (const unsigned char byte : digest) {
    char text[3];
    std::snprintf(text, sizeof(text), "%02x", byte);
    hex += text;
  }
  const auto found = hash.Finish();
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, hex);
}

TEST(TextStartTest, TextThatContinuesGetsNoSpace) {
  const TokenizerPtr tokenizer = Made(SmallSentencePieceParts());
  const Ids begins = Encoded(*tokenizer, "hello the", {.add_special = false});
  const Ids continues = Encoded(*tokenizer, "hello the", {.add_special = false, .at_text_start = false});
  EXPECT_EQ(Written(*tokenizer, begins)[0], " hello");
  EXPECT_EQ(Written(*tokenizer, continues)[0], "hello");
  EXPECT_EQ(Written(*tokenizer, begins).back(), Written(*tokenizer, continues).back());
  // After a special token a text begins in any case.
  const EncodeOptions parsed{.add_special = false, .parse_special = true, .at_text_start = false};
  EXPECT_EQ(Written(*tokenizer, Encoded(*tokenizer, "<s>hello", parsed)).back(), " hello");
  const TokenizerPtr byte_level = Made(SmallByteLevelParts());
  EXPECT_EQ(Encoded(*byte_level, "hello", {.at_text_start = false}), Encoded(*byte_level, "hello"));
}

}  // namespace
}  // namespace updraft::text
