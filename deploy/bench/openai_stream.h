// A blocking client of one OpenAI-compatible server, just enough to time streamed completions.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace updraft {

struct HttpTarget {
  std::string host;
  std::string port;
  std::string base_path;  // "/v1"
};

// "http://HOST:PORT[/v1]"; https is refused by name.
absl::StatusOr<HttpTarget> ParseHttpTarget(const std::string& url);

// Id of the first model of GET {base}/models.
absl::StatusOr<std::string> FirstModel(const HttpTarget& target, absl::Duration timeout);

// POSTs `body` (with "stream": true) to {base}/completions; `on_data` gets the payload of every SSE event but [DONE].
absl::Status StreamCompletion(const HttpTarget& target, const std::string& body, absl::Duration timeout,
                              const std::function<void(const std::string& json)>& on_data);

// Whether the payload of an event brings text of a completion. Any bytes are accepted.
bool CarriesText(const std::string& event);

}  // namespace updraft
