// What one client, or all together, may take of a server's memory, time and connections.
#include <gmock/gmock.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/common/http/server_fixture.h"

namespace updraft::http {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using testing::Fetch;
using ::testing::HasSubstr;
using testing::RawClient;
using testing::RawResponse;
using testing::RequestText;

TEST_F(ServerTest, LimitsAreEnforced) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  options.max_header_bytes = 2048;
  Start(options);
  EXPECT_EQ(Fetch(port(), "POST", "/echo", std::string(1000, 'x')).status, 200);
  EXPECT_EQ(Fetch(port(), "POST", "/echo", std::string(1001, 'x')).status, 413);
  EXPECT_EQ(Fetch(port(), "GET", "/hello", "", "X-Long: " + std::string(4000, 'x') + "\r\n").status, 431);
  // A declared length is refused before the body is sent.
  RawClient declared(port());
  ASSERT_TRUE(declared.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n"));
  EXPECT_THAT(declared.Receive().status, AnyOf(Eq(413), Eq(400)));
  // A chunked body is cut off as it grows.
  RawClient chunked(port());
  ASSERT_TRUE(chunked.Send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"));
  const std::string chunk = "100\r\n" + std::string(256, 'x') + "\r\n";
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(chunked.Send(chunk));
  EXPECT_EQ(chunked.Receive().status, 413);
}

// Asks until the server has room again: it learns of an end a moment after its client.
int StatusOnceThereIsRoom(int port, const std::string& body) {
  int status = 503;
  for (int attempt = 0; attempt < 200 && status == 503; ++attempt) {
    if (attempt > 0) absl::SleepFor(absl::Milliseconds(20));
    status = Fetch(port, "POST", "/echo", body).status;
  }
  return status;
}

TEST_F(ServerTest, BodiesOfAllConnectionsTogetherAreBounded) {
  ServerOptions options;
  options.max_body_bytes = 512 << 10;
  options.max_total_body_bytes = 1 << 20;
  Start(options);
  const std::string large(options.max_body_bytes, 'x');
  std::vector<std::unique_ptr<RawClient>> clients;
  std::vector<std::shared_ptr<Exchange>> held;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(std::make_unique<RawClient>(port()));
    ASSERT_TRUE(clients.back()->Send(RequestText("POST", "/later", large)));
    held.push_back(mailbox_.Take());
    ASSERT_NE(held.back(), nullptr);
  }
  RawClient third(port());
  ASSERT_TRUE(third.Send(RequestText("POST", "/echo", large)));
  const RawResponse refused = third.Receive();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, HasSubstr("1048576 bytes"));
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_TRUE(third.WaitClosed());
  EXPECT_EQ(Fetch(port(), "POST", "/echo", std::string(64 << 10, 'x')).status, 200) << "small ones get in";

  held[0]->Respond(Response{200, "text/plain", "first", {}});
  EXPECT_EQ(clients[0]->Receive().body, "first");
  EXPECT_EQ(Fetch(port(), "POST", "/echo", large).status, 503) << "the handler still has the first request";
  held[0].reset();
  EXPECT_EQ(StatusOnceThereIsRoom(port(), large), 200);
  held[1]->Respond(Response{200, "text/plain", "second", {}});
  EXPECT_EQ(clients[1]->Receive().body, "second");
}

TEST_F(ServerTest, BodiesThatAreStillArrivingCountUntilTheirClientGoes) {
  ServerOptions options;
  options.max_body_bytes = 512 << 10;
  options.max_total_body_bytes = 512 << 10;
  Start(options);
  const std::string large(options.max_body_bytes, 'x');
  // Declared alone, a body takes nothing.
  RawClient silent(port());
  ASSERT_TRUE(silent.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n"));
  EXPECT_EQ(Fetch(port(), "POST", "/echo", large).status, 200);
  // Of two bodies that arrive together either may be the one that is refused, so another is begun until one stays.
  const std::string beginning =
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n" + large.substr(300000);
  std::optional<RawClient> half;
  int status = 200;
  for (int attempt = 0; attempt < 200 && status == 200; ++attempt) {
    if (attempt % 10 == 0) {
      half.emplace(port());
      ASSERT_TRUE(half->Send(beginning));
    }
    status = Fetch(port(), "POST", "/echo", large).status;
    if (status == 503 && half->WaitFor("503", absl::Milliseconds(100))) status = 200;  // both were refused
  }
  EXPECT_EQ(status, 503);
  EXPECT_EQ(Fetch(port(), "POST", "/echo", large).status, 503) << "as long as its client is there";
  half->Close();
  EXPECT_EQ(StatusOnceThereIsRoom(port(), large), 200);
}

TEST_F(ServerTest, TheLargestBodyFitsAloneHoweverOftenItComes) {
  ServerOptions options;
  options.max_body_bytes = options.max_total_body_bytes = 2 << 20;
  Start(options);
  const std::string large(options.max_body_bytes, 'x');
  RawClient client(port());
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(client.Send(RequestText("POST", "/echo", large)));
    EXPECT_EQ(client.Receive().body.size(), large.size() + 1);
  }
  std::string chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 2; ++i) chunked += "100000\r\n" + large.substr(0, 1 << 20) + "\r\n";
  ASSERT_TRUE(client.Send(chunked + "0\r\n\r\n"));
  EXPECT_EQ(client.Receive().body.size(), large.size() + 1);
}

TEST_F(ServerTest, RefusedBodyIsStillAnsweredWhileTheClientSends) {
  ServerOptions options;
  options.max_body_bytes = 1000;
  Start(options);
  RawClient client(port());
  // Far more than the socket buffers hold: the client is still sending when the answer comes, and must not be reset
  // before it reads it.
  ASSERT_TRUE(client.Send(RequestText("POST", "/echo", std::string(8 << 20, 'x'))));
  EXPECT_EQ(client.Receive().status, 413);
}

TEST_F(ServerTest, SlowSendersAreCutOff) {
  ServerOptions options;
  options.read_timeout = absl::Milliseconds(300);
  options.idle_timeout = absl::Milliseconds(300);
  Start(options);
  RawClient idle(port());
  EXPECT_TRUE(idle.WaitClosed(absl::Seconds(10)));
  // One byte now and then does not extend the time of a request.
  RawClient slow(port());
  const absl::Time start = absl::Now();
  const std::string text = RequestText("GET", "/hello", "", "X-Pad: " + std::string(1000, 'x') + "\r\n");
  bool open = true;
  for (size_t i = 0; i < text.size() && open; ++i) {
    open = slow.Send(text.substr(i, 1)) && !slow.WaitClosed(absl::Milliseconds(20));
  }
  EXPECT_FALSE(open);
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));
  EXPECT_EQ(Fetch(port(), "GET", "/hello").status, 200);
}

TEST_F(ServerTest, SlowReaderEndsOnlyItsOwnRequest) {
  ServerOptions options;
  options.max_buffered_bytes = 64 << 10;
  Start(options);
  RawClient slow(port(), /*receive_buffer_bytes=*/4096);
  ASSERT_TRUE(slow.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  Flag gone;
  exchange->OnDisconnect([&gone] { gone.Set(); });
  exchange->StartStream(Response{200, "text/event-stream", "", {}});
  // Loopback sockets hold a few megabytes at most before the queue begins to fill.
  absl::Status status;
  const std::string piece(1000, 'x');
  size_t written = 0;
  while (status.ok() && written < (64u << 20)) {
    status = exchange->Write(piece);
    written += piece.size();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(gone.Wait());
  EXPECT_EQ(Fetch(port(), "GET", "/hello").body, "hello");
}

TEST_F(ServerTest, StalledReaderTimesOut) {
  ServerOptions options;
  options.write_timeout = absl::Milliseconds(300);
  options.max_buffered_bytes = 64 << 20;
  Start(options);
  RawClient stalled(port(), 4096);
  ASSERT_TRUE(stalled.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  Flag gone;
  exchange->OnDisconnect([&gone] { gone.Set(); });
  exchange->StartStream(Response{200, "text/event-stream", std::string(32 << 20, 'x'), {}});
  EXPECT_TRUE(gone.Wait());
}

// Their answers are whole, and nobody but the server knows of them any more.
TEST_F(ServerTest, ReadersThatStopForGoodHoldNothingForLong) {
  ServerOptions options;
  options.write_timeout = absl::Milliseconds(300);
  Start(options);
  std::vector<std::unique_ptr<RawClient>> stalled;
  for (int wave = 0; wave < 3; ++wave) {
    for (int i = 0; i < 8; ++i) {
      stalled.push_back(std::make_unique<RawClient>(port(), /*receive_buffer_bytes=*/4096));
      ASSERT_TRUE(stalled.back()->Send(RequestText("GET", "/later")));
      auto exchange = mailbox_.Take();
      ASSERT_NE(exchange, nullptr);
      exchange->Respond(Response{200, "text/plain", std::string(8 << 20, 'x'), {}});
    }
    for (int i = 0; i < 1000 && server_->n_connections() > 0; ++i) absl::SleepFor(absl::Milliseconds(20));
    EXPECT_EQ(server_->n_connections(), 0) << "are held, with what they did not read";
  }
  EXPECT_EQ(Fetch(port(), "GET", "/hello").body, "hello");
}

TEST_F(ServerTest, RequestsInProgressAreBounded) {
  ServerOptions options;
  options.max_connections = 2;
  Start(options);
  RawClient first(port()), second(port());
  ASSERT_TRUE(first.Send(RequestText("GET", "/later")));
  auto first_exchange = mailbox_.Take();
  ASSERT_TRUE(second.Send(RequestText("GET", "/later")));
  auto second_exchange = mailbox_.Take();
  RawClient third(port());
  EXPECT_EQ(third.Receive().status, 503);
  EXPECT_TRUE(third.WaitClosed());
  first_exchange->Respond(Response{200, "text/plain", "first", {}});
  second_exchange->Respond(Response{200, "text/plain", "second", {}});
  EXPECT_EQ(first.Receive().body, "first");
  EXPECT_EQ(second.Receive().body, "second");
  first.Close();
  // The freed place is usable again.
  int status = 0;
  for (int attempt = 0; attempt < 200 && status != 200; ++attempt) {
    status = Fetch(port(), "GET", "/hello").status;
    if (status != 200) absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_EQ(status, 200);
}

TEST_F(ServerTest, SilentClientsKeepNobodyOut) {
  ServerOptions options;
  options.max_connections = 4;
  Start(options);
  RawClient busy(port());
  ASSERT_TRUE(busy.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  std::vector<std::unique_ptr<RawClient>> silent;
  for (int i = 0; i < 20; ++i) {
    silent.push_back(std::make_unique<RawClient>(port()));
    if (i % 2 == 1) silent.back()->Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    EXPECT_EQ(Fetch(port(), "GET", "/hello").status, 200) << i;
  }
  EXPECT_TRUE(silent.front()->WaitClosed());
  exchange->Respond(Response{200, "text/plain", "patient", {}});
  EXPECT_EQ(busy.Receive().body, "patient");
  // One that was closed while its request was just arriving must not stay for ever.
  silent.clear();
  busy.Close();
  for (int i = 0; i < 400 && server_->n_connections() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(server_->n_connections(), 0);
}

}  // namespace
}  // namespace updraft::http
