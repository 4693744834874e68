#include "common/rpc/address.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace updraft {
namespace {

absl::Status Bad(std::string_view what, std::string_view text, std::string_view problem) {
  // The text may come from anywhere: bound it before repeating it.
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected HOST:PORT such as 127.0.0.1:7070 or [::1]:7070, found '%s' (%s)", std::string(what),
                      std::string(text.substr(0, 200)), std::string(problem)));
}

bool IsHostByte(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_';
}

bool IsIpv6Byte(char c) {
  return (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || (c >= '0' && c <= '9') || c == ':' || c == '.' || c == '%';
}

bool IsWildcard(const std::string& host) { return host == "0.0.0.0" || host == "::"; }

bool IsLoopback(const std::string& host) {
  return absl::EqualsIgnoreCase(host, "localhost") || absl::StartsWith(host, "127.") || host == "::1";
}

}  // namespace

std::string HostPort::ToString() const {
  return host.find(':') == std::string::npos ? absl::StrCat(host, ":", port) : absl::StrCat("[", host, "]:", port);
}

bool IsSameEndpoint(const HostPort& listening, const HostPort& target) {
  if (listening.port == 0 || listening.port != target.port) return false;
  if (absl::EqualsIgnoreCase(listening.host, target.host)) return true;
  // To connect to the address that means every interface is to connect to oneself.
  const bool to_self = IsLoopback(target.host) || IsWildcard(target.host);
  if (IsWildcard(listening.host)) return to_self;
  // One name for loopback addresses; two of the addresses are two endpoints.
  const bool by_name = absl::EqualsIgnoreCase(listening.host, "localhost") ||
                       absl::EqualsIgnoreCase(target.host, "localhost") || IsWildcard(target.host);
  return IsLoopback(listening.host) && to_self && by_name;
}

absl::StatusOr<HostPort> ParseHostPort(std::string_view text, std::string_view what, PortZero port_zero) {
  HostPort result;
  std::string_view port_text;
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return Bad(what, text, "the '[' is not closed");
    result.host = std::string(text.substr(1, close - 1));
    if (close + 1 >= text.size() || text[close + 1] != ':') return Bad(what, text, "the port is missing");
    port_text = text.substr(close + 2);
    // Without a colon it would be written, and then read, as a name.
    if (result.host.find(':') == std::string::npos ||
        !std::all_of(result.host.begin(), result.host.end(), IsIpv6Byte)) {
      return Bad(what, text, "not an IPv6 address in brackets");
    }
  } else {
    const size_t colon = text.rfind(':');
    if (colon == std::string_view::npos) return Bad(what, text, "the port is missing");
    result.host = std::string(text.substr(0, colon));
    port_text = text.substr(colon + 1);
    if (result.host.find(':') != std::string::npos) return Bad(what, text, "IPv6 addresses are written in brackets");
    if (result.host.empty()) return Bad(what, text, "the host is missing; 0.0.0.0 means every interface");
    if (!std::all_of(result.host.begin(), result.host.end(), IsHostByte)) {
      return Bad(what, text, "the host has characters that no host name has");
    }
  }
  if (port_text.empty()) return Bad(what, text, "the port is missing");
  if (port_text.size() > 5 ||
      !std::all_of(port_text.begin(), port_text.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return Bad(what, text, "the port is not a number from 0 to 65535");
  }
  for (const char c : port_text) result.port = result.port * 10 + (c - '0');
  if (result.port > 65535) return Bad(what, text, "the port is above 65535");
  if (result.port == 0 && port_zero == PortZero::kRefused) {
    return Bad(what, text, "port 0 only works for listening; write the port that the other end serves on");
  }
  return result;
}

}  // namespace updraft
