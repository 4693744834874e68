#include "deploy/evaluate/bench_model.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/model/forward.h"

namespace updraft {
namespace {

class Runner {
 public:
  Runner(const Model& model, std::unique_ptr<KvPool> pool) : model_(model), pool_(std::move(pool)) {
    blocks_.resize(pool_->n_blocks());
    for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = static_cast<int32_t>(i);
    logits_.resize(model.config().n_vocab);
  }

  // Runs n tokens in passes of at most `batch` rows. Seconds it took.
  double Run(int n, int batch, bool head_each_pass) {
    const auto start = std::chrono::steady_clock::now();
    for (int done = 0; done < n; done += batch) {
      Pass(done, std::min(batch, n - done));
      if (head_each_pass || done + batch >= n) Head(std::min(batch, n - done) - 1);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  void Pass(int first, int n_tok) {
    const ModelConfig& c = model_.config();
    tokens_.resize(n_tok);
    positions_.resize(n_tok);
    tables_.assign(n_tok, blocks_.data());
    for (int t = 0; t < n_tok; ++t) {
      positions_[t] = first + t;
      tokens_[t] = static_cast<int32_t>((int64_t{first + t} * 7919 + 17) % c.n_vocab);  // spread over the embedding
    }
    hidden_.resize(static_cast<size_t>(n_tok) * c.d_model);
    Forward(model_, {.tokens = tokens_, .positions = positions_, .block_tables = tables_}, {.from = 0, .to = c.n_layer},
            hidden_, *pool_, scratch_);
  }

  void Head(int row) {
    const size_t d_model = model_.config().d_model;
    ComputeLogits(model_, -1, std::span<const float>(hidden_).subspan(row * d_model, d_model), 1, logits_, scratch_);
  }

  const Model& model_;
  std::unique_ptr<KvPool> pool_;
  Scratch scratch_;
  std::vector<int32_t> blocks_, tokens_, positions_;
  std::vector<const int32_t*> tables_;
  std::vector<float> hidden_, logits_;
};

Spread SpeedOf(int n_tokens, std::vector<double> seconds) {
  std::sort(seconds.begin(), seconds.end());
  const size_t n = seconds.size();
  const double median = n % 2 == 1 ? seconds[n / 2] : 0.5 * (seconds[n / 2 - 1] + seconds[n / 2]);
  return {.median = n_tokens / median, .min = n_tokens / seconds.back(), .max = n_tokens / seconds.front()};
}

}  // namespace

absl::StatusOr<BenchModelResult> BenchModel(const Model& model, const BenchModelOptions& options) {
  const ModelConfig& c = model.config();
  if (options.prefill < 0 || options.decode < 0 || options.repeat < 1 || options.batch < 1 ||
      std::max(options.prefill, options.decode) < 1) {
    return absl::InvalidArgumentError(
        "bench: expected prefill or decode of at least 1, repeat and batch of at least 1");
  }
  const int longest = std::max(options.prefill, options.decode);
  if (longest > c.context_length) {
    return absl::InvalidArgumentError(absl::StrFormat("bench: expected at most the %d tokens of model '%s', found %d",
                                                      c.context_length, c.name, longest));
  }
  constexpr int kBlockTokens = 16;
  absl::StatusOr<std::unique_ptr<KvPool>> pool =
      KvPool::Create(c, {.n_blocks = (longest + kBlockTokens - 1) / kBlockTokens, .block_tokens = kBlockTokens});
  if (!pool.ok()) return pool.status();

  Runner runner(model, *std::move(pool));
  const auto measure = [&](int n, int batch, bool head_each_pass) {
    runner.Run(n, batch, head_each_pass);  // pages in the weights, grows the scratch
    std::vector<double> seconds;
    for (int i = 0; i < options.repeat; ++i) seconds.push_back(runner.Run(n, batch, head_each_pass));
    return SpeedOf(n, std::move(seconds));
  };
  BenchModelResult result;
  result.bytes_per_token = model.bytes_per_token();
  if (options.prefill > 0) result.prefill_tok_s = measure(options.prefill, options.batch, false);
  if (options.decode > 0) {
    result.decode_tok_s = measure(options.decode, 1, true);
    result.bandwidth_gb_s = static_cast<double>(result.bytes_per_token) * result.decode_tok_s.median * 1e-9;
  }
  return result;
}

}  // namespace updraft
