// Parameters of 300 tools that people publish, of 71 projects (MCP servers, agents, benchmarks of calls), written again
// with the same structure and keywords and in other words: published_schemas.jsonl, whose field `after` says which.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/tools/call_grammar.h"
#include "nlohmann/json.hpp"
#include "tests/common/grammar/follow.h"
#include "tests/common/tools/formats.h"

namespace updraft::tools {
namespace {

// Where UPDRAFT_WRITE_TEXTS names a file, it gets {"schema", "text"} per line, for another validator to look at.
class PublishedSchemas : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
    std::ifstream in(absl::StrCat(root == nullptr ? "." : root, "/tests/common/tools/published_schemas.jsonl"));
    for (std::string line; std::getline(in, line);) tools_.push_back(nlohmann::ordered_json::parse(line));
    ASSERT_EQ(tools_.size(), 300u);
  }

  std::vector<nlohmann::ordered_json> tools_;
};

TEST_F(PublishedSchemas, MostCanBeFollowedToTheLetter) {
  const CallWish wish{.required = true, .name = {}, .one_call = true};
  std::ofstream texts;
  if (const char* path = std::getenv("UPDRAFT_WRITE_TEXTS")) texts.open(path);
  std::map<std::string, int> reasons;
  std::mt19937 random(17);
  int n_strict = 0, n_written = 0;
  for (const auto& tool : tools_) {
    CallableTool callable{tool["name"], tool["parameters"].dump(), /*strict=*/true};
    auto grammar = GrammarOfCalls(testing::Hermes(), {&callable, 1}, wish);
    if (!grammar.ok()) {
      const std::string message(grammar.status().message());
      EXPECT_EQ(message.rfind("tools[0].parameters: ", 0), 0u) << message;
      ++reasons[message.substr(0, 120)];
      // Served nevertheless, where it need not be to the letter.
      callable.strict = false;
      EXPECT_TRUE(grammar::CompiledGrammar::Compile(*GrammarOfCalls(testing::Hermes(), {&callable, 1}, wish)).ok());
      continue;
    }
    ++n_strict;
    const grammar::testing::Follower follower(grammar);
    for (int i = 0; i < 5; ++i) {
      const std::string begin = absl::StrCat("<tool_call>{\"name\":\"", callable.name, "\",\"arguments\":");
      const std::string text = Written(follower, begin, random);
      const size_t end = text.rfind("}");
      if (end == std::string::npos) continue;
      const std::string arguments = text.substr(begin.size(), end - begin.size());
      const auto json = nlohmann::json::parse(arguments, nullptr, /*allow_exceptions=*/false);
      EXPECT_TRUE(json.is_object()) << text;
      ++n_written;
      if (texts.is_open()) texts << nlohmann::json{{"schema", tool["parameters"]}, {"text", arguments}}.dump() << "\n";
    }
  }
  for (const auto& [reason, n] : reasons) std::cout << n << " x " << reason << "\n";
  std::cout << n_strict << " of " << tools_.size() << " followed to the letter; " << n_written << " calls written\n";
  EXPECT_GE(n_strict, 277);
  EXPECT_GT(n_written, 1000);
}

// As an agent has them: many tools at once.
TEST_F(PublishedSchemas, ManyTogether) {
  for (size_t begin = 0; begin < tools_.size(); begin += 40) {
    std::vector<CallableTool> together;
    for (size_t i = begin; i < std::min(begin + 40, tools_.size()); ++i) {
      together.push_back({tools_[i]["name"], tools_[i]["parameters"].dump()});
    }
    const auto grammar = GrammarOfCalls(testing::Hermes(), together, {});
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    const auto compiled = grammar::CompiledGrammar::Compile(*grammar);
    EXPECT_TRUE(compiled.ok()) << begin << ": " << compiled.status();
  }
}

}  // namespace
}  // namespace updraft::tools
