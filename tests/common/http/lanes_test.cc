// Handlers that take their time: the loop goes on, small requests pass large ones, and a stop ends both.
#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "tests/common/http/server_fixture.h"

namespace updraft::http {
namespace {

using testing::Fetch;
using testing::RawClient;
using testing::RequestText;

const std::string kLarge(100 << 10, 'x');

// Burns CPU time of its thread.
void Compute(std::chrono::milliseconds time) {
  const auto now = [] {
    timespec spent{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return absl::DurationFromTimespec(spent);
  };
  for (const absl::Duration end = now() + absl::FromChrono(time); now() < end;) {
  }
}

// One thread in the loop. POST /wait keeps its lane until the test says so; its answer is the body's size.
class HttpLanesTest : public ::testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void Start(ServerOptions options) {
    Router router;
    router.Handle("GET", "/hello", [](std::shared_ptr<Exchange> e) {
      e->Respond(Response{200, "text/plain", "hello", {}});
    });
    router.Handle("GET", "/later", [this](std::shared_ptr<Exchange> e) { mailbox_.Put(std::move(e)); });
    const Handler answer = [this](std::shared_ptr<Exchange> e) {
      ++n_handled_;
      e->Respond(Response{200, "text/plain", std::to_string(e->request().body.size()), {}});
    };
    router.Handle("POST", "/size", answer, RunsOn::kLane);
    router.Handle(
        "POST", "/wait",
        [this, answer](std::shared_ptr<Exchange> e) {
          begun_.Set();
          EXPECT_TRUE(go_on_.Wait());
          answer(std::move(e));
        },
        RunsOn::kLane);
    for (const RunsOn where : {RunsOn::kLoop, RunsOn::kLane}) {
      router.Handle(
          "POST", where == RunsOn::kLoop ? "/compute/loop" : "/compute/lane",
          [](std::shared_ptr<Exchange> e) {
            Compute(std::chrono::milliseconds(200));
            e->Respond(Response{200, "text/plain", "", {}});
          },
          where);
    }
    options.listen = "127.0.0.1:0";
    options.on_turn = [this](absl::Duration cpu_time) {
      longest_turn_ns_ = std::max<int64_t>(longest_turn_ns_, absl::ToInt64Nanoseconds(cpu_time));
    };
    auto server = Server::Start(options, std::move(router));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override { go_on_.Set(); }
  int port() const { return server_->port(); }
  absl::Duration longest_turn() const { return absl::Nanoseconds(longest_turn_ns_.load()); }

  Mailbox mailbox_;
  Flag begun_, go_on_;
  std::atomic<int> n_handled_{0};
  std::atomic<int64_t> longest_turn_ns_{0};
  std::unique_ptr<Server> server_;
};

TEST_F(HttpLanesTest, TheLoopAndSmallRequestsGoOn) {
  RawClient stream(port());
  ASSERT_TRUE(stream.Send(RequestText("GET", "/later")));
  const std::shared_ptr<Exchange> exchange = mailbox_.Take();
  ASSERT_NE(exchange, nullptr);
  exchange->StartStream(Response{200, "text/event-stream", "", {}});

  RawClient large(port());
  ASSERT_TRUE(large.Send(RequestText("POST", "/wait", kLarge)));
  ASSERT_TRUE(begun_.Wait());
  ASSERT_TRUE(exchange->Write("one").ok());
  EXPECT_TRUE(stream.WaitFor("one"));
  EXPECT_EQ(Fetch(port(), "GET", "/hello").body, "hello");
  EXPECT_EQ(Fetch(port(), "POST", "/size", std::string(64 << 10, 'x')).body, "65536");
  RawClient behind(port());
  ASSERT_TRUE(behind.Send(RequestText("POST", "/size", kLarge)));
  EXPECT_FALSE(behind.WaitFor("102400", absl::Milliseconds(50))) << "its lane is taken";

  go_on_.Set();
  EXPECT_EQ(large.Receive().body, "102400");
  EXPECT_EQ(behind.Receive().body, "102400");
  exchange->Finish();
  EXPECT_TRUE(stream.Receive().complete);
}

TEST_F(HttpLanesTest, WhoLeavesWhileWaitingIsPassedOver) {
  RawClient first(port());
  ASSERT_TRUE(first.Send(RequestText("POST", "/wait", kLarge)));
  ASSERT_TRUE(begun_.Wait());
  {
    RawClient leaving(port());
    ASSERT_TRUE(leaving.Send(RequestText("POST", "/size", kLarge)));
    while (server_->n_connections() < 2) absl::SleepFor(absl::Milliseconds(1));
    absl::SleepFor(absl::Milliseconds(50));  // until it has been read
    leaving.Reset();
  }
  for (int i = 0; i < 2000 && server_->n_connections() > 1; ++i) absl::SleepFor(absl::Milliseconds(5));
  EXPECT_EQ(server_->n_connections(), 1) << "what waits does not keep its connection";
  go_on_.Set();
  EXPECT_EQ(first.Receive().body, "102400");
  EXPECT_EQ(Fetch(port(), "POST", "/size", kLarge).body, "102400");
  EXPECT_EQ(n_handled_, 2);
}

TEST_F(HttpLanesTest, WhoLeavesTakesItsBodyAlong) {
  ServerOptions options;
  options.max_body_bytes = options.max_total_body_bytes = 1 << 20;
  Start(options);
  RawClient first(port());
  ASSERT_TRUE(first.Send(RequestText("POST", "/wait", kLarge)));
  ASSERT_TRUE(begun_.Wait());
  const std::string body(900 << 10, 'x');
  std::string text = RequestText("POST", "/size", body);
  for (int i = 0; i < 3; ++i) {
    RawClient leaving(port());
    ASSERT_TRUE(leaving.Send(text));
    EXPECT_FALSE(leaving.WaitFor("HTTP", absl::Milliseconds(300))) << "there is room for it, and it waits";
    leaving.Reset();
    for (int k = 0; k < 2000 && server_->n_connections() > 1; ++k) absl::SleepFor(absl::Milliseconds(5));
  }
  go_on_.Set();
  EXPECT_EQ(first.Receive().body, "102400");
  EXPECT_EQ(n_handled_, 1);
}

TEST_F(HttpLanesTest, PipelinedRequestsKeepTheirOrder) {
  RawClient client(port());
  std::string text;
  for (int i = 1; i <= 50; ++i) {
    text += RequestText("POST", "/size", std::string(i % 5 == 0 ? 70000 + i : i, 'x'));
    if (i % 7 == 0) text += RequestText("GET", "/hello");
  }
  std::thread sender([&] { ASSERT_TRUE(client.Send(text)); });
  sender.join();
  for (int i = 1; i <= 50; ++i) {
    EXPECT_EQ(client.Receive().body, std::to_string(i % 5 == 0 ? 70000 + i : i));
    if (i % 7 == 0) {
      EXPECT_EQ(client.Receive().body, "hello");
    }
  }
}

TEST_F(HttpLanesTest, StopDropsWhatWaits) {
  RawClient first(port()), second(port());
  ASSERT_TRUE(first.Send(RequestText("POST", "/wait", kLarge)));
  ASSERT_TRUE(begun_.Wait());
  ASSERT_TRUE(second.Send(RequestText("POST", "/size", kLarge)));
  std::thread stopping([this] { server_->Stop(absl::ZeroDuration()); });
  while (server_->n_connections() > 0) absl::SleepFor(absl::Milliseconds(1));
  go_on_.Set();
  stopping.join();
  EXPECT_LE(n_handled_, 1);
  EXPECT_EQ(server_->n_connections(), 0);
}

TEST_F(HttpLanesTest, TurnsAreMeasuredAndLanesAreNoneOfThem) {
  EXPECT_EQ(Fetch(port(), "POST", "/compute/lane").status, 200);
  EXPECT_LT(longest_turn(), absl::Milliseconds(200));
  EXPECT_EQ(Fetch(port(), "POST", "/compute/loop").status, 200);
  EXPECT_EQ(Fetch(port(), "GET", "/hello").status, 200);  // a turn is told of after it
  EXPECT_GE(longest_turn(), absl::Milliseconds(200));
}

}  // namespace
}  // namespace updraft::http
