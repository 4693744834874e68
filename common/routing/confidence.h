// Evidence of a locally generated answer -> one calibrated number: P(this answer is as good as the upstream's).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/gguf/reader.h"

namespace updraft {

// What is known about an answer (or the part of it generated so far). Order is part of the file format (updraft.confidence.*).
struct AnswerFeatures {
  static constexpr int kCount = 10;
  std::array<float, kCount> values{};
  static std::span<const std::string_view> Names();  // kCount names, stored beside the weights and checked at load
};

struct PromptFeatures {
  int n_prompt_tokens = 0;
  int n_turns = 1;        // user turns of the conversation
  int n_digits = 0;       // decimal digits in the last user message
};

// evidence: one entry per token of the answer, in order; n_layer: of the model that gave it.
AnswerFeatures FeaturesOf(std::span<const TokenEvidence> evidence, const PromptFeatures& prompt, int n_layer);

// Logistic regression on standardized features followed by an isotonic map (Zadrozny & Elkan 2002), fitted on held-out answers of
// this very file and quantization. Immutable; thread-safe.
class ConfidenceModel {
 public:
  struct Sample {
    AnswerFeatures features;
    bool correct = false;      // as good as the upstream's answer
  };

  // Uncalibrated fallback for files that carry none: the geometric mean of the chosen tokens' probabilities.
  static ConfidenceModel Uncalibrated();
  // NotFound-free: a file without updraft.confidence.* gives Uncalibrated(); damaged metadata is InvalidArgument.
  static absl::StatusOr<ConfidenceModel> FromGguf(const gguf::File& file);
  // L2-regularized Newton fit, isotonic regression on out-of-fold scores. Deterministic. InvalidArgument with fewer than 50 samples or
  // a single class.
  static absl::StatusOr<ConfidenceModel> Fit(std::span<const Sample> samples);

  bool calibrated() const { return calibrated_; }
  double Predict(const AnswerFeatures& features) const;  // in [0, 1]
  double threshold() const { return threshold_; }        // hand over below it; chosen at fit time, see ChooseThreshold
  void set_threshold(double threshold) { threshold_ = threshold; }

  // Metadata to be written to a GGUF file. Keys updraft.confidence.{version,names,mean,scale,weights,isotonic_x,isotonic_y,threshold,
  // data_fingerprint}.
  struct Metadata {
    std::vector<std::string> names;
    std::vector<float> mean, scale, weights;  // weights: kCount + 1, the intercept last
    std::vector<float> isotonic_x, isotonic_y;
    float threshold = 0.0f;
    std::string data_fingerprint;
  };
  Metadata ToMetadata() const;
  void set_data_fingerprint(std::string fingerprint) { data_fingerprint_ = std::move(fingerprint); }

 private:
  bool calibrated_ = false;
  std::array<float, AnswerFeatures::kCount> mean_{}, scale_{};
  std::array<float, AnswerFeatures::kCount + 1> weights_{};
  std::vector<float> isotonic_x_, isotonic_y_;
  double threshold_ = 0.0;
  std::string data_fingerprint_;
};

// Expected calibration error (Naeini et al. 2015) over `n_bins` equal-mass bins, and area under the ROC curve (ties count half).
double ExpectedCalibrationError(std::span<const double> confidence, std::span<const bool> correct, int n_bins = 10);
double AreaUnderRoc(std::span<const double> confidence, std::span<const bool> correct);

// The smallest threshold at which P(wrong and kept) <= risk with probability 1 - delta, by the Clopper-Pearson bound on
// held-out samples; 1 (hand everything over) when none satisfies it.
double ChooseThreshold(std::span<const double> confidence, std::span<const bool> correct, double risk, double delta);

}  // namespace updraft
