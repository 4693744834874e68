// Traces as files: every format, everything that may be wrong with one, and the recorded ones where they are.
#include "deploy/relay/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "deploy/relay/road.h"

namespace updraft::relay {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

bool operator==(const std::vector<StepCurve::Point>& a, const std::vector<std::pair<double, double>>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::abs(a[i].time_s - b[i].first) > 1e-9 || std::abs(a[i].value - b[i].second) > 1e-6 * b[i].second)
      return false;
  }
  return true;
}

Trace Parsed(const std::string& text, const std::string& select = "", const TraceOptions& options = {}) {
  auto trace = ParseTrace(text, "f", select, options);
  EXPECT_TRUE(trace.ok()) << trace.status();
  return trace.ok() ? *std::move(trace) : Trace();
}

TEST(TraceTest, DeliveryOpportunities) {
  const Trace trace = Parsed("0\n1\n1\n3\n7\n");
  EXPECT_TRUE(trace.rate == (std::vector<std::pair<double, double>>{
                                {0.0, 4.5e6}, {0.001, 0.0}, {0.002, 1.5e6}, {0.003, 0.0}, {0.006, 1.5e6}}));
  EXPECT_NEAR(trace.length_s, 0.007, 1e-12);
  // As many bytes as packets, at every millisecond.
  const StepCurve curve(trace.rate, trace.length_s, StepCurve::Beyond::kRepeat, 0.0);
  EXPECT_NEAR(curve.Integral(0.003), 4 * 1500, 1e-6);
  EXPECT_NEAR(curve.Integral(0.007), 5 * 1500, 1e-6);
  EXPECT_NEAR(curve.Integral(0.014), 10 * 1500, 1e-6);
}

TEST(TraceTest, Bins) {
  const Trace trace = Parsed("t_ms,packets_1500B\r\n0,6\r\n100,0\r\n200,13\r\n");
  EXPECT_TRUE(trace.rate == (std::vector<std::pair<double, double>>{{0.0, 9e4}, {0.1, 0.0}, {0.2, 195e3}}));
  EXPECT_NEAR(trace.length_s, 0.3, 1e-12);
}

TEST(TraceTest, OneOfManyByName) {
  const std::string text = "trace,t_s,mbps\na,0.5,8\na,1.5,4\nb,0,1.6\n\na,3.5,2\n";
  const Trace trace = Parsed(text, "a");
  EXPECT_TRUE(trace.rate == (std::vector<std::pair<double, double>>{{0.0, 1e6}, {1.0, 5e5}, {3.0, 2.5e5}}));
  EXPECT_NEAR(trace.length_s, 5.0, 1e-12);
  EXPECT_EQ(trace.name, "f#a");
  EXPECT_THAT(ParseTrace(text, "f", "", {}).status().ToString(),
              HasSubstr("f: holds 2 traces (a, b); choose one as FILE#NAME"));
  EXPECT_THAT(ParseTrace(text, "f", "c", {}).status().ToString(), HasSubstr("no trace 'c'"));
}

TEST(TraceTest, DriveOn5g) {
  const Trace trace = Parsed(
      "t_s,speed_kmh,mode,dl_kbps,ul_kbps,state,ping_avg_ms,cell\n0,1,5G,800,10,D,-,1\n0,1,5G,1600,10,D,40,1\n"
      "2,1,5G,0,0,I,60.0,1\n3,1,LTE,8,1,D,-,1\n");
  // Two readings of one second are one; while nothing was transferred the rate is not known.
  EXPECT_TRUE(trace.rate == (std::vector<std::pair<double, double>>{{0.0, 150e3}, {3.0, 1e3}}));
  EXPECT_TRUE(trace.delay == (std::vector<std::pair<double, double>>{{0.0, 0.02}, {2.0, 0.03}}));
  EXPECT_TRUE(trace.rate_up.empty());
  EXPECT_NEAR(trace.length_s, 4.0, 1e-12);
}

TEST(TraceTest, RoundTrips) {
  const Trace trace = Parsed("run,t_ms,delay_ms,cell\nr1,0,30,x\nr1,55,20,x\n", "r1");
  EXPECT_TRUE(trace.delay == (std::vector<std::pair<double, double>>{{0.0, 0.015}, {0.055, 0.01}}));
  EXPECT_TRUE(trace.rate.empty());
}

TEST(TraceTest, RoadsByHandInBothForms) {
  const Trace csv = Parsed(
      "# a tunnel\ntime_s,rate_up,rate_down,delay_ms,jitter_ms,event,duration_s\n0,1e5,1e6,20,5,,\n10,,0,,,stall,2\n"
      "15,2e5,1e6,30,,,\n15,,,,,reset,\n20,,,,,cut,3\n30,,,,,end,\n");
  const Trace json = Parsed(
      "{\"time_s\": 0, \"rate_up\": 1e5, \"rate_down\": 1e6, \"delay_ms\": 20, \"jitter_ms\": 5}\n"
      "{\"time_s\": 10, \"rate_down\": 0, \"event\": \"stall\", \"duration_s\": 2}\n"
      "{\"time_s\": 15, \"rate_up\": 2e5, \"rate_down\": 1000000, \"delay_ms\": 30}\n"
      "{\"time_s\": 15, \"event\": \"reset\"}\n{\"time_s\": 20, \"event\": \"cut\", \"duration_s\": 3}\n"
      "{\"event\": \"end\", \"time_s\": 30}\n");
  for (const Trace& trace : {csv, json}) {
    EXPECT_TRUE(trace.rate_up == (std::vector<std::pair<double, double>>{{0.0, 1e5}, {15.0, 2e5}}));
    EXPECT_TRUE(trace.rate_down == (std::vector<std::pair<double, double>>{{0.0, 1e6}, {10.0, 0.0}, {15.0, 1e6}}));
    EXPECT_TRUE(trace.delay == (std::vector<std::pair<double, double>>{{0.0, 0.02}, {15.0, 0.03}}));
    EXPECT_TRUE(trace.jitter == (std::vector<std::pair<double, double>>{{0.0, 0.005}}));
    ASSERT_EQ(trace.events.size(), 3u);
    EXPECT_EQ(trace.events[0].kind, EventKind::kStall);
    EXPECT_EQ(trace.events[0].duration_s, 2.0);
    EXPECT_EQ(trace.events[1].kind, EventKind::kReset);
    EXPECT_EQ(trace.events[2].time_s, 20.0);
    EXPECT_EQ(trace.length_s, 30.0);
  }
  EXPECT_EQ(Parsed("time_s,delay_ms\n0,1\n4,2\n").length_s, 8.0);  // the last lasts as long as the one before it
}

// What is wrong is told with file and line, with what was expected, and with what to do.
TEST(TraceTest, OddFilesAreRefusedByFileAndLine) {
  const std::string road = "time_s,rate_down,event,duration_s\n", bins = "t_ms,packets_1500B\n",
                    mbps = "trace,t_s,mbps\n";
  struct Case {
    std::string text;
    std::string where, says;
    std::string select;
  };
  const std::vector<Case> cases = {
      {"", "f: ", "no line at all", ""},
      {"\n\n# nothing\n", "f: ", "no line at all", ""},
      {"hello\n", "f:1: ", "found 'hello'", ""},
      {std::string(100, '\0'), "f:1: ", "expected the first line", ""},
      {"a,b\n1,2\n", "f:1: ", "--format", ""},
      {"0\n5\n4\n", "f:3: ", "backwards", ""},
      {"0\n5\nx\n", "f:3: ", "milliseconds", ""},
      {"0\n-5\n", "f:2: ", "milliseconds", ""},
      {"0\n99999999999999\n", "f:2: ", "milliseconds", ""},
      {"0\n99999999999999999999999\n", "f:2: ", "milliseconds", ""},
      {bins, "f: ", "is the file whole", "-"},
      {bins + "0,1\n", "f:2: ", "two bins", "-"},
      {bins + "0,1\n100,1\n300,1\n", "f:4: ", "fill in", "-"},
      {bins + "0,3\n1e-300,3\n", "f:3: ", "at least a millisecond", "-"},
      {bins + "0,3\n0.0000001,3\n0.0000002,3\n", "f:3: ", "at least a millisecond", "-"},
      {bins + "0,3\n100,5e6\n", "f: ", "at most 1e+10 bytes/s, found 7.5e+10 in the bin at 0.1 s", "-"},
      {bins + "0,1\n100\n", "f:3: ", "2 cells", "-"},
      {bins + "0,1\n100,nan\n", "f:3: ", "packets_1500B: expected a number", "-"},
      {bins + "0,1\n100,inf\n", "f:3: ", "packets_1500B: expected a number", "-"},
      {bins + "0,1\n100,-3\n", "f:3: ", "packets_1500B: expected a number", "-"},
      {bins + "0,1\n100,1e300\n", "f:3: ", "packets_1500B: expected a number", "-"},
      {bins + "0,1\n,3\n", "f:3: ", "expected a time", "-"},
      {bins + "0,1\nnan,3\n", "f:3: ", "t_ms: expected a number", "-"},
      {bins + "0,-\n100,-\n", "f: ", "found none in any line", "-"},
      {mbps + "a,0,1\na,5,1\na,4,1\n", "f:4: ", "backwards", "a"},
      {mbps + "a,0,1\na,100,1\n", "f:3: ", "--max-gap 100", "a"},
      {road + "0,1e6,,\n5,x,,\n", "f:3: ", "rate_down: expected a number from 0 to", ""},
      {road + "0,1e6,,\n5,1e99,,\n", "f:3: ", "rate_down", ""},
      {road + "0,1e6,,\n-5,1,,\n", "f:3: ", "time_s", ""},
      {road + "5,1e6,,\n0,1,,\n", "f:3: ", "backwards", ""},
      {road + "0,1e6,,\n5,1,jump,3\n", "f:3: ", "stall, cut, reset, blackhole or end", ""},
      {road + "0,1e6,,\n5,1,cut,\n", "f:3: ", "how long it lasts", ""},
      {road + "0,1e6,,\n5,1,reset,2\n", "f:3: ", "over at once", ""},
      {road + "0,1e6,,\n5,1,,2\n", "f:3: ", "duration_s", ""},
      {road + "0,1e6,end,\n", "f:2: ", "at least a millisecond", ""},
      {road + "0,1,,\n5,,end,\n6,1,,\n", "f:4: ", "nothing after", ""},
      {"time_s,rate_down,rate_down\n0,1,1\n", "f:1: ", "every column once", ""},
      {"time_s,rate_dwn\n0,1\n", "f:1: ", "found 'rate_dwn'", ""},
      {"{\"time_s\": 0, \"rate\": 1}\n", "f:1: ", "found 'rate'", ""},
      {"{\"time_s\": 0}\n{\"time_s\"", "f:2: ", "one JSON object a line", ""},
      {"{\"time_s\": \"0\"}\n", "f:1: ", "time_s: expected a number", ""},
      {"{\"rate_down\": 1}\n", "f:1: ", "time_s", ""},
      {"{\"time_s\": 0, \"event\": 3}\n", "f:1: ", "expected a string", ""},
      {"{\"time_s\": 0}\n", "f: ", "found none in any line", ""},
      {std::string(100000, '{'), "f:1: ", "one JSON object", ""},
  };
  for (const Case& odd : cases) {
    TraceOptions options;
    std::string select = odd.select;
    if (select == "-") select = "";
    const auto trace = ParseTrace(odd.text, "f", select, options);
    EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument) << odd.text.substr(0, 80);
    EXPECT_EQ(std::string(trace.status().message()).rfind(odd.where, 0), 0u)
        << trace.status() << " for " << odd.text.substr(0, 80);
    EXPECT_THAT(std::string(trace.status().message()), HasSubstr(odd.says)) << odd.text.substr(0, 80);
  }
  EXPECT_THAT(ParseTrace("0\n1\n", "f", "", {.format = TraceFormat::kMbps}).status().ToString(),
              AllOf(HasSubstr("f:1: "), HasSubstr("trace, t_s, mbps"), HasSubstr("--format mbps")));
  EXPECT_THAT(ParseTrace("0\n1\n", "f", "name", {}).status().ToString(), HasSubstr("#name"));
}

TEST(TraceTest, Names) {
  EXPECT_EQ(*ParseTraceFormat("bins"), TraceFormat::kBins);
  EXPECT_THAT(ParseTraceFormat("bin").status().ToString(), AllOf(HasSubstr("detect, road,"), HasSubstr("'bin'")));
  const auto event = ParseEvent("10.5:cut:5");
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(event->time_s, 10.5);
  EXPECT_EQ(event->kind, EventKind::kCut);
  EXPECT_EQ(event->duration_s, 5.0);
  EXPECT_TRUE(ParseEvent("3:reset").ok());
  for (const char* wrong :
       {"", "3", "3:reset:1", "3:cut", "x:cut:1", "3:jump:1", "3:cut:-1", "nan:cut:1", "3:cut:1:1", "3:cut:inf"}) {
    EXPECT_FALSE(ParseEvent(wrong).ok()) << wrong;
  }
}

// ---- Roads out of several files and flags --------------------------------------------------------------------------

class RoadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "updraft_road_" + std::to_string(getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name) << text;
    return folder_ + "/" + name;
  }
  std::string folder_;
};

TEST_F(RoadTest, FilesAndConstantsCombine) {
  const std::string rates = Write("r.csv", "trace,t_s,mbps\na,0,8\na,1,16\n"),
                    rtt = Write("d.csv", "run,t_ms,delay_ms\nx,0,40\nx,500,60\n");
  auto road =
      MakeRoad({.trace = rates + "#a", .rtt_trace = rtt + "#x", .beyond = StepCurve::Beyond::kRepeat, .scale = 0.5});
  ASSERT_TRUE(road.ok()) << road.status();
  for (const Direction direction : kDirections) {
    EXPECT_EQ(road->lane(direction).rate.At(0.0), 0.5e6);
    EXPECT_EQ(road->lane(direction).rate.At(1.0), 1e6);
    EXPECT_EQ(road->lane(direction).rate.At(2.0), 0.5e6);  // each file begins again after its own length
    EXPECT_EQ(road->lane(direction).delay.At(0.6), 0.03);
    EXPECT_EQ(road->lane(direction).delay.At(1.1), 0.02);
  }
  EXPECT_EQ(TraceLength(*road), 2.0);
  road = MakeRoad({.trace = rates + "#a",
                   .rtt_trace = rtt + "#x",
                   .start_s = 0.75,
                   .rate_up = 5000.0,
                   .delay_ms = 7.0,
                   .jitter_ms = 3.0});
  ASSERT_TRUE(road.ok()) << road.status();
  EXPECT_EQ(road->up.rate.At(9.0), 5000.0);
  EXPECT_EQ(road->down.rate.At(0.2), 1e6);
  EXPECT_EQ(road->down.rate.At(0.3), 2e6);
  EXPECT_EQ(road->down.delay.At(0.0), 0.007);
  EXPECT_EQ(road->up.jitter.At(0.0), 0.003);
  const auto open = MakeRoad({});
  ASSERT_TRUE(open.ok());
  EXPECT_EQ(open->up.rate.At(0.0), kUnlimited);
  EXPECT_THAT(Describe(*open, 0.0, 1.0), HasSubstr("down unlimited, up unlimited, delay 0.0 ms"));
}

TEST_F(RoadTest, APairOfFilesStaysTogether) {
  const std::string down = Write("x.down.100ms.csv", "t_ms,packets_1500B\n0,10\n100,20\n");
  EXPECT_EQ(MakeRoad({.trace = down})->up.rate.At(0.0), 150e3);  // alone: for both
  Write("x.up.100ms.csv", "t_ms,packets_1500B\n0,1\n100,2\n");
  for (const char* name : {"x.down.100ms.csv", "x.up.100ms.csv"}) {
    const auto road = MakeRoad({.trace = folder_ + "/" + name});
    ASSERT_TRUE(road.ok()) << road.status();
    EXPECT_EQ(road->down.rate.At(0.0), 150e3);
    EXPECT_EQ(road->up.rate.At(0.0), 15e3);
  }
  const auto only_up = MakeRoad({.trace_up = folder_ + "/x.up.100ms.csv"});
  ASSERT_TRUE(only_up.ok());
  EXPECT_EQ(only_up->down.rate.At(0.0), kUnlimited);
}

TEST_F(RoadTest, EventsComeAgainWithTheFileThatSaysThem) {
  const std::string brief = Write("brief.csv", "time_s,rate_up,event\n0,1000,reset\n0.5,,end\n"),
                    rates = Write("rates.csv", "time_s,rate_down\n0,1000\n3,2000\n");
  for (const std::string& both : {std::string(), rates}) {
    SCOPED_TRACE(both);
    const auto road = MakeRoad({.trace = both, .trace_up = brief, .beyond = StepCurve::Beyond::kRepeat});
    ASSERT_TRUE(road.ok()) << road.status();
    EXPECT_EQ(road->events.NextTime(-1.0), 0.0);
    EXPECT_EQ(road->events.NextTime(0.0), 0.5);
    EXPECT_EQ(road->events.Count(-1.0, 10.0), 21);
  }
}

TEST_F(RoadTest, EventsOfAllFilesCount) {
  const std::string both = Write("both.csv", "time_s,rate_down,event\n0,1000,\n1,,reset\n5,,end\n"),
                    up = Write("up.csv", "time_s,rate_up,event\n0,1000,\n2,,reset\n4,,end\n");
  const auto road = MakeRoad({.trace = both, .trace_up = up});
  ASSERT_TRUE(road.ok()) << road.status();
  EXPECT_EQ(road->events.NextTime(-1.0), 1.0);
  EXPECT_EQ(road->events.NextTime(1.0), 2.0);
}

TEST_F(RoadTest, DelaysOfEachDirectionAreDescribed) {
  const std::string up = Write("up.csv", "time_s,delay_ms\n0,30\n"),
                    down = Write("down.csv", "time_s,delay_ms\n0,10\n");
  const auto road = MakeRoad({.trace_up = up, .trace_down = down});
  ASSERT_TRUE(road.ok()) << road.status();
  EXPECT_THAT(Describe(*road, 0.0, 1.0), HasSubstr("delay 10.0 ms one way down, 30.0 ms one way up"));
}

// Three years beside a millisecond: as many events as nobody can list.
TEST_F(RoadTest, AShortFileBesideALongOneIsDescribed) {
  const std::string brief = Write("brief.csv", "time_s,rate_up,event\n0,1000,reset\n0.001,,end\n"),
                    years = Write("years.csv", "time_s,rate_down\n0,1000\n100000000,2000\n");
  const auto road = MakeRoad({.trace_up = brief, .trace_down = years, .beyond = StepCurve::Beyond::kRepeat});
  ASSERT_TRUE(road.ok()) << road.status();
  EXPECT_THAT(Describe(*road, 0.0, TraceLength(*road)), HasSubstr(" events"));
}

TEST_F(RoadTest, OneThatPassesNothingForEverIsRefused) {
  const std::string zero = Write("zero.csv", "t_ms,packets_1500B\n0,0\n100,0\n"),
                    ends = Write("ends.csv", "t_ms,packets_1500B\n0,5\n100,0\n");
  EXPECT_THAT(MakeRoad({.trace = zero, .beyond = StepCurve::Beyond::kRepeat}).status().ToString(),
              AllOf(HasSubstr("zero.csv: "), HasSubstr("0 in every line")));
  const auto road = MakeRoad({.trace = ends});
  EXPECT_EQ(road.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(road.status().ToString(), AllOf(HasSubstr("ends.csv:3: "), HasSubstr("--loop")));
  EXPECT_TRUE(MakeRoad({.trace = ends, .beyond = StepCurve::Beyond::kRepeat}).ok());
}

TEST_F(RoadTest, OptionsThatCannotBeAreNamed) {
  const std::string file = Write("a.csv", "t_ms,packets_1500B\n0,5\n100,5\n");
  const auto says = [](const RoadOptions& options) { return MakeRoad(options).status().ToString(); };
  EXPECT_THAT(says({.rate_down = 0.0}), HasSubstr("--rate-down: expected 1 to"));
  EXPECT_THAT(says({.rate_up = std::nan("")}), HasSubstr("--rate-up"));
  EXPECT_THAT(says({.delay_ms = -1.0}), HasSubstr("--delay-ms"));
  EXPECT_THAT(says({.jitter_ms = 1e9}), HasSubstr("--jitter-ms"));
  EXPECT_THAT(says({.scale = 0.0}), HasSubstr("--scale"));
  EXPECT_THAT(says({.trace = file, .start_s = 0.2}), AllOf(HasSubstr("--start"), HasSubstr("0.2 s long")));
  EXPECT_THAT(says({.trace = file, .trace_up = file, .trace_down = file}), HasSubstr("--trace-up"));
  EXPECT_THAT(says({.rtt_trace = file}), HasSubstr("--rtt-trace"));
  const auto missing = MakeRoad({.trace = folder_ + "/none.csv"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().ToString(), HasSubstr("none.csv"));
  EXPECT_FALSE(MakeRoad({.trace = folder_}).ok());
  const auto damaged = MakeRoad({.trace = Write("b.csv", "what\n")});
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kDataLoss);
}

// ---- Recorded files -------------------------------------------------------------------------------------------------

TEST(RecordedTest, EveryTraceIsReadOrRefusedByLine) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  const fs::path data = fs::path(source == nullptr ? "." : source) / "../shared/data";
  if (!fs::exists(data)) GTEST_SKIP() << "not tested: " << data.string() << " is not on this machine";
  int n_read = 0, n_refused = 0;
  for (const char* folder :
       {"bw_mahimahi_lte", "bw_hsdpa_norway_oboe", "bw_5g_ireland_driving", "rtt_5g_cicv5g_vehicle"}) {
    if (!fs::exists(data / folder / "dev"))
      GTEST_SKIP() << "not tested: " << (data / folder).string() << " is not on this machine";
    for (const auto& file : fs::directory_iterator(data / folder / "dev")) {
      std::vector<std::string> names = {""};
      // A file of many: its names are the first cells.
      if (const auto whole = LoadTrace(file.path().string(), {});
          absl::StrContains(std::string(whole.status().message()), "choose one")) {
        names.clear();
        std::ifstream in(file.path());
        std::string line;
        std::getline(in, line);
        while (std::getline(in, line)) {
          const std::string name = line.substr(0, line.find(','));
          if (names.empty() || names.back() != "#" + name) names.push_back("#" + name);
        }
      }
      for (const std::string& name : names) {
        const bool rtt = std::string(folder).rfind("rtt", 0) == 0;
        RoadOptions options;
        (rtt ? options.rtt_trace : options.trace) = file.path().string() + name;
        options.beyond = StepCurve::Beyond::kRepeat;
        const auto road = MakeRoad(options);
        n_read += road.ok() ? 1 : 0;
        if (road.ok()) {
          const LaneFacts facts = FactsOf(road->down, 0.0, TraceLength(*road));
          EXPECT_TRUE(rtt ? facts.p50_delay_s > 0.004 && facts.p50_delay_s < 1.0
                          : facts.mean_rate > 10.0 && facts.mean_rate < 1e8)
              << file.path() << name << ": " << Describe(*road, 0.0, TraceLength(*road));
        } else {
          ++n_refused;
          // Gaps and times that go backwards are in some of them.
          EXPECT_THAT(road.status().ToString(), ::testing::AnyOf(HasSubstr("backwards"), HasSubstr("--max-gap")));
        }
      }
    }
  }
  std::printf("%d traces read, %d refused\n", n_read, n_refused);
  EXPECT_GT(n_read, 300);
  EXPECT_LT(n_refused, 5);
}

}  // namespace
}  // namespace updraft::relay
