#include "deploy/train/fused_linear.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "deploy/train/fused_math.h"
#include "deploy/train/products.h"

namespace updraft::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kRows = 256;  // at a time: 25 MB of logits for 49,152 tokens

// logits: [n] bf16, replaced by weight * (softmax - one-hot). Returns weight * cross-entropy.
UPDRAFT_CLONES double SoftmaxRow(uint16_t* logits, int64_t n, int64_t target, float weight) {
  float largest = Load(logits[0]);
  for (int64_t i = 1; i < n; ++i) largest = std::max(largest, Load(logits[i]));
  const float wanted = Load(logits[target]);
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += Exp(Load(logits[i]) - largest);
  const float scale = weight / sum;
  const float top = Exp(wanted - largest) * scale;
  for (int64_t i = 0; i < n; ++i) logits[i] = Store(Exp(Load(logits[i]) - largest) * scale);
  logits[target] = Store(top - weight);
  return static_cast<double>(weight) * (std::log(static_cast<double>(sum)) + largest - wanted);
}

UPDRAFT_CLONES float LargestOf(const uint16_t* logits, int64_t n) {
  float largest = Load(logits[0]);
  for (int64_t i = 1; i < n; ++i) largest = std::max(largest, Load(logits[i]));
  return largest;
}

UPDRAFT_CLONES float Dot(const uint16_t* x, const uint16_t* y, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += Load(x[i]) * Load(y[i]);
  return sum;
}

UPDRAFT_CLONES void LowRankRow(const float* base, const float* b, const float* a, float scale, int64_t rank, int64_t k,
                               float* sum) {
  for (int64_t i = 0; i < k; ++i) sum[i] = base[i];
  int64_t r = 0;
  for (; r + 4 <= rank; r += 4, a += 4 * k) {
    const float b0 = scale * b[r], b1 = scale * b[r + 1], b2 = scale * b[r + 2], b3 = scale * b[r + 3];
    for (int64_t i = 0; i < k; ++i) sum[i] += b0 * a[i] + b1 * a[k + i] + b2 * a[2 * k + i] + b3 * a[3 * k + i];
  }
  for (; r < rank; ++r, a += k) {
    for (int64_t i = 0; i < k; ++i) sum[i] += scale * b[r] * a[i];
  }
}

UPDRAFT_CLONES void StoreRow(const float* sum, int64_t k, uint16_t* out) {
  for (int64_t i = 0; i < k; ++i) out[i] = Store(sum[i]);
}

class CrossEntropy : public Function<CrossEntropy> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& rows, const Tensor& head, const Tensor& targets,
                        const Tensor& weights) {
    const int64_t n = rows.size(0), vocabulary = head.size(0);
    // The last operation of a pass: its gradient is made right away, while the logits are at hand.
    Tensor gradient = torch::empty_like(rows);
    double loss = 0;
    for (int64_t begin = 0; begin < n; begin += kRows) {
      const int64_t end = std::min(n, begin + kRows);
      Tensor logits = Linear(rows.slice(0, begin, end), head);
      for (int64_t i = begin; i < end; ++i) {
        loss += SoftmaxRow(Bits(logits) + (i - begin) * vocabulary, vocabulary, targets.data_ptr<int64_t>()[i],
                           weights.data_ptr<float>()[i]);
      }
      gradient.slice(0, begin, end).copy_(MatMul(logits, head));
    }
    context->save_for_backward({gradient});
    return torch::tensor(loss, torch::kFloat64).to(torch::kFloat);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {context->get_saved_variables()[0] * gradients[0].to(torch::kBFloat16), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor LinearCrossEntropy(const Tensor& rows, const Tensor& head, const Tensor& targets, const Tensor& weights) {
  return CrossEntropy::apply(rows, head, targets, weights);
}

Tensor LinearArgmax(const Tensor& rows, const Tensor& head) {
  const int64_t n = rows.size(0), vocabulary = head.size(0), width = head.size(1);
  Tensor out = torch::empty({n}, torch::kInt64);
  for (int64_t begin = 0; begin < n; begin += kRows) {
    const int64_t end = std::min(n, begin + kRows);
    const Tensor logits = Linear(rows.slice(0, begin, end), head);
    for (int64_t i = begin; i < end; ++i) {
      const uint16_t* row = Bits(logits) + (i - begin) * vocabulary;
      // Rounded to 8 bits each: the true largest is at most one step below the largest of the rounded.
      const float largest = LargestOf(row, vocabulary), least = largest - std::fabs(largest) / 64;
      float best = -INFINITY;
      for (int64_t token = 0; token < vocabulary; ++token) {
        if (Load(row[token]) < least) continue;
        const float exact = Dot(Bits(rows) + i * width, Bits(head) + token * width, width);
        if (exact > best) best = exact, out.data_ptr<int64_t>()[i] = token;
      }
    }
  }
  return out;
}

void AddLowRank(const Tensor& base, const Tensor& b, const Tensor& a, float scale, int64_t begin, int64_t end,
                Tensor* out) {
  const int64_t k = base.size(1), rank = a.defined() ? a.size(0) : 0;
  std::vector<float> sum(static_cast<size_t>(k));
  for (int64_t row = begin; row < end; ++row) {
    LowRankRow(base.data_ptr<float>() + row * k, rank == 0 ? nullptr : b.data_ptr<float>() + row * rank,
               rank == 0 ? nullptr : a.data_ptr<float>(), scale, rank, k, sum.data());
    if (out->scalar_type() == torch::kBFloat16) {
      StoreRow(sum.data(), k, Bits(*out) + row * k);
    } else {
      std::copy(sum.begin(), sum.end(), out->data_ptr<float>() + row * k);
    }
  }
}

}  // namespace updraft::train
