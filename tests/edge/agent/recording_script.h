// What the recording of the agent's behaviour asks: requests in groups, each with what its upstream does, drawn from a
// seed by a generator of its own, so that they are the same everywhere and for ever.
//
// A group has an agent and an upstream to itself and asks one request after the other; what the agent remembers between
// them (hysteresis, back-off, a delay it was told) is part of what is recorded. Nothing depends on measured time:
// situations are forced by thresholds at the ends of what confidence can be or beside values that it has, by faults, by
// deadlines that are over or a day away, and by waits of zero or far longer than a test.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/routing/policy.h"
#include "common/text/tokenizer.h"
#include "tests/edge/agent/fake_upstream.h"
#include "updraft/v1/inference.pb.h"

namespace updraft::testing {

inline constexpr uint64_t kRecordingSeed = 20261129;
inline constexpr int kRecordedRequests = 1000;
inline constexpr int kRecordedDefaultTokens = 12;  // answer tokens of a request that does not say

enum class Vocabulary { kByteLevel, kSentencePiece };
inline constexpr std::array kVocabularies = {Vocabulary::kByteLevel, Vocabulary::kSentencePiece};
using Tokenizers = std::array<std::shared_ptr<const text::Tokenizer>, kVocabularies.size()>;
// What tiers with the same tokenizer and chat template have in common (ModelInfo.tokenizer_fingerprint).
using Fingerprints = std::array<std::string, kVocabularies.size()>;

enum class AskedDeadline { kNone, kFar, kOver };

// How a request is taken beside being answered.
enum class Handling {
  kTake,
  kCancel,     // when upstream has stalled after its chunks
  kPassTwice,  // asked a second time as another tier would while upstream stalls, then cancelled; both are recorded
};

struct RecordedRequest {
  int id = 0;
  v1::GenerateRequest request;
  AskedDeadline deadline = AskedDeadline::kNone;
  Handling handling = Handling::kTake;
  int accepts = 1 << 30;     // chunks that the sink takes before it refuses
  Script script;             // of the call upstream, if there is one
  bool refuses_ids = false;  // upstream takes text only
  std::string what;          // the situation in a few words, for people
};

struct RecordedGroup {
  int index = 0;
  std::string kind;  // what its requests have in common
  Vocabulary vocabulary = Vocabulary::kByteLevel;
  RoutingPolicy policy;
  ExitMode exit_mode = ExitMode::kOff;
  int kv_tokens = 512;
  int max_queued = 64;
  double stall_timeout_s = 120.0;
  enum class Above { kNone, kSame, kOther, kUnknown, kGone } above = Above::kSame;  // whose vocabulary; kGone: no tier
  int context_above = 0;
  bool draining = false;
  std::vector<RecordedRequest> requests;
};

// kRecordedRequests requests; those asked twice count as two.
std::vector<RecordedGroup> MakeRecording(uint64_t seed, const Tokenizers& tokenizers, const Fingerprints& fingerprints);

}  // namespace updraft::testing
