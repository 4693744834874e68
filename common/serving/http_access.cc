#include "common/serving/http_access.h"

#include <arpa/inet.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/http/openai.h"

namespace updraft {
namespace {

using http::Request;
using http::Response;
namespace openai = http::openai;

constexpr size_t kMaxShown = 200;  // bytes of a header's value in a message
constexpr char kPreflightAge_s[] = "600";

std::string Shown(std::string_view value) { return std::string(value.substr(0, kMaxShown)); }

// HOST or HOST:PORT as in a URL, in lower case.
struct Authority {
  std::string host;  // an IPv6 address without its brackets
  std::string port;  // digits; empty: the scheme's
  bool bracketed = false;

  friend bool operator==(const Authority&, const Authority&) = default;
};

std::optional<Authority> ParseAuthority(std::string_view text) {
  Authority authority;
  std::string_view rest;
  if (text.starts_with('[')) {
    text.remove_prefix(1);
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    authority.bracketed = true;
    authority.host = absl::AsciiStrToLower(std::string(text.substr(0, close)));
    rest = text.substr(close + 1);
    if (!rest.empty() && rest.front() != ':') return std::nullopt;
  } else {
    const size_t colon = std::min(text.find(':'), text.size());
    authority.host = absl::AsciiStrToLower(std::string(text.substr(0, colon)));
    rest = text.substr(colon);
    const bool known = std::all_of(authority.host.begin(), authority.host.end(), [](unsigned char c) {
      return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
    });
    if (!known) return std::nullopt;
    if (authority.host.ends_with('.')) authority.host.pop_back();  // the name written in full
  }
  if (authority.host.empty()) return std::nullopt;
  authority.port = std::string(rest.substr(std::min<size_t>(1, rest.size())));
  if (authority.port.size() > 5 || !std::all_of(authority.port.begin(), authority.port.end(), absl::ascii_isdigit)) {
    return std::nullopt;
  }
  return authority;
}

bool IsAddress(const Authority& authority) {
  in6_addr parsed;
  if (!authority.bracketed) return inet_pton(AF_INET, authority.host.c_str(), &parsed) == 1;
  return inet_pton(AF_INET6, authority.host.substr(0, authority.host.find('%')).c_str(), &parsed) == 1;
}

// What a name is compared by: .localhost is nobody's to register (RFC 6761).
bool IsLoopbackName(std::string_view host) { return host == "localhost" || host.ends_with(".localhost"); }

struct Origin {
  std::string scheme;
  Authority authority;  // port empty where it is the scheme's own

  std::string Normalized() const {
    const std::string host = authority.bracketed ? absl::StrCat("[", authority.host, "]") : authority.host;
    return absl::StrCat(scheme, "://", host, authority.port.empty() ? "" : ":", authority.port);
  }
};

void DropDefaultPort(std::string_view scheme, Authority& authority) {
  if (scheme == "http" && authority.port == "80") authority.port.clear();
  if (scheme == "https" && authority.port == "443") authority.port.clear();
}

std::optional<Origin> ParseOrigin(std::string_view text) {
  const size_t mark = text.find("://");
  if (mark == std::string_view::npos || mark == 0) return std::nullopt;
  Origin origin{absl::AsciiStrToLower(std::string(text.substr(0, mark))), {}};
  const bool known = std::all_of(origin.scheme.begin(), origin.scheme.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '+' || c == '-' || c == '.';
  });
  auto authority = ParseAuthority(text.substr(mark + 3));
  if (!known || !authority) return std::nullopt;
  origin.authority = *std::move(authority);
  DropDefaultPort(origin.scheme, origin.authority);
  return origin;
}

// A page of this server's own: it came from where it sends to. Whether by TLS only a proxy before this server knows.
bool IsSameOrigin(std::string_view origin, std::string_view host) {
  const auto from = ParseOrigin(origin);
  auto to = ParseAuthority(host);
  if (!from || !to || (from->scheme != "http" && from->scheme != "https")) return false;
  DropDefaultPort(from->scheme, *to);
  return from->authority == *to;
}

bool IsJson(std::string_view content_type) {
  std::string type = absl::AsciiStrToLower(std::string(content_type.substr(0, content_type.find(';'))));
  absl::StripAsciiWhitespace(&type);
  return type == "application/json";
}

bool IsPreflight(const Request& head) {
  return head.method == "OPTIONS" && !head.header("access-control-request-method").empty();
}

// Whatever headers the page means to send: clients have many of their own (OpenAI's: x-stainless-...).
Response PreflightAnswer(const Request& head) {
  Response response{200, "text/plain", "", {{"Access-Control-Allow-Methods", "GET, POST"}}};
  const std::string_view asked = head.header("access-control-request-headers");
  const bool known = std::all_of(asked.begin(), asked.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
  });
  if (known && !asked.empty()) response.headers.emplace_back("Access-Control-Allow-Headers", std::string(asked));
  // Of pages from public addresses that speak to private ones.
  if (head.header("access-control-request-private-network") == "true") {
    response.headers.emplace_back("Access-Control-Allow-Private-Network", "true");
  }
  response.headers.emplace_back("Access-Control-Max-Age", kPreflightAge_s);
  return response;
}

absl::StatusOr<std::string> HostRule(const std::string& name) {
  if (name == "*") return name;
  const bool below = name.starts_with("*.");
  const auto host = ParseAuthority(std::string_view(name).substr(below ? 2 : 0));
  if (host && host->port.empty() && !name.ends_with(':')) return absl::StrCat(below ? "*." : "", host->host);
  return absl::InvalidArgumentError(
      absl::StrFormat("allow_host: expected a host's name without scheme and port, such as car.example.com, or "
                      "*.example.com for all below it, or * for any; found '%s'",
                      Shown(name)));
}

absl::StatusOr<std::string> OriginRule(const std::string& origin) {
  if (origin == "*" || origin == "null") return origin;
  if (const auto parsed = ParseOrigin(origin)) return parsed->Normalized();
  return absl::InvalidArgumentError(absl::StrFormat(
      "allow_origin: expected SCHEME://HOST[:PORT] without a path, such as https://console.example.com, "
      "or null for pages that have none, or * for any; found '%s'",
      Shown(origin)));
}

}  // namespace

absl::StatusOr<HttpAccess> HttpAccess::Make(const HttpAccessOptions& options) {
  HttpAccess access;
  for (const std::string& name : options.hosts) {
    auto rule = HostRule(name);
    if (!rule.ok()) return rule.status();
    access.hosts_.push_back(*std::move(rule));
  }
  for (const std::string& origin : options.origins) {
    auto rule = OriginRule(origin);
    if (!rule.ok()) return rule.status();
    access.origins_.push_back(*std::move(rule));
  }
  return access;
}

bool HttpAccess::AllowsHost(std::string_view host) const {
  const auto parsed = ParseAuthority(host);
  if (!parsed) return std::find(hosts_.begin(), hosts_.end(), "*") != hosts_.end();
  if (IsAddress(*parsed) || IsLoopbackName(parsed->host)) return true;
  return std::any_of(hosts_.begin(), hosts_.end(), [&](std::string_view rule) {
    if (rule.starts_with('*')) return parsed->host.ends_with(rule.substr(1));
    return parsed->host == rule;
  });
}

bool HttpAccess::AllowsOrigin(std::string_view origin) const {
  const auto parsed = ParseOrigin(origin);
  return std::any_of(origins_.begin(), origins_.end(), [&](const std::string& rule) {
    return rule == "*" || (parsed ? rule == parsed->Normalized() : rule == "null" && origin == "null");
  });
}

absl::Status HttpAccess::CheckHost(const Request& head) const {
  for (const std::string_view host : {head.header("host"), std::string_view(head.authority)}) {
    if (host.empty() || AllowsHost(host)) continue;
    const auto parsed = ParseAuthority(host);
    return openai::FieldError(
        "Host",
        absl::StrFormat("expected localhost, an IP address or a name that this server was told of, found '%s'; if that "
                        "is its name, start it with --allow-host %s",
                        Shown(host), parsed ? Shown(parsed->host) : "NAME"),
        absl::StatusCode::kPermissionDenied);
  }
  return absl::OkStatus();
}

absl::Status HttpAccess::CheckOrigin(const Request& head) const {
  const std::string_view origin = head.header("origin");
  if (origin.empty() || AllowsOrigin(origin) || IsSameOrigin(origin, head.header("host"))) return absl::OkStatus();
  const bool can_be = origin == "null" || ParseOrigin(origin);
  return openai::FieldError(
      "Origin",
      absl::StrFormat("expected this server's own pages or an origin that it was told of, found '%s'; if its pages may "
                      "use this server, start it with --allow-origin %s",
                      Shown(origin), can_be ? Shown(origin) : "ORIGIN"),
      absl::StatusCode::kPermissionDenied);
}

absl::Status HttpAccess::Check(const Request& head) const {
  if (absl::Status status = CheckHost(head); !status.ok()) return status;
  if (absl::Status status = CheckOrigin(head); !status.ok()) return status;
  const std::string_view type = head.header("content-type");
  if (head.method != "POST" || head.header("origin").empty() || IsJson(type)) return absl::OkStatus();
  return openai::FieldError(
      "Content-Type",
      absl::StrFormat("expected application/json, since the request has an Origin, found '%s'", Shown(type)));
}

http::Verdict HttpAccess::Grant(const Request& head) const {
  http::Verdict verdict;
  // An answer that is kept somewhere must not be taken for another origin's.
  if (!origins_.empty()) verdict.headers.emplace_back("Vary", "Origin");
  const std::string_view origin = head.header("origin");
  if (origin.empty() || !AllowsOrigin(origin)) return verdict;
  verdict.headers.emplace_back("Access-Control-Allow-Origin", std::string(origin));
  verdict.headers.emplace_back("Access-Control-Expose-Headers", "X-Request-Id, Retry-After, Retry-After-Ms");
  if (IsPreflight(head)) verdict.answer = PreflightAnswer(head);
  return verdict;
}

}  // namespace updraft
