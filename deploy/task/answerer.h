// Answers conversations with a model in this process, the way the edge agent does: chat template, generator with its
// exits, the evidence of every token.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/decode/generator.h"
#include "common/model/model.h"
#include "common/routing/confidence.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"

namespace updraft {

using Conversation = std::vector<text::ChatMessage>;

struct AnswerOptions {
  std::string adapter;        // LoadOptions::adapter of the model; empty: none
  std::string chat_template;  // ChatTemplate::Choose; empty: the file's own
  ExitMode exit_mode = ExitMode::kOff;
  std::vector<float> exit_thresholds;  // empty: those of the file
  int max_tokens = 256;                // of an answer, at least 1
  int n_workers = 2;                   // AnswerAll: threads, each with its own Model on one core; in [1, 64]
  std::function<void(int done, int total)> on_progress;  // AnswerAll: called by one thread at a time; may be empty

  absl::Status Validate() const;
};

struct LocalAnswer {
  std::string text;
  bool finished = false;             // by an end-of-generation token; otherwise max_tokens or the context ran out
  std::optional<int32_t> end_token;  // the end-of-generation token, when finished
  std::vector<int32_t> prompt_tokens, tokens;  // tokens: without the end-of-generation token
  std::vector<TokenEvidence> evidence;         // one per token, and one for the end-of-generation token
  PromptFeatures prompt;
  int n_layer = 0;

  double mean_exit_layer() const;  // 0 without tokens
  // acts: the task whose answers act, as of the model file's updraft.acts; empty: the answer is text.
  AnswerFeatures Features(std::string_view acts) const;
};

// Answers of an earlier run, which was broken off. Called by one thread at a time.
class AnswerStore {
 public:
  virtual ~AnswerStore() = default;
  virtual std::optional<LocalAnswer> Find(int i) = 0;
  virtual absl::Status Keep(int i, const LocalAnswer& answer) = 0;
};

// One model with what it needs to talk. Not thread-safe.
class Answerer {
 public:
  // Errors of Model::Load, of the tokenizer and of what was chosen as chat template (ChatTemplate::Choose; empty: the
  // file's own). A file without one is given the contents of the messages, line by line.
  static absl::StatusOr<std::unique_ptr<Answerer>> Load(const std::string& model_path, int n_threads,
                                                        const std::string& adapter = "",
                                                        const std::string& chat_template = "");

  absl::StatusOr<LocalAnswer> Answer(const Conversation& conversation, const AnswerOptions& options);

  // The conversation as the model reads it.
  absl::StatusOr<std::vector<int32_t>> Render(const Conversation& conversation) const;

  const Model& model() const { return *model_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  const std::vector<int32_t>& stop_tokens() const { return stop_tokens_; }  // any of them ends an answer
  KvPool& pool() { return *pool_; }

 private:
  Answerer() = default;

  std::unique_ptr<Model> model_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<text::ChatTemplate> chat_template_;  // null: the file has none
  std::vector<int32_t> stop_tokens_;
  std::vector<std::string> chat_stops_;
  std::unique_ptr<KvPool> pool_;
};

// All answers, in the order of the conversations. The first error ends it and names the conversation. A conversation
// that does not fit the context gets an empty, unfinished answer: that is the model's failure, not the caller's. store:
// what it has is not made again, what is made is kept there; null: none.
absl::StatusOr<std::vector<LocalAnswer>> AnswerAll(const std::string& model_path,
                                                   std::span<const Conversation> conversations,
                                                   const AnswerOptions& options, AnswerStore* store = nullptr);

}  // namespace updraft
