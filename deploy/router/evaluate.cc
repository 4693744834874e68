#include "deploy/router/evaluate.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <random>
#include <string_view>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr int kRandomRankings = 300;

struct Scores {
  std::vector<double> gain, bag_of_words;
};

// By fits that did not see the row; a router that is given needs none.
absl::StatusOr<Scores> HeldOutScores(const std::vector<RouterOutcome>& rows, const RouterEvaluationOptions& options) {
  const std::vector<RouterInput> inputs = RouterInputsOf(rows);
  const BagOfWords bag_of_words(rows);
  const std::vector<int> folds = RouterFolds(rows, options.folds, options.seed);
  Scores scores{std::vector<double>(rows.size()), std::vector<double>(rows.size())};
  for (int fold = 0; fold < options.folds; ++fold) {
    std::vector<uint32_t> rest, left_out;
    for (uint32_t row = 0; row < rows.size(); ++row) (folds[row] == fold ? left_out : rest).push_back(row);
    if (rest.empty()) return absl::InvalidArgumentError("router: every row has the same prompt");
    const std::vector<double> words = bag_of_words.FitAndScore(rest, left_out);
    for (size_t i = 0; i < left_out.size(); ++i) scores.bag_of_words[left_out[i]] = words[i];
    if (options.router == nullptr) {
      auto router = FitRouter(rows, inputs, rest, options.fit);
      if (!router.ok()) return router.status();
      for (const uint32_t row : left_out) scores.gain[row] = router->Predict(inputs[row]).gain();
    }
    if (options.on_progress) options.on_progress(fold + 1, options.folds);
  }
  if (options.router != nullptr) {
    for (size_t row = 0; row < rows.size(); ++row) scores.gain[row] = options.router->Predict(inputs[row]).gain();
  }
  return scores;
}

// How many characters a prompt has, counting each byte that begins one.
double LengthOf(std::string_view prompt) {
  return static_cast<double>(std::count_if(prompt.begin(), prompt.end(),
                                           [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

Interval Percentiles(const std::vector<double>& values) { return {Quantile(values, 0.025), Quantile(values, 0.975)}; }

// Curves of several rankings on the same resamples of rows.
class Bootstrap {
 public:
  Bootstrap(const std::vector<RouterOutcome>& rows, std::vector<std::vector<uint32_t>> orders, int resamples,
            uint64_t seed)
      : curves_(orders.size()) {
    std::mt19937_64 rng(seed);
    for (int r = 0; r < resamples; ++r) {
      std::vector<uint32_t> times(rows.size(), 0);
      for (size_t i = 0; i < rows.size(); ++i) ++times[rng() % rows.size()];
      std::vector<CostCurve> drawn;
      for (const auto& order : orders) drawn.push_back(CurveOf(rows, order, times));
      if (drawn[0].strong() <= drawn[0].weak()) {
        ++without_gap_;
        continue;
      }
      for (size_t i = 0; i < orders.size(); ++i) curves_[i].push_back(drawn[i]);
    }
  }

  template <typename Measure>
  Interval Of(size_t ranking, Measure measure) const {
    std::vector<double> values;
    for (const CostCurve& curve : curves_[ranking]) values.push_back(measure(curve));
    return Percentiles(values);
  }
  Interval LeadOver(size_t ranking) const {
    std::vector<double> values;
    for (size_t r = 0; r < curves_[0].size(); ++r) values.push_back(curves_[0][r].Apgr() - curves_[ranking][r].Apgr());
    return Percentiles(values);
  }
  int without_gap() const { return without_gap_; }

 private:
  std::vector<std::vector<CostCurve>> curves_;  // [rankings][resamples that have a gap]
  int without_gap_ = 0;
};

double Cpt50(const CostCurve& curve) { return curve.Cpt(0.5); }
double Cpt80(const CostCurve& curve) { return curve.Cpt(0.8); }
double Apgr(const CostCurve& curve) { return curve.Apgr(); }

RankingReport RandomRanking(const std::vector<RouterOutcome>& rows, const CostCurve& router, uint64_t seed) {
  std::vector<double> apgr, cpt50, cpt80, lead;
  const std::vector<double> equal(rows.size(), 0.0);
  for (int i = 0; i < kRandomRankings; ++i) {
    const CostCurve curve = CurveOf(rows, RankByScore(rows, equal, seed * kRandomRankings + i));
    apgr.push_back(Apgr(curve));
    cpt50.push_back(Cpt50(curve));
    cpt80.push_back(Cpt80(curve));
    lead.push_back(router.Apgr() - apgr.back());
  }
  const auto estimate = [](const std::vector<double>& values) { return Estimate{Mean(values), Percentiles(values)}; };
  return {"random", estimate(apgr), estimate(cpt50), estimate(cpt80), estimate(lead)};
}

std::vector<RouterReport::Point> CurveReport(const CostCurve& curve, const Bootstrap& bootstrap,
                                             std::span<const uint32_t> order, std::span<const double> gains) {
  std::vector<RouterReport::Point> points;
  double stated = 0.0;
  size_t sent = 0;
  for (int i = 0; i < CostCurve::kPoints; ++i) {
    const CostCurve::Point& at = curve.points[i];
    for (; static_cast<double>(sent) + 0.5 < at.share * curve.n; ++sent) stated += gains[order[sent]];
    RouterReport::Point point;
    point.share = at.share;
    point.right = {at.right, bootstrap.Of(0, [i](const CostCurve& c) { return c.points[i].right; })};
    point.fixed = {at.fixed, bootstrap.Of(0, [i](const CostCurve& c) { return c.points[i].fixed; })};
    point.broken = {at.broken, bootstrap.Of(0, [i](const CostCurve& c) { return c.points[i].broken; })};
    point.stated_gain = stated / curve.n;
    point.gain = (at.fixed - at.broken) / curve.n;
    points.push_back(point);
  }
  return points;
}

}  // namespace

absl::Status RouterEvaluationOptions::Validate() const {
  if (folds < 2 || folds > 100) {
    return absl::InvalidArgumentError(absl::StrFormat("folds: expected 2 to 100, found %d", folds));
  }
  if (resamples < 100 || resamples > 100'000) {
    return absl::InvalidArgumentError(absl::StrFormat("resamples: expected 100 to 100000, found %d", resamples));
  }
  return fit.Validate();
}

std::vector<int> RouterFolds(std::span<const RouterOutcome> rows, int n_folds, uint64_t seed) {
  std::map<std::string_view, int> fold_of;
  for (const RouterOutcome& row : rows) fold_of.emplace(row.prompt, 0);
  std::vector<int*> prompts;
  for (auto& [prompt, fold] : fold_of) prompts.push_back(&fold);
  std::mt19937_64 rng(seed);
  for (size_t i = prompts.size(); i > 1; --i) std::swap(prompts[i - 1], prompts[rng() % i]);
  for (size_t i = 0; i < prompts.size(); ++i) *prompts[i] = static_cast<int>(i % static_cast<size_t>(n_folds));
  std::vector<int> folds;
  for (const RouterOutcome& row : rows) folds.push_back(fold_of.at(row.prompt));
  return folds;
}

absl::StatusOr<RouterReport> EvaluateRouter(const std::vector<RouterOutcome>& rows,
                                            const RouterEvaluationOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  if (absl::Status status = CheckOutcomes(rows, "table"); !status.ok()) return status;
  auto scores = HeldOutScores(rows, options);
  if (!scores.ok()) return scores.status();
  std::vector<double> lengths;
  for (const RouterOutcome& row : rows) lengths.push_back(LengthOf(row.prompt));
  const std::pair<const char*, const std::vector<double>*> scorers[] = {
      {"router", &scores->gain}, {"prompt length", &lengths}, {"bag of words", &scores->bag_of_words}};
  std::vector<std::vector<uint32_t>> orders;
  for (const auto& [name, values] : scorers) orders.push_back(RankByScore(rows, *values, options.seed));
  const Bootstrap bootstrap(rows, orders, options.resamples, options.seed);
  const CostCurve router = CurveOf(rows, orders[0]);

  RouterReport report;
  for (size_t i = 0; i < orders.size(); ++i) {
    const CostCurve curve = CurveOf(rows, orders[i]);
    report.rankings.push_back({scorers[i].first,
                               {curve.Apgr(), bootstrap.Of(i, Apgr)},
                               {Cpt50(curve), bootstrap.Of(i, Cpt50)},
                               {Cpt80(curve), bootstrap.Of(i, Cpt80)},
                               {router.Apgr() - curve.Apgr(), bootstrap.LeadOver(i)}});
  }
  report.rankings.push_back(RandomRanking(rows, router, options.seed));
  report.curve = CurveReport(router, bootstrap, orders[0], scores->gain);
  report.n = static_cast<int>(rows.size());
  report.weak = router.weak();
  report.strong = router.strong();
  report.fixable = router.points.back().fixed;
  report.breakable = router.points.back().broken;
  report.folds = options.router == nullptr ? options.folds : 0;
  if (options.router != nullptr) {
    auto fingerprint = FingerprintOf(rows);
    if (!fingerprint.ok()) return fingerprint.status();
    report.seen = options.router->metadata().data_fingerprint == *fingerprint;
  }
  report.resamples = options.resamples;
  report.without_gap = bootstrap.without_gap();
  report.seed = options.seed;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace updraft
