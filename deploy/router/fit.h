// Fits a router (common/routing/router.h) on outcomes, and what it is compared with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "common/routing/router.h"
#include "deploy/router/outcomes.h"

namespace updraft {

struct RouterFitOptions {
  double l2 = 0.5;            // pull of the weights towards 0; larger for noisier tables
  size_t max_grams = 65'536;  // the most frequent are kept; each takes 16 bytes in the file

  absl::Status Validate() const;
};

// On the rows of `outcomes` that `chosen` names (each index once). inputs: RouterInputOf of all prompts, in their
// order, so that folds share the work. Deterministic: the same whatever the order of `chosen`'s rows, up to rounding.
absl::StatusOr<Router> FitRouter(std::span<const RouterOutcome> outcomes, std::span<const RouterInput> inputs,
                                 std::span<const uint32_t> chosen, const RouterFitOptions& options);

// The same on all rows, with the data's fingerprint. Errors of CheckOutcomes.
absl::StatusOr<Router> FitRouter(const std::vector<RouterOutcome>& outcomes, const RouterFitOptions& options);

std::vector<RouterInput> RouterInputsOf(std::span<const RouterOutcome> outcomes);

// A baseline: logistic regression of "strong fixes weak" on which words a prompt has, at the best strength of pull that
// was found for it on published tables (100, of 1 to 100). Words that `fit` lacks are skipped.
class BagOfWords {
 public:
  explicit BagOfWords(std::span<const RouterOutcome> outcomes);  // which must outlive it
  // Log odds for each row of `predict`, by a fit on the rows of `chosen`.
  std::vector<double> FitAndScore(std::span<const uint32_t> chosen, std::span<const uint32_t> predict) const;

 private:
  std::vector<std::vector<uint32_t>> words_;  // [rows]: numbers of distinct words, each once
  size_t n_words_ = 0;
  std::span<const RouterOutcome> outcomes_;
};

}  // namespace updraft
