// Our token ids against the references': llama.cpp's vocabulary tests, Hugging Face's tokenizers, and round trips over
// the published vocabularies.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "common/text/tokenizer.h"
#include "tests/common/text/reference_data.h"

namespace updraft::text {
namespace {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

TokenizerPtr Made(const absl::StatusOr<TokenizerPtr>& made) {
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *made : nullptr;
}

// The tokenizer keeps nothing of the file, so that it may be closed.
TokenizerPtr LoadVocabulary(const std::string& name) {
  const std::string path = ReferenceDir() + "/llamacpp_vocab_tests/ggml-vocab-" + name + ".gguf";
  const auto file = gguf::File::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? Made(Tokenizer::FromGguf(*file)) : nullptr;
}

// llama.cpp's test adds no bos or eos and does not parse special tokens.
constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};

void ExpectLlamaCppIds(const Tokenizer& tokenizer, const std::string& name) {
  const std::vector<ReferenceCase> cases = ReadLlamaCppCases(name);
  ASSERT_EQ(cases.size(), 46u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto ids = tokenizer.Encode(cases[i].text, kPlain);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, cases[i].ids) << name << ", text " << i << ": " << cases[i].text;
    EXPECT_EQ(tokenizer.Decode(*ids), cases[i].text) << name << ", text " << i;
  }
}

class LlamaCppVocabularyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(LlamaCppVocabularyTest, IdsAreEqual) {
  const std::string name = GetParam();
  UPDRAFT_NEED_REFERENCE("llamacpp_vocab_tests/ggml-vocab-" + name + ".gguf");
  const TokenizerPtr tokenizer = LoadVocabulary(name);
  ASSERT_NE(tokenizer, nullptr);
  ExpectLlamaCppIds(*tokenizer, name);
}

// Those that are small enough to lie beside the repository run; the others run wherever someone has put them.
INSTANTIATE_TEST_SUITE_P(Files, LlamaCppVocabularyTest,
                         ::testing::Values("gpt-2", "llama-spm", "phi-3", "deepseek-llm", "deepseek-coder", "falcon",
                                           "mpt", "refact", "starcoder", "command-r", "llama-bpe", "qwen2"),
                         [](const ::testing::TestParamInfo<const char*>& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(TiktokenVocabularyTest, Llama3IdsAreEqual) {
  UPDRAFT_NEED_REFERENCE("llama3_bpe/tokenizer.model");
  const TokenizerPtr tokenizer = Made(Tokenizer::FromParts(Llama3Parts()));
  ASSERT_NE(tokenizer, nullptr);
  ExpectLlamaCppIds(*tokenizer, "llama-bpe");
}

TEST(TiktokenVocabularyTest, Qwen2IdsAreEqual) {
  UPDRAFT_NEED_REFERENCE("qwen_bpe/qwen.tiktoken");
  const TokenizerPtr tokenizer = Made(Tokenizer::FromParts(Qwen2Parts()));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->SpecialTokenId("<|im_start|>"), 151644);
  ExpectLlamaCppIds(*tokenizer, "qwen2");
}

TEST(UnsupportedVocabularyTest, WordPieceIsRefusedByName) {
  UPDRAFT_NEED_REFERENCE("llamacpp_vocab_tests/ggml-vocab-bert-bge.gguf");
  const auto file = gguf::File::Open(ReferenceDir() + "/llamacpp_vocab_tests/ggml-vocab-bert-bge.gguf");
  ASSERT_TRUE(file.ok()) << file.status();
  const auto made = Tokenizer::FromGguf(*file);
  EXPECT_EQ(made.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(made.status().message().find("'bert'"), std::string::npos) << made.status();
}

// ---- Hugging Face -------------------------------------------------------------------------------------------------

void ExpectHuggingFaceIds(const Tokenizer& tokenizer, const std::string& model, const std::string& long_text_file) {
  const auto suites = nlohmann::json::parse(ReadReference("hf_expected/tokenizer_tests.json"));
  ASSERT_TRUE(suites.contains(model));
  for (const auto& c : suites[model]) {
    const std::string text = c["input"];
    const auto ids = tokenizer.Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, c["encoded"]["input_ids"].get<std::vector<int32_t>>()) << model << ": " << text;
    EXPECT_EQ(tokenizer.Decode(*ids), text) << model;
  }
  const auto long_text = nlohmann::json::parse(ReadReference("hf_expected/" + long_text_file));
  const std::string text = long_text["text"];
  const auto ids = tokenizer.Encode(text);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(*ids, long_text["token_ids"].get<std::vector<int32_t>>()) << model;
  EXPECT_EQ(tokenizer.Decode(*ids), text);
}

TEST(HuggingFaceTest, Gpt2) {
  UPDRAFT_NEED_REFERENCE("hf_expected/tokenizer_tests.json");
  const TokenizerPtr tokenizer = LoadVocabulary("gpt-2");
  ASSERT_NE(tokenizer, nullptr);
  ExpectHuggingFaceIds(*tokenizer, "distilgpt2", "gpt2_encoded_tokens.json");
}

TEST(HuggingFaceTest, Llama2) {
  UPDRAFT_NEED_REFERENCE("hf_expected/tokenizer_tests.json");
  const TokenizerPtr tokenizer = LoadVocabulary("llama-spm");
  ASSERT_NE(tokenizer, nullptr);
  ExpectHuggingFaceIds(*tokenizer, "coreml-projects/Llama-2-7b-chat-coreml", "llama_encoded.json");
}

TEST(HuggingFaceTest, Llama3) {
  UPDRAFT_NEED_REFERENCE("hf_expected/tokenizer_tests.json");
  const TokenizerPtr tokenizer = Made(Tokenizer::FromParts(Llama3Parts()));
  ASSERT_NE(tokenizer, nullptr);
  ExpectHuggingFaceIds(*tokenizer, "pcuenq/Llama-3.2-1B-Instruct-tokenizer", "llama_3.2_encoded.json");
}

// ---- GPT-2's own files --------------------------------------------------------------------------------------------

TEST(Gpt2FilesTest, VocabularyAndMergesMakeTheTokenizerOfTheGguf) {
  UPDRAFT_NEED_REFERENCE("gpt2_bpe/gpt2_vocab.json");
  TokenizerParts parts;
  parts.model = TokenizerModel::kByteLevelBpe;
  parts.pre = "gpt-2";
  const auto vocabulary = nlohmann::json::parse(ReadReference("gpt2_bpe/gpt2_vocab.json"));
  parts.tokens.resize(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) parts.tokens.at(id.get<size_t>()) = token;
  parts.types.assign(parts.tokens.size(), TokenType::kNormal);
  parts.types.back() = TokenType::kControl;
  parts.bos_id = parts.eos_id = static_cast<int32_t>(parts.tokens.size()) - 1;
  std::istringstream lines(ReadReference("gpt2_bpe/gpt2_merges.txt"));
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) parts.merges.push_back(line);
  }
  const TokenizerPtr from_files = Made(Tokenizer::FromParts(parts));
  const TokenizerPtr from_gguf = LoadVocabulary("gpt-2");
  ASSERT_NE(from_files, nullptr);
  ASSERT_NE(from_gguf, nullptr);
  EXPECT_EQ(from_files->fingerprint(), from_gguf->fingerprint());
  for (const char* file : {"address.txt", "german.txt", "corpus.en", "tinystories_sample.txt"}) {
    const std::string text = ReadReference(std::string("gpt2_bpe/") + file);
    ASSERT_FALSE(text.empty()) << file;
    const auto ids = from_files->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_LT(ids->size(), text.size() / 2) << file;  // it does merge
    EXPECT_EQ(from_files->Decode(*ids), text) << file;
  }
}

}  // namespace
}  // namespace updraft::text
