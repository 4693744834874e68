// The wall clock is stepped by a day, both ways, under load: no answer may notice. libfaketime moves the daemons' wall
// clock and leaves the monotonic one alone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/inference_client.h"
#include "tests/common/http/raw_client.h"
#include "tests/e2e/process.h"
#include "tests/e2e/request.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

using ClockStepTest = TwoModelsTest;

constexpr const char* kLibraries[] = {"/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
                                      "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"};

std::string FakeTimeLibrary() {
  for (const char* path : kLibraries) {
    if (access(path, R_OK) == 0) return path;
  }
  return "";
}

// The daemons' wall clock: the real one and an offset, read from a file at every look at it.
class WallClock {
 public:
  explicit WallClock(const std::string& library) : library_(library), path_(TempPath(".faketime")) { Set("+0"); }
  ~WallClock() { std::remove(path_.c_str()); }
  void Set(const std::string& offset) {
    const std::string next = path_ + ".next";
    std::ofstream(next) << offset << "\n";
    std::rename(next.c_str(), path_.c_str());
  }
  std::vector<std::string> Environment() const {
    return {"LD_PRELOAD=" + library_, "FAKETIME_TIMESTAMP_FILE=" + path_, "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"};
  }

 private:
  const std::string library_;
  const std::string path_;
};

struct Outcome {
  absl::Status status;
  v1::Provenance provenance;
  absl::Duration took;
};

// What a daemon says the date is.
bool WallClockIsOffBy(int http_port, int days) {
  const auto response = http::testing::Fetch(http_port, "GET", "/healthz");
  absl::Time date;
  std::string error;
  const auto header = response.headers.find("date");
  if (header == response.headers.end() ||
      !absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", header->second, &date, &error)) {
    return false;
  }
  return absl::AbsDuration(date - absl::Now() - days * absl::Hours(24)) < absl::Minutes(5);
}

// Whether it says so within ten seconds: absl::Now, where it is called often, counts CPU cycles and looks at the clock
// every two seconds.
bool Follows(const Daemon& daemon, int days) {
  for (int i = 0; i < 100; ++i) {
    if (WallClockIsOffBy(daemon.http_port(), days)) return true;
    absl::SleepFor(absl::Milliseconds(100));
  }
  return false;
}

TEST_F(ClockStepTest, NoAnswerNotices) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string library = FakeTimeLibrary();
  if (library.empty()) GTEST_SKIP() << "libfaketime is not installed (Debian: faketime)";
  WallClock wall(library);
  Daemon cloud("updraft-cloud", {"--model", *large_, "--http-listen", "127.0.0.1:0"}, wall.Environment());
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge",
              {"--model", *small_, "--upstream", cloud.address(), "--confidence-threshold", "1",
               "--link-probe-interval-ms", "100", "--upstream-timeout-ms", "20000"},
              wall.Environment());
  ASSERT_TRUE(edge.ready());
  InferenceClient(edge.address()).Generate(Request(4), absl::Seconds(60)).IgnoreError();  // connected from here on

  constexpr int kClients = 4;
  std::atomic<bool> stop{false};
  std::vector<std::vector<Outcome>> outcomes(kClients);
  std::vector<std::thread> clients;
  for (int c = 0; c < kClients; ++c) {
    clients.emplace_back([&, c] {
      InferenceClient client(edge.address());
      while (!stop) {
        // A deadline that a step of a day would put in the past, or in the far future.
        auto answer = client.Generate(Request(24 + 16 * c), absl::Seconds(120));
        outcomes[c].push_back({answer.status(), answer.ok() ? answer->done.provenance() : v1::Provenance(),
                               answer.ok() ? answer->total : absl::ZeroDuration()});
      }
    });
  }
  int n_moved = 0;
  for (const auto& [offset, days] :
       std::vector<std::pair<const char*, int>>{{"+1d", 1}, {"-1d", -1}, {"+0", 0}, {"+1d", 1}, {"-1d", -1}}) {
    absl::SleepFor(absl::Milliseconds(700));
    wall.Set(offset);
    n_moved += Follows(edge, days) && Follows(cloud, days) ? 1 : 0;
  }
  EXPECT_EQ(n_moved, 5) << "the daemons' wall clocks did not follow: nothing was tried";
  absl::SleepFor(absl::Milliseconds(700));
  stop = true;
  for (std::thread& client : clients) client.join();

  int n = 0;
  for (const auto& of_client : outcomes) {
    for (const Outcome& outcome : of_client) {
      ++n;
      ASSERT_TRUE(outcome.status.ok()) << outcome.status;
      const v1::Provenance& provenance = outcome.provenance;
      EXPECT_FALSE(provenance.degraded()) << provenance.reason();
      // Every duration lies within what the client saw.
      const double took_ms = absl::ToDoubleMilliseconds(outcome.took);
      for (const double ms : {provenance.queue_ms(), provenance.local_ms(), provenance.upstream_ms(),
                              provenance.first_token_ms(), provenance.total_ms()}) {
        EXPECT_GE(ms, 0.0);
        EXPECT_LE(ms, took_ms + 1.0) << provenance.ShortDebugString();
      }
    }
  }
  EXPECT_GE(n, 10) << "too little load to tell";
  auto status = InferenceClient(edge.address()).GetStatus(absl::Seconds(60));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_TRUE(status->link().reachable());
  EXPECT_LT(status->link().rtt_ms(), 10000.0);
  EXPECT_LT(status->uptime_s(), 600.0);
  EXPECT_GE(status->uptime_s(), 0.0);
  std::printf("%d answers while the wall clock stepped by a day five times\n", n);
}

}  // namespace
}  // namespace updraft::testing
