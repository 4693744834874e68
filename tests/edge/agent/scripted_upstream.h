// An upstream without a link: it plays what it is told, at once or from threads of its own.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/sync/mutex.h"
#include "edge/agent/upstream.h"

namespace updraft::testing {

class ScriptedUpstream final : public Upstream {
 public:
  enum class From : uint8_t { kCaller, kAnotherThread };  // where the listener is called from
  struct Play {
    std::vector<v1::GenerateResponse> responses;
    absl::Status end;
  };

  ScriptedUpstream(From from, std::string fingerprint, std::function<Play(const v1::GenerateRequest&)> play)
      : from_(from), fingerprint_(std::move(fingerprint)), play_(std::move(play)) {}
  ~ScriptedUpstream() override { Stop(); }

  std::shared_ptr<UpstreamCall> Generate(const v1::GenerateRequest& request, SteadyTime,
                                         std::shared_ptr<UpstreamListener> listener) override {
    auto call = std::make_shared<Call>();
    auto run = [call, listener = std::move(listener), play = play_(request)] {
      for (const v1::GenerateResponse& response : play.responses) {
        if (call->cancelled()) return listener->OnFinished(absl::CancelledError("by us"), {});
        listener->OnResponse(response);
      }
      listener->OnFinished(call->cancelled() && !play.end.ok() ? absl::CancelledError("by us") : play.end,
                           {.bytes_up = 7, .bytes_down = 9});
    };
    if (from_ == From::kCaller) {
      run();
    } else {
      MutexLock lock(mu_);
      threads_.emplace_back(std::move(run));
    }
    return call;
  }
  UpstreamIdentity Identity() const override {
    UpstreamIdentity identity;
    MutexLock lock(mu_);
    identity.tokenizer_fingerprint = fingerprint_;
    return identity;
  }
  std::optional<v1::GetStatusResponse> LastStatus() const override { return std::nullopt; }
  void ForgetFingerprint() override {
    MutexLock lock(mu_);
    fingerprint_.clear();
  }
  const std::string& address() const override { return address_; }
  void Stop() override {
    std::vector<std::thread> threads;
    {
      MutexLock lock(mu_);
      threads.swap(threads_);
    }
    for (std::thread& thread : threads) thread.join();
  }

 private:
  class Call final : public UpstreamCall {
   public:
    void Cancel() override {
      MutexLock lock(mu_);
      cancelled_ = true;
    }
    bool cancelled() {
      MutexLock lock(mu_);
      return cancelled_;
    }

   private:
    Mutex mu_;
    bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  };

  const From from_;
  const std::string address_ = "scripted";
  mutable Mutex mu_;
  std::string fingerprint_ ABSL_GUARDED_BY(mu_);
  const std::function<Play(const v1::GenerateRequest&)> play_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace updraft::testing
