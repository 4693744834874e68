// How far one model's predictions are from another's on the same text.
#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "deploy/evaluate/perplexity.h"

namespace updraft {

struct ComparisonResult {
  double kld_mean = 0;        // Kullback-Leibler divergence D(reference || model) per position, nats
  double kld_mean_error = 0;  // standard error of the mean
  double kld_p99 = 0;         // 99th percentile over positions
  double kld_max = 0;
  double top1_agreement = 0;    // share of positions whose most likely token is the same
  double perplexity = 0;        // of the model
  double perplexity_ratio = 0;  // the model's over the reference's
  int64_t tokens = 0;
};

// The chunks and scored positions of Perplexity. Errors as there.
absl::StatusOr<ComparisonResult> Compare(LogitsSource& model, LogitsSource& reference, std::span<const int32_t> tokens,
                                         const EvaluationOptions& options);
absl::StatusOr<ComparisonResult> Compare(const Model& model, const Model& reference, std::span<const int32_t> tokens,
                                         const EvaluationOptions& options);

}  // namespace updraft
