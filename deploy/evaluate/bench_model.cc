#include "deploy/evaluate/bench_model.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "common/model/step_status.h"

namespace updraft {
namespace {

constexpr int kBlockTokens = 16;

int BlocksFor(int n_tokens) { return (n_tokens + kBlockTokens - 1) / kBlockTokens; }

class Runner {
 public:
  // The pool holds BlocksFor(longest) blocks for each sequence.
  Runner(const Model& model, std::unique_ptr<KvPool> pool, int n_sequences)
      : model_(model), pool_(std::move(pool)), blocks_per_sequence_(pool_->n_blocks() / n_sequences) {
    blocks_.resize(pool_->n_blocks());
    std::iota(blocks_.begin(), blocks_.end(), 0);
  }

  // Reads n tokens of one sequence in passes of at most `batch` rows, with the head for the last one. Seconds it took.
  double Prefill(int n, int batch) {
    return SecondsOf([&] {
      for (int done = 0; done < n; done += batch) {
        for (int t = done; t < std::min(n, done + batch); ++t) AddRow(0, t);
        Pass(done + batch < n ? 0 : 1);
      }
      Head(1);
    });
  }

  // Writes n tokens of every sequence, one of each per pass. Seconds it took.
  double Decode(int n, int n_sequences) {
    return SecondsOf([&] {
      for (int t = 0; t < n; ++t) {
        for (int s = 0; s < n_sequences; ++s) AddRow(s, t);
        Pass(n_sequences);
        Head(n_sequences);
      }
    });
  }

  // Of all passes so far.
  const absl::Status& status() const { return status_; }

 private:
  template <typename Body>
  static double SecondsOf(const Body& body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void AddRow(int sequence, int position) {
    // Spread over the embedding.
    tokens_.push_back(
        static_cast<int32_t>((int64_t{position} * 7919 + sequence * 104729 + 17) % model_.config().n_vocab));
    positions_.push_back(position);
    tables_.push_back(blocks_.data() + static_cast<ptrdiff_t>(sequence) * blocks_per_sequence_);
  }

  // The added rows through all layers; the state of the last n_wanted is wanted.
  void Pass(int n_wanted) {
    const ModelConfig& c = model_.config();
    n_hidden_ = tokens_.size() * c.d_model;
    kernels::GrowTo(model_.ops(), n_hidden_ * sizeof(float), hidden_);
    wanted_.resize(n_wanted);
    std::iota(wanted_.begin(), wanted_.end(), static_cast<int32_t>(tokens_.size()) - n_wanted);
    Forward(model_, {.tokens = tokens_, .positions = positions_, .block_tables = tables_, .wanted = wanted_},
            {.from = 0, .to = c.n_layer}, {hidden_.floats(), n_hidden_}, pool_->store(), scratch_);
    tokens_.clear();
    positions_.clear();
    tables_.clear();
  }

  // Of the last n_rows rows of the last pass.
  void Head(int n_rows) {
    const ModelConfig& c = model_.config();
    const size_t n_logits = static_cast<size_t>(n_rows) * c.n_vocab;
    if (hidden_ && kernels::GrowTo(model_.ops(), n_logits * sizeof(float), logits_)) {
      const std::span<const float> hidden(hidden_.floats(), n_hidden_);
      ComputeLogits(model_, -1, hidden.last(static_cast<size_t>(n_rows) * c.d_model), n_rows,
                    {logits_.floats(), n_logits});
    }
    status_.Update(TakeStepStatus(model_));  // waits until all is done
  }

  const Model& model_;
  std::unique_ptr<KvPool> pool_;
  int blocks_per_sequence_;
  Scratch scratch_;
  std::vector<int32_t> blocks_, tokens_, positions_, wanted_;
  std::vector<const int32_t*> tables_;
  kernels::Buffer hidden_, logits_;
  size_t n_hidden_ = 0;
  absl::Status status_;
};

Spread SpeedOf(int64_t n_tokens, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t n = seconds.size();
  const double median = n % 2 == 1 ? seconds[n / 2] : 0.5 * (seconds[n / 2 - 1] + seconds[n / 2]);
  const auto tokens = static_cast<double>(n_tokens);
  return {.median = tokens / median, .min = tokens / seconds.back(), .max = tokens / seconds.front()};
}

}  // namespace

absl::StatusOr<BenchModelResult> BenchModel(const Model& model, const BenchModelOptions& options) {
  const ModelConfig& c = model.config();
  if (options.prefill < 0 || options.decode < 0 || options.repeat < 1 || options.batch < 1 || options.sequences < 1 ||
      std::max(options.prefill, options.decode) < 1) {
    return absl::InvalidArgumentError(
        "bench: expected prefill or decode of at least 1, repeat, batch and sequences of at least 1");
  }
  const int longest = std::max(options.prefill, options.decode);
  if (longest > c.context_length) {
    return absl::InvalidArgumentError(absl::StrFormat("bench: expected at most the %d tokens of model '%s', found %d",
                                                      c.context_length, c.name, longest));
  }
  absl::StatusOr<std::unique_ptr<KvPool>> pool = KvPool::Create(
      model.ops(), c,
      {.n_blocks = options.sequences * BlocksFor(longest), .block_tokens = kBlockTokens, .type = options.kv_type});
  if (!pool.ok()) return pool.status();

  Runner runner(model, *std::move(pool), options.sequences);
  BenchModelResult result;
  result.bytes_per_token = model.bytes_per_token();
  if (options.prefill > 0) {
    runner.Prefill(options.prefill, options.batch);  // pages in the weights, grows the scratch
    std::vector<double> seconds;
    for (int i = 0; i < options.repeat; ++i) seconds.push_back(runner.Prefill(options.prefill, options.batch));
    result.prefill_tok_s = SpeedOf(options.prefill, std::move(seconds));
  }
  if (options.decode > 0) {
    runner.Decode(options.decode, options.sequences);
    kernels::BandwidthProbe probe(kernels::ChooseIsa(), model.ops().n_threads(), options.pin_threads);
    const double bytes = static_cast<double>(result.bytes_per_token) * options.decode;
    std::vector<double> seconds, roofs, fractions;
    probe.GbPerSecondNow();
    double before = probe.GbPerSecondNow();
    for (int i = 0; i < options.repeat; ++i) {
      seconds.push_back(runner.Decode(options.decode, options.sequences));
      const double after = probe.GbPerSecondNow();
      roofs.push_back((before + after) / 2);
      fractions.push_back(bytes * 1e-9 / seconds.back() / roofs.back());
      before = after;
    }
    result.decode_tok_s = SpeedOf(int64_t{options.decode} * options.sequences, std::move(seconds));
    const double passes_s = result.decode_tok_s.median / options.sequences;
    result.bandwidth_gb_s = static_cast<double>(result.bytes_per_token) * passes_s * 1e-9;
    result.roof_gb_s = kernels::SpreadOf(std::move(roofs)).median;
    result.roof_fraction = kernels::SpreadOf(std::move(fractions)).median;
  }
  if (!runner.status().ok()) return runner.status();
  return result;
}

}  // namespace updraft
