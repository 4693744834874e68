#include "common/engine/step_pacer.h"

#include <algorithm>

namespace updraft::engine {
namespace {

constexpr double kAim = 0.9;    // of the target: half of all steps are slower than expected
constexpr double kFade = 0.75;  // of what earlier steps say, per step: a prompt of 4,096 tokens is some 50 steps long
constexpr double kGain = 0.25;  // of a bare step's time

}  // namespace

int StepPacer::PromptRows() const {
  if (target_s_ <= 0.0) return std::numeric_limits<int>::max();
  if (n_added_ <= 0.0) return kFirstRows;
  const double cost_s = added_s_ / n_added_;
  const double n_rows = (kAim * target_s_ - bare_s_) / std::max(cost_s, 1e-9);
  return static_cast<int>(std::clamp(n_rows, static_cast<double>(kMinRows), 1e6));
}

void StepPacer::OnStep(int n_decode_rows, int n_other_rows, absl::Duration time) {
  const double seconds = absl::ToDoubleSeconds(time);
  if (n_other_rows == 0) {
    bare_s_ = bare_s_ == 0.0 ? seconds : bare_s_ + kGain * (seconds - bare_s_);
    return;
  }
  // Whatever a bare step took once, it takes no longer than this one: there may be no other for a long time.
  if (n_decode_rows > 0) bare_s_ = std::min(bare_s_, seconds);
  // Without a bare step yet all rows count alike.
  const double share = static_cast<double>(n_other_rows) / (n_decode_rows + n_other_rows);
  const double added_s = bare_s_ == 0.0 || n_decode_rows == 0 ? share * seconds : seconds - bare_s_;
  added_s_ = kFade * added_s_ + std::max(added_s, 0.0);
  n_added_ = kFade * n_added_ + n_other_rows;
}

}  // namespace updraft::engine
