// The real daemons with a road between them: the relay in this process, and as a program.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/clock/steady.h"
#include "common/rpc/inference_client.h"
#include "deploy/relay/relay.h"
#include "tests/e2e/process.h"
#include "tests/e2e/request.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

using relay::Direction;
using relay::EventKind;
using relay::Relay;
using ::testing::HasSubstr;

class LinkTest : public TwoModelsTest {
 protected:
  static std::unique_ptr<Relay> StartRelay(const Daemon& to, const relay::RoadOptions& road_options,
                                           relay::RelayOptions options = {}) {
    auto road = relay::MakeRoad(road_options);
    EXPECT_TRUE(road.ok()) << road.status();
    options.to = to.address();
    options.road = *std::move(road);
    auto started = Relay::Start(std::move(options));
    EXPECT_TRUE(started.ok()) << started.status();
    return *std::move(started);
  }
  // Until the edge has heard from its upstream.
  static bool AwaitUpstream(InferenceClient& client) {
    for (int i = 0; i < 6000; ++i) {
      auto status = client.GetStatus(absl::Seconds(60));
      if (status.ok() && status->has_upstream()) return true;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }
};

TEST_F(LinkTest, ACallThroughTheRelaySaysTheSameLater) {
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(cloud.ready());
  const auto relay = StartRelay(cloud, {.rate_up = 50e3, .rate_down = 100e3, .delay_ms = 30.0, .jitter_ms = 10.0});
  InferenceClient direct(cloud.address()), far(relay->address());
  auto truth = direct.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(truth.ok()) << truth.status();
  for (int i = 0; i < 3; ++i) {
    const SteadyTime start = SteadyNow();
    auto answer = far.Generate(Request(), absl::Seconds(60));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->text, truth->text);
    EXPECT_EQ(answer->tokens, truth->tokens);
    EXPECT_GE(SteadyNow() - start, absl::Milliseconds(60));
  }
  EXPECT_GT(relay->counters().down.bytes_delivered, 0);
}

TEST_F(LinkTest, TheEdgeHandsOverOnTheRoadAndEndsAloneWhenItBreaks) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *large_});
  ASSERT_TRUE(cloud.ready());
  std::string captured;  // on the relay's thread; read after Stop
  relay::RelayOptions options;
  options.capture = [&captured](uint64_t, Direction direction, std::string_view bytes) {
    if (direction == Direction::kUp) captured += bytes;
  };
  const auto relay = StartRelay(cloud, {.rate_up = 200e3, .rate_down = 200e3, .delay_ms = 5.0}, std::move(options));
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", relay->address(), "--confidence-threshold", "1",
                               "--link-probe-interval-ms", "50"});
  ASSERT_TRUE(edge.ready());
  InferenceClient direct(cloud.address()), client(edge.address());
  auto truth = direct.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(truth.ok()) << truth.status();
  ASSERT_TRUE(AwaitUpstream(client));
  auto answer = client.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, truth->text);
  EXPECT_FALSE(answer->done.provenance().degraded());

  // The road breaks in the middle of what the cloud says.
  bool broken = false;
  answer = client.Generate(Request(200), absl::Seconds(120), [&](const v1::Chunk& chunk) {
    if (chunk.tier() == "cloud" && !std::exchange(broken, true)) relay->Cut();
    return true;
  });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(broken);
  EXPECT_TRUE(answer->done.provenance().degraded()) << answer->done.provenance().reason();
  answer = client.Generate(Request(), absl::Seconds(60));  // nobody to hand over to
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->done.provenance().spans_size(), 1);
  EXPECT_EQ(answer->done.provenance().spans(0).tier(), "edge");

  relay->Restore();
  bool handed_over = false;
  for (int i = 0; i < 400 && !handed_over; ++i) {  // it looks again in its own time
    answer = client.Generate(Request(), absl::Seconds(60));
    ASSERT_TRUE(answer.ok()) << answer.status();
    handed_over = answer->text == truth->text && !answer->done.provenance().degraded();
    if (!handed_over) absl::SleepFor(absl::Milliseconds(50));
  }
  EXPECT_TRUE(handed_over);
  relay->Stop();
  EXPECT_THAT(captured, HasSubstr("/updraft.v1.Inference/Generate"));
}

TEST_F(LinkTest, TheProgramDrivesAWrittenRoadUntilItIsToldToStop) {
  SKIP_WITHOUT("updraft");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(cloud.ready());
  const std::string road = TempPath("_road.csv"), ports = TempPath("_relay.ports");
  std::ofstream(road) << "time_s,rate_up,rate_down,delay_ms\n0,1e6,1e6,20\n1,2e6,2e6,10\n";
  Process program({Program("updraft"), "relay", "--trace", road, "--loop", "--listen", "127.0.0.1:0", "--to",
                   cloud.address(), "--port-file", ports, "--json"});
  int port = 0;
  for (int i = 0; i < 6000 && port == 0 && program.Wait(absl::ZeroDuration()) < 0; ++i) {
    if (!(std::ifstream(ports) >> port)) absl::SleepFor(absl::Milliseconds(5));
  }
  ASSERT_GT(port, 0) << program.Output();
  {
    InferenceClient client(absl::StrCat("127.0.0.1:", port));
    auto answer = client.Generate(Request(), absl::Seconds(60));
    ASSERT_TRUE(answer.ok()) << answer.status();
  }
  program.Signal(SIGTERM);
  EXPECT_EQ(program.Wait(absl::Seconds(30)), 0) << program.Output();
  const std::string output = program.Output();
  EXPECT_THAT(output, HasSubstr("connection id=1 from=127.0.0.1:"));
  const size_t json = output.find("\n{");
  ASSERT_NE(json, std::string::npos) << output;
  const auto counters = nlohmann::json::parse(output.substr(json + 1), nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(counters.is_object()) << output;
  EXPECT_GE(counters["connections"].get<int>(), 1);
  EXPECT_GT(counters["up"]["bytes_delivered"].get<int64_t>(), 0);
  EXPECT_GT(counters["down"]["bytes_delivered"].get<int64_t>(), 0);
  std::remove(road.c_str());
  std::remove(ports.c_str());
}

}  // namespace
}  // namespace updraft::testing
