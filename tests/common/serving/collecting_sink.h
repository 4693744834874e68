// A sink that waits, and the request that most tests of fronts and daemons ask.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/serving/backend.h"
#include "updraft/v1/inference.pb.h"

namespace updraft::testing {

// Collects one answer.
class CollectingSink final : public AnswerSink {
 public:
  absl::Status OnChunk(const v1::Chunk& chunk) override {
    std::lock_guard lock(mu_);
    EXPECT_FALSE(ended_) << "a chunk after the end";
    chunks_.push_back(chunk);
    changed_.notify_all();
    return static_cast<int>(chunks_.size()) <= accepts_ ? absl::OkStatus() : refusal_;
  }
  void OnEnd(const absl::Status& status, const v1::Done& done) override {
    std::lock_guard lock(mu_);
    EXPECT_FALSE(ended_) << "two ends";
    ended_ = true;
    status_ = status;
    done_ = done;
    changed_.notify_all();
  }

  bool Wait(absl::Duration timeout = absl::Seconds(60)) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout), [this] { return ended_; });
  }
  bool WaitForChunks(int n, absl::Duration timeout = absl::Seconds(60)) {
    std::unique_lock lock(mu_);
    return changed_.wait_for(lock, absl::ToChronoMilliseconds(timeout),
                             [this, n] { return static_cast<int>(chunks_.size()) >= n; });
  }
  // Refuses all chunks after so many, with that.
  void set_accepts(int chunks, absl::Status refusal = absl::CancelledError("the request was cancelled")) {
    accepts_ = chunks;
    refusal_ = std::move(refusal);
  }

  // After Wait.
  const absl::Status& status() const { return status_; }
  const v1::Done& done() const { return done_; }
  const v1::Provenance& provenance() const { return done_.provenance(); }
  const std::vector<v1::Chunk>& chunks() const { return chunks_; }
  std::string text() const {
    std::string text;
    for (const v1::Chunk& chunk : chunks_) text += chunk.text();
    return text;
  }
  std::vector<int32_t> tokens() const {
    std::vector<int32_t> tokens;
    for (const v1::Chunk& chunk : chunks_) tokens.insert(tokens.end(), chunk.tokens().begin(), chunk.tokens().end());
    return tokens;
  }
  std::vector<std::pair<std::string, int>> spans() const {
    std::vector<std::pair<std::string, int>> spans;
    for (const auto& span : done_.provenance().spans()) spans.emplace_back(span.tier(), span.n_tokens());
    return spans;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<v1::Chunk> chunks_;
  absl::Status status_;
  v1::Done done_;
  bool ended_ = false;
  int accepts_ = 1 << 30;
  absl::Status refusal_;
};

inline v1::GenerateRequest ChatRequest(const std::string& text, int max_tokens = 24) {
  v1::GenerateRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content(text);
  request.set_max_tokens(max_tokens);
  return request;
}

inline std::shared_ptr<CollectingSink> AskOf(Backend& backend, v1::GenerateRequest request,
                                             SteadyTime deadline = SteadyTime::InfiniteFuture()) {
  auto sink = std::make_shared<CollectingSink>();
  backend.Submit(std::move(request), deadline, sink);
  EXPECT_TRUE(sink->Wait());
  return sink;
}

}  // namespace updraft::testing
