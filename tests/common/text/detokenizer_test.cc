#include "common/text/detokenizer.h"

#include <gtest/gtest.h>
#include <unicode/unistr.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "common/text/utf8.h"
#include "tests/common/text/small_vocab.h"

namespace updraft::text {
namespace {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

TokenizerPtr Made(const TokenizerParts& parts) {
  const auto made = Tokenizer::FromParts(parts);
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

bool IsUtf8(std::string_view text) {
  for (size_t pos = 0; pos < text.size();) {
    const Utf8Char c = DecodeUtf8(text, pos);
    if (c.status != Utf8Status::kCharacter) return false;
    pos += c.bytes;
  }
  return true;
}

// Bytes that are often nearly UTF-8: whole characters, their beginnings, and stray bytes.
std::string NearlyUtf8(std::mt19937_64* rng) {
  static const std::vector<std::string> kParts = {"a",
                                                  "é",
                                                  "我",
                                                  "😀",
                                                  "\xC3",
                                                  "\xE6\x88",
                                                  "\xF0\x9F\x98",
                                                  "\xF0\x9F",
                                                  "\x80",
                                                  "\xBF\xBF",
                                                  "\xED\xA0",
                                                  "\xED\xA0\x80",
                                                  "\xC0\x80",
                                                  "\xE0\x80\x80",
                                                  "\xF4\x90\x80",
                                                  "\xFF",
                                                  "\xFE"};
  std::string bytes;
  for (size_t n = (*rng)() % 12; n > 0; --n) bytes += kParts[(*rng)() % kParts.size()];
  return bytes;
}

TEST(BoundedUtf8Test, EndsWithAWholeCharacter) {
  EXPECT_EQ(BoundedUtf8("plain", 100), "plain");
  EXPECT_EQ(BoundedUtf8("plain", 3), "pla");
  EXPECT_EQ(BoundedUtf8("plain", 0), "");
  EXPECT_EQ(BoundedUtf8("a\u20ac", 4), "a\u20ac");
  EXPECT_EQ(BoundedUtf8("a\u20ac", 3), "a") << "the limit cuts the character";
  EXPECT_EQ(BoundedUtf8("a\xe2\x82", 100), "a") << "it came cut off";
  EXPECT_EQ(BoundedUtf8("a\xff\xfe z", 100), "a\ufffd\ufffd z");
  EXPECT_EQ(BoundedUtf8("a\xff", 3), "a") << "what replaces it does not fit";
}

TEST(BoundedUtf8Test, IsAStretchOfTheWholeAsLongAsFits) {
  for (uint64_t seed = 1; seed <= 20000; ++seed) {
    std::mt19937_64 rng(seed);
    const std::string bytes = NearlyUtf8(&rng);
    const std::string whole = LossyUtf8(bytes);
    const size_t limit = rng() % 20;
    const std::string text = BoundedUtf8(bytes, limit);
    ASSERT_LE(text.size(), limit) << "seed " << seed;
    ASSERT_EQ(text, whole.substr(0, text.size())) << "seed " << seed;
    ASSERT_EQ(text, LossyUtf8(text)) << "seed " << seed;
    // A character has at most 4 bytes: no more than 3 of the room are left while there is more to say.
    ASSERT_GE(text.size() + 3, std::min(limit, whole.size())) << "seed " << seed;
  }
}

TEST(LossyUtf8Test, EqualsIcu) {
  for (uint64_t seed = 1; seed <= 20000; ++seed) {
    std::mt19937_64 rng(seed);
    const std::string bytes = NearlyUtf8(&rng);
    std::string expected;
    icu::UnicodeString::fromUTF8(bytes).toUTF8String(expected);
    ASSERT_EQ(LossyUtf8(bytes), expected) << "seed " << seed;
  }
}

TEST(StreamDetokenizerTest, AnySplitGivesTheWhole) {
  const TokenizerPtr t = Made(SmallByteLevelParts());  // the id of a byte is the byte
  for (uint64_t seed = 1; seed <= 20000; ++seed) {
    std::mt19937_64 rng(seed);
    const std::string bytes = NearlyUtf8(&rng);
    // Both as single bytes and as the tokens of the text.
    std::vector<int32_t> ids;
    if (seed % 2 == 0) {
      for (const char byte : bytes) ids.push_back(static_cast<uint8_t>(byte));
    } else {
      const auto encoded = t->Encode(bytes);
      ASSERT_TRUE(encoded.ok());
      ids = *encoded;
    }
    StreamDetokenizer stream(t);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = stream.Push(id);
      ASSERT_TRUE(IsUtf8(part)) << "seed " << seed;
      ASSERT_LE(stream.pending_bytes(), 3u) << "seed " << seed;
      text += part;
    }
    text += stream.Flush();
    ASSERT_EQ(text, LossyUtf8(bytes)) << "seed " << seed;
    ASSERT_EQ(stream.pending_bytes(), 0u);
  }
}

TEST(StreamDetokenizerTest, ACharacterComesWhenItIsWhole) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  StreamDetokenizer stream(t);
  EXPECT_EQ(stream.Push(0xE6), "");
  EXPECT_EQ(stream.Push(0x88), "");
  EXPECT_EQ(stream.Push(0x91), "我");
  EXPECT_EQ(stream.Push(0xF0), "");
  EXPECT_EQ(stream.Push('a'), "\uFFFDa");
  EXPECT_EQ(stream.Push(0xC3), "");
  EXPECT_EQ(stream.Flush(), "\uFFFD");
  EXPECT_EQ(stream.Flush(), "");
}

TEST(StreamDetokenizerTest, ControlTokensAreSilentUnlessAsked) {
  const TokenizerPtr t = Made(SmallByteLevelParts());
  const int32_t end = *t->SpecialTokenId("<|im_end|>");
  EXPECT_EQ(StreamDetokenizer(t).Push(end), "");
  EXPECT_EQ(StreamDetokenizer(t, {.render_special = true}).Push(end), "<|im_end|>");
  EXPECT_EQ(StreamDetokenizer(t).Push(1 << 30), "");
  // Those that are spelled, and only those.
  StreamDetokenizer spelled(t, {.spelled = {end}});
  EXPECT_EQ(spelled.Push(end), "<|im_end|>");
  EXPECT_EQ(spelled.Push(*t->SpecialTokenId("<|im_start|>")), "");
}

TEST(StreamDetokenizerTest, TheSpaceOfTheVocabularyGoesAtTheStartOfAText) {
  const TokenizerPtr t = Made(SmallSentencePieceParts());
  const auto ids = t->Encode("hello the", {.add_special = false});
  ASSERT_TRUE(ids.ok());
  StreamDetokenizer starting(t, {.at_text_start = true});
  StreamDetokenizer going_on(t);
  std::string from_start, continued;
  for (const int32_t id : *ids) {
    from_start += starting.Push(id);
    continued += going_on.Push(id);
  }
  EXPECT_EQ(from_start, "hello the");
  EXPECT_EQ(continued, " hello the");
}

}  // namespace
}  // namespace updraft::text
