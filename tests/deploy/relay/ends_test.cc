// How connections through the relay end when an end of theirs goes away under load: the other end is told as TCP tells
// it, and nothing of the connection stays behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include <algorithm>
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
    return Eventually([this] { return relay_->counters().open_connections == 0 && DescriptorsMore() == 0; }, 10.0);
  }
  int DescriptorsMore() const { return OpenDescriptors() - base_; }  // than before the first connection
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

// Bytes that the system of the other end has not acknowledged.
int Unacknowledged(const Socket& socket) {
  int n = -1;
  EXPECT_EQ(ioctl(socket.fd(), SIOCOUTQ, &n), 0);
  return n;
}

// Sends bytes of the seed, as many as the system of the other end takes until it has taken no more for half a second.
std::string SendUntilHeld(Socket& socket, uint64_t seed) {
  const std::string bytes = RandomBytes(16 << 20, seed);
  size_t sent = 0;
  for (auto moved = SteadyClock::now(); SecondsSince(moved) < 0.5 && sent < bytes.size();) {
    const ssize_t n = send(socket.fd(), bytes.data() + sent, std::min<size_t>(bytes.size() - sent, 8192),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<size_t>(n);
      moved = SteadyClock::now();
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  EXPECT_LT(sent, bytes.size());
  return bytes.substr(0, sent - static_cast<size_t>(Unacknowledged(socket)));
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
    options.reset_patience_s = 0.1;  // nobody reads
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

// What the relay's system had acknowledged when its sender died is the reader's, however late that reads. `writes`: the
// reader says something meanwhile, by which the relay learns of the death before it has read all.
void DiesBehindAFullWindow(bool server_dies, bool writes) {
  SCOPED_TRACE(std::string(server_dies ? "the server dies" : "the client dies") + (writes ? ", found by writing" : ""));
  RelayOptions options;
  options.window_bytes = 200'000;
  Between between(std::move(options));
  auto [client, server] = between.Connect();
  Socket& sender = server_dies ? server : client;
  Socket& reader = server_dies ? client : server;
  const std::string said = SendUntilHeld(sender, 11);
  ASSERT_GT(said.size(), 200'000u);
  CloseWithReset(sender);
  if (writes) {
    const Direction back = server_dies ? Direction::kUp : Direction::kDown;
    ASSERT_TRUE(reader.Send("x"));
    ASSERT_TRUE(Eventually([&] { return between.relay().counters().lane(back).bytes_lost == 1; }));
  }
  std::string heard;
  while (heard.size() < said.size()) {
    const std::string more = reader.Receive(std::min<size_t>(100'000, said.size() - heard.size()));
    ASSERT_FALSE(more.empty()) << "errno " << reader.error() << " after " << heard.size() << " of " << said.size();
    heard += more;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));  // a slow one
  }
  EXPECT_TRUE(heard == said);
  EXPECT_EQ(reader.End(10.0), ECONNRESET);
  reader.Close();
  EXPECT_TRUE(between.IsClean()) << between.State();
}

TEST(RelayEndsTest, WhatWasSaidIntoAFullWindowArrivesBeforeTheReset) {
  for (const bool server_dies : {true, false}) {
    for (const bool writes : {true, false}) DiesBehindAFullWindow(server_dies, writes);
  }
}

// A reader that takes nothing cannot hold up a reset for ever.
TEST(RelayEndsTest, AResetWaitsForAReaderNoLongerThanItsPatience) {
  RelayOptions options;
  options.window_bytes = 200'000;
  options.reset_patience_s = 0.2;
  Between between(std::move(options));
  auto [client, server] = between.Connect();
  SendUntilHeld(server, 12);
  CloseWithReset(server);
  ASSERT_TRUE(client.Send("x"));
  EXPECT_TRUE(Eventually([&] { return between.relay().counters().open_connections == 0; }));
  EXPECT_GT(between.relay().counters().down.bytes_lost, 0);
  EXPECT_EQ(client.End(10.0), ECONNRESET);
}

// The word of a death is on the road when the other end, too, has said its last: no good end.
TEST(RelayEndsTest, AnEndThatDiedIsNotClosedByBothEnds) {
  std::mutex mu;
  std::string end;
  RelayOptions options;
  options.road.up.delay = options.road.down.delay = StepCurve::Constant(0.2);
  options.on_connection_end = [&](const ConnectionRecord& record) {
    std::lock_guard lock(mu);
    end = record.end;
  };
  Between between(std::move(options));
  auto [client, server] = between.Connect();
  ASSERT_TRUE(client.Send("a"));
  client.HalfClose();
  ASSERT_EQ(server.Receive(2), "a");
  ASSERT_EQ(server.error(), 0);
  CloseWithReset(client);
  ASSERT_TRUE(server.Send("b"));  // finds it gone
  server.HalfClose();
  ASSERT_TRUE(Eventually([&] { return between.relay().counters().open_connections == 0; }));
  std::lock_guard lock(mu);
  EXPECT_EQ(end, "reset by an end");
  EXPECT_EQ(between.relay().counters().down.bytes_lost, 1);
}

// ---- In a blackhole -------------------------------------------------------------------------------------------------

RelayOptions BriefSilence() {
  RelayOptions options;
  options.silence_s = 0.5;
  return options;
}

TEST(RelayEndsTest, AHalfClosedConnectionInABlackholeIsLetGo) {
  for (const bool client_first : {true, false}) {
    SCOPED_TRACE(client_first ? "the client closes its half" : "the server closes its half");
    Between between(BriefSilence());
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
  Between between(BriefSilence());
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

// Both have said their last, which is on the road when that goes silent. Both wait for the other's.
std::pair<Socket, Socket> BothClosedTheirHalves(Between& between) {
  auto [client, server] = between.Connect();
  EXPECT_TRUE(client.Send("a"));
  EXPECT_EQ(server.Receive(1), "a");  // the road is open both ways
  between.relay().Stall();
  EXPECT_TRUE(client.Send("a"));
  EXPECT_TRUE(server.Send("b"));
  client.HalfClose();
  server.HalfClose();
  EXPECT_TRUE(Eventually([&] {
    return between.relay().counters().up.bytes_entered == 2 && between.relay().counters().down.bytes_entered == 1;
  }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // and the ends
  between.relay().Blackhole();
  return {std::move(client), std::move(server)};
}

TEST(RelayEndsTest, WhoClosedBothHalvesBeforeABlackholeHearsNothing) {
  Between between;
  auto [client, server] = BothClosedTheirHalves(between);
  for (Socket* end : {&client, &server}) {
    EXPECT_EQ(end->Receive(1, 0.2), "");
    EXPECT_EQ(end->error(), ETIMEDOUT);
  }
}

TEST(RelayEndsTest, BothHalvesClosedInABlackholeAreLetGo) {
  Between between(BriefSilence());
  auto [client, server] = BothClosedTheirHalves(between);
  client.Close();
  server.Close();
  EXPECT_TRUE(between.IsClean()) << between.State();
}

TEST(RelayEndsTest, OneThatDiesInABlackholeIsLetGoByItself) {
  for (const bool client_dies : {true, false}) {
    SCOPED_TRACE(client_dies ? "the client dies" : "the server dies");
    Between between;
    auto [client, server] = between.Connect();
    ASSERT_EQ(between.DescriptorsMore(), 4);
    between.relay().Blackhole();
    CloseWithReset(client_dies ? client : server);
    // The test's and the relay's; the other end's stay, and hear nothing.
    EXPECT_TRUE(Eventually([&] { return between.DescriptorsMore() == 2; }, 10.0)) << between.State();
    Socket& other = client_dies ? server : client;
    EXPECT_EQ(other.Receive(1, 0.1), "");
    EXPECT_EQ(other.error(), ETIMEDOUT);
    CloseWithReset(other);
    EXPECT_TRUE(between.IsClean()) << between.State();  // both known to be gone
  }
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
