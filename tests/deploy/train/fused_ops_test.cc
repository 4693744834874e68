// The fused operations against the same mathematics in f32 tensor operations, values and gradients.
#include "deploy/train/fused_ops.h"

#include <gtest/gtest.h>

#include <cmath>

#include "deploy/train/products.h"

namespace updraft::train {
namespace {

using torch::Tensor;

// ||a - b|| / ||b||. A rounding to bf16 errs by at most 2^-8 of each value; results here go through at most two.
constexpr double kTolerance = 2.0 / 256;

double Distance(const Tensor& a, const Tensor& b) {
  return ((a.to(torch::kFloat) - b).norm() / b.norm()).item<double>();
}

Tensor Leaf(const Tensor& t) { return t.detach().clone().set_requires_grad(true); }

TEST(FusedOpsTest, RmsNorm) {
  torch::manual_seed(1);
  const Tensor x = Leaf(torch::randn({3, 50, 96}) * 3), gain = Leaf(torch::rand({96}) + 0.5);
  const Tensor x2 = Leaf(x), gain2 = Leaf(gain), weights = torch::randn({3, 50, 96});
  const Tensor y = FusedRmsNorm(x, gain, 1e-5);
  (y.to(torch::kFloat) * weights).sum().backward();
  const Tensor y2 = x2 * torch::rsqrt(x2.square().mean(-1, true) + 1e-5) * gain2;
  (y2 * weights).sum().backward();
  EXPECT_LT(Distance(y, y2), kTolerance);
  EXPECT_LT(Distance(x.grad(), x2.grad()), kTolerance);
  EXPECT_LT(Distance(gain.grad(), gain2.grad()), kTolerance);
}

TEST(FusedOpsTest, SwiGlu) {
  torch::manual_seed(2);
  const Tensor both = Leaf((torch::randn({7, 5, 192}) * 4).to(torch::kBFloat16));
  const Tensor both2 = Leaf(both.to(torch::kFloat)), weights = torch::randn({7, 5, 96});
  const Tensor y = FusedSwiGlu(both);
  (y.to(torch::kFloat) * weights).sum().backward();
  const Tensor y2 = torch::silu(both2.slice(-1, 0, 96)) * both2.slice(-1, 96);
  (y2 * weights).sum().backward();
  EXPECT_LT(Distance(y, y2), kTolerance);
  EXPECT_LT(Distance(both.grad(), both2.grad()), kTolerance);
}

Tensor Rotated(const Tensor& x, const Tensor& angle) {  // [batch, time, heads, head]; angle [time, head / 2]
  const Tensor pairs = x.reshape({x.size(0), x.size(1), x.size(2), x.size(3) / 2, 2});
  const Tensor c = angle.cos().unsqueeze(1), s = angle.sin().unsqueeze(1);
  const Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return torch::stack({a * c - b * s, a * s + b * c}, -1).reshape(x.sizes());
}

class FusedAttentionTest : public testing::TestWithParam<std::array<int64_t, 4>> {};

TEST_P(FusedAttentionTest, AgreesWithTensorOperations) {
  const auto [time, heads, kv_heads, head] = GetParam();
  ASSERT_TRUE(FusedAttentionSupports(head));
  torch::manual_seed(3);
  const int64_t batch = 3;
  const Tensor angle =
      torch::outer(torch::arange(time, torch::kFloat),
                   torch::pow(10000.0, -torch::arange(0, head, 2, torch::kFloat) / static_cast<double>(head)));
  const Tensor cosine = angle.cos().repeat_interleave(2, 1).contiguous(),
               sine = angle.sin().repeat_interleave(2, 1).contiguous();
  const Tensor qkv = Leaf(torch::randn({batch, time, (heads + 2 * kv_heads) * head}).to(torch::kBFloat16));
  const Tensor qkv2 = Leaf(qkv.to(torch::kFloat)), weights = torch::randn({batch, time, heads * head});
  const Tensor y = FusedAttention(qkv, cosine, sine, heads, kv_heads);
  (y.to(torch::kFloat) * weights).sum().backward();

  const Tensor split = qkv2.view({batch, time, heads + 2 * kv_heads, head});
  const auto heads_first = [&](const Tensor& t) { return t.transpose(1, 2).repeat_interleave(heads / t.size(2), 1); };
  const Tensor q = Rotated(split.slice(2, 0, heads), angle).transpose(1, 2);
  const Tensor k = heads_first(Rotated(split.slice(2, heads, heads + kv_heads), angle));
  const Tensor v = heads_first(split.slice(2, heads + kv_heads));
  const Tensor mask = torch::full({time, time}, -INFINITY).triu(1);
  const Tensor p =
      torch::softmax(torch::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(head)) + mask, -1);
  const Tensor y2 = torch::matmul(p, v).transpose(1, 2).reshape({batch, time, heads * head});
  (y2 * weights).sum().backward();
  EXPECT_LT(Distance(y, y2), kTolerance);
  EXPECT_LT(Distance(qkv.grad(), qkv2.grad()), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, FusedAttentionTest,
                         testing::Values(std::array<int64_t, 4>{1, 2, 1, 32}, std::array<int64_t, 4>{15, 2, 2, 32},
                                         std::array<int64_t, 4>{16, 4, 2, 32}, std::array<int64_t, 4>{77, 8, 4, 32},
                                         std::array<int64_t, 4>{130, 3, 1, 64}));

// Whether the CPU multiplies bf16 or the operands are widened: exact products of bf16, f32 sums, one rounding.
TEST(ProductsTest, Bf16OperandsLoseOneRounding) {
  torch::manual_seed(4);
  const Tensor x = Leaf(torch::randn({3, 5, 96}).to(torch::kBFloat16)),
               w = Leaf(torch::randn({40, 96}).to(torch::kBFloat16));
  const Tensor x2 = Leaf(x.to(torch::kDouble)), w2 = Leaf(w.to(torch::kDouble));
  const Tensor weights = torch::randn({3, 5, 40}).to(torch::kBFloat16);
  const Tensor y = Linear(x, w), y2 = torch::linear(x2, w2);
  EXPECT_EQ(y.scalar_type(), torch::kBFloat16);
  // Half a unit of the last of 8 bits, and what 96 additions in f32 leave.
  EXPECT_TRUE(torch::allclose(y.to(torch::kDouble), y2, 1.0 / 256, 1e-4));
  (y.to(torch::kDouble) * weights.to(torch::kDouble)).sum().backward();
  (y2 * weights.to(torch::kDouble)).sum().backward();
  EXPECT_LT(Distance(x.grad(), x2.grad().to(torch::kFloat)), kTolerance);
  EXPECT_LT(Distance(w.grad(), w2.grad().to(torch::kFloat)), kTolerance);
  const Tensor a = x.detach().reshape({15, 96}), b = w.detach().t().contiguous();
  EXPECT_TRUE(torch::allclose(MatMul(a, b).to(torch::kDouble), y2.reshape({15, 40}), 1.0 / 256, 1e-4));
  // Other types are libtorch's own affair.
  EXPECT_TRUE(torch::equal(Linear(x2, w2), torch::linear(x2, w2)));
}

}  // namespace
}  // namespace updraft::train
