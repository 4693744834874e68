#include "cloud/engine/loop.h"

#include <algorithm>
#include <cassert>
#include <new>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::engine {
namespace {

absl::Status CheckIds(const char* what, std::span<const int32_t> ids, int n_vocab) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= n_vocab) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s[%d]: expected a token id in [0, %d), found %d; tokenize with this model's vocabulary",
                          what, i, n_vocab, ids[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckGiven(const Request& request, int n_vocab) {
  if (request.given.empty()) return absl::OkStatus();
  if (!request.accepted_prefix.empty()) {
    return absl::InvalidArgumentError("given: expected no accepted_prefix beside it; put its tokens in front");
  }
  if (request.given.size() < static_cast<size_t>(request.max_tokens)) {
    return absl::InvalidArgumentError(absl::StrFormat("given: expected the max_tokens of %d at least, found %d",
                                                      request.max_tokens, request.given.size()));
  }
  return CheckIds("given", request.given, n_vocab);
}

// Twice what is asked for, so that it is made anew rarely.
template <typename T>
void MakeRoom(std::vector<T>& list, size_t n) {
  if (list.capacity() < n) list.reserve(2 * n);
}

}  // namespace

struct Loop::Answer {
  Answer(Ticket ticket, Request&& request, int max_tokens, std::shared_ptr<Sink> sink, SteadyTime arrival)
      : ticket(ticket),
        sampling(std::move(request.sampling)),
        include_evidence(request.include_evidence),
        n_top_logprobs(request.n_top_logprobs),
        mask(std::move(request.mask)),
        given(std::move(request.given)),
        ends(given.empty() ? std::vector<int32_t>() : request.stop_tokens),
        sink(std::move(sink)),
        arrival(arrival),
        assembler(std::move(request.text), {.stops = std::move(request.stop),
                                            .stop_tokens = std::move(request.stop_tokens),
                                            .max_tokens = max_tokens}) {}

  const Ticket ticket;
  const SamplingOptions sampling;
  const bool include_evidence;
  const int n_top_logprobs;
  const std::unique_ptr<TokenMask> mask;   // stands behind the answer's last token; null: none
  const std::vector<int32_t> given, ends;  // ends: stop tokens of an answer that is given
  std::shared_ptr<Sink> sink;
  const SteadyTime arrival;
  SteadyTime last_token;
  AnswerAssembler assembler;
  bool started = false;
  Summary summary;
};

Loop::Loop(const CoreOptions& options, Executor* executor, SteadyClock clock)
    : executor_(executor),
      clock_(std::move(clock)),
      reasons_{
          .no_memory_for_request = absl::ResourceExhaustedError(
              "engine: expected memory for the request, found that this process gets no more; ask for a shorter "
              "answer, "
              "stop other programs, or raise its limit (ulimit -v, or its container's)"),
          .no_memory_for_step = absl::ResourceExhaustedError(
              "engine: expected memory for the rows of a step, found that this process gets no more; stop other "
              "programs, raise its limit (ulimit -v, or its container's), or lower max_step_tokens"),
          .slow_reader = absl::ResourceExhaustedError(
              "the reader is too slow: the answer's buffer is full; read faster, or ask for a shorter answer"),
          .cancelled = absl::CancelledError("the caller cancelled the request"),
          .broken = absl::InternalError("shape: expected tokens that lead on to an answer of the shape, found none; "
                                        "ask for a simpler one")},
      core_(options) {}

Loop::~Loop() = default;

int Loop::TokenLimit(const Request& request) const {
  return std::min(request.max_tokens, executor_->context_length() - static_cast<int>(request.prompt.size()));
}

absl::Status Loop::Check(const Request& request) const {
  if (request.prompt.empty()) return absl::InvalidArgumentError("prompt: expected at least 1 token, found none");
  if (request.max_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrFormat("max_tokens: expected at least 1, found %d", request.max_tokens));
  }
  if (!request.stop.empty() && request.text == nullptr) {
    return absl::InvalidArgumentError("stop: stop strings need a text stream to look for them in");
  }
  if (absl::Status status = request.sampling.Validate(); !status.ok()) return status;
  if (absl::Status status = CheckIds("tokens", request.prompt, executor_->n_vocab()); !status.ok()) return status;
  if (absl::Status status = CheckIds("accepted_prefix", request.accepted_prefix, executor_->n_vocab()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckGiven(request, executor_->n_vocab()); !status.ok()) return status;
  const size_t n_known = request.prompt.size() + request.accepted_prefix.size();
  if (n_known >= static_cast<size_t>(executor_->context_length())) {
    return absl::OutOfRangeError(
        absl::StrFormat("prompt: has %d tokens, the model's context holds %d with the answer; shorten the conversation",
                        n_known, executor_->context_length()));
  }
  // An accepted prefix may be the whole answer, or more than was asked for; even so it could have been run here.
  const int n_total = static_cast<int>(request.prompt.size()) + TokenLimit(request);
  return core_.Check(static_cast<int>(n_known), std::max(n_total, static_cast<int>(n_known) + 1), request.priority);
}

void Loop::Accept(Ticket ticket, Request request, std::shared_ptr<Sink> sink) {
  ++stats_.n_submitted;
  try {
    Enter(ticket, std::move(request), sink);
  } catch (const std::bad_alloc&) {
    // The core took it last or not at all. It is told now: to remember it would take memory, and it holds nothing.
    answers_.erase(ticket);
    ++stats_.n_failed;
    sink->OnDone(reasons_.no_memory_for_request, Summary());
  }
}

void Loop::Enter(Ticket ticket, Request&& request, std::shared_ptr<Sink> sink) {
  MakeRoom(done_, done_.size() + answers_.size() + 1);
  MakeRoom(events_, 2 * (answers_.size() + 1));
  const SteadyTime now = clock_();
  const int n_prompt = static_cast<int>(request.prompt.size()), max_tokens = TokenLimit(request);
  AnswerSoFar so_far{.tokens = std::move(request.accepted_prefix)};
  so_far.n_prefix_tokens = static_cast<int>(so_far.tokens.size());
  SequenceSpec spec{.tokens = std::move(request.prompt),
                    .n_total_max = n_prompt + max_tokens,
                    .priority = request.priority,
                    .tenant = request.tenant,
                    .cache_salt = request.cache_salt,
                    .deadline = request.deadline};
  spec.tokens.insert(spec.tokens.end(), so_far.tokens.begin(), so_far.tokens.end());

  Answer& answer =
      *(answers_[ticket] = std::make_unique<Answer>(ticket, std::move(request), max_tokens, std::move(sink), now));
  answer.summary.n_prompt_tokens = n_prompt;
  const AnswerEnd end = answer.assembler.Resume(so_far);
  if (end == AnswerEnd::kOpen) {
    core_.Admit(ticket, std::move(spec), now);
    // Read as drafts that are never refuted. Takes no memory: Admit has made room for n_total_max.
    if (!answer.given.empty()) core_.Grow(ticket, answer.given);
    ++n_never_started_;
    return;
  }
  // The answer is complete already, but its last characters may have been held back below.
  const AnswerPiece rest = answer.assembler.Close(end);
  const bool is_taken =
      rest.text.empty() || answer.sink->OnTokens({.tokens = {}, .text = rest.text, .evidence = {}, .text_offsets = {}});
  ++n_never_started_;
  if (is_taken) return End(answer, absl::OkStatus(), rest.end);
  End(answer, reasons_.slow_reader, AnswerEnd::kOpen);
}

void Loop::Grow(Ticket ticket, std::span<const int32_t> drafts) {
  assert(CheckIds("drafts", drafts, executor_->n_vocab()).ok());
  if (core_.contains(ticket)) core_.Grow(ticket, drafts);
}

void Loop::Cancel(Ticket ticket) {
  if (Answer* answer = Find(ticket)) {
    End(*answer, reasons_.cancelled, AnswerEnd::kOpen);
  }
}

void Loop::EndAll(const absl::Status& status) {
  std::vector<Ticket> tickets;
  for (const auto& [ticket, answer] : answers_) tickets.push_back(ticket);
  std::sort(tickets.begin(), tickets.end());
  for (const Ticket ticket : tickets) End(*Find(ticket), status, AnswerEnd::kOpen);
}

Loop::Answer* Loop::Find(Ticket ticket) const {
  const auto at = answers_.find(ticket);
  return at == answers_.end() ? nullptr : at->second.get();
}

void Loop::Turn() {
  if (idle()) return;
  events_.clear();
  const SteadyTime begun = clock_();
  const Work* work = core_.Begin(begun, &events_);
  for (const Event& event : events_) Handle(event);
  if (work == nullptr) return;
  StepMeasured measured{.n_rows = work->n_rows, .n_sequences = static_cast<int>(work->rows.size()), .time = {}};
  absl::Status status = RunStep(*work);
  const bool kv_lost = !status.ok() && !absl::IsResourceExhausted(status);
  events_.clear();
  const SteadyTime ended = clock_();
  core_.Commit(work->step, {.status = std::move(status), .kv_lost = kv_lost, .sampled = chosen_}, ended, &events_);
  for (const Event& event : events_) Handle(event);
  measured.time = ended - begun;
  if (on_step_) on_step_(measured);
}

absl::Status Loop::RunStep(const Work& work) {
  try {
    return RunRows(work);
  } catch (const std::bad_alloc&) {  // of the lists on the host
    return reasons_.no_memory_for_step;
  }
}

absl::Status Loop::RunRows(const Work& work) {
  tokens_.clear();
  positions_.clear();
  tables_.clear();
  samples_.clear();
  for (const RowRun& run : work.rows) AddRows(run);
  sampled_.assign(samples_.size(), SampledToken());
  const absl::Status status =
      executor_->Run({.moves = work.moves,
                      .batch = {.tokens = tokens_, .positions = positions_, .block_tables = tables_},
                      .samples = samples_},
                     std::span<SampledToken>(sampled_));
  chosen_.clear();
  for (const SampledToken& sampled : sampled_) chosen_.push_back(sampled.token);
  return status;
}

// The token at a position of the sequence where it is given; -1 where the model chooses it.
int32_t Loop::GivenAt(const Answer& answer, int position) {
  if (answer.given.empty()) return -1;
  return answer.given[static_cast<size_t>(position - answer.summary.n_prompt_tokens)];
}

void Loop::AddRows(const RowRun& run) {
  const Answer& answer = *Find(run.ticket);
  for (int i = 0; i < run.n_rows; ++i) {
    const int position = run.first + i;
    if (i >= run.n_rows - run.n_sampled) {
      const int32_t given = GivenAt(answer, position + 1);
      const bool ends = std::find(answer.ends.begin(), answer.ends.end(), given) != answer.ends.end();
      samples_.push_back({.row = static_cast<int>(tokens_.size()),
                          .sampling = &answer.sampling,
                          .context = {.tokens = run.tokens.first(position + 1),
                                      .n_prompt = static_cast<size_t>(answer.summary.n_prompt_tokens)},
                          .include_evidence = answer.include_evidence,
                          .n_top_logprobs = answer.n_top_logprobs,
                          .mask = answer.mask ? answer.mask->Allowed() : std::span<const uint64_t>(),
                          .given = given,
                          .ends = ends ? std::span<const int32_t>(answer.ends) : std::span<const int32_t>()});
    }
    tokens_.push_back(run.tokens[position]);
    positions_.push_back(position);
    tables_.push_back(run.blocks.data());
  }
}

void Loop::Handle(const Event& event) {
  Answer* answer = Find(event.ticket);
  if (answer == nullptr) return;  // it was complete before the core knew
  switch (event.kind) {
    case Event::Kind::kStarted:
      answer->started = true;
      answer->summary.queued = clock_() - answer->arrival;
      answer->summary.n_cached_tokens = core_.n_cached_tokens(event.ticket);
      --n_never_started_;
      break;
    case Event::Kind::kTokens:
      Emit(*answer, std::span<const SampledToken>(sampled_).subspan(event.first_sampled, event.n_tokens));
      break;
    case Event::Kind::kPreempted:
      ++answer->summary.n_preemptions;
      break;
    case Event::Kind::kEvicted:
      break;
    case Event::Kind::kEnded:
      End(*answer, event.status, event.status.ok() ? AnswerEnd::kLength : AnswerEnd::kOpen);
      break;
  }
}

void Loop::Emit(Answer& answer, std::span<const SampledToken> chosen) {
  try {
    Give(answer, chosen);
  } catch (const std::bad_alloc&) {  // of the text, or of the sink
    End(answer, reasons_.no_memory_for_request, AnswerEnd::kOpen);
  }
}

void Loop::Give(Answer& answer, std::span<const SampledToken> chosen) {
  std::string text;
  const AnswerEnd end = Assemble(answer, chosen, &text);
  const int n_new = static_cast<int>(output_tokens_.size());
  if (n_new > 0) NoteTime(answer, n_new);
  answer.summary.n_answer_tokens += n_new;
  stats_.n_generated += n_new;
  const bool has_output = n_new > 0 || !text.empty();
  if (end == AnswerEnd::kOpen && answer.mask && answer.mask->broken()) return End(answer, reasons_.broken, end);
  if (has_output && !answer.sink->OnTokens({.tokens = output_tokens_,
                                            .text = std::move(text),
                                            .evidence = output_evidence_,
                                            .text_offsets = output_offsets_})) {
    End(answer, reasons_.slow_reader, AnswerEnd::kOpen);
  } else if (end != AnswerEnd::kOpen) {
    End(answer, absl::OkStatus(), end);
  }
}

// Of answers that are given there are no times between tokens: they are read.
void Loop::NoteTime(Answer& answer, int n_new) {
  const SteadyTime now = clock_();
  if (answer.summary.n_answer_tokens == 0) {
    answer.summary.first_token = now - answer.arrival;
  } else if (on_gap_ && answer.given.empty()) {
    for (int i = 0; i < n_new; ++i) on_gap_((now - answer.last_token) / n_new);
  }
  answer.last_token = now;
}

AnswerEnd Loop::Assemble(Answer& answer, std::span<const SampledToken> chosen, std::string* text) {
  output_tokens_.clear();
  output_evidence_.clear();
  output_offsets_.clear();
  AnswerEnd end = AnswerEnd::kOpen;
  for (const SampledToken& sampled : chosen) {
    if (end != AnswerEnd::kOpen) {
      ++stats_.n_overrun;
      continue;
    }
    if (answer.mask) answer.mask->Advance(sampled.token);
    AnswerPiece piece = answer.assembler.Push(sampled.token, sampled.evidence);
    *text += piece.text;
    end = piece.end;
    if (!piece.token) {
      if (answer.include_evidence) answer.summary.end_evidence = sampled.evidence;
      continue;
    }
    output_tokens_.push_back(*piece.token);
    if (!answer.include_evidence) continue;
    output_evidence_.push_back(*piece.evidence);
    output_offsets_.push_back(piece.text_offset);
  }
  return end;
}

// Frees blocks at once; the caller is told by DeliverDone. `answer` is gone after it.
void Loop::End(Answer& answer, absl::Status status, AnswerEnd end) {
  Summary& summary = answer.summary;
  summary.end = end;
  summary.total = clock_() - answer.arrival;
  if (!answer.started) {
    summary.queued = summary.total;
    --n_never_started_;
  }
  ++(status.ok() ? stats_.n_finished : stats_.n_failed);
  core_.Finish(answer.ticket, status);
  done_.push_back({std::move(answer.sink), std::move(status), summary});
  answers_.erase(answer.ticket);
}

void Loop::DeliverDone() {
  for (size_t i = 0; i < done_.size(); ++i) {
    const Done done = std::move(done_[i]);
    done.sink->OnDone(done.status, done.summary);
  }
  done_.clear();
}

Stats Loop::stats() const {
  Stats stats = stats_;
  const CoreStats& core = core_.stats();
  stats.n_blocks = core_.pool().n_blocks();
  stats.n_free_blocks = core_.pool().n_available();
  stats.n_steps = core.n_steps;
  stats.n_rows = core.n_rows;
  stats.n_preemptions = core.n_preemptions;
  stats.n_started_tokens = core.n_started_tokens;
  stats.n_cached_tokens = core.n_cached_tokens;
  stats.max_rows_in_step = core.max_rows_in_step;
  stats.max_running = core.max_running;
  return stats;
}

}  // namespace updraft::engine
