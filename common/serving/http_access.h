// Who may speak to the HTTP front from a browser. A page of anywhere can send requests to a server on its reader's
// machine or network; what holds it back is what browsers say of it in Host and Origin, once a server looks.
//
// Host: a page whose own name is made to resolve to this server (DNS rebinding) counts as of the same origin and could
// read everything; its requests carry that name. An IP address cannot be rebound: a page from that address came from
// there. So addresses, localhost and configured names pass, others do not.
// Origin (WHATWG Fetch, section 3.2): who sends it must be this server's own page or a configured origin. Programs send
// none. A request with one needs a JSON body, since browsers send forms and text without asking first.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/http/server.h"

namespace updraft {

struct HttpAccessOptions {
  std::vector<std::string> hosts = {};    // names; *.SUFFIX: all below it; *: any
  std::vector<std::string> origins = {};  // SCHEME://HOST[:PORT]; null: pages without one (files, sandboxes); *: any
};

// Immutable: any thread may ask.
class HttpAccess {
 public:
  HttpAccess() = default;  // loopback and addresses
  // InvalidArgument names the configuration field (allow_host, allow_origin), what was expected and what was found.
  static absl::StatusOr<HttpAccess> Make(const HttpAccessOptions& options);

  // PermissionDenied names the header, what was expected, what was found and the flag. A request without the header (of
  // HTTP/1.0, or of a program) passes.
  absl::Status CheckHost(const http::Request& head) const;
  absl::Status CheckOrigin(const http::Request& head) const;

  // Both, and that the body of a page is JSON: InvalidArgument (415) names Content-Type.
  absl::Status Check(const http::Request& head) const;

  // For a request that passed: a configured origin's preflight is answered, and what else it sends gets the headers
  // that let its page read the answer.
  http::Verdict Grant(const http::Request& head) const;

 private:
  bool AllowsHost(std::string_view host) const;
  bool AllowsOrigin(std::string_view origin) const;  // a configured one

  std::vector<std::string> hosts_ = {};    // in lower case
  std::vector<std::string> origins_ = {};  // as Normalized
};

}  // namespace updraft
