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

int FailuresOf(const SharedSession& session) { return LinkOf(session).consecutive_failures; }

bool BacksOff(const SharedSession& session) {
  Situation situation;
  situation.stage = Stage::kAfter;
  situation.now_s = SteadyNow().seconds();
  situation.request.n_draft_tokens = 1;
  situation.evidence.confidence = 0.0;
  return session.With([&](const RoutingSession& s) { return s.Peek(situation).upstream == Option::kHere; });
}

absl::Status Call(Upstream& upstream) {
  auto listener = std::make_shared<Listener>();
  auto call = upstream.Generate({}, SteadyTime::InfiniteFuture(), listener);
  return listener->Wait();
}

template <typename Condition>
bool Becomes(Condition condition) {
  for (int i = 0; i < 4000 && !condition(); ++i) absl::SleepFor(absl::Milliseconds(5));
  return condition();
}

// It says that it is at it, so the link is there; and that it is at it for ever is no answer.
TEST(Upstream, ACallWithSignsButWithoutAnAnswerIsSlowAndSaysNothingOfTheLink) {
  FakeUpstream cloud("fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.end = Script::End::kStall;
    script.sign_every = absl::Milliseconds(20);
    return script;
  };
  const absl::Duration patience = absl::Milliseconds(400);
  auto session = MakeSession();
  auto upstream = GrpcUpstream::Create(
      {.address = cloud.address(), .stall_timeout = absl::Seconds(60), .progress_timeout = patience}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  ASSERT_TRUE(Becomes([&] { return LinkOf(*session).samples > 0; }));
  const SteadyTime start = SteadyNow();
  const absl::Status status = Call(**upstream);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_GE(SteadyNow() - start, patience);
  EXPECT_EQ(FailuresOf(*session), 0);
  EXPECT_FALSE(BacksOff(*session));
}

TEST(Upstream, ARefusalOfOneRequestIsNoReasonToBackOffForOthers) {
  FakeUpstream cloud("fingerprint");
  std::atomic<bool> alone{true};
  cloud.on_generate = [&alone](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.this_request_alone = alone;
    return script;
  };
  auto session = MakeSession();
  auto upstream = GrpcUpstream::Create({.address = cloud.address()}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  ASSERT_TRUE(Becomes([&] { return LinkOf(*session).samples > 0; }));
  EXPECT_TRUE(absl::IsUnavailable(Call(**upstream)));
  EXPECT_FALSE(BacksOff(*session));
  alone = false;
  EXPECT_TRUE(absl::IsUnavailable(Call(**upstream)));
  EXPECT_TRUE(BacksOff(*session)) << "the tier itself";
}

// It still answers looks, which take no place in it.
TEST(Upstream, ATierThatShutsDownIsLeftAloneForAsLongAsItSaid) {
  FakeUpstream cloud("fingerprint");
  cloud.on_generate = [](const v1::GenerateRequest&) {
    Script script;
    script.end_after = 0;
    script.retry_delay_ms = 3'600'000;
    return script;
  };
  auto session = MakeSession(/*look_interval_s=*/0.05);
  auto upstream = GrpcUpstream::Create({.address = cloud.address()}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  ASSERT_TRUE(Becomes([&] { return LinkOf(*session).samples > 0; }));
  EXPECT_TRUE(absl::IsUnavailable(Call(**upstream)));
  const int64_t samples = LinkOf(*session).samples;
  ASSERT_TRUE(Becomes([&] { return LinkOf(*session).samples > samples + 2; }));
  EXPECT_TRUE(BacksOff(*session));
  EXPECT_EQ(FailuresOf(*session), 0) << "the link is there";
}

constexpr double kOnlyOnce_s = 3600.0;  // looks are an hour apart: what is found out sooner is found out by other means

TEST(Upstream, AnUpstreamThatComesUpLaterIsFoundAtOnce) {
  int port = 0;
  { port = FakeUpstream("fingerprint").port(); }  // free again
  auto session = MakeSession(kOnlyOnce_s);
  auto upstream = GrpcUpstream::Create({.address = "127.0.0.1:" + std::to_string(port)}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  ASSERT_TRUE(Becomes([&] { return FailuresOf(*session) > 0; }));
  for (int i = 0; i < 6; ++i) {  // by now it would be left alone for a minute
    session->With([](RoutingSession& s) { s.OnFailure(0, Failure::kLinkDead, kUnknown, SteadyNow().seconds()); });
  }
  ASSERT_TRUE(BacksOff(*session));
  FakeUpstream cloud("fingerprint", port);
  ASSERT_EQ(cloud.port(), port);
  EXPECT_TRUE(Becomes([&] { return !BacksOff(*session) && FailuresOf(*session) == 0; }));
  EXPECT_TRUE(Becomes([&] { return (*upstream)->Identity().tokenizer_fingerprint == "fingerprint"; }));
}

TEST(Upstream, AnUpstreamThatComesBackIsFoundWithoutACall) {
  auto session = MakeSession(kOnlyOnce_s);
  auto cloud = std::make_unique<FakeUpstream>("fingerprint");
  const int port = cloud->port();
  auto upstream = GrpcUpstream::Create({.address = cloud->address()}, session);
  ASSERT_TRUE(upstream.ok()) << upstream.status();
  ASSERT_TRUE(Becomes([&] { return LinkOf(*session).reachable; }));
  cloud.reset();
  EXPECT_TRUE(absl::IsUnavailable(Call(**upstream)));
  EXPECT_TRUE(BacksOff(*session));
  cloud = std::make_unique<FakeUpstream>("fingerprint", port);
  ASSERT_EQ(cloud->port(), port);
  EXPECT_TRUE(Becomes([&] { return !BacksOff(*session) && FailuresOf(*session) == 0; }));
  EXPECT_TRUE(Call(**upstream).ok());
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
