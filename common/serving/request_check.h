// The checks of a request that depend on no model, and its id.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// Every field but what MakePrompt (served_model.h) reads as tokens: ids are short and printable (they end up in logs
// and traces), stop strings few and short, roles known, tools named and described by a JSON object each, calls and
// results only where they belong, counts not negative, sampling in range, an accepted prefix only beside token ids.
// InvalidArgument names the field, what was expected and what was found.
absl::Status CheckRequest(const v1::GenerateRequest& request);

// Of ids and of tiers' names.
inline constexpr size_t kMaxIdBytes = 128;
inline constexpr int kMaxPriority = 10;  // and -10

// Part of CheckRequest: at most kMaxIdBytes printable ASCII characters without spaces.
absl::Status CheckId(const char* field, const std::string& id);

// Whether it is a text to be gone on from, written or as ids, rather than a conversation.
inline bool IsRaw(const v1::GenerateRequest& request) {
  return request.has_prompt() || (request.has_tokens() && request.tokens().raw());
}

// Whether the answer may hold calls of tools, or has to.
inline bool MayCall(const v1::GenerateRequest& request) {
  return request.tools_size() > 0 && request.tool_choice().mode() != v1::ToolChoice::MODE_NONE;
}

// Whether what the answer looks like is the request's to say, so that it is neither held nor judged: a question in its
// place would not have that form.
inline bool HasForm(const v1::GenerateRequest& request) { return request.has_shape() || MayCall(request); }

// OutOfRange, in the words that clients of OpenAI's servers look for. context: tokens of prompt and answer together;
// found: what has how many, and what to do, e.g. "the prompt has 9000; shorten it".
absl::Status ContextExceeded(int64_t context, const std::string& found);

// 128 random bits as 32 hexadecimal digits.
std::string NewRequestId();

}  // namespace updraft
