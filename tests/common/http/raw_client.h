// A TCP client that sends exactly the bytes a test wants, well-formed or not, and reads HTTP/1.1 answers.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace updraft::http::testing {

struct RawResponse {
  int status = 0;                              // 0: the connection ended before a whole answer came
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;                            // chunks joined
  bool complete = false;                       // all of the body arrived
};

class RawClient {
 public:
  // Connects to 127.0.0.1. receive_buffer_bytes > 0 makes a client that the kernel buffers little for.
  explicit RawClient(int port, int receive_buffer_bytes = 0);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool connected() const { return fd_ >= 0; }
  bool Send(std::string_view bytes);
  // Reads one answer; head: no body follows (HEAD). Interim answers (100) are skipped.
  RawResponse Receive(absl::Duration timeout = absl::Seconds(20), bool head = false);
  // Waits until `text` has been received (headers and chunk framing included); false when the time is up or the
  // connection ended.
  bool WaitFor(std::string_view text, absl::Duration timeout = absl::Seconds(20));
  // Whether the server closes the connection within `timeout`.
  bool WaitClosed(absl::Duration timeout = absl::Seconds(20));
  void HalfClose();
  void Close();
  // Closes with a reset rather than an orderly end.
  void Reset();

 private:
  bool ReadMore(absl::Time deadline);
  int fd_ = -1;
  std::string buffer_;
};

// One request on a connection of its own. headers: whole lines, each with CRLF.
RawResponse Fetch(int port, const std::string& method, const std::string& path, const std::string& body = "",
                  const std::string& headers = "");
std::string RequestText(const std::string& method, const std::string& path, const std::string& body = "",
                        const std::string& headers = "");

}  // namespace updraft::http::testing
