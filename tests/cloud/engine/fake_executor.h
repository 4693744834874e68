// A model whose answers are a hash of the tokens it reads back through the block tables: a block that was lost, shared
// by mistake or overwritten shows as a wrong token.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "cloud/engine/executor.h"
#include "cloud/engine/request.h"

namespace updraft::engine {

inline uint64_t Mix(uint64_t hash, uint64_t value) {
  hash ^= value + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
  hash *= 0xff51afd7ed558ccdull;
  return hash ^ (hash >> 33);
}

inline int32_t NextTokenOf(std::span<const int32_t> tokens, uint64_t seed, int n_vocab) {
  uint64_t hash = Mix(0x1234, seed);
  for (const int32_t token : tokens) hash = Mix(hash, static_cast<uint64_t>(token));
  return static_cast<int32_t>(hash % static_cast<uint64_t>(n_vocab));
}

class FakeExecutor final : public Executor {
 public:
  FakeExecutor(int n_vocab, int context_length, const CoreOptions& options)
      : n_vocab_(n_vocab),
        context_length_(context_length),
        n_blocks_(options.n_blocks),
        block_tokens_(options.block_tokens),
        slots_(static_cast<size_t>(options.n_blocks) * options.block_tokens, -1) {}

  int n_vocab() const override { return n_vocab_; }
  int context_length() const override { return context_length_; }
  std::optional<KvBlocks> kv_blocks() const override {
    return KvBlocks{.n_blocks = n_blocks_, .block_tokens = block_tokens_};
  }

  absl::Status Run(const Step& step, std::span<SampledToken> sampled) override {
    const Batch& batch = step.batch;
    const std::span<const SampleRow> samples = step.samples;
    if (before_run) before_run(batch, samples);
    if (!fail_next.ok()) {
      // A device that failed keeps nothing.
      if (!absl::IsResourceExhausted(fail_next)) std::fill(slots_.begin(), slots_.end(), -1);
      return std::exchange(fail_next, absl::OkStatus());
    }
    for (const BlockMove& move : step.moves) {
      std::copy_n(slots_.begin() + static_cast<ptrdiff_t>(move.from) * block_tokens_, block_tokens_,
                  slots_.begin() + static_cast<ptrdiff_t>(move.to) * block_tokens_);
    }
    for (int t = 0; t < batch.n_tok(); ++t) Slot(batch.block_tables[t], batch.positions[t]) = batch.tokens[t];
    for (size_t i = 0; i < samples.size(); ++i) {
      const SampleRow& sample = samples[i];
      std::vector<int32_t> read(batch.positions[sample.row] + 1);
      for (size_t p = 0; p < read.size(); ++p) read[p] = Slot(batch.block_tables[sample.row], static_cast<int>(p));
      sampled[i].token = sample.given >= 0 ? sample.given : NextTokenOf(read, sample.sampling->seed, n_vocab_);
      if (sample.include_evidence) {
        sampled[i].evidence = {.exit_layer = 1, .top_prob = static_cast<float>(sample.context.tokens.size())};
      }
    }
    return absl::OkStatus();
  }

  std::function<void(const Batch&, std::span<const SampleRow>)> before_run;
  absl::Status fail_next;

 private:
  int32_t& Slot(const int32_t* table, int position) {
    return slots_[static_cast<size_t>(table[position / block_tokens_]) * block_tokens_ + position % block_tokens_];
  }

  int n_vocab_, context_length_, n_blocks_, block_tokens_;
  std::vector<int32_t> slots_;  // token stored at each position of each block
};

// Each token is one letter; token 0 is a space, so that stop strings can be met. Nothing is ever held back.
class LetterText final : public TextStream {
 public:
  static std::string Of(int32_t token) {
    return std::string(1, token == 0 ? ' ' : static_cast<char>('a' + token % 26));
  }
  std::string Push(int32_t token) override { return Of(token); }
  std::string Flush() override { return ""; }
};

// What the answer must be, computed without an engine.
struct Expected {
  std::vector<int32_t> tokens;
  std::string text;
  AnswerEnd reason = AnswerEnd::kOpen;
};

inline Expected AnswerAlone(const Request& request, int n_vocab, int context_length) {
  Expected expected;
  std::vector<int32_t> tokens = request.prompt;
  tokens.insert(tokens.end(), request.accepted_prefix.begin(), request.accepted_prefix.end());
  std::string text;  // of the whole answer, accepted prefix included
  for (const int32_t token : request.accepted_prefix) text += LetterText::Of(token);
  const size_t n_text_before = text.size();
  const auto find_stop = [&] {
    size_t first = std::string::npos;
    for (const std::string& stop : request.stop) first = std::min(first, text.find(stop));
    return first;
  };
  int n_answer = static_cast<int>(request.accepted_prefix.size());
  const auto is_stop_token = [&](int32_t token) {
    return std::count(request.stop_tokens.begin(), request.stop_tokens.end(), token) > 0;
  };
  if (std::any_of(request.accepted_prefix.begin(), request.accepted_prefix.end(), is_stop_token) ||
      find_stop() != std::string::npos) {
    expected.reason = AnswerEnd::kStop;
    return expected;
  }
  while (expected.reason == AnswerEnd::kOpen) {
    if (n_answer >= request.max_tokens || static_cast<int>(tokens.size()) >= context_length) {
      expected.reason = AnswerEnd::kLength;
      break;
    }
    const int32_t next =
        request.given.empty() ? NextTokenOf(tokens, request.sampling.seed, n_vocab) : request.given[n_answer];
    if (is_stop_token(next)) {
      expected.reason = AnswerEnd::kStop;
      break;
    }
    tokens.push_back(next);
    expected.tokens.push_back(next);
    ++n_answer;
    text += LetterText::Of(next);
    if (find_stop() != std::string::npos) expected.reason = AnswerEnd::kStop;
  }
  text.resize(std::min(text.size(), find_stop()));
  // What a tier below sent on already: all of its text but the end that might still become a stop string.
  size_t held = 0;
  for (const std::string& stop : request.stop) {
    for (size_t n = std::min(stop.size() - 1, n_text_before); n > held; --n) {
      size_t start = n_text_before - n;
      std::string before;
      for (const int32_t token : request.accepted_prefix) before += LetterText::Of(token);
      if (before.compare(start, n, stop, 0, n) == 0) held = n;
    }
  }
  const size_t sent = n_text_before - held;
  if (request.text != nullptr && text.size() > sent) expected.text = text.substr(sent);
  return expected;
}

// Records everything; refuses tokens beyond `capacity`.
class RecordingSink final : public Sink {
 public:
  bool OnTokens(const Output& output) override {
    if (static_cast<int>(tokens.size() + output.tokens.size()) > capacity) return false;
    if (n_done > 0) ++n_tokens_after_done;
    tokens.insert(tokens.end(), output.tokens.begin(), output.tokens.end());
    evidence.insert(evidence.end(), output.evidence.begin(), output.evidence.end());
    text += output.text;
    return true;
  }
  void OnDone(const absl::Status& done_status, const Summary& done_summary) override {
    ++n_done;
    status = done_status;
    summary = done_summary;
    if (on_done) on_done();
  }

  int capacity = 1 << 30;
  std::function<void()> on_done;
  std::vector<int32_t> tokens;
  std::vector<TokenEvidence> evidence;
  std::string text;
  int n_done = 0;
  int n_tokens_after_done = 0;
  absl::Status status;
  Summary summary;
};

}  // namespace updraft::engine
