// The choice of the confidence from which an answer is kept, with a guarantee that holds without knowing how
// confidences and losses are distributed.
//
// The loss of a request is what keeping its answer would cost, in [0, 1]: 1 where upstream would have been right and
// this tier is wrong, 0 otherwise, or something between where right and wrong are matters of degree. The risk of a
// threshold is the expected loss over ALL requests, those handed over counting 0: "kept, and upstream would have done
// better". ChooseKeepThreshold answers with a threshold whose risk is at most max_risk, with probability 1 - delta over
// the draw of the held-out requests.
//
// How: fixed-sequence testing (Angelopoulos, Bates, Candes, Jordan & Lei, "Learn then Test", 2021). Thresholds are
// tried from the strictest, at which nothing is kept, to the loosest, each confidence that occurs being one step; at
// each the hypothesis "risk >= max_risk" is tested at level delta; the first that is not rejected ends the walk. That
// steps are taken from the data costs nothing: let t be the largest threshold whose risk is at least max_risk. A choice
// that breaks max_risk lies at t or below, so the walk came past the set of requests that t keeps of these and rejected
// a true hypothesis there, at a t that the data did not choose, which has probability delta. This needs a walk that
// skips no step, not a test that is monotone.
//
// The tests: where all losses are 0 or 1, the exact binomial one, whose inversion is the Clopper-Pearson bound. Else
// betting (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024): the capital
// of a gambler who bets on small losses, with predictable plug-in bets: one side of their hedged capital. Its inversion
// is what Bates et al. ("Distribution-free, risk-controlling prediction sets", JACM 2021) call the Waudby-Smith-Ramdas
// bound. A gambler must not know what comes next, so requests are taken in a seeded order that has nothing to do with
// them.
//
// What it assumes:
//  * Requests that come are drawn like the held-out ones, independently. Other wording, other people, another upstream
//    are outside of it; common/routing/drift.h watches for that.
//  * The confidence was not fitted on these very requests. Cross-fitted ones (ConfidenceModel::HeldOutConfidences) come
//    near: each request's score is of a model that did not see it, but the model that serves is yet another one, fitted
//    on all of them, and the guarantee is for it in so far as it ranks as the fold models do; confidence_test.cc
//    measures it. That the map from score to confidence was fitted on these requests costs nothing with the exact test:
//    the map keeps the order, so it only chooses among thresholds on the score, and that test is monotone in them.
//    Held-out requests that no fit saw make it exact.
//  * One choice per set of held-out requests. Who tries several models or settings on it and takes the best gives
//    delta / number to each.
//
// Thread-safe; deterministic: the result depends on the requests (not on their order), the limits and the seed.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

// A held-out request.
struct RiskSample {
  double confidence = 0.0;  // in [0, 1); equal ones are kept or handed over together
  double loss = 0.0;        // in [0, 1], if its answer is kept
};

struct RiskLimits {
  double max_risk = 0.01;  // in (0, 1)
  double delta = 0.05;     // in (0, 1): probability of a choice that breaks max_risk
  uint64_t seed = 1;       // of the order in which the gambler sees the requests; not read where losses are 0 or 1

  absl::Status Validate() const;
};

enum class RiskBound : uint8_t { kClopperPearson, kBetting };
std::string_view NameOf(RiskBound bound);  // "clopper-pearson", "betting"

// What a threshold does to the held-out requests.
struct RiskEstimate {
  int64_t n = 0, n_kept = 0;
  double risk = 0.0;   // mean loss, of what is handed over 0
  double upper = 1.0;  // bound of it that holds with probability 1 - delta for a threshold that these did not choose
  RiskBound bound = RiskBound::kClopperPearson;

  double coverage() const { return n > 0 ? static_cast<double>(n_kept) / static_cast<double>(n) : 0.0; }
};

// Hands every answer of a calibrated model over, whose confidence is below 1.
inline constexpr double kKeepNothing = 1.0;

struct KeepThreshold {
  // Keep at or above: a confidence of the samples, 0 where all of them may be kept, kKeepNothing where none may.
  double threshold = kKeepNothing;
  RiskEstimate estimate;  // at it; upper <= max_risk unless nothing is kept
};

// O(n log n) where losses are 0 or 1; else up to n times the number of confidences at which a loss occurs.
// InvalidArgument: no samples, a value outside its range.
absl::StatusOr<KeepThreshold> ChooseKeepThreshold(std::span<const RiskSample> samples, const RiskLimits& limits);

// Of a threshold that was chosen elsewhere; confidences may be 1. limits.max_risk is not read.
absl::StatusOr<RiskEstimate> RiskAt(std::span<const RiskSample> samples, double threshold, const RiskLimits& limits);

// ---- The tests and bounds themselves. Of losses the caller vouches for: in [0, 1], independent, one mean ----

// P(at most k events in n trials), each of probability p: the p-value of "risk >= p" where k losses of n are 1.
double BinomialTail(int64_t k, int64_t n, double p);
// Upper end of the one-sided Clopper-Pearson interval: the largest probability at which `k` or fewer events in `n`
// trials still have probability `delta`. 1 when k >= n.
double ClopperPearsonUpper(int64_t k, int64_t n, double delta);

// The p-value of "mean >= mean": 1 / the largest capital on the way, at most 1. Valid for every mean in (0, 1); the
// bets are sized for rejections at delta.
double BettingPValue(std::span<const double> losses, double mean, double delta);
// The smallest mean whose p-value is at most delta; 1 when there is none.
double BettingUpper(std::span<const double> losses, double delta);

}  // namespace updraft
