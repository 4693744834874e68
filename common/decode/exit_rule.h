// When a token may leave at an early exit.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

// Immutable; any thread.
class ExitRule {
 public:
  virtual ~ExitRule() = default;
  virtual int n_exits() const = 0;  // of the model it is for
  // Whether any token may leave at this exit; where none may, its head is not computed.
  virtual bool MayLeave(int exit) const = 0;
  // Whether a token leaves whose logits there are these [n_vocab], before any mask.
  virtual bool Leaves(int exit, std::span<const float> logits) const = 0;
};

// The top probability reaches the exit's threshold; none reaches one above 1.
class ThresholdExitRule : public ExitRule {
 public:
  explicit ThresholdExitRule(std::vector<float> thresholds) : thresholds_(std::move(thresholds)) {}
  int n_exits() const override { return static_cast<int>(thresholds_.size()); }
  bool MayLeave(int exit) const override { return !(thresholds_[exit] > 1.0f); }
  bool Leaves(int exit, std::span<const float> logits) const override;

 private:
  std::vector<float> thresholds_;
};

// A linear classifier of what is known at one exit (evidence.h). Its score is the logit of the probability that all
// layers would choose the same token, when it was fitted as one.
struct LinearExit {
  float bias = 0.0f;
  float top_prob = 0.0f, margin = 0.0f, entropy = 0.0f;  // weights of the evidence of that name
  float least = 0.0f;                                    // the score from which on a token leaves; +infinity: never
};

class LinearExitRule : public ExitRule {
 public:
  // One per exit. InvalidArgument for a number that is NaN or an infinite weight.
  static absl::StatusOr<std::shared_ptr<const LinearExitRule>> Create(std::vector<LinearExit> exits);
  int n_exits() const override { return static_cast<int>(exits_.size()); }
  bool MayLeave(int exit) const override;
  bool Leaves(int exit, std::span<const float> logits) const override;
  // In double, of the evidence of these logits.
  double Score(int exit, std::span<const float> logits) const;

 private:
  explicit LinearExitRule(std::vector<LinearExit> exits) : exits_(std::move(exits)) {}
  std::vector<LinearExit> exits_;
};

}  // namespace updraft
