#include "deploy/demo/people.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/files/read_file.h"
#include "deploy/page/plot.h"

namespace updraft {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& path, const std::string& what) {
  return absl::DataLossError(absl::StrFormat("results '%s': %s; measure again with ./run bench --wild", path, what));
}

MeasuredFile FileOf(const json& object) {
  return {.name = object.at("file").get<std::string>(), .bytes = object.at("bytes").get<uint64_t>()};
}

Interval IntervalOf(const json& object, const char* key) {
  const json& pair = object.at(key);
  return {pair.at(0).get<double>(), pair.at(1).get<double>()};
}

PeopleSet SetOf(const json& set) {
  const json& together = set.at("together");
  return {.name = set.at("set").get<std::string>(),
          .n = together.at("n").get<int>(),
          .edge = set.at("edge").at("exact_match").get<double>(),
          .cloud = set.at("cloud").at("exact_match").get<double>(),
          .together = together.at("exact_match").get<double>(),
          .together_interval = IntervalOf(together, "exact_match_ci95"),
          .kept = together.at("kept_share").get<double>(),
          .wrong_among_kept = together.at("wrong_among_kept").get<double>(),
          .wrong_interval = IntervalOf(together, "wrong_among_kept_ci95"),
          .stated = together.at("kept_stated_confidence").get<double>(),
          .acted_wrong = together.at("acted_and_wrong").get<double>(),
          .asked_back = together.at("asked_back").get<double>()};
}

PeopleResults ResultsOf(const json& object) {
  PeopleResults results{
      .edge = FileOf(object.at("edge")), .cloud = FileOf(object.at("cloud")), .cloud_adapter = {}, .sets = {}};
  if (object.at("cloud").contains("adapter")) results.cloud_adapter = FileOf(object.at("cloud").at("adapter"));
  for (const json& set : object.at("sets")) results.sets.push_back(SetOf(set));
  return results;
}

std::string Percent(double share) { return absl::StrFormat("%.1f", 100 * share); }

std::string Range(const Interval& interval) {
  return absl::StrFormat("%.0f to %.0f", 100 * interval.low, 100 * interval.high);
}

}  // namespace

absl::StatusOr<std::vector<PeopleResults>> ReadPeopleResults(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const json parsed = json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() && !parsed.is_array()) return Bad(path, "expected JSON, an object or a list of them");
  std::vector<PeopleResults> results;
  try {
    for (const json& object : parsed.is_array() ? parsed : json::array({parsed})) results.push_back(ResultsOf(object));
  } catch (const json::exception& error) {
    return Bad(path, error.what());
  }
  return results;
}

std::optional<PeopleResults> ResultsOfPair(std::span<const PeopleResults> all, const MeasuredFile& edge,
                                           const MeasuredFile& cloud, const std::optional<MeasuredFile>& adapter) {
  for (const PeopleResults& results : all) {
    if (results.edge == edge && results.cloud == cloud && results.cloud_adapter == adapter) return results;
  }
  return std::nullopt;
}

std::string PeopleHtml(const PeopleResults& results) {
  std::string html =
      "<h2 id=\"people\">What people say</h2>\n<p>The queries of this page come from a generator, like those that the "
      "models learned "
      "from. These were written by others, or said by people to cars and speakers, and are in no training, calibration "
      "or prompt. Measured before, with these very models; in percent, 95&#8239;% Wilson intervals in brackets.</p>\n"
      "<div class=\"scroll\"><table><thead><tr><th>set</th><th>n</th><th>edge right</th><th>cloud right</th>"
      "<th>together right</th><th>kept</th><th>wrong among kept</th><th>stated of kept</th><th>set wrongly</th>"
      "<th>asked back</th></tr></thead><tbody>\n";
  for (const PeopleSet& set : results.sets) {
    absl::StrAppendFormat(
        &html,
        "<tr><td>%s</td><td>%d</td><td class=\"edge\">%s</td><td class=\"cloud\">%s</td><td "
        "class=\"both\">%s (%s)</td><td>%s</td><td>%s (%s)</td><td>%.2f</td><td>%s</td><td>%s</td></tr>\n",
        EscapeHtml(set.name), set.n, Percent(set.edge), Percent(set.cloud), Percent(set.together),
        Range(set.together_interval), Percent(set.kept), Percent(set.wrong_among_kept), Range(set.wrong_interval),
        set.stated, Percent(set.acted_wrong), Percent(set.asked_back));
  }
  return html + "</tbody></table></div>\n";
}

std::string PeopleText(const PeopleResults& results) {
  std::string text =
      "What people say (sets that nobody here wrote, measured before with these models; the queries above come from a "
      "generator)\n";
  absl::StrAppendFormat(&text, "%-22s %5s | %6s %6s %8s | %6s %11s %7s | %8s %10s\n", "set", "n", "edge %", "cloud %",
                        "together %", "kept %", "wrong of it", "stated", "set wrong", "asked back");
  for (const PeopleSet& set : results.sets) {
    absl::StrAppendFormat(&text, "%-22s %5d | %6s %7s %10s | %6s %11s %7.2f | %9s %10s\n", set.name, set.n,
                          Percent(set.edge), Percent(set.cloud), Percent(set.together), Percent(set.kept),
                          Percent(set.wrong_among_kept), set.stated, Percent(set.acted_wrong), Percent(set.asked_back));
  }
  return text;
}

std::string PeopleJson(const PeopleResults& results) {
  json sets = json::array();
  for (const PeopleSet& set : results.sets) {
    sets.push_back({{"set", set.name},
                    {"n", set.n},
                    {"edge", set.edge},
                    {"cloud", set.cloud},
                    {"together", set.together},
                    {"kept", set.kept},
                    {"wrong_among_kept", set.wrong_among_kept},
                    {"stated", set.stated},
                    {"acted_wrong", set.acted_wrong},
                    {"asked_back", set.asked_back}});
  }
  return sets.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace updraft
