#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "deploy/demo/demo.h"

namespace updraft {
namespace {

constexpr int kExamples = 6;

std::string OneLine(const std::string& text, size_t max_bytes) {
  std::string line;
  for (const char c : text) line += c == '\n' || c == '\r' || c == '\t' ? ' ' : c;
  if (line.size() <= max_bytes) return line;
  size_t end = max_bytes;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) --end;  // never half a character
  return line.substr(0, end) + " ...";
}

std::string Percent(double share) { return absl::StrFormat("%.1f", 100.0 * share); }

std::string FamilyTable(const Summary& summary) {
  std::string table = absl::StrFormat("%-12s %6s | %7s %7s %9s | %9s | %13s %13s | %9s %9s | %5s\n", "", "", "right %",
                                      "", "", "escalated", "edge ms", "together ms", "bytes up", "down", "exit");
  table += absl::StrFormat("%-12s %6s | %7s %7s %9s | %9s | %6s %6s %6s %6s | %9s %9s | %5s\n", "family", "n", "edge",
                           "cloud", "together", "%", "p50", "p95", "p50", "p95", "mean", "mean", "depth");
  table += std::string(118, '-') + "\n";
  for (const FamilySummary& family : summary.families) {
    if (family.name == "all" && summary.families.size() > 1) table += std::string(118, '-') + "\n";
    const PassSummary &edge = family.at(Pass::kEdge), &cloud = family.at(Pass::kCloud),
                      &both = family.at(Pass::kTogether);
    absl::StrAppendFormat(&table, "%-12s %6d | %7s %7s %9s | %9s | %6.0f %6.0f %6.0f %6.0f | %9.0f %9.0f | %5.2f\n",
                          family.name, family.n, Percent(edge.accuracy()), Percent(cloud.accuracy()),
                          Percent(both.accuracy()), Percent(family.escalated_share()), edge.p50_ms, edge.p95_ms,
                          both.p50_ms, both.p95_ms, both.mean_bytes_up, both.mean_bytes_down, edge.mean_exit_layer);
  }
  return table;
}

std::string ExampleText(const QueryRecord& record, const std::string& title) {
  const AnswerRecord& answer = record.at(Pass::kTogether);
  std::string text = absl::StrFormat("%s (%s)\n", title, record.item.family);
  for (const text::ChatMessage& message : record.item.messages) {
    absl::StrAppendFormat(&text, "  %-9s %s\n", message.role, OneLine(message.content, 160));
  }
  absl::StrAppendFormat(&text, "  %-9s %s\n", "answer", OneLine(answer.text, 240));
  absl::StrAppendFormat(&text, "  %-9s %s, %s; %.0f ms, %d bytes up, %d down\n", "by", answer.tiers, answer.reason,
                        answer.latency_ms, answer.bytes_up, answer.bytes_down);
  if (!answer.correct) absl::StrAppendFormat(&text, "  %-9s %s\n", "expected", OneLine(record.item.expected, 240));
  return text;
}

std::string LinkRow(const char* name, const PassSummary& pass, int escalated, int degraded) {
  return absl::StrFormat("%-13s | %7s | %9s | %6.0f %6.0f | %8d %6d | %9.0f %9.0f\n", name, Percent(pass.accuracy()),
                         Percent(pass.n > 0 ? static_cast<double>(escalated) / pass.n : 0.0), pass.p50_ms, pass.p95_ms,
                         degraded, pass.errors, pass.mean_bytes_up, pass.mean_bytes_down);
}

// Routing with a road between the tiers, beside the same queries without one.
std::string LinkText(const DemoReport& report, const LinkReport& link) {
  const FamilySummary& all = report.summary.all();
  std::string text = absl::StrFormat("On the road: %s\n  %s; %.0f s of it, %d bytes lost\n", OneLine(link.road, 160),
                                     OneLine(link.like, 300), link.seconds, link.bytes_lost);
  absl::StrAppendFormat(&text, "%-13s | %7s | %9s | %6s %6s | %8s %6s | %9s %9s\n", "together", "right %", "escalated",
                        "p50 ms", "p95 ms", "degraded", "failed", "bytes up", "down");
  text +=
      LinkRow("without road", all.at(Pass::kTogether), all.escalated, CountDegraded(report.records, Pass::kTogether));
  text += LinkRow("on the road", link.pass, link.escalated, link.degraded);
  return text + "\n";
}

}  // namespace

std::string ToText(const DemoReport& report) {
  const Summary& summary = report.summary;
  const FamilySummary& all = summary.all();
  std::string text = "\n" + FamilyTable(summary) + "\n";
  const PassSummary &edge = all.at(Pass::kEdge), &cloud = all.at(Pass::kCloud), &both = all.at(Pass::kTogether);
  absl::StrAppendFormat(&text,
                        "95 %% intervals, n = %d: edge %s to %s, cloud %s to %s, together %s to %s\n"
                        "cloud alone: p50 %.0f ms, p95 %.0f ms, %.0f bytes up, %.0f down\n"
                        "confidence: calibration error %.3f, area under ROC %.3f; handed over below %.2f\n",
                        all.n, Percent(edge.interval.low), Percent(edge.interval.high), Percent(cloud.interval.low),
                        Percent(cloud.interval.high), Percent(both.interval.low), Percent(both.interval.high),
                        cloud.p50_ms, cloud.p95_ms, cloud.mean_bytes_up, cloud.mean_bytes_down, summary.ece,
                        summary.auroc, report.threshold);
  absl::StrAppendFormat(&text, "edge agent: ready after %.0f ms, %.1f MB resident\n", report.edge.ready_after_ms,
                        static_cast<double>(report.edge.resident_bytes) / 1e6);
  const int errors = edge.errors + cloud.errors + both.errors;
  if (errors > 0) absl::StrAppendFormat(&text, "%d calls failed; they count as wrong answers\n", errors);
  text += "\n";
  if (report.people) text += PeopleText(*report.people) + "\n";
  if (report.link) text += LinkText(report, *report.link);
  for (const Example& example : ChooseExamples(report.records, kExamples)) {
    text += ExampleText(report.records[static_cast<size_t>(example.record)], example.title) + "\n";
  }
  return text;
}

std::string ToText(const EdgeTaskReport& report) {
  const GroupScore &kept = report.kept, &wrong = report.wrong_among_kept;
  return ToText(report.task) +
         absl::StrFormat(
             "kept on the edge %.1f %% (%.1f to %.1f), wrong among those %.1f %% (%.1f to %.1f); of them it said %.3f, "
             "true is %.3f\n"
             "half of the answers within %.0f ms, 95 %% within %.0f ms; %d errors\n",
             100 * kept.share(), 100 * kept.interval.low, 100 * kept.interval.high, 100 * wrong.share(),
             100 * wrong.interval.low, 100 * wrong.interval.high, report.kept_stated, 1 - wrong.share(), report.p50_ms,
             report.p95_ms, report.errors);
}

}  // namespace updraft
