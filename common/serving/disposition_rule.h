// What an answer that acts on something turned out to be: act, refuse, or so doubtful that the last tier asks back.
//
// A model file says that its answers act by `updraft.acts`, which names the task that they are of ("cockpit"). Such
// answers are held until they are whole: half of one must not be carried out. How likely one is to be right says the
// file's updraft.p_right.* calibration (common/routing/confidence.h); below its threshold it is better not to act.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/decode/evidence.h"
#include "common/routing/confidence.h"
#include "common/routing/names.h"

namespace updraft {

class Model;

struct Verdict {
  Disposition disposition = Disposition::kUnspecified;
  std::optional<double> p_right;  // of this answer; none: the file has no calibration for it
  // It acts, and is either too likely to be wrong or cannot be carried out. A tier that nobody stands above asks back
  // in its place.
  bool doubtful = false;
};

// What is said in place of a doubtful answer.
struct AskingBack {
  Disposition disposition = Disposition::kClarify;  // kRefuse where there was nothing to offer
  std::string text;
  std::vector<std::string> alternatives;  // answers that could have been meant, JSON, at most 3
};

// Immutable; any thread.
class DispositionRule {
 public:
  DispositionRule() = default;  // of a model whose answers are text
  // InvalidArgument: a task that this build does not know, or a damaged calibration; names the file.
  static absl::StatusOr<DispositionRule> Of(const Model& model);

  bool acts() const { return acts_; }
  // Of an answer, whole or begun: what in it acts, where answers act.
  AnswerShape ShapeOf(std::string_view text) const;
  // text: the whole answer; evidence: of all of its tokens. REQUIRES acts().
  Verdict Judge(std::string_view text, std::span<const TokenEvidence> evidence, const PromptFeatures& prompt) const;
  // candidates: answers to one request, the one that was doubted first; said_last: what the user said last, for its
  // language. Empty: it is not known. REQUIRES acts().
  AskingBack AskBack(std::span<const std::string> candidates, std::string_view said_last) const;

 private:
  bool acts_ = false;
  int n_layer_ = 0;
  ConfidenceModel p_right_ = ConfidenceModel::Uncalibrated();
};

}  // namespace updraft
