#include "deploy/train/recipe.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "common/files/read_file.h"
#include "deploy/train/adapter/recipe.h"

namespace updraft::train {
namespace {

constexpr const char* kGood =
    R"({"name":"x","vocabulary":400,"tokenizer_examples":10,
        "model":{"layers":4,"width":64,"heads":2,"kv_heads":1,"feed_forward":96,"exits":[2]},
        "exit_thresholds":[0.9],
        "steps":[{"name":"a","tokens":1000,"learning_rate":0.001,"matrices":"q4_0","mix":{"slot":2,"scope":1}}]})";

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(RecipeTest, ReadsEveryPart) {
  const absl::StatusOr<Recipe> recipe = ParseRecipe(kGood);
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  EXPECT_EQ(recipe->model.layers, 4);
  EXPECT_EQ(recipe->model.exits, std::vector<int>{2});
  ASSERT_EQ(recipe->steps.size(), 1u);
  EXPECT_EQ(recipe->steps[0].matrices, WeightType::kQ4_0);
  EXPECT_EQ(recipe->steps[0].mix[static_cast<int>(cockpit::Family::kSlot)], 2);
  EXPECT_EQ(recipe->steps[0].mix[static_cast<int>(cockpit::Family::kMulti)], 0);
}

TEST(RecipeTest, SheetsOfWrittenRequests) {
  const absl::StatusOr<Recipe> recipe =
      ParseRecipe(Replaced(Replaced(kGood, "\"name\":\"x\"", "\"sheets\":{\"en1\":1,\"zh2\":3},\"sheet_folder\":\"w\""),
                           "\"learning_rate\":0.001", "\"learning_rate\":0.001,\"written\":0.5"));
  ASSERT_TRUE(recipe.ok()) << recipe.status();
  const std::vector<std::pair<std::string, int>> sheets = {{"en1", 1}, {"zh2", 3}};
  EXPECT_EQ(recipe->sheets, sheets);
  EXPECT_EQ(recipe->sheet_folder, "w");
  EXPECT_EQ(recipe->steps[0].written, 0.5);
}

TEST(RecipeTest, RefusesByName) {
  const std::pair<const char*, const char*> changes[] = {
      {"\"name\":\"x\"", "\"nmae\":\"x\""},
      {"\"layers\":4", "\"layers\":0"},
      {"\"layers\":4", "\"layers\":2.5"},
      {"\"width\":64", "\"width\":66"},
      {"\"kv_heads\":1", "\"kv_heads\":3"},
      {"\"exits\":[2]", "\"exits\":[4]"},
      {"[0.9]", "[]"},
      {"\"tokens\":1000", "\"tokens\":-1"},
      {"\"tokens\":1000", "\"tokens\":\"many\""},
      {"\"q4_0\"", "\"q9\""},
      {"\"slot\":2", "\"slots\":2"},
      {"\"vocabulary\":400", "\"vocabulary\":4"},
      {"\"learning_rate\":0.001", "\"distill\":0.5"},
      {"\"learning_rate\":0.001", "\"learning_rate\":0.001,\"written\":0.5"},
      {"\"name\":\"x\"", "\"sheets\":[\"en1\"]"},
      {"\"name\":\"x\"", "\"sheets\":{\"en1\":0}"}};
  for (const auto& [from, to] : changes) {
    const absl::StatusOr<Recipe> recipe = ParseRecipe(Replaced(kGood, from, to));
    EXPECT_FALSE(recipe.ok()) << to;
    EXPECT_EQ(std::string(recipe.status().message()).rfind("recipe: ", 0), 0u) << recipe.status();
  }
  EXPECT_FALSE(ParseRecipe("").ok());
  EXPECT_FALSE(ParseRecipe("[]").ok());
  EXPECT_FALSE(ParseRecipe("{\"steps\":3}").ok());
  EXPECT_EQ(ReadRecipe("/nonexistent.json").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadRecipe("/").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RecipeTest, CommittedRecipesParse) {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  if (root == nullptr) GTEST_SKIP() << "UPDRAFT_SOURCE_DIR is not set: run through ctest";
  int n_recipes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(root) + "/deploy/models")) {
    if (!entry.path().string().ends_with(".recipe.json")) continue;
    const absl::StatusOr<std::string> text = ReadFile(entry.path());
    if (text.ok() && IsAdapterRecipe(*text)) continue;  // adapter_data_test.cc
    ++n_recipes;
    const absl::StatusOr<Recipe> recipe = ReadRecipe(entry.path());
    EXPECT_TRUE(recipe.ok()) << entry.path() << ": " << recipe.status();
  }
  EXPECT_GE(n_recipes, 2);
}

}  // namespace
}  // namespace updraft::train
