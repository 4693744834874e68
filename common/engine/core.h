// The core of batching: which sequences run how many rows in the next step, and which KV blocks they hold. No thread,
// clock, model, bytes, text or wire; daemons, simulator and tests drive it:
//
//   while (const Work* work = core.Begin(now, &events)) {       // events: expired, preempted, started
//     ... run the model on work->rows, or let time pass ...
//     core.Commit(work->step, result, later, &events);          // events: tokens, ended; evicted when all KV is lost
//   }
//
// A sequence is addressed by its ticket, a number that its owner chooses. It knows tokens; it has begun the rows of
// some of them; the KV of some of these is complete. A step lets begun chase known. There is no phase of prefill or
// decode: chunks of a prompt, a decoded token, drafts to verify and rows that an executor left half-run (early exit)
// are all the distance between the three numbers:
//
//   tokens   | prompt, answer so far                     | drafts    |
//   known    |------------------------------------------>|
//   begun    |------------------------------->|               rows [complete, begun) are half-run
//   complete |-------------------->|
//
// The row of the last known token, and those of the drafts after it, choose: row i chooses token i + 1.
//
// Policy, after Orca (Yu et al. 2022: iteration-level batching), vLLM (Kwon et al. 2023: preemption by recomputing) and
// Sarathi (Agrawal et al. 2023: chunked prefill beside decode rows):
//  * Order. A sequence stands at (arrival - priority * class_rise): within a priority in order of arrival; a waiting
//    one rises by one class every class_rise, so nothing starves. Sequences start in this order; a large one at the
//    head is waited for, not overtaken.
//  * Every decoding sequence gets its row; prefill gets what is left of the budget (of the pace, where a target is set
//    and somebody decodes), in order; drafts get what is left then, of budget and blocks.
//  * When a sequence needs a block and none is available: parked sequences give up theirs first, then the last of the
//    running order is preempted and goes back to its place in the queue. The last one itself just waits for a step.
//  * So the first in order always advances, and a sequence that fits the pool alone always finishes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/clock/steady.h"
#include "common/engine/block_pool.h"
#include "common/engine/prefix_index.h"
#include "common/engine/step_pacer.h"

namespace updraft::engine {

using Ticket = uint64_t;

struct CoreOptions {
  int n_blocks = 2048;                            // of the pool, >= 1
  int block_tokens = 16;                          // tokens per block, in [1, 1024]
  int max_running = 64;                           // sequences in one step, >= 1
  int max_step_tokens = 512;                      // rows begun in one step, >= max_running
  absl::Duration class_rise = absl::Seconds(10);  // a waiting sequence rises by one priority per this; (0, 1 day]
  // Completed blocks are sealed and adopted by sequences that begin with the same tokens and have the same salt.
  bool reuse_prefixes = false;
  // Time between two tokens of a decoding sequence that rows of prompts beside it should keep; zero: they take what is
  // left of max_step_tokens. See step_pacer.h.
  absl::Duration itl_target = absl::ZeroDuration();

  absl::Status Validate() const;
};

struct SequenceSpec {
  std::vector<int32_t> tokens;  // known at the start, >= 1
  int n_total_max = 0;          // the sequence ends when it knows this many; > tokens.size()
  int priority = 0;             // in [-1000, 1000]; higher goes first
  uint32_t tenant = 0;          // whose it is; carried, not yet looked at
  uint64_t cache_salt = 0;      // prefixes are shared among equal salts only
  SteadyTime deadline = SteadyTime::InfiniteFuture();
};

// KV of block `from` goes to block `to`: a shared block is copied before it is written. In order, before any row.
struct BlockMove {
  int32_t from = 0, to = 0;
};

// Rows of one sequence. The spans are valid until Commit.
struct RowRun {
  Ticket ticket = 0;
  int first = 0;                    // position of the first row
  int n_rows = 0;                   // rows [first, first + n_rows), >= 1
  int n_continued = 0;              // the first of these were left half-run by an earlier step
  int n_sampled = 0;                // the last of these choose a token each
  std::span<const int32_t> tokens;  // all tokens up to the last row, drafts included
  std::span<const int32_t> blocks;  // the block table; room for all rows
};

struct Work {
  uint64_t step = 0;
  std::span<const BlockMove> moves;
  std::span<const RowRun> rows;  // >= 1, of different sequences
  int n_rows = 0;                // of all runs
};

constexpr int32_t kNoToken = -1;  // chosen: the row did not get far enough to choose; it is asked again

// What came of a step. Entries belong to Work::rows in order.
struct StepResult {
  absl::Status status = {};               // an error ends every sequence that had rows in the step
  bool kv_lost = false;                   // with an error: what any block holds is in doubt, nobody keeps one
  std::span<const int32_t> sampled = {};  // [sum of n_sampled]: the token that each choosing row chose, or kNoToken
  // Per run, how many of its rows, counted from the first, have complete KV now; the others are half-run and come
  // again. A row that has not chosen yet is one of those. Empty: all are complete.
  std::span<const int32_t> n_complete = {};
};

struct Event {
  enum class Kind : uint8_t {
    kStarted,    // left the queue for the first time
    kTokens,     // chose tokens: sampled[first_sampled, first_sampled + n_tokens) of the step, in order
    kPreempted,  // lost its blocks while it ran, and waits again; half-run rows are void
    kEvicted,    // lost the blocks it had run with while it was parked or woken, or with all KV; it runs from its start
    kEnded,      // OK: knows n_total_max tokens. Otherwise its deadline passed or its step failed. The ticket is gone
  };
  Kind kind = Kind::kStarted;
  Ticket ticket = 0;
  int first_sampled = 0;
  int n_tokens = 0;
  int n_accepted = 0;  // of these, how many confirmed a draft
  absl::Status status = {};
};

// What an engine says of itself. Mirrors updraft.v1.Load.
struct LoadReport {
  int running_requests = 0;
  int queued_requests = 0;
  int running_tokens = 0;             // tokens with complete KV, of running sequences
  int queued_tokens = 0;              // tokens not yet processed, of queued and running sequences
  double kv_used_fraction = 0.0;      // of blocks
  double predicted_wait_ms = 0.0;     // until a request that arrives now starts
  double decode_tokens_per_s = 0.0;   // recent, per running sequence; 0: nothing measured yet
  double prefill_tokens_per_s = 0.0;  // recent, of steps that read prompts; 0: nothing measured yet
};

// Counters since the start.
struct CoreStats {
  int64_t n_steps = 0;
  int64_t n_rows = 0;    // begun
  int64_t n_chosen = 0;  // tokens
  int64_t n_drafts_accepted = 0, n_drafts_rejected = 0;
  int64_t n_preemptions = 0;
  int64_t n_evictions = 0;       // Event::kEvicted
  int64_t n_started_tokens = 0;  // known tokens of sequences when they started; of a preempted one again
  int64_t n_cached_tokens = 0;   // of these, adopted instead of computed
  int max_rows_in_step = 0;
  int max_running = 0;
};

// One thread, but for Check. Errors are for what a request may bring; a call that breaks a REQUIRES is a bug.
//
// Only Admit allocates. A step, Begin and Commit, takes no memory but for the caller's list of events, and adds at most
// two for each sequence that it knows of.
class Core {
 public:
  explicit Core(const CoreOptions& options);  // REQUIRES: options.Validate() is OK
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // Whether the sequence can ever be served here, alone; INVALID_ARGUMENT says with numbers why not. Any thread.
  absl::Status Check(const SequenceSpec& spec) const {
    return Check(static_cast<int>(spec.tokens.size()), spec.n_total_max, spec.priority);
  }
  absl::Status Check(int n_tokens, int n_total_max, int priority) const;  // what of a spec it depends on

  // Admit, Grow, Park, Wake and Finish may come while a step is under way (between Begin and Commit); what touches a
  // sequence of that step takes effect in Commit.

  // Queues a sequence. Throws std::bad_alloc where there is no memory for it; nothing has changed then. REQUIRES:
  // Check(spec) is OK; the ticket is not in use.
  void Admit(Ticket ticket, SequenceSpec spec, SteadyTime now);
  // Appends drafts to a sequence's tokens: they run with the next rows as far as budget and blocks allow, drafts that
  // its own choices confirm become known, the first that they refute goes with all after it. Drafts that cannot come to
  // use before n_total_max are dropped.
  void Grow(Ticket ticket, std::span<const int32_t> unverified);
  // No more rows until Wake, or until `until`. It keeps its tokens, and its blocks until somebody needs them; half-run
  // rows are void.
  void Park(Ticket ticket, SteadyTime until);
  // Back to its place in the queue.
  void Wake(Ticket ticket);
  // Ends a sequence whose owner has enough of it (stop string, cancel). The ticket is gone at once, no event tells of
  // it; its blocks are free before the next Begin. `status` OK: it was served. Unknown tickets are ignored.
  void Finish(Ticket ticket, const absl::Status& status);

  // Expires, wakes, preempts, admits, plans. nullptr: nothing can run now. The work is valid until its Commit.
  // REQUIRES: no step is under way.
  const Work* Begin(SteadyTime now, std::vector<Event>* events);
  // REQUIRES: `step` is under way.
  void Commit(uint64_t step, const StepResult& result, SteadyTime now, std::vector<Event>* events);

  bool contains(Ticket ticket) const { return sequences_.contains(ticket); }
  // Known tokens. REQUIRES (both): contains(ticket). Valid until the next call that changes the core.
  std::span<const int32_t> tokens(Ticket ticket) const;
  std::span<const int32_t> blocks(Ticket ticket) const;
  // Of the known tokens, how many had their KV adopted when the sequence last started.
  int n_cached_tokens(Ticket ticket) const;

  bool idle() const { return n_running() == 0 && n_waiting_ == 0; }  // nothing to do until Admit, Wake or a time
  int n_running() const { return static_cast<int>(running_.size()); }
  int n_waiting() const { return n_waiting_; }
  int n_parked() const { return n_parked_; }
  // When Begin has something to do even if idle: the first of all deadlines and ends of parking; may be early.
  SteadyTime next_time() const { return times_.empty() ? SteadyTime::InfiniteFuture() : times_.front().time; }

  LoadReport load() const;
  const CoreStats& stats() const { return stats_; }
  const BlockPool& pool() const { return pool_; }
  const CoreOptions& options() const { return options_; }

  // For tests, after any event: INTERNAL when the state contradicts itself. Slow.
  absl::Status CheckInvariants() const;

 private:
  struct Sequence;
  struct List {  // doubly linked through members of Sequence
    Sequence* first = nullptr;
    Sequence* last = nullptr;
  };

  int BlocksFor(int n_tokens) const { return (n_tokens + options_.block_tokens - 1) / options_.block_tokens; }
  Sequence* FindSequence(Ticket ticket) const;

  // core.cc: sequences and their blocks.
  void Enqueue(Sequence& s);  // at its place in the queue
  void Dequeue(Sequence& s);
  void EnterParked(Sequence& s);
  void LeaveParked(Sequence& s);
  void BecomeIdleHolder(Sequence& s);  // its blocks may be taken
  void LeaveIdleHolders(Sequence& s);
  void ForgetLeavers();  // running_ without those who run no more
  void DropBlocks(Sequence& s, int n_kept = 0);
  void ForgetRowsFrom(Sequence& s, int n_rows);
  // Frees blocks and ticket. The object, too, unless running_ has it: then it lives until the step's end.
  void Leave(Sequence& s, bool served);
  void End(Sequence& s, absl::Status status, std::vector<Event>* events);
  void Watch(Ticket ticket, SteadyTime time);

  // planning.cc: Begin.
  void ExpireAndWake(SteadyTime now, std::vector<Event>* events);
  void PlanRunning(std::vector<Event>* events);
  void AdmitWaiting(SteadyTime now, std::vector<Event>* events);
  void PlanDrafts();
  void TakeBackDrafts();
  bool MakeRoomForHead(Sequence& s, std::vector<Event>* events);
  void Spare(Sequence& head);
  int NumReclaimable(const Sequence& head) const;
  void Start(Sequence& s, SteadyTime now, std::vector<Event>* events);
  void PreemptLast(std::vector<Event>* events);
  bool EvictIdle(const Sequence* spared, std::vector<Event>* events);  // false: nobody has blocks to give up
  void GiveUpAdopted(Sequence& s);
  void LoseBlocks(Sequence& s, std::vector<Event>* events);
  int RowRoom(const Sequence& s) const;
  bool NeedsCopy(const Sequence& s) const;
  void MakeWritable(Sequence& s);
  void TakeBlocks(Sequence& s, int n_rows);
  void PlanRows(Sequence& s, int n_new);
  void SetRows(size_t i, int n_continued);

  // commit.cc
  int Advance(Sequence& s, std::span<const int32_t> chosen, Event* event);
  void LoseAllKv(std::vector<Event>* events);
  bool Learn(Sequence& s, int32_t token);
  void UpdateRates(absl::Duration step_time);
  void UpdatePace(SteadyTime now);

  // prefixes.cc
  void ExtendChain(Sequence& s);
  void AdoptPrefix(Sequence& s);
  void SealCompleted(Sequence& s);

  // invariants.cc
  absl::Status CheckSequence(const Sequence& s) const;
  absl::Status CheckLists() const;
  absl::Status CheckTimes() const;
  absl::Status CheckBlocks() const;

  const CoreOptions options_;
  const absl::Status expired_in_queue_, expired_;  // made once, so that an end takes no memory
  BlockPool pool_;
  std::unique_ptr<PrefixIndex> prefixes_;                            // null: prefixes are not reused
  std::unordered_map<Ticket, std::unique_ptr<Sequence>> sequences_;  // std's stays whole when memory is short
  std::vector<std::unique_ptr<Sequence>> departed_;                  // ended while their step was under way
  std::vector<Sequence*> running_;                                   // in order
  List waiting_;                                                     // in order
  List parked_;
  List idle_holders_;           // waiting or parked sequences with blocks, longest idle first
  Sequence* spared_ = nullptr;  // of these, the head that room was last made for: counts as busy in the pool
  int n_waiting_ = 0, n_parked_ = 0;
  int64_t n_waiting_tokens_ = 0;
  uint64_t n_admitted_ = 0;
  struct Time {
    SteadyTime time;
    Ticket ticket = 0;
    // The standard's heaps have the greatest in front.
    bool operator<(const Time& other) const { return time != other.time ? time > other.time : ticket > other.ticket; }
  };
  std::vector<Time> times_;  // a heap of deadlines and ends of parking, the earliest in front; some are past their use

  // The step under way, or the last one.
  Work work_;
  bool under_way_ = false;
  SteadyTime begun_at_, now_;
  SteadyTime committed_at_ = SteadyTime::InfiniteFuture();  // the last step, after which others were to go on at once
  std::vector<BlockMove> moves_;
  std::vector<RowRun> rows_;
  std::vector<Sequence*> row_sequences_;  // of rows_
  int budget_ = 0;                        // rows that may still be begun beside those of decoding sequences
  int n_draft_blocks_ = 0;                // that running sequences have beyond what they know: of drafts left half-run
  int n_preempted_ = 0;
  int n_decode_rows_ = 0;          // of sequences that go on with their answers by one row each
  bool has_prefill_rows_ = false;  // a sequence has several tokens that nobody guessed to chase, or a block of drafts

  CoreStats stats_;
  StepPacer pacer_;
  // Recent rates, exponentially smoothed; 0: nothing measured yet.
  double rows_per_s_ = 0.0;
  double decode_step_s_ = 0.0;
  double prefill_rows_ = 0.0;  // of steps that read prompts, whose rate is that of their rows: long ones count more
  double prefill_step_s_ = 0.0;
  double service_s_ = 0.0;  // start to end of a served sequence
};

}  // namespace updraft::engine
