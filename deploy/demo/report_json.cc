#include <nlohmann/json.hpp>
#include <string>

#include "deploy/demo/demo.h"

namespace updraft {
namespace {

using nlohmann::json;

json Object(const TierFacts& facts) {
  return {{"tier", facts.tier},
          {"model", facts.model},
          {"n_parameters", facts.n_parameters},
          {"file_bytes", facts.file_bytes},
          {"n_layer", facts.n_layer},
          {"exit_layers", facts.exit_layers},
          {"resident_bytes", facts.resident_bytes},
          {"ready_after_ms", facts.ready_after_ms}};
}

json Object(const PassSummary& pass) {
  return {{"n", pass.n},
          {"accuracy", pass.accuracy()},
          {"accuracy_ci95", {pass.interval.low, pass.interval.high}},
          {"errors", pass.errors},
          {"latency_ms", {{"p50", pass.p50_ms}, {"p95", pass.p95_ms}}},
          {"mean_bytes_up", pass.mean_bytes_up},
          {"mean_bytes_down", pass.mean_bytes_down},
          {"mean_exit_layer", pass.mean_exit_layer}};
}

json Object(const AnswerRecord& answer) {
  json object = {{"correct", answer.correct},
                 {"text", answer.text},
                 {"tiers", answer.tiers},
                 {"decision", NameOf(answer.decision)},
                 {"reason", answer.reason},
                 {"confidence", answer.confidence},
                 {"latency_ms", answer.latency_ms},
                 {"first_token_ms", answer.first_token_ms},
                 {"bytes_up", answer.bytes_up},
                 {"bytes_down", answer.bytes_down},
                 {"mean_exit_layer", answer.mean_exit_layer},
                 {"degraded", answer.degraded}};
  if (!answer.status.ok()) object["error"] = std::string(answer.status.message());
  return object;
}

json Points(const std::vector<CurvePoint>& curve) {
  json points = json::array();
  for (const CurvePoint& point : curve) points.push_back({point.escalated_share, point.accuracy, point.threshold});
  return points;
}

json Object(const Summary& summary) {
  json families = json::object();
  for (const FamilySummary& family : summary.families) {
    families[family.name] = {{"n", family.n},
                             {"edge", Object(family.at(Pass::kEdge))},
                             {"cloud", Object(family.at(Pass::kCloud))},
                             {"together", Object(family.at(Pass::kTogether))},
                             {"escalated_share", family.escalated_share()}};
  }
  json bins = json::array();
  for (const ReliabilityBin& bin : summary.reliability) {
    bins.push_back({{"confidence", bin.confidence},
                    {"accuracy", bin.accuracy},
                    {"accuracy_ci95", {bin.interval.low, bin.interval.high}},
                    {"n", bin.n}});
  }
  json exits = json::array();
  for (const ExitShare& exit : summary.exits) {
    exits.push_back({{"layer", exit.layer}, {"tokens", exit.tokens}, {"share", exit.share}});
  }
  return {{"families", families},
          {"ece", summary.ece},
          {"auroc", summary.auroc},
          {"routing_gain_of_possible", summary.random_gain_share},
          {"curve_escalated_accuracy_threshold", Points(summary.curve)},
          {"reliability", bins},
          {"exits", exits}};
}

json Object(const LinkReport& link, int plain_degraded) {
  json answers = json::array();
  for (const AnswerRecord& answer : link.answers) answers.push_back(Object(answer));
  return {{"road", link.road},
          {"like", link.like},
          {"seconds", link.seconds},
          {"bytes_lost", link.bytes_lost},
          {"together", Object(link.pass)},
          {"escalated_share", link.pass.n > 0 ? static_cast<double>(link.escalated) / link.pass.n : 0.0},
          {"degraded", link.degraded},
          {"degraded_without_road", plain_degraded},
          {"answers", answers}};
}

}  // namespace

std::string ToJson(const DemoReport& report) {
  json records = json::array();
  for (const QueryRecord& record : report.records) {
    json messages = json::array();
    for (const text::ChatMessage& message : record.item.messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
    records.push_back({{"id", record.item.id},
                       {"family", record.item.family},
                       {"language", record.item.language},
                       {"messages", messages},
                       {"expected", record.item.expected},
                       {"edge", Object(record.at(Pass::kEdge))},
                       {"cloud", Object(record.at(Pass::kCloud))},
                       {"together", Object(record.at(Pass::kTogether))}});
  }
  json object = {{"when", report.when},
                 {"machine", report.machine},
                 {"n", report.records.size()},
                 {"seed", report.seed},
                 {"concurrency", report.concurrency},
                 {"seconds", report.seconds},
                 {"threshold", report.threshold},
                 {"edge", Object(report.edge)},
                 {"cloud", Object(report.cloud)},
                 {"summary", Object(report.summary)},
                 {"records", records}};
  if (report.people) object["people"] = json::parse(PeopleJson(*report.people), nullptr, /*allow_exceptions=*/false);
  if (report.link) object["link"] = Object(*report.link, CountDegraded(report.records, Pass::kTogether));
  return object.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string ToJson(const EdgeTaskReport& report) {
  json object = json::parse(ToJson(report.task), /*cb=*/nullptr, /*allow_exceptions=*/false);
  object["escalated_share"] = report.escalated_share;
  const GroupScore &kept = report.kept, &wrong = report.wrong_among_kept;
  object["kept_share"] = kept.share();
  object["kept_share_ci95"] = {kept.interval.low, kept.interval.high};
  object["wrong_among_kept"] = wrong.share();
  object["wrong_among_kept_ci95"] = {wrong.interval.low, wrong.interval.high};
  object["kept_stated_confidence"] = report.kept_stated;
  object["latency_ms"] = {{"p50", report.p50_ms}, {"p95", report.p95_ms}};
  object["errors"] = report.errors;
  return object.dump();
}

}  // namespace updraft
