// The upstream client alone, under many calls at once.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "edge/agent/grpc_upstream.h"
#include "tests/edge/agent/fake_upstream.h"

namespace updraft::testing {
namespace {

std::shared_ptr<SharedSession> MakeSession(double look_interval_s = 5.0) {
  SessionOptions options;
  options.n_upstreams = 1;
  options.look_interval_s = look_interval_s;
  return std::make_shared<SharedSession>(options);
}

LinkEstimate LinkOf(const SharedSession& session) {
  return session.With([](const RoutingSession& s) { return s.Facts(0, SteadyNow().seconds()).link; });
}

class Listener final : public UpstreamListener {
 public:
  void OnResponse(const v1::GenerateResponse& response) override { done_ = done_ || response.has_done(); }
  void OnFinished(const absl::Status& status, const UpstreamTraffic&) override {
    std::lock_guard lock(mu_);
    status_ = status;
    finished_ = true;
    changed_.notify_all();
  }
  absl::Status Wait() {
    std::unique_lock lock(mu_);
    changed_.wait(lock, [this] { return finished_; });
    return status_;
  }
  bool done() const { return done_; }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  absl::Status status_;
  bool done_ = false;
  bool finished_ = false;
};

// The watcher looks at every call whenever any call starts or ends; none may look stalled to it before it has begun.
TEST(Upstream, NoCallIsGivenUpAmongMany) {
  FakeUpstream cloud("fingerprint");
  auto session = MakeSession();
  auto upstream = GrpcUpstream::Create({.address = cloud.address(), .stall_timeout = absl::Seconds(60)}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  std::vector<std::thread> threads;
  std::atomic<int> n_failed{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 150; ++i) {
        auto listener = std::make_shared<Listener>();
        auto call = (*upstream)->Generate({}, SteadyTime::InfiniteFuture(), listener);
        const absl::Status status = listener->Wait();
        if (!status.ok() && ++n_failed == 1) ADD_FAILURE() << status;
        EXPECT_EQ(status.ok(), listener->done());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(n_failed, 0);
  EXPECT_TRUE(LinkOf(*session).reachable);
}

TEST(Upstream, ACallWithoutAByteIsGivenUpAfterTheTimeoutAndNotBefore) {
  FakeUpstream cloud("fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.end = Script::End::kStall;
    return script;
  };
  const absl::Duration timeout = absl::Milliseconds(300);
  auto upstream = GrpcUpstream::Create({.address = cloud.address(), .stall_timeout = timeout}, MakeSession());
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  auto listener = std::make_shared<Listener>();
  const SteadyTime start = SteadyNow();
  auto call = (*upstream)->Generate({}, SteadyTime::InfiniteFuture(), listener);
  EXPECT_EQ(listener->Wait().code(), absl::StatusCode::kUnavailable);
  EXPECT_GE(SteadyNow() - start, timeout);
}

// A vocabulary that was taken back, or another model, is only learnt of by asking.
TEST(Upstream, SteadyTrafficDoesNotPutProbesOffForEver) {
  FakeUpstream cloud("fingerprint");
  auto session = MakeSession(/*look_interval_s=*/0.2);
  auto upstream = GrpcUpstream::Create({.address = cloud.address()}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  for (int i = 0; i < 2000 && LinkOf(*session).samples == 0; ++i) absl::SleepFor(absl::Milliseconds(5));
  (*upstream)->ForgetFingerprint();
  const int before = cloud.n_probes();
  const SteadyTime start = SteadyNow();
  while ((*upstream)->Identity().tokenizer_fingerprint.empty() && SteadyNow() < start + absl::Seconds(20)) {
    auto listener = std::make_shared<Listener>();
    auto call = (*upstream)->Generate({}, SteadyTime::InfiniteFuture(), listener);
    ASSERT_TRUE(listener->Wait().ok());
    absl::SleepFor(absl::Milliseconds(5));
  }
  EXPECT_EQ((*upstream)->Identity().tokenizer_fingerprint, "fingerprint");
  EXPECT_LE(cloud.n_probes(), before + 2) << "calls spare most probes";
}

}  // namespace
}  // namespace updraft::testing
