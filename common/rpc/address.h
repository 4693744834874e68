// Addresses as people write them in flags and configuration files.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace updraft {

struct HostPort {
  std::string host;  // name, IPv4, or IPv6 without brackets
  int port = 0;      // 0: any free port (only for listening)

  std::string ToString() const;  // IPv6 in brackets
};

enum class PortZero { kAllowed, kRefused };

// Parses HOST:PORT or [IPv6]:PORT. `what` names the flag or field in errors, e.g. "listen". InvalidArgument says what
// was expected, what was found and what to write instead. Use kAllowed for addresses to listen on.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text, std::string_view what, PortZero port_zero);

// Whether a server that listens on `listening` gets what is sent to `target`, as far as the two can tell without asking
// the network: false is no promise.
bool IsSameEndpoint(const HostPort& listening, const HostPort& target);

}  // namespace updraft
