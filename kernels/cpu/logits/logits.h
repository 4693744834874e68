// Reductions over the logits of one token, which a vocabulary of 150,000 makes as long as a small matrix product.
// Single-threaded.
#ifndef UPDRAFT_KERNELS_CPU_LOGITS_LOGITS_H_
#define UPDRAFT_KERNELS_CPU_LOGITS_LOGITS_H_

#include <cstdint>

namespace updraft::kernels {

// Logits that are not finite count as the lowest float.
struct TopTwoLogits {
  float first;
  float second;  // equal to the first where two logits share the largest value; lowest float when n is 1
};

// One instruction set's kernels, an entry of kernels.inc.
struct LogitsKernels {
  // Largest value, infinities among them; NaN is below everything, -infinity when there is nothing else.
  float (*peak)(const float* logits, int64_t n) = nullptr;

  TopTwoLogits (*top_two)(const float* logits, int64_t n) = nullptr;

  // Sums of e and of d e, for d = max(logit - peak, -87) and e = e^d with a relative error below 1.5e-7; logits that
  // are not finite count as d = -87, which no sum notices. In pieces of 1024:
  //   lane[l] = lane[l] + e for i = l, l + 16, ...;  weighted lane[l] = fma(d, e, lane[l])
  // and each piece's Sum, then what is left of a last vector one by one, is added in double, so that long vocabularies
  // do not lose small probabilities.
  void (*moments)(const float* logits, int64_t n, float peak, double* mass, double* weighted) = nullptr;
};

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_LOGITS_LOGITS_H_
