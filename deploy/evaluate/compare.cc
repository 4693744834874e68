#include "deploy/evaluate/compare.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace updraft {
namespace {

size_t ArgMax(std::span<const float> x) { return std::max_element(x.begin(), x.end()) - x.begin(); }

}  // namespace

absl::StatusOr<ComparisonResult> Compare(LogitsSource& model, LogitsSource& reference, std::span<const int32_t> tokens,
                                         const EvaluationOptions& options) {
  std::vector<double> divergences;
  int64_t n_agree = 0;
  double model_nll = 0;
  double reference_nll = 0;
  LogitsSource* const sources[] = {&model, &reference};
  const absl::StatusOr<int> chunks =
      ForEachScoredPosition(sources, tokens, options, [&](const ScoredPosition& position) {
        const std::span<const float> q = position.logits[0];
        const std::span<const float> p = position.logits[1];
        const double q_mass = LogMass(q);
        const double p_mass = LogMass(p);
        double divergence = 0;
        for (size_t i = 0; i < p.size(); ++i) {
          const double log_p = p[i] - p_mass;
          divergence += std::exp(log_p) * (log_p - (q[i] - q_mass));
        }
        divergences.push_back(divergence);
        n_agree += ArgMax(p) == ArgMax(q);
        model_nll += q_mass - q[position.next];
        reference_nll += p_mass - p[position.next];
      });
  if (!chunks.ok()) return chunks.status();

  ComparisonResult result;
  result.tokens = static_cast<int64_t>(divergences.size());
  const double n = static_cast<double>(result.tokens);
  double squares = 0;
  for (const double d : divergences) {
    result.kld_mean += d / n;
    squares += d * d;
  }
  if (result.tokens > 1) {
    result.kld_mean_error = std::sqrt(std::max(0.0, squares / n - result.kld_mean * result.kld_mean) / (n - 1));
  }
  std::sort(divergences.begin(), divergences.end());
  result.kld_p99 = divergences[(divergences.size() - 1) * 99 / 100];
  result.kld_max = divergences.back();
  result.top1_agreement = static_cast<double>(n_agree) / n;
  result.perplexity = std::exp(model_nll / n);
  result.perplexity_ratio = std::exp((model_nll - reference_nll) / n);
  return result;
}

absl::StatusOr<ComparisonResult> Compare(const Model& model, const Model& reference, std::span<const int32_t> tokens,
                                         const EvaluationOptions& options) {
  absl::StatusOr<std::unique_ptr<ModelSource>> a = ModelSource::Create(&model, options.context, options.kv_type);
  if (!a.ok()) return a.status();
  absl::StatusOr<std::unique_ptr<ModelSource>> b = ModelSource::Create(&reference, options.context);
  if (!b.ok()) return b.status();
  return Compare(**a, **b, tokens, options);
}

}  // namespace updraft
