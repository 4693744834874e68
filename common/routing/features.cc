#include <algorithm>
#include <cmath>

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

}  // namespace

std::span<const std::string_view> AnswerFeatures::Names() { return kNames; }

AnswerFeatures FeaturesOf(std::span<const TokenEvidence> evidence, const PromptFeatures& prompt, int n_layer) {
  const int n = static_cast<int>(evidence.size());
  double sum_logprob = 0.0, opening_logprob = 0.0, min_logprob = 0.0, max_entropy = 0.0;
  double margins[3] = {1.0, 1.0, 1.0};  // the three smallest, ascending
  int low_margin = 0, early = 0;
  for (int i = 0; i < n; ++i) {
    const TokenEvidence& token = evidence[i];
    const double logprob = std::clamp(Finite(token.logprob, kLogprobFloor), kLogprobFloor, 0.0);
    const double margin = std::clamp(Finite(token.margin, 0.0), 0.0, 1.0);
    sum_logprob += logprob;
    if (i < (n + 1) / 2) opening_logprob += logprob;
    min_logprob = std::min(min_logprob, logprob);
    max_entropy = std::max(max_entropy, std::clamp(Finite(token.entropy, 20.0), 0.0, 20.0));
    low_margin += margin < kLowMargin ? 1 : 0;
    early += token.exit_layer < n_layer ? 1 : 0;
    if (margin < margins[2]) {
      margins[2] = margin;
      std::sort(std::begin(margins), std::end(margins));
    }
  }
  if (n == 0) {
    sum_logprob = opening_logprob = min_logprob = kLogprobFloor;
    margins[0] = margins[1] = margins[2] = 0.0;
    max_entropy = 20.0;
  }
  const double tokens = std::max(n, 1);
  const double values[AnswerFeatures::kCount] = {
      sum_logprob / tokens,
      LogitOfLogprob(sum_logprob),
      LogitOfLogprob(opening_logprob),
      LogitOfLogprob(min_logprob),
      LogitOfMargin(margins[0]),
      LogitOfMargin(margins[2]),
      std::log1p(low_margin),
      max_entropy,
      early / tokens,
      std::log1p(n),
      std::log1p(std::max(prompt.n_digits, 0)),
      std::log1p(std::max(prompt.n_turns, 0)),
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
