// Audits of kept answers: what is drawn, what an audit finds, and what an alarm does; on a scripted upstream.
#include "edge/agent/auditor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "common/cockpit/answer.h"
#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/scripted_upstream.h"

namespace updraft::testing {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using From = ScriptedUpstream::From;
using Play = ScriptedUpstream::Play;

Play Saying(const std::string& text, std::optional<double> p_right = {}) {
  Play play;
  play.responses.emplace_back().mutable_chunk()->set_text(text);
  v1::Done* done = play.responses.emplace_back().mutable_done();
  done->set_finish_reason(v1::FINISH_REASON_STOP);
  if (p_right) done->mutable_provenance()->set_p_right(*p_right);
  return play;
}

v1::Done DoneWith(std::optional<double> p_right, v1::Disposition disposition = v1::DISPOSITION_ACT) {
  v1::Done done;
  done.set_disposition(disposition);
  if (p_right) done.mutable_provenance()->set_p_right(*p_right);
  return done;
}

std::shared_ptr<SharedSession> SessionThatReachesItsUpstream() {
  SessionOptions options;
  options.n_upstreams = 1;
  auto session = std::make_shared<SharedSession>(options);
  session->With([](RoutingSession& s) {
    s.OnSample(0, {.time_s = SteadyNow().seconds(), .first_byte_s = 0.02, .server_s = 0.01});
  });
  return session;
}

class AuditorTest : public ::testing::Test {
 protected:
  std::unique_ptr<Auditor> Make(std::function<Play(const v1::GenerateRequest&)> play, double share = 0.1) {
    upstream_ = std::make_unique<ScriptedUpstream>(From::kCaller, "fingerprint", std::move(play));
    AuditorOptions options;
    options.drift = {.level = 0.05, .threshold = 0.6, .audit_share = share, .min_share = 0.02, .seed = 5};
    auto auditor = Auditor::Create(options, upstream_.get(), session_.get(), &metrics_,
                                   [this](double threshold) { tightened_.push_back(threshold); });
    EXPECT_TRUE(auditor.ok()) << auditor.status();
    return *std::move(auditor);
  }

  double Keep(Auditor& auditor, uint64_t seq, const std::string& text = "ours", double confidence = 0.8) {
    v1::GenerateRequest request;
    request.set_request_id(absl::StrCat("r", seq));
    request.set_prompt("question");
    return auditor.OnKept({.request = &request, .text = text, .confidence = confidence, .seq = seq});
  }

  std::shared_ptr<SharedSession> session_ = SessionThatReachesItsUpstream();
  std::unique_ptr<ScriptedUpstream> upstream_;
  Metrics metrics_{"edge", "m"};
  std::vector<double> tightened_;
};

TEST(AuditLossTest, WhatKeepingCost) {
  const std::string ours = R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":30},"say":"OK"})";
  const std::string reworded = R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":30.0},"say":"Done."})";
  const std::string other = R"({"set":{"Vehicle.Cabin.Infotainment.Media.Volume":40},"say":"OK"})";
  EXPECT_EQ(AuditLoss(ours, reworded, DoneWith(0.9), /*acts=*/true), 0.0);
  EXPECT_FLOAT_EQ(AuditLoss(ours, reworded, DoneWith(0.9), /*acts=*/false), 0.9f) << "prose counts by its words";
  EXPECT_EQ(AuditLoss("a  b\n", " a b", DoneWith({}), /*acts=*/false), 0.0);
  EXPECT_FLOAT_EQ(AuditLoss(ours, other, DoneWith(0.75), true), 0.75);
  EXPECT_EQ(AuditLoss(ours, other, DoneWith({}), true), 1.0) << "upstream states nothing";
  EXPECT_EQ(AuditLoss(ours, other, DoneWith(0.2, v1::DISPOSITION_CLARIFY), true), 0.0) << "it asks back";
  EXPECT_EQ(AuditLoss("no JSON", other, DoneWith({}), true), 1.0);
  EXPECT_EQ(AuditLoss(ours, other, DoneWith(std::nan("")), true), 1.0);
  EXPECT_EQ(AuditLoss(ours, other, DoneWith(7.0), true), 1.0);
}

// Binomial(5000, 0.1): five deviations are 106.
TEST_F(AuditorTest, ATenthIsAskedUnderAnIdOfItsOwn) {
  std::vector<v1::GenerateRequest> asked;
  auto auditor = Make([&](const v1::GenerateRequest& request) {
    asked.push_back(request);
    return Saying("ours");
  });
  for (uint64_t seq = 1; seq <= 5000; ++seq) EXPECT_DOUBLE_EQ(Keep(*auditor, seq), 0.1);
  EXPECT_NEAR(static_cast<double>(asked.size()), 500, 106);
  for (const v1::GenerateRequest& request : asked) {
    EXPECT_THAT(request.request_id(), EndsWith(".audit"));
    EXPECT_EQ(request.hops(), 1);
    EXPECT_EQ(request.prompt(), "question");
  }
  EXPECT_EQ(auditor->Risk().n_audits, static_cast<int64_t>(asked.size()));
  EXPECT_EQ(auditor->Risk().risk, 0.0);
  EXPECT_TRUE(tightened_.empty());
  EXPECT_THAT(metrics_.Render(),
              HasSubstr(absl::StrCat("updraft_audits_total{tier=\"edge\",outcome=\"same\"} ", asked.size())));
  EXPECT_THAT(metrics_.Render(), HasSubstr("updraft_drift_total{tier=\"edge\"} 0"));
}

// From 3 to 15 % among kept: 15 of 100 are answered otherwise by an upstream that is right.
TEST_F(AuditorTest, KeptAnswersThatGotWorseTightenTheThreshold) {
  uint64_t seq = 0;
  bool shifted = false;
  auto auditor = Make([&](const v1::GenerateRequest&) {
    return seq % 100 < (shifted ? 15u : 3u) ? Saying("another", 1.0) : Saying("ours");
  });
  // What is less sure is what goes wrong, so there is a threshold that helps.
  const auto keep = [&] { Keep(*auditor, seq, "ours", seq % 100 < 20 ? 0.65 : 0.9); };
  for (; seq < 5000; ++seq) keep();
  EXPECT_TRUE(tightened_.empty()) << "at 3 % nothing is wrong";
  shifted = true;
  const uint64_t shift = seq;
  for (; tightened_.empty() && seq < shift + 3000; ++seq) keep();
  ASSERT_EQ(tightened_.size(), 1u);
  EXPECT_LE(seq - shift, 1500u);
  EXPECT_GT(tightened_[0], 0.65);
  EXPECT_LE(tightened_[0], 0.9);
  EXPECT_EQ(auditor->threshold(), tightened_[0]);
  EXPECT_EQ(auditor->Risk().n_audits, 0) << "what is kept from now on is judged anew";
  EXPECT_THAT(metrics_.Render(), HasSubstr("updraft_drift_total{tier=\"edge\"} 1"));
}

TEST_F(AuditorTest, WhatUpstreamCannotBeAskedIsNotDrawn) {
  int n_asked = 0;
  auto auditor = Make([&](const v1::GenerateRequest&) {
    ++n_asked;
    return Saying("ours");
  });
  const auto kept = [&](auto&& change) {
    double most = 0;
    for (uint64_t seq = 1; seq <= 200; ++seq) {
      v1::GenerateRequest request;
      request.set_prompt("question");
      change(request);
      most = std::max(most, auditor->OnKept({.request = &request, .text = "ours", .confidence = 0.8, .seq = seq}));
    }
    return most;
  };
  EXPECT_EQ(kept([](v1::GenerateRequest& r) { r.mutable_sampling()->set_temperature(0.7f); }), 0.0);
  EXPECT_EQ(kept([](v1::GenerateRequest& r) { r.add_accepted_prefix(3); }), 0.0);
  EXPECT_EQ(kept([](v1::GenerateRequest& r) { r.mutable_tokens()->set_tokenizer_fingerprint("foreign"); }), 0.0);
  const double now_s = SteadyNow().seconds();
  session_->With([&](RoutingSession& s) { s.OnLoad(0, {.known = true, .queued_requests = 3}); });
  EXPECT_EQ(kept([](v1::GenerateRequest&) {}), 0.0) << "others wait there";
  session_->With([&](RoutingSession& s) { s.OnLoad(0, {.known = true}); });
  EXPECT_EQ(n_asked, 0);
  EXPECT_GT(kept([](v1::GenerateRequest&) {}), 0.0);
  EXPECT_GT(n_asked, 0);
  n_asked = 0;
  session_->With([&](RoutingSession& s) { s.OnFailure(0, Failure::kLinkDead, std::nan(""), now_s); });
  EXPECT_EQ(kept([](v1::GenerateRequest&) {}), 0.0) << "the link is dead";
  EXPECT_EQ(n_asked, 0);
}

TEST_F(AuditorTest, AnswersThatDoNotComeSayNothing) {
  auto auditor = Make([](const v1::GenerateRequest&) {
    Play play = Saying("another", 1.0);
    play.end = absl::UnavailableError("the link broke");
    return play;
  });
  for (uint64_t seq = 1; seq <= 500; ++seq) Keep(*auditor, seq);
  EXPECT_EQ(auditor->Risk().n_audits, 0);
  EXPECT_TRUE(tightened_.empty());
  EXPECT_THAT(metrics_.Render(), HasSubstr("updraft_audits_total{tier=\"edge\",outcome=\"lost\""));
}

TEST_F(AuditorTest, OptionsThatCannotBeAreRefused) {
  AuditorOptions options;
  options.drift.audit_share = 0.5;
  const auto auditor = Auditor::Create(options, nullptr, session_.get(), &metrics_, [](double) {});
  EXPECT_THAT(std::string(auditor.status().message()), HasSubstr("audit_share"));
}

// ---- In the agent ---------------------------------------------------------------------------------------------------

class AuditingAgentTest : public AgentTest {
 protected:
  std::unique_ptr<Agent> MakeAuditing(std::function<Play(const v1::GenerateRequest&)> play, double share) {
    AgentOptions options;
    options.policy.confidence_threshold = 1e-6;  // all is kept, and because it is confident
    options.audit_share = share;
    EXPECT_TRUE(CheckAudits(options).ok()) << CheckAudits(options);
    return std::make_unique<Agent>(
        options, LoadModel(), SessionThatReachesItsUpstream(),
        std::make_unique<ScriptedUpstream>(From::kAnotherThread, Fingerprint(), std::move(play)), &metrics_);
  }
};

TEST_F(AuditingAgentTest, AnAlarmTightensTheThresholdAndClientsNoticeNothing) {
  std::atomic<int> n_audits = 0;
  auto agent = MakeAuditing(
      [&](const v1::GenerateRequest& request) {
        n_audits += std::string_view(request.request_id()).ends_with(".audit");
        return Saying("quite another answer");
      },
      0.1);
  const std::string truth = LocalTruth(ChatRequest("hello there", 3))->text();
  int n_asked = 0;
  while (agent->Status().routing().threshold() < 0.5 && n_asked < 3000) {
    ++n_asked;
    v1::GenerateRequest request = ChatRequest("hello there", 3);
    request.set_request_id(absl::StrCat("q", n_asked));
    auto answer = Ask(*agent, request);
    ASSERT_TRUE(answer->status().ok()) << answer->status();
    // An alarm may have come while it was being asked.
    if (answer->provenance().decision() != v1::DECISION_KIND_KEEP) break;
    ASSERT_EQ(answer->text(), truth);
    ASSERT_EQ(answer->provenance().bytes_up(), 0u) << "an audit is not the request's";
  }
  EXPECT_GT(agent->Status().routing().threshold(), 0.5) << "after " << n_asked << " answers, " << n_audits << " audits";
  EXPECT_GT(n_audits, 5);
  EXPECT_LT(n_audits, 100);
  EXPECT_THAT(metrics_.Render(), HasSubstr("updraft_drift_total{tier=\"edge\"} 1"));
}

TEST_F(AuditingAgentTest, WithoutAShareNothingIsAsked) {
  std::atomic<int> n_audits = 0;
  auto agent = MakeAuditing(
      [&](const v1::GenerateRequest&) {
        ++n_audits;
        return Saying("another");
      },
      0.0);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(Ask(*agent, ChatRequest("hello there", 3))->status().ok());
  EXPECT_EQ(n_audits, 0);
  EXPECT_THAT(metrics_.Render(), ::testing::Not(HasSubstr("updraft_drift_total")));
}

TEST(CheckAuditsTest, NamesWhatCannotBe) {
  AgentOptions options;
  EXPECT_TRUE(CheckAudits(options).ok());
  options.audit_share = 0.2;
  EXPECT_THAT(std::string(CheckAudits(options).message()), HasSubstr("audit_share"));
  options.audit_share = 0.05;
  options.audit_level = 0.9;
  EXPECT_THAT(std::string(CheckAudits(options).message()), HasSubstr("level"));
}

}  // namespace
}  // namespace updraft::testing
