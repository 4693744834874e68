#include "deploy/calibrate/calibrate.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/files/file_error.h"
#include "common/text/field_hasher.h"
#include "deploy/calibrate/exit_thresholds.h"

namespace updraft {
namespace {

AnswerOptions AnswerOptionsOf(const CalibrateOptions& options, ExitMode exit_mode, const std::string& stage) {
  AnswerOptions answer;
  answer.exit_mode = exit_mode;
  answer.max_tokens = options.max_tokens;
  answer.n_workers = options.n_workers;
  answer.adapter = options.adapter;
  answer.chat_template = options.chat_template;
  if (options.on_progress) {
    answer.on_progress = [stage, report = options.on_progress](int done, int total) { report(stage, done, total); };
  }
  return answer;
}

constexpr int kMinLabelled = 50;  // to fit p_right on

struct Outcome {
  double confidence = 0.0;  // cross-fitted
  double kept_by = 0.0;     // on the map of the model that serves, as the threshold is
  double acted_by = 0.0;    // the same of p_right
  bool correct = false;
  bool acts = false;  // it sets or calls something
  bool upstream_correct = true;

  bool as_good() const { return correct || !upstream_correct; }

  // An answer is wrong to keep only where upstream's would have been right.
  RiskSample AsRisk() const { return {kept_by, upstream_correct && !correct ? 1.0 : 0.0}; }
  // Where nobody stands above, only what is acted on can be regretted.
  RiskSample AsActing() const { return {acted_by, acts && !correct ? 1.0 : 0.0}; }
};

std::vector<RiskSample> RisksOf(std::span<const Outcome> outcomes) {
  std::vector<RiskSample> risks;
  for (const Outcome& outcome : outcomes) risks.push_back(outcome.AsRisk());
  return risks;
}

Interval AurocInterval(std::span<const Judged> judged) {
  constexpr int kResamples = 200;
  std::mt19937_64 rng(1);
  std::vector<double> values;
  std::vector<Judged> resample(judged.size());
  for (int r = 0; r < kResamples && !judged.empty(); ++r) {
    for (Judged& j : resample) j = judged[rng() % judged.size()];
    values.push_back(AreaUnderRoc(resample));
  }
  return {Quantile(values, 0.025), Quantile(values, 0.975)};
}

absl::StatusOr<ConfidenceReport> Summarize(std::span<const Outcome> outcomes, double threshold,
                                           const CalibrateOptions& options) {
  ConfidenceReport report;
  const auto risk = RiskAt(RisksOf(outcomes), threshold, {.delta = options.delta});
  if (!risk.ok()) return risk.status();
  report.risk = risk->risk;
  report.risk_bound = risk->upper;
  report.bound = risk->bound;
  report.delta = options.delta;
  report.coverage = risk->coverage();
  report.escalated_share = static_cast<double>(risk->n - risk->n_kept) / static_cast<double>(risk->n);
  report.n = static_cast<int>(outcomes.size());
  report.threshold = threshold;
  report.has_upstream = !options.upstream_answers.empty() || options.judge;
  std::vector<Judged> judged;
  int64_t correct = 0, as_good = 0, upstream = 0, together = 0;
  for (const Outcome& outcome : outcomes) {
    judged.push_back({outcome.confidence, outcome.as_good()});
    const bool kept = outcome.kept_by >= threshold;
    correct += outcome.correct ? 1 : 0;
    as_good += outcome.as_good() ? 1 : 0;
    upstream += outcome.upstream_correct ? 1 : 0;
    together += (kept ? outcome.correct : outcome.upstream_correct) ? 1 : 0;
  }
  const double n = std::max(report.n, 1);
  report.accuracy = correct / n;
  report.as_good = as_good / n;
  report.accuracy_interval = WilsonInterval(correct, report.n);
  report.ece = ExpectedCalibrationError(judged);
  report.auroc = AreaUnderRoc(judged);
  report.auroc_interval = AurocInterval(judged);
  report.upstream_accuracy = upstream / n;
  report.collaborative_accuracy = together / n;
  return report;
}

absl::StatusOr<std::vector<Judgement>> JudgementsOf(std::span<const TaskItem> items,
                                                    std::span<const LocalAnswer> answers,
                                                    const CalibrateOptions& options) {
  if (options.judge) {
    std::vector<Said> said;
    for (const LocalAnswer& answer : answers) said.push_back({answer.text, answer.finished});
    return options.judge(items, said);
  }
  if (!options.upstream_answers.empty() && options.upstream_answers.size() != items.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("upstream_answers: expected one for each of %d items, found %d",
                                                      items.size(), options.upstream_answers.size()));
  }
  std::vector<Judgement> judgements(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].labelled) {
      return absl::InvalidArgumentError(
          absl::StrFormat("item %d: has no answer to judge by; expected one, or an upstream to judge by", i + 1));
    }
    judgements[i].right = IsCorrect(items[i], answers[i].text);
    if (options.upstream_answers.empty()) continue;
    judgements[i].upstream = options.upstream_answers[i];
    judgements[i].upstream_right = IsCorrect(items[i], options.upstream_answers[i]);
  }
  return judgements;
}

std::vector<Outcome> OutcomesOf(std::span<const LocalAnswer> answers, std::span<const Judgement> judgements) {
  std::vector<Outcome> outcomes(answers.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    outcomes[i].correct = judgements[i].right;
    outcomes[i].acts = EffectOf(answers[i].text).acts;
    outcomes[i].upstream_correct = judgements[i].upstream_right;
  }
  return outcomes;
}

absl::StatusOr<std::vector<std::vector<ExitTrace>>> TraceAll(const std::string& model_path,
                                                             std::span<const LocalAnswer> full_answers,
                                                             const CalibrateOptions& options) {
  auto answerer = Answerer::Load(model_path, options.n_workers, options.adapter, options.chat_template);
  if (!answerer.ok()) return answerer.status();
  std::vector<std::vector<ExitTrace>> traces;
  for (const LocalAnswer& answer : full_answers) {
    auto trace = TraceExits(**answerer, answer);
    if (!trace.ok()) return trace.status();
    traces.push_back(*std::move(trace));
    if (options.on_progress) {
      options.on_progress("exits", static_cast<int>(traces.size()), static_cast<int>(full_answers.size()));
    }
  }
  return traces;
}

// Same meaning, whether right or wrong: the exits' answer is judged with the full one as the expected answer.
bool SameMeaning(const TaskItem& item, const std::string& full, const std::string& other) {
  if (full == other) return true;
  if (!item.labelled) return SameAnswer(full, other);
  TaskItem as_expected = item;
  as_expected.expected = full;
  as_expected.accept.reset();
  as_expected.clarify = false;
  return IsCorrect(as_expected, other);
}

double MeanExitLayer(std::span<const LocalAnswer> answers) {
  double layers = 0.0, tokens = 0.0;
  for (const LocalAnswer& answer : answers) {
    layers += answer.mean_exit_layer() * static_cast<double>(answer.evidence.size());
    tokens += static_cast<double>(answer.evidence.size());
  }
  return tokens > 0.0 ? layers / tokens : 0.0;
}

double ChangedShare(std::span<const TaskItem> items, std::span<const LocalAnswer> full,
                    std::span<const LocalAnswer> other) {
  double changed = 0.0;
  for (size_t i = 0; i < items.size(); ++i) changed += SameMeaning(items[i], full[i].text, other[i].text) ? 0.0 : 1.0;
  return items.empty() ? 0.0 : changed / static_cast<double>(items.size());
}

struct AnswersWithExits {
  std::vector<LocalAnswer> answers;
  std::vector<float> fitted_thresholds;  // empty: those of the file
  ExitReport report;
};

// Answers with lossy exits whose thresholds change the meaning of no more answers than the budget allows. Most tokens
// that an exit gets wrong are wording, so thresholds are tried from more changed tokens to fewer; where even the
// strictest change too much, the exits are closed.
absl::StatusOr<AnswersWithExits> AnswerWithExits(const std::string& model_path, const ModelConfig& config,
                                                 std::span<const TaskItem> items, const CalibrateOptions& options) {
  const std::vector<Conversation> conversations = ConversationsOf(items);
  auto full = AnswerAll(model_path, conversations, AnswerOptionsOf(options, ExitMode::kOff, "full depth"));
  if (!full.ok()) return full.status();
  std::vector<std::vector<ExitTrace>> traces;
  if (options.fit_exit_thresholds) {
    auto traced = TraceAll(model_path, *full, options);
    if (!traced.ok()) return traced.status();
    traces = *std::move(traced);
  }
  AnswersWithExits result;
  constexpr float kNever = 2.0f;  // no probability reaches it
  for (const double looseness : {4.0, 1.0, 0.25, 0.0}) {
    AnswerOptions answer_options = AnswerOptionsOf(options, ExitMode::kLossy, "early exits");
    if (options.fit_exit_thresholds) {
      result.fitted_thresholds = looseness > 0.0 ? ChooseExitThresholds(traces, looseness * options.exit_budget)
                                                 : std::vector<float>(config.exit_layers.size(), kNever);
      answer_options.exit_thresholds = result.fitted_thresholds;
    }
    auto answers = AnswerAll(model_path, conversations, answer_options);
    if (!answers.ok()) return answers.status();
    result.answers = *std::move(answers);
    result.report.changed_share = ChangedShare(items, *full, result.answers);
    if (!options.fit_exit_thresholds || result.report.changed_share <= options.exit_budget) break;
  }
  double full_correct = 0.0, n_labelled = 0.0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].labelled) continue;
    n_labelled += 1.0;
    full_correct += IsCorrect(items[i], (*full)[i].text) ? 1.0 : 0.0;
  }
  result.report.layers = config.exit_layers;
  result.report.thresholds = options.fit_exit_thresholds ? result.fitted_thresholds : config.exit_thresholds;
  result.report.full_accuracy = n_labelled > 0.0 ? full_correct / n_labelled : 0.0;
  result.report.mean_exit_layer = MeanExitLayer(result.answers);
  result.report.n_layer = config.n_layer;
  return result;
}

// guaranteed: not overruled by the limit on what may be handed over.
absl::StatusOr<double> ThresholdFor(std::span<const Outcome> outcomes, const CalibrateOptions& options,
                                    bool* guaranteed) {
  const auto choice = ChooseKeepThreshold(RisksOf(outcomes), {.max_risk = options.max_loss, .delta = options.delta});
  if (!choice.ok()) return choice.status();
  double threshold = choice->threshold;
  if (options.max_escalated < 1.0) {
    std::vector<double> confidences;
    for (const Outcome& outcome : outcomes) confidences.push_back(outcome.kept_by);
    // Of n answers below a quantile q, q * n are handed over.
    threshold = std::min(threshold, Quantile(confidences, options.max_escalated));
  }
  *guaranteed = threshold >= choice->threshold;
  return threshold;
}

// Fits confidence and threshold on answers that are judged already; fills `outcomes` with confidences.
absl::StatusOr<ConfidenceModel> FitConfidence(std::span<const LocalAnswer> answers, const CalibrateOptions& options,
                                              std::string_view acts, std::vector<Outcome>& outcomes,
                                              GuaranteeReport* guarantee) {
  std::vector<ConfidenceModel::Sample> samples;
  for (size_t i = 0; i < answers.size(); ++i) samples.push_back({answers[i].Features(acts), outcomes[i].as_good()});
  auto model = ConfidenceModel::Fit(samples);
  if (!model.ok()) return model.status();
  auto predicted = ConfidenceModel::CrossFit(samples);
  if (!predicted.ok()) return predicted.status();
  auto held_out = model->HeldOutConfidences(samples);
  if (!held_out.ok()) return held_out.status();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    outcomes[i].confidence = (*predicted)[i];
    outcomes[i].kept_by = (*held_out)[i];
  }
  auto threshold = ThresholdFor(outcomes, options, &guarantee->holds);
  if (!threshold.ok()) return threshold.status();
  guarantee->max_loss = options.max_loss;
  guarantee->delta = options.delta;
  model->set_threshold(*threshold);
  return model;
}

// How likely an answer is to be right, whoever else may be, with the threshold below which one that acts gives way to a
// question. Fills `outcomes` with what that is chosen on.
// Of answers whose items have a label.
absl::StatusOr<ConfidenceModel> FitAskBack(std::span<const LocalAnswer> answers, const CalibrateOptions& options,
                                           std::string_view acts, std::vector<Outcome> outcomes,
                                           AskBackReport* report) {
  std::vector<ConfidenceModel::Sample> samples;
  for (size_t i = 0; i < answers.size(); ++i) samples.push_back({answers[i].Features(acts), outcomes[i].correct});
  auto p_right = ConfidenceModel::Fit(samples);
  if (!p_right.ok()) return p_right.status();
  auto held_out = p_right->HeldOutConfidences(samples);
  if (!held_out.ok()) return held_out.status();
  for (size_t i = 0; i < outcomes.size(); ++i) outcomes[i].acted_by = (*held_out)[i];
  std::vector<RiskSample> risks;
  for (const Outcome& outcome : outcomes) risks.push_back(outcome.AsActing());
  const auto choice = ChooseKeepThreshold(risks, {.max_risk = options.max_wrong, .delta = options.delta});
  if (!choice.ok()) return choice.status();
  const auto risk = RiskAt(risks, choice->threshold, {.delta = options.delta});
  if (!risk.ok()) return risk.status();
  report->threshold = choice->threshold;
  report->max_wrong = options.max_wrong;
  report->acted_wrong = risk->risk;
  report->wrong_bound = risk->upper;
  const double one = 1.0 / static_cast<double>(std::max<size_t>(outcomes.size(), 1));
  for (const Outcome& outcome : outcomes) {
    if (!outcome.acts) continue;
    const bool asks = outcome.acted_by < choice->threshold;
    report->acted += asks ? 0.0 : one;
    report->asked_back += asks ? one : 0.0;
    report->asked_right += asks && outcome.correct ? one : 0.0;
  }
  p_right->set_threshold(choice->threshold);
  return p_right;
}

// The task that the model's answers act on; empty: they are text.
absl::StatusOr<std::string> ActsOf(const gguf::File& model, const CalibrateOptions& options) {
  if (!options.acts.empty()) return options.acts;
  const auto said_by = [](const gguf::File& file) -> absl::StatusOr<std::string> {
    const auto task = file.GetStringOr("updraft.acts", "");
    if (!task.ok()) return task.status();
    return std::string(*task);
  };
  if (options.adapter.empty()) return said_by(model);
  const auto adapter = gguf::File::Open(options.adapter);
  if (!adapter.ok()) return adapter.status();
  auto task = said_by(*adapter);
  return task.ok() && task->empty() ? said_by(model) : task;
}

int NumLabelled(std::span<const TaskItem> items) {
  return static_cast<int>(
      std::count_if(items.begin(), items.end(), [](const TaskItem& item) { return item.labelled; }));
}

// Of what belongs to the items, in their order, what belongs to those that have a label.
template <typename T>
std::vector<T> Labelled(std::span<const TaskItem> items, std::span<const T> values) {
  std::vector<T> labelled;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].labelled) labelled.push_back(values[i]);
  }
  return labelled;
}

// Against an upstream: in its terms, and what would help.
absl::Status CheckBothKinds(std::span<const Outcome> outcomes, const CalibrateOptions& options) {
  const auto n_good =
      std::count_if(outcomes.begin(), outcomes.end(), [](const Outcome& outcome) { return outcome.as_good(); });
  if (!options.judge || (n_good > 0 && static_cast<size_t>(n_good) < outcomes.size())) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "calibration: expected answers as good as upstream's and worse ones among the %d, found only %s; give %s",
      outcomes.size(), n_good > 0 ? "as good ones" : "worse ones",
      n_good > 0 ? "harder prompts, or an upstream that does better" : "easier prompts"));
}

// As the agent gives them. Fills what is known of exits.
absl::StatusOr<std::vector<LocalAnswer>> AnswersToFitOn(const std::string& model_path, const gguf::File& file,
                                                        std::span<const TaskItem> items,
                                                        const CalibrateOptions& options, Calibration* result) {
  auto config = ModelConfig::FromGguf(file);
  if (!config.ok()) return AsFileError(config.status());
  if (options.exit_mode != ExitMode::kLossy || config->exit_layers.empty()) {
    return AnswerAll(model_path, ConversationsOf(items), AnswerOptionsOf(options, options.exit_mode, "with evidence"),
                     options.store);
  }
  auto with_exits = AnswerWithExits(model_path, *config, items, options);
  if (!with_exits.ok()) return with_exits.status();
  result->exit_thresholds = std::move(with_exits->fitted_thresholds);
  result->report.exits = std::move(with_exits->report);
  return std::move(with_exits->answers);
}

// Confidence, where to ask back, and what is said of both.
absl::Status FitAll(std::span<const TaskItem> items, std::span<const LocalAnswer> answers,
                    const CalibrateOptions& options, Calibration* result) {
  auto judgements = JudgementsOf(items, answers, options);
  if (!judgements.ok()) return judgements.status();
  std::vector<Outcome> outcomes = OutcomesOf(answers, *judgements);
  if (absl::Status status = CheckBothKinds(outcomes, options); !status.ok()) return status;
  auto confidence = FitConfidence(answers, options, result->acts, outcomes, &result->report.guarantee);
  if (!confidence.ok()) return confidence.status();
  auto fingerprint = FingerprintOf(items);
  if (!fingerprint.ok()) return fingerprint.status();
  confidence->set_data_fingerprint(*fingerprint);
  if (!result->acts.empty() && !result->report.p_right_stays) {
    auto p_right = FitAskBack(Labelled<LocalAnswer>(items, answers), options, result->acts,
                              Labelled<Outcome>(items, outcomes), &result->report.ask_back.emplace());
    if (!p_right.ok()) return p_right.status();
    result->p_right = *std::move(p_right);
    result->p_right->set_data_fingerprint(*fingerprint);
  }
  auto summary = Summarize(outcomes, confidence->threshold(), options);
  if (!summary.ok()) return summary.status();
  result->report.confidence = *std::move(summary);
  result->report.confidence.n_unlabelled = static_cast<int>(items.size()) - NumLabelled(items);
  GuaranteeReport& guarantee = result->report.guarantee;
  guarantee.n = static_cast<int>(items.size());
  guarantee.likelihood_margin = options.likelihood_margin;
  for (const Judgement& judgement : *judgements) guarantee.n_by_likelihood += judgement.by == JudgedBy::kLikelihood;
  result->report.data_fingerprint = *fingerprint;
  for (size_t i = 0; i < answers.size(); ++i) {
    result->report.answers.push_back({answers[i].text, outcomes[i].confidence, outcomes[i].kept_by, (*judgements)[i]});
  }
  result->confidence = *std::move(confidence);
  return absl::OkStatus();
}

}  // namespace

absl::Status CalibrateOptions::Validate() const {
  const std::pair<const char*, double> shares[] = {
      {"exit_budget", exit_budget}, {"max_loss", max_loss}, {"max_wrong", max_wrong}, {"delta", delta}};
  for (const auto& [name, value] : shares) {
    if (!(value > 0.0 && value < 1.0)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: expected a number between 0 and 1, found %g", name, value));
    }
  }
  if (!acts.empty() && acts != "cockpit") {
    return absl::InvalidArgumentError(absl::StrFormat("acts: expected cockpit, found '%s'", acts));
  }
  if (!(max_escalated > 0.0 && max_escalated <= 1.0)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_escalated: expected a number above 0 and at most 1, found %g", max_escalated));
  }
  AnswerOptions answer;
  answer.max_tokens = max_tokens;
  answer.n_workers = n_workers;
  return answer.Validate();
}

absl::StatusOr<Calibration> Calibrate(const std::string& model_path, std::span<const TaskItem> items,
                                      const CalibrateOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  const auto start = std::chrono::steady_clock::now();
  auto file = gguf::File::Open(model_path);
  if (!file.ok()) return file.status();
  auto acts = ActsOf(*file, options);
  if (!acts.ok()) return AsFileError(acts.status());
  Calibration result;
  result.acts = *acts;
  result.report.p_right_stays = !acts->empty() && NumLabelled(items) < kMinLabelled;
  if (result.report.p_right_stays && !options.acts.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("acts: when to ask back is fitted on labels: expected at least %d items with one, found %d",
                        kMinLabelled, NumLabelled(items)));
  }
  CalibrateOptions with = options;
  with.fit_exit_thresholds = options.fit_exit_thresholds && !result.report.p_right_stays;
  auto answers = AnswersToFitOn(model_path, *file, items, with, &result);
  if (!answers.ok()) return answers.status();
  if (absl::Status status = FitAll(items, *answers, options, &result); !status.ok()) return status;
  result.report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

absl::Status WriteCalibration(const Calibration& calibration, const std::string& model_path, const std::string& adapter,
                              const std::string& out_path) {
  auto file = gguf::File::Open(adapter.empty() ? model_path : adapter);
  if (!file.ok()) return file.status();
  return CopyWithMetadata(*file, out_path, [&](gguf::Writer& writer) {
    if (!calibration.exit_thresholds.empty()) writer.SetF32s("updraft.exit.thresholds", calibration.exit_thresholds);
    calibration.confidence.AddTo(writer);
    if (!calibration.p_right) return;
    writer.SetString("updraft.acts", calibration.acts);
    calibration.p_right->AddTo(writer, ConfidenceModel::Meaning::kRight);
  });
}

absl::StatusOr<CalibrationReport> CalibrateFile(const std::string& model_path, const std::string& out_path,
                                                std::span<const TaskItem> items, const CalibrateOptions& options) {
  auto calibration = Calibrate(model_path, items, options);
  if (!calibration.ok()) return calibration.status();
  const absl::Status written = WriteCalibration(*calibration, model_path, options.adapter, out_path);
  if (!written.ok()) return written;
  return std::move(calibration->report);
}

absl::StatusOr<ConfidenceReport> EvaluateConfidence(const std::string& model_path, std::span<const TaskItem> items,
                                                    const CalibrateOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto file = gguf::File::Open(options.adapter.empty() ? model_path : options.adapter);
  if (!file.ok()) return file.status();
  auto model = ConfidenceModel::FromGguf(*file);
  if (!model.ok()) return AsFileError(model.status());
  const auto acts = ActsOf(*file, options);
  if (!acts.ok()) return AsFileError(acts.status());
  auto answers = AnswerAll(model_path, ConversationsOf(items),
                           AnswerOptionsOf(options, options.exit_mode, "with evidence"), options.store);
  if (!answers.ok()) return answers.status();
  auto judgements = JudgementsOf(items, *answers, options);
  if (!judgements.ok()) return judgements.status();
  std::vector<Outcome> outcomes = OutcomesOf(*answers, *judgements);
  for (size_t i = 0; i < items.size(); ++i) {
    outcomes[i].confidence = outcomes[i].kept_by = model->Predict((*answers)[i].Features(*acts));
  }
  auto report = Summarize(outcomes, model->threshold(), options);
  if (!report.ok()) return report.status();
  report->calibrated = model->calibrated();
  report->n_unlabelled = static_cast<int>(items.size()) - NumLabelled(items);
  return report;
}

absl::StatusOr<std::string> FingerprintOf(std::span<const TaskItem> items) {
  text::FieldHasher hasher;
  for (const TaskItem& item : items) {
    for (const text::ChatMessage& message : item.messages) {
      hasher.Add(message.role);
      hasher.Add(message.content);
    }
    hasher.Add(item.expected);
  }
  return hasher.Finish();
}

absl::Status CopyWithMetadata(const gguf::File& from, const std::string& to_path,
                              const std::function<void(gguf::Writer&)>& change) {
  gguf::WriterOptions options;
  options.alignment = from.alignment();
  auto writer = gguf::Writer::Create(to_path, options);
  if (!writer.ok()) return writer.status();
  writer->CopyMetadata(from);
  change(*writer);
  for (const gguf::TensorInfo& tensor : from.tensors()) {
    writer->AddTensor(tensor.name, tensor.type, std::span(tensor.dims).first(tensor.n_dims));
  }
  for (const gguf::TensorInfo& tensor : from.tensors()) {
    if (absl::Status status = writer->AppendTensorData(tensor.name, tensor.data); !status.ok()) return status;
  }
  if (absl::Status status = from.CheckIntact(); !status.ok()) return status;
  return writer->Finish();
}

}  // namespace updraft
