#include "cloud/service/engine_request.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/str_format.h"
#include "common/answer/detokenized_text.h"
#include "common/grammar/token_masks.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"

namespace updraft {
namespace {

// The answer that is there already, in place of one that is made up.
absl::Status TakeGiven(std::vector<int32_t> given, const RequestLimits& limits, engine::Request& built) {
  const int n_total = static_cast<int>(built.prompt.size() + given.size());
  if (n_total > limits.max_sequence_tokens) {
    return ContextExceeded(limits.max_sequence_tokens,
                           absl::StrFormat("the prompt and the given answer have %d; shorten one of them", n_total));
  }
  built.max_tokens = static_cast<int>(given.size());
  built.given = std::move(given);
  built.sampling = {};
  built.include_evidence = true;
  return absl::OkStatus();
}

// Answer tokens of a request that says none, or an error where what it says has no room.
absl::StatusOr<int> MaxTokensOf(const v1::GenerateRequest& request, int n_prompt, int context,
                                const RequestLimits& limits) {
  const int most = limits.max_sequence_tokens, n_known = n_prompt + request.accepted_prefix_size();
  if (n_known >= most) {
    return ContextExceeded(most, absl::StrFormat("the prompt has %d, and an answer needs room, too; shorten the "
                                                 "conversation",
                                                 n_known));
  }
  const int n_left = most - n_prompt;
  if (request.max_tokens() == 0) {
    return limits.max_tokens_default > 0 ? std::min(limits.max_tokens_default, n_left) : n_left;
  }
  // The context ends an answer; the pool must hold what was asked for.
  const int asked = std::min(request.max_tokens(), context - n_prompt);
  if (asked <= n_left) return request.max_tokens();
  return ContextExceeded(most,
                         absl::StrFormat("you requested %d tokens (%d in the prompt, %d in the completion); lower "
                                         "max_tokens, or serve with a larger kv_tokens",
                                         n_prompt + asked, n_prompt, asked));
}

}  // namespace

absl::StatusOr<engine::Request> ToEngineRequest(const ServedModel& model, const v1::GenerateRequest& request,
                                                const RequestLimits& limits, PromptFeatures* features) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  const int most = limits.max_sequence_tokens;
  auto prompt = model.MakePrompt(request, /*max_tokens=*/static_cast<size_t>(std::max(most - 1, 0)));
  if (!prompt.ok()) return prompt.status();
  auto sampling = SamplingFromProto(request.sampling());
  if (!sampling.ok()) return sampling.status();
  const auto max_tokens =
      MaxTokensOf(request, static_cast<int>(prompt->tokens.size()), model.model().config().context_length, limits);
  if (!max_tokens.ok()) return max_tokens.status();

  if (features != nullptr) *features = prompt->features;
  engine::Request built;
  built.prompt = std::move(prompt->tokens);
  built.accepted_prefix.assign(request.accepted_prefix().begin(), request.accepted_prefix().end());
  built.sampling = *sampling;
  built.max_tokens = *max_tokens;
  built.stop = std::move(prompt->stops);
  built.stop.insert(built.stop.end(), request.stop().begin(), request.stop().end());
  built.stop_tokens = model.stop_tokens();
  built.include_evidence = request.include_evidence();
  built.n_top_logprobs = request.top_logprobs();
  if (prompt->shape != nullptr) {
    const bool drops_space = prompt->at_text_start && model.tokenizer()->adds_space_prefix();
    built.mask = std::make_unique<grammar::GrammarMask>(prompt->shape, drops_space);
    for (const int32_t token : request.accepted_prefix()) built.mask->Advance(token);
    if (built.mask->broken()) {
      if (!prompt->shape_may_be_missed) {
        return absl::InvalidArgumentError(
            "accepted_prefix: expected the beginning of an answer of the shape, found another");
      }
      built.mask.reset();
    }
  }
  built.priority = request.priority();
  // What one tenant asked another must not learn from how fast its own begins.
  built.cache_salt = request.tenant().empty() ? 0 : absl::HashOf(request.tenant());
  built.text = std::make_unique<DetokenizedText>(model.tokenizer(), prompt->at_text_start, prompt->spelled);
  if (prompt->given.empty()) return built;
  if (absl::Status status = TakeGiven(std::move(prompt->given), limits, built); !status.ok()) return status;
  return built;
}

}  // namespace updraft
