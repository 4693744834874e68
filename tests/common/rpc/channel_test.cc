// Channels: what they may lead to, and through which proxy. A program of its own, since the environment is the
// process's.
#include "common/rpc/channel.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/server.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class StatusService final : public v1::Inference::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                      v1::GetStatusResponse* response) override {
    response->set_tier("reached");
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

int BoundSocket(int* port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  *port = ntohs(address.sin_port);
  return fd;
}

// Takes connections, remembers what they begin with, and refuses them: enough to see who comes, and what for.
class RefusingProxy {
 public:
  RefusingProxy() : fd_(BoundSocket(&port_)) {
    EXPECT_EQ(listen(fd_, 16), 0);
    thread_ = std::thread([this] {
      for (int client; (client = accept(fd_, nullptr, nullptr)) >= 0; close(client)) {
        char bytes[1024] = {};
        const ssize_t n = recv(client, bytes, sizeof(bytes) - 1, 0);
        if (n_clients_++ == 0 && n > 0) first_ = std::string(bytes, static_cast<size_t>(n));
        constexpr char kRefusal[] = "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n";
        send(client, kRefusal, sizeof(kRefusal) - 1, MSG_NOSIGNAL);
      }
    });
  }
  // Ends it, so that what it saw can be read.
  void Stop() {
    if (!thread_.joinable()) return;
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  ~RefusingProxy() { Stop(); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }
  int n_clients() const { return n_clients_; }
  const std::string& first() const { return first_; }

 private:
  int port_ = 0;
  const int fd_;
  std::atomic<int> n_clients_{0};
  std::string first_;
  std::thread thread_;
};

class ProxyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Environment("");
    auto server = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override { Environment(""); }
  // Empty: no variable is set.
  static void Environment(const std::string& proxy) {
    for (const char* name : {"grpc_proxy", "https_proxy", "http_proxy", "HTTP_PROXY", "HTTPS_PROXY"}) {
      proxy.empty() ? unsetenv(name) : setenv(name, proxy.c_str(), 1);
    }
    for (const char* name : {"no_grpc_proxy", "no_proxy"}) unsetenv(name);
  }
  // What a call through a channel with this proxy says.
  absl::StatusCode Call(const std::string& proxy) {
    auto channel = MakeChannel(server_->address(), "upstream", {.proxy = proxy});
    EXPECT_TRUE(channel.ok()) << channel.status();
    auto stub = v1::Inference::NewStub(*channel);
    grpc::ClientContext context;
    SetTimeout(context, absl::Seconds(20));
    v1::GetStatusResponse response;
    const grpc::Status status = stub->GetStatus(&context, {}, &response);
    EXPECT_EQ(response.tier() == "reached", status.ok());
    return static_cast<absl::StatusCode>(status.error_code());
  }

  StatusService service_;
  std::unique_ptr<ServerHandle> server_;
};

TEST_F(ProxyTest, TheEnvironmentIsNotFollowedUnlessTold) {
  // A port that nobody listens on: a proxy that is dead.
  int dead_port = 0;
  const int held = BoundSocket(&dead_port);
  Environment(absl::StrCat("http://127.0.0.1:", dead_port));
  EXPECT_EQ(Call(""), absl::StatusCode::kOk);
  EXPECT_EQ(Call(kProxyOfEnvironment), absl::StatusCode::kUnavailable);
  setenv("no_proxy", "127.0.0.1", 1);
  EXPECT_EQ(Call(kProxyOfEnvironment), absl::StatusCode::kOk);
  Environment("");
  EXPECT_EQ(Call(kProxyOfEnvironment), absl::StatusCode::kOk) << "names none";
  EXPECT_EQ(Call(absl::StrCat("127.0.0.1:", dead_port)), absl::StatusCode::kUnavailable);
  close(held);
}

TEST_F(ProxyTest, TheProxyOfTheFlagIsAskedForTheUpstream) {
  RefusingProxy told, others;
  Environment("http://" + others.address());
  EXPECT_EQ(Call(""), absl::StatusCode::kOk);
  EXPECT_EQ(Call(told.address()), absl::StatusCode::kUnavailable) << "it refuses";
  told.Stop();
  others.Stop();
  EXPECT_EQ(others.n_clients(), 0);
  EXPECT_GE(told.n_clients(), 1);
  EXPECT_THAT(told.first(), StartsWith(absl::StrCat("CONNECT ", server_->address(), " HTTP/1.")));
}

// In front of a server, as far away as `delay`: what a client sends gets there, and what comes back leaves here, so
// much later. Connections end with it.
class FarAway {
 public:
  FarAway(int server_port, absl::Duration delay) : fd_(BoundSocket(&port_)), server_port_(server_port), delay_(delay) {
    EXPECT_EQ(listen(fd_, 16), 0);
    acceptor_ = std::thread([this] {
      for (int client; (client = accept(fd_, nullptr, nullptr)) >= 0;) {
        pumps_.emplace_back([this, client] { Pump(client); });
      }
    });
  }
  ~FarAway() {
    ending_ = true;
    shutdown(fd_, SHUT_RDWR);
    acceptor_.join();
    for (std::thread& pump : pumps_) pump.join();
    close(fd_);
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  // Later bytes are not late any more: opening is what is asked about.
  void Pump(int client) {
    for (absl::Duration slept; slept < delay_ && !ending_; slept += absl::Milliseconds(20)) {
      absl::SleepFor(absl::Milliseconds(20));
    }
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<uint16_t>(server_port_));
    bool open = connect(server, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
    while (open && !ending_) {
      pollfd ends[] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      poll(ends, 2, /*timeout=*/20);
      for (int i = 0; i < 2; ++i) {
        if (ends[i].revents == 0) continue;
        char bytes[4096];
        const ssize_t n = recv(ends[i].fd, bytes, sizeof(bytes), 0);
        open = open && n > 0 && send(ends[1 - i].fd, bytes, static_cast<size_t>(n), MSG_NOSIGNAL) == n;
      }
    }
    close(client);
    close(server);
  }

  int port_ = 0;
  const int fd_;
  const int server_port_;
  const absl::Duration delay_;
  std::atomic<bool> ending_{false};
  std::vector<std::thread> pumps_;  // of the acceptor until it has ended
  std::thread acceptor_;
};

// Opening takes two round trips; a mobile link that is full has some of more than a second.
TEST_F(ProxyTest, AConnectionMayTakeSecondsToOpen) {
  FarAway far_away(server_->port(), absl::Milliseconds(2700));
  auto channel = MakeChannel(far_away.address(), "upstream");
  ASSERT_TRUE(channel.ok()) << channel.status();
  EXPECT_TRUE((*channel)->WaitForConnected(GrpcDeadlineAfter(absl::Seconds(20))));
}

TEST(Channel, TargetsAreCheckedBeforeUse) {
  for (const char* fine : {"localhost:1", "[::1]:7070", "cloud.example:7070", "dns:///cloud.example:7070",
                           "dns://8.8.8.8/cloud.example:7070", "unix:///run/updraft", "xds:///cloud"}) {
    const auto channel = MakeChannel(fine, "upstream");
    EXPECT_TRUE(channel.ok()) << fine << " " << channel.status();
  }
  for (const char* bad : {"", "localhost", "localhost:0", "localhost:http", "localhost:70707", ":7070",
                          "http://localhost:7070", "https://cloud.example", "grpc://cloud.example:7070", "://x:1",
                          "dns:///cloud.example", "dns:///", "a b:1", "localhost:7070/path"}) {
    const absl::Status status = MakeChannel(bad, "upstream").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), StartsWith("upstream: expected HOST:PORT")) << bad;
  }
  EXPECT_THAT(std::string(MakeChannel("http://localhost:7070", "upstream").status().message()),
              HasSubstr("found 'http://localhost:7070'; leave 'http://' and any path out"));
}

TEST(Channel, ProxiesAreCheckedBeforeUse) {
  for (const char* fine : {"", "environment", "proxy:3128", "[::1]:3128"}) {
    EXPECT_TRUE(CheckProxy(fine, "upstream_proxy").ok()) << fine;
  }
  for (const char* bad : {"proxy", "http://proxy:3128", "proxy:0", "none", "Environment"}) {
    const absl::Status status = CheckProxy(bad, "upstream_proxy");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(status.message()), StartsWith("upstream_proxy: expected HOST:PORT of an HTTP proxy"));
    EXPECT_FALSE(MakeChannel("localhost:1", "upstream", {.proxy = bad}).ok());
  }
}

}  // namespace
}  // namespace updraft
