// The agent's way in: what a request must be, and the room it needs.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/rpc/convert.h"
#include "common/serving/request_check.h"
#include "edge/agent/agent.h"

namespace updraft {

absl::Status Agent::Prepare(Asked& asked) const {
  v1::GenerateRequest& request = asked.request;
  if (absl::Status status = CheckRequest(request); !status.ok()) {
    if (!CheckId("", request.request_id()).ok()) request.clear_request_id();  // not fit for the log
    return status;
  }
  if (request.has_given()) {
    return absl::InvalidArgumentError(
        "given: an edge's answers are not its model's alone; ask the tier that serves the model (updraft-cloud)");
  }
  if (request.request_id().empty()) request.set_request_id(NewRequestId());
  asked.mode = EffectiveMode(options_.policy.mode, AskedFromProto(request.tier()));
  const bool may_go_up = MayGoUp(asked.mode, request.hops());
  const int context_above = may_go_up ? upstream_->Identity().context_length : 0;
  const auto most_tokens = static_cast<size_t>(std::max(model_->max_sequence_tokens(), context_above));
  auto prompt = model_->served().MakePrompt(request, most_tokens - 1);
  if (!prompt.ok()) return prompt.status();
  asked.prompt = *std::move(prompt);
  asked.gain = ExpectedGain(request);
  // What stays 0 goes up as it is: the tier above has room of its own.
  if (request.max_tokens() == 0) request.set_max_tokens(options_.max_tokens_default);
  asked.max_tokens = request.max_tokens() > 0 ? request.max_tokens() : std::numeric_limits<int>::max();
  const size_t n_tokens = asked.prompt.tokens.size() + static_cast<size_t>(request.accepted_prefix_size());
  asked.fits_locally = n_tokens < static_cast<size_t>(model_->max_sequence_tokens());
  return asked.fits_locally ? absl::OkStatus() : CheckRoomAbove(n_tokens, may_go_up);
}

// Of a request whose words are known here: what is asked last, as in the tables that routers are fitted on.
double Agent::ExpectedGain(const v1::GenerateRequest& request) const {
  const Router* router = model_->router();
  if (router == nullptr || options_.policy.router_gain <= 0.0) return kUnknown;
  if (request.has_prompt()) return router->Predict(RouterInputOf(request.prompt())).gain();
  const auto& messages = request.conversation().messages();
  const auto last = std::find_if(messages.rbegin(), messages.rend(), [](const auto& m) { return m.role() == "user"; });
  return last == messages.rend() ? kUnknown : router->Predict(RouterInputOf(last->content())).gain();
}

bool Agent::MayGoUp(PolicyMode mode, int hops) const {
  return upstream_ != nullptr && mode != PolicyMode::kLocal && hops < options_.policy.max_hops;
}

// Refused here what the tier above would refuse after it had been sent.
absl::Status Agent::CheckRoomAbove(size_t n_tokens, bool may_go_up) const {
  if (!may_go_up) {
    return ContextExceeded(
        model_->max_sequence_tokens(),
        absl::StrFormat("the prompt has %d, and an answer needs room, too; shorten the conversation, "
                        "or raise --kv-tokens if the model's own context of %d allows",
                        n_tokens, model_->info().context_length()));
  }
  const int above = upstream_->Identity().context_length;
  if (above == 0 || n_tokens < static_cast<size_t>(above)) return absl::OkStatus();
  return ContextExceeded(
      above, absl::StrFormat("the prompt has %d, and an answer needs room, too, neither here (%d) nor at the "
                             "tier above; shorten the conversation",
                             n_tokens, model_->max_sequence_tokens()));
}

}  // namespace updraft
