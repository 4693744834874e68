// Which sequences get how many rows in the next step. A pure function of queue, blocks and time: no model, no clock, no
// memory.
//
// Policy, after Orca (Yu et al. 2022: iteration-level batching), vLLM (Kwon et al. 2023: preemption by recomputing) and
// Sarathi (Agrawal et al. 2023: chunked prefill beside decode rows):
//  * Requests start strictly in order of arrival; a large one at the head is waited for, never overtaken.
//  * Every decoding sequence gets its row; prefill shares what is left of the budget, oldest first.
//  * When an older sequence needs a block and none is free, the youngest running one is preempted: it gives up all its
//  blocks and
//    goes back to the head of the queue. A youngest one that needs a block itself just waits for a step.
//  * So the oldest sequence always advances, and a request that fits the pool alone always finishes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/time/time.h"

namespace updraft::engine {

struct SchedulerOptions {
  int max_running = 64;       // sequences in one step, >= 1
  int max_step_tokens = 512;  // rows in one step, >= max_running
};

// A sequence as far as scheduling goes.
struct SequenceView {
  uint64_t ticket = 0;   // unique; ascending in order of arrival
  int n_tokens = 0;      // prompt and answer so far
  int n_computed = 0;    // of these, how many have their KV; < n_tokens. 0 for waiting sequences
  int n_blocks = 0;      // held
  int n_releasable = 0;  // of these, how many become free when it lets go (not shared)
  absl::Time deadline = absl::InfiniteFuture();
};

struct SchedulerState {
  std::span<const SequenceView> running;  // ascending tickets
  std::span<const SequenceView> waiting;  // ascending tickets, all above those of `running`
  int n_free_blocks = 0;
  int block_tokens = 1;
  absl::Time now;
};

struct PlannedRows {
  uint64_t ticket = 0;
  int n_rows = 0;  // of its tokens [n_computed, n_computed + n_rows)
};

struct Plan {
  std::vector<uint64_t> expired;  // deadline passed, running or waiting: end them first
  std::vector<uint64_t>
      preempted;                   // youngest first: move each to the head of the queue, in this order, blocks released
  std::vector<uint64_t> admitted;  // move from the queue to running, in this order
  std::vector<PlannedRows>
      rows;  // ascending tickets, running and admitted alike; needs no more blocks than are free by now
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options) : options_(options) {}

  Plan Next(const SchedulerState& state) const;

 private:
  class Planner;
  SchedulerOptions options_;
};

}  // namespace updraft::engine
