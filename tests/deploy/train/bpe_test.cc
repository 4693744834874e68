#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
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

// A word comes apart in the same way behind a space, a quote or nothing; the prefix joins it only when it is one token.
TEST(BpeTest, PrefixesDoNotChangeHowWordsComeApart) {
  const absl::StatusOr<BpeVocabulary> vocabulary =
      TrainBpe({{" the", 50}, {" there", 4}, {"the", 3}, {"\"there", 2}, {" thorn", 2}}, 256 + 3 + 8, 0.5);
  ASSERT_TRUE(vocabulary.ok());
  for (const auto& [left, right] : vocabulary->merges) {
    EXPECT_NE(right, ' ');
    if (left != ' ' && left != '"') continue;
    const std::string word = text::BytesOfPrintable(vocabulary->tokens[right]).value_or("?");
    EXPECT_TRUE(word == "the" || word == "there") << word;
  }
  const auto has = [&](const char* token) {
    return std::find(vocabulary->tokens.begin(), vocabulary->tokens.end(), text::PrintableOfBytes(token)) !=
           vocabulary->tokens.end();
  };
  EXPECT_TRUE(has(" the"));
  EXPECT_FALSE(has(" t"));
}

TEST(BpeTest, CharactersBecomeWholeTokens) {
  const PieceCounts pieces = {
      {"\u5510\u5148\u751f", 5}, {"\u5510\u53e4", 4}, {"\u738b", 3}, {"\u53e4", 1}, {"\u9f98", 1}};
  const absl::StatusOr<BpeVocabulary> bare = VocabularyFromMerges({});
  const absl::StatusOr<BpeVocabulary> whole = WithWholeCharacters(*bare, pieces, 1000);
  ASSERT_TRUE(whole.ok());
  const auto has = [&](const char* token) {
    return std::find(whole->tokens.begin(), whole->tokens.end(), text::PrintableOfBytes(token)) != whole->tokens.end();
  };
  for (const char* character : {"\u5510", "\u5148", "\u751f", "\u53e4", "\u738b"})
    EXPECT_TRUE(has(character)) << character;
  EXPECT_FALSE(has("\u9f98"));  // seen once
  EXPECT_FALSE(has("\u5510\u5148"));
  // Again, nothing is missing; with little room, the most frequent come first.
  EXPECT_EQ(WithWholeCharacters(*whole, pieces, 1000)->merges, whole->merges);
  EXPECT_EQ(WithWholeCharacters(*bare, pieces, 256 + 3 + 2)->tokens[257], text::PrintableOfBytes("\u5510"));
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

// What an answer copies has the same tokens there as in the request, but for a prefix on the first.
TEST(EncoderTest, NamesHaveTheSameTokensInRequestAndAnswer) {
  const absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe(CountPieces(1, 6000), 1500);
  ASSERT_TRUE(vocabulary.ok());
  absl::StatusOr<Encoder> encoder = Encoder::Create(*vocabulary);
  ASSERT_TRUE(encoder.ok());
  const auto tokens = [&](const std::string& text) {
    std::vector<int32_t> out;
    encoder->AppendText(text, &out);
    return out;
  };
  int names = 0, copied = 0;
  cockpit::Generator generator(3, cockpit::Split::kTest);
  for (int i = 0; i < 6000; ++i) {
    const cockpit::Example example = generator.Next(cockpit::Family::kSlot);
    const nlohmann::json answer = nlohmann::json::parse(example.answer);
    if (!answer.contains("call")) continue;
    for (const char* key : {"to", "contact", "title"}) {
      if (!answer["call"].contains(key)) continue;
      const auto name = answer["call"][key].get<std::string>();
      const std::vector<int32_t> in_answer = tokens("\"" + name + "\"");
      const std::vector<int32_t> in_request = tokens(example.turns.back().content);
      if (in_answer.size() < 5) continue;
      // Without the quotes and the first and last token, which may hold a prefix or a comma.
      const std::vector<int32_t> inner(in_answer.begin() + 2, in_answer.end() - 2);
      ++names;
      copied += std::search(in_request.begin(), in_request.end(), inner.begin(), inner.end()) != in_request.end();
    }
  }
  ASSERT_GT(names, 300);
  EXPECT_GT(copied, names * 98 / 100) << copied << " of " << names;  // the rest: words that happen to run together
}

TEST(BatchStreamTest, RestoreContinuesInsideAPool) {
  absl::StatusOr<Encoder> encoder = Encoder::Create(*TrainBpe(CountPieces(1, 500), 500));
  ASSERT_TRUE(encoder.ok());
  BatchStream a(4, cockpit::kEvenMix, 2048, 1024, &*encoder);
  for (int taken : {0, 1, 37, 400}) {
    for (int i = 0; i < taken; ++i) a.Next();
    BatchStream b(4, cockpit::kEvenMix, 2048, 1024, &*encoder);
    b.Restore(a.place());
    for (int i = 0; i < 5; ++i) {
      const Batch x = a.Next(), y = b.Next();
      ASSERT_EQ(x.size(), y.size());
      for (size_t row = 0; row < x.size(); ++row) EXPECT_EQ(x[row].tokens, y[row].tokens);
    }
  }
}

TEST(BatchStreamTest, WrittenRequestsComeInTheirShareAndEndBeforeTheReply) {
  std::vector<cockpit::Example> lines(3);
  for (size_t i = 0; i < lines.size(); ++i) {
    lines[i].turns = {{"user", "written by hand " + std::string(1, static_cast<char>('a' + i))}};
    lines[i].answer = R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":3},"say":""})";
  }
  absl::StatusOr<Encoder> encoder = Encoder::Create(*TrainBpe(CountPieces(1, 500, lines), 500));
  ASSERT_TRUE(encoder.ok());
  std::vector<std::vector<int32_t>> whole;
  for (const cockpit::Example& line : lines) {
    const Sequence sequence = encoder->EncodeExample(line);
    ASSERT_LT(sequence.settings_end, sequence.length());
    whole.push_back({sequence.tokens.begin(), sequence.tokens.begin() + sequence.settings_end});
  }
  const cockpit::LineVariation variation(lines);
  const WrittenShare written{.lines = &variation, .share = 0.25};
  BatchStream stream(4, cockpit::kEvenMix, 2048, 1024, &*encoder, written);
  std::vector<int> found(lines.size());
  int all = 0;
  while (all < 2048) {  // a pool
    for (const Sequence& sequence : stream.Next()) {
      ++all;
      for (size_t i = 0; i < whole.size(); ++i) found[i] += sequence.tokens == whole[i] ? 1 : 0;
    }
  }
  // Binomial: 2,048 draws, a quarter of them written, a third of those each line; five deviations.
  for (int count : found) EXPECT_NEAR(count, 2048 / 12.0, 5 * std::sqrt(2048 / 12.0)) << "of " << all;
  for (int i = 0; i < 5; ++i) stream.Next();
  BatchStream again(4, cockpit::kEvenMix, 2048, 1024, &*encoder, written);
  again.Restore(stream.place());
  for (int i = 0; i < 5; ++i) {
    const Batch x = stream.Next(), y = again.Next();
    ASSERT_EQ(x.size(), y.size());
    for (size_t row = 0; row < x.size(); ++row) EXPECT_EQ(x[row].tokens, y[row].tokens);
  }
}

TEST(BatchStreamTest, BatchesKeepTheirBudget) {
  absl::StatusOr<Encoder> encoder = Encoder::Create(*TrainBpe(CountPieces(1, 500), 500));
  ASSERT_TRUE(encoder.ok());
  BatchStream stream(4, cockpit::kEvenMix, 1500, 1024, &*encoder);
  for (int i = 0; i < 200; ++i) {
    const Batch batch = stream.Next();
    int32_t longest = 0;
    for (const Sequence& sequence : batch) longest = std::max(longest, sequence.length());
    EXPECT_TRUE(batch.size() == 1 || batch.size() * static_cast<size_t>(longest) <= 1500u);
  }
}

}  // namespace
}  // namespace updraft::train
