#include "deploy/evaluate/perplexity.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

// Rows of logits held at once: a vocabulary of 150,000 makes 20 MB of them.
constexpr int kRowsAtOnce = 32;

absl::Status Check(std::span<LogitsSource* const> sources, std::span<const int32_t> tokens,
                   const EvaluationOptions& options) {
  const ModelConfig& config = sources[0]->config();
  if (options.context < 4 || options.context > config.context_length) {
    return absl::InvalidArgumentError(absl::StrFormat("context: expected 4 to the %d tokens of model '%s', found %d",
                                                      config.context_length, config.name, options.context));
  }
  if (tokens.size() < 2 * static_cast<size_t>(options.context)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("evaluation needs at least two chunks of %d tokens, the text has %d tokens; use a longer text "
                        "or a shorter context",
                        options.context, tokens.size()));
  }
  for (const LogitsSource* source : sources) {
    if (source->config().n_vocab != config.n_vocab) {
      return absl::InvalidArgumentError(
          absl::StrFormat("models '%s' and '%s' have vocabularies of %d and %d tokens; compare models that share one",
                          config.name, source->config().name, config.n_vocab, source->config().n_vocab));
    }
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config.n_vocab) {
      return absl::InvalidArgumentError(absl::StrFormat("token id: expected 0 to %d for model '%s', found %d",
                                                        config.n_vocab - 1, config.name, token));
    }
  }
  return absl::OkStatus();
}

}  // namespace

double LogMass(std::span<const float> logits) {
  const float peak = *std::max_element(logits.begin(), logits.end());
  double mass = 0;
  for (const float x : logits) mass += std::exp(static_cast<double>(x) - peak);
  return peak + std::log(mass);
}

absl::StatusOr<int> ForEachScoredPosition(std::span<LogitsSource* const> sources, std::span<const int32_t> tokens,
                                          const EvaluationOptions& options,
                                          const std::function<void(const ScoredPosition&)>& visit) {
  if (absl::Status status = Check(sources, tokens, options); !status.ok()) return status;
  const int n_chunks_max = static_cast<int>(tokens.size() / options.context);
  const int n_chunks = options.chunks > 0 ? std::min(options.chunks, n_chunks_max) : n_chunks_max;
  const size_t n_vocab = sources[0]->config().n_vocab;
  std::vector<std::vector<float>> logits(sources.size(), std::vector<float>(kRowsAtOnce * n_vocab));
  std::vector<std::span<const float>> row(sources.size());

  for (int chunk = 0; chunk < n_chunks; ++chunk) {
    const std::span<const int32_t> text = tokens.subspan(static_cast<size_t>(chunk) * options.context, options.context);
    std::vector<int32_t> input(text.begin(), text.end());
    if (options.bos.has_value()) input[0] = *options.bos;
    for (LogitsSource* source : sources) {
      if (absl::Status status = source->Run(input); !status.ok()) return status;
    }
    // The last position predicts a token of the next chunk, which is not scored.
    const int end = options.context - 1;
    for (int first = options.context / 2; first < end; first += kRowsAtOnce) {
      const int n_rows = std::min(kRowsAtOnce, end - first);
      for (size_t s = 0; s < sources.size(); ++s) {
        if (absl::Status status = sources[s]->Logits(first, n_rows, logits[s]); !status.ok()) return status;
      }
      for (int r = 0; r < n_rows; ++r) {
        for (size_t s = 0; s < sources.size(); ++s)
          row[s] = std::span<const float>(logits[s]).subspan(r * n_vocab, n_vocab);
        visit({.logits = row, .next = text[first + r + 1]});
      }
    }
    if (options.progress) options.progress(chunk + 1, n_chunks);
  }
  return n_chunks;
}

absl::StatusOr<PerplexityResult> Perplexity(LogitsSource& source, std::span<const int32_t> tokens,
                                            const EvaluationOptions& options) {
  PerplexityResult result;
  double sum = 0;
  double squares = 0;
  LogitsSource* const sources[] = {&source};
  const absl::StatusOr<int> chunks =
      ForEachScoredPosition(sources, tokens, options, [&](const ScoredPosition& position) {
        const std::span<const float> logits = position.logits[0];
        const double nll = LogMass(logits) - logits[position.next];
        sum += nll;
        squares += nll * nll;
        ++result.tokens;
      });
  if (!chunks.ok()) return chunks.status();
  const double n = static_cast<double>(result.tokens);
  result.chunks = *chunks;
  result.nll = sum / n;
  result.perplexity = std::exp(result.nll);
  const double variance = std::max(0.0, squares / n - result.nll * result.nll);
  result.perplexity_error = result.tokens > 1 ? result.perplexity * std::sqrt(variance / (n - 1)) : 0.0;
  return result;
}

absl::StatusOr<PerplexityResult> Perplexity(const Model& model, std::span<const int32_t> tokens,
                                            const EvaluationOptions& options) {
  absl::StatusOr<std::unique_ptr<ModelSource>> source = ModelSource::Create(&model, options.context, options.kv_type);
  if (!source.ok()) return source.status();
  return Perplexity(**source, tokens, options);
}

}  // namespace updraft
