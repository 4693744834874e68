#include "common/telemetry/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <mutex>
#include <set>

#include "absl/base/thread_annotations.h"
#include "common/sync/mutex.h"

namespace updraft {

using prometheus::BuildCounter;
using prometheus::BuildGauge;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;

namespace {

// From an answer of one token on a device to a long one over a bad link.
const Histogram::BucketBoundaries kSeconds = {0.005, 0.01, 0.02, 0.04, 0.06, 0.1,  0.2,
                                              0.4,   0.8,  1.6,  3.2,  6.4,  12.8, 30.0};
const Histogram::BucketBoundaries kProbability = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99};

// What a stream may wait for others on a loop; 5 ms and more are a fault.
const Histogram::BucketBoundaries kTurnSeconds = {2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1, 1.0};

const Histogram::BucketBoundaries kGapSeconds = {0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08,
                                                 0.1,   0.15, 0.2,  0.3,  0.5,  1.0,  2.0,  5.0};
const Histogram::BucketBoundaries kRows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

constexpr size_t kMaxTiers = 16;

}  // namespace

struct Metrics::Families {
  Families(const std::string& tier, const std::string& model_name)
      : labels{{"tier", tier}},
        model{{"model_name", model_name}},
        requests(BuildCounter()
                     .Name("updraft_requests_total")
                     .Help("Requests by how they ended and what routing decided")
                     .Labels(labels)
                     .Register(registry)),
        refused(BuildCounter()
                    .Name("updraft_refused_total")
                    .Help("Requests refused before the tier saw them")
                    .Labels(labels)
                    .Register(registry)),
        tokens(BuildCounter()
                   .Name("updraft_tokens_total")
                   .Help("Answer tokens by the tier that wrote them")
                   .Register(registry)),
        link_bytes(BuildCounter()
                       .Name("updraft_link_bytes_total")
                       .Help("Payload bytes exchanged with the upstream tier")
                       .Labels(labels)
                       .Register(registry)),
        goodput(BuildGauge()
                    .Name("updraft_link_goodput_bytes_per_second")
                    .Help("Estimated goodput of the link; 0: not measured")
                    .Labels(labels)
                    .Register(registry)),
        degraded(AddCounter("updraft_degraded_total", "Answers given locally because upstream could not be used")),
        request_seconds(AddHistogram("updraft_request_seconds", "Arrival to end of the answer", kSeconds)),
        first_token_seconds(AddHistogram("updraft_first_token_seconds", "Arrival to first text", kSeconds)),
        queue_seconds(AddHistogram("updraft_queue_seconds", "Waiting for the local model", kSeconds)),
        confidence(AddHistogram("updraft_confidence", "Calibrated confidence of local drafts", kProbability)),
        http_turn_seconds(AddHistogram("updraft_http_turn_cpu_seconds",
                                       "CPU time of single turns of the loop that serves HTTP", kTurnSeconds)),
        bytes_up(link_bytes.Add({{"direction", "up"}})),
        bytes_down(link_bytes.Add({{"direction", "down"}})),
        resident_bytes(AddGauge("updraft_resident_bytes", "Resident memory of the process", labels)),
        waiting(AddGauge("vllm:num_requests_waiting", "Requests waiting for the model", model)),
        running(AddGauge("vllm:num_requests_running", "Requests in the model", model)),
        kv_used(AddGauge("vllm:kv_cache_usage_perc", "KV blocks in use, 1 means all", model)) {}

  Counter& AddCounter(const char* name, const char* help) {
    return BuildCounter().Name(name).Help(help).Labels(labels).Register(registry).Add({});
  }
  Gauge& AddGauge(const char* name, const char* help, const prometheus::Labels& with) {
    return BuildGauge().Name(name).Help(help).Labels(with).Register(registry).Add({});
  }
  Histogram& AddHistogram(const char* name, const char* help, const Histogram::BucketBoundaries& bounds) {
    return BuildHistogram().Name(name).Help(help).Labels(labels).Register(registry).Add({}, bounds);
  }

  // Of a tier that batches alone, so made when it first says something.
  struct Batching {
    explicit Batching(Families& f)
        : inter_token_seconds(f.AddHistogram("updraft_inter_token_seconds",
                                             "Between two tokens of an answer, as they leave the engine", kGapSeconds)),
          step_seconds(f.AddHistogram("updraft_engine_step_seconds", "Passes over a batch", kSeconds)),
          step_rows(f.AddHistogram("updraft_engine_step_rows", "Tokens in a pass, prefill and decode", kRows)),
          step_sequences(f.AddHistogram("updraft_engine_step_sequences", "Sequences in a pass", kRows)) {}
    Histogram& inter_token_seconds;
    Histogram& step_seconds;
    Histogram& step_rows;
    Histogram& step_sequences;
  };
  const Batching& batching() {
    std::call_once(batching_once, [this] { batching_made = std::make_unique<Batching>(*this); });
    return *batching_made;
  }

  prometheus::Registry registry;
  const prometheus::Labels labels;
  const prometheus::Labels model;
  Family<Counter>& requests;
  Family<Counter>& refused;
  Family<Counter>& tokens;
  Family<Counter>& link_bytes;
  Family<Gauge>& goodput;
  Counter& degraded;
  Histogram& request_seconds;
  Histogram& first_token_seconds;
  Histogram& queue_seconds;
  Histogram& confidence;
  Histogram& http_turn_seconds;
  Counter& bytes_up;
  Counter& bytes_down;
  Gauge& resident_bytes;
  Gauge& waiting;
  Gauge& running;
  Gauge& kv_used;
  std::once_flag batching_once;
  std::unique_ptr<Batching> batching_made;
  Mutex engine_mu;
  Mutex tiers_mu;
  std::set<std::string> tiers ABSL_GUARDED_BY(tiers_mu);
};

Metrics::Metrics(const std::string& tier, const std::string& model)
    : families_(std::make_unique<Families>(tier, model)) {}
Metrics::~Metrics() = default;

void Metrics::OnRequest(const RequestRecord& record) {
  Families& f = *families_;
  f.requests
      .Add({{"outcome", std::string(record.outcome)},
            {"decision", record.decision.empty() ? "none" : std::string(record.decision)}})
      .Increment();
  if (!record.disposition.empty()) {
    BuildCounter()
        .Name("updraft_dispositions_total")
        .Help("Answers that act, by what was done: act, refuse, clarify (asked back)")
        .Labels(f.labels)
        .Register(f.registry)
        .Add({{"disposition", std::string(record.disposition)}})
        .Increment();
  }
  if (record.degraded) f.degraded.Increment();
  f.request_seconds.Observe(record.total_s);
  if (record.first_token_s > 0.0) f.first_token_seconds.Observe(record.first_token_s);
  f.queue_seconds.Observe(record.queue_s);
  if (record.confidence >= 0.0) f.confidence.Observe(record.confidence);
  f.bytes_up.Increment(static_cast<double>(record.bytes_up));
  f.bytes_down.Increment(static_cast<double>(record.bytes_down));
}

void Metrics::OnRefused(const std::string& front, const std::string& status) {
  families_->refused.Add({{"front", front}, {"status", status}}).Increment();
}

void Metrics::OnHttpTurn(double cpu_s) { families_->http_turn_seconds.Observe(cpu_s); }

void Metrics::OnInterToken(double seconds) { families_->batching().inter_token_seconds.Observe(seconds); }

void Metrics::OnEngineStep(int n_rows, int n_sequences, double seconds) {
  const Families::Batching& batching = families_->batching();
  batching.step_seconds.Observe(seconds);
  batching.step_rows.Observe(n_rows);
  batching.step_sequences.Observe(n_sequences);
}

void Metrics::OnTokens(const std::string& tier, int n_tokens) {
  if (n_tokens <= 0) return;
  Families& f = *families_;
  std::string name = tier;
  {
    // Names come from the tiers above: whatever they send, the number of time series stays bounded.
    MutexLock lock(f.tiers_mu);
    if (f.tiers.size() < kMaxTiers) f.tiers.insert(name);
    if (f.tiers.count(name) == 0) name = "other";
  }
  f.tokens.Add({{"tier", name}}).Increment(n_tokens);
}

void Metrics::SetLoad(const LoadGauges& load) {
  families_->running.Set(load.running_requests);
  families_->waiting.Set(load.queued_requests);
  families_->kv_used.Set(load.kv_used_fraction);
}

void Metrics::SetLink(const LinkGauges& link) {
  if (!link.configured) return;
  Families& f = *families_;
  f.AddGauge("updraft_link_reachable", "1 while the upstream tier answers", f.labels).Set(link.reachable ? 1 : 0);
  f.AddGauge("updraft_link_rtt_seconds", "Smoothed round trip without the server's time", f.labels).Set(link.rtt_s);
  f.AddGauge("updraft_link_rtt_jitter_seconds", "Smoothed deviation of the round trip", f.labels)
      .Set(link.rtt_jitter_s);
  f.goodput.Add({{"direction", "up"}}).Set(link.goodput_up_bytes_per_s);
  f.goodput.Add({{"direction", "down"}}).Set(link.goodput_down_bytes_per_s);
}

void Metrics::SetEngine(const EngineGauges& engine) {
  Families& f = *families_;
  {
    // A counter of the library can only be added to: the difference must not be added by two threads.
    MutexLock lock(f.engine_mu);
    const auto advance = [&f](const char* name, const char* help, int64_t value) {
      Counter& counter = f.AddCounter(name, help);
      counter.Increment(static_cast<double>(value) - counter.Value());
    };
    advance("updraft_engine_steps_total", "Passes over a batch", engine.n_steps);
    advance("updraft_engine_started_tokens_total", "Tokens that sequences began with: prompts, and what was preempted",
            engine.n_started_tokens);
    advance("updraft_engine_cached_tokens_total", "Of these, taken from the prefix cache", engine.n_cached_tokens);
    advance("updraft_engine_rows_total", "Tokens processed, prefill and decode", engine.n_rows);
    advance("updraft_engine_preemptions_total", "Sequences that gave their KV blocks up and began anew",
            engine.n_preemptions);
  }
  auto& blocks = BuildGauge()
                     .Name("updraft_engine_kv_blocks")
                     .Help("Blocks of the KV pool by state")
                     .Labels(f.labels)
                     .Register(f.registry);
  blocks.Add({{"state", "free"}}).Set(engine.n_free_blocks);
  blocks.Add({{"state", "used"}}).Set(engine.n_blocks - engine.n_free_blocks);
}

void Metrics::OnAudit(const std::string& outcome) {
  Families& f = *families_;
  BuildCounter()
      .Name("updraft_audits_total")
      .Help("Kept answers that upstream was asked about, by what it said")
      .Labels(f.labels)
      .Register(f.registry)
      .Add({{"outcome", outcome}})
      .Increment();
}

void Metrics::OnDrift() {
  Families& f = *families_;
  f.AddCounter("updraft_drift_total", "Alarms: kept answers were worse than promised, the threshold was tightened")
      .Increment();
}

void Metrics::SetDrift(const DriftGauges& drift) {
  Families& f = *families_;
  f.AddCounter("updraft_drift_total", "Alarms: kept answers were worse than promised, the threshold was tightened");
  f.AddGauge("updraft_confidence_threshold", "Answers are kept at or above it", f.labels).Set(drift.threshold);
  f.AddGauge("updraft_kept_risk", "Weighted loss of audited answers since the threshold was set", f.labels)
      .Set(drift.risk);
}

void Metrics::SetResidentBytes(uint64_t bytes) { families_->resident_bytes.Set(static_cast<double>(bytes)); }

std::string Metrics::Render() const { return prometheus::TextSerializer().Serialize(families_->registry.Collect()); }

}  // namespace updraft
