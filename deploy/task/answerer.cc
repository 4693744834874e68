#include "deploy/task/answerer.h"

#include <algorithm>
#include <atomic>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/answer/detokenized_text.h"
#include "common/cockpit/answer.h"
#include "common/files/file_error.h"
#include "common/sync/mutex.h"

namespace updraft {

absl::Status AnswerOptions::Validate() const {
  if (max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrFormat("max_tokens: expected at least 1, found %d", max_tokens));
  }
  if (n_workers < 1 || n_workers > 64) {
    return absl::InvalidArgumentError(absl::StrFormat("workers: expected 1 to 64, found %d", n_workers));
  }
  return absl::OkStatus();
}

AnswerFeatures LocalAnswer::Features(std::string_view acts) const {
  AnswerShape shape;
  if (acts == "cockpit") {
    const cockpit::Parts parts = cockpit::PartsOf(text);
    shape = {.acting_bytes = parts.acting_bytes,
             .n_settings = parts.n_settings,
             .calls = parts.calls,
             .refuses = parts.refuses};
  }
  return FeaturesOf(evidence, prompt, n_layer, shape);
}

double LocalAnswer::mean_exit_layer() const {
  double layers = 0.0;
  for (const TokenEvidence& token : evidence) layers += token.exit_layer;
  return evidence.empty() ? 0.0 : layers / static_cast<double>(evidence.size());
}

absl::StatusOr<std::unique_ptr<Answerer>> Answerer::Load(const std::string& model_path, int n_threads,
                                                         const std::string& adapter, const std::string& choice) {
  auto model = Model::Load(model_path, {.n_threads = n_threads, .adapter = adapter});
  if (!model.ok()) return model.status();
  auto tokenizer = text::Tokenizer::FromGguf((*model)->file());
  if (!tokenizer.ok()) return AsFileError(tokenizer.status());
  std::unique_ptr<Answerer> answerer(new Answerer());
  auto chat_template = text::ChatTemplate::Choose((*model)->FileWith("tokenizer.chat_template"), choice);
  if (chat_template.ok()) {
    answerer->stop_tokens_ = chat_template->StopTokenIds(**tokenizer);
    answerer->chat_stops_ = chat_template->StopStrings(**tokenizer);
    answerer->chat_template_ = std::make_unique<text::ChatTemplate>(*std::move(chat_template));
  } else if (!choice.empty()) {
    return chat_template.status();
  } else if (absl::IsNotFound(chat_template.status())) {
    answerer->stop_tokens_ = (*tokenizer)->EndOfGenerationIds();
  } else {
    return AsFileError(chat_template.status());
  }
  KvPoolOptions pool_options;
  pool_options.n_blocks = (*model)->config().context_length / pool_options.block_tokens + 1;
  auto pool = KvPool::Create((*model)->ops(), (*model)->config(), pool_options);
  if (!pool.ok()) return pool.status();
  answerer->model_ = *std::move(model);
  answerer->tokenizer_ = *std::move(tokenizer);
  answerer->pool_ = *std::move(pool);
  return answerer;
}

absl::StatusOr<std::vector<int32_t>> Answerer::Render(const Conversation& conversation) const {
  if (chat_template_ != nullptr) {
    return chat_template_->RenderTokens(*tokenizer_, {.messages = conversation});
  }
  std::string plain;
  for (const text::ChatMessage& message : conversation) plain += message.content + "\n";
  return tokenizer_->Encode(plain, {});
}

absl::StatusOr<LocalAnswer> Answerer::Answer(const Conversation& conversation, const AnswerOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  auto prompt = Render(conversation);
  if (!prompt.ok()) return prompt.status();
  LocalAnswer answer;
  answer.n_layer = model_->config().n_layer;
  answer.prompt_tokens = *std::move(prompt);
  std::vector<std::string_view> user_messages;
  for (const text::ChatMessage& message : conversation) {
    if (message.role == "user") user_messages.push_back(message.content);
  }
  answer.prompt = PromptFeaturesOf(user_messages, static_cast<int>(answer.prompt_tokens.size()));

  GeneratorOptions generator_options;
  generator_options.exit_mode = options.exit_mode;
  generator_options.exit_thresholds = options.exit_thresholds;
  Generator generator(model_.get(), pool_.get(), generator_options);
  if (absl::Status status = generator.Prefill(answer.prompt_tokens); !status.ok()) return status;
  AssemblerOptions assembler_options;
  assembler_options.stops = chat_stops_;
  assembler_options.stop_tokens = stop_tokens_;
  assembler_options.max_tokens = options.max_tokens;
  AnswerAssembler assembler(std::make_unique<DetokenizedText>(tokenizer_, /*at_text_start=*/true),
                            std::move(assembler_options));
  while (assembler.end() == AnswerEnd::kOpen) {
    auto next = generator.Next();
    if (absl::IsOutOfRange(next.status())) {  // the context is full
      answer.text += assembler.Close(AnswerEnd::kLength).text;
      break;
    }
    if (!next.ok()) return next.status();
    const AnswerPiece piece = assembler.Push(next->token, next->evidence);
    answer.evidence.push_back(next->evidence);
    answer.evidence.back().text_offset = piece.evidence ? piece.evidence->text_offset : TokenEvidence::kNoText;
    answer.text += piece.text;
    if (piece.token) {
      answer.tokens.push_back(*piece.token);
    } else {
      answer.end_token = next->token;
    }
  }
  answer.finished = assembler.end() == AnswerEnd::kStop;
  return answer;
}

absl::StatusOr<std::vector<LocalAnswer>> AnswerAll(const std::string& model_path,
                                                   std::span<const Conversation> conversations,
                                                   const AnswerOptions& options, AnswerStore* store) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  const int total = static_cast<int>(conversations.size());
  std::vector<LocalAnswer> answers(conversations.size());
  std::atomic<int> next_index = 0;
  struct {
    Mutex mu;  // guards calls of on_progress and of the store, too
    absl::Status first_error ABSL_GUARDED_BY(mu);
    int done ABSL_GUARDED_BY(mu) = 0;
  } all;
  const auto fail = [&](absl::Status status) {
    MutexLock lock(all.mu);
    if (all.first_error.ok()) all.first_error = std::move(status);
    next_index = total;  // the others stop at their next conversation
  };
  const auto find = [&](int i) -> std::optional<LocalAnswer> {
    if (store == nullptr) return std::nullopt;
    MutexLock lock(all.mu);
    return store->Find(i);
  };
  const auto tell = [&](int i, bool is_new) -> absl::Status {
    MutexLock lock(all.mu);
    ++all.done;
    if (options.on_progress) options.on_progress(all.done, total);
    return is_new && store != nullptr ? store->Keep(i, answers[i]) : absl::OkStatus();
  };
  const auto work = [&] {
    auto answerer = Answerer::Load(model_path, /*n_threads=*/1, options.adapter, options.chat_template);
    if (!answerer.ok()) return fail(answerer.status());
    for (int i = next_index++; i < total; i = next_index++) {
      std::optional<LocalAnswer> found = find(i);
      const bool is_new = !found;
      absl::StatusOr<LocalAnswer> answer = is_new ? (*answerer)->Answer(conversations[i], options) : *std::move(found);
      if (answer.ok()) {
        answers[i] = *std::move(answer);
      } else if (absl::IsOutOfRange(answer.status())) {
        answers[i].n_layer = (*answerer)->model().config().n_layer;
      } else {
        return fail(absl::Status(answer.status().code(), absl::StrFormat("conversation %d of %d: %s", i + 1, total,
                                                                         std::string(answer.status().message()))));
      }
      if (absl::Status status = tell(i, is_new); !status.ok()) return fail(status);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < std::min(options.n_workers, std::max(total, 1)); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  MutexLock lock(all.mu);
  if (!all.first_error.ok()) return all.first_error;
  return answers;
}

}  // namespace updraft
