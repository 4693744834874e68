// What a tier counts and measures, for GET /metrics in the Prometheus text format. The HTTP front serves Render();
// there is no server in here.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <string_view>

namespace updraft {

// How a request ended, as a label: "ok", or an absl status code in lower case ("cancelled", "deadline_exceeded", ...).
struct RequestRecord {
  std::string_view outcome = "ok";
  std::string_view decision = {};     // NameOf(Decision); empty: refused before there was one
  std::string_view disposition = {};  // NameOf(Disposition) of an answer that was meant to act; empty: none was given
  bool degraded = false;              // upstream was wanted but could not be used
  double total_s = 0.0;               // arrival to last byte queued
  double first_token_s = 0.0;         // arrival to first text queued; 0: none was
  double queue_s = 0.0;               // waiting for the local model
  double confidence = -1.0;           // of what was written here; negative: it was not judged
  uint64_t bytes_up = 0;              // payload to upstream
  uint64_t bytes_down = 0;
};

struct LoadGauges {
  int running_requests = 0;
  int queued_requests = 0;
  double kv_used_fraction = 0.0;  // [0, 1]
};

struct LinkGauges {
  bool configured = false;  // false: no link metrics at all
  bool reachable = false;
  double rtt_s = 0.0;
  double rtt_jitter_s = 0.0;
  double goodput_up_bytes_per_s = 0.0;
  double goodput_down_bytes_per_s = 0.0;
};

// Of a tier that batches.
struct EngineGauges {
  int64_t n_steps = 0;  // the first five since start
  int64_t n_rows = 0;   // tokens processed, prefill and decode
  int64_t n_preemptions = 0;
  int64_t n_started_tokens = 0;  // known to sequences when they started: prompts, and again what was preempted
  int64_t n_cached_tokens = 0;   // of these, not computed because their KV was there
  int n_blocks = 0;              // of the KV pool
  int n_free_blocks = 0;
};

// Of a tier that audits what it keeps.
struct DriftGauges {
  double threshold = 0.0;                                  // answers are kept at or above it
  double risk = std::numeric_limits<double>::quiet_NaN();  // weighted, among kept; NaN: not audited yet
};

// Thread-safe. Names: updraft_requests_total{outcome,decision}, updraft_dispositions_total{disposition},
// updraft_refused_total{front,status}, updraft_degraded_total, updraft_tokens_total{tier},
// updraft_link_bytes_total{direction}, updraft_request_seconds, updraft_first_token_seconds, updraft_queue_seconds,
// updraft_confidence, updraft_link_{reachable,rtt_seconds,rtt_jitter_seconds},
// updraft_link_goodput_bytes_per_second{direction}, updraft_inter_token_seconds, updraft_engine_step_seconds,
// updraft_engine_step_{rows,sequences}, updraft_engine_{steps,rows,preemptions,started_tokens,cached_tokens}_total,
// updraft_engine_kv_blocks{state}, updraft_audits_total{outcome}, updraft_drift_total, updraft_kept_risk,
// updraft_confidence_threshold, updraft_http_turn_cpu_seconds, updraft_resident_bytes, and for load the three names
// that the endpoint picker of the Kubernetes Gateway API Inference Extension reads unless told otherwise:
// vllm:num_requests_waiting, vllm:num_requests_running, vllm:kv_cache_usage_perc (a fraction, in spite of its name),
// labelled model_name.
class Metrics {
 public:
  // tier: constant label of every metric of ours; model: of the load gauges.
  Metrics(const std::string& tier, const std::string& model);
  ~Metrics();

  void OnRequest(const RequestRecord& record);
  // One that the tier itself never saw. front: "http" or "grpc"; status: as that front says it ("403",
  // "invalid_argument").
  void OnRefused(const std::string& front, const std::string& status);
  void OnHttpTurn(double cpu_s);                         // a turn of the HTTP server's loop, in its thread's CPU time
  void OnTokens(const std::string& tier, int n_tokens);  // tier that wrote them; the 16 first names, then "other"
  void OnInterToken(double seconds);                     // between two tokens of one answer, as they leave the engine
  void OnEngineStep(int n_rows, int n_sequences, double seconds);
  void SetLoad(const LoadGauges& load);
  void SetLink(const LinkGauges& link);
  void SetEngine(const EngineGauges& engine);  // not called: no such metrics
  void OnAudit(const std::string& outcome);    // "same": upstream would have said so, too; "other"; "lost"
  void OnDrift();                              // the threshold was tightened
  void SetDrift(const DriftGauges& drift);     // none of the three is called: no such metrics
  void SetResidentBytes(uint64_t bytes);

  // Prometheus text exposition format 0.0.4.
  std::string Render() const;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace updraft
