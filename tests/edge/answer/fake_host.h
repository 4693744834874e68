// What answers ask of their tier, without one.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "edge/answer/answer.h"

namespace updraft::testing {

// The routing session of the product over a link that the test makes up.
class FakeHost final : public AnswerHost {
 public:
  FakeHost(const RoutingPolicy& policy, int n_upstreams) : session_(OptionsOf(policy, n_upstreams)) {}
  DecisionRecord Decide(const Situation& situation) override {
    records.push_back(session_.Decide(situation));
    return records.back();
  }
  void OnLocalRun(const LocalRunMeasured& run) override { session_.OnLocalRun(run); }
  double Confidence(std::string_view, std::span<const TokenEvidence> evidence, const PromptFeatures&) const override {
    return evidence.empty() ? 0.0 : evidence.back().top_prob;
  }
  Verdict Judge(std::string_view text, std::span<const TokenEvidence>, const PromptFeatures&) const override {
    judged = std::string(text);
    return verdict;
  }
  AskingBack AskBack(std::span<const std::string> candidates, std::string_view) const override {
    return {
        .disposition = Disposition::kClarify, .text = question, .alternatives = {candidates.begin(), candidates.end()}};
  }
  bool UpstreamReadsOurIds() const override { return ids_agree; }
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, bool) const override {
    if (encode_fails) return absl::InvalidArgumentError("not in this vocabulary");
    return std::vector<int32_t>(text.begin(), text.end());
  }
  RoutingSession& session() { return session_; }

  std::vector<DecisionRecord> records;  // all that were made
  Verdict verdict;                      // of every answer
  std::string question = "which?";      // in place of a doubtful one
  mutable std::string judged;           // the text that was judged last
  bool ids_agree = true;
  bool encode_fails = false;

 private:
  static SessionOptions OptionsOf(const RoutingPolicy& policy, int n_upstreams) {
    SessionOptions options;
    options.policy = policy;
    options.n_upstreams = n_upstreams;
    return options;
  }
  RoutingSession session_;
};

}  // namespace updraft::testing
