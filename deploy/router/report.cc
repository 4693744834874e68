#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/router/evaluate.h"

namespace updraft {
namespace {

using nlohmann::json;

json Object(const Estimate& estimate) {
  return {{"value", estimate.value}, {"ci95", {estimate.interval.low, estimate.interval.high}}};
}

std::string Text(const Estimate& e) {
  return absl::StrFormat("%5.3f [%5.3f, %5.3f]", e.value, e.interval.low, e.interval.high);
}

std::string Count(const Estimate& e) {
  return absl::StrFormat("%6.0f [%.0f, %.0f]", e.value, e.interval.low, e.interval.high);
}

std::string HowScored(const RouterReport& report) {
  if (report.folds > 0) return absl::StrFormat("each row scored by a fit without it (%d folds)", report.folds);
  if (report.seen) return "scored by a router that was FITTED ON THIS VERY TABLE: these are no measured figures";
  return "scored by a router that was fitted elsewhere";
}

}  // namespace

std::string ToText(const RouterReport& report) {
  std::string text = absl::StrFormat(
      "%d rows: weak %.1f %% right, strong %.1f %%; the strong one fixes %.0f and breaks %.0f\n"
      "%s; 95 %% intervals from %d resamples of the rows, seed %d",
      report.n, 100 * report.weak, 100 * report.strong, report.fixable, report.breakable, HowScored(report),
      report.resamples, report.seed);
  if (report.without_gap > 0) absl::StrAppendFormat(&text, ", %d without a gap left out", report.without_gap);
  absl::StrAppendFormat(&text, "\n\n%-14s %-22s %-22s %-22s %s\n", "", "APGR", "CPT50", "CPT80", "router ahead by");
  for (const RankingReport& ranking : report.rankings) {
    absl::StrAppendFormat(&text, "%-14s %-22s %-22s %-22s", ranking.name, Text(ranking.apgr), Text(ranking.cpt50),
                          Text(ranking.cpt80));
    if (&ranking != report.rankings.data()) {
      absl::StrAppendFormat(&text, " %+.3f [%+.3f, %+.3f]", ranking.lead.value, ranking.lead.interval.low,
                            ranking.lead.interval.high);
    }
    text += "\n";
  }
  absl::StrAppendFormat(&text, "\n%-8s %-22s %-20s %-20s %s\n", "sent up", "right", "fixed", "broken", "gain (stated)");
  for (const RouterReport::Point& point : report.curve) {
    absl::StrAppendFormat(&text, "%6.1f %% %-22s %-20s %-20s %+.3f (%+.3f)\n", 100 * point.share, Text(point.right),
                          Count(point.fixed), Count(point.broken), point.gain, point.stated_gain);
  }
  text.pop_back();
  return text;
}

std::string ToJson(const RouterReport& report) {
  json rankings = json::object(), curve = json::array();
  for (const RankingReport& ranking : report.rankings) {
    rankings[ranking.name] = {{"apgr", Object(ranking.apgr)},
                              {"cpt50", Object(ranking.cpt50)},
                              {"cpt80", Object(ranking.cpt80)},
                              {"router_ahead_by", Object(ranking.lead)}};
  }
  for (const RouterReport::Point& point : report.curve) {
    curve.push_back({{"share", point.share},
                     {"right", Object(point.right)},
                     {"fixed", Object(point.fixed)},
                     {"broken", Object(point.broken)},
                     {"gain", point.gain},
                     {"stated_gain", point.stated_gain}});
  }
  return json{{"n", report.n},
              {"weak", report.weak},
              {"strong", report.strong},
              {"fixable", report.fixable},
              {"breakable", report.breakable},
              {"rankings", rankings},
              {"curve", curve},
              {"folds", report.folds},
              {"fitted_on_this_table", report.seen},
              {"resamples", report.resamples},
              {"resamples_without_gap", report.without_gap},
              {"seed", report.seed},
              {"seconds", report.seconds}}
      .dump();
}

}  // namespace updraft
