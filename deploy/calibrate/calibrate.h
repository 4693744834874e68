// Calibrates a model file on held-out conversations: which tokens may leave early, what the evidence of an answer says
// of it being right, and below which confidence it is handed over. The results become metadata of a new file.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/routing/confidence.h"
#include "common/routing/risk_control.h"
#include "deploy/calibrate/judge.h"
#include "deploy/task/task.h"

namespace updraft {

struct CalibrateOptions {
  // Applied beside the model (LoadOptions::adapter); then it is the adapter that carries the calibration. Empty: none.
  std::string adapter;
  std::string chat_template;  // AnswerOptions::chat_template; the daemon is to be started with the same
  // ---- Behaviour ----
  ExitMode exit_mode = ExitMode::kLossy;  // the agent's: confidence is fitted on answers made this way
  bool fit_exit_thresholds = true;        // of a model with exits; otherwise those of the file stay
  double exit_budget = 0.005;             // share of answers that lossy exits may change
  // The threshold (common/routing/risk_control.h): of all requests, at most this share may be kept and wrong where
  // upstream would have been right, with probability 1 - delta. Answers that are right where upstream is wrong are no
  // credit against it: together the tiers are then at most max_loss less accurate than upstream alone, often better.
  double max_loss = 0.01;
  double delta = 0.05;
  // The task that the model's answers act on ("cockpit"), which the file then declares; empty: what the file says.
  std::string acts;
  // Of a model whose answers act: below which probability of being right it asks back where nobody stands above it. Of
  // all requests, at most this share is acted on wrongly, with probability 1 - delta.
  double max_wrong = 0.05;
  double max_escalated = 1.0;  // but no more than this share is handed over, whatever that costs; in (0, 1]
  int max_tokens = 256;        // of an answer
  // The upstream's answers to the same items, one each; empty: it is taken to be always right, which makes the
  // threshold stricter: every wrong answer counts.
  std::vector<std::string> upstream_answers;
  // Judges the answers, one judgement per item, in place of labels and upstream_answers, and is needed where an item
  // has no label. Empty: labels do.
  std::function<absl::StatusOr<std::vector<Judgement>>(std::span<const TaskItem>, std::span<const Said>)> judge;
  // What judge counts as nearly as likely; for the report alone.
  double likelihood_margin = 0.0;
  // ---- Performance ----
  AnswerStore* store = nullptr;  // of answers of a model without exits; null: none
  int n_workers = 2;
  std::function<void(const std::string& stage, int done, int total)> on_progress;  // may be empty

  absl::Status Validate() const;
};

struct ConfidenceReport {
  int n = 0;
  int n_unlabelled = 0;   // of these upstream is the measure: right means as good as upstream's
  double as_good = 0.0;   // share that is as good as upstream's, also where both are wrong
  double accuracy = 0.0;  // of this model alone
  Interval accuracy_interval;
  double ece = 0.0, auroc = 0.0;  // of being as good as upstream's, on answers that the fit did not see
  Interval auroc_interval;        // bootstrap, 95 %
  double threshold = 0.0;
  double risk = 0.0;        // share of all that is kept although wrong (and, where upstream is known, upstream right)
  double risk_bound = 0.0;  // upper bound of it at 1 - delta
  RiskBound bound = RiskBound::kClopperPearson;  // which one
  double delta = 0.0;
  double coverage = 0.0;           // share kept
  double escalated_share = 0.0;    // below the threshold
  double upstream_accuracy = 0.0;  // 1 where upstream is taken to be always right
  double collaborative_accuracy = 0.0;
  bool has_upstream = false;
  bool calibrated = true;  // false: the file carries no calibration
};

struct ExitReport {
  std::vector<int> layers;
  std::vector<float> thresholds;
  double changed_share = 0.0;    // answers whose meaning lossy exits changed, measured by running both
  double mean_exit_layer = 0.0;  // over tokens
  double full_accuracy = 0.0;    // without exits
  int n_layer = 0;
};

// What the choice of the threshold promises.
struct GuaranteeReport {
  double max_loss = 0.0, delta = 0.0;
  // False where max_escalated decided the threshold instead: then nothing is promised.
  bool holds = false;
  int n = 0, n_by_likelihood = 0;  // answers, and those of them that are taken for what likelihood says of them
  double likelihood_margin = 0.0;
  static std::string_view Assumes();  // of any calibration, in words
  std::string Provided() const;       // of this one
};

// Of a model whose answers act, alone.
struct AskBackReport {
  double threshold = 0.0;  // on p_right
  double max_wrong = 0.0;
  double acted = 0.0;        // shares of all: acted on,
  double acted_wrong = 0.0;  // acted on and wrong,
  double wrong_bound = 0.0;  // of which at most, with probability 1 - delta,
  double asked_back = 0.0;   // it would have acted, and asks back,
  double asked_right = 0.0;  // and was right to begin with
};

// One answer that it was fitted on.
struct CalibratedAnswer {
  std::string text;
  double confidence = 0.0;  // of a model that did not see it
  double kept_by = 0.0;     // what the threshold was chosen on
  Judgement judgement;
};

struct CalibrationReport {
  ConfidenceReport confidence;            // cross-fitted
  std::vector<CalibratedAnswer> answers;  // one per item; not in the text and the JSON
  GuaranteeReport guarantee;
  std::optional<AskBackReport> ask_back;  // none: the model's answers are text, or p_right is what it was
  // The answers act, and too few of the items have a label to fit p_right on: what the file says of it stays, and so do
  // its exits, which that was fitted with.
  bool p_right_stays = false;
  ExitReport exits;              // layers empty: the model has none, or exits are off
  std::string data_fingerprint;  // of the items
  double seconds = 0.0;
};

struct Calibration {
  ConfidenceModel confidence = ConfidenceModel::Uncalibrated();
  std::optional<ConfidenceModel> p_right;  // of a model whose answers act: its threshold is where it asks back
  std::string acts;                        // the task that they are of
  std::vector<float> exit_thresholds;      // empty: unchanged
  CalibrationReport report;
};

// Runs the model over the items and fits. Nothing is written. InvalidArgument as ConfidenceModel::Fit.
absl::StatusOr<Calibration> Calibrate(const std::string& model_path, std::span<const TaskItem> items,
                                      const CalibrateOptions& options);

// Writes what was found into a new file at out_path: a copy of the model, or of the adapter where there is one
// (out_path may be that very file: it is replaced as a whole).
absl::Status WriteCalibration(const Calibration& calibration, const std::string& model_path, const std::string& adapter,
                              const std::string& out_path);

// Calibrate, then a new file at out_path: a copy of the model, or of the adapter where there is one, with the results
// (out_path may be that very file: it is replaced as a whole).
absl::StatusOr<CalibrationReport> CalibrateFile(const std::string& model_path, const std::string& out_path,
                                                std::span<const TaskItem> items, const CalibrateOptions& options);

// How the calibration that a file carries does on items, which should be others than it was fitted on. Uses of the
// options what is not about fitting: adapter, exit mode, delta, how answers are judged, the store, workers.
absl::StatusOr<ConfidenceReport> EvaluateConfidence(const std::string& model_path, std::span<const TaskItem> items,
                                                    const CalibrateOptions& options);

// Of the conversations and what is expected of each.
absl::StatusOr<std::string> FingerprintOf(std::span<const TaskItem> items);

// Copies a model file with some metadata replaced or added: `change` is called after the old metadata was set and may
// set more.
absl::Status CopyWithMetadata(const gguf::File& from, const std::string& to_path,
                              const std::function<void(gguf::Writer&)>& change);

std::string ToJson(const ConfidenceReport& report);
std::string ToJson(const CalibrationReport& report);
std::string ToText(const ConfidenceReport& report);
std::string ToText(const CalibrationReport& report);

}  // namespace updraft
