// The optimizer against its formulas, and workers against one thread.
#include "deploy/train/optimizer.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <stdexcept>

#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

using torch::Tensor;

TEST(OptimizerTest, OrthogonalizedHasSingularValuesNearOneAndTheSameVectors) {
  torch::manual_seed(1);
  for (const auto& [rows, columns] : {std::pair{48, 48}, {96, 32}, {32, 96}}) {
    const Tensor matrix = torch::randn({rows, columns});
    const auto [u, s, vh] = torch::linalg_svd(matrix, /*full_matrices=*/false, c10::nullopt);
    const Tensor got = Orthogonalized(matrix);
    ASSERT_EQ(got.sizes(), matrix.sizes());
    // In the basis of the matrix's own singular vectors it is diagonal; the published coefficients take every singular
    // value above about 0.005 of the norm to [0.68, 1.13], and bf16 products add up to some hundredths.
    const Tensor inner = torch::matmul(torch::matmul(u.t(), got), vh.t());
    const Tensor off = inner - torch::diag(torch::diag(inner));
    EXPECT_LT(off.abs().max().item<float>(), 0.1f);
    EXPECT_LT(torch::diag(inner).max().item<float>(), 1.3f);
    const Tensor large = torch::diag(inner).masked_select(s.gt(s.max() * 0.1));
    EXPECT_GT(large.min().item<float>(), 0.6f);
  }
}

TEST(OptimizerTest, MatricesByMuonVectorsAndEmbeddingByAdamW) {
  torch::manual_seed(2);
  NamedTensors parameters = {{"token_embd.weight", torch::randn({10, 16})},
                             {"blk.0.attn_q.weight", torch::randn({32, 16})},
                             {"output_norm.weight", torch::ones({16})}};
  std::vector<Tensor> before, gradients;
  for (const auto& [name, tensor] : parameters) {
    before.push_back(tensor.clone());
    gradients.push_back(torch::randn(tensor.sizes()));
  }
  Optimizer optimizer(&parameters, 1);
  std::vector<Tensor> copies;
  for (const Tensor& gradient : gradients) copies.push_back(gradient.clone());
  optimizer.Step({copies}, /*learning_rate=*/0.01, /*weight_decay=*/0.1, /*clip=*/0);
  // The first AdamW step moves every element by the learning rate against its gradient's sign.
  const Tensor embedding = before[0] * (1 - 0.001) - 0.01 * gradients[0].sign();
  EXPECT_TRUE(torch::allclose(parameters[0].second, embedding, 1e-4, 1e-5));
  EXPECT_TRUE(torch::allclose(parameters[2].second, before[2] - 0.01 * gradients[2].sign(), 1e-4, 1e-5));
  // Muon: a matrix with singular values near one, times 0.2 sqrt(32).
  const Tensor step = (before[1] * (1 - 0.001) - parameters[1].second) / (0.01 * 0.2 * std::sqrt(32.0));
  EXPECT_TRUE(torch::allclose(step, Orthogonalized(gradients[1] * 1.95), 1e-3, 1e-3));
}

TEST(OptimizerTest, SetsOfGradientsAreSummedAndClipped) {
  for (const int workers : {1, 3}) {
    NamedTensors parameters = {{"a", torch::zeros({4})}, {"b", torch::zeros({2})}};
    Optimizer optimizer(&parameters, workers);
    // 3 + 1 = 4 in four elements: norm 8. The second parameter has no gradient and stays.
    const double norm = optimizer.Step({{torch::full({4}, 3.0f), Tensor()}, {torch::full({4}, 1.0f), Tensor()}}, 0.5,
                                       0.0, /*clip=*/1.0);
    EXPECT_DOUBLE_EQ(norm, 8.0);
    EXPECT_NEAR(optimizer.first[0][0].item<float>(), 0.1 * 4.0 / 8.0, 1e-7);
    EXPECT_EQ(parameters[1].second.abs().sum().item<float>(), 0.0f);
  }
}

TEST(WorkersTest, EachRunsOnceAndAnExceptionComesThrough) {
  for (const int workers : {1, 2, 5}) {
    std::atomic<int> mask = 0;
    RunOnWorkers(workers, [&](int worker) { mask.fetch_or(1 << worker); });
    EXPECT_EQ(mask.load(), (1 << workers) - 1);
    EXPECT_THROW(RunOnWorkers(workers, [](int) { throw std::runtime_error("x"); }), std::runtime_error);
  }
}

}  // namespace
}  // namespace updraft::train
