#include "deploy/calibrate/exit_thresholds.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "deploy/task/read_along.h"

namespace updraft {
namespace {

constexpr float kNever = 2.0f;  // above any probability

int32_t ArgMax(std::span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace

absl::StatusOr<std::vector<ExitTrace>> TraceExits(Answerer& answerer, const LocalAnswer& answer) {
  const ModelConfig& config = answerer.model().config();
  std::vector<ExitTrace> traces(config.exit_layers.size());
  std::vector<int32_t> chosen = answer.tokens;
  if (answer.end_token.has_value()) chosen.push_back(*answer.end_token);
  if (traces.empty() || chosen.empty() || answer.prompt_tokens.empty()) return traces;

  std::vector<int32_t> tokens = answer.prompt_tokens;
  tokens.insert(tokens.end(), chosen.begin(), chosen.end() - 1);
  const size_t first_choice = answer.prompt_tokens.size();  // the row whose logits chose chosen[1]
  std::vector<int> heads(traces.size());                    // nothing reads what layers above the last exit say
  std::iota(heads.begin(), heads.end(), 0);
  const absl::Status read =
      ReadAlong(answerer, tokens, heads, first_choice, [&](size_t exit, size_t row, std::span<const float> logits) {
        traces[exit].top_prob.push_back(TopProbability(logits));
        traces[exit].agrees.push_back(ArgMax(logits) == chosen[row - first_choice + 1]);
      });
  if (!read.ok()) return read;
  return traces;
}

std::vector<float> ChooseExitThresholds(std::span<const std::vector<ExitTrace>> traces, double budget) {
  const size_t n_exits = traces.empty() ? 0 : traces.front().size();
  std::vector<float> thresholds;
  for (size_t exit = 0; exit < n_exits; ++exit) {
    // An answer is changed at this exit by every threshold up to the highest top probability of its disagreeing tokens.
    std::vector<float> changed_up_to;
    for (const auto& answer : traces) {
      float highest = -1.0f;
      for (size_t i = 0; i < answer[exit].top_prob.size(); ++i) {
        if (!answer[exit].agrees[i]) highest = std::max(highest, answer[exit].top_prob[i]);
      }
      if (highest >= 0.0f) changed_up_to.push_back(highest);
    }
    std::sort(changed_up_to.begin(), changed_up_to.end(), std::greater<>());
    const size_t allowed =
        static_cast<size_t>(budget * static_cast<double>(traces.size()) / static_cast<double>(n_exits));
    float threshold = 0.0f;
    if (allowed < changed_up_to.size()) threshold = std::nextafter(changed_up_to[allowed], kNever);
    thresholds.push_back(threshold > 1.0f ? kNever : threshold);
  }
  return thresholds;
}

}  // namespace updraft
