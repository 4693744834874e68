// A model whose answers are a hash of the tokens it reads back through the block tables: a block that was lost, shared
// by mistake or overwritten shows as a wrong token. It can leave rows half-run and decline to choose.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "common/engine/core.h"

namespace updraft::engine {

inline int32_t NextTokenOf(std::span<const int32_t> tokens, int n_vocab) {
  uint64_t hash = 0x1234;
  for (const int32_t token : tokens) {
    hash ^= static_cast<uint64_t>(token) + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
    hash *= 0xff51afd7ed558ccdull;
    hash ^= hash >> 33;
  }
  return static_cast<int32_t>(hash % static_cast<uint64_t>(n_vocab));
}

// The whole sequence, as it comes out alone.
inline std::vector<int32_t> SequenceAlone(const SequenceSpec& spec, int n_vocab) {
  std::vector<int32_t> tokens = spec.tokens;
  while (static_cast<int>(tokens.size()) < spec.n_total_max) tokens.push_back(NextTokenOf(tokens, n_vocab));
  return tokens;
}

class FakeModel {
 public:
  FakeModel(const CoreOptions& options, int n_vocab)
      : n_vocab_(n_vocab),
        block_tokens_(options.block_tokens),
        slots_(static_cast<size_t>(options.n_blocks) * options.block_tokens, -1) {}

  // How many rows of a run become complete (default: all); how many of the choices are made (default: all).
  std::function<int(const RowRun&)> n_complete = [](const RowRun& run) { return run.n_rows; };
  std::function<int(const RowRun&)> n_chosen = [](const RowRun& run) { return run.n_sampled; };

  // As a device that failed: every block, and every half-run row, is gone.
  void LoseAll() {
    std::fill(slots_.begin(), slots_.end(), -1);
    half_run_.clear();
  }

  // The spans of the result are valid until the next call.
  StepResult Run(const Work& work) {
    for (const BlockMove& move : work.moves) {
      std::copy_n(slots_.begin() + static_cast<ptrdiff_t>(move.from) * block_tokens_, block_tokens_,
                  slots_.begin() + static_cast<ptrdiff_t>(move.to) * block_tokens_);
    }
    sampled_.clear();
    complete_.clear();
    for (const RowRun& run : work.rows) RunOne(run);
    return {.status = absl::OkStatus(), .sampled = sampled_, .n_complete = complete_};
  }

 private:
  int32_t& Slot(const RowRun& run, int position) {
    return slots_[static_cast<size_t>(run.blocks[position / block_tokens_]) * block_tokens_ + position % block_tokens_];
  }

  void RunOne(const RowRun& run) {
    constexpr int32_t kHalf = -7;
    // What the core no longer counts as half-run is void.
    std::map<int, int32_t> continued;
    for (int i = 0; i < run.n_continued; ++i) {
      const auto at = half_run_[run.ticket].find(run.first + i);
      if (at == half_run_[run.ticket].end()) {
        ADD_FAILURE() << "row " << run.first + i << " of " << run.ticket << " was never begun";
        continue;
      }
      EXPECT_EQ(at->second, run.tokens[at->first]) << "a half-run row has become another token's";
      continued.insert(*at);
    }
    half_run_[run.ticket] = continued;
    ASSERT_EQ(static_cast<int>(run.tokens.size()), run.first + run.n_rows);
    ASSERT_GE(static_cast<int>(run.blocks.size()) * block_tokens_, run.first + run.n_rows);
    // A row that has not chosen is not done with.
    const int n = n_chosen(run);
    const int done = std::min(n_complete(run), run.n_rows - run.n_sampled + n);
    for (int i = 0; i < run.n_rows; ++i) {
      const int position = run.first + i;
      Slot(run, position) = i < done ? run.tokens[position] : kHalf;
      if (i < done) {
        half_run_[run.ticket].erase(position);
      } else {
        half_run_[run.ticket][position] = run.tokens[position];
      }
    }
    complete_.push_back(done);
    // Every choice reads all before it, half-run rows from the model's own memory.
    std::vector<int32_t> read;
    for (int p = 0; p < run.first + run.n_rows; ++p) {
      const auto at = half_run_[run.ticket].find(p);
      read.push_back(at != half_run_[run.ticket].end() ? at->second : Slot(run, p));
    }
    for (int i = 0; i < run.n_sampled; ++i) {
      const size_t n_read = read.size() - run.n_sampled + i + 1;
      sampled_.push_back(i < n ? NextTokenOf(std::span<const int32_t>(read).first(n_read), n_vocab_) : kNoToken);
    }
  }

  const int n_vocab_, block_tokens_;
  std::vector<int32_t> slots_;  // token stored at each position of each block
  std::map<Ticket, std::map<int, int32_t>> half_run_;
  std::vector<int32_t> sampled_, complete_;
};

inline std::vector<int32_t> SomeTokens(int n, uint64_t seed, int n_vocab) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>((seed * 7 + i * 13) % n_vocab));
  return tokens;
}

}  // namespace updraft::engine
