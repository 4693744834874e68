// What a server answers, streams and refuses, and how it ends.
#include <gmock/gmock.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "tests/common/http/server_fixture.h"

namespace updraft::http {
namespace {

using testing::Fetch;
using ::testing::HasSubstr;
using testing::RawClient;
using testing::RawResponse;
using testing::RequestText;

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

// It sees heads alone: nothing of a body is read, or asked for, on the word of somebody who is refused.
TEST_F(ServerTest, TheGateDecidesByTheHead) {
  Router router;
  std::atomic<int> n_handled{0};
  router.set_gate([](const Request& head) {
    EXPECT_EQ(head.body, "");
    Verdict verdict;
    if (!head.header("x-refuse").empty()) verdict.answer = Response{403, "text/plain", "no", {}};
    if (head.method == "OPTIONS") verdict.answer = Response{200, "text/plain", "", {}};
    verdict.headers = {{"X-Gate", head.authority.empty() ? head.path : head.authority}};
    return verdict;
  });
  router.Handle("POST", "/echo", [&](std::shared_ptr<Exchange> e) {
    ++n_handled;
    e->StartStream(Response{200, "text/plain", "", {}});
    EXPECT_TRUE(e->Write(e->request().body).ok());
    e->Finish();
  });
  ServerOptions options;
  options.listen = "127.0.0.1:0";
  options.max_body_bytes = 1000;
  auto server = Server::Start(options, std::move(router));
  ASSERT_TRUE(server.ok()) << server.status();
  const int port = (*server)->port();
  RawClient client(port);
  ASSERT_TRUE(client.Send(RequestText("OPTIONS", "/echo") + RequestText("POST", "/echo", "words")));
  RawResponse response = client.Receive();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.headers["x-gate"], "/echo");
  response = client.Receive();
  EXPECT_EQ(response.body, "words") << "the connection goes on behind an answer of the gate";
  EXPECT_EQ(response.headers["x-gate"], "/echo");
  EXPECT_EQ(n_handled, 1);
  RawClient waits(port);
  ASSERT_TRUE(
      waits.Send("POST http://a.b:1/echo HTTP/1.1\r\nHost: a\r\nX-Refuse: 1\r\nExpect: 100-continue\r\n"
                 "Content-Length: 5\r\n\r\n"));
  ASSERT_TRUE(waits.WaitFor("\r\n\r\n"));
  response = waits.Receive();
  EXPECT_EQ(response.status, 403);
  EXPECT_EQ(response.headers["x-gate"], "a.b:1");
  EXPECT_EQ(response.headers["connection"], "close") << "what follows is the body that nobody reads";
  EXPECT_EQ(n_handled, 1);
  EXPECT_EQ(Fetch(port, "GET", "/none").headers["x-gate"], "/none");
  EXPECT_EQ(Fetch(port, "POST", "/echo", std::string(1001, 'x')).headers["x-gate"], "/echo") << "413";
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

TEST_F(ServerTest, ExpectContinueIsHonoured) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  ASSERT_TRUE(client.WaitFor("100 Continue"));
  ASSERT_TRUE(client.Send("ok"));
  EXPECT_EQ(client.Receive().body, "ok?");
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

// The client's end comes with its request, or while it waits.
TEST_F(ServerTest, AHalfClosedClientGetsItsWholeAnswer) {
  Start();
  for (const bool stream : {false, true}) {
    RawClient client(port());
    ASSERT_TRUE(client.Send(RequestText("GET", "/later") + RequestText("GET", "/hello")));
    client.HalfClose();
    auto exchange = mailbox_.Take();
    Flag gone;
    exchange->OnDisconnect([&gone] { gone.Set(); });
    // Not seen before the end was: what is sent then passes the client by.
    if (stream) {
      exchange->StartStream(Response{200, "text/plain", "", {}}, [] { return "-"; });
      ASSERT_TRUE(exchange->Write("one,").ok());
      ASSERT_TRUE(client.WaitFor("one,"));
      ASSERT_TRUE(exchange->Write("two").ok());
      exchange->Finish();
    } else {
      ASSERT_TRUE(client.WaitFor("100 Continue"));
      exchange->Respond(Response{200, "text/plain", "one,two", {}});
    }
    const RawResponse response = client.Receive();
    EXPECT_EQ(response.status, 200);
    EXPECT_TRUE(response.complete);
    EXPECT_EQ(absl::StrReplaceAll(response.body, {{"-", ""}}), "one,two");
    EXPECT_EQ(client.Receive().body, "hello") << "the request behind it";
    EXPECT_TRUE(client.WaitClosed());
    EXPECT_FALSE(gone.Wait(std::chrono::milliseconds(0)));
  }
}

TEST_F(ServerTest, AHalfClosedClientThatGoesIsNoticed) {
  Start({.silence = absl::Milliseconds(20)});
  for (const bool stream : {false, true}) {
    for (const bool reset : {false, true}) {
      RawClient client(port());
      ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
      auto exchange = mailbox_.Take();
      Flag gone;
      exchange->OnDisconnect([&gone] { gone.Set(); });
      if (stream) exchange->StartStream(Response{200, "text/plain", "", {}}, [] { return "-"; });
      client.HalfClose();
      ASSERT_TRUE(client.WaitFor(stream ? "1\r\n-\r\n" : "100 Continue"));
      reset ? client.Reset() : client.Close();
      EXPECT_TRUE(gone.Wait()) << stream << reset;
    }
  }
}

// HTTP/1.0 knows no answer before the answer, so nothing would tell that its client has gone.
TEST_F(ServerTest, AHalfClosedClientOfHttp10HasGone) {
  Start();
  RawClient client(port());
  ASSERT_TRUE(client.Send("GET /later HTTP/1.0\r\n\r\n"));
  auto exchange = mailbox_.Take();
  Flag gone;
  exchange->OnDisconnect([&gone] { gone.Set(); });
  client.HalfClose();
  EXPECT_TRUE(gone.Wait());
}

TEST_F(ServerTest, SilenceIsFilled) {
  Start({.silence = absl::Milliseconds(10)});
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  exchange->StartStream(Response{200, "text/event-stream", "", {}}, [] { return ": still here\n\n"; });
  ASSERT_TRUE(client.WaitFor(": still here\n\n"));
  ASSERT_TRUE(exchange->Write("data: 1\n\n").ok());
  ASSERT_TRUE(client.WaitFor("data: 1\n\n\r\ne\r\n: still here\n\n"));
  ASSERT_TRUE(client.WaitFor(": still here\n\n\r\ne\r\n: still here\n\n"));
  exchange->Finish();
  const RawResponse response = client.Receive();
  EXPECT_TRUE(response.complete);
  EXPECT_EQ(absl::StrReplaceAll(response.body, {{": still here\n\n", ""}}), "data: 1\n\n");
  // What is not streamed is waited for in silence, and so is a stream that has no filler.
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  exchange = mailbox_.Take();
  EXPECT_FALSE(client.WaitFor("HTTP/1.1", absl::Milliseconds(50)));
  exchange->StartStream(Response{200, "text/event-stream", "", {}});
  EXPECT_FALSE(client.WaitFor("\r\n\r\n1", absl::Milliseconds(50)));
  exchange->Finish();
  EXPECT_EQ(client.Receive().body, "");
}

TEST_F(ServerTest, WithoutALimitSilenceLasts) {
  Start({.silence = absl::ZeroDuration()});
  RawClient client(port());
  ASSERT_TRUE(client.Send(RequestText("GET", "/later")));
  auto exchange = mailbox_.Take();
  exchange->StartStream(Response{200, "text/event-stream", "", {}}, [] { return ": still here\n\n"; });
  EXPECT_FALSE(client.WaitFor(": still here", absl::Milliseconds(50)));
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
  options.silence = absl::Seconds(-1);
  EXPECT_THAT(std::string(Server::Start(options, {}).status().message()), HasSubstr("silence"));
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
