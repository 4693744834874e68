#include "tests/common/http/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace updraft::http::testing {

RawClient::RawClient(int port, int receive_buffer_bytes) {
  fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) Close();
}

RawClient::~RawClient() { Close(); }

void RawClient::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

void RawClient::HalfClose() { shutdown(fd_, SHUT_WR); }

void RawClient::Reset() {
  const linger abort_at_once{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort_at_once, sizeof(abort_at_once));
  Close();
}

bool RawClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool RawClient::ReadMore(absl::Time deadline) {
  while (fd_ >= 0) {
    const int64_t left_ms = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left_ms <= 0) return false;
    pollfd poll_fd{fd_, POLLIN, 0};
    const int ready = poll(&poll_fd, 1, static_cast<int>(left_ms));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char bytes[16 << 10];
    const ssize_t n = recv(fd_, bytes, sizeof(bytes), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      Close();
      return false;
    }
    buffer_.append(bytes, static_cast<size_t>(n));
    return true;
  }
  return false;
}

bool RawClient::WaitFor(std::string_view text, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (buffer_.find(text) == std::string::npos) {
    if (!ReadMore(deadline)) return false;
  }
  return true;
}

bool RawClient::WaitClosed(absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  while (ReadMore(deadline)) {
  }
  return fd_ < 0;
}

RawResponse RawClient::Receive(absl::Duration timeout, bool head) {
  const absl::Time deadline = absl::Now() + timeout;
  RawResponse response;
  size_t end;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (!ReadMore(deadline)) return response;
  }
  const std::string header = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);
  const int status = header.size() > 12 ? std::atoi(header.c_str() + 9) : 0;
  if (status == 100) return Receive(deadline - absl::Now(), head);
  response.status = status;
  for (size_t at = header.find("\r\n") + 2; at < header.size();) {
    const size_t line_end = header.find("\r\n", at);
    const size_t colon = header.find(": ", at);
    response.headers[absl::AsciiStrToLower(header.substr(at, colon - at))] =
        header.substr(colon + 2, line_end - colon - 2);
    at = line_end + 2;
  }
  response.complete = true;
  if (head) return response;
  if (response.headers.count("transfer-encoding") != 0) {
    for (;;) {
      size_t line_end;
      while ((line_end = buffer_.find("\r\n")) == std::string::npos) {
        if (!ReadMore(deadline)) return response.complete = false, response;
      }
      const size_t n = std::strtoul(buffer_.c_str(), nullptr, 16);
      while (buffer_.size() < line_end + 2 + n + 2) {
        if (!ReadMore(deadline)) return response.complete = false, response;
      }
      response.body += buffer_.substr(line_end + 2, n);
      buffer_.erase(0, line_end + 2 + n + 2);
      if (n == 0) return response;
    }
  }
  if (auto length = response.headers.find("content-length"); length != response.headers.end()) {
    const size_t n = std::strtoul(length->second.c_str(), nullptr, 10);
    while (buffer_.size() < n) {
      if (!ReadMore(deadline)) return response.complete = false, response;
    }
    response.body = buffer_.substr(0, n);
    buffer_.erase(0, n);
    return response;
  }
  while (ReadMore(deadline)) {
  }
  response.body = std::exchange(buffer_, {});
  return response;
}

std::string RequestText(const std::string& method, const std::string& path, const std::string& body,
                        const std::string& headers) {
  std::string text = absl::StrFormat("%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, headers);
  if (!body.empty()) absl::StrAppendFormat(&text, "Content-Length: %d\r\n", body.size());
  return text + "\r\n" + body;
}

RawResponse Fetch(int port, const std::string& method, const std::string& path, const std::string& body,
                  const std::string& headers) {
  RawClient client(port);
  if (!client.connected() || !client.Send(RequestText(method, path, body, headers))) return {};
  return client.Receive(absl::Seconds(30), method == "HEAD");
}

}  // namespace updraft::http::testing
