#include "common/rpc/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace updraft {
namespace {

TEST(Sampling, AbsentFieldsAreTheNativeDefaults) {
  const auto options = SamplingFromProto(v1::Sampling());
  ASSERT_TRUE(options.ok()) << options.status();
  const SamplingOptions defaults;
  EXPECT_EQ(options->temperature, defaults.temperature);
  EXPECT_EQ(options->top_p, defaults.top_p);
  EXPECT_EQ(options->repetition_penalty, defaults.repetition_penalty);
}

TEST(Sampling, EveryFieldArrives) {
  const SamplingOptions options{.temperature = 0.7f,
                                .top_k = 40,
                                .top_p = 0.9f,
                                .min_p = 0.05f,
                                .repetition_penalty = 1.1f,
                                .presence_penalty = -0.5f,
                                .frequency_penalty = 1.5f,
                                .logit_bias = {{.token = 7, .bias = -100}, {.token = 3, .bias = 0.5f}},
                                .seed = ~uint64_t{0}};
  v1::Sampling proto;
  proto.set_temperature(options.temperature);
  proto.set_top_k(options.top_k);
  proto.set_top_p(options.top_p);
  proto.set_min_p(options.min_p);
  proto.set_repetition_penalty(options.repetition_penalty);
  proto.set_seed(options.seed);
  proto.set_presence_penalty(options.presence_penalty);
  proto.set_frequency_penalty(options.frequency_penalty);
  for (const LogitBias& bias : options.logit_bias) {
    v1::LogitBias::Entry* entry = proto.mutable_logit_bias()->add_entries();
    entry->set_token(bias.token);
    entry->set_bias(bias.bias);
  }
  const auto back = SamplingFromProto(proto);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->temperature, options.temperature);
  EXPECT_EQ(back->top_k, options.top_k);
  EXPECT_EQ(back->top_p, options.top_p);
  EXPECT_EQ(back->min_p, options.min_p);
  EXPECT_EQ(back->repetition_penalty, options.repetition_penalty);
  EXPECT_EQ(back->seed, options.seed);
  EXPECT_EQ(back->presence_penalty, options.presence_penalty);
  EXPECT_EQ(back->frequency_penalty, options.frequency_penalty);
  ASSERT_EQ(back->logit_bias.size(), 2u);
  EXPECT_EQ(back->logit_bias[0].token, 7);
  EXPECT_EQ(back->logit_bias[0].bias, -100);
  EXPECT_EQ(back->logit_bias[1].bias, 0.5f);
}

TEST(Sampling, RefusesWhatCannotBe) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto refused = [](auto change) {
    v1::Sampling proto;
    change(proto);
    return SamplingFromProto(proto).status().code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(refused([&](auto& p) { p.set_temperature(nan); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_temperature(-1); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_temperature(std::numeric_limits<float>::infinity()); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_top_p(0); }));
  EXPECT_TRUE(refused([&](auto& p) { p.set_top_p(nan); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_top_k(-1); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_min_p(1); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_repetition_penalty(0); }));
  EXPECT_TRUE(refused([](auto& p) { p.set_presence_penalty(3); }));
  EXPECT_TRUE(refused([&](auto& p) { p.set_frequency_penalty(nan); }));
  EXPECT_TRUE(refused([](auto& p) { p.mutable_logit_bias()->add_entries()->set_bias(101); }));
}

TEST(Evidence, EveryFieldLeaves) {
  const TokenEvidence evidence{.exit_layer = 3,
                               .top_prob = 0.5f,
                               .margin = 0.25f,
                               .entropy = 1.5f,
                               .logprob = -0.7f,
                               .top = {{.token = 4, .logprob = -0.25f}, {.token = 9, .logprob = -2.0f}}};
  const v1::Evidence proto = EvidenceToProto(evidence, 7);
  EXPECT_EQ(proto.text_offset(), 7u);
  EXPECT_EQ(proto.exit_layer(), evidence.exit_layer);
  EXPECT_EQ(proto.top_prob(), evidence.top_prob);
  EXPECT_EQ(proto.margin(), evidence.margin);
  EXPECT_EQ(proto.entropy(), evidence.entropy);
  EXPECT_EQ(proto.logprob(), evidence.logprob);
  ASSERT_EQ(proto.top_size(), 2);
  EXPECT_EQ(proto.top(0).token(), 4);
  EXPECT_EQ(proto.top(1).logprob(), -2.0f);
}

TEST(Dispositions, EveryOneHasItsValueAndUnknownOnesAreUnspecified) {
  std::set<Disposition> seen;
  for (int value = v1::Disposition_MIN; value <= v1::Disposition_MAX; ++value) {
    const Disposition disposition = DispositionFromProto(static_cast<v1::Disposition>(value));
    EXPECT_TRUE(seen.insert(disposition).second) << NameOf(disposition);
    EXPECT_EQ(disposition == Disposition::kUnspecified, value == v1::DISPOSITION_UNSPECIFIED);
  }
  EXPECT_EQ(seen.size(), AllOf<Disposition>().size());
  EXPECT_EQ(DispositionFromProto(static_cast<v1::Disposition>(99)), Disposition::kUnspecified);
  EXPECT_EQ(DispositionLabel(v1::DISPOSITION_UNSPECIFIED), "");
  EXPECT_EQ(DispositionLabel(v1::DISPOSITION_ACT), "act");
  for (const int value : {99, -1}) EXPECT_EQ(DispositionLabel(static_cast<v1::Disposition>(value)), "unknown");
}

TEST(Load, HostileNumbersBecomeZeroAndAnUnknownRateIsUnknown) {
  v1::Load proto;
  proto.set_running_requests(-5);
  proto.set_queued_requests(3);
  proto.set_kv_used_fraction(7.0f);
  proto.set_predicted_wait_ms(std::numeric_limits<float>::quiet_NaN());
  proto.set_decode_tokens_per_s(-1.0f);
  const UpstreamLoad load = LoadFromProto(proto);
  EXPECT_TRUE(load.known);
  EXPECT_EQ(load.running_requests, 0);
  EXPECT_EQ(load.queued_requests, 3);
  EXPECT_EQ(load.kv_used_fraction, 1.0);
  EXPECT_EQ(load.predicted_wait_s, 0.0);
  EXPECT_TRUE(std::isnan(load.decode_tokens_per_s));
  EXPECT_TRUE(std::isnan(load.prefill_tokens_per_s));
  proto.set_prefill_tokens_per_s(1500.0f);
  EXPECT_EQ(LoadFromProto(proto).prefill_tokens_per_s, 1500.0);
  proto.set_decode_tokens_per_s(12.5f);
  EXPECT_EQ(LoadFromProto(proto).decode_tokens_per_s, 12.5);
}

// VERIFY and DEFER as well: none is lost on the way.
TEST(ConvertTest, EveryWishOfATierComesBackUnderItsName) {
  for (const PolicyMode asked : AllOf<PolicyMode>()) {
    const v1::TierChoice choice = AskedToProto(asked);
    EXPECT_TRUE(v1::TierChoice_IsValid(choice)) << NameOf(asked);
    EXPECT_EQ(AskedFromProto(choice), asked) << NameOf(asked);
  }
  EXPECT_EQ(AllOf<PolicyMode>().size(), static_cast<size_t>(v1::TierChoice_ARRAYSIZE));
  EXPECT_EQ(AskedFromProto(static_cast<v1::TierChoice>(99)), PolicyMode::kAuto) << "of a newer peer";
}

TEST(ConvertTest, NoDecisionLosesItsName) {
  for (const Decision decision : AllOf<Decision>()) {
    EXPECT_EQ(DecisionName(DecisionToProto(decision)), NameOf(decision));
  }
  EXPECT_EQ(DecisionName(v1::DECISION_KIND_UNSPECIFIED), "none");
  EXPECT_EQ(DecisionName(static_cast<v1::DecisionKind>(99)), "none");
}

TEST(ConvertTest, EveryDecisionIsCountedAsItself) {
  std::set<std::string> seen;
  for (const Decision decision : AllOf<Decision>()) {
    v1::RoutingSummary summary;
    CountDecision(decision, summary);
    CountDecision(decision, summary);
    EXPECT_TRUE(seen.insert(summary.ShortDebugString()).second) << NameOf(decision) << " counts as another";
    EXPECT_EQ(
        summary.kept() + summary.handed_over() + summary.verified() + summary.streamed_upstream() + summary.deferred(),
        2);
  }
}

// On the wire 0 says that nothing is known.
TEST(Link, NothingKnownIsZero) {
  EXPECT_EQ(LinkToProto(LinkEstimate()).SerializeAsString(), v1::Link().SerializeAsString());
  LinkEstimate link;
  link.rtt_s = 0.25;
  link.goodput_up_bytes_per_s = 1e6;
  EXPECT_EQ(LinkToProto(link).rtt_ms(), 250.0);
  EXPECT_EQ(LinkToProto(link).goodput_up_bytes_per_s(), 1e6);
  EXPECT_EQ(LinkToProto(link).goodput_down_bytes_per_s(), 0.0);
}

TEST(ConvertTest, EveryDecisionHasItsKindAndComesBack) {
  for (int kind = v1::DecisionKind_MIN; kind <= v1::DecisionKind_MAX; ++kind) {
    const auto decision = DecisionFromProto(static_cast<v1::DecisionKind>(kind));
    EXPECT_EQ(decision.has_value(), kind != v1::DECISION_KIND_UNSPECIFIED) << kind;
    if (decision) {
      EXPECT_EQ(DecisionToProto(*decision), kind);
    }
  }
  EXPECT_FALSE(DecisionFromProto(static_cast<v1::DecisionKind>(99)).has_value()) << "of a newer peer";
}

}  // namespace
}  // namespace updraft
