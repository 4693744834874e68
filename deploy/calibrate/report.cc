#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_format.h"
#include "deploy/calibrate/calibrate.h"

namespace updraft {
namespace {

using nlohmann::json;

json Object(const ConfidenceReport& r) {
  json object = {{"n", r.n},
                 {"accuracy", r.accuracy},
                 {"accuracy_ci95", {r.accuracy_interval.low, r.accuracy_interval.high}},
                 {"ece", r.ece},
                 {"auroc", r.auroc},
                 {"auroc_ci95", {r.auroc_interval.low, r.auroc_interval.high}},
                 {"threshold", r.threshold},
                 {"risk", r.risk},
                 {"risk_bound", r.risk_bound},
                 {"risk_bound_kind", NameOf(r.bound)},
                 {"delta", r.delta},
                 {"coverage", r.coverage},
                 {"escalated_share", r.escalated_share},
                 {"calibrated", r.calibrated}};
  if (r.has_upstream) object["as_good_as_upstream"] = r.as_good;
  // Without a label nobody knows what is right, alone or together.
  if (r.n_unlabelled > 0) {
    object.erase("accuracy");
    object.erase("accuracy_ci95");
    object["n_unlabelled"] = r.n_unlabelled;
    return object;
  }
  object["collaborative_accuracy"] = r.collaborative_accuracy;
  if (r.has_upstream) object["upstream_accuracy"] = r.upstream_accuracy;
  return object;
}

json Object(const GuaranteeReport& r) {
  return {{"max_loss", r.max_loss}, {"delta", r.delta}, {"holds", r.holds}, {"assumes", r.Provided()}};
}

}  // namespace

std::string_view GuaranteeReport::Assumes() {
  return "requests come like those of the calibration, independently; the confidence that serves ranks like the "
         "cross-fitted ones that the threshold was chosen on; one choice per set of requests";
}

std::string GuaranteeReport::Provided() const {
  std::string provided(Assumes());
  if (n_by_likelihood > 0) {
    provided += absl::StrFormat(
        "; and that an answer which upstream finds within %g nats a token as likely as its own is as good, and others "
        "are "
        "not: so were %d of %d judged",
        likelihood_margin, n_by_likelihood, n);
  }
  return provided;
}

std::string ToJson(const ConfidenceReport& report) { return Object(report).dump(); }

std::string ToJson(const CalibrationReport& report) {
  json object = {{"confidence", Object(report.confidence)},
                 {"guarantee", Object(report.guarantee)},
                 {"data_fingerprint", report.data_fingerprint},
                 {"seconds", report.seconds}};
  if (report.p_right_stays) object["p_right_stays"] = true;
  json judged = json::object();
  for (const CalibratedAnswer& answer : report.answers) {
    json& n = judged[std::string(NameOf(answer.judgement.by))];
    n = n.is_null() ? 1 : n.get<int>() + 1;
  }
  object["judged_by"] = judged;
  if (report.ask_back) {
    const AskBackReport& r = *report.ask_back;
    object["ask_back"] = {
        {"threshold", r.threshold},         {"max_wrong", r.max_wrong},     {"acted", r.acted},
        {"acted_wrong", r.acted_wrong},     {"wrong_bound", r.wrong_bound}, {"asked_back", r.asked_back},
        {"asked_back_right", r.asked_right}};
  }
  if (!report.exits.layers.empty()) {
    object["exits"] = {{"layers", report.exits.layers},
                       {"thresholds", report.exits.thresholds},
                       {"changed_share", report.exits.changed_share},
                       {"mean_exit_layer", report.exits.mean_exit_layer},
                       {"full_depth_accuracy", report.exits.full_accuracy},
                       {"n_layer", report.exits.n_layer}};
  }
  return object.dump();
}

std::string ToText(const ConfidenceReport& r) {
  std::string text = r.n_unlabelled > 0
                         ? absl::StrFormat("alone %.1f %% as good as upstream's (n = %d)", 100 * r.as_good, r.n)
                         : absl::StrFormat("alone %.1f %% right (%.1f to %.1f, n = %d)", 100 * r.accuracy,
                                           100 * r.accuracy_interval.low, 100 * r.accuracy_interval.high, r.n);
  text += absl::StrFormat(
      "%s\n"
      "calibration error %.3f, area under ROC %.3f (%.3f to %.3f)\n"
      "threshold %.3f: %.1f %% kept; kept and regretted %.2f %% of all (at most %.2f %%, %s, delta %g)\n",
      r.calibrated ? "" : "; the file carries no calibration", r.ece, r.auroc, r.auroc_interval.low,
      r.auroc_interval.high, r.threshold, 100 * r.coverage, 100 * r.risk, 100 * r.risk_bound, NameOf(r.bound), r.delta);
  if (r.n_unlabelled > 0) {
    text += absl::StrFormat("%d of them have no label: upstream is the measure there\n", r.n_unlabelled);
  } else if (r.has_upstream) {
    text += absl::StrFormat("together %.1f %% right, upstream alone %.1f %%: %.2f points between them\n",
                            100 * r.collaborative_accuracy, 100 * r.upstream_accuracy,
                            100 * (r.upstream_accuracy - r.collaborative_accuracy));
  }
  return text;
}

std::string ToText(const CalibrationReport& report) {
  const GuaranteeReport& guarantee = report.guarantee;
  std::string text = ToText(report.confidence);
  text += guarantee.holds
              ? absl::StrFormat("promised: of all requests at most %g %% kept and regretted, with probability %g\n",
                                100 * guarantee.max_loss, 1.0 - guarantee.delta)
              : absl::StrFormat("nothing is promised of %g %%: the limit on what is handed over set the threshold\n",
                                100 * guarantee.max_loss);
  if (guarantee.holds) text += absl::StrFormat("provided that %s\n", guarantee.Provided());
  if (report.p_right_stays) {
    text += "too few labels to fit when to ask back: what the file says of it, and its exits, stay as they were\n";
  }
  if (report.ask_back) {
    const AskBackReport& r = *report.ask_back;
    text += absl::StrFormat(
        "where nobody stands above, below %.3f it asks back: %.1f %% of all are acted on, %.2f %% wrongly (at most "
        "%.2f %%, "
        "limit %g %%), %.1f %% asked back, of which %.1f points would have been right\n",
        r.threshold, 100 * r.acted, 100 * r.acted_wrong, 100 * r.wrong_bound, 100 * r.max_wrong, 100 * r.asked_back,
        100 * r.asked_right);
  }
  for (size_t i = 0; i < report.exits.layers.size(); ++i) {
    text += report.exits.thresholds[i] > 1.0f
                ? absl::StrFormat("exit after layer %d: never taken\n", report.exits.layers[i])
                : absl::StrFormat("exit after layer %d: from top probability %.4f\n", report.exits.layers[i],
                                  report.exits.thresholds[i]);
  }
  if (!report.exits.layers.empty()) {
    text += absl::StrFormat("exits changed the meaning of %.2f %% of answers; mean exit layer %.2f of %d\n",
                            100 * report.exits.changed_share, report.exits.mean_exit_layer, report.exits.n_layer);
  }
  return text;
}

}  // namespace updraft
