// Tokenizers out of GGUF files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/gguf/writer.h"
#include "common/text/tokenizer.h"
#include "tests/common/text/made_tokenizer.h"
#include "tests/common/text/small_vocab.h"

namespace updraft::text {
namespace {

class GgufFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::temp_directory_path() /
            ("updraft_tokenizer_" + std::to_string(getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".gguf");
  }
  void TearDown() override { std::filesystem::remove(path_); }

  // The tokenizer of a file with these parts, after `change`.
  absl::StatusOr<TokenizerPtr> Through(const TokenizerParts& parts,
                                       const std::function<void(gguf::Writer*)>& change = nullptr) {
    auto writer = gguf::Writer::Create(path_.string());
    if (!writer.ok()) return writer.status();
    const bool spm = parts.model == TokenizerModel::kSentencePieceBpe;
    writer->SetString("general.architecture", "llama");
    writer->SetString("tokenizer.ggml.model", spm ? "llama" : "gpt2");
    if (!spm && !parts.pre.empty()) writer->SetString("tokenizer.ggml.pre", parts.pre);
    writer->SetStrings("tokenizer.ggml.tokens", parts.tokens);
    Ids types;
    for (const TokenType type : parts.types) types.push_back(static_cast<int32_t>(type));
    writer->SetI32s("tokenizer.ggml.token_type", types);
    if (spm) writer->SetF32s("tokenizer.ggml.scores", parts.scores);
    if (!spm) writer->SetStrings("tokenizer.ggml.merges", parts.merges);
    const auto id = [&](const char* key, std::optional<int32_t> value) {
      if (value) writer->SetU32(key, static_cast<uint32_t>(*value));
    };
    id("tokenizer.ggml.bos_token_id", parts.bos_id);
    id("tokenizer.ggml.eos_token_id", parts.eos_id);
    id("tokenizer.ggml.unknown_token_id", parts.unk_id);
    id("tokenizer.ggml.padding_token_id", parts.pad_id);
    if (change) change(&*writer);
    if (const absl::Status done = writer->Finish(); !done.ok()) return done;
    const auto file = gguf::File::Open(path_.string());
    if (!file.ok()) return file.status();
    return Tokenizer::FromGguf(*file);
  }

  std::filesystem::path path_;
};

TEST_F(GgufFileTest, GivesTheSameTokenizer) {
  for (const TokenizerParts& parts : {SmallByteLevelParts(), SmallSentencePieceParts()}) {
    const auto made = Through(parts);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ((*made)->fingerprint(), Made(parts)->fingerprint());
    EXPECT_EQ(Encoded(**made, "hello the 我想"), Encoded(*Made(parts), "hello the 我想"));
  }
}

TEST_F(GgufFileTest, Phi3NamesStripSpaceAfterSpecialTokens) {
  const auto made =
      Through(SmallByteLevelParts(), [](gguf::Writer* w) { w->SetString("general.name", "Phi-3.5-mini"); });
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(Encoded(**made, "<|im_start|> \nhello", {.parse_special = true}).size(), 2u);
}

TEST_F(GgufFileTest, ErrorsNameTheFileAndTheKey) {
  const auto expect = [&](const std::function<void(gguf::Writer*)>& change, const char* says, absl::StatusCode code) {
    const auto made = Through(SmallByteLevelParts(), change);
    EXPECT_EQ(made.status().code(), code) << made.status();
    EXPECT_NE(made.status().message().find(says), std::string::npos) << made.status();
    EXPECT_NE(made.status().message().find(path_.filename().string()), std::string::npos) << made.status();
  };
  const auto invalid = absl::StatusCode::kInvalidArgument;
  expect([](gguf::Writer* w) { w->SetString("tokenizer.ggml.model", "rwkv"); }, "'rwkv'",
         absl::StatusCode::kUnimplemented);
  expect([](gguf::Writer* w) { w->SetString("tokenizer.ggml.pre", "viking"); }, "'viking'",
         absl::StatusCode::kUnimplemented);
  expect([](gguf::Writer* w) { w->SetString("tokenizer.ggml.eos_token_id", "</s>"); }, "eos_token_id", invalid);
  expect([](gguf::Writer* w) { w->SetString("tokenizer.ggml.merges", "x"); }, "tokenizer.ggml.merges", invalid);
  expect([](gguf::Writer* w) { w->SetI32s("tokenizer.ggml.token_type", Ids{}); }, "token_type", invalid);
}

// Published files have such ids; llama.cpp goes on without them since its pull request 3635.
TEST_F(GgufFileTest, SpecialIdsOutsideTheVocabularyAreLeftOutWithAWarning) {
  const char* const used[] = {"bos", "eos", "eot", "eom", "unknown", "padding"};
  const char* const unused[] = {"seperator", "separator", "cls",     "mask",    "prefix",  "suffix", "middle",
                                "fim_pre",   "fim_suf",   "fim_mid", "fim_pad", "fim_rep", "fim_sep"};
  std::vector<std::string> names(std::begin(used), std::end(used));
  names.insert(names.end(), std::begin(unused), std::end(unused));
  for (const TokenizerParts& parts : {SmallByteLevelParts(), SmallSentencePieceParts()}) {
    const auto n = static_cast<uint32_t>(parts.tokens.size());
    for (const std::string& name : names) {
      const std::string key = "tokenizer.ggml." + name + "_token_id";
      const std::function<void(gguf::Writer*)> changes[] = {
          [&](gguf::Writer* w) { w->SetU32(key, n); },
          [&](gguf::Writer* w) { w->SetU32(key, 0x80000000u); },
          [&](gguf::Writer* w) { w->SetU64(key, ~uint64_t{0}); },
          [&](gguf::Writer* w) { w->SetI32(key, -5); },
      };
      for (size_t i = 0; i < std::size(changes); ++i) {
        SCOPED_TRACE(key + ", change " + std::to_string(i));
        const auto made = Through(parts, changes[i]);
        ASSERT_TRUE(made.ok()) << made.status();
        ASSERT_EQ((*made)->warnings().size(), 1u);
        EXPECT_NE((*made)->warnings()[0].find(key), std::string::npos) << (*made)->warnings()[0];
        EXPECT_EQ(Encoded(**made, "hello the").empty(), false);
      }
      // In range, or none: nothing to warn of.
      for (const uint32_t id : {n - 1, ~uint32_t{0}}) {
        const auto made = Through(parts, [&](gguf::Writer* w) { w->SetU32(key, id); });
        ASSERT_TRUE(made.ok()) << made.status();
        EXPECT_TRUE((*made)->warnings().empty()) << (*made)->warnings()[0];
      }
    }
  }
}

TEST_F(GgufFileTest, WhatHasNoTokenIsNotAdded) {
  for (const std::string name : {"bos", "eos"}) {
    const auto made = Through(SmallByteLevelParts(), [&](gguf::Writer* w) {
      w->SetU32("tokenizer.ggml." + name + "_token_id", 1u << 20);
      w->SetBool("tokenizer.ggml.add_" + name + "_token", true);
    });
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ((*made)->warnings().size(), 2u);
    EXPECT_EQ(Encoded(**made, "hello").size(), 1u);
  }
}

TEST_F(GgufFileTest, AMissingNameOfThePreTokenizerIsAWarning) {
  TokenizerParts parts = SmallByteLevelParts();
  parts.pre = "default";
  const auto named = Through(parts);
  ASSERT_TRUE(named.ok()) << named.status();
  EXPECT_TRUE((*named)->warnings().empty());
  parts.pre.clear();
  const auto made = Through(parts);
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_EQ((*made)->warnings().size(), 1u);
  EXPECT_NE((*made)->warnings()[0].find("tokenizer.ggml.pre"), std::string::npos);
  EXPECT_EQ((*made)->fingerprint(), (*named)->fingerprint());
}

TEST_F(GgufFileTest, AFileWithoutATokenizerSaysSo) {
  auto writer = gguf::Writer::Create(path_.string());
  ASSERT_TRUE(writer.ok());
  writer->SetString("general.architecture", "llama");
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = gguf::File::Open(path_.string());
  ASSERT_TRUE(file.ok()) << file.status();
  const auto made = Tokenizer::FromGguf(*file);
  EXPECT_NE(made.status().message().find("tokenizer.ggml.model"), std::string::npos) << made.status();
}

}  // namespace
}  // namespace updraft::text
