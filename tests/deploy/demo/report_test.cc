#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "common/routing/confidence.h"
#include "deploy/demo/demo.h"
#include "deploy/page/plot.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/deploy/demo/synthetic_report.h"

namespace updraft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::SyntheticReport;

QueryRecord Record(double confidence, bool edge, bool cloud) {
  QueryRecord record;
  record.item.family = "slot";
  for (const Pass pass : {Pass::kEdge, Pass::kCloud, Pass::kTogether}) record.at(pass).confidence = confidence;
  record.at(Pass::kEdge).correct = edge;
  record.at(Pass::kCloud).correct = cloud;
  return record;
}

TEST(SummaryTest, CurveEqualsRoutingByEachThreshold) {
  const DemoReport report = SyntheticReport(300, 5);
  const auto& curve = report.summary.curve;
  ASSERT_GT(curve.size(), 100u);
  EXPECT_EQ(curve.front().escalated_share, 0.0);
  EXPECT_EQ(curve.back().escalated_share, 1.0);
  for (size_t i = 1; i + 1 < curve.size(); i += 7) {
    double escalated = 0.0, correct = 0.0;
    for (const QueryRecord& record : report.records) {
      const bool kept = record.at(Pass::kEdge).confidence >= curve[i].threshold;
      escalated += kept ? 0.0 : 1.0;
      correct += record.at(kept ? Pass::kEdge : Pass::kCloud).correct ? 1.0 : 0.0;
    }
    EXPECT_NEAR(curve[i].escalated_share, escalated / 300, 1e-12) << "point " << i;
    EXPECT_NEAR(curve[i].accuracy, correct / 300, 1e-12) << "point " << i;
  }
}

TEST(SummaryTest, EqualConfidencesAreNotSplit) {
  const std::vector<QueryRecord> records = {Record(0.5, false, true), Record(0.5, true, true), Record(0.9, true, true)};
  const Summary summary = Summarize(records, 4);
  ASSERT_EQ(summary.curve.size(), 3u);
  EXPECT_NEAR(summary.curve[1].escalated_share, 2.0 / 3, 1e-12);
  EXPECT_EQ(summary.curve[1].threshold, 0.9);
}

TEST(SummaryTest, NoRoutingBeatsTheOracle) {
  const Summary summary = SyntheticReport(400, 6).summary;
  for (const CurvePoint& point : summary.curve) {
    const auto at =
        std::lower_bound(summary.oracle.begin(), summary.oracle.end(), point.escalated_share,
                         [](const CurvePoint& p, double share) { return p.escalated_share < share - 1e-12; });
    ASSERT_NE(at, summary.oracle.end());
    EXPECT_LE(point.accuracy, at->accuracy + 1e-12);
  }
  EXPECT_GT(summary.random_gain_share, 0.0);
  EXPECT_LE(summary.random_gain_share, 1.0);
}

TEST(SummaryTest, GroupsAddUp) {
  const DemoReport report = SyntheticReport(123, 7);
  int n = 0, correct = 0, escalated = 0;
  for (const FamilySummary& family : report.summary.families) {
    if (family.name == "all") continue;
    n += family.n;
    correct += family.at(Pass::kTogether).correct;
    escalated += family.escalated;
  }
  EXPECT_EQ(n, 123);
  EXPECT_EQ(report.summary.all().n, 123);
  EXPECT_EQ(report.summary.all().at(Pass::kTogether).correct, correct);
  EXPECT_EQ(report.summary.all().escalated, escalated);
  double share = 0.0;
  for (const ExitShare& exit : report.summary.exits) share += exit.share;
  EXPECT_NEAR(share, 1.0, 1e-9);
}

TEST(SummaryTest, FailedCallsCountAsWrongButHaveNoLatency) {
  std::vector<QueryRecord> records = {Record(0.9, true, true), Record(0.8, true, true)};
  records[0].at(Pass::kEdge).latency_ms = 10.0;
  records[1].at(Pass::kEdge).status = absl::UnavailableError("gone");
  records[1].at(Pass::kEdge).correct = false;
  const Summary summary = Summarize(records, 4);
  EXPECT_EQ(summary.all().at(Pass::kEdge).errors, 1);
  EXPECT_EQ(summary.all().at(Pass::kEdge).correct, 1);
  EXPECT_EQ(summary.all().at(Pass::kEdge).p50_ms, 10.0);
}

TEST(SummaryTest, DegradedAnswersAreNotEscalated) {
  AnswerRecord answer;
  answer.decision = Decision::kStreamUpstream;
  EXPECT_TRUE(answer.escalated());
  answer.degraded = true;
  EXPECT_FALSE(answer.escalated());
}

TEST(ExamplesTest, AreDistinctAndFitTheirTitles) {
  const DemoReport report = SyntheticReport(600, 8);
  const auto examples = ChooseExamples(report.records, 6);
  EXPECT_EQ(examples.size(), 6u);
  std::vector<int> seen;
  for (const Example& example : examples) {
    EXPECT_EQ(std::count(seen.begin(), seen.end(), example.record), 0);
    seen.push_back(example.record);
    const AnswerRecord& together = report.records[static_cast<size_t>(example.record)].at(Pass::kTogether);
    if (example.title.find("Kept") == 0) {
      EXPECT_FALSE(together.escalated()) << example.title;
    }
    if (example.title.find("wrong") != std::string::npos) {
      EXPECT_FALSE(together.correct) << example.title;
    }
  }
}

TEST(ReportTest, JsonHoldsEveryRecordAndTheFigures) {
  const DemoReport report = SyntheticReport(60, 9);
  const json parsed = json::parse(ToJson(report));
  EXPECT_EQ(parsed["records"].size(), 60u);
  EXPECT_EQ(parsed["n"], 60);
  const json& all = parsed["summary"]["families"]["all"];
  EXPECT_NEAR(all["together"]["accuracy"].get<double>(), report.summary.all().at(Pass::kTogether).accuracy(), 1e-12);
  EXPECT_EQ(all["edge"]["accuracy_ci95"].size(), 2u);
  EXPECT_NEAR(parsed["summary"]["ece"].get<double>(), report.summary.ece, 1e-12);
}

// A page that needs nothing from elsewhere and lets no text of a query act as markup.
TEST(ReportTest, PageIsSelfContainedAndEscaped) {
  DemoReport report = SyntheticReport(200, 10);
  const std::string attack = "</code><script>alert('x')</script><img src=x onerror=\"y\">";
  for (QueryRecord& record : report.records) {
    record.item.family = "<i>" + record.item.family;
    record.item.messages[0].content = attack;
    for (AnswerRecord& answer : record.passes) answer.text = answer.reason = answer.tiers = attack;
  }
  report.edge.model = attack;
  report.summary = Summarize(report.records, report.edge.n_layer);
  const std::string html = ToHtml(report);
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, Not(HasSubstr("<img")));
  EXPECT_THAT(html, Not(HasSubstr("<i>slot")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  for (const char* external : {"http://", "https://", "src=", "@import", "url("}) {
    // "src=" of the attack is there as text, behind an escaped bracket.
    size_t at = 0;
    while ((at = html.find(external, at)) != std::string::npos) {
      EXPECT_EQ(html.substr(at - 8, 8), "&lt;img ") << external << " at " << at;
      ++at;
    }
  }
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

// Every element that is opened is closed, in order.
TEST(ReportTest, PageIsWellFormed) {
  const std::string html = ToHtml(SyntheticReport(100, 11));
  std::vector<std::string> open;
  for (size_t at = html.find('<'); at != std::string::npos; at = html.find('<', at + 1)) {
    const size_t end = html.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = html.substr(at + 1, end - at - 1);
    if (tag[0] == '!' || tag.back() == '/') continue;
    const std::string name = tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" \n", 1) - (tag[0] == '/' ? 1 : 0));
    if (name == "meta") continue;
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty()) << tag;
      ASSERT_EQ(open.back(), name) << html.substr(at, 80);
      open.pop_back();
    } else {
      open.push_back(name);
    }
  }
  EXPECT_TRUE(open.empty()) << open.back();
}

TEST(ReportTest, OddRunsMakeAPageToo) {
  for (const int n : {1, 2, 7}) {
    DemoReport report = SyntheticReport(n, 12);
    EXPECT_THAT(ToHtml(report), Not(HasSubstr("nan"))) << n;
    EXPECT_THAT(ToText(report), HasSubstr("family")) << n;
    for (QueryRecord& record : report.records) {
      for (AnswerRecord& answer : record.passes) {
        answer = AnswerRecord();
        answer.status = absl::UnavailableError("gone");
      }
    }
    report.summary = Summarize(report.records, report.edge.n_layer);
    const std::string html = ToHtml(report);
    EXPECT_THAT(html, Not(HasSubstr("nan"))) << n;
    EXPECT_THAT(html, Not(HasSubstr("inf"))) << n;
    EXPECT_THAT(html, HasSubstr("calls failed")) << n;
  }
}

// The same queries behind a road: told beside the plain ones where it was driven, and nowhere else.
TEST(ReportTest, ARoadIsToldBesideThePlainFigures) {
  DemoReport report = SyntheticReport(100, 15);
  for (const std::string& plain : {ToText(report), ToHtml(report), ToJson(report)}) {
    EXPECT_THAT(plain, Not(HasSubstr("the road")));
    EXPECT_THAT(plain, Not(HasSubstr("\"link\"")));
  }
  LinkReport link;
  link.road = "tunnel<1>.csv";
  link.like = "down 1.00 MB/s, up 200 kB/s";
  link.seconds = 12.0;
  link.bytes_lost = 77;
  for (size_t i = 0; i < report.records.size(); ++i) {
    link.answers.push_back(report.records[i].at(Pass::kTogether));
    AnswerRecord& answer = link.answers.back();
    answer.tiers = "edge";
    answer.decision = Decision::kKeep;
    answer.correct = i % 2 == 0;
    answer.degraded = i < 7;
    answer.latency_ms = 321.0;
  }
  SummarizeLink(&link);
  EXPECT_EQ(link.pass.n, 100);
  EXPECT_EQ(link.pass.correct, 50);
  EXPECT_EQ(link.pass.p95_ms, 321.0);
  EXPECT_EQ(link.escalated, 0);
  EXPECT_EQ(link.degraded, 7);
  report.link = link;
  const std::string text = ToText(report), html = ToHtml(report);
  EXPECT_THAT(text,
              HasSubstr("On the road: tunnel<1>.csv\n  down 1.00 MB/s, up 200 kB/s; 12 s of it, 77 bytes lost\n"));
  EXPECT_THAT(text, HasSubstr("\nwithout road  |"));
  EXPECT_THAT(text, HasSubstr("\non the road   |    50.0 |       0.0 |    321    321 |        7      0 |"));
  EXPECT_THAT(html, HasSubstr("tunnel&lt;1&gt;.csv"));
  EXPECT_THAT(html, HasSubstr("<td>on the road</td>"));
  const json parsed = json::parse(ToJson(report));
  EXPECT_EQ(parsed["link"]["degraded"], 7);
  EXPECT_EQ(parsed["link"]["together"]["accuracy"], 0.5);
  EXPECT_EQ(parsed["link"]["answers"].size(), 100u);
}

TEST(ReportTest, WritesBothFilesIntoANewFolder) {
  const auto folder = std::filesystem::temp_directory_path() / ("updraft_report_" + std::to_string(getpid())) / "new";
  const absl::Status status = WriteReport(SyntheticReport(30, 13), folder.string());
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_GT(std::filesystem::file_size(folder / "report.html"), 10000u);
  EXPECT_GT(std::filesystem::file_size(folder / "report.json"), 10000u);
  std::filesystem::remove_all(folder.parent_path());
  EXPECT_FALSE(WriteReport(SyntheticReport(3, 13), "/proc/no/such").ok());
}

TEST(PlotTest, TicksAreRoundAndCoverTheRange) {
  const auto ticks = RoundTicks(0.72, 1.0, 5, true);
  ASSERT_GE(ticks.size(), 3u);
  for (const auto& [value, text] : ticks) {
    EXPECT_GE(value, 0.72 - 1e-9);
    EXPECT_LE(value, 1.0 + 1e-9);
    EXPECT_THAT(text, HasSubstr("%"));
  }
  EXPECT_EQ(RoundTicks(0.0, 1.0, 5, false).front().second, "0");
  const auto logs = LogTicks(25.0, 4000.0);
  ASSERT_FALSE(logs.empty());
  EXPECT_EQ(logs.front().second, "50 ms");
  EXPECT_EQ(logs.back().second, "2 s");
}

TEST(PlotTest, PointsOutsideTheAxesStayInside) {
  Plot plot("t", 400, 300, {"x", 0, 1, false, {}}, {"y", 0, 1, false, {}});
  plot.Dot({5.0, -7.0}, 3, "dot");
  EXPECT_THAT(plot.Render(), HasSubstr("cx=\"372.0\" cy=\"254.0\""));
}

TEST(EscapeHtmlTest, AllSpecialCharacters) {
  EXPECT_EQ(EscapeHtml("<a b=\"c\" d='e'>&"), "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;");
  EXPECT_EQ(EscapeHtml(std::string_view("a\0b\x1b", 4)), "a b ");
  EXPECT_EQ(EscapeHtml("\u540e\u6392"), "\u540e\u6392");
}

}  // namespace
}  // namespace updraft
