#include "common/http/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "tests/common/http/raw_client.h"

namespace updraft::http {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using testing::Fetch;
using ::testing::HasSubstr;
using testing::RawClient;
using testing::RawResponse;
using testing::RequestText;

// Keeps exchanges for a test to answer when it likes.
class Mailbox {
 public:
  void Put(std::shared_ptr<Exchange> exchange) {
    std::lock_guard lock(mu_);
    exchange_ = std::move(exchange);
    changed_.notify_all();
  }
  std::shared_ptr<Exchange> Take() {
    std::unique_lock lock(mu_);
    changed_.wait_for(lock, std::chrono::seconds(20), [this] { return exchange_ != nullptr; });
    return std::exchange(exchange_, nullptr);
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::shared_ptr<Exchange> exchange_;
};

class Flag {
 public:
  void Set() {
    std::lock_guard lock(mu_);
    set_ = true;
    changed_.notify_all();
  }
  bool Wait(std::chrono::milliseconds timeout = std::chrono::seconds(20)) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, timeout, [this] { return set_; });
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool set_ = false;
};

class ServerTest : public ::testing::Test {
 protected:
  void Start(ServerOptions options = {}) {
    options.listen = "127.0.0.1:0";
    options.n_threads = 2;
    Router router;
    router.Handle("GET", "/hello", [](std::shared_ptr<Exchange> e) {
      e->Respond(Response{200, "text/plain", "hello", {{"X-Extra", "1"}}});
    });
    router.Handle("POST", "/echo", [](std::shared_ptr<Exchange> e) {
      e->Respond(Response{200, "text/plain", e->request().body + "?" + e->request().query, {}});
    });
    router.Handle("GET", "/dropped", [](std::shared_ptr<Exchange>) {});
    router.Handle("GET", "/later", [this](std::shared_ptr<Exchange> e) { mailbox_.Put(std::move(e)); });
    router.Handle("POST", "/later", [this](std::shared_ptr<Exchange> e) { mailbox_.Put(std::move(e)); });
    auto server = Server::Start(options, std::move(router));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  int port() const { return server_->port(); }

  Mailbox mailbox_;
  std::unique_ptr<Server> server_;
};

TEST_F(ServerTest, AnswersAndKeepsTheConnection) {
  Start();
  RawClient client(port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client.Send(RequestText("POST", "/echo?a=b", "body" + std::to_string(i))));
    RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.body, absl::StrFormat("body%d?a=b", i));
    EXPECT_EQ(response.headers["connection"], "keep-alive");
  }
}

TEST_F(ServerTest, AnswersPipelinedRequestsInOrder) {
  Start();
  RawClient client(port());
  std::string all;
  constexpr int kRequests = 200;
  for (int i = 0; i < kRequests; ++i) all += RequestText("POST", "/echo", std::to_string(i));
  ASSERT_TRUE(client.Send(all));
  for (int i = 0; i < kRequests; ++i) EXPECT_EQ(client.Receive().body, std::to_string(i) + "?");
}

TEST_F(ServerTest, PipelinedRequestWaitsForTheOneInProgress) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later") + RequestText("GET", "/hello")));
  auto exchange = mailbox_.Take();
  ASSERT_NE(exchange, nullptr);
  exchange->Respond(Response{200, "text/plain", "first", {}});
  EXPECT_EQ(client.Receive().body, "first");
  EXPECT_EQ(client.Receive().body, "hello");
}

TEST_F(ServerTest, HeadGetsNoBody) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("HEAD", "/hello") + RequestText("GET", "/hello")));
  RawResponse head = client.Receive(absl::Seconds(20), /*head=*/true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.headers["content-length"], "5");
  EXPECT_EQ(client.Receive().body, "hello");
}

TEST_F(ServerTest, OldClientsGetTheirStreamUntilClose) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send("GET /later HTTP/1.0\r\n\r\n"));
  auto exchange = mailbox_.Take();
  exchange->StartStream(Response{200, "text/event-stream", "a", {}});
  EXPECT_TRUE(exchange->Write("b").ok());
  exchange->Finish();
  RawResponse response = client.Receive();
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(response.body, "ab");
}

TEST_F(ServerTest, RoutesAndRefuses) {
  Start();
  EXPECT_EQ(Fetch(port(), "GET", "/hello").headers["x-extra"], "1");
  EXPECT_EQ(Fetch(port(), "GET", "/nowhere").status, 404);
  RawResponse wrong_method = Fetch(port(), "DELETE", "/hello");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_EQ(wrong_method.headers["allow"], "GET");
  RawResponse dropped = Fetch(port(), "GET", "/dropped");
  EXPECT_EQ(dropped.status, 500);
}

// RFC 9112, section 3.2.2: what clients send to a proxy, a server accepts too.
TEST_F(ServerTest, WholeUrlsAreAccepted) {
  Start();
  for (const char* target : {"http://localhost/echo?a=b", "HTTP://127.0.0.1:80/echo?a=b", "https://[::1]:7/echo?a=b"}) {
    const RawResponse response = Fetch(port(), "POST", target, "body");
    EXPECT_EQ(response.status, 200) << target;
    EXPECT_EQ(response.body, "body?a=b") << target;
  }
  for (const char* target : {"http://localhost", "http://localhost?/echo", "ftp://localhost/echo", "/http://x/echo"}) {
    EXPECT_EQ(Fetch(port(), "POST", target, "body").status, 404) << target;
  }
}

// RFC 9112, section 3.2.
TEST_F(ServerTest, HostIsNeededOnce) {
  Start();
  struct Case {
    const char* request;
    int status;
  };
  const Case cases[] = {
      {"GET /hello HTTP/1.1\r\n\r\n", 400},
      {"GET /hello HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
      {"GET /hello HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400},
      {"GET http://localhost/hello HTTP/1.1\r\n\r\n", 400},
      {"GET /hello HTTP/1.1\r\nHost:\r\n\r\n", 200},
      {"GET /hello HTTP/1.0\r\n\r\n", 200},
  };
  for (const Case& c : cases) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(c.request));
    EXPECT_EQ(client.Receive().status, c.status) << c.request;
  }
}

TEST_F(ServerTest, MalformedRequestsGet400) {
  Start();
  const std::string bad[] = {
      "NONSENSE\r\n\r\n",
      "GET /hello HTTP/9.9\r\n\r\n",
      "GET /hello\r\n\r\n",
      "GET /hello HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nwhatever",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n",
      std::string("GET /\0hello HTTP/1.1\r\nHost: x\r\n\r\n", 33),
      "\x16\x03\x01\x02",  // the start of a TLS handshake, followed by the client's end
  };
  for (const std::string& text : bad) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(text));
    client.HalfClose();
    EXPECT_EQ(client.Receive().status, 400) << text;
    EXPECT_TRUE(client.WaitClosed());
  }
  EXPECT_EQ(Fetch(port(), "GET", "/hello").status, 200);
}

TEST_F(ServerTest, ChunkedBodiesArrive) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(
      "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"));
  EXPECT_EQ(client.Receive().body, "abcde?");
}

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
  RawClient half(port());
  ASSERT_TRUE(half.Send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 524288\r\n\r\n" + large.substr(300000)));
  int status = 200;
  for (int attempt = 0; attempt < 200 && status == 200; ++attempt) {
    status = Fetch(port(), "POST", "/echo", large).status;
  }
  EXPECT_EQ(status, 503);
  half.Close();
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

TEST_F(ServerTest, ExpectContinueIsHonoured) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  ASSERT_TRUE(client.WaitFor("100 Continue"));
  ASSERT_TRUE(client.Send("ok"));
  EXPECT_EQ(client.Receive().body, "ok?");
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

TEST_F(ServerTest, StreamsChunksAsTheyAreWritten) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  exchange->StartStream(Response{200, "text/event-stream", "", {{"Cache-Control", "no-cache"}}});
  for (int i = 0; i < 5; ++i) {
    const std::string event = absl::StrFormat("data: %d\n\n", i);
    ASSERT_TRUE(exchange->Write(event).ok());
    EXPECT_TRUE(client.WaitFor(event)) << "event " << i << " was held back";
  }
  exchange->Finish();
  EXPECT_FALSE(exchange->Write("late").ok());
  RawResponse response = client.Receive();
  EXPECT_TRUE(response.complete);
  EXPECT_THAT(response.body, HasSubstr("data: 4\n\n"));
  // The connection is good for another request.
  exchange.reset();
  ASSERT_TRUE(client.Send(RequestText("GET", "/hello")));
  EXPECT_EQ(client.Receive().body, "hello");
}

TEST_F(ServerTest, DroppedStreamDoesNotLookComplete) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  exchange->StartStream(Response{200, "text/event-stream", "", {}});
  ASSERT_TRUE(exchange->Write("half").ok());
  exchange.reset();
  EXPECT_FALSE(client.Receive().complete);
}

TEST_F(ServerTest, DisconnectIsNoticedWhileNothingIsWritten) {
  Start();
  for (bool reset : {false, true}) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
    auto exchange = mailbox_.Take();
    Flag gone;
    exchange->OnDisconnect([&gone] { gone.Set(); });
    reset ? client.Reset() : client.Close();
    EXPECT_TRUE(gone.Wait());
    EXPECT_EQ(exchange->Write("x").code(), absl::StatusCode::kCancelled);
    // Asking after the fact tells at once.
    Flag again;
    exchange->OnDisconnect([&again] { again.Set(); });
    EXPECT_TRUE(again.Wait(std::chrono::milliseconds(0)));
  }
}

TEST_F(ServerTest, AnsweredExchangeNeverReportsADisconnect) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  std::atomic<bool> called{false};
  exchange->OnDisconnect([&called] { called = true; });
  exchange->Respond(Response{200, "text/plain", "done", {}});
  EXPECT_EQ(client.Receive().body, "done");
  client.Close();
  server_->Stop(absl::Seconds(5));
  EXPECT_FALSE(called);
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

TEST_F(ServerTest, StopLetsTheAnswerInProgressEnd) {
  Start();
  RawClient client(port()), idle(port());
  ASSERT_TRUE(idle.Send(RequestText("GET", "/hello")));
  EXPECT_EQ(idle.Receive().status, 200);
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  std::thread stopper([this] { server_->Stop(absl::Seconds(20)); });
  EXPECT_TRUE(idle.WaitClosed());
  exchange->Respond(Response{200, "text/plain", "last", {}});
  RawResponse response = client.Receive();
  EXPECT_EQ(response.body, "last");
  EXPECT_EQ(response.headers["connection"], "close");
  client.Close();
  stopper.join();
  EXPECT_FALSE(RawClient(port()).connected());
}

TEST_F(ServerTest, StopWithoutGraceCutsTheRest) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  Flag gone;
  exchange->OnDisconnect([&gone] { gone.Set(); });
  server_->Stop(absl::ZeroDuration());
  EXPECT_TRUE(gone.Wait(std::chrono::milliseconds(0)));
  EXPECT_TRUE(client.WaitClosed());
  server_.reset();
  EXPECT_FALSE(exchange->Write("nobody is here").ok());  // an exchange may outlive its server
}

TEST(ServerStartTest, SaysWhyItCannotListen) {
  auto holder = Server::Start({.listen = "127.0.0.1:0"}, {});
  ASSERT_TRUE(holder.ok());
  auto busy = Server::Start({.listen = absl::StrFormat("127.0.0.1:%d", (*holder)->port())}, {});
  EXPECT_EQ(busy.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(busy.status().message()), HasSubstr("in use"));
  for (const char* listen : {"", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", ":80",
                             "127.0.0.1:http", "no such host:80"}) {
    auto server = Server::Start({.listen = listen}, {});
    EXPECT_EQ(server.status().code(), absl::StatusCode::kInvalidArgument) << listen;
  }
  ServerOptions options;
  options.n_threads = 0;
  EXPECT_FALSE(Server::Start(options, {}).ok());
  options = {};
  options.max_body_bytes = options.max_total_body_bytes + 1;
  EXPECT_THAT(std::string(Server::Start(options, {}).status().message()), HasSubstr("max_total_body_bytes"));
}

// Many clients at once, some leaving in the middle, while handlers answer from other threads.
TEST_F(ServerTest, ManyClientsSomeLeaving) {
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.n_threads = 2;
  std::mutex mu;
  std::vector<std::thread> workers;
  Router router;
  router.Handle("GET", "/stream", [&](std::shared_ptr<Exchange> e) {
    std::lock_guard lock(mu);
    workers.emplace_back([e = std::move(e)] {
      e->StartStream(Response{200, "text/event-stream", "", {}});
      for (int i = 0; i < 50; ++i) {
        if (!e->Write(absl::StrFormat("data: %d\n\n", i)).ok()) return;
        if (i % 10 == 0) absl::SleepFor(absl::Milliseconds(1));
      }
      e->Finish();
    });
  });
  auto server = Server::Start(options, std::move(router));
  ASSERT_TRUE(server.ok());
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 24; ++c) {
    clients.emplace_back([&, c] {
      RawClient client((*server)->port());
      for (int round = 0; round < 4; ++round) {
        client.Send(RequestText("GET", "/stream"));
        if (c % 3 == 0) {
          client.WaitFor("data: 5");
          return client.Reset();
        }
        RawResponse response = client.Receive();
        if (response.complete && absl::StrContains(response.body, "data: 49\n\n")) ++complete;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  (*server)->Stop(absl::Seconds(5));
  for (std::thread& worker : workers) worker.join();
  EXPECT_EQ(complete, 16 * 4);
}

}  // namespace
}  // namespace updraft::http
