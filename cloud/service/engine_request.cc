#include "cloud/service/engine_request.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "common/answer/detokenized_text.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"

namespace updraft {
absl::StatusOr<engine::Request> ToEngineRequest(const ServedModel& model, const v1::GenerateRequest& request,
                                                const RequestLimits& limits) {
  if (absl::Status status = CheckRequest(request); !status.ok()) return status;
  const size_t context_length = static_cast<size_t>(model.model().config().context_length);
  auto prompt = model.MakePrompt(request, /*max_tokens=*/context_length - 1);
  if (!prompt.ok()) return prompt.status();
  auto sampling = SamplingFromProto(request.sampling());
  if (!sampling.ok()) return sampling.status();

  engine::Request built;
  built.prompt = std::move(prompt->tokens);
  built.accepted_prefix.assign(request.accepted_prefix().begin(), request.accepted_prefix().end());
  built.sampling = *sampling;
  built.max_tokens = request.max_tokens();
  if (built.max_tokens == 0) {
    const int n_left = limits.max_sequence_tokens - static_cast<int>(built.prompt.size()) + 1;
    built.max_tokens = std::clamp(limits.max_tokens_default, 1, std::max(1, n_left));
  }
  built.stop = std::move(prompt->stops);
  built.stop.insert(built.stop.end(), request.stop().begin(), request.stop().end());
  built.stop_tokens = model.stop_tokens();
  built.include_evidence = request.include_evidence();
  built.text = std::make_unique<DetokenizedText>(model.tokenizer(), prompt->at_text_start);
  return built;
}

}  // namespace updraft
