// Plain blocking sockets with deadlines, and a server that gives each connection a thread: what tests of the relay
// put at its two ends.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace updraft::relay::testing {

using SteadyClock = std::chrono::steady_clock;
inline double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

inline std::string RandomBytes(size_t n, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::string bytes(n, '\0');
  for (char& c : bytes) c = static_cast<char>(rng());
  return bytes;
}

inline constexpr double kPatience_s = 30.0;  // of every wait: far longer than anything takes

// Until `done` or the patience is over; whether it is.
template <typename Done>
bool Eventually(Done done, double patience_s = kPatience_s) {
  const auto start = SteadyClock::now();
  while (!done()) {
    if (SecondsSince(start) > patience_s) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Owns a connected descriptor; -1: none.
class Socket {
 public:
  explicit Socket(int fd = -1) : fd_(fd) {
    const int one = 1;
    if (fd_ >= 0) setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  }
  ~Socket() { Close(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      Close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  // To 127.0.0.1; error() tells why not.
  static Socket Connect(int port) {
    Socket made(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(port));
    if (connect(made.fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) made.error_ = errno;
    return made;
  }

  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n < 0) {
        error_ = errno;
        return false;
      }
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // Up to `n` bytes, as many as come before the end, an error or the deadline. error(): 0 at the end, the errno, or
  // ETIMEDOUT.
  std::string Receive(size_t n, double patience_s = kPatience_s) {
    const auto start = SteadyClock::now();
    std::string bytes;
    error_ = 0;
    while (bytes.size() < n) {
      pollfd wait{fd_, POLLIN, 0};
      const int left_ms = static_cast<int>(1e3 * (patience_s - SecondsSince(start)));
      if (left_ms <= 0 || poll(&wait, 1, left_ms) == 0) {
        error_ = ETIMEDOUT;
        break;
      }
      char buffer[16384];
      const ssize_t got = recv(fd_, buffer, std::min(sizeof(buffer), n - bytes.size()), 0);
      if (got < 0) error_ = errno;
      if (got <= 0) break;
      bytes.append(buffer, static_cast<size_t>(got));
    }
    return bytes;
  }
  // Waits until the connection ends, and tells how: 0 or an errno.
  int End(double patience_s = kPatience_s) {
    Receive(~size_t{0} >> 1, patience_s);
    return error_;
  }

  void HalfClose() { shutdown(fd_, SHUT_WR); }
  void Close() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  int fd() const { return fd_; }
  int error() const { return error_; }

 private:
  int fd_ = -1;
  int error_ = 0;
};

// Runs `serve` for each connection on a thread of its own.
class Server {
 public:
  explicit Server(std::function<void(Socket)> serve) : serve_(std::move(serve)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(listener_, 1024), 0);
    EXPECT_EQ(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] {
      while (true) {
        const int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (fd < 0) return;
        std::lock_guard lock(mu_);
        threads_.emplace_back([this, fd] { serve_(Socket(fd)); });
      }
    });
  }
  ~Server() {
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    for (std::thread& thread : threads_) thread.join();
  }

  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  std::function<void(Socket)> serve_;
  int listener_ = -1, port_ = 0;
  std::thread acceptor_;
  std::mutex mu_;
  std::vector<std::thread> threads_;
};

// Sends back what comes, until the end.
inline void Echo(Socket socket) {
  while (true) {
    const std::string bytes = socket.Receive(1);
    if (bytes.empty() || !socket.Send(bytes)) return;
    char buffer[65536];
    ssize_t n;
    while ((n = recv(socket.fd(), buffer, sizeof(buffer), MSG_DONTWAIT)) > 0) {
      if (!socket.Send(std::string_view(buffer, static_cast<size_t>(n)))) return;
    }
  }
}

// A client of an Echo whose connection works.
inline Socket ConnectToEcho(int port) {
  Socket client = Socket::Connect(port);
  EXPECT_TRUE(client.Send("a"));
  EXPECT_EQ(client.Receive(1), "a");
  return client;
}

}  // namespace updraft::relay::testing
