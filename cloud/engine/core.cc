#include "cloud/engine/core.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::engine {
namespace {

constexpr double kSmoothing = 0.1;  // weight of the newest measurement in a smoothed rate

void Smooth(double& value, double newest) { value = value == 0.0 ? newest : value + kSmoothing * (newest - value); }

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

}  // namespace

struct Core::Sequence {
  Sequence(uint64_t ticket, Request request, std::shared_ptr<Sink> sink, KvPool* pool)
      : ticket(ticket), request(std::move(request)), sink(std::move(sink)), stops(this->request.stop), kv(pool) {}

  uint64_t ticket;
  Request request;
  std::shared_ptr<Sink> sink;
  StopMatcher stops;
  std::vector<int32_t> tokens;  // prompt, accepted prefix, answer
  int n_tokens_limit = 0;       // the answer ends when tokens has this many
  int n_computed = 0;           // tokens whose KV is in `kv`
  SequenceKv kv;
  bool ended = false;
  absl::Time arrival;
  absl::Time started = absl::InfiniteFuture();
  Summary summary;
};

Core::Core(const SchedulerOptions& options, Executor* executor, KvPool* pool, Clock clock)
    : options_(options), scheduler_(options), executor_(executor), pool_(pool), clock_(std::move(clock)) {
  stats_.n_blocks = pool_->n_blocks();
  UpdateBlockStats();
}

Core::~Core() = default;

int Core::TokenLimit(const Request& request) const {
  const int64_t wanted = static_cast<int64_t>(request.prompt.size()) + request.max_tokens;
  return static_cast<int>(std::min<int64_t>(wanted, executor_->context_length()));
}

absl::Status Core::Check(const Request& request) const {
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
  const size_t n_known = request.prompt.size() + request.accepted_prefix.size();
  if (n_known >= static_cast<size_t>(executor_->context_length())) {
    return absl::OutOfRangeError(
        absl::StrFormat("prompt: has %d tokens, the model's context holds %d with the answer; shorten the conversation",
                        n_known, executor_->context_length()));
  }
  // The last token of an answer is chosen and never run, so it needs no room.
  const int n_worst = std::max(static_cast<int>(n_known), TokenLimit(request) - 1);
  if (pool_->BlocksFor(n_worst) > pool_->n_blocks()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("prompt and max_tokens: need room for %d tokens, the KV pool holds %d; lower max_tokens, or "
                        "serve with a larger kv_tokens",
                        n_worst, pool_->n_blocks() * pool_->block_tokens()));
  }
  return absl::OkStatus();
}

void Core::Accept(uint64_t ticket, Request request, std::shared_ptr<Sink> sink) {
  ++stats_.n_submitted;
  ++n_never_started_;
  auto sequence = std::make_unique<Sequence>(ticket, std::move(request), std::move(sink), pool_);
  const Request& r = sequence->request;
  sequence->arrival = clock_();
  sequence->n_tokens_limit = TokenLimit(r);
  sequence->summary.n_prompt_tokens = static_cast<int>(r.prompt.size());
  sequence->tokens.reserve(std::max<size_t>(sequence->n_tokens_limit, r.prompt.size() + r.accepted_prefix.size()));
  sequence->tokens = r.prompt;
  sequence->tokens.insert(sequence->tokens.end(), r.accepted_prefix.begin(), r.accepted_prefix.end());
  FinishReason reason = PrimeText(*sequence) ? FinishReason::kStop : FinishReason::kNone;
  if (reason == FinishReason::kNone && static_cast<int>(sequence->tokens.size()) >= sequence->n_tokens_limit) {
    reason = FinishReason::kLength;
  }
  if (reason == FinishReason::kNone) {
    waiting_.push_back(std::move(sequence));
    return;
  }
  // The answer is complete already, but its last characters may have been held back below.
  const Output rest{.tokens = {}, .text = FlushText(*sequence), .evidence = {}};
  if (!rest.text.empty()) sequence->sink->OnTokens(rest);
  End(*sequence, absl::OkStatus(), reason);
}

// Brings text and stop strings to where the tier below left off. True when its prefix is a complete answer.
bool Core::PrimeText(Sequence& sequence) {
  const Request& r = sequence.request;
  for (const int32_t token : r.accepted_prefix) {
    if (std::find(r.stop_tokens.begin(), r.stop_tokens.end(), token) != r.stop_tokens.end()) return true;
    if (r.text != nullptr) sequence.stops.Push(r.text->Push(token));
    if (sequence.stops.stopped()) return true;
  }
  return false;
}

std::string Core::FlushText(Sequence& sequence) {
  if (sequence.request.text == nullptr) return "";
  std::string text = sequence.stops.Push(sequence.request.text->Flush());
  text += sequence.stops.Flush();
  return text;
}

void Core::Cancel(uint64_t ticket) {
  const auto cancel = [&](auto& sequences) {
    for (auto& sequence : sequences) {
      if (sequence->ticket == ticket)
        End(*sequence, absl::CancelledError("the caller cancelled the request"), FinishReason::kNone);
    }
  };
  cancel(running_);
  cancel(waiting_);
  RemoveEnded();
}

void Core::EndAll(const absl::Status& status) {
  for (auto& sequence : running_) End(*sequence, status, FinishReason::kNone);
  for (auto& sequence : waiting_) End(*sequence, status, FinishReason::kNone);
  RemoveEnded();
}

SequenceView Core::ViewOf(const Sequence& sequence) const {
  SequenceView view;
  view.ticket = sequence.ticket;
  view.n_tokens = static_cast<int>(sequence.tokens.size());
  view.n_computed = sequence.n_computed;
  view.n_blocks = static_cast<int>(sequence.kv.blocks().size());
  view.n_releasable = static_cast<int>(std::count_if(sequence.kv.blocks().begin(), sequence.kv.blocks().end(),
                                                     [&](int32_t block) { return pool_->ref_count(block) == 1; }));
  view.deadline = sequence.request.deadline;
  return view;
}

void Core::Step() {
  if (idle()) return;
  std::vector<SequenceView> running, waiting;
  for (const auto& sequence : running_) running.push_back(ViewOf(*sequence));
  for (const auto& sequence : waiting_) waiting.push_back(ViewOf(*sequence));
  const Plan plan = scheduler_.Next({.running = running,
                                     .waiting = waiting,
                                     .n_free_blocks = pool_->n_free(),
                                     .block_tokens = pool_->block_tokens(),
                                     .now = clock_()});
  EndExpired(plan);
  Preempt(plan);
  Admit(plan);
  RunRows(plan);
  RemoveEnded();
}

void Core::EndExpired(const Plan& plan) {
  if (plan.expired.empty()) return;
  const auto end_if_listed = [&](auto& sequences) {
    for (auto& sequence : sequences) {
      if (std::find(plan.expired.begin(), plan.expired.end(), sequence->ticket) == plan.expired.end()) continue;
      const bool ran = sequence->started != absl::InfiniteFuture();
      End(*sequence,
          absl::DeadlineExceededError(ran ? "the deadline passed before the answer was complete"
                                          : "the deadline passed while the request was queued"),
          FinishReason::kNone);
    }
  };
  end_if_listed(running_);
  end_if_listed(waiting_);
  RemoveEnded();
}

void Core::Preempt(const Plan& plan) {
  for (const uint64_t ticket : plan.preempted) {
    // Youngest first, so the victim is always the last one running.
    std::unique_ptr<Sequence> sequence = std::move(running_.back());
    running_.pop_back();
    if (sequence->ticket != ticket) {
      End(*sequence, absl::InternalError("scheduler: a sequence other than the youngest was to be preempted"),
          FinishReason::kNone);
      continue;
    }
    sequence->kv.Truncate(0);
    sequence->n_computed = 0;
    ++sequence->summary.n_preemptions;
    ++stats_.n_preemptions;
    waiting_.push_front(std::move(sequence));
  }
}

void Core::Admit(const Plan& plan) {
  for (size_t i = 0; i < plan.admitted.size(); ++i) {
    std::unique_ptr<Sequence> sequence = std::move(waiting_.front());
    waiting_.pop_front();
    if (sequence->started == absl::InfiniteFuture()) {
      sequence->started = clock_();
      sequence->summary.queued = sequence->started - sequence->arrival;
      --n_never_started_;
    }
    running_.push_back(std::move(sequence));
  }
  stats_.max_running = std::max(stats_.max_running, static_cast<int>(running_.size()));
}

void Core::RunRows(const Plan& plan) {
  std::vector<int32_t> tokens, positions;
  std::vector<const int32_t*> tables;
  std::vector<SampleRow> samples;
  std::vector<Sequence*> sampling;  // of each entry of samples
  bool has_decode_rows = false;
  size_t next = 0;  // both lists ascend by ticket
  for (const PlannedRows& planned : plan.rows) {
    while (next < running_.size() && running_[next]->ticket < planned.ticket) ++next;
    if (next == running_.size()) break;
    Sequence& s = *running_[next];
    if (absl::Status status = s.kv.Reserve(s.n_computed + planned.n_rows); !status.ok()) {
      End(s,
          absl::InternalError(
              absl::StrFormat("scheduler: planned more blocks than are free: %s", std::string(status.message()))),
          FinishReason::kNone);
      continue;
    }
    for (int i = 0; i < planned.n_rows; ++i) {
      tokens.push_back(s.tokens[s.n_computed + i]);
      positions.push_back(s.n_computed + i);
      tables.push_back(s.kv.blocks().data());
    }
    has_decode_rows |= s.summary.n_answer_tokens > 0 && planned.n_rows == 1;
    s.n_computed += planned.n_rows;
    if (s.n_computed < static_cast<int>(s.tokens.size())) continue;
    samples.push_back({.row = static_cast<int>(tokens.size()) - 1,
                       .sampling = &s.request.sampling,
                       .context = s.tokens,
                       .include_evidence = s.request.include_evidence});
    sampling.push_back(&s);
  }
  if (tokens.empty()) return;

  std::vector<SampledToken> sampled(samples.size());
  const absl::Time before = clock_();
  const absl::Status status =
      executor_->Run({.tokens = tokens, .positions = positions, .block_tables = tables}, samples, *pool_, sampled);
  const int n_rows = static_cast<int>(tokens.size());
  UpdateRates(clock_() - before, n_rows, has_decode_rows);
  ++stats_.n_steps;
  stats_.n_rows += n_rows;
  stats_.max_rows_in_step = std::max(stats_.max_rows_in_step, n_rows);
  if (!status.ok()) {
    // The KV of every sequence in the step is in doubt.
    EndAll(status);
    return;
  }
  for (size_t i = 0; i < sampling.size(); ++i) Emit(*sampling[i], sampled[i]);
}

void Core::Emit(Sequence& s, const SampledToken& sampled) {
  const Request& r = s.request;
  const bool is_stop_token =
      std::find(r.stop_tokens.begin(), r.stop_tokens.end(), sampled.token) != r.stop_tokens.end();
  Output output;
  FinishReason reason = is_stop_token ? FinishReason::kStop : FinishReason::kNone;
  if (!is_stop_token) {
    s.tokens.push_back(sampled.token);
    ++s.summary.n_answer_tokens;
    ++stats_.n_generated;
    if (s.summary.n_answer_tokens == 1) s.summary.first_token = clock_() - s.arrival;
    output.tokens = std::span<const int32_t>(&s.tokens.back(), 1);
    if (r.include_evidence) output.evidence = std::span<const TokenEvidence>(&sampled.evidence, 1);
    if (r.text != nullptr) output.text = s.stops.Push(r.text->Push(sampled.token));
    if (static_cast<int>(s.tokens.size()) >= s.n_tokens_limit) reason = FinishReason::kLength;
  }
  if (reason != FinishReason::kNone) output.text += FlushText(s);
  if (s.stops.stopped()) reason = FinishReason::kStop;
  const bool has_output = !output.tokens.empty() || !output.text.empty();
  if (has_output && !s.sink->OnTokens(output)) {
    End(s,
        absl::ResourceExhaustedError(
            "the reader is too slow: the answer's buffer is full; read faster, or ask for a shorter answer"),
        FinishReason::kNone);
    return;
  }
  if (reason != FinishReason::kNone) End(s, absl::OkStatus(), reason);
}

// Frees blocks at once; the sequence itself goes with the next RemoveEnded, the caller is told by DeliverDone.
void Core::End(Sequence& s, absl::Status status, FinishReason reason) {
  if (s.ended) return;
  s.ended = true;
  s.kv.Truncate(0);
  const absl::Time now = clock_();
  s.summary.finish_reason = reason;
  s.summary.total = now - s.arrival;
  if (s.started == absl::InfiniteFuture()) {
    s.summary.queued = s.summary.total;
    --n_never_started_;
  } else if (status.ok()) {
    Smooth(service_s_, absl::ToDoubleSeconds(now - s.started));
  }
  ++(status.ok() ? stats_.n_finished : stats_.n_failed);
  done_.push_back({std::move(s.sink), std::move(status), s.summary});
  UpdateBlockStats();
}

void Core::RemoveEnded() {
  const auto ended = [](const std::unique_ptr<Sequence>& sequence) { return sequence->ended; };
  std::erase_if(running_, ended);
  std::erase_if(waiting_, ended);
  UpdateBlockStats();
}

void Core::DeliverDone() {
  for (Done& done : std::exchange(done_, {})) done.sink->OnDone(done.status, done.summary);
}

void Core::UpdateRates(absl::Duration step_time, int n_rows, bool has_decode_rows) {
  const double seconds = absl::ToDoubleSeconds(step_time);
  if (seconds <= 0.0) return;
  Smooth(rows_per_s_, n_rows / seconds);
  if (has_decode_rows) Smooth(decode_step_s_, seconds);
}

void Core::UpdateBlockStats() { stats_.n_free_blocks = pool_->n_free(); }

LoadReport Core::load() const {
  LoadReport report;
  report.running_requests = static_cast<int>(running_.size());
  report.queued_requests = static_cast<int>(waiting_.size());
  for (const auto& s : running_) {
    report.running_tokens += s->n_computed;
    report.queued_tokens += static_cast<int>(s->tokens.size()) - s->n_computed;
  }
  for (const auto& s : waiting_) report.queued_tokens += static_cast<int>(s->tokens.size());
  report.kv_used_fraction = 1.0 - static_cast<double>(pool_->n_free()) / pool_->n_blocks();
  report.decode_tokens_per_s = decode_step_s_ > 0.0 ? 1.0 / decode_step_s_ : 0.0;
  // What is ahead has to be prefilled; where all places are taken, those who wait also have to wait for places, which
  // come free at the rate (running requests) / (time that a request takes).
  double wait_s = rows_per_s_ > 0.0 ? report.queued_tokens / rows_per_s_ : 0.0;
  if (!waiting_.empty() || report.running_requests >= options_.max_running) {
    wait_s += service_s_ * (report.queued_requests + 1) / std::max(1, report.running_requests);
  }
  report.predicted_wait_ms = 1e3 * wait_s;
  return report;
}

}  // namespace updraft::engine
