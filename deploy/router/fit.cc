#include "deploy/router/fit.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numeric>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_format.h"
#include "deploy/router/logistic.h"

namespace updraft {
namespace {

constexpr int kFacts = RouterInput::kFacts;
// A gram that one row alone has says nothing of others, and would let the fit learn that row by heart.
constexpr uint32_t kMinRowsOfGram = 2;
constexpr double kBagOfWordsL2 = 100.0;

// The grams that enter, and how rare each is: those of most rows first where there are too many.
void ChooseGrams(std::span<const RouterInput> inputs, std::span<const uint32_t> chosen, size_t max_grams,
                 Router::Metadata& metadata) {
  std::unordered_map<uint32_t, uint32_t> rows_of;
  for (const uint32_t row : chosen) {
    for (const uint32_t gram : inputs[row].grams) ++rows_of[gram];
  }
  std::vector<std::pair<uint32_t, uint32_t>> kept;
  for (const auto& [gram, rows] : rows_of) {
    if (rows >= kMinRowsOfGram) kept.emplace_back(rows, gram);
  }
  std::sort(kept.begin(), kept.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  kept.resize(std::min(kept.size(), max_grams));
  std::sort(kept.begin(), kept.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const double n = static_cast<double>(chosen.size());
  for (const auto& [rows, gram] : kept) {
    metadata.grams.push_back(gram);
    metadata.rarity.push_back(static_cast<float>(1.0 + std::log((1.0 + n) / (1.0 + rows))));
  }
}

void ScaleFacts(std::span<const RouterInput> inputs, std::span<const uint32_t> chosen, Router::Metadata& metadata) {
  const double n = static_cast<double>(chosen.size());
  for (int f = 0; f < kFacts; ++f) {
    double sum = 0.0, squares = 0.0;
    for (const uint32_t row : chosen) sum += inputs[row].facts[f];
    const double mean = sum / n;
    for (const uint32_t row : chosen) squares += std::pow(inputs[row].facts[f] - mean, 2.0);
    const double deviation = std::sqrt(squares / n);
    metadata.mean.push_back(static_cast<float>(mean));
    metadata.scale.push_back(deviation > 1e-6 ? static_cast<float>(deviation) : 1.0f);
  }
}

// A router whose inputs are settled and whose weights are 0.
absl::StatusOr<Router> Untrained(std::span<const RouterInput> inputs, std::span<const uint32_t> chosen,
                                 size_t max_grams) {
  Router::Metadata metadata;
  for (const std::string_view name : RouterInput::FactNames()) metadata.facts.emplace_back(name);
  ChooseGrams(inputs, chosen, max_grams, metadata);
  ScaleFacts(inputs, chosen, metadata);
  metadata.fact_weights.assign(2 * kFacts, 0.0f);
  metadata.intercepts.assign(2, 0.0f);
  metadata.fixes.assign(metadata.grams.size(), 0.0f);
  metadata.breaks = metadata.fixes;
  return Router::FromMetadata(std::move(metadata));
}

}  // namespace

absl::Status RouterFitOptions::Validate() const {
  if (!(l2 >= 1e-3 && l2 <= 1e6)) {
    return absl::InvalidArgumentError(absl::StrFormat("l2: expected a number in [0.001, 1e6], found %g", l2));
  }
  if (max_grams > Router::kMaxGrams) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_grams: expected at most %d, found %d", Router::kMaxGrams, max_grams));
  }
  return absl::OkStatus();
}

absl::StatusOr<Router> FitRouter(std::span<const RouterOutcome> outcomes, std::span<const RouterInput> inputs,
                                 std::span<const uint32_t> chosen, const RouterFitOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto untrained = Untrained(inputs, chosen, options.max_grams);
  if (!untrained.ok()) return untrained.status();
  const size_t n_grams = untrained->metadata().grams.size();
  SparseRows rows;
  rows.n_columns = n_grams + kFacts;
  for (const uint32_t row : chosen) {
    untrained->ForEachInput(inputs[row], [&](size_t column, double value) { rows.Add(column, value); });
    rows.EndRow();
  }
  std::vector<uint32_t> all(chosen.size());
  std::iota(all.begin(), all.end(), 0u);
  Router::Metadata fitted = untrained->metadata();
  for (int head = 0; head < 2; ++head) {
    std::vector<double> targets;
    for (const uint32_t row : chosen) targets.push_back(head == 0 ? outcomes[row].fixes() : outcomes[row].breaks());
    const std::vector<double> weights = FitLogistic({&rows, all, targets, options.l2});
    std::vector<float>& grams = head == 0 ? fitted.fixes : fitted.breaks;
    for (size_t i = 0; i < n_grams; ++i) grams[i] = static_cast<float>(weights[i]);
    for (int f = 0; f < kFacts; ++f) fitted.fact_weights[head * kFacts + f] = static_cast<float>(weights[n_grams + f]);
    fitted.intercepts[head] = static_cast<float>(weights.back());
  }
  return Router::FromMetadata(std::move(fitted));
}

absl::StatusOr<Router> FitRouter(const std::vector<RouterOutcome>& outcomes, const RouterFitOptions& options) {
  if (absl::Status status = CheckOutcomes(outcomes, "table"); !status.ok()) return status;
  auto fingerprint = FingerprintOf(outcomes);
  if (!fingerprint.ok()) return fingerprint.status();
  std::vector<uint32_t> all(outcomes.size());
  std::iota(all.begin(), all.end(), 0u);
  auto router = FitRouter(outcomes, RouterInputsOf(outcomes), all, options);
  if (!router.ok()) return router.status();
  Router::Metadata metadata = router->metadata();
  metadata.data_fingerprint = *std::move(fingerprint);
  return Router::FromMetadata(std::move(metadata));
}

std::vector<RouterInput> RouterInputsOf(std::span<const RouterOutcome> outcomes) {
  std::vector<RouterInput> inputs;
  for (const RouterOutcome& outcome : outcomes) inputs.push_back(RouterInputOf(outcome.prompt));
  return inputs;
}

BagOfWords::BagOfWords(std::span<const RouterOutcome> outcomes) : outcomes_(outcomes) {
  std::unordered_map<std::string, uint32_t> numbers;
  for (const RouterOutcome& outcome : outcomes) {
    std::vector<uint32_t> row;
    std::string word;
    const auto end_word = [&] {
      if (!word.empty()) row.push_back(numbers.emplace(word, numbers.size()).first->second);
      word.clear();
    };
    for (const char c : outcome.prompt) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x80 && std::isalnum(byte) == 0) {
        end_word();
      } else {
        word.push_back(byte < 0x80 ? static_cast<char>(std::tolower(byte)) : c);
      }
    }
    end_word();
    std::sort(row.begin(), row.end());
    row.erase(std::unique(row.begin(), row.end()), row.end());
    words_.push_back(std::move(row));
  }
  n_words_ = numbers.size();
}

std::vector<double> BagOfWords::FitAndScore(std::span<const uint32_t> chosen, std::span<const uint32_t> predict) const {
  SparseRows rows;
  rows.n_columns = n_words_;
  for (const std::vector<uint32_t>& row : words_) {
    for (const uint32_t word : row) rows.Add(word, 1.0);
    rows.EndRow();
  }
  std::vector<double> targets, scores;
  for (const uint32_t row : chosen) targets.push_back(outcomes_[row].fixes());
  const std::vector<double> weights = FitLogistic({&rows, chosen, targets, kBagOfWordsL2});
  for (const uint32_t row : predict) scores.push_back(LogOdds(rows, row, weights));  // an unknown word weighs 0
  return scores;
}

}  // namespace updraft
