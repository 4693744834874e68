// Adapters over a small base: forward pass, gradients, the file, whole runs.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "common/model/model.h"
#include "deploy/train/adapter/adapted_model.h"
#include "deploy/train/adapter/base.h"
#include "deploy/train/adapter/lora_file.h"
#include "deploy/train/adapter/trainer.h"
#include "deploy/train/encoder.h"
#include "deploy/train/fused_linear.h"
#include "tests/common/model/test_models.h"

namespace updraft::train {
namespace {

std::string Folder() {
  const std::string folder = ::testing::TempDir() + "/updraft_adapter_test";
  std::filesystem::create_directories(folder);
  return folder;
}

std::string Bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

constexpr int32_t kTokens = 250;  // fewer than any vocabulary of this trainer has

// A base of this trainer's own making: two layers, grouped heads.
std::string TinyBase() {
  static const std::string path = [] {
    Recipe recipe;
    recipe.name = "tiny";
    recipe.model.layers = 2;
    recipe.model.width = 64;
    recipe.model.heads = 2;
    recipe.model.kv_heads = 1;
    recipe.model.feed_forward = 96;
    recipe.file_matrices = recipe.file_embedding = WeightType::kF32;
    const absl::StatusOr<BpeVocabulary> vocabulary = TrainBpe(CountPieces(1, 300), 400);
    EXPECT_TRUE(vocabulary.ok());
    Transformer model(recipe.model, static_cast<int32_t>(vocabulary->tokens.size()), 5, torch::kCPU);
    const std::string out = Folder() + "/base.gguf";
    EXPECT_TRUE(WriteModel(out, recipe, {"0123", 3, 1000, 1}, *vocabulary, &model).ok());
    return out;
  }();
  return path;
}

Base OpenBase() {
  absl::StatusOr<Base> base = ReadBase(TinyBase(), "", 1024);
  EXPECT_TRUE(base.ok()) << base.status();
  return *std::move(base);
}

LoraShape Shape(int rank = 4) {
  LoraShape shape;
  shape.rank = rank;
  shape.alpha = 2 * rank;
  shape.targets = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  return shape;
}

// An adapter that does something: B is not zero.
void Randomize(NamedTensors* tensors) {
  torch::manual_seed(17);
  for (auto& [name, tensor] : *tensors) tensor.copy_(torch::randn(tensor.sizes()) * 0.1);
}

LossBatch RandomBatch() {
  torch::manual_seed(23);
  LossBatch batch;
  batch.tokens = torch::randint(0, kTokens, {3, 20}, torch::kInt64);
  batch.selected = torch::arange(2, 60, 2);
  batch.targets = torch::randint(0, kTokens, {batch.selected.size(0)}, torch::kInt64);
  batch.weights = torch::rand({batch.selected.size(0)});
  return batch;
}

// One sequence, every position.
LossBatch Whole(const std::vector<int32_t>& tokens) {
  LossBatch batch;
  batch.tokens = torch::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())).unsqueeze(0);
  batch.selected = torch::arange(static_cast<int64_t>(tokens.size()));
  return batch;
}

double RelativeError(const torch::Tensor& got, const torch::Tensor& want) {
  return ((got - want).norm() / want.norm()).item<double>();
}

TEST(AdaptedModelTest, BaseComputesWhatTheRuntimeDoes) {
  Base base = OpenBase();
  AdaptedModel model(&base, Shape(), 1, /*bf16=*/false);
  model.Merge(1);
  absl::StatusOr<std::unique_ptr<Model>> runtime = Model::Load(TinyBase(), {.n_threads = 1});
  ASSERT_TRUE(runtime.ok()) << runtime.status();
  const std::vector<int32_t> tokens = updraft::testing::RandomTokens(40, kTokens, 3);
  const std::vector<float> logits =
      updraft::testing::LogitsOf(**runtime, updraft::testing::HiddenOf(**runtime, tokens));
  const torch::Tensor got = model.Logits(Whole(tokens));
  const torch::Tensor want = torch::tensor(logits).view(got.sizes());
  // Sums are f32 on both sides (2^-20); the runtime rounds keys and values to half precision, 2^-11 of each, in two
  // layers, and a factor of 2 covers what softmax and SwiGLU amplify.
  EXPECT_LT(RelativeError(got, want), 2 * std::sqrt(2.0 * 2.0) * 0x1p-11);
}

TEST(AdaptedModelTest, MergedIsTheSumOfBothWays) {
  Base base = OpenBase();
  Transformer plain = *base.model;  // matrices of the base, before they are taken over
  AdaptedModel model(&base, Shape(), 1, /*bf16=*/false);
  Randomize(&model.parameters());
  model.Merge(2);
  plain.set_products_in_bf16(false);
  const auto find = [&](const std::string& name) {
    for (const auto& [known, tensor] : model.parameters()) {
      if (known == name) return tensor;
    }
    return torch::Tensor();
  };
  plain.set_projection([&](const std::string& first, const torch::Tensor& x) {
    const std::string block = first.substr(0, first.find('.', 4) + 1);
    std::vector<std::string> names = {first};
    if (first.ends_with("attn_q.weight")) names = {first, block + "attn_k.weight", block + "attn_v.weight"};
    if (first.ends_with("ffn_gate.weight")) names = {first, block + "ffn_up.weight"};
    std::vector<torch::Tensor> parts;
    for (const std::string& name : names) {
      const torch::Tensor low = torch::linear(torch::linear(x, find(name + ".lora_a")), find(name + ".lora_b"));
      parts.push_back(torch::linear(x, plain.Get(name)) + 2.0 * low);
    }
    return torch::cat(parts, -1);
  });
  const LossBatch batch = Whole(updraft::testing::RandomTokens(30, kTokens, 4));
  const torch::Tensor want = plain.Forward(batch.tokens, batch.selected).logits;
  EXPECT_LT(RelativeError(model.Logits(batch), want), 8 * 3 * 0x1p-20);
}

double LossOf(AdaptedModel* model, const LossBatch& batch) {
  model->Merge(1);
  const torch::Tensor logits = model->Logits(batch).to(torch::kFloat64);
  const torch::Tensor each = torch::log_softmax(logits, -1).gather(1, batch.targets.unsqueeze(1)).squeeze(1);
  return -(each * batch.weights).sum().item<double>();
}

// Along a random direction of each tensor: central differences against the gradient.
TEST(AdaptedModelTest, GradientsAreFiniteDifferences) {
  Base base = OpenBase();
  AdaptedModel model(&base, Shape(), 1, /*bf16=*/false);
  Randomize(&model.parameters());
  const LossBatch batch = RandomBatch();
  model.Merge(1);
  const AdaptedModel::Result result = model.Backward(batch);
  EXPECT_NEAR(result.loss, LossOf(&model, batch), 1e-4 * result.loss);
  constexpr double kStep = 1e-2;
  for (size_t i = 0; i < model.parameters().size(); ++i) {
    auto& [name, tensor] = model.parameters()[i];
    const torch::Tensor direction = torch::randn(tensor.sizes()) / std::sqrt(static_cast<double>(tensor.numel()));
    const double slope = (result.gradients[i] * direction).sum().item<double>();
    const torch::Tensor at = tensor.clone();
    tensor.copy_(at + kStep * direction);
    const double above = LossOf(&model, batch);
    tensor.copy_(at - kStep * direction);
    const double below = LossOf(&model, batch);
    tensor.copy_(at);
    // f32 sums: the loss, some 100, is good to 1e-6 of itself, over two steps; and the third derivative.
    EXPECT_NEAR((above - below) / (2 * kStep), slope, 0.01 + 0.01 * std::fabs(slope)) << name;
  }
}

TEST(AdaptedModelTest, HalfPrecisionGradientsPointTheSameWay) {
  const LossBatch batch = RandomBatch();
  std::vector<AdaptedModel::Result> results;
  for (bool bf16 : {false, true}) {
    Base base = OpenBase();
    AdaptedModel model(&base, Shape(), 1, bf16);
    Randomize(&model.parameters());
    model.Merge(1);
    results.push_back(model.Backward(batch));
  }
  EXPECT_NEAR(results[0].loss, results[1].loss, 0.01 * results[0].loss);
  for (size_t i = 0; i < results[0].gradients.size(); ++i) {
    const torch::Tensor a = results[0].gradients[i].flatten(), b = results[1].gradients[i].flatten();
    EXPECT_GT(torch::cosine_similarity(a, b, 0).item<double>(), 0.98) << i;
  }
}

// What other devices than the CPU run.
TEST(AdaptedModelTest, TensorOperationsThroughoutComputeTheSame) {
  const LossBatch batch = RandomBatch();
  std::vector<AdaptedModel::Result> results;
  std::vector<torch::Tensor> likeliest, logits;
  for (bool fused : {true, false}) {
    Base base = OpenBase();
    const bool tied = base.output.is_same(base.model->Get("token_embd.weight"));
    base.MoveTo(torch::kCPU);
    EXPECT_EQ(base.output.is_same(base.model->Get("token_embd.weight")), tied);
    AdaptedModel model(&base, Shape(), 1);
    model.set_fused(fused);
    Randomize(&model.parameters());
    model.Merge(1);
    results.push_back(model.Backward(batch));
    likeliest.push_back(model.Argmax(batch));
    logits.push_back(model.Logits(batch));
  }
  EXPECT_NEAR(results[0].loss, results[1].loss, 0.01 * results[0].loss);
  for (size_t i = 0; i < results[0].gradients.size(); ++i) {
    const torch::Tensor a = results[0].gradients[i].flatten(), b = results[1].gradients[i].flatten();
    EXPECT_GT(torch::cosine_similarity(a, b, 0).item<double>(), 0.98) << i;
  }
  // Products of bf16 err by 2^-8 of a logit's size; what both ways rank first is no further apart.
  const torch::Tensor size = logits[1].abs().amax(-1);
  for (const torch::Tensor& top : likeliest) {
    const torch::Tensor short_of = logits[1].amax(-1) - logits[1].gather(1, top.unsqueeze(1)).squeeze(1);
    EXPECT_TRUE((short_of <= size / 32).all().item<bool>());
  }
}

TEST(AdaptedModelTest, TargetsThatAreNotNamedStayTheBases) {
  Base base = OpenBase();
  LoraShape shape = Shape();
  shape.targets = {"attn_v", "ffn_down"};
  AdaptedModel model(&base, shape, 1, /*bf16=*/true);
  EXPECT_EQ(model.parameters().size(), 8u);
  model.Merge(1);
  const AdaptedModel::Result result = model.Backward(RandomBatch());
  for (size_t i = 0; i < result.gradients.size(); ++i) {
    ASSERT_EQ(result.gradients[i].sizes(), model.parameters()[i].second.sizes());
    // B is zero: nothing reaches A yet.
    EXPECT_EQ(result.gradients[i].abs().sum().item<double>() > 0, i % 2 == 1) << model.parameters()[i].first;
  }
}

TEST(FusedLinearTest, CrossEntropyAndItsGradient) {
  torch::manual_seed(3);
  const torch::Tensor head = torch::randn({1000, 64}).to(torch::kBFloat16);
  const torch::Tensor x = torch::randn({300, 64}).to(torch::kBFloat16), targets = torch::randint(0, 1000, {300});
  const torch::Tensor weights = torch::rand({300});
  torch::Tensor rows = x.detach().set_requires_grad(true), exact = x.to(torch::kFloat).set_requires_grad(true);
  const torch::Tensor loss = LinearCrossEntropy(rows, head, targets, weights);
  loss.backward();
  const torch::Tensor want =
      (torch::nn::functional::cross_entropy(torch::linear(exact, head.to(torch::kFloat)), targets,
                                            torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kNone)) *
       weights)
          .sum();
  want.backward();
  // Logits of deviation 8 are rounded to 2^-9 of themselves, 0.03 at most; of 300 errors the mean counts.
  EXPECT_NEAR(loss.item<double>(), want.item<double>(), 0.005 * want.item<double>());
  EXPECT_LT(RelativeError(rows.grad().to(torch::kFloat), exact.grad()), 0.02);
  const torch::Tensor likeliest = torch::linear(x.to(torch::kFloat), head.to(torch::kFloat)).argmax(-1);
  EXPECT_TRUE(torch::equal(LinearArgmax(x, head), likeliest));
}

AdapterRecipe TinyRecipe() {
  AdapterRecipe recipe;
  recipe.name = "tiny-adapter";
  recipe.base = TinyBase();
  recipe.adapter = Shape();
  recipe.updates = 6;
  recipe.batch_tokens = 1024;
  recipe.batches = 3;
  recipe.max_tokens = 700;
  recipe.generated_share = 1;
  recipe.check_examples = 0;
  recipe.held_out = {};
  recipe.text = "tiny";
  return recipe;
}

TrainOptions Quiet(const std::string& out) {
  TrainOptions options;
  options.out = out;
  options.quiet = true;
  return options;
}

TEST(AdapterRunTest, ResumedRunEqualsAnUnbrokenOne) {
  const AdapterRecipe recipe = TinyRecipe();
  const std::string whole = Folder() + "/whole.gguf", broken = Folder() + "/broken.gguf";
  ASSERT_TRUE(TrainAdapter(recipe, Quiet(whole)).ok());
  TrainOptions options = Quiet(broken);
  options.stop_after_updates = 2;
  ASSERT_TRUE(TrainAdapter(recipe, options).ok());
  EXPECT_FALSE(Bytes(whole) == Bytes(broken));
  options.resume = true;
  ASSERT_TRUE(TrainAdapter(recipe, options).ok());
  options.stop_after_updates = 0;
  ASSERT_TRUE(TrainAdapter(recipe, options).ok());
  EXPECT_TRUE(Bytes(whole) == Bytes(broken));
  // Behind the header, which tells the seconds: weights and both moments.
  const std::string a = Bytes(whole + ".checkpoint"), b = Bytes(broken + ".checkpoint");
  EXPECT_TRUE(a.substr(a.find('\n')) == b.substr(b.find('\n')));
}

TEST(AdapterRunTest, LearnsAndStartsFromAnAdapter) {
  AdapterRecipe recipe = TinyRecipe();
  recipe.learning_rate = 0.02;
  recipe.updates = 12;
  const std::string first = Folder() + "/first.gguf", second = Folder() + "/second.gguf";
  ASSERT_TRUE(TrainAdapter(recipe, Quiet(first)).ok());
  recipe.init_adapter = first;
  recipe.updates = 1;
  recipe.learning_rate = 0;
  ASSERT_TRUE(TrainAdapter(recipe, Quiet(second)).ok());
  Base base = OpenBase();
  NamedTensors a = NewLora(Shape(), base.model->shape(), 1), b = NewLora(Shape(), base.model->shape(), 2);
  ASSERT_TRUE(ReadLora(first, Shape(), base, &a).ok());
  ASSERT_TRUE(ReadLora(second, Shape(), base, &b).ok());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(torch::equal(a[i].second, b[i].second)) << a[i].first;
}

TEST(LoraFileTest, RoundTripInLlamaCppsLayout) {
  Base base = OpenBase();
  AdapterRecipe recipe = TinyRecipe();
  recipe.held_out = {"en8"};
  NamedTensors tensors = NewLora(Shape(), base.model->shape(), 1);
  Randomize(&tensors);
  const std::string path = Folder() + "/lora.gguf";
  ASSERT_TRUE(WriteLora(path, recipe, {"0123", 1, 1000, 6}, base, tensors).ok());
  const absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*file->GetString("general.type"), "adapter");
  EXPECT_EQ(*file->GetString("adapter.type"), "lora");
  EXPECT_EQ(*file->GetF32("adapter.lora.alpha"), 8.0f);
  EXPECT_EQ(*file->GetString("tokenizer.chat_template"), kChatTemplate);
  const gguf::TensorInfo* down = file->FindTensor("blk.1.ffn_down.weight.lora_a");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->dims[0], 96);  // in, contiguous
  EXPECT_EQ(down->dims[1], 4);
  NamedTensors read = NewLora(Shape(), base.model->shape(), 2);
  ASSERT_TRUE(ReadLora(path, Shape(), base, &read).ok());
  for (size_t i = 0; i < read.size(); ++i) {
    EXPECT_TRUE(torch::equal(read[i].second, tensors[i].second.to(torch::kHalf).to(torch::kFloat))) << read[i].first;
  }
  // What does not fit is refused.
  LoraShape fewer = Shape();
  fewer.targets = {"attn_q"};
  NamedTensors few = NewLora(fewer, base.model->shape(), 2), thin = NewLora(Shape(2), base.model->shape(), 2);
  EXPECT_FALSE(ReadLora(path, fewer, base, &few).ok());
  EXPECT_FALSE(ReadLora(path, Shape(2), base, &thin).ok());
  EXPECT_FALSE(ReadLora(TinyBase(), Shape(), base, &read).ok());
  base.sha256 = "another";
  EXPECT_EQ(ReadLora(path, Shape(), base, &read).code(), absl::StatusCode::kFailedPrecondition);
}

std::string Edited(const std::string& name, const updraft::testing::Edit& edit) {
  const std::string path = Folder() + "/" + name + ".gguf";
  EXPECT_TRUE(updraft::testing::EditFile(TinyBase(), path, edit).ok());
  return path;
}

TEST(BaseTest, SaysWhatIsWrongWithAFile) {
  const auto message = [](const std::string& path, const std::string& hash = "") {
    return std::string(ReadBase(path, hash, 1024).status().message());
  };
  EXPECT_NE(message("/nonexistent.gguf").find("/nonexistent.gguf"), std::string::npos);
  EXPECT_NE(message(TinyBase(), "abc").find("base_sha256 is abc"), std::string::npos);
  updraft::testing::Edit edit;
  edit.metadata = [](gguf::Writer& writer) { writer.SetString("general.architecture", "mamba"); };
  EXPECT_NE(message(Edited("mamba", edit)).find("found 'mamba'"), std::string::npos);
  edit.metadata = [](gguf::Writer& writer) { writer.SetString("tokenizer.ggml.model", "none"); };
  EXPECT_NE(message(Edited("mute", edit)).find("no tokenizer"), std::string::npos);
  edit = {};
  edit.add_tensors = {"rope_freqs.weight"};
  EXPECT_NE(message(Edited("rope", edit)).find("'rope_freqs.weight'"), std::string::npos);
  edit = {};
  edit.drop_tensors = {"blk.1.ffn_up.weight"};
  EXPECT_NE(message(Edited("short", edit)).find("'blk.1.ffn_up.weight' is missing"), std::string::npos);
}

}  // namespace
}  // namespace updraft::train
