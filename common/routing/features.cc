#include <algorithm>
#include <cmath>
#include <limits>

#include "common/routing/confidence.h"

namespace updraft {
namespace {

constexpr double kLogprobFloor = -20.0;  // a token below this probability tells no more than one at it
constexpr double kLowMargin = 0.5;

constexpr std::string_view kNames[AnswerFeatures::kCount] = {
    "mean_logprob",        // of the chosen tokens, nats
    "sequence_logit",      // log-odds of the product of all chosen tokens' probabilities
    "opening_logit",       // the same over the first half of the tokens
    "min_token_logit",     // log-odds of the least likely chosen token
    "min_margin_logit",    // log-odds of the smallest margin
    "third_margin_logit",  // log-odds of the third smallest margin: one doubtful word is wording, three are doubt
    "log_low_margin",      // log(1 + tokens with a margin below 0.5)
    "max_entropy",         // nats
    "early_exit_share",    // of tokens
    "log_answer_tokens",   // log(1 + tokens)
    "log_prompt_digits",   // log(1 + digits in the last user message)
    "log_turns",           // log(1 + user turns)
    // The same of the tokens that begin in what acts alone. A reply may be worded in many ways, and most doubt is about
    // words (docs/PEOPLE.md has what these brought).
    "acting_mean_logprob", "acting_sequence_logit", "acting_min_token_logit", "acting_min_margin_logit",
    "acting_third_margin_logit", "acting_log_low_margin", "acting_max_entropy", "acting_log_tokens",
    "log_settings",  // log(1 + settings)
    "calls",         // 0 or 1
    "refuses",       // 0 or 1
};

double Finite(double value, double otherwise) { return std::isfinite(value) ? value : otherwise; }

// Log-odds of exp(logprob): linear in the logprob when it is small, and it still tells 0.99 from 0.9999, where most
// tokens are.
double LogitOfLogprob(double logprob) {
  const double surprise = std::clamp(-logprob, 1e-5, 30.0);
  return -std::log(std::expm1(surprise));
}

double LogitOfMargin(double margin) {
  constexpr double kSoft = 1e-4;
  const double m = std::clamp(margin, 0.0, 1.0);
  return std::log((m + kSoft) / (1.0 - m + kSoft));
}

// Of some of an answer's tokens.
struct Summary {
  int n = 0;
  double sum_logprob = 0.0, opening_logprob = 0.0, min_logprob = 0.0, max_entropy = 0.0;
  double margins[3] = {1.0, 1.0, 1.0};  // the three smallest, ascending
  int n_low_margin = 0, n_early = 0;
};

// evidence: tokens of the answer from its first; those that begin at text_bytes or later do not count.
Summary SummaryOf(std::span<const TokenEvidence> evidence, size_t text_bytes, int n_layer) {
  Summary summary;
  const auto counts = [text_bytes](const TokenEvidence& token) { return token.text_offset < text_bytes; };
  const auto n = std::count_if(evidence.begin(), evidence.end(), counts);
  for (const TokenEvidence& token : evidence) {
    if (!counts(token)) continue;
    const double logprob = std::clamp(Finite(token.logprob, kLogprobFloor), kLogprobFloor, 0.0);
    const double margin = std::clamp(Finite(token.margin, 0.0), 0.0, 1.0);
    summary.sum_logprob += logprob;
    if (summary.n < (n + 1) / 2) summary.opening_logprob += logprob;
    summary.min_logprob = std::min(summary.min_logprob, logprob);
    summary.max_entropy = std::max(summary.max_entropy, std::clamp(Finite(token.entropy, 20.0), 0.0, 20.0));
    summary.n_low_margin += margin < kLowMargin ? 1 : 0;
    summary.n_early += token.exit_layer < n_layer ? 1 : 0;
    if (margin < summary.margins[2]) {
      summary.margins[2] = margin;
      std::sort(std::begin(summary.margins), std::end(summary.margins));
    }
    ++summary.n;
  }
  if (summary.n > 0) return summary;
  summary.sum_logprob = summary.opening_logprob = summary.min_logprob = kLogprobFloor;
  summary.margins[0] = summary.margins[1] = summary.margins[2] = 0.0;
  summary.max_entropy = 20.0;
  return summary;
}

}  // namespace

std::span<const std::string_view> AnswerFeatures::Names() { return kNames; }

AnswerFeatures FeaturesOf(std::span<const TokenEvidence> evidence, const PromptFeatures& prompt, int n_layer,
                          const AnswerShape& shape) {
  const Summary all = SummaryOf(evidence, std::numeric_limits<size_t>::max(), n_layer);
  const Summary acting = SummaryOf(evidence, shape.acting_bytes, n_layer);
  const double values[AnswerFeatures::kCount] = {
      all.sum_logprob / std::max(all.n, 1),
      LogitOfLogprob(all.sum_logprob),
      LogitOfLogprob(all.opening_logprob),
      LogitOfLogprob(all.min_logprob),
      LogitOfMargin(all.margins[0]),
      LogitOfMargin(all.margins[2]),
      std::log1p(all.n_low_margin),
      all.max_entropy,
      static_cast<double>(all.n_early) / std::max(all.n, 1),
      std::log1p(all.n),
      std::log1p(std::max(prompt.n_digits, 0)),
      std::log1p(std::max(prompt.n_turns, 0)),
      acting.sum_logprob / std::max(acting.n, 1),
      LogitOfLogprob(acting.sum_logprob),
      LogitOfLogprob(acting.min_logprob),
      LogitOfMargin(acting.margins[0]),
      LogitOfMargin(acting.margins[2]),
      std::log1p(acting.n_low_margin),
      acting.max_entropy,
      std::log1p(acting.n),
      std::log1p(std::max(shape.n_settings, 0)),
      shape.calls ? 1.0 : 0.0,
      shape.refuses ? 1.0 : 0.0,
  };
  AnswerFeatures features;
  for (int i = 0; i < AnswerFeatures::kCount; ++i) features.values[i] = static_cast<float>(values[i]);
  return features;
}

PromptFeatures PromptFeaturesOf(std::span<const std::string_view> user_messages, int n_prompt_tokens) {
  PromptFeatures features;
  features.n_prompt_tokens = n_prompt_tokens;
  features.n_turns = static_cast<int>(user_messages.size());
  if (!user_messages.empty()) {
    const std::string_view last = user_messages.back();
    features.n_digits =
        static_cast<int>(std::count_if(last.begin(), last.end(), [](char c) { return c >= '0' && c <= '9'; }));
  }
  return features;
}

}  // namespace updraft
