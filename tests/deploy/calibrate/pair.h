// What tests of a pair have in common: files, prompts and an upstream that says what a test likes.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/sync/mutex.h"
#include "deploy/calibrate/upstream.h"
#include "deploy/task/task.h"

namespace updraft::testing {

inline std::string TempPath(const std::string& name) {
  return (std::filesystem::temp_directory_path() / ("updraft_pair_" + std::to_string(getpid()) + "_" + name)).string();
}

class TempFile {
 public:
  explicit TempFile(const std::string& name) : path_(TempPath(name)) {}
  ~TempFile() { std::filesystem::remove(path_); }
  const std::string& path() const { return path_; }
  void Write(const std::string& text) const { std::ofstream(path_, std::ios::binary) << text; }

 private:
  const std::string path_;
};

// Answers by the text, likes by the text, and may be gone.
class FakeUpstream final : public Upstream {
 public:
  std::string name() const override { return "fake"; }
  std::string identity() const override { return "fake"; }
  absl::StatusOr<UpstreamAnswer> Answer(const Conversation& conversation) override {
    MutexLock lock(mu_);
    ++n_answers_;
    if (n_answers_ > answers_until_gone) return absl::UnavailableError("nobody answers at fake:1");
    const std::string& text = answers.at(conversation.back().content);
    return UpstreamAnswer{text, text != cut_off};
  }
  absl::Status CheckSame() override { return same; }
  absl::StatusOr<Likelihood> LikelihoodOf(const Conversation&, const std::string& answer) override {
    MutexLock lock(mu_);
    ++n_likelihoods_;
    const auto found = per_token.find(answer);
    if (found == per_token.end()) return absl::UnimplementedError("it cannot say");
    return Likelihood{.n_tokens = 4, .logprob = 4 * found->second};
  }
  int n_answers() const {
    MutexLock lock(mu_);
    return n_answers_;
  }
  int n_likelihoods() const {
    MutexLock lock(mu_);
    return n_likelihoods_;
  }

  std::map<std::string, std::string> answers;
  std::map<std::string, double> per_token;
  int answers_until_gone = 1 << 30;
  std::string cut_off;  // this answer is
  absl::Status same;

 private:
  mutable Mutex mu_;
  int n_answers_ = 0, n_likelihoods_ = 0;
};

inline TaskItem Prompt(const std::string& text) {
  TaskItem item;
  item.messages = {{"user", text}};
  item.labelled = item.worded = false;
  return item;
}

inline TaskItem Labelled(const std::string& text, const std::string& expected) {
  TaskItem item;
  item.messages = {{"user", text}};
  item.expected = expected;
  return item;
}

}  // namespace updraft::testing
