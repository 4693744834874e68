#include "common/serving/request_check.h"

#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "common/decode/evidence.h"
#include "common/http/json.h"
#include "common/rpc/convert.h"
#include "common/serving/shapes.h"

namespace updraft {
namespace {

constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 128;
constexpr int kMaxTools = 128;  // and calls of one message
constexpr size_t kMaxToolNameBytes = 64;
constexpr size_t kMaxToolsBytes = 64 << 10;  // all of them

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

absl::Status FieldError(const std::string& field, const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", message));
}

absl::Status CheckToolName(const std::string& field, const std::string& name) {
  const bool known = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
  });
  if (known && !name.empty() && name.size() <= kMaxToolNameBytes) return absl::OkStatus();
  return FieldError(field, absl::StrFormat("expected 1 to %d of A-Z a-z 0-9 _ -, found %s", kMaxToolNameBytes,
                                           known ? absl::StrCat(name.size()) : "others"));
}

// A wish that is not known here may be a promise, such as that the request goes nowhere: it is not passed over.
absl::Status CheckValues(const v1::GenerateRequest& request) {
  const auto unknown = [](const char* field, const char* expected, int found) {
    return FieldError(field,
                      absl::StrFormat("expected %s, found %d, which this version does not know", expected, found));
  };
  if (!v1::TierChoice_IsValid(request.tier())) {
    return unknown("tier", "0 (the policy decides), 1 (only here) or 2 (only upstream)", request.tier());
  }
  const v1::ToolChoice::Mode mode = request.tool_choice().mode();
  if (v1::ToolChoice::Mode_IsValid(mode)) return absl::OkStatus();
  return unknown("tool_choice.mode", "0 (the model decides), 1 (none), 2 (required) or 3 (a shape)", mode);
}

// A shape and the mode that says so belong together: without the mode an older tier would pass over the shape.
absl::Status CheckShapeOf(const v1::GenerateRequest& request) {
  const bool asked = request.tool_choice().mode() == v1::ToolChoice::MODE_SHAPE;
  if (!asked && !request.has_shape()) return absl::OkStatus();
  if (!asked) return FieldError("shape", "only works with tool_choice.mode MODE_SHAPE");
  if (!request.has_shape()) return FieldError("shape", "missing; tool_choice.mode says that there is one");
  if (request.tools_size() > 0) return FieldError("shape", "does not work with tools; leave one of them out");
  if (request.has_given()) return FieldError("shape", "does not work with given: that answer is there already");
  return CheckShape(request.shape());
}

absl::Status CheckTools(const v1::GenerateRequest& request) {
  if (request.tools_size() > kMaxTools) {
    return FieldError("tools", absl::StrFormat("expected at most %d, found %d", kMaxTools, request.tools_size()));
  }
  if (request.tools_size() > 0 && request.input_case() == v1::GenerateRequest::kPrompt) {
    return FieldError("tools", "only work with a conversation; a prompt is the text as it is");
  }
  std::set<std::string> names;
  size_t n_bytes = 0;
  for (int i = 0; i < request.tools_size(); ++i) {
    const v1::Tool& tool = request.tools(i);
    const std::string field = absl::StrFormat("tools[%d]", i);
    if (absl::Status status = CheckToolName(field + ".name", tool.name()); !status.ok()) return status;
    if (!names.insert(tool.name()).second) {
      return FieldError(field + ".name", absl::StrFormat("'%s' is there twice", tool.name()));
    }
    n_bytes += tool.ByteSizeLong();
    if (n_bytes > kMaxToolsBytes) {
      return FieldError("tools", absl::StrFormat("expected at most %d bytes together, found more", kMaxToolsBytes));
    }
    if (tool.parameters().empty()) continue;
    const absl::StatusOr<http::Json> schema = http::ParseJson(tool.parameters());
    if (!schema.ok()) return FieldError(field + ".parameters", std::string(schema.status().message()));
    if (!schema->is_object()) {
      return FieldError(field + ".parameters",
                        absl::StrFormat("expected a JSON object, found %s", http::JsonTypeName(*schema)));
    }
  }
  const v1::ToolChoice& choice = request.tool_choice();
  const bool required = choice.mode() == v1::ToolChoice::MODE_REQUIRED;
  if (required && names.empty()) return FieldError("tool_choice", "asks for a call, but there are no tools");
  if (!choice.name().empty() && !(required && names.count(choice.name()) > 0)) {
    return FieldError("tool_choice.name", "expected the name of one of the tools, with MODE_REQUIRED");
  }
  return absl::OkStatus();
}

// What of a message has to do with tools; whether the model has any is the model's to say.
absl::Status CheckToolFields(const std::string& field, const v1::Message& message) {
  const std::string& role = message.role();
  if (message.tool_calls_size() > 0 && role != "assistant") {
    return FieldError(field + ".tool_calls", "only an assistant calls tools");
  }
  if (message.tool_calls_size() > kMaxTools) {
    return FieldError(field + ".tool_calls",
                      absl::StrFormat("expected at most %d, found %d", kMaxTools, message.tool_calls_size()));
  }
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    const v1::ToolCall& call = message.tool_calls(i);
    const std::string name = absl::StrFormat("%s.tool_calls[%d]", field, i);
    if (call.id().empty()) return FieldError(name + ".id", "missing; the result refers to it");
    if (absl::Status status = CheckId((name + ".id").c_str(), call.id()); !status.ok()) return status;
    if (absl::Status status = CheckToolName(name + ".name", call.name()); !status.ok()) return status;
  }
  if (role == "tool") {
    if (message.tool_call_id().empty()) return FieldError(field + ".tool_call_id", "missing; expected the call's id");
    if (absl::Status status = CheckId((field + ".tool_call_id").c_str(), message.tool_call_id()); !status.ok()) {
      return status;
    }
    return message.name().empty() ? absl::OkStatus() : CheckToolName(field + ".name", message.name());
  }
  if (!message.tool_call_id().empty()) return FieldError(field + ".tool_call_id", "only of a message of role tool");
  if (!message.name().empty()) return FieldError(field + ".name", "only of a message of role tool");
  return absl::OkStatus();
}

absl::Status CheckConversation(const v1::Conversation& conversation) {
  if (conversation.messages_size() == 0) {
    return absl::InvalidArgumentError("conversation: is empty; expected at least one message");
  }
  for (int i = 0; i < conversation.messages_size(); ++i) {
    const v1::Message& message = conversation.messages(i);
    const std::string& role = message.role();
    if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
      return absl::InvalidArgumentError(
          absl::StrFormat("conversation.messages[%d].role: expected system, user, assistant or tool, found '%s'", i,
                          role.substr(0, 80)));
    }
    const std::string field = absl::StrFormat("conversation.messages[%d]", i);
    if (absl::Status status = CheckToolFields(field, message); !status.ok()) return status;
  }
  // Nothing was said: a model would make something up, and a car would do it.
  const v1::Message& last = conversation.messages(conversation.messages_size() - 1);
  if (last.role() != "tool" && absl::StripAsciiWhitespace(last.content()).empty()) {
    return absl::InvalidArgumentError("conversation: the last message is empty; expected something to answer");
  }
  return absl::OkStatus();
}

// What is there already is neither ended nor shaped by what is for answers that are made up.
absl::Status CheckGiven(const v1::GenerateRequest& request) {
  const std::pair<const char*, bool> unused[] = {
      {"stop", request.stop_size() > 0}, {"max_tokens", request.max_tokens() > 0}, {"tools", request.tools_size() > 0}};
  for (const auto& [field, found] : unused) {
    if (found) return FieldError(field, "does not work with given: that answer ends where it ends; leave it out");
  }
  if (!request.given().has_conversation()) {
    return FieldError("given.conversation", "missing; expected what is answered");
  }
  if (request.given().conversation().has_continue_final_message()) {
    return FieldError("given.conversation.continue_final_message", "does not work with given: it begins an answer");
  }
  if (absl::Status status = CheckConversation(request.given().conversation()); !status.ok()) {
    return FieldError("given", std::string(status.message()));
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
  if (request.parse_special() && !request.has_prompt()) {
    return absl::InvalidArgumentError(
        "parse_special: only works with prompt: control tokens of a conversation are the chat template's, and token "
        "ids "
        "need none; leave it out");
  }
  if (auto sampling = SamplingFromProto(request.sampling()); !sampling.ok()) {
    return absl::Status(sampling.status().code(), absl::StrCat("sampling: ", std::string(sampling.status().message())));
  }
  if (request.priority() < -kMaxPriority || request.priority() > kMaxPriority) {
    return FieldError("priority",
                      absl::StrFormat("expected %d to %d, found %d", -kMaxPriority, kMaxPriority, request.priority()));
  }
  if (request.top_logprobs() < 0 || request.top_logprobs() > kMaxTopLogprobs) {
    return FieldError("top_logprobs",
                      absl::StrFormat("expected 0 to %d, found %d", kMaxTopLogprobs, request.top_logprobs()));
  }
  if (request.top_logprobs() > 0 && !request.include_evidence() && !request.has_given()) {
    return FieldError("top_logprobs", "only works with include_evidence");
  }
  if (absl::Status status = CheckValues(request); !status.ok()) return status;
  if (absl::Status status = CheckTools(request); !status.ok()) return status;
  if (absl::Status status = CheckShapeOf(request); !status.ok()) return status;
  if (request.has_conversation()) return CheckConversation(request.conversation());
  if (request.has_given()) return CheckGiven(request);
  if (request.input_case() == v1::GenerateRequest::INPUT_NOT_SET) {
    const bool has_others = !request.GetReflection()->GetUnknownFields(request).empty();
    return FieldError("input", absl::StrFormat("%s; expected conversation, prompt or tokens",
                                               has_others ? "of a kind that this version does not know" : "missing"));
  }
  return absl::OkStatus();
}

absl::Status ContextExceeded(int64_t context, const std::string& found) {
  return absl::OutOfRangeError(
      absl::StrFormat("This model's maximum context length is %d tokens. However, %s", context, found));
}

std::string NewRequestId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x%08x%08x", random(), random(), random(), random());
}

}  // namespace updraft
