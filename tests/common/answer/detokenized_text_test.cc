#include "common/answer/detokenized_text.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>

#include "tests/common/text/small_vocab.h"

namespace updraft {
namespace {

// Wherever a text of characters of 1 to 4 bytes is cut, an answer of its first tokens is the whole characters among
// them.
TEST(DetokenizedText, AnAnswerThatEndsWithinACharacterDropsThePart) {
  const auto made = text::Tokenizer::FromParts(text::SmallByteLevelParts());
  ASSERT_TRUE(made.ok()) << made.status();
  const std::string whole = "a\u00e9b\u20acc\U0001f697";
  const std::string_view starts[] = {"", "a", "a\u00e9", "a\u00e9b", "a\u00e9b\u20ac", "a\u00e9b\u20acc", whole};
  for (size_t n = 0; n <= whole.size(); ++n) {
    AnswerAssembler answer(std::make_unique<DetokenizedText>(*made, /*at_text_start=*/true), {});
    std::string text;
    for (size_t i = 0; i < n; ++i) text += answer.Push(static_cast<unsigned char>(whole[i])).text;  // ids are bytes
    text += answer.Close(AnswerEnd::kLength).text;
    std::string_view expected;
    for (const std::string_view start : starts) {
      if (start.size() <= n) expected = start;
    }
    EXPECT_EQ(text, expected) << n;
  }
  // What cannot become a character is replaced where it stands, not dropped.
  AnswerAssembler answer(std::make_unique<DetokenizedText>(*made, /*at_text_start=*/true), {});
  std::string text;
  for (const int32_t id : {0xff, int{'x'}, 0xc3}) text += answer.Push(id).text;
  EXPECT_EQ(text + answer.Close(AnswerEnd::kLength).text, "\uFFFDx");
}

}  // namespace
}  // namespace updraft
