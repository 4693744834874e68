// Evidence of a locally generated answer -> one calibrated number: P(this answer is as good as the upstream's).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"

namespace updraft {

// What is known about an answer (or its part so far): finite, whatever the evidence holds. Names and order are part of
// the file format. A file fitted before one was there loads and predicts what it did then, one that names another is
// refused: a feature that comes to mean something else gets another name, and none goes.
struct AnswerFeatures {
  static constexpr int kCount = 23;
  std::array<float, kCount> values{};
  static std::span<const std::string_view> Names();  // kCount names, stored beside the weights and checked at load
};

struct PromptFeatures {
  int n_prompt_tokens = 0;
  int n_turns = 1;   // user turns of the conversation
  int n_digits = 0;  // decimal digits in the last user message
};

// What in an answer acts, where answers do (common/serving/disposition_rule.h): how the reply around it is worded says
// little of whether it is right.
struct AnswerShape {
  size_t acting_bytes = static_cast<size_t>(-1);  // of the text, from its start; the default: all of it
  int n_settings = 0;
  bool calls = false, refuses = false;
};

// evidence: one entry per generated token of the answer, in order, the end-of-generation token included when there was
// one; n_layer: of the model that gave it. An answer without tokens gets the features of a hopeless one.
AnswerFeatures FeaturesOf(std::span<const TokenEvidence> evidence, const PromptFeatures& prompt, int n_layer,
                          const AnswerShape& shape = {});

// Counts what FeaturesOf needs to know of a conversation. user_messages: contents of the user's turns, oldest first.
PromptFeatures PromptFeaturesOf(std::span<const std::string_view> user_messages, int n_prompt_tokens);

// Logistic regression on standardized features followed by an isotonic map (Zadrozny & Elkan 2002), fitted on held-out
// answers of this very file and quantization. Immutable but for the two setters; thread-safe to read.
class ConfidenceModel {
 public:
  struct Sample {
    AnswerFeatures features;
    bool correct = false;  // as good as the upstream's answer, or right: what is to be predicted
  };

  // Uncalibrated fallback for files that carry none: the geometric mean of the chosen tokens' probabilities, threshold
  // 0.5.
  static ConfidenceModel Uncalibrated();
  // What the probability is of. A file may hold one of each, under keys of their own.
  enum class Meaning : uint8_t {
    kAsGoodAsUpstream,  // updraft.confidence.*: what an answer is kept or handed over by
    kRight,             // updraft.p_right.*: this answer is right, whoever else may be; below its threshold a tier that
                        // nobody stands above asks back
  };
  // NotFound-free: a file without the keys gives Uncalibrated(); damaged metadata is InvalidArgument.
  static absl::StatusOr<ConfidenceModel> FromGguf(const gguf::File& file, Meaning meaning = Meaning::kAsGoodAsUpstream);
  // L2-regularized Newton fit, isotonic regression on out-of-fold scores. Deterministic. The threshold is left at 0.5.
  // InvalidArgument with fewer than 50 samples or a single class.
  static absl::StatusOr<ConfidenceModel> Fit(std::span<const Sample> samples);
  // For each sample the prediction of a model that never saw it (5 folds): what ECE and AUROC are to be taken from when
  // all samples are needed for the fit. Same errors as Fit.
  static absl::StatusOr<std::vector<double>> CrossFit(std::span<const Sample> samples);

  // For each sample that this model was fitted on, in their order, the confidence that its own map gives to the score
  // of a logistic part that never saw the sample (the fit's folds): what the threshold is to be chosen on. CrossFit's
  // are of five maps, each a little off this one, and a threshold chosen on those means another share kept on this one.
  // Same errors as Fit.
  absl::StatusOr<std::vector<double>> HeldOutConfidences(std::span<const Sample> samples) const;

  bool calibrated() const { return calibrated_; }
  // In [0, 1]; below 1 when calibrated, so that a threshold of 1 hands everything over.
  double Predict(const AnswerFeatures& features) const;
  double threshold() const { return threshold_; }  // hand over below it; chosen after the fit, see risk_control.h
  void set_threshold(double threshold) { threshold_ = threshold; }
  const std::string& data_fingerprint() const { return data_fingerprint_; }
  void set_data_fingerprint(std::string fingerprint) { data_fingerprint_ = std::move(fingerprint); }

  // What a GGUF file holds of it, under the keys updraft.confidence.{version,names,mean,scale,weights,isotonic_x,
  // isotonic_y,threshold,data_fingerprint}, or the same of updraft.p_right.
  struct Metadata {
    std::vector<std::string> names;             // of AnswerFeatures, in that order; perhaps not all of them
    std::vector<float> mean, scale, weights;    // one per name; weights: the intercept last, beside these
    std::vector<float> isotonic_x, isotonic_y;  // knots: x strictly ascending (log-odds), y not descending, in (0, 1)
    float threshold = 0.0f;
    std::string data_fingerprint;
  };
  static constexpr uint32_t kVersion = 1;
  Metadata ToMetadata() const;
  // Sets the keys, before the writer's first tensor data.
  void AddTo(gguf::Writer& writer, Meaning meaning = Meaning::kAsGoodAsUpstream) const;
  // The inverse of ToMetadata. InvalidArgument names the field that cannot be used.
  static absl::StatusOr<ConfidenceModel> FromMetadata(const Metadata& metadata);

 private:
  double Score(const AnswerFeatures& features) const;  // log-odds of the logistic part
  double Map(double score) const;                      // isotonic

  bool calibrated_ = false;
  std::array<float, AnswerFeatures::kCount> mean_{}, scale_{};
  std::array<float, AnswerFeatures::kCount + 1> weights_{};
  std::vector<float> isotonic_x_, isotonic_y_;
  double threshold_ = 0.5;
  std::string data_fingerprint_;
};

// One answer as it was predicted and as it turned out.
struct Judged {
  double confidence = 0.0;
  bool correct = false;
};

// Expected calibration error (Naeini et al. 2015) over `n_bins` equal-mass bins (0 without answers), and area under the
// ROC curve (ties count half; 0.5 when there is one class only).
double ExpectedCalibrationError(std::span<const Judged> answers, int n_bins = 10);
double AreaUnderRoc(std::span<const Judged> answers);

}  // namespace updraft
