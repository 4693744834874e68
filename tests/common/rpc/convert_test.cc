#include "common/rpc/convert.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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

TEST(Sampling, RoundTrips) {
  const SamplingOptions options{.temperature = 0.7f,
                                .top_k = 40,
                                .top_p = 0.9f,
                                .min_p = 0.05f,
                                .repetition_penalty = 1.1f,
                                .seed = ~uint64_t{0}};
  const auto back = SamplingFromProto(SamplingToProto(options));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->temperature, options.temperature);
  EXPECT_EQ(back->top_k, options.top_k);
  EXPECT_EQ(back->top_p, options.top_p);
  EXPECT_EQ(back->min_p, options.min_p);
  EXPECT_EQ(back->repetition_penalty, options.repetition_penalty);
  EXPECT_EQ(back->seed, options.seed);
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
}

TEST(Evidence, RoundTrips) {
  const TokenEvidence evidence{.exit_layer = 3, .top_prob = 0.5f, .margin = 0.25f, .entropy = 1.5f, .logprob = -0.7f};
  const TokenEvidence back = EvidenceFromProto(EvidenceToProto(evidence));
  EXPECT_EQ(back.exit_layer, evidence.exit_layer);
  EXPECT_EQ(back.top_prob, evidence.top_prob);
  EXPECT_EQ(back.margin, evidence.margin);
  EXPECT_EQ(back.entropy, evidence.entropy);
  EXPECT_EQ(back.logprob, evidence.logprob);
}

TEST(Dispositions, RoundTripAndUnknownOnesAreUnspecified) {
  for (const Disposition disposition : AllOf<Disposition>()) {
    EXPECT_EQ(DispositionFromProto(DispositionToProto(disposition)), disposition) << NameOf(disposition);
  }
  for (int value = v1::Disposition_MIN; value <= v1::Disposition_MAX; ++value) {
    const auto wire = static_cast<v1::Disposition>(value);
    EXPECT_EQ(DispositionToProto(DispositionFromProto(wire)), wire) << v1::Disposition_Name(wire);
  }
  EXPECT_EQ(DispositionFromProto(static_cast<v1::Disposition>(99)), Disposition::kUnspecified);
  EXPECT_EQ(DispositionToProto(static_cast<Disposition>(99)), v1::DISPOSITION_UNSPECIFIED);
}

TEST(Load, HostileNumbersBecomeZero) {
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
  EXPECT_EQ(load.decode_tokens_per_s, 0.0);
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
