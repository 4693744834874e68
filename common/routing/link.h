// The path to the upstream tier, estimated from real calls, and what that tier says of itself. Pure: time is an
// argument.
#pragma once

#include <cstdint>
#include <limits>

namespace updraft {

// Of a number that nobody knows (a count stands beside a flag that says whether it counts).
inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

// What is believed about the link now, with its uncertainty.
struct LinkEstimate {
  // The last attempt succeeded, and not longer ago than kLinkValid_s: an old success says little of a moving car's
  // link. False while nothing was tried yet (then measured is false and consecutive_failures 0).
  bool reachable = false;
  bool measured = false;                     // at least one RTT sample
  double rtt_s = kUnknown;                   // smoothed round trip without the server's own time
  double rtt_jitter_s = kUnknown;            // smoothed absolute deviation
  double goodput_up_bytes_per_s = kUnknown;  // of transfers large enough to tell
  double goodput_down_bytes_per_s = kUnknown;
  int64_t samples = 0;
  double age_s = kUnknown;  // of the newest sample
  int consecutive_failures = 0;
};

inline constexpr double kLinkValid_s = 300.0;

// Mirrors updraft.v1.Load.
struct UpstreamLoad {
  bool known = false;  // it said so
  int running_requests = 0;
  int queued_requests = 0;
  int queued_tokens = 0;
  double kv_used_fraction = kUnknown;
  double predicted_wait_s = kUnknown;
  double decode_tokens_per_s = kUnknown;  // per request
  double prefill_tokens_per_s = kUnknown;
};

// One finished call as the caller saw it. Times in seconds on the caller's monotonic clock; bytes are payload bytes.
struct LinkSample {
  double time_s = 0.0;           // when the sample was completed
  double first_byte_s = 0.0;     // from sending the request to the first response
  double server_s = 0.0;         // the server's own share of first_byte_s (GenerateResponse.server_us)
  uint64_t bytes_up = 0;         // of the request
  uint64_t bytes_down = 0;       // of a bulk response; 0 when the response trickled at the server's pace
  double transfer_down_s = 0.0;  // time in which bytes_down arrived
};

// Exponentially smoothed RTT and deviation (Jacobson 1988; RFC 6298 gains). Goodput comes from transfers large enough
// to tell it from RTT, smoothed on a logarithmic scale with more weight for more recent and for longer transfers,
// because cellular rates vary by orders of magnitude and a prediction that is twice too high costs as much as one twice
// too low. A sample with impossible numbers is ignored. Not thread-safe.
class LinkEstimator {
 public:
  void OnSuccess(const LinkSample& sample);
  void OnFailure(double time_s);
  LinkEstimate Estimate(double now_s) const;

 private:
  struct Rate {
    double log_bytes_per_s = 0.0;
    double time_s = 0.0;
    bool measured = false;
    void Add(double bytes, double seconds, double now_s);
    double value() const;
  };

  void AddRoundTrip(double rtt_s);

  LinkEstimate state_;
  Rate up_, down_;
  double last_sample_s_ = 0.0;
};

}  // namespace updraft
