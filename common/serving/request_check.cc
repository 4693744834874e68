#include "common/serving/request_check.h"

#include <algorithm>
#include <random>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/rpc/convert.h"

namespace updraft {
namespace {

constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 128;

absl::Status CheckStops(const v1::GenerateRequest& request) {
  if (request.stop_size() > kMaxStops) {
    return absl::InvalidArgumentError(
        absl::StrFormat("stop: expected at most %d strings, found %d", kMaxStops, request.stop_size()));
  }
  for (int i = 0; i < request.stop_size(); ++i) {
    const size_t n_bytes = request.stop(i).size();
    if (n_bytes == 0 || n_bytes > kMaxStopBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("stop[%d]: expected 1 to %d bytes, found %d", i, kMaxStopBytes, n_bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckConversation(const v1::Conversation& conversation) {
  if (conversation.messages_size() == 0) {
    return absl::InvalidArgumentError("conversation: is empty; expected at least one message");
  }
  for (int i = 0; i < conversation.messages_size(); ++i) {
    const std::string& role = conversation.messages(i).role();
    if (role == "system" || role == "user" || role == "assistant") continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "conversation.messages[%d].role: expected system, user or assistant, found '%s'", i, role.substr(0, 80)));
  }
  // Nothing was said: a model would make something up, and a car would do it.
  const v1::Message& last = conversation.messages(conversation.messages_size() - 1);
  if (absl::StripAsciiWhitespace(last.content()).empty()) {
    return absl::InvalidArgumentError("conversation: the last message is empty; expected something to answer");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckId(const char* field, const std::string& id) {
  const bool printable =
      std::all_of(id.begin(), id.end(), [](char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); });
  if (printable && id.size() <= kMaxIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected at most %d printable ASCII characters without spaces, found %s", field, kMaxIdBytes,
                      printable ? absl::StrCat(id.size()) : "others"));
}

absl::Status CheckRequest(const v1::GenerateRequest& request) {
  if (absl::Status status = CheckId("request_id", request.request_id()); !status.ok()) return status;
  if (absl::Status status = CheckId("tenant", request.tenant()); !status.ok()) return status;
  if (absl::Status status = CheckStops(request); !status.ok()) return status;
  if (request.max_tokens() < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("max_tokens: expected 0 (the default) or more, found %d", request.max_tokens()));
  }
  if (request.hops() < 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("hops: expected 0 (from a client) or more, found %d", request.hops()));
  }
  if (request.accepted_prefix_size() > 0 && !request.has_tokens()) {
    return absl::InvalidArgumentError(
        "accepted_prefix: only works with tokens; send the prompt as token ids, or no prefix");
  }
  if (auto sampling = SamplingFromProto(request.sampling()); !sampling.ok()) {
    return absl::Status(sampling.status().code(), absl::StrCat("sampling: ", std::string(sampling.status().message())));
  }
  if (request.has_conversation()) return CheckConversation(request.conversation());
  if (request.input_case() == v1::GenerateRequest::INPUT_NOT_SET) {
    return absl::InvalidArgumentError("input: missing; expected conversation, prompt or tokens");
  }
  return absl::OkStatus();
}

std::string NewRequestId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

}  // namespace updraft
