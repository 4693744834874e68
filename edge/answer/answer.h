// One answer from its request to its end, as a state machine: Answer::On(event, now) -> actions. No thread, no clock,
// no link and no model in here: whoever drives it (edge/agent, a test) carries the actions out and tells what comes of
// them.
//
// How it is answered is a way (ways.h), a small strategy each; what it consists of is the Ledger (ledger.h). An answer
// ends once, with EndAnswer as its last action, and not while a local run or a call upstream of its own goes on: the
// end is told when the last of them has let go.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock/steady.h"
#include "common/decode/evidence.h"
#include "common/routing/session.h"
#include "common/serving/disposition_rule.h"
#include "common/serving/prompt.h"
#include "edge/answer/events.h"
#include "edge/answer/ledger.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// The tier that answers. Constant while it serves.
struct TierFacts {
  std::string name;
  int vocab_size = 0;
  int max_sequence_tokens = 0;  // prompt and answer
  std::string tokenizer_fingerprint;
  // The vocabulary puts a space before the first word of a text, so ids alone do not tell whether one begins.
  bool adds_space_prefix = false;
  bool acts = false;  // what the model answers is to be carried out: nobody gets a part of it
};

// A request that was checked and prepared.
struct Asked {
  v1::GenerateRequest request;
  Prompt prompt;
  PolicyMode mode = PolicyMode::kAuto;  // the caller's wish within what is configured
  bool fits_locally = true;
  double gain = kUnknown;  // of going up, by its words
  int max_tokens = 0;      // answer tokens, accepted prefix included; the largest number where `request` says none
  SteadyTime arrived;
  SteadyTime deadline = SteadyTime::InfiniteFuture();
};

// What an answer asks of its tier while it handles an event. Called by the answer's thread of the moment; must not call
// back into the answer.
class AnswerHost {
 public:
  virtual ~AnswerHost() = default;
  // Of the routing session.
  virtual DecisionRecord Decide(const Situation& situation) = 0;
  virtual void OnLocalRun(const LocalRunMeasured& run) = 0;
  // Calibrated P(as good as upstream's) of a draft, whole or begun, with this evidence.
  virtual double Confidence(std::string_view text, std::span<const TokenEvidence> evidence,
                            const PromptFeatures& prompt) const = 0;
  // Of a whole answer of this tier's model, where the tier acts.
  virtual Verdict Judge(std::string_view text, std::span<const TokenEvidence> evidence,
                        const PromptFeatures& prompt) const = 0;
  virtual AskingBack AskBack(std::span<const std::string> candidates, std::string_view said_last) const = 0;
  // Whether upstream's vocabulary is ours, as far as is known.
  virtual bool UpstreamReadsOurIds() const = 0;
  // The answer's text in this tier's vocabulary. begins_text: it begins a text (a conversation's answer), rather than
  // continues one (a raw prompt, or tokens that were accepted before it).
  virtual absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, bool begins_text) const = 0;
};

class AnswerContext;
class AnswerWay;

class Answer {
 public:
  // tier and host must outlive the answer.
  Answer(const TierFacts* tier, AnswerHost* host, Asked asked);
  ~Answer();

  // Handles one event. Events come one at a time, now never earlier than before. After the end: nothing.
  Actions On(const Event& event, SteadyTime now);

  bool ended() const;
  // Constant; other threads may read it as long as the answer lives.
  const Asked& asked() const;
  const Ledger& ledger() const;
  // The last decision that was recorded, for RoutingSession::Outcome; null before the first.
  const DecisionRecord* record() const;

 private:
  std::unique_ptr<AnswerContext> context_;
  std::unique_ptr<AnswerWay> way_;
};

}  // namespace updraft
