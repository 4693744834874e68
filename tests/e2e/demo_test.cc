// `updraft demo` as a program: it reports, and stops what it started, whatever happens.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

#define SKIP_WITHOUT_DEMO()     \
  SKIP_WITHOUT("updraft");      \
  SKIP_WITHOUT("updraft-edge"); \
  SKIP_WITHOUT("updraft-cloud")

class DemoTest : public TwoModelsTest {
 protected:
  void SetUp() override { out_ = TempPath("_demo"); }
  void TearDown() override {
    std::error_code error;
    fs::remove_all(out_, error);
  }
  std::vector<std::string> Args(const std::vector<std::string>& more) const {
    std::vector<std::string> args = {Program("updraft"), "demo",  "--out",         out_,
                                     "--edge-model",     *small_, "--cloud-model", *large_};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static std::vector<pid_t> Children(pid_t parent) {
    const std::string id = std::to_string(parent);
    std::ifstream in("/proc/" + id + "/task/" + id + "/children");
    std::vector<pid_t> children;
    for (pid_t child; in >> child;) children.push_back(child);
    return children;
  }
  // Ended; whether somebody has waited for it is another matter.
  static bool Gone(pid_t pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    const std::string stat{std::istreambuf_iterator<char>(in), {}};
    const size_t name_end = stat.rfind(')');
    return name_end == std::string::npos || stat.compare(name_end, 3, ") Z") == 0;
  }
  // The daemons, once both are ready; empty when that does not happen.
  std::vector<pid_t> AwaitWork(const Process& demo) const {
    for (int i = 0; i < 6000; ++i) {
      const std::vector<pid_t> children = Children(demo.pid());
      std::ifstream log(fs::path(out_) / "edge.log");
      const std::string text{std::istreambuf_iterator<char>(log), {}};
      if (children.size() == 2 && text.find("ready") != std::string::npos) return children;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return {};
  }
  std::string out_;
};

TEST_F(DemoTest, ReportsAndStopsWhatItStarted) {
  SKIP_WITHOUT_DEMO();
  Process demo(Args({"--queries", "6"}));
  std::vector<pid_t> daemons;
  while (demo.Wait(absl::Milliseconds(1)) < 0) {
    if (auto now = Children(demo.pid()); now.size() > daemons.size()) daemons = now;
  }
  EXPECT_EQ(demo.Wait(absl::Seconds(120)), 0) << demo.Output();
  EXPECT_THAT(demo.Output(), HasSubstr("report.html"));
  EXPECT_THAT(daemons, SizeIs(2));
  for (const pid_t daemon : daemons) EXPECT_TRUE(Gone(daemon)) << daemon;
  std::ifstream json(fs::path(out_) / "report.json");
  EXPECT_TRUE(nlohmann::json::accept(json));
  EXPECT_TRUE(fs::exists(fs::path(out_) / "report.html"));
}

TEST_F(DemoTest, ARoadIsDrivenBesideThePlainRun) {
  SKIP_WITHOUT_DEMO();
  const std::string road = TempPath("_road.csv");
  std::ofstream(road)
      << "time_s,rate_up,rate_down,delay_ms,event,duration_s\n0,50000,100000,20,,\n2,,,,cut,0.2\n4,,,,end,\n";
  Process demo(Args({"--queries", "6", "--link", road}));
  EXPECT_EQ(demo.Wait(absl::Seconds(240)), 0) << demo.Output();
  EXPECT_THAT(demo.Output(), HasSubstr("On the road: "));
  EXPECT_THAT(demo.Output(), HasSubstr("delay 20.0 ms one way"));
  EXPECT_THAT(Children(demo.pid()), SizeIs(0));
  std::ifstream file(fs::path(out_) / "report.json");
  const auto report = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(report.is_object());
  EXPECT_EQ(report["link"]["answers"].size(), 6u);
  EXPECT_EQ(report["link"]["together"]["errors"], 0);
  fs::remove(road);
  Process missing(Args({"--link", "/nonexistent/road.csv"}));
  EXPECT_EQ(missing.Wait(absl::Seconds(60)), 1);
  EXPECT_THAT(missing.Output(), HasSubstr("--link: '/nonexistent/road.csv'"));
}

TEST_F(DemoTest, InterruptedItStopsBothDaemons) {
  SKIP_WITHOUT_DEMO();
  for (const int signal : {SIGINT, SIGTERM}) {
    Process demo(Args({"--queries", "5000"}));
    const std::vector<pid_t> daemons = AwaitWork(demo);
    ASSERT_THAT(daemons, SizeIs(2)) << demo.Output();
    absl::SleepFor(absl::Milliseconds(100));
    demo.Signal(signal);
    EXPECT_EQ(demo.Wait(absl::Seconds(30)), 128 + signal) << demo.Output();
    for (const pid_t daemon : daemons) EXPECT_TRUE(Gone(daemon)) << daemon;
  }
}

// Even when it has no chance to tidy up.
TEST_F(DemoTest, KilledItLeavesNoDaemonBehind) {
  SKIP_WITHOUT_DEMO();
  Process demo(Args({"--queries", "5000"}));
  const std::vector<pid_t> daemons = AwaitWork(demo);
  ASSERT_THAT(daemons, SizeIs(2)) << demo.Output();
  demo.Signal(SIGKILL);
  demo.Wait(absl::Seconds(30));
  for (const pid_t daemon : daemons) {
    for (int i = 0; i < 2000 && !Gone(daemon); ++i) absl::SleepFor(absl::Milliseconds(5));
    EXPECT_TRUE(Gone(daemon)) << daemon;
  }
}

TEST_F(DemoTest, DaemonThatCannotStartIsNamed) {
  SKIP_WITHOUT_DEMO();
  const std::string damaged = TempPath("_damaged.gguf");
  std::ofstream(damaged) << "GGUF";
  Process demo({Program("updraft"), "demo", "--out", out_, "--edge-model", damaged, "--cloud-model", *large_});
  EXPECT_EQ(demo.Wait(absl::Seconds(60)), 1) << demo.Output();
  EXPECT_THAT(demo.Output(), HasSubstr("updraft-edge"));
  EXPECT_THAT(demo.Output(), HasSubstr("edge.log"));
  EXPECT_THAT(Children(demo.pid()), SizeIs(0));
  fs::remove(damaged);
}

}  // namespace
}  // namespace updraft::testing
