// llama.cpp's side of comparisons, by the scripts of this folder in the environment that make.sh makes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "tests/e2e/process.h"
#include "tests/oracles/packaged_model.h"

namespace updraft::testing {

inline const char* const kPrompts[] = {
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

// What the script prints on its last line, which begins with `begin`; null where it fails.
inline nlohmann::json AskLlama(const std::string& script, const nlohmann::json& job, const std::string& begin) {
  const std::string path = TempPath("job.json");
  std::ofstream(path) << job.dump();
  Process python({"/bin/sh", "-c",
                  "'" + (SourceFolder() / "build/oracles/bin/python").string() + "' '" +
                      (SourceFolder() / "tests/oracles" / script).string() + "' < '" + path + "'"});
  EXPECT_EQ(python.Wait(absl::Seconds(900)), 0) << python.Output();
  std::remove(path.c_str());
  const std::string output = python.Output();
  const size_t at = output.rfind(begin);
  EXPECT_NE(at, std::string::npos) << output;
  return at == std::string::npos ? nlohmann::json() : nlohmann::json::parse(output.substr(at));
}

// Greedy tokens of ours, as many as are asked for, end or not.
inline std::vector<int32_t> Greedy(const Model& model, const std::vector<int32_t>& prompt, int n_tokens) {
  auto pool = KvPool::Create(model.config(), {.n_blocks = 16}).value();
  Generator generator(&model, pool.get(), {});
  EXPECT_TRUE(generator.Prefill(prompt).ok());
  std::vector<int32_t> tokens;
  for (int i = 0; i < n_tokens; ++i) tokens.push_back(generator.Next().value().token);
  return tokens;
}

// Where the two first differ, how much likelier llama.cpp finds its own token than ours, in nats: beyond it the texts
// are others, and nothing is compared. nullopt: they do not differ.
inline std::optional<double> FirstGap(const std::vector<int32_t>& ours, const nlohmann::json& theirs) {
  for (size_t i = 0; i < ours.size() && i < theirs.size(); ++i) {
    if (ours[i] == theirs[i]["id"].get<int32_t>()) continue;
    const nlohmann::json& alternatives = theirs[i]["alternatives"];
    for (const nlohmann::json& other : alternatives) {
      if (other[0] == ours[i]) return alternatives[0][1].get<double>() - other[1].get<double>();
    }
    return 1e9;  // not among the likeliest
  }
  EXPECT_EQ(theirs.size(), ours.size());
  return std::nullopt;
}

inline double Largest(const std::vector<double>& gaps) {
  return gaps.empty() ? 0.0 : *std::max_element(gaps.begin(), gaps.end());
}

}  // namespace updraft::testing
