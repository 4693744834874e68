// Whole training runs of a tiny model: resumption to the bit, the file that comes out, what starts from it.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "deploy/train/encoder.h"
#include "deploy/train/gguf_model.h"
#include "deploy/train/trainer.h"

namespace updraft::train {
namespace {

std::string Folder() {
  const std::string folder = testing::TempDir() + "/updraft_train_run_test";
  std::filesystem::create_directories(folder);
  return folder;
}

std::string Bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

Recipe TinyRecipe(int layers = 3, const std::string& extra_step = "") {
  const std::string text =
      R"({"name":"tiny","seed":3,"vocabulary":400,"tokenizer_examples":300,"check_examples":12,
          "model":{"layers":)" +
      std::to_string(layers) + R"(,"width":64,"heads":2,"kv_heads":1,"feed_forward":96,
          "context":768,"exits":[1]},"exit_thresholds":[0.95],
          "steps":[{"name":"a","tokens":3000,"warmup_tokens":500,"batch_tokens":512,"learning_rate":0.003,"exit_weight":0.3},
                   {"name":"b","tokens":3000,"decay_tokens":3000,"batch_tokens":512,"learning_rate":0.001,
                    "matrices":"q4_0","embedding":"q8_0")" +
      extra_step + R"(}],
          "file_matrices":"q4_0","file_embedding":"q8_0"})";
  absl::StatusOr<Recipe> recipe = ParseRecipe(text);
  EXPECT_TRUE(recipe.ok()) << recipe.status();
  return *std::move(recipe);
}

TrainOptions Quiet(const std::string& out) {
  TrainOptions options;
  options.out = out;
  options.quiet = true;
  return options;
}

TEST(TrainRunTest, ResumedRunEqualsAnUnbrokenOne) {
  const Recipe recipe = TinyRecipe();
  const std::string whole = Folder() + "/whole.gguf", broken = Folder() + "/broken.gguf";
  for (const std::string& file : {whole, broken}) std::filesystem::remove(file);  // of an earlier run of this test
  ASSERT_TRUE(Train(recipe, Quiet(whole)).ok());
  TrainOptions options = Quiet(broken);
  options.stop_after_updates = 4;
  ASSERT_TRUE(Train(recipe, options).ok());
  EXPECT_FALSE(std::filesystem::exists(broken));
  options.resume = true;
  options.stop_after_updates = 5;  // across the border of the two steps
  ASSERT_TRUE(Train(recipe, options).ok());
  options.stop_after_updates = 0;
  ASSERT_TRUE(Train(recipe, options).ok());
  EXPECT_TRUE(Bytes(whole) == Bytes(broken));
}

TEST(TrainRunTest, FileHoldsTheRoundedModel) {
  const Recipe recipe = TinyRecipe();
  absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe(CountPieces(1, 300), 400);
  ASSERT_TRUE(vocabulary.ok());
  Transformer model(recipe.model, static_cast<int32_t>(vocabulary->tokens.size()), 5, torch::kCPU);
  const std::string path = Folder() + "/rounded.gguf";
  ASSERT_TRUE(WriteModel(path, recipe, {"0123", 3, 1000, 1}, *vocabulary, &model).ok());
  const absl::StatusOr<LoadedModel> loaded = ReadModel(path, torch::kCPU);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->vocabulary.tokens, vocabulary->tokens);
  EXPECT_EQ(loaded->model->shape().exits, recipe.model.exits);
  for (auto& [name, tensor] : model.parameters()) {
    const WeightType type = tensor.dim() == 1             ? WeightType::kF32
                            : name == "token_embd.weight" ? WeightType::kQ8_0
                                                          : WeightType::kQ4_0;
    // The rounding that training adapts to is the rounding of the file's encoder.
    EXPECT_TRUE(torch::equal(Rounded(tensor.detach(), type), loaded->model->Get(name))) << name;
  }
  // So the logits agree too: the model that rounds while it computes, and the one that was read back.
  torch::NoGradGuard no_gradient;
  model.set_products_in_bf16(false);
  model.set_rounding(WeightType::kQ4_0, WeightType::kQ8_0);
  loaded->model->set_products_in_bf16(false);
  const torch::Tensor tokens = torch::arange(40).reshape({2, 20}), selected = torch::arange(40);
  const Transformer::Output a = model.Forward(tokens, selected), b = loaded->model->Forward(tokens, selected);
  EXPECT_LT((a.logits - b.logits).abs().max().item<float>(), 1e-5f);
  EXPECT_LT((a.exits[0] - b.exits[0]).abs().max().item<float>(), 1e-5f);
}

TEST(TrainRunTest, StartsFromAFileAndLearnsFromATeacher) {
  const std::string teacher = Folder() + "/teacher.gguf", student = Folder() + "/student.gguf";
  ASSERT_TRUE(Train(TinyRecipe(), Quiet(teacher)).ok());
  Recipe recipe = TinyRecipe(2);
  recipe.teacher = recipe.init_from = teacher;
  for (TrainStep& step : recipe.steps) step.distill = 0.5, step.temperature = 2;
  const absl::Status status = Train(recipe, Quiet(student));
  ASSERT_TRUE(status.ok()) << status;
  const absl::StatusOr<LoadedModel> loaded = ReadModel(student, torch::kCPU);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->model->shape().layers, 2);
  EXPECT_EQ(loaded->vocabulary.merges, ReadModel(teacher, torch::kCPU)->vocabulary.merges);
}

TEST(TrainRunTest, KeepsAShareOfTheStart) {
  Recipe recipe = TinyRecipe();
  recipe.file_matrices = recipe.file_embedding = WeightType::kF16;
  recipe.steps.pop_back();  // rounds to few bits
  const std::string begun = Folder() + "/begun.gguf";
  ASSERT_TRUE(Train(recipe, Quiet(begun)).ok());
  recipe.init_from = begun;
  recipe.vocabulary = 0;  // the start's as it is, so that row by row the two are of the same tokens
  recipe.steps[0].learning_rate = 0.01;
  const auto trained = [&](double keep_start) {
    recipe.keep_start = keep_start;
    const std::string path = Folder() + "/kept.gguf";
    const absl::Status status = Train(recipe, Quiet(path));
    EXPECT_TRUE(status.ok()) << status;
    return *ReadModel(path, torch::kCPU);
  };
  const LoadedModel start = *ReadModel(begun, torch::kCPU), none = trained(0), quarter = trained(0.25),
                    all = trained(1);
  // Of another file: all of it is that file.
  const std::string kept_from = Folder() + "/kept_from.gguf";
  trained(0);
  std::filesystem::rename(Folder() + "/kept.gguf", kept_from);
  recipe.keep_from = kept_from;
  const LoadedModel whole = trained(1);
  torch::NoGradGuard no_gradient;
  double moved = 0;
  for (auto& [name, tensor] : none.model->parameters()) {
    const torch::Tensor from = start.model->Get(name);
    EXPECT_TRUE(torch::equal(all.model->Get(name), from)) << name;
    const torch::Tensor blend = tensor + 0.25 * (from - tensor);
    // Each of the three was rounded to f16 once, 2^-11 of its size.
    const double limit =
        3 * std::ldexp(1.0, -11) * std::max(tensor.abs().max().item<double>(), from.abs().max().item<double>());
    EXPECT_LE((quarter.model->Get(name) - blend).abs().max().item<double>(), limit) << name;
    moved += (tensor - from).abs().max().item<double>();
  }
  EXPECT_GT(moved, 0.01) << "there was something to blend";
  for (auto& [name, tensor] : whole.model->parameters()) EXPECT_TRUE(torch::equal(tensor, none.model->Get(name)));
}

TEST(TrainRunTest, ALargerVocabularyKeepsWhatWasLearned) {
  const Recipe recipe = TinyRecipe();
  const std::string path = Folder() + "/to_grow.gguf";
  ASSERT_TRUE(Train(recipe, Quiet(path)).ok());
  const absl::StatusOr<LoadedModel> small = ReadModel(path, torch::kCPU);
  ASSERT_TRUE(small.ok());
  const absl::StatusOr<BpeVocabulary> larger = WithWholeCharacters(
      small->vocabulary, CountPieces(1, 300), static_cast<int32_t>(small->vocabulary.tokens.size()) + 50);
  ASSERT_TRUE(larger.ok());
  ASSERT_EQ(larger->merges.size(), small->vocabulary.merges.size() + 50);
  const LoadedModel grown = WithVocabulary(*small, *larger);
  // On a text of old tokens alone, the old tokens have the same logits.
  torch::NoGradGuard no_gradient;
  torch::manual_seed(5);
  const torch::Tensor tokens = torch::randint(0, 300, {2, 20}, torch::kInt64), places = torch::arange(40);
  const int64_t kept = 256 + static_cast<int64_t>(small->vocabulary.merges.size());
  const torch::Tensor before = small->model->Forward(tokens, places).logits;
  const torch::Tensor after = grown.model->Forward(tokens, places).logits;
  // Products of another shape are summed in another order.
  const auto distance = [](const torch::Tensor& a, const torch::Tensor& b) {
    return (a - b).abs().max().item<double>() / a.abs().max().item<double>();
  };
  EXPECT_LE(distance(before.slice(1, 0, kept), after.slice(1, 0, kept)), 1e-5);
  EXPECT_LE(distance(before.select(1, small->vocabulary.im_end), after.select(1, larger->im_end)), 1e-5);
}

TEST(TrainRunTest, ExamplesBeyondTheContextAreLeftOut) {
  Recipe recipe = TinyRecipe();
  recipe.model.context = 100;
  const std::string path = Folder() + "/short.gguf";
  ASSERT_TRUE(Train(recipe, Quiet(path)).ok());
  recipe.model.context = 8;
  const absl::Status status = Train(recipe, Quiet(path));
  EXPECT_NE(status.message().find("context of 8 tokens"), absl::string_view::npos) << status;
}

TEST(TrainRunTest, ADivergedRunStopsAndSaysSo) {
  Recipe recipe = TinyRecipe();
  for (TrainStep& step : recipe.steps) step.learning_rate = 1e30, step.warmup_tokens = 0;
  const std::string path = Folder() + "/diverged.gguf";
  std::filesystem::remove(path);
  const absl::Status status = Train(recipe, Quiet(path));
  EXPECT_NE(status.message().find("lower its learning_rate"), absl::string_view::npos) << status;
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(TrainRunTest, SaysWhatIsWrong) {
  Recipe recipe = TinyRecipe();
  TrainOptions options = Quiet(Folder() + "/nothing.gguf");
  options.resume = true;
  EXPECT_EQ(Train(recipe, options).code(), absl::StatusCode::kNotFound);
  options.resume = false;
  recipe.init_from = "/nonexistent.gguf";
  EXPECT_FALSE(Train(recipe, options).ok());
  // A checkpoint of another model.
  options.out = Folder() + "/other.gguf";
  options.stop_after_updates = 1;
  ASSERT_TRUE(Train(TinyRecipe(3), options).ok());
  options.resume = true;
  EXPECT_EQ(Train(TinyRecipe(4), options).code(), absl::StatusCode::kFailedPrecondition);
  // A checkpoint cut short.
  std::filesystem::resize_file(options.out + ".checkpoint",
                               std::filesystem::file_size(options.out + ".checkpoint") - 100);
  EXPECT_EQ(Train(TinyRecipe(3), options).code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace updraft::train
