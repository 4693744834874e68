// How connections through the relay end when an end of theirs goes away under load: the other end is told as TCP tells
// it, and nothing of the connection stays behind.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "deploy/relay/relay.h"
#include "tests/deploy/relay/sockets.h"

namespace updraft::relay {
namespace {

using testing::Echo;
using testing::Eventually;
using testing::RandomBytes;
using testing::SecondsSince;
using testing::Server;
using testing::Socket;
using testing::SteadyClock;

int OpenDescriptors() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

// A relay to a server that keeps what it accepts for the test to use.
class Between {
 public:
  explicit Between(RelayOptions options = {}) : server_([this](Socket socket) { Take(std::move(socket)); }) {
    options.to = server_.address();
    auto relay = Relay::Start(std::move(options));
    EXPECT_TRUE(relay.ok()) << relay.status();
    relay_ = *std::move(relay);
    base_ = OpenDescriptors();
  }

  // Both ends of a new connection: who connected, and the server's.
  std::pair<Socket, Socket> Connect() {
    Socket client = Socket::Connect(relay_->port());
    std::unique_lock lock(mu_);
    EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(30), [this] { return taken_.fd() >= 0; }));
    return {std::move(client), std::move(taken_)};
  }

  // Nothing is left of any connection: neither the relay's sockets nor the test's.
  bool IsClean() {
    return Eventually([this] { return relay_->counters().open_connections == 0 && OpenDescriptors() == base_; }, 10.0);
  }
  std::string State() const {
    const RelayCounters counters = relay_->counters();
    return std::to_string(counters.open_connections) + " connections open, " + std::to_string(OpenDescriptors()) +
           " descriptors where there were " + std::to_string(base_);
  }
  Relay& relay() { return *relay_; }

 private:
  void Take(Socket socket) {
    std::lock_guard lock(mu_);
    taken_ = std::move(socket);
    came_.notify_all();
  }

  std::mutex mu_;
  std::condition_variable came_;
  Socket taken_;
  Server server_;
  std::unique_ptr<Relay> relay_;
  int base_ = 0;
};

void CloseWithReset(Socket& socket) {
  const linger reset{1, 0};
  setsockopt(socket.fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  socket.Close();
}

void GiveUpSending(Socket& socket, int seconds) {
  const timeval patience{seconds, 0};
  setsockopt(socket.fd(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

// Sends what fits for so long.
void Fill(const std::vector<Socket*>& sockets, double seconds) {
  const std::string bytes(64 << 10, 'x');
  for (const auto start = SteadyClock::now(); SecondsSince(start) < seconds;) {
    bool sent = false;
    for (Socket* socket : sockets) {
      sent |= send(socket->fd(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    }
    if (!sent) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// One end sends more than the other reads; the other dies. `to_server`: which way they were sent.
void DiesUnderLoad(bool to_server, bool reads_first) {
  SCOPED_TRACE(std::string(to_server ? "up" : "down") + (reads_first ? ", some was read" : ", nothing was read"));
  RelayOptions options;
  options.window_bytes = 200'000;
  Between between(std::move(options));
  for (int round = 0; round < 10; ++round) {
    auto [client, server] = between.Connect();
    Socket& sender = to_server ? client : server;
    Socket& reader = to_server ? server : client;
    Fill({&sender}, 0.1);
    if (reads_first) {
      ASSERT_EQ(reader.Receive(50'000).size(), 50'000u);
    }
    CloseWithReset(reader);
    ASSERT_EQ(sender.End(10.0), ECONNRESET) << "round " << round;
    sender.Close();
  }
  EXPECT_TRUE(between.IsClean()) << between.State();
  EXPECT_EQ(between.relay().counters().connections_reset, 0);  // not the road's doing
}

TEST(RelayEndsTest, AnEndThatDiesUnderLoadIsToldByResetAndLetGo) {
  for (const bool to_server : {true, false}) {
    for (const bool reads_first : {true, false}) DiesUnderLoad(to_server, reads_first);
  }
}

// The everyday case: closed without a word while more is coming, and the sender goes on sending.
TEST(RelayEndsTest, AnEndThatLeavesADownloadIsToldByReset) {
  Between between;
  for (int round = 0; round < 10; ++round) {
    auto [client, server] = between.Connect();
    Socket& reader = client;
    Socket& sender = server;
    GiveUpSending(sender, 10);
    std::thread sending([&sender] {
      const std::string bytes(16 << 10, 'y');
      for (const auto start = SteadyClock::now(); SecondsSince(start) < 10.0 && sender.Send(bytes);) {
      }
    });
    EXPECT_EQ(reader.Receive(1'000'000).size(), 1'000'000u);
    reader.Close();
    sending.join();
    // EPIPE where the reader happened to have read all that had come: then its end is told first.
    EXPECT_THAT(sender.error(), ::testing::AnyOf(ECONNRESET, EPIPE)) << "round " << round;
  }
  EXPECT_TRUE(between.IsClean()) << between.State();
}

TEST(RelayEndsTest, FullWindowsBothWaysDoNotHoldWhatIsDead) {
  for (const bool server_first : {true, false}) {
    SCOPED_TRACE(server_first ? "the server dies" : "the client dies");
    RelayOptions options;
    options.window_bytes = 200'000;
    Between between(std::move(options));
    for (int round = 0; round < 5; ++round) {
      auto [client, server] = between.Connect();
      Fill({&client, &server}, 0.2);
      CloseWithReset(server_first ? server : client);
      Socket& other = server_first ? client : server;
      // Before it reads or writes anything.
      pollfd wait{other.fd(), 0, 0};
      ASSERT_EQ(poll(&wait, 1, 10'000), 1) << "not told, round " << round;
      ASSERT_EQ(other.End(10.0), ECONNRESET) << "round " << round;
      other.Close();
    }
    EXPECT_TRUE(between.IsClean()) << between.State();
  }
}

// Both die, one after the other, before the first one's word has come through.
TEST(RelayEndsTest, BothEndsMayDieUnderLoad) {
  RelayOptions options;
  options.window_bytes = 200'000;
  Between between(std::move(options));
  for (int round = 0; round < 10; ++round) {
    auto [client, server] = between.Connect();
    Fill({&client, &server}, 0.1);
    CloseWithReset(round % 2 == 0 ? server : client);
    CloseWithReset(round % 2 == 0 ? client : server);
  }
  EXPECT_TRUE(between.IsClean()) << between.State();
}

// Its answer was sent before, and is on the road when the word comes that it takes no more.
TEST(RelayEndsTest, WhatAnEndSaidBeforeItWentStillArrives) {
  RelayOptions options;
  options.road.up.delay = options.road.down.delay = StepCurve::Constant(0.2);
  Between between(std::move(options));
  auto [client, server] = between.Connect();
  const std::string answer = RandomBytes(100'000, 1);
  ASSERT_TRUE(client.Send("a"));
  ASSERT_EQ(server.Receive(1), "a");
  GiveUpSending(client, 10);
  std::thread sending([fd = client.fd()] {  // not by the Socket, which reads meanwhile
    for (const auto start = SteadyClock::now(); SecondsSince(start) < 10.0 && send(fd, "b", 1, MSG_NOSIGNAL) == 1;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // some are on their way to it when it goes
  EXPECT_TRUE(server.Send(answer));
  EXPECT_TRUE(Eventually([&] { return between.relay().counters().down.bytes_entered == 100'000; }));
  server.Close();
  EXPECT_EQ(client.Receive(answer.size()), answer);
  sending.join();  // told that nobody takes it
  client.Close();
  EXPECT_TRUE(between.IsClean()) << between.State();
}

TEST(RelayEndsTest, AHalfClosedConnectionInABlackholeIsLetGo) {
  for (const bool client_first : {true, false}) {
    SCOPED_TRACE(client_first ? "the client closes its half" : "the server closes its half");
    Between between;
    auto [client, server] = between.Connect();
    Socket& half = client_first ? client : server;
    Socket& other = client_first ? server : client;
    ASSERT_TRUE(half.Send("a"));
    half.HalfClose();
    ASSERT_EQ(other.Receive(2), "a");
    ASSERT_EQ(other.error(), 0);
    between.relay().Blackhole();
    EXPECT_EQ(half.Receive(1, 0.1), "");
    EXPECT_EQ(half.error(), ETIMEDOUT);  // silence
    half.Close();
    other.Close();
    EXPECT_TRUE(between.IsClean()) << between.State();
  }
}

// Who closes a half in the silence hears no end of the other, as little as anything else.
TEST(RelayEndsTest, AHalfClosedInABlackholeHearsNothing) {
  Between between;
  auto [client, server] = between.Connect();
  between.relay().Blackhole();
  client.HalfClose();
  EXPECT_EQ(client.Receive(1, 0.2), "");
  EXPECT_EQ(client.error(), ETIMEDOUT);
  server.Close();
  EXPECT_EQ(client.End(10.0), ECONNRESET);  // not an end that would make whole what is not
  client.Close();
  EXPECT_TRUE(between.IsClean()) << between.State();
}

// Both have said their last, which is still on the road.
TEST(RelayEndsTest, BothHalvesClosedInABlackholeAreLetGo) {
  RelayOptions options;
  options.road.up.delay = options.road.down.delay = StepCurve::Constant(0.1);
  Between between(std::move(options));
  auto [client, server] = between.Connect();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  between.relay().Stall();
  ASSERT_TRUE(client.Send("a"));
  ASSERT_TRUE(server.Send("b"));
  client.HalfClose();
  server.HalfClose();
  ASSERT_TRUE(Eventually([&] {
    return between.relay().counters().up.bytes_entered == 1 && between.relay().counters().down.bytes_entered == 1;
  }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  between.relay().Blackhole();
  client.Close();
  server.Close();
  EXPECT_TRUE(between.IsClean()) << between.State();
}

// ---- The port -------------------------------------------------------------------------------------------------------

// Somebody who takes the port while the relay refuses, as sockets that may be reused allow.
TEST(RelayEndsTest, APortThatWasTakenMeanwhileIsTakenBack) {
  Server server(Echo);
  auto relay = Relay::Start({.to = server.address()});
  ASSERT_TRUE(relay.ok()) << relay.status();
  const int port = (*relay)->port();
  (*relay)->Cut();
  Socket thief(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  setsockopt(thief.fd(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  ASSERT_EQ(bind(thief.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(listen(thief.fd(), 1), 0);
  (*relay)->Restore();  // and cannot listen
  (*relay)->Cut();      // nor bind
  (*relay)->Restore();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  thief.Close();
  EXPECT_TRUE(Eventually(
      [port] {
        Socket client = Socket::Connect(port);
        return client.error() == 0 && client.Send("a") && client.Receive(1) == "a";
      },
      10.0));
}

}  // namespace
}  // namespace updraft::relay
