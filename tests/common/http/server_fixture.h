// A server on a free port whose answers a test gives when it likes.
#ifndef UPDRAFT_TESTS_COMMON_HTTP_SERVER_FIXTURE_H_
#define UPDRAFT_TESTS_COMMON_HTTP_SERVER_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <utility>

#include "common/http/server.h"
#include "tests/common/http/raw_client.h"

namespace updraft::http {

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

}  // namespace updraft::http

#endif  // UPDRAFT_TESTS_COMMON_HTTP_SERVER_FIXTURE_H_
