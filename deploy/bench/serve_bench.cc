#include "deploy/bench/serve_bench.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/clock/steady.h"
#include "common/rpc/inference_client.h"
#include "common/sync/mutex.h"
#include "deploy/bench/openai_stream.h"

namespace updraft {
namespace {

struct RequestTimes {
  int64_t tokens = 0;
  double first_ms = 0, total_ms = 0;
  std::vector<double> gaps_ms;
};

// One way of sending a request; thread-safe.
class Target {
 public:
  virtual ~Target() = default;
  virtual absl::StatusOr<RequestTimes> Send(uint64_t seed) = 0;
};

// What one request asks for.
struct Ask {
  Ask(const ServeBenchOptions& options, uint64_t seed) : random(seed) {
    const auto drawn = [&](int n) {
      const double factor = std::uniform_real_distribution<double>(1.0 - options.vary, 1.0 + options.vary)(random);
      return std::max(1, static_cast<int>(std::lround(n * factor)));
    };
    n_prompt = drawn(options.prompt_tokens);
    n_output = drawn(options.output_tokens);
    n_shared = static_cast<int>(options.shared_prefix * n_prompt);
    shared_seed = options.seed;
  }
  // A number for token i of the prompt: of the shared beginning the same in every request.
  uint64_t NumberOf(int i) {
    return i < n_shared ? std::mt19937_64(shared_seed * 1000003 + static_cast<uint64_t>(i))() : random();
  }

  std::mt19937_64 random;
  uint64_t shared_seed = 0;
  int n_prompt = 0, n_output = 0, n_shared = 0;
};

class GrpcTarget : public Target {
 public:
  static absl::StatusOr<std::unique_ptr<Target>> Create(const ServeBenchOptions& options) {
    auto target = std::make_unique<GrpcTarget>(options);
    auto status = target->client_.GetStatus(absl::Seconds(5));
    if (!status.ok()) return status.status();
    target->fingerprint_ = status->model().tokenizer_fingerprint();
    return target;
  }
  explicit GrpcTarget(const ServeBenchOptions& options) : options_(options), client_(options.grpc) {}

  absl::StatusOr<RequestTimes> Send(uint64_t seed) override {
    Ask ask(options_, seed);
    v1::GenerateRequest request;
    request.mutable_tokens()->set_tokenizer_fingerprint(fingerprint_);
    // Ids of the first 256 regular tokens exist in every vocabulary worth serving.
    for (int i = 0; i < ask.n_prompt; ++i) {
      request.mutable_tokens()->add_ids(static_cast<int32_t>(4 + ask.NumberOf(i) % 252));
    }
    request.set_max_tokens(ask.n_output);
    request.mutable_sampling()->set_temperature(1.0f);
    request.mutable_sampling()->set_seed(seed);
    auto answer = client_.Generate(request, options_.timeout);
    if (!answer.ok()) return answer.status();
    RequestTimes times;
    times.tokens = static_cast<int64_t>(answer->tokens.size());
    times.first_ms = absl::ToDoubleMilliseconds(answer->first_chunk);
    times.total_ms = absl::ToDoubleMilliseconds(answer->total);
    for (absl::Duration gap : answer->gaps) times.gaps_ms.push_back(absl::ToDoubleMilliseconds(gap));
    return times;
  }

 private:
  const ServeBenchOptions& options_;
  InferenceClient client_;
  std::string fingerprint_;
};

class OpenAiTarget : public Target {
 public:
  static absl::StatusOr<std::unique_ptr<Target>> Create(const ServeBenchOptions& options) {
    auto http = ParseHttpTarget(options.openai);
    if (!http.ok()) return http.status();
    std::string model = options.openai_model;
    if (model.empty()) {
      auto first = FirstModel(*http, absl::Seconds(5));
      if (!first.ok()) return first.status();
      model = *first;
    }
    return std::make_unique<OpenAiTarget>(options, *http, model);
  }
  OpenAiTarget(const ServeBenchOptions& options, HttpTarget http, std::string model)
      : options_(options), http_(std::move(http)), model_(std::move(model)) {}

  absl::StatusOr<RequestTimes> Send(uint64_t seed) override {
    static constexpr const char* kWords[] = {"the ", "road ", "and ", "car ", "is ", "far ", "from ", "home "};
    Ask ask(options_, seed);
    std::string prompt;
    for (int i = 0; i < ask.n_prompt; ++i) prompt += kWords[ask.NumberOf(i) % std::size(kWords)];
    const nlohmann::json body = {{"model", model_},    {"prompt", prompt}, {"max_tokens", ask.n_output},
                                 {"temperature", 1.0}, {"seed", seed},     {"stream", true},
                                 {"ignore_eos", true}};
    RequestTimes times;
    const SteadyTime start = SteadyNow();
    SteadyTime previous = start;
    const absl::Status status = StreamCompletion(http_, body.dump(), options_.timeout, [&](const std::string& event) {
      if (!CarriesText(event)) return;
      const SteadyTime now = SteadyNow();
      if (times.tokens++ == 0) {
        times.first_ms = absl::ToDoubleMilliseconds(now - start);
      } else {
        times.gaps_ms.push_back(absl::ToDoubleMilliseconds(now - previous));
      }
      previous = now;
    });
    if (!status.ok()) return status;
    times.total_ms = absl::ToDoubleMilliseconds(SteadyNow() - start);
    return times;
  }

 private:
  const ServeBenchOptions& options_;
  HttpTarget http_;
  std::string model_;
};

// Start offsets of all requests: Poisson arrivals at `rate`, or all at once (then concurrency alone limits).
std::vector<absl::Duration> Arrivals(const ServeBenchOptions& options) {
  std::vector<absl::Duration> arrivals(options.requests, absl::ZeroDuration());
  if (options.rate <= 0.0) return arrivals;
  std::mt19937_64 random(options.seed);
  std::exponential_distribution<double> gap(options.rate);
  double at = 0.0;
  for (absl::Duration& arrival : arrivals) arrival = absl::Seconds(at += gap(random));
  return arrivals;
}

absl::Status Validate(const ServeBenchOptions& options) {
  if (options.grpc.empty() == options.openai.empty()) {
    return absl::InvalidArgumentError("bench serve: give exactly one of --grpc HOST:PORT and --openai URL");
  }
  if (options.concurrency < 1 || options.concurrency > 4096 || options.requests < 1 || options.prompt_tokens < 1 ||
      options.output_tokens < 1 || !(options.rate >= 0.0) ||
      !(options.shared_prefix >= 0.0 && options.shared_prefix < 1.0) || !(options.vary >= 0.0 && options.vary < 1.0)) {
    return absl::InvalidArgumentError(
        "bench serve: --concurrency must be in [1, 4096], --requests, --prompt-tokens and "
        "--output-tokens at least 1, --rate at least 0, --shared-prefix and --vary in [0, 1)");
  }
  return absl::OkStatus();
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](double p) {
    const auto index = static_cast<size_t>(std::ceil(p * static_cast<double>(values.size())));
    return values[std::clamp<size_t>(index, 1, values.size()) - 1];
  };
  return {rank(0.50), rank(0.95), rank(0.99)};
}

absl::StatusOr<ServeBenchResult> RunServeBench(const ServeBenchOptions& options) {
  if (absl::Status status = Validate(options); !status.ok()) return status;
  auto target = options.grpc.empty() ? OpenAiTarget::Create(options) : GrpcTarget::Create(options);
  if (!target.ok()) return target.status();

  const std::vector<absl::Duration> arrivals = Arrivals(options);
  std::atomic<int> next{0};
  struct {
    Mutex mu;
    ServeBenchResult result ABSL_GUARDED_BY(mu);
    std::vector<double> ttft ABSL_GUARDED_BY(mu), itl ABSL_GUARDED_BY(mu), latency ABSL_GUARDED_BY(mu);
  } all;
  const SteadyTime start = SteadyNow();
  const auto worker = [&] {
    for (int i; (i = next.fetch_add(1)) < options.requests;) {
      absl::SleepFor(start + arrivals[i] - SteadyNow());
      // With a given rate, time counts from the planned arrival, so that a saturated server cannot hide its queue.
      const absl::Duration late = options.rate > 0.0 ? SteadyNow() - (start + arrivals[i]) : absl::ZeroDuration();
      auto times = (*target)->Send(options.seed + static_cast<uint64_t>(i));
      MutexLock lock(all.mu);
      if (!times.ok()) {
        if (all.result.errors++ == 0) all.result.first_error = times.status().ToString();
        continue;
      }
      ++all.result.completed;
      all.result.output_tokens += times->tokens;
      all.ttft.push_back(times->first_ms + absl::ToDoubleMilliseconds(late));
      all.latency.push_back(times->total_ms + absl::ToDoubleMilliseconds(late));
      all.itl.insert(all.itl.end(), times->gaps_ms.begin(), times->gaps_ms.end());
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < std::min(options.concurrency, options.requests); ++i) threads.emplace_back(worker);
  for (std::thread& thread : threads) thread.join();
  MutexLock lock(all.mu);
  all.result.seconds = absl::ToDoubleSeconds(SteadyNow() - start);
  all.result.output_tok_s = static_cast<double>(all.result.output_tokens) / all.result.seconds;
  all.result.ttft_ms = PercentilesOf(std::move(all.ttft));
  all.result.itl_ms = PercentilesOf(std::move(all.itl));
  all.result.latency_ms = PercentilesOf(std::move(all.latency));
  return all.result;
}

}  // namespace updraft
