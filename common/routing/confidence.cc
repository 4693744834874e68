#include "common/routing/confidence.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace updraft {
namespace {

constexpr int kFeatures = AnswerFeatures::kCount;
constexpr int kWeights = kFeatures + 1;
constexpr int kFolds = 5;
constexpr size_t kMinSamples = 50;
constexpr size_t kMaxKnots = 100000;
constexpr double kL2 = 1.0;            // pull of each standardized weight towards 0, in units of one sample's curvature
constexpr double kLogitShare = 0.03;   // of the logistic itself in the isotonic map: keeps the order inside a plateau
constexpr double kClip = 5e-4;         // predictions stay this far from 0 and 1
constexpr size_t kMaxShownBytes = 64;  // of a file's name for something

using Weights = std::array<double, kWeights>;

double Sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x)); }

struct Logistic {
  std::array<double, kFeatures> mean{}, scale{};
  Weights weights{};

  std::array<double, kWeights> Standardize(const AnswerFeatures& features) const {
    std::array<double, kWeights> x;
    for (int i = 0; i < kFeatures; ++i) {
      // Four deviations: a prompt unlike any seen at fit time must not swing the sum by one feature alone.
      x[i] = std::clamp((static_cast<double>(features.values[i]) - mean[i]) / scale[i], -4.0, 4.0);
    }
    x[kFeatures] = 1.0;
    return x;
  }
  double Score(const AnswerFeatures& features) const {
    const auto x = Standardize(features);
    return std::inner_product(x.begin(), x.end(), weights.begin(), 0.0);
  }
};

// Solves a * x = b in place for symmetric positive definite a (Cholesky). The L2 term keeps a's eigenvalues above 0.
void SolvePositiveDefinite(std::array<Weights, kWeights>& a, Weights& b) {
  for (int j = 0; j < kWeights; ++j) {
    for (int k = 0; k < j; ++k) a[j][j] -= a[j][k] * a[j][k];
    a[j][j] = std::sqrt(std::max(a[j][j], 1e-12));
    for (int i = j + 1; i < kWeights; ++i) {
      for (int k = 0; k < j; ++k) a[i][j] -= a[i][k] * a[j][k];
      a[i][j] /= a[j][j];
    }
  }
  for (int i = 0; i < kWeights; ++i) {
    for (int k = 0; k < i; ++k) b[i] -= a[i][k] * b[k];
    b[i] /= a[i][i];
  }
  for (int i = kWeights - 1; i >= 0; --i) {
    for (int k = i + 1; k < kWeights; ++k) b[i] -= a[k][i] * b[k];
    b[i] /= a[i][i];
  }
}

using SampleRefs = std::vector<const ConfidenceModel::Sample*>;

void FitScaling(const SampleRefs& samples, Logistic& model) {
  const double n = static_cast<double>(samples.size());
  for (int i = 0; i < kFeatures; ++i) {
    double sum = 0.0, squares = 0.0;
    for (const auto* sample : samples) sum += sample->features.values[i];
    const double mean = sum / n;
    for (const auto* sample : samples) squares += std::pow(sample->features.values[i] - mean, 2.0);
    const double deviation = std::sqrt(squares / n);
    model.mean[i] = static_cast<float>(mean);  // as the file will hold it
    model.scale[i] = static_cast<float>(deviation > 1e-6 ? deviation : 1.0);
  }
}

// Penalized log-likelihood, to halve a Newton step that overshoots.
double Objective(const SampleRefs& samples, const Logistic& model, const Weights& weights) {
  Logistic candidate = model;
  candidate.weights = weights;
  double value = 0.0;
  for (const auto* sample : samples) {
    const double z = (sample->correct ? 1.0 : -1.0) * candidate.Score(sample->features);
    value += z > 0 ? -std::log1p(std::exp(-z)) : z - std::log1p(std::exp(z));
  }
  for (int i = 0; i < kFeatures; ++i) value -= 0.5 * kL2 * weights[i] * weights[i];
  return value;
}

Logistic FitLogistic(const SampleRefs& samples) {
  Logistic model;
  FitScaling(samples, model);
  double objective = Objective(samples, model, model.weights);
  for (int iteration = 0; iteration < 50; ++iteration) {
    Weights gradient{};
    std::array<Weights, kWeights> hessian{};
    for (const auto* sample : samples) {
      const auto x = model.Standardize(sample->features);
      const double p = Sigmoid(std::inner_product(x.begin(), x.end(), model.weights.begin(), 0.0));
      const double residual = (sample->correct ? 1.0 : 0.0) - p, curvature = p * (1.0 - p);
      for (int i = 0; i < kWeights; ++i) {
        gradient[i] += residual * x[i];
        for (int j = 0; j <= i; ++j) hessian[i][j] += curvature * x[i] * x[j];
      }
    }
    for (int i = 0; i < kWeights; ++i) {
      const double l2 = i < kFeatures ? kL2 : 1e-6;  // the intercept is free
      gradient[i] -= l2 * (i < kFeatures ? model.weights[i] : 0.0);
      hessian[i][i] += l2;
    }
    SolvePositiveDefinite(hessian, gradient);  // now the Newton step
    double step = 1.0, gained = 0.0;
    for (; step > 1e-4; step *= 0.5) {
      Weights next = model.weights;
      for (int i = 0; i < kWeights; ++i) next[i] += step * gradient[i];
      const double value = Objective(samples, model, next);
      if (value < objective) continue;
      gained = value - objective;
      objective = value;
      model.weights = next;
      break;
    }
    if (gained < 1e-9) break;
  }
  for (double& weight : model.weights) weight = static_cast<float>(weight);
  return model;
}

// Folds by a hash of the index: samples often come sorted or periodic (family after family), which must not line up
// with them.
int FoldOf(size_t index) {
  uint64_t h = index + 0x9e3779b97f4a7c15ull;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return static_cast<int>((h ^ (h >> 31)) % kFolds);
}

bool HasBothClasses(const SampleRefs& samples) {
  const bool first = samples.empty() ? false : samples.front()->correct;
  return std::any_of(samples.begin(), samples.end(), [&](const auto* sample) { return sample->correct != first; });
}

struct Scored {
  double score = 0.0;
  bool correct = false;
};

// Scores of samples by models that did not see them.
std::vector<Scored> OutOfFoldScores(const SampleRefs& samples, const Logistic& all) {
  std::vector<Scored> scored(samples.size());
  for (int fold = 0; fold < kFolds; ++fold) {
    SampleRefs rest;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (FoldOf(i) != fold) rest.push_back(samples[i]);
    }
    const Logistic model = HasBothClasses(rest) ? FitLogistic(rest) : all;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (FoldOf(i) == fold) scored[i] = {model.Score(samples[i]->features), samples[i]->correct};
    }
  }
  return scored;
}

struct Isotonic {
  std::vector<float> x, y;
};

// Pool adjacent violators, with a least block size so that no plateau rests on a few answers, and Laplace's rule in
// each block so that none claims certainty. Knots at both edges of a block; between blocks the map is a line.
Isotonic FitIsotonic(std::vector<Scored> scored) {
  std::stable_sort(scored.begin(), scored.end(), [](const Scored& a, const Scored& b) { return a.score < b.score; });
  struct Block {
    double low, high;  // scores
    double n, correct;
    double value() const { return (correct + 0.5) / (n + 1.0); }
  };
  const double min_block = std::max(8.0, static_cast<double>(scored.size()) / 100.0);
  std::vector<Block> blocks;
  for (const Scored& s : scored) {
    const bool joins_open_block = !blocks.empty() && (blocks.back().n < min_block || blocks.back().high == s.score);
    if (!joins_open_block) blocks.push_back({s.score, s.score, 0.0, 0.0});
    blocks.back().high = s.score;
    blocks.back().n += 1.0;
    blocks.back().correct += s.correct ? 1.0 : 0.0;
  }
  std::vector<Block> pooled;
  for (const Block& block : blocks) {
    pooled.push_back(block);
    while (pooled.size() > 1 && pooled[pooled.size() - 2].value() >= pooled.back().value()) {
      Block last = pooled.back();
      pooled.pop_back();
      pooled.back().high = last.high;
      pooled.back().n += last.n;
      pooled.back().correct += last.correct;
    }
  }
  Isotonic map;
  for (const Block& block : pooled) {
    for (const double x : {block.low, block.high}) {
      const float knot = static_cast<float>(x);
      if (!map.x.empty() && knot <= map.x.back()) continue;
      const double y = (1.0 - kLogitShare) * block.value() + kLogitShare * Sigmoid(x);
      map.x.push_back(knot);
      map.y.push_back(
          std::max(static_cast<float>(std::clamp(y, kClip, 1.0 - kClip)), map.y.empty() ? 0.0f : map.y.back()));
    }
  }
  return map;
}

absl::StatusOr<SampleRefs> CheckedRefs(std::span<const ConfidenceModel::Sample> samples) {
  if (samples.size() < kMinSamples) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "confidence: expected at least %d judged answers to fit on, found %d; give more calibration examples",
        kMinSamples, samples.size()));
  }
  SampleRefs refs;
  for (const auto& sample : samples) {
    refs.push_back(&sample);
    for (int i = 0; i < kFeatures; ++i) {
      if (std::isfinite(sample.features.values[i])) continue;
      return absl::InvalidArgumentError(absl::StrFormat("confidence: sample %d: feature '%s' is not finite",
                                                        refs.size() - 1, std::string(AnswerFeatures::Names()[i])));
    }
  }
  if (!HasBothClasses(refs)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "confidence: expected right and wrong answers among the %d to fit on, found only %s ones; choose "
        "calibration examples of mixed difficulty",
        refs.size(), refs.front()->correct ? "right" : "wrong"));
  }
  return refs;
}

std::string PrefixOf(ConfidenceModel::Meaning meaning) {
  return meaning == ConfidenceModel::Meaning::kRight ? "updraft.p_right." : "updraft.confidence.";
}

absl::Status BadField(const char* field, const std::string& expected, const std::string& found) {
  return absl::InvalidArgumentError(absl::StrFormat(
      "updraft.confidence.%s: expected %s, found %s; run `updraft calibrate` again", field, expected, found));
}

absl::Status CheckNumbers(const char* field, const std::vector<float>& values, size_t expected_size, bool positive) {
  if (values.size() != expected_size) {
    return BadField(field, absl::StrFormat("%d numbers", expected_size), absl::StrFormat("%d", values.size()));
  }
  for (const float value : values) {
    if (!std::isfinite(value) || (positive && value <= 0.0f)) {
      return BadField(field, positive ? "positive finite numbers" : "finite numbers", absl::StrFormat("%g", value));
    }
  }
  return absl::OkStatus();
}

// Where the names stand among this build's. A file that was fitted before a feature was there lacks its name; the
// others keep their order.
absl::StatusOr<std::vector<int>> PlacesOf(const std::vector<std::string>& names) {
  const auto known = AnswerFeatures::Names();
  std::vector<int> places;
  auto next = known.begin();
  for (const std::string& name : names) {
    const auto found = std::find(next, known.end(), name);
    if (found != known.end()) {
      places.push_back(static_cast<int>(found - known.begin()));
      next = found + 1;
      continue;
    }
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "updraft.confidence.names: '%s' is no feature of this version; serve the file with the version that "
          "calibrated it, or a newer one, or run `updraft calibrate` again",
          absl::CHexEscape(name.substr(0, kMaxShownBytes))));
    }
    return BadField("names", "each feature once, in this version's order",
                    absl::StrFormat("'%s' as number %d", name, places.size() + 1));
  }
  if (places.empty()) return BadField("names", "at least one feature", "none");
  return places;
}

absl::Status CheckMap(const std::vector<float>& x, const std::vector<float>& y) {
  const size_t knots = x.size();
  if (knots < 1 || knots > kMaxKnots) {
    return BadField("isotonic_x", absl::StrFormat("1 to %d knots", kMaxKnots), absl::StrFormat("%d", knots));
  }
  if (auto s = CheckNumbers("isotonic_x", x, knots, false); !s.ok()) return s;
  if (auto s = CheckNumbers("isotonic_y", y, knots, false); !s.ok()) return s;
  for (size_t i = 0; i < knots; ++i) {
    if (y[i] < 0.0f || y[i] >= 1.0f || (i > 0 && y[i] < y[i - 1])) {
      return BadField("isotonic_y", "probabilities below 1 that do not descend",
                      absl::StrFormat("%g at knot %d", y[i], i));
    }
    if (i > 0 && x[i] <= x[i - 1]) {
      return BadField("isotonic_x", "ascending knots", absl::StrFormat("%g at knot %d", x[i], i));
    }
  }
  return absl::OkStatus();
}

}  // namespace

ConfidenceModel ConfidenceModel::Uncalibrated() { return ConfidenceModel(); }

double ConfidenceModel::Score(const AnswerFeatures& features) const {
  Logistic logistic;
  std::copy(mean_.begin(), mean_.end(), logistic.mean.begin());
  std::copy(scale_.begin(), scale_.end(), logistic.scale.begin());
  std::copy(weights_.begin(), weights_.end(), logistic.weights.begin());
  return logistic.Score(features);
}

double ConfidenceModel::Predict(const AnswerFeatures& features) const {
  if (!calibrated_) return std::clamp(std::exp(static_cast<double>(features.values[0])), 0.0, 1.0);
  return Map(Score(features));
}

double ConfidenceModel::Map(double score) const {
  if (!(score > isotonic_x_.front())) return isotonic_y_.front();  // also a score that is no number
  if (score >= isotonic_x_.back()) return isotonic_y_.back();
  const size_t right =
      std::upper_bound(isotonic_x_.begin(), isotonic_x_.end(), static_cast<float>(score)) - isotonic_x_.begin();
  const size_t i = std::clamp<size_t>(right, 1, isotonic_x_.size() - 1);
  const double width = static_cast<double>(isotonic_x_[i]) - isotonic_x_[i - 1];
  const double t = std::clamp((score - isotonic_x_[i - 1]) / width, 0.0, 1.0);
  return isotonic_y_[i - 1] + t * (static_cast<double>(isotonic_y_[i]) - isotonic_y_[i - 1]);
}

absl::StatusOr<ConfidenceModel> ConfidenceModel::Fit(std::span<const Sample> samples) {
  auto refs = CheckedRefs(samples);
  if (!refs.ok()) return refs.status();
  const Logistic logistic = FitLogistic(*refs);
  Isotonic map = FitIsotonic(OutOfFoldScores(*refs, logistic));
  ConfidenceModel model;
  model.calibrated_ = true;
  for (int i = 0; i < kFeatures; ++i) {
    model.mean_[i] = static_cast<float>(logistic.mean[i]);
    model.scale_[i] = static_cast<float>(logistic.scale[i]);
  }
  for (int i = 0; i < kWeights; ++i) model.weights_[i] = static_cast<float>(logistic.weights[i]);
  model.isotonic_x_ = std::move(map.x);
  model.isotonic_y_ = std::move(map.y);
  return model;
}

absl::StatusOr<std::vector<double>> ConfidenceModel::CrossFit(std::span<const Sample> samples) {
  auto refs = CheckedRefs(samples);
  if (!refs.ok()) return refs.status();
  std::vector<double> predicted(samples.size());
  for (int fold = 0; fold < kFolds; ++fold) {
    std::vector<Sample> rest;
    for (size_t i = 0; i < samples.size(); ++i) {
      if (FoldOf(i) != fold) rest.push_back(samples[i]);
    }
    auto model = Fit(rest);
    if (!model.ok()) return model.status();
    for (size_t i = 0; i < samples.size(); ++i) {
      if (FoldOf(i) == fold) predicted[i] = model->Predict(samples[i].features);
    }
  }
  return predicted;
}

absl::StatusOr<std::vector<double>> ConfidenceModel::HeldOutConfidences(std::span<const Sample> samples) const {
  auto refs = CheckedRefs(samples);
  if (!refs.ok()) return refs.status();
  if (!calibrated_) return absl::InvalidArgumentError("confidence: expected a fitted model, found an uncalibrated one");
  std::vector<double> confidences;
  for (const Scored& scored : OutOfFoldScores(*refs, FitLogistic(*refs))) confidences.push_back(Map(scored.score));
  return confidences;
}

ConfidenceModel::Metadata ConfidenceModel::ToMetadata() const {
  Metadata metadata;
  for (const std::string_view name : AnswerFeatures::Names()) metadata.names.emplace_back(name);
  metadata.mean.assign(mean_.begin(), mean_.end());
  metadata.scale.assign(scale_.begin(), scale_.end());
  metadata.weights.assign(weights_.begin(), weights_.end());
  metadata.isotonic_x = isotonic_x_;
  metadata.isotonic_y = isotonic_y_;
  metadata.threshold = static_cast<float>(threshold_);
  if (metadata.threshold < threshold_) {  // rounding must not let more answers through than the bound was computed for
    metadata.threshold = std::nextafter(metadata.threshold, std::numeric_limits<float>::infinity());
  }
  metadata.data_fingerprint = data_fingerprint_;
  return metadata;
}

void ConfidenceModel::AddTo(gguf::Writer& writer, Meaning meaning) const {
  const Metadata metadata = ToMetadata();
  const std::string prefix = PrefixOf(meaning);
  writer.SetU32(prefix + "version", kVersion);
  writer.SetStrings(prefix + "names", std::span<const std::string>(metadata.names));
  writer.SetF32s(prefix + "mean", metadata.mean);
  writer.SetF32s(prefix + "scale", metadata.scale);
  writer.SetF32s(prefix + "weights", metadata.weights);
  writer.SetF32s(prefix + "isotonic_x", metadata.isotonic_x);
  writer.SetF32s(prefix + "isotonic_y", metadata.isotonic_y);
  writer.SetF32(prefix + "threshold", metadata.threshold);
  writer.SetString(prefix + "data_fingerprint", metadata.data_fingerprint);
}

absl::StatusOr<ConfidenceModel> ConfidenceModel::FromMetadata(const Metadata& metadata) {
  const auto places = PlacesOf(metadata.names);
  if (!places.ok()) return places.status();
  const size_t n = places->size();
  if (auto s = CheckNumbers("mean", metadata.mean, n, false); !s.ok()) return s;
  if (auto s = CheckNumbers("scale", metadata.scale, n, true); !s.ok()) return s;
  if (auto s = CheckNumbers("weights", metadata.weights, n + 1, false); !s.ok()) return s;
  if (auto s = CheckMap(metadata.isotonic_x, metadata.isotonic_y); !s.ok()) return s;
  if (!(metadata.threshold >= 0.0f && metadata.threshold <= 1.0f)) {
    return BadField("threshold", "a number in [0, 1]", absl::StrFormat("%g", metadata.threshold));
  }
  ConfidenceModel model;
  model.calibrated_ = true;
  // What the file was not fitted on has no weight: it predicts what it predicted then.
  model.scale_.fill(1.0f);
  for (size_t i = 0; i < n; ++i) {
    const int place = (*places)[i];
    model.mean_[place] = metadata.mean[i];
    model.scale_[place] = metadata.scale[i];
    model.weights_[place] = metadata.weights[i];
  }
  model.weights_.back() = metadata.weights.back();
  model.isotonic_x_ = metadata.isotonic_x;
  model.isotonic_y_ = metadata.isotonic_y;
  model.threshold_ = metadata.threshold;
  model.data_fingerprint_ = metadata.data_fingerprint;
  return model;
}

absl::StatusOr<ConfidenceModel> ConfidenceModel::FromGguf(const gguf::File& file, Meaning meaning) {
  const std::string prefix = PrefixOf(meaning);
  if (!file.Has(prefix + "version")) return Uncalibrated();
  auto version = file.GetU32(prefix + "version");
  if (!version.ok()) return version.status();
  // Of two that a file may hold, errors name the right one.
  const auto named = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrReplaceAll(status.message(), {{"updraft.confidence.", prefix}}));
  };
  if (*version != kVersion) {
    return named(BadField("version", absl::StrFormat("%d", kVersion),
                          absl::StrFormat("%d, which %s", *version,
                                          *version > kVersion ? "a newer version wrote: serve the file with that"
                                                              : "was never given out")));
  }
  Metadata metadata;
  auto names = file.GetStrings(prefix + "names");
  if (!names.ok()) return absl::InvalidArgumentError(std::string(names.status().message()));
  metadata.names.assign(names->begin(), names->end());
  const std::pair<const char*, std::vector<float>*> arrays[] = {{"mean", &metadata.mean},
                                                                {"scale", &metadata.scale},
                                                                {"weights", &metadata.weights},
                                                                {"isotonic_x", &metadata.isotonic_x},
                                                                {"isotonic_y", &metadata.isotonic_y}};
  for (const auto& [key, target] : arrays) {
    auto values = file.GetF32s(prefix + key);
    // A file that names a version and lacks a part of it is damaged, so the key being absent is not "not found" to the
    // caller.
    if (!values.ok()) return absl::InvalidArgumentError(std::string(values.status().message()));
    *target = *std::move(values);
  }
  auto threshold = file.GetF32(prefix + "threshold");
  if (!threshold.ok()) return absl::InvalidArgumentError(std::string(threshold.status().message()));
  metadata.threshold = *threshold;
  auto fingerprint = file.GetStringOr(prefix + "data_fingerprint", "");
  if (!fingerprint.ok()) return fingerprint.status();
  metadata.data_fingerprint = std::string(*fingerprint);
  auto model = FromMetadata(metadata);
  if (!model.ok()) return named(model.status());
  return model;
}

}  // namespace updraft
