#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "deploy/train/batches.h"
#include "deploy/train/bpe_trainer.h"
#include "deploy/train/encoder.h"

namespace updraft::train {
namespace {

std::string Decode(const BpeVocabulary& vocabulary, const std::vector<int32_t>& tokens) {
  std::string out;
  for (int32_t token : tokens) out += text::BytesOfPrintable(vocabulary.tokens[token]).value_or("?");
  return out;
}

TEST(BpeTest, MergesTheMostFrequentPairFirst) {
  const absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe({{"abab", 3}, {"abc", 2}, {"xy", 5}}, 256 + 3 + 3);
  ASSERT_TRUE(vocabulary.ok());
  ASSERT_EQ(vocabulary->merges.size(), 3u);
  EXPECT_EQ(vocabulary->merges[0], (std::pair<int32_t, int32_t>{'a', 'b'}));  // 8 times
  EXPECT_EQ(vocabulary->merges[1], (std::pair<int32_t, int32_t>{'x', 'y'}));  // 5
  EXPECT_EQ(vocabulary->merges[2], (std::pair<int32_t, int32_t>{256, 256}));  // 3
  EXPECT_EQ(vocabulary->tokens.back(), "<|im_end|>");
  EXPECT_EQ(vocabulary->im_end, 256 + 3 + 2);
}

TEST(BpeTest, StopsWhenNothingRepeats) {
  const absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe({{"abc", 1}}, 1000);
  ASSERT_TRUE(vocabulary.ok());
  EXPECT_TRUE(vocabulary->merges.empty());
  EXPECT_FALSE(TrainBpe({}, 10).ok());
}

TEST(BpeTest, RefusesMergesOfUnknownTokens) {
  EXPECT_FALSE(VocabularyFromMerges({{0, 256}}).ok());
  EXPECT_FALSE(VocabularyFromMerges({{-1, 5}}).ok());
  EXPECT_TRUE(VocabularyFromMerges({{1, 2}, {256, 3}}).ok());
}

TEST(EncoderTest, RoundTripAndMarks) {
  const absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe(CountPieces(1, 3000), 900);
  ASSERT_TRUE(vocabulary.ok());
  absl::StatusOr<Encoder> encoder = Encoder::Create(*vocabulary);
  ASSERT_TRUE(encoder.ok());
  cockpit::Generator generator(2, cockpit::Split::kTest);
  for (int i = 0; i < 300; ++i) {
    const cockpit::Example example = generator.Next();
    const Sequence sequence = encoder->EncodeExample(example);
    std::string expected;
    for (const cockpit::ChatTurn& turn : example.turns) {
      expected += "<|im_start|>" + turn.role + "\n" + turn.content + "<|im_end|>\n";
    }
    expected += "<|im_start|>assistant\n";
    const auto slice = [&](int32_t begin, int32_t end) {
      return Decode(*vocabulary, std::vector<int32_t>(sequence.tokens.begin() + begin, sequence.tokens.begin() + end));
    };
    EXPECT_EQ(slice(0, sequence.answer_begin), expected);
    EXPECT_EQ(slice(sequence.answer_begin, sequence.length()), example.answer + "<|im_end|>");
    // What counts ends where the reply begins, give or take the token that straddles the border.
    const std::string settings = slice(sequence.answer_begin, sequence.settings_end);
    const size_t border = example.answer.rfind(",\"say\":");
    EXPECT_GE(settings.size(), border);
    EXPECT_LE(settings.size(), border + 7);
    // Digits are never merged: the arithmetic depends on it.
    for (int32_t token : sequence.tokens) {
      const std::string bytes = text::BytesOfPrintable(vocabulary->tokens[token]).value_or("");
      if (bytes.size() > 1) {
        EXPECT_EQ(bytes.find_first_of("0123456789"), std::string::npos) << bytes;
      }
    }
  }
}

TEST(BatchStreamTest, RestoreContinuesInsideAPool) {
  absl::StatusOr<Encoder> encoder = Encoder::Create(*TrainBpe(CountPieces(1, 500), 500));
  ASSERT_TRUE(encoder.ok());
  BatchStream a(4, cockpit::kEvenMix, 2048, &*encoder);
  for (int taken : {0, 1, 37, 400}) {
    for (int i = 0; i < taken; ++i) a.Next();
    BatchStream b(4, cockpit::kEvenMix, 2048, &*encoder);
    b.Restore(a.place());
    for (int i = 0; i < 5; ++i) {
      const Batch x = a.Next(), y = b.Next();
      ASSERT_EQ(x.size(), y.size());
      for (size_t row = 0; row < x.size(); ++row) EXPECT_EQ(x[row].tokens, y[row].tokens);
    }
  }
}

TEST(BatchStreamTest, BatchesKeepTheirBudget) {
  absl::StatusOr<Encoder> encoder = Encoder::Create(*TrainBpe(CountPieces(1, 500), 500));
  ASSERT_TRUE(encoder.ok());
  BatchStream stream(4, cockpit::kEvenMix, 1500, &*encoder);
  for (int i = 0; i < 200; ++i) {
    const Batch batch = stream.Next();
    int32_t longest = 0;
    for (const Sequence& sequence : batch) longest = std::max(longest, sequence.length());
    EXPECT_TRUE(batch.size() == 1 || batch.size() * static_cast<size_t>(longest) <= 1500u);
  }
}

}  // namespace
}  // namespace updraft::train
