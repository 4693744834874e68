// What sampling and confidence need of the logits of one token, on the best instruction set of this machine
// (UPDRAFT_FORCE_ISA as for Ops). The same bits on every instruction set. Any thread.
#pragma once

#include <cstdint>
#include <span>

namespace updraft::kernels {

// Logits that are not finite, and the lowest float, have no part in it.
struct LogitSummary {
  float first = 0.0f;   // largest; lowest float when none is finite
  float second = 0.0f;  // largest but one, equal to the first where two share it; lowest float when there is none
  // Sums of e^(x - first) and of (x - first) e^(x - first), each term with a relative error below 2e-7.
  double mass = 0.0;
  double weighted = 0.0;
};
LogitSummary SummarizeLogits(std::span<const float> logits);

// Lowest index of the largest logit; NaN is below everything. -1 when nothing is above -infinity.
int64_t ArgMaxLogit(std::span<const float> logits);

}  // namespace updraft::kernels
