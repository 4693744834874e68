// The tokens of one sequence and how far each has run: what the generator's strategies work on.
//
// How early exit keeps the KV cache exact. Layers are cut into segments at the exits. Each position that is not
// finished (a "row") remembers the boundary it stands at and its hidden state there. A row runs a segment only together
// with every earlier row that has not run it, so K and V of a layer are always complete below a row that reads them,
// and since no row depends on its company in a batch, all bits are those of a pass that ran every layer for every
// token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"

namespace updraft {

// What a pass needs and leaves nothing of worth in. Sequences that run in turn on one thread may share one.
struct RowsWorkspace {
  // In the model's memory.
  Scratch scratch;
  kernels::Buffer logits;  // [>= n_rows, n_vocab]

  std::vector<float> staging;  // where a device's logits are copied to
};

// Not thread-safe; the model, and the pool it was given, must outlive it. Passes of the model that go wrong are told by
// EndStep; until then LogitsOfLast is empty.
class SequenceRows {
 public:
  static constexpr size_t kAllRows = std::numeric_limits<size_t>::max();

  // boundaries: 0, layer counts of the exits in use, n_layer; ascending. workspace: null: its own.
  SequenceRows(const Model* model, KvPool* pool, std::vector<int> boundaries,
               std::shared_ptr<RowsWorkspace> workspace = nullptr)
      : model_(model),
        pool_(pool),
        boundaries_(std::move(boundaries)),
        kv_(pool),
        workspace_(workspace ? std::move(workspace) : std::make_shared<RowsWorkspace>()) {}

  const std::vector<int32_t>& tokens() const { return tokens_; }
  int n_segments() const { return static_cast<int>(boundaries_.size()) - 1; }
  int layers_after(int segment) const { return boundaries_[segment + 1]; }
  size_t n_rows() const { return rows_.size(); }
  int last_segment() const { return rows_.back().segment; }  // segments that the last row has run
  bool LastRowFinished() const { return !rows_.empty() && rows_.back().segment == n_segments(); }
  // Whether the last row's next token is to come from all layers: it has run them, or had before a fault.
  bool LastRowIsDeep() const { return LastRowFinished() || (!rows_.empty() && rows_.back().again); }

  // Room for the keys and values of n_tokens; ResourceExhausted when the pool has none.
  absl::Status Reserve(size_t n_tokens) { return kv_.Reserve(static_cast<int>(n_tokens)); }
  void Append(int32_t token);
  void ShrinkTo(size_t n_tokens);  // forgets later positions; what is left keeps its rows
  void RewindLast();               // makes the last position run again, so that its logits can be had anew

  // Runs segment `segment` for all rows that stand at its start; after the last one only the last `n_wanted` rows have
  // a state. REQUIRES: room is reserved.
  void RunSegment(int segment, size_t n_wanted = kAllRows);
  // All segments for all rows.
  void RunDeep(size_t n_wanted = kAllRows);
  // Head of exit `exit` (-1: the final head) for the last n_rows rows: [n_rows, n_vocab], the host's to read and change
  // until the next call, of whoever shares the workspace. Empty: a fault.
  std::span<float> LogitsOfLast(int exit, int n_rows);

  // Where a step begins whose sequence has n_tokens tokens (those appended on trial not counted), so that a fault in it
  // can be undone: positions before first_row are finished.
  struct Mark {
    size_t n_tokens = 0;
    size_t first_row = 0;
    bool is_deep = false;  // the last row then
  };
  Mark BeginStep(size_t n_tokens) const;
  // OK, or the fault that the step had (step_status.h): then the sequence is what it was, and rows that were not
  // finished run anew.
  absl::Status EndStep(const Mark& mark);

 private:
  // A position whose KV is not complete in all layers, or the last one of a deep pass, whose hidden state is still
  // wanted.
  struct Row {
    int segment = 0;     // segments run so far: it stands at boundaries_[segment]
    bool again = false;  // had run all before a fault
  };

  void GrowHidden();  // to hold rows_
  void KeepLast();
  // Of rows_ [first, first + n): an address in the model's memory.
  std::span<float> HiddenOf(size_t first, size_t n) const;

  const Model* model_;
  KvPool* pool_;
  std::vector<int> boundaries_;
  SequenceKv kv_;
  std::vector<int32_t> tokens_;
  size_t first_row_ = 0;   // position of rows_[0]; all positions before it are finished
  std::vector<Row> rows_;  // positions [first_row_, tokens_.size()); segments never increase

  kernels::Buffer hidden_;  // [>= rows_.size(), d_model], each row at its boundary; in the model's memory
  const std::shared_ptr<RowsWorkspace> workspace_;

  // Of the batch at hand.
  std::vector<int32_t> positions_, wanted_;
  std::vector<const int32_t*> block_tables_;
};

}  // namespace updraft
