#include "common/serving/disposition_rule.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "common/cockpit/ask_back.h"
#include "common/model/model.h"

namespace updraft {

absl::StatusOr<DispositionRule> DispositionRule::Of(const Model& model) {
  DispositionRule rule;
  const gguf::File& file = model.FileWith("updraft.acts");
  const auto in_file = [&](const absl::Status& status) {
    return absl::Status(status.code(), absl::StrFormat("model '%s': %s", file.path(), std::string(status.message())));
  };
  const auto task = file.GetStringOr("updraft.acts", "");
  if (!task.ok()) return in_file(task.status());
  if (task->empty()) return rule;
  if (*task != "cockpit") {
    return in_file(absl::InvalidArgumentError(
        absl::StrFormat("updraft.acts: expected 'cockpit', found '%s'; this build cannot tell whether such answers act",
                        std::string(task->substr(0, 40)))));
  }
  rule.acts_ = true;
  rule.n_layer_ = model.config().n_layer;
  auto p_right = ConfidenceModel::FromGguf(model.confidence_file(), ConfidenceModel::Meaning::kRight);
  if (!p_right.ok()) return in_file(p_right.status());
  rule.p_right_ = *std::move(p_right);
  return rule;
}

AnswerShape DispositionRule::ShapeOf(std::string_view text) const {
  if (!acts_) return {};
  const cockpit::Parts parts = cockpit::PartsOf(text);
  return {.acting_bytes = parts.acting_bytes,
          .n_settings = parts.n_settings,
          .calls = parts.calls,
          .refuses = parts.refuses};
}

Verdict DispositionRule::Judge(std::string_view text, std::span<const TokenEvidence> evidence,
                               const PromptFeatures& prompt) const {
  Verdict verdict;
  if (p_right_.calibrated() && !evidence.empty()) {
    verdict.p_right = p_right_.Predict(FeaturesOf(evidence, prompt, n_layer_, ShapeOf(text)));
  }
  switch (cockpit::EffectOf(text)) {
    case cockpit::Effect::kNone:
      break;
    case cockpit::Effect::kAct:
      verdict.disposition = Disposition::kAct;
      verdict.doubtful = verdict.p_right && *verdict.p_right < p_right_.threshold();
      break;
    case cockpit::Effect::kRefuse:
      verdict.disposition = Disposition::kRefuse;
      break;
    case cockpit::Effect::kAsk:
      verdict.disposition = Disposition::kClarify;
      break;
    case cockpit::Effect::kIllegal:
      verdict.doubtful = true;
      break;
  }
  return verdict;
}

AskingBack DispositionRule::AskBack(std::span<const std::string> candidates, std::string_view said_last) const {
  cockpit::AskedBack asked = cockpit::AskBack(candidates, said_last);
  return {.disposition = asked.alternatives.empty() ? Disposition::kRefuse : Disposition::kClarify,
          .text = std::move(asked.text),
          .alternatives = std::move(asked.alternatives)};
}

}  // namespace updraft
