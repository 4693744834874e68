// What an adapter learns from: sheets, chats as a published tokenizer cuts them, and the recipe.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <string>

#include "deploy/train/adapter/chat_encoder.h"
#include "deploy/train/adapter/mixed_stream.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/adapter/sheets.h"

namespace updraft::train {
namespace {

// Bytes and three control tokens: every piece is its own bytes.
std::shared_ptr<const text::Tokenizer> ByteTokenizer() {
  text::TokenizerParts parts;
  parts.pre = "qwen2";
  for (int byte = 0; byte < 256; ++byte)
    parts.tokens.push_back(text::PrintableOfBytes(std::string(1, static_cast<char>(byte))));
  parts.types.assign(256, text::TokenType::kNormal);
  for (const char* name : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    parts.tokens.push_back(name);
    parts.types.push_back(text::TokenType::kControl);
  }
  parts.eos_id = 258;
  absl::StatusOr<std::shared_ptr<const text::Tokenizer>> tokenizer = text::Tokenizer::FromParts(parts);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *tokenizer;
}

cockpit::Example Line(const std::string& text) {
  cockpit::Example example;
  std::string kind;
  const absl::Status status = ReadSheetLine(text, &example, &kind);
  EXPECT_TRUE(status.ok()) << status;
  return example;
}

std::string TextOf(const text::Tokenizer& tokenizer, const Sequence& sequence, float weight) {
  std::string out;
  for (size_t i = 0; i < sequence.tokens.size(); ++i) {
    if (sequence.weights[i] == weight) out += tokenizer.TokenBytes(sequence.tokens[i], /*render_special=*/true);
  }
  return out;
}

constexpr const char* kVolume =
    R"({"kind":"levelless","messages":[{"role":"user","content":"louder"}],)"
    R"("answer":{"set":{"Vehicle.Cabin.Infotainment.Media.Volume":60},"adjust":{"Vehicle.Cabin.Infotainment.Media.Volume":"up"}}})";

TEST(SheetTest, AnswersBecomeTheAgreedForm) {
  EXPECT_EQ(Line(kVolume).answer, R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":60},"say":""})");
  EXPECT_EQ(Line(R"({"kind":"scope","messages":[{"role":"user","content":"x"}],"answer":{"refuse":true}})").answer,
            R"({"set":{},"refuse":true,"say":""})");
  EXPECT_EQ(Line(R"({"kind":"call","messages":[{"role":"user","content":"x"}],)"
                 R"("answer":{"call":{"name":"phone","contact":"Mo"},"partly":true}})")
                .answer,
            R"({"set":{},"call":{"name":"phone","contact":"Mo"},"say":""})");
  // What asks back has no place in that form yet.
  EXPECT_EQ(Line(R"({"kind":"direct","messages":[{"role":"user","content":"x"}],"answer":{"clarify":[]}})").answer, "");
}

TEST(SheetTest, RefusesWhatIsNoRequest) {
  for (const char* line :
       {"", "[]", "{}", R"({"kind":"direct","answer":{"refuse":true}})",
        R"({"kind":"direct","messages":[],"answer":{"refuse":true}})",
        R"({"kind":"direct","messages":[{"role":"user"}],"answer":{"refuse":true}})",
        R"({"kind":"direct","messages":[{"role":"user","content":"x"}],"answer":{"sett":{}}})",
        R"({"kind":"direct","messages":[{"role":"user","content":"x"}],"answer":{"set":{"Vehicle.Nothing":1}}})",
        R"({"kind":"direct","messages":[{"role":"user","content":"x"}],"answer":{"set":3}})"}) {
    cockpit::Example example;
    std::string kind;
    EXPECT_FALSE(ReadSheetLine(line, &example, &kind).ok()) << line;
  }
  EXPECT_EQ(ReadSheet("/nonexistent", "en1").status().code(), absl::StatusCode::kNotFound);
}

TEST(ChatEncoderTest, WhatIsLearned) {
  const auto tokenizer = ByteTokenizer();
  const absl::StatusOr<ChatEncoder> encoder = ChatEncoder::Create(tokenizer);
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  cockpit::Example example = Line(kVolume);
  example.turns = {{"user", "hot"}, {"assistant", "{}"}, {"user", "loud"}};
  // A written request ends where the reply would begin; the settings end with the word that opens it.
  absl::StatusOr<Sequence> sequence = encoder->Encode(example, {.reply = 0.5f, .question = 0.25f});
  ASSERT_TRUE(sequence.ok()) << sequence.status();
  EXPECT_EQ(TextOf(*tokenizer, *sequence, 1), R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":60},"say")");
  EXPECT_EQ(TextOf(*tokenizer, *sequence, 0.5f), ":\"");
  EXPECT_EQ(TextOf(*tokenizer, *sequence, 0.25f), "loud<|im_end|>");
  EXPECT_EQ(tokenizer->Decode(sequence->tokens, true).substr(0, 75),
            "<|im_start|>user\nhot<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n<|im_star");
  // A generated one has its reply, and its end.
  example.answer = R"({"set":{},"refuse":true,"say":"No."})";
  sequence = encoder->Encode(example, {.reply = 0.5f, .question = 0});
  ASSERT_TRUE(sequence.ok()) << sequence.status();
  EXPECT_EQ(TextOf(*tokenizer, *sequence, 1), R"({"set":{},"refuse":true,"say")");
  EXPECT_EQ(TextOf(*tokenizer, *sequence, 0.5f), R"(:"No."}<|im_end|>)");
  // Control tokens that a person writes stay text.
  example.turns = {{"user", "<|im_end|>"}};
  sequence = encoder->Encode(example, {});
  ASSERT_TRUE(sequence.ok()) << sequence.status();
  EXPECT_EQ(std::count(sequence->tokens.begin(), sequence->tokens.end(), encoder->end()), 2);
}

AdapterRecipe StreamRecipe() {
  AdapterRecipe recipe;
  recipe.batch_tokens = 4096;
  recipe.max_tokens = 700;
  recipe.sheets = {{"en0", 2}};
  recipe.generated_share = 0.9;
  recipe.english_share = 0.25;
  recipe.question_share = 0.5;
  return recipe;
}

TEST(MixedStreamTest, SharesAndExactResumption) {
  const absl::StatusOr<ChatEncoder> encoder = ChatEncoder::Create(ByteTokenizer());
  ASSERT_TRUE(encoder.ok());
  const AdapterRecipe recipe = StreamRecipe();
  std::vector<Sheet> sheets(1);
  for (int i = 0; i < 10; ++i) {
    sheets[0].examples.push_back(Line(kVolume));
    sheets[0].examples.back().turns[0].content = "louder " + std::to_string(i);
  }
  MixedStream stream(recipe, sheets, *encoder);
  int written = 0, asked = 0, all = 0;
  std::vector<Batch> tail;
  MixedStream::Place place;
  while (stream.place().pool < 2) {
    if (stream.place().pool == 1 && place.pool == 0) place = stream.place();
    const Batch batch = stream.Next();
    if (place.pool == 1) tail.push_back(batch);
    for (const Sequence& sequence : batch) {
      ++all;
      written += sequence.tokens.back() != encoder->end();  // ends before its reply
      asked += std::any_of(sequence.weights.begin(), sequence.weights.begin() + sequence.answer_begin,
                           [](float w) { return w > 0; });
    }
  }
  EXPECT_NEAR(static_cast<double>(written) / all, 0.1, 0.01);
  EXPECT_NEAR(static_cast<double>(asked) / all, 0.5, 0.04);  // 4096 draws: 5 deviations
  EXPECT_NEAR(stream.rounds(), 2 * 205 / 20.0, 1.0);
  MixedStream again(recipe, sheets, *encoder);
  again.Restore(place);
  for (const Batch& batch : tail) {
    const Batch repeated = again.Next();
    ASSERT_EQ(repeated.size(), batch.size());
    for (size_t i = 0; i < batch.size(); ++i) {
      EXPECT_EQ(repeated[i].tokens, batch[i].tokens);
      EXPECT_EQ(repeated[i].weights, batch[i].weights);
    }
  }
}

constexpr const char* kRecipe =
    R"({"name":"x","base":"b.gguf","adapter":{"rank":8,"targets":["attn_q"]},"updates":10,
        "sheets":{"en7":2},"held_out":["en8"],"generated":{"share":0.5,"english":1,"mix":{"slot":1}}})";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(AdapterRecipeTest, ReadsAndRefusesByName) {
  EXPECT_TRUE(IsAdapterRecipe(kRecipe));
  EXPECT_FALSE(IsAdapterRecipe(R"({"model":{}})"));
  EXPECT_FALSE(IsAdapterRecipe("["));
  const absl::StatusOr<AdapterRecipe> recipe = ParseAdapterRecipe(kRecipe);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(recipe->adapter.alpha, 16);
  EXPECT_EQ(recipe->adapter.targets, std::vector<std::string>{"attn_q"});
  EXPECT_EQ(recipe->mix[static_cast<int>(cockpit::Family::kMulti)], 0);
  const std::pair<const char*, const char*> changes[] = {{"\"name\"", "\"nmae\""},
                                                         {"b.gguf", ""},
                                                         {"\"rank\":8", "\"rank\":0"},
                                                         {"attn_q", "attn_z"},
                                                         {"\"updates\":10", "\"updates\":10,\"minutes\":3"},
                                                         {"\"updates\":10", "\"seed\":1"},
                                                         {"\"en7\":2", "\"en7\":0"},
                                                         {"\"en7\":2", "\"en8\":2"},
                                                         {"[\"en8\"]", "\"en8\""},
                                                         {"\"share\":0.5", "\"share\":2"},
                                                         {"{\"slot\":1}", "{\"slot\":0}"}};
  for (const auto& [from, to] : changes) {
    const absl::StatusOr<AdapterRecipe> bad = ParseAdapterRecipe(Replaced(kRecipe, from, to));
    EXPECT_FALSE(bad.ok()) << to;
    EXPECT_EQ(std::string(bad.status().message()).rfind("recipe: ", 0), 0u) << bad.status();
  }
}

// The recipes that stand beside the models can be read, and no sheet is on both sides.
TEST(AdapterRecipeTest, ShippedRecipesNameSheetsThatAreThere) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  if (source == nullptr) GTEST_SKIP() << "UPDRAFT_SOURCE_DIR is not set: run through ctest";
  int found = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(source) / "deploy/models")) {
    if (entry.path().filename().string().rfind("adapter", 0) != 0 || entry.path().extension() != ".json") continue;
    ++found;
    const absl::StatusOr<AdapterRecipe> recipe = ReadAdapterRecipe(entry.path().string());
    ASSERT_TRUE(recipe.ok()) << recipe.status();
    for (const auto& [name, times] : recipe->sheets) EXPECT_TRUE(ReadSheet(recipe->sheet_folder, name).ok()) << name;
    for (const std::string& name : recipe->held_out) EXPECT_TRUE(ReadSheet(recipe->sheet_folder, name).ok()) << name;
  }
  EXPECT_GT(found, 0);
}

}  // namespace
}  // namespace updraft::train
