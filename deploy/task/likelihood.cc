#include "deploy/task/likelihood.h"

#include <algorithm>
#include <span>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/decode/evidence.h"
#include "deploy/task/read_along.h"

namespace updraft {
absl::StatusOr<Likelihood> LikelihoodOf(Answerer& answerer, const Conversation& conversation,
                                        const std::string& answer) {
  auto prompt = answerer.Render(conversation);
  if (!prompt.ok()) return prompt.status();
  const auto written = answerer.tokenizer().Encode(answer, {.add_special = false, .at_text_start = true});
  if (!written.ok()) return written.status();
  const ModelConfig& config = answerer.model().config();
  std::vector<int32_t> tokens = *prompt;
  tokens.insert(tokens.end(), written->begin(), written->end());
  if (tokens.size() > static_cast<size_t>(config.context_length)) {
    return absl::OutOfRangeError(
        absl::StrFormat("prompt and answer have %d tokens, the context %d", tokens.size(), config.context_length));
  }
  const std::vector<int32_t>& stops = answerer.stop_tokens();
  const int heads[] = {kFinalHead};
  Likelihood likelihood;
  const absl::Status read = ReadAlong(
      answerer, tokens, heads, /*first=*/prompt->size() - 1, [&](size_t, size_t row, std::span<const float> logits) {
        const size_t next = row + 1;
        const bool ends = next == tokens.size();
        if (ends && stops.empty()) return;
        const std::span<const int32_t> said = std::span<const int32_t>(tokens);
        const float logprob =
            LogProbabilityOfAny(logits, ends ? std::span<const int32_t>(stops) : said.subspan(next, 1));
        likelihood.logprob += std::max(static_cast<double>(logprob), kLogprobFloor);
        ++likelihood.n_tokens;
      });
  if (!read.ok()) return read;
  return likelihood;
}

}  // namespace updraft
