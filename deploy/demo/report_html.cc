#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"
#include "deploy/demo/demo.h"
#include "deploy/demo/report_plots.h"
#include "deploy/page/page_style.h"
#include "deploy/page/plot.h"

namespace updraft {
namespace {

constexpr int kExamples = 8;

std::string Percent(double share) { return absl::StrFormat("%.1f&#8239;%%", 100.0 * share); }

std::string Bytes(double bytes) {
  if (bytes >= 1e6) return absl::StrFormat("%.1f MB", bytes / 1e6);
  if (bytes >= 1e4) return absl::StrFormat("%.0f kB", bytes / 1e3);
  return absl::StrFormat("%.0f B", bytes);
}

std::string Millions(int64_t n) { return absl::StrFormat("%.1f M parameters", static_cast<double>(n) / 1e6); }

std::string Tile(const char* name, const std::string& value, const char* css, const std::string& note) {
  return absl::StrFormat(
      "<div class=\"tile\"><div class=\"name\">%s</div><div class=\"value %s\">%s</div><div "
      "class=\"note\">%s</div></div>\n",
      name, css, value, note);
}

std::string IntervalNote(const PassSummary& pass) {
  return absl::StrFormat("%.1f to %.1f, n = %d", 100 * pass.interval.low, 100 * pass.interval.high, pass.n);
}

// What happened, in a sentence that needs no chart.
std::string Lede(const DemoReport& report) {
  const FamilySummary& all = report.summary.all();
  const PassSummary &edge = all.at(Pass::kEdge), &cloud = all.at(Pass::kCloud), &both = all.at(Pass::kTogether);
  const double cloud_bytes = cloud.mean_bytes_up + cloud.mean_bytes_down,
               bytes = both.mean_bytes_up + both.mean_bytes_down;
  std::string text = absl::StrFormat(
      "<p class=\"lede\">%d spoken requests that neither model has seen. The small model on the device gets <b "
      "class=\"edge\">%s</b> "
      "right by itself, the full model in the cloud <b class=\"cloud\">%s</b>. Together they get <b "
      "class=\"both\">%s</b>, and %s of "
      "the requests never leave the device",
      all.n, Percent(edge.accuracy()), Percent(cloud.accuracy()), Percent(both.accuracy()),
      Percent(1.0 - all.escalated_share()));
  if (cloud_bytes > 0.0) {
    text += absl::StrFormat(", which moves %s of the bytes that the cloud alone would have needed",
                            Percent(bytes / cloud_bytes));
  }
  text += ".</p>\n";
  if (report.people) {
    text +=
        "<p>They are a generator's requests, like those that the models learned from. <a href=\"#people\">What people "
        "say</a> is further below, and harder.</p>\n";
  }
  return text;
}

std::string Tiles(const DemoReport& report) {
  const FamilySummary& all = report.summary.all();
  const PassSummary &edge = all.at(Pass::kEdge), &cloud = all.at(Pass::kCloud), &both = all.at(Pass::kTogether);
  std::string html = "<div class=\"tiles\">\n";
  html += Tile("Edge alone", Percent(edge.accuracy()), "edge", IntervalNote(edge));
  html += Tile("Cloud alone", Percent(cloud.accuracy()), "cloud", IntervalNote(cloud));
  html += Tile("Together", Percent(both.accuracy()), "both", IntervalNote(both));
  html += Tile("Handed over", Percent(all.escalated_share()), "",
               absl::StrFormat("confidence below %.2f", report.threshold));
  html += Tile("Time to the answer", absl::StrFormat("%.0f ms", both.p50_ms), "",
               absl::StrFormat("median; 95 %% within %.0f ms", both.p95_ms));
  html += Tile("Confidence", absl::StrFormat("%.3f", report.summary.auroc), "",
               absl::StrFormat("area under ROC; calibration error %.3f", report.summary.ece));
  return html + "</div>\n";
}

std::string Figure(const char* title, const std::string& caption, const std::string& svg) {
  return absl::StrFormat("<figure><h3>%s</h3><figcaption>%s</figcaption>%s</figure>\n", title, caption, svg);
}

std::string Figures(const DemoReport& report) {
  std::string html = "<div class=\"plots\">\n";
  html +=
      Figure("Accuracy against share handed over",
             absl::StrFormat(
                 "Every point of the <span class=\"key both\">curve</span> is a threshold on the recorded confidences. "
                 "Dashed: random routing. Dotted: an oracle. The curve reaches %.0f&#8239;%% of what is possible "
                 "above random.",
                 100 * report.summary.random_gain_share),
             AccuracyPlot(report));
  html += Figure(
      "Latency",
      absl::StrFormat(
          "Share of full answers within a time, %d in flight: <span class=\"key edge\">edge alone</span>, "
          "<span class=\"key cloud\">cloud alone</span>, <span class=\"key both\">together</span>; dashed: those "
          "handed over.",
          report.concurrency),
      LatencyPlot(report));
  html += Figure(
      "Does the confidence mean what it says?",
      "Answers of the edge in ten groups of rising confidence, with 95&#8239;% intervals. On the diagonal, 80&#8239;% "
      "sure is right 80&#8239;% of the time.",
      ReliabilityPlot(report));
  html += Figure("How deep a token goes",
                 absl::StrFormat("Tokens of the edge model by the layer that decided them; grey: all %d layers.",
                                 report.edge.n_layer),
                 ExitPlot(report));
  return html + "</div>\n";
}

std::string FamilyRow(const FamilySummary& family) {
  const PassSummary &edge = family.at(Pass::kEdge), &cloud = family.at(Pass::kCloud),
                    &both = family.at(Pass::kTogether);
  return absl::StrFormat(
      "<tr><td>%s</td><td>%d</td><td class=\"edge\">%s</td><td class=\"cloud\">%s</td><td class=\"both\">%s</td>"
      "<td>%s<span class=\"meter\"><i style=\"width:%.0f%%\"></i></span></td><td>%.0f / %.0f</td><td>%.0f / "
      "%.0f</td><td>%.0f / %.0f</td>"
      "<td>%s</td><td>%s</td><td>%.2f</td></tr>\n",
      EscapeHtml(family.name), family.n, Percent(edge.accuracy()), Percent(cloud.accuracy()), Percent(both.accuracy()),
      Percent(family.escalated_share()), 100 * family.escalated_share(), edge.p50_ms, edge.p95_ms, cloud.p50_ms,
      cloud.p95_ms, both.p50_ms, both.p95_ms, Bytes(both.mean_bytes_up), Bytes(both.mean_bytes_down),
      edge.mean_exit_layer);
}

std::string FamilyTable(const Summary& summary) {
  std::string html =
      "<div class=\"scroll\"><table><thead><tr><th></th><th></th><th colspan=\"3\">right answers</th><th></th>"
      "<th colspan=\"3\">latency, p50 / p95 ms</th><th colspan=\"2\">bytes a request</th><th></th></tr>"
      "<tr><th>family</th><th>n</th><th>edge</th><th>cloud</th><th>together</th><th>handed over</th>"
      "<th>edge</th><th>cloud</th><th>together</th><th>up</th><th>down</th><th>exit depth</th></tr></thead><tbody>\n";
  for (const FamilySummary& family : summary.families) html += FamilyRow(family);
  return html + "</tbody></table></div>\n";
}

std::string LinkRow(const char* name, const PassSummary& pass, int escalated, int degraded) {
  return absl::StrFormat(
      "<tr><td>%s</td><td class=\"both\">%s</td><td>%s</td><td>%.0f / %.0f</td><td>%d</td><td>%d</td><td>%s</td>"
      "<td>%s</td></tr>\n",
      name, Percent(pass.accuracy()), Percent(pass.n > 0 ? static_cast<double>(escalated) / pass.n : 0.0), pass.p50_ms,
      pass.p95_ms, degraded, pass.errors, Bytes(pass.mean_bytes_up), Bytes(pass.mean_bytes_down));
}

// Routing with a road between the tiers, beside the same queries without one.
std::string LinkSection(const DemoReport& report, const LinkReport& link) {
  const FamilySummary& all = report.summary.all();
  std::string html = absl::StrFormat(
      "<h2>On the road</h2>\n<p>%s: %s. The queries once more, as routing decides, with %.0f s of this road between "
      "edge "
      "and cloud; %s were lost on it.</p>\n",
      EscapeHtml(link.road), EscapeHtml(link.like), link.seconds, Bytes(static_cast<double>(link.bytes_lost)));
  html +=
      "<div class=\"scroll\"><table><thead><tr><th>together</th><th>right</th><th>handed over</th><th>latency, p50 / "
      "p95 "
      "ms</th><th>degraded</th><th>failed</th><th>bytes up</th><th>down</th></tr></thead><tbody>\n";
  html +=
      LinkRow("without road", all.at(Pass::kTogether), all.escalated, CountDegraded(report.records, Pass::kTogether));
  html += LinkRow("on the road", link.pass, link.escalated, link.degraded);
  return html + "</tbody></table></div>\n";
}

std::string Talk(const QueryRecord& record, const std::string& title) {
  const AnswerRecord& answer = record.at(Pass::kTogether);
  const char* tier = answer.escalated() ? "cloud" : "edge";
  std::string html = absl::StrFormat("<div class=\"talk\"><h3>%s</h3><div class=\"kind\">%s%s%s</div>\n",
                                     EscapeHtml(title), EscapeHtml(record.item.family),
                                     record.item.language.empty() ? "" : ", ", EscapeHtml(record.item.language));
  for (const text::ChatMessage& message : record.item.messages) {
    const bool user = message.role == "user";
    absl::StrAppendFormat(&html, "<div class=\"say %s\">%s%s%s</div>\n", user ? "user" : "assistant",
                          user ? "" : "<code>", EscapeHtml(message.content), user ? "" : "</code>");
  }
  absl::StrAppendFormat(&html, "<div class=\"say %s\"><code>%s</code></div>\n", tier, EscapeHtml(answer.text));
  absl::StrAppendFormat(&html, "<div class=\"why\"><span class=\"badge %s\">%s</span>", tier, EscapeHtml(answer.tiers));
  if (!answer.correct) html += "<span class=\"badge wrong\">wrong</span>";
  absl::StrAppendFormat(&html, "<b>%s</b> in %.0f ms", EscapeHtml(answer.reason), answer.latency_ms);
  if (answer.bytes_up + answer.bytes_down > 0) {
    absl::StrAppendFormat(&html, ", %s up, %s down", Bytes(static_cast<double>(answer.bytes_up)),
                          Bytes(static_cast<double>(answer.bytes_down)));
  }
  html += "</div>\n";
  if (!answer.correct) {
    absl::StrAppendFormat(&html, "<div class=\"why\">expected <code>%s</code></div>\n",
                          EscapeHtml(record.item.expected));
  }
  return html + "</div>\n";
}

std::string Model(const TierFacts& facts) {
  return absl::StrFormat("%s: %s, %d layers, %s", EscapeHtml(facts.model), Millions(facts.n_parameters), facts.n_layer,
                         Bytes(static_cast<double>(facts.file_bytes)));
}

std::string Footer(const DemoReport& report) {
  const FamilySummary& all = report.summary.all();
  const int errors = all.at(Pass::kEdge).errors + all.at(Pass::kCloud).errors + all.at(Pass::kTogether).errors;
  std::string html = "<footer><dl>\n";
  absl::StrAppendFormat(&html, "<dt>edge model</dt><dd>%s</dd><dt>cloud model</dt><dd>%s</dd>\n", Model(report.edge),
                        Model(report.cloud));
  absl::StrAppendFormat(
      &html, "<dt>edge agent</dt><dd>ready %.0f ms after its start, %s resident after %d answers</dd>\n",
      report.edge.ready_after_ms, Bytes(static_cast<double>(report.edge.resident_bytes)), kPasses * all.n);
  absl::StrAppendFormat(&html, "<dt>machine</dt><dd>%s; both tiers and the client on it</dd>\n",
                        EscapeHtml(report.machine));
  absl::StrAppendFormat(
      &html,
      "<dt>run</dt><dd>%d queries of the held-out split (seed %d), three passes in %.0f s, %d in flight%s</dd>\n",
      all.n, report.seed, report.seconds, report.concurrency,
      errors > 0 ? absl::StrFormat("; %d calls failed and count as wrong", errors) : "");
  html +=
      "</dl><p>An answer is right when its settings are exactly the expected ones; its wording does not count. "
      "Intervals are "
      "Wilson's at 95&#8239;%. Latency is measured at the client and includes waiting for other queries in flight. "
      "Bytes are "
      "those between edge and cloud.</p></footer>\n";
  return html;
}

}  // namespace

std::string ToHtml(const DemoReport& report) {
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
      "<title>Updraft: edge and cloud together</title>\n<style>";
  html += std::string(kPageStyle) + "</style></head>\n<body><main>\n<h1>Updraft: edge and cloud together</h1>\n";
  absl::StrAppendFormat(&html, "<div class=\"meta\">%s</div>\n", EscapeHtml(report.when));
  html += Lede(report) + Tiles(report);
  html += "<h2>What routing buys</h2>\n" + Figures(report);
  html += "<h2>By family</h2>\n" +
          Figure("Right answers",
                 "<span class=\"key edge\">Edge alone</span>, <span class=\"key both\">together</span>, <span "
                 "class=\"key cloud\">cloud "
                 "alone</span>, with 95&#8239;% intervals.",
                 FamilyPlot(report)) +
          "<p></p>" + FamilyTable(report.summary);
  if (report.people) html += PeopleHtml(*report.people);
  if (report.link) html += LinkSection(report, *report.link);
  html += "<h2>Who answered, and why</h2>\n<div class=\"talks\">\n";
  for (const Example& example : ChooseExamples(report.records, kExamples)) {
    html += Talk(report.records[static_cast<size_t>(example.record)], example.title);
  }
  html += "</div>\n" + Footer(report) + "</main></body></html>\n";
  return html;
}

}  // namespace updraft
