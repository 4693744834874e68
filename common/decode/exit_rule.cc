#include "common/decode/exit_rule.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/decode/evidence.h"

namespace updraft {

bool ThresholdExitRule::Leaves(int exit, std::span<const float> logits) const {
  return TopProbability(logits) >= thresholds_[exit];
}

absl::StatusOr<std::shared_ptr<const LinearExitRule>> LinearExitRule::Create(std::vector<LinearExit> exits) {
  for (size_t i = 0; i < exits.size(); ++i) {
    const LinearExit& e = exits[i];
    for (const float weight : {e.bias, e.top_prob, e.margin, e.entropy}) {
      if (!std::isfinite(weight)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("exit %d of %d: expected finite weights, found %g", i, exits.size(), weight));
      }
    }
    if (std::isnan(e.least)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("exit %d of %d: expected a least score, found NaN", i, exits.size()));
    }
  }
  return std::shared_ptr<const LinearExitRule>(new LinearExitRule(std::move(exits)));
}

bool LinearExitRule::MayLeave(int exit) const { return exits_[exit].least < std::numeric_limits<float>::infinity(); }

double LinearExitRule::Score(int exit, std::span<const float> logits) const {
  const LinearExit& e = exits_[exit];
  const TokenEvidence evidence = EvidenceOf(logits, 0);
  return double{e.bias} + double{e.top_prob} * evidence.top_prob + double{e.margin} * evidence.margin +
         double{e.entropy} * evidence.entropy;
}

bool LinearExitRule::Leaves(int exit, std::span<const float> logits) const {
  return MayLeave(exit) && Score(exit, logits) >= exits_[exit].least;
}

}  // namespace updraft
