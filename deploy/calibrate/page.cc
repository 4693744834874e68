#include "deploy/calibrate/page.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/files/atomic_file.h"
#include "deploy/page/page_style.h"
#include "deploy/page/plot.h"
#include "deploy/task/statistics.h"

namespace updraft {
namespace {

constexpr int kWidth = 480, kHeight = 310, kBins = 10;
constexpr size_t kMaxPoints = 200;  // of a line
constexpr size_t kFailures = 20;
constexpr size_t kMaxText = 600;  // bytes of a text that are shown

std::string Percent(double share) { return absl::StrFormat("%.1f&#8239;%%", 100.0 * share); }

std::string Shown(std::string_view text) {
  if (text.size() <= kMaxText) return EscapeHtml(text);
  size_t end = kMaxText;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return EscapeHtml(text.substr(0, end)) + "&#8239;&hellip;";
}

std::string Tile(const char* name, const std::string& value, const std::string& note) {
  return absl::StrFormat(
      "<div class=\"tile\"><div class=\"name\">%s</div><div class=\"value\">%s</div><div "
      "class=\"note\">%s</div></div>\n",
      name, value, note);
}

Axis ShareAxis(std::string label, double high = 1.0) {
  return {std::move(label), 0.0, high, false, RoundTicks(0.0, high, 5, /*percent=*/true)};
}

// Indices of the answers, the most confident first.
std::vector<size_t> ByConfidence(const std::vector<CalibratedAnswer>& answers) {
  std::vector<size_t> order(answers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return answers[a].kept_by > answers[b].kept_by; });
  return order;
}

// Ten bins of equally many answers.
std::string ReliabilityPlot(const CalibrationReport& report) {
  Plot plot("Reliability of the confidence", kWidth, kHeight, ShareAxis("stated confidence"),
            ShareAxis("as good as upstream's"));
  plot.Line({{0.0, 0.0}, {1.0, 1.0}}, "line thin", "perfectly calibrated");
  std::vector<CalibratedAnswer> answers = report.answers;
  std::stable_sort(answers.begin(), answers.end(),
                   [](const CalibratedAnswer& a, const CalibratedAnswer& b) { return a.confidence < b.confidence; });
  std::vector<Plot::XY> points;
  for (int bin = 0; bin < kBins; ++bin) {
    const size_t begin = answers.size() * bin / kBins, end = answers.size() * (bin + 1) / kBins;
    if (begin == end) continue;
    double stated = 0.0;
    int good = 0;
    for (size_t i = begin; i < end; ++i) {
      stated += answers[i].confidence;
      good += answers[i].judgement.as_good() ? 1 : 0;
    }
    const int n = static_cast<int>(end - begin);
    const Interval interval = WilsonInterval(good, n);
    points.push_back({stated / n, static_cast<double>(good) / n});
    plot.ErrorBar(points.back().x, interval.low, interval.high, "whisker");
    plot.Dot(points.back(), 5, "dot edge",
             absl::StrFormat("%d answers said %.1f %%, %.1f %% were as good (%.1f to %.1f)", n, 100 * points.back().x,
                             100 * points.back().y, 100 * interval.low, 100 * interval.high));
  }
  plot.Line(points, "line edge");
  return plot.Render();
}

// For every share that a threshold could keep, how many of all would be kept and regretted: equal confidences are kept
// together.
std::string RiskPlot(const CalibrationReport& report, const std::vector<size_t>& order) {
  std::vector<Plot::XY> points;
  int regretted = 0;
  const double n = static_cast<double>(std::max<size_t>(order.size(), 1));
  const size_t stride = std::max<size_t>(1, order.size() / kMaxPoints);
  size_t n_at_last = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const CalibratedAnswer& answer = report.answers[order[i]];
    regretted += answer.judgement.as_good() ? 0 : 1;
    const bool last = i + 1 == order.size();
    const bool tied = !last && report.answers[order[i + 1]].kept_by == answer.kept_by;
    if (tied || (!last && i + 1 < n_at_last + stride)) continue;
    n_at_last = i + 1;
    points.push_back({static_cast<double>(i + 1) / n, regretted / n});
  }
  const double high = std::max(0.01, 1.1 * regretted / n);
  Plot plot("Risk by coverage", kWidth, kHeight, ShareAxis("share kept"),
            ShareAxis("kept and regretted, of all", high));
  plot.Line(points, "line edge");
  plot.Dot({report.confidence.coverage, std::min(report.confidence.risk, high)}, 5, "dot both",
           absl::StrFormat("threshold %.3f: %.1f %% kept, %.2f %% of all kept and regretted, at most %.2f %%",
                           report.confidence.threshold, 100 * report.confidence.coverage, 100 * report.confidence.risk,
                           100 * report.confidence.risk_bound));
  return plot.Render();
}

std::string Figure(const char* title, const std::string& caption, const std::string& svg) {
  return absl::StrFormat("<figure><h3>%s</h3><figcaption>%s</figcaption>%s</figure>\n", title, caption, svg);
}

// By what the answers were judged, and how they came out.
std::string JudgedTable(const CalibrationReport& report) {
  constexpr std::array kAll = {JudgedBy::kLabel, JudgedBy::kEquality, JudgedBy::kLikelihood, JudgedBy::kDifference};
  std::string html =
      "<div class=\"scroll\"><table><thead><tr><th>judged by</th><th>answers</th><th>as good as upstream's</th></tr>"
      "</thead><tbody>\n";
  for (const JudgedBy by : kAll) {
    int n = 0, good = 0;
    for (const CalibratedAnswer& answer : report.answers) {
      if (answer.judgement.by != by) continue;
      ++n;
      good += answer.judgement.as_good() ? 1 : 0;
    }
    if (n > 0) {
      html += absl::StrFormat("<tr><td>%s</td><td>%d</td><td>%s</td></tr>\n", NameOf(by), n,
                              Percent(static_cast<double>(good) / n));
    }
  }
  return html + "</tbody></table></div>\n";
}

std::string Failure(const CalibratedAnswer& answer, const TaskItem& item) {
  std::string html = absl::StrFormat("<div class=\"talk\"><div class=\"kind\">%s</div>\n", Shown(item.id));
  for (const text::ChatMessage& message : item.messages) {
    html += absl::StrFormat("<div class=\"say %s\">%s</div>\n", message.role == "user" ? "user" : "assistant",
                            Shown(message.content));
  }
  html += absl::StrFormat("<div class=\"say edge\"><code>%s</code></div>\n", Shown(answer.text));
  if (!answer.judgement.upstream.empty()) {
    html += absl::StrFormat("<div class=\"say cloud\"><code>%s</code></div>\n", Shown(answer.judgement.upstream));
  }
  if (item.labelled) html += absl::StrFormat("<div class=\"why\">right: <code>%s</code></div>\n", Shown(item.expected));
  html += absl::StrFormat("<div class=\"why\">stated %.3f; judged by %s", answer.kept_by, NameOf(answer.judgement.by));
  if (answer.judgement.by == JudgedBy::kLikelihood) {
    html += absl::StrFormat(", %.2f nats a token less likely than upstream's own", answer.judgement.gap);
  }
  return html + "</div></div>\n";
}

// The most confident of those that were not as good.
std::string Failures(const CalibrationReport& report, std::span<const TaskItem> items,
                     const std::vector<size_t>& order) {
  std::string html = "<div class=\"talks\">\n";
  size_t n = 0;
  for (const size_t i : order) {
    if (report.answers[i].judgement.as_good()) continue;
    html += Failure(report.answers[i], items[i]);
    if (++n == kFailures) break;
  }
  return n == 0 ? "<p>None.</p>\n" : html + "</div>\n";
}

std::string Tiles(const CalibrationReport& report) {
  const ConfidenceReport& r = report.confidence;
  std::string html = "<div class=\"tiles\">\n";
  html += r.n_unlabelled > 0 ? Tile("As good as upstream's", Percent(r.as_good), absl::StrFormat("n = %d", r.n))
                             : Tile("Right alone", Percent(r.accuracy),
                                    absl::StrFormat("%.1f to %.1f, n = %d", 100 * r.accuracy_interval.low,
                                                    100 * r.accuracy_interval.high, r.n));
  html += Tile("Kept", Percent(r.coverage), absl::StrFormat("confidence from %.3f", r.threshold));
  html += Tile("Kept and regretted", absl::StrFormat("%.2f&#8239;%%", 100 * r.risk),
               absl::StrFormat("of all; at most %.2f %%, delta %g", 100 * r.risk_bound, r.delta));
  html += Tile("Calibration error", absl::StrFormat("%.3f", r.ece), "ten bins, cross-fitted");
  html += Tile("Area under ROC", absl::StrFormat("%.3f", r.auroc),
               absl::StrFormat("%.3f to %.3f", r.auroc_interval.low, r.auroc_interval.high));
  return html + "</div>\n";
}

}  // namespace

std::string CalibrationPage(const CalibrationReport& report, std::span<const TaskItem> items, const PageNames& names) {
  const std::vector<size_t> order = ByConfidence(report.answers);
  std::string html =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><title>Updraft: calibration</title><style>";
  html += std::string(kPageStyle) + "</style></head>\n<body><main>\n<h1>When it knows that it knows</h1>\n";
  html += absl::StrFormat("<p class=\"meta\">%s%s &middot; data %s</p>\n", EscapeHtml(names.model),
                          names.upstream.empty() ? "" : " below " + EscapeHtml(names.upstream),
                          EscapeHtml(report.data_fingerprint.substr(0, 16)));
  html += Tiles(report);
  html += "<div class=\"plots\">\n";
  html += Figure("Reliability", "Bins of equally many answers; whiskers are 95&#8239;% Wilson intervals.",
                 ReliabilityPlot(report));
  html += Figure("Risk by coverage", "What keeping more would cost; the dot is the threshold that was chosen.",
                 RiskPlot(report, order));
  html += "</div>\n<h2>What it rests on</h2>\n" + JudgedTable(report);
  html +=
      report.guarantee.holds
          ? absl::StrFormat(
                "<p>Promised: of all requests at most %g&#8239;%% are kept and regretted, with probability "
                "%g, provided that %s.</p>\n",
                100 * report.guarantee.max_loss, 1.0 - report.guarantee.delta, EscapeHtml(report.guarantee.Provided()))
          : "<p>Nothing is promised: the limit on what is handed over set the threshold.</p>\n";
  html += "<h2>Where it fails</h2>\n<p>The most confident answers that are not as good as upstream's.</p>\n";
  html += Failures(report, items, order);
  return html + "</main></body></html>\n";
}

absl::Status WriteCalibrationPage(const std::string& path, const CalibrationReport& report,
                                  std::span<const TaskItem> items, const PageNames& names) {
  auto file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  const std::string page = CalibrationPage(report, items, names);
  if (absl::Status status = file->Append(std::as_bytes(std::span(page))); !status.ok()) return status;
  return file->Commit();
}

}  // namespace updraft
