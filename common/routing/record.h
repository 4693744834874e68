// One decision as it is logged. A record holds all that the decision rested on, so that it can be explained, replayed
// and judged without the session that made it (Replay in choose.h; the line of JSON in record_json.h). Plain values of
// fixed size: no heap. Unknown numbers are NaN, never 0; counts of a link or a load count where its flag (measured,
// known) says so; an absent limit is +infinity.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "common/routing/link.h"
#include "common/routing/names.h"

namespace updraft {

inline constexpr uint32_t kRecordSchema = 2;
inline constexpr int kMaxUpstreams = 4;
inline constexpr int kMaxOptions = 12;  // local, defer, two ways per upstream, and room
inline constexpr double kNever = std::numeric_limits<double>::infinity();

// A request id, inline: at most 128 printable ASCII characters.
class RequestKey {
 public:
  static constexpr size_t kMaxBytes = 128;

  RequestKey() = default;
  // Ids are checked where they come in; of one that was not, other characters become '?' and the rest is cut off.
  explicit RequestKey(std::string_view id);

  std::string_view view() const { return {bytes_.data(), size_}; }
  bool operator==(const RequestKey& other) const { return view() == other.view(); }

 private:
  std::array<char, kMaxBytes> bytes_{};
  uint8_t size_ = 0;
};

// In [0, 1), a function of its arguments alone: what a policy that explores draws from, the same in every replay.
double DrawOf(const RequestKey& request, Stage stage);

// What the caller knows of the request.
struct RequestFacts {
  RequestKey key;
  PolicyMode asked = PolicyMode::kAuto;  // the caller's wish, within what the policy allows (EffectiveMode in policy.h)
  bool fits_locally = true;              // the prompt leaves room for an answer in what this tier holds
  int hops = 0;                          // tiers that have passed the request on already
  int n_prompt_tokens = 0;
  int n_draft_tokens = 0;                            // generated locally so far
  int max_tokens = std::numeric_limits<int>::max();  // answer tokens that the caller allows
  double deadline_s = kNever;                        // seconds left for this answer; NaN counts as none left
  double local_wait_s = 0.0;  // until this tier's model would begin with it; read in kBefore alone
};

// What is known of the draft, and, before there is one, of the request: the gain. Three meanings, three names; of
// confidence and p_right nothing is read in kBefore, of the gain nothing after it.
struct Evidence {
  double confidence = kUnknown;  // calibrated P(as good as upstream's)
  double p_right = kUnknown;     // P(right)
  double gain = kUnknown;        // of going up: P(upstream right, this wrong) - P(this right, upstream wrong)
};

// What the session remembers of its own tier.
struct LocalState {
  double answer_tokens = kUnknown;  // of a typical answer
  double tokens_per_s = kUnknown;   // of local generation
  double prefill_tokens_per_s = kUnknown;
  Decision previous = Decision::kKeep;  // what became of the previous answer, for hysteresis
};

// What the session believes of one upstream.
struct UpstreamFacts {
  LinkEstimate link;
  UpstreamLoad load;
  double since_failure_s = kNever;  // since the link last failed
  double busy_s = 0.0;              // so much longer it asked to be left alone
};

struct Situation {
  // ---- From the caller ----
  Stage stage = Stage::kBefore;
  double now_s = 0.0;  // steady
  RequestFacts request;
  Evidence evidence;
  // ---- From the session, which overwrites what is here ----
  LocalState local;
  std::array<UpstreamFacts, kMaxUpstreams> upstreams;
  uint8_t n_upstreams = 0;
  double draw = kUnknown;  // DrawOf
};

// One way that was compared. kDraftThenDecide means drafting in kBefore, and handing the draft over afterwards;
// kLocal keeps what there is.
struct Option {
  static constexpr uint8_t kHere = 0xff;

  Way way = Way::kUnspecified;
  uint8_t upstream = kHere;                 // which one; kHere: none is asked
  ReasonCode obstacle = ReasonCode::kNone;  // what stands against it; kNone: feasible
  double limit = kUnknown;                  // what the obstacle was measured by: hops or seconds
  double ttft_s = kUnknown;                 // to the first token
  double total_s = kUnknown;                // to the last token
  double total_p90_s = kUnknown;
  double bytes_up = kUnknown, bytes_down = kUnknown;
  double joules = kUnknown, money = kUnknown;
  double p_wrong = kUnknown;

  bool feasible() const { return obstacle == ReasonCode::kNone; }
};

struct DecisionRecord {
  uint32_t schema = kRecordSchema;
  uint64_t seq = 0;        // of the session's decisions, from 1
  uint64_t policy_fp = 0;  // Fingerprint(policy)
  uint64_t model_fp = 0;   // of the model whose confidence this is; 0: unknown
  Situation situation;
  std::array<Option, kMaxOptions> options;
  uint8_t n_options = 0;
  uint8_t choice = 0;  // index into options
  ReasonCode reason = ReasonCode::kNone;
  bool degraded = false;        // upstream was wanted but cannot be used
  double threshold = kUnknown;  // that confidence was measured by, hysteresis and margin included
  double propensity = 1.0;      // probability with which the policy makes this choice in this situation

  const Option& chosen() const { return options[choice]; }
};

// What the chosen way means for the request: kUnspecified way and damaged values give kKeep.
Decision DecisionOf(const DecisionRecord& record);

// One line for a person, e.g. "confidence 0.41 below 0.83; upstream in about 0.40 s".
std::string Explain(const DecisionRecord& record);

// Of the options that ask an upstream, the one that is to be asked: the soonest of the feasible ones, else the soonest;
// at a tie the first. Null: none asks an upstream.
const Option* BestUpstreamOption(const DecisionRecord& record);

}  // namespace updraft
