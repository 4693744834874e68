#include "deploy/calibrate/judge.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "common/sync/mutex.h"
#include "common/text/field_hasher.h"

namespace updraft {
namespace {

using nlohmann::json;

constexpr std::string_view kAnswerKind = "upstream answers", kGapKind = "upstream's likelihoods";

// ---- Findings as text ---------------------------------------------------------------------------------------------

std::string ToText(const UpstreamAnswer& answer) {
  return json({{"text", answer.text}, {"finished", answer.finished}})
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

bool FromText(const std::string& text, UpstreamAnswer* answer) {
  const json object = json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("text") || !object["text"].is_string() || !object.contains("finished") ||
      !object["finished"].is_boolean()) {
    return false;
  }
  *answer = {object["text"].get<std::string>(), object["finished"].get<bool>()};
  return true;
}

// By how many nats per token upstream finds its own answer likelier.
std::string ToText(double gap) { return absl::StrFormat("%.17g", gap); }
bool FromText(const std::string& text, double* gap) { return absl::SimpleAtod(text, gap) && std::isfinite(*gap); }

// What the progress file has, or `find_out` says, which is kept there then.
template <typename T>
absl::StatusOr<T> Known(std::string_view kind, const std::string& key, const JudgeOptions& options,
                        const std::function<absl::StatusOr<T>()>& find_out) {
  if (options.progress != nullptr) {
    const auto found = options.progress->Find(kind, key);
    T known;
    if (found && FromText(*found, &known)) return known;  // what cannot be read is found out again
  }
  auto finding = find_out();
  if (!finding.ok() || options.progress == nullptr) return finding;
  if (absl::Status status = options.progress->Add(kind, key, ToText(*finding)); !status.ok()) return status;
  return finding;
}

// Calls `find_out(i)` for 0 <= i < n on several threads until one fails.
absl::Status ForEach(std::string_view stage, int n, const JudgeOptions& options,
                     const std::function<absl::Status(int)>& find_out) {
  std::atomic<int> next = 0;
  struct {
    Mutex mu;  // guards calls of on_progress, too
    absl::Status first_error ABSL_GUARDED_BY(mu);
    int done ABSL_GUARDED_BY(mu) = 0;
  } all;
  const auto work = [&] {
    for (int i = next++; i < n; i = next++) {
      const absl::Status status = find_out(i);
      MutexLock lock(all.mu);
      if (!status.ok()) {
        if (all.first_error.ok()) all.first_error = status;
        next = n;
        return;
      }
      ++all.done;
      if (options.on_progress) options.on_progress(std::string(stage), all.done, n);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < std::clamp(options.n_workers, 1, std::max(n, 1)); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  MutexLock lock(all.mu);
  if (all.first_error.ok()) return absl::OkStatus();
  return absl::Status(
      all.first_error.code(),
      absl::StrFormat("%s: after %d of %d: %s%s", stage, all.done, n, std::string(all.first_error.message()),
                      options.progress == nullptr
                          ? ""
                          : absl::StrFormat("; what is known by now is in '%s': the same command goes on from there",
                                            options.progress->path())));
}

// The status with the prompt that it is of.
absl::Status OfPrompt(const TaskItem& item, int i, const absl::Status& status) {
  return absl::Status(
      status.code(),
      absl::StrFormat("prompt %d%s: %s", i + 1, item.id.empty() ? "" : absl::StrFormat(" (%s)", item.id.substr(0, 80)),
                      std::string(status.message())));
}

// A word without the quotes, brackets and sentence marks around it. What tells numbers and formulas apart stays: -5 is
// not 5, nor 3.5 35, nor 5! 5; a word of marks alone stays whole.
std::string_view WithoutMarks(std::string_view word) {
  static constexpr std::string_view kBefore = "\"'`([{", kAfter = "\"'`)]}.,;:!?";
  const std::string_view whole = word;
  while (!word.empty() && kBefore.find(word.front()) != std::string_view::npos) word.remove_prefix(1);
  while (!word.empty() && kAfter.find(word.back()) != std::string_view::npos) {
    const bool factorial =
        word.back() == '!' && word.size() > 1 && absl::ascii_isdigit(static_cast<unsigned char>(word[word.size() - 2]));
    if (factorial) break;
    word.remove_suffix(1);
  }
  for (const std::string_view mark : {"\u3002", "\uff0c", "\uff01", "\uff1f"}) {  // of Chinese
    if (word.size() > mark.size() && word.substr(word.size() - mark.size()) == mark) word.remove_suffix(mark.size());
  }
  return word.empty() ? whole : word;
}

// Words in lower case, one space between them.
std::string Normalized(std::string_view text) {
  static constexpr std::string_view kSpaces = " \t\r\n";
  std::string normalized;
  size_t end = 0;
  for (size_t begin = text.find_first_not_of(kSpaces); begin != std::string_view::npos;
       begin = text.find_first_not_of(kSpaces, end)) {
    end = std::min(text.find_first_of(kSpaces, begin), text.size());
    if (!normalized.empty()) normalized += ' ';
    for (const char c : WithoutMarks(text.substr(begin, end - begin))) {
      normalized += absl::ascii_tolower(static_cast<unsigned char>(c));
    }
  }
  return normalized;
}

// A question in place of an answer is asked for want of a better one: what upstream would have done is the first that
// it offers. Its words are nobody's answer, and how likely they are says nothing.
bool IsUpstreams(std::string_view answer, std::string_view upstream) {
  if (!EffectOf(upstream).asks_back) return SameAnswer(answer, upstream);
  if (EffectOf(answer).asks_back) return true;
  const std::vector<std::string> offered = AlternativesOf(upstream);
  return !offered.empty() && SameAnswer(answer, offered.front());
}

absl::StatusOr<std::vector<UpstreamAnswer>> AskAll(Upstream& upstream, std::span<const TaskItem> items,
                                                   const JudgeOptions& options) {
  std::vector<UpstreamAnswer> answers(items.size());
  const absl::Status asked = ForEach(kAnswerKind, static_cast<int>(items.size()), options, [&](int i) -> absl::Status {
    auto answer = Known<UpstreamAnswer>(kAnswerKind, KeyOf(items[i].messages), options,
                                        [&] { return upstream.Answer(items[i].messages); });
    if (!answer.ok()) return OfPrompt(items[i], i, answer.status());
    answers[i] = *std::move(answer);
    return absl::OkStatus();
  });
  if (!asked.ok()) return asked;
  if (absl::Status status = upstream.CheckSame(); !status.ok()) return status;
  return answers;
}

absl::StatusOr<double> GapBetween(Upstream& upstream, const Conversation& conversation, const std::string& own,
                                  const std::string& other) {
  const auto of_own = upstream.LikelihoodOf(conversation, own);
  if (!of_own.ok()) return of_own.status();
  const auto of_other = upstream.LikelihoodOf(conversation, other);
  if (!of_other.ok()) return of_other.status();
  if (of_own->n_tokens == 0 || of_other->n_tokens == 0) {
    return absl::UnimplementedError("an answer without a token has no likelihood");
  }
  return of_own->per_token() - of_other->per_token();
}

// which: of the items, those whose answers differ.
absl::Status JudgeByLikelihood(Upstream& upstream, std::span<const TaskItem> items, std::span<const Said> answers,
                               const std::vector<int>& which, const JudgeOptions& options,
                               std::vector<Judgement>& judgements) {
  std::atomic<bool> is_silent = false;
  const absl::Status scored = ForEach(kGapKind, static_cast<int>(which.size()), options, [&](int k) -> absl::Status {
    const int i = which[k];
    Judgement& judgement = judgements[i];
    // Of these two answers: another build, or other exits, may give another.
    const std::string key = KeyOf({{KeyOf(items[i].messages), judgement.upstream}, {"", answers[i].text}});
    const auto gap = Known<double>(kGapKind, key, options, [&] {
      return GapBetween(upstream, items[i].messages, judgement.upstream, answers[i].text);
    });
    if (absl::IsUnimplemented(gap.status()) || absl::IsOutOfRange(gap.status())) {
      if (!is_silent.exchange(true) && options.on_silent) options.on_silent(std::string(gap.status().message()));
      return absl::OkStatus();
    }
    if (!gap.ok()) return OfPrompt(items[i], i, gap.status());
    judgement.by = JudgedBy::kLikelihood;
    judgement.gap = *gap;
    judgement.right = *gap <= options.likelihood_margin;
    return absl::OkStatus();
  });
  if (!scored.ok()) return scored;
  return which.empty() ? absl::OkStatus() : upstream.CheckSame();
}

}  // namespace

std::string_view NameOf(JudgedBy by) {
  switch (by) {
    case JudgedBy::kLabel:
      return "label";
    case JudgedBy::kEquality:
      return "equality";
    case JudgedBy::kLikelihood:
      return "likelihood";
    case JudgedBy::kDifference:
      return "difference";
  }
  return "label";
}

bool SameAnswer(std::string_view a, std::string_view b) {
  return a == b || cockpit::ExactMatch(a, b) || Normalized(a) == Normalized(b);
}

std::string KeyOf(const Conversation& conversation) {
  text::FieldHasher hasher;
  for (const text::ChatMessage& message : conversation) {
    hasher.Add(message.role);
    hasher.Add(message.content);
  }
  return hasher.Finish().value_or("");
}

absl::StatusOr<std::vector<Judgement>> JudgeAgainst(Upstream& upstream, std::span<const TaskItem> items,
                                                    std::span<const Said> answers, const JudgeOptions& options) {
  auto upstreams = AskAll(upstream, items, options);
  if (!upstreams.ok()) return upstreams.status();
  std::vector<Judgement> judgements(items.size());
  std::vector<int> different;  // those that likelihood is to judge
  for (size_t i = 0; i < items.size(); ++i) {
    Judgement& judgement = judgements[i];
    judgement.upstream = (*upstreams)[i].text;
    if (items[i].labelled) {
      judgement.right = IsCorrect(items[i], answers[i].text);
      judgement.upstream_right = IsCorrect(items[i], judgement.upstream);
    } else if (IsUpstreams(answers[i].text, judgement.upstream)) {
      judgement.by = JudgedBy::kEquality;
      judgement.right = true;
    } else {
      judgement.by = JudgedBy::kDifference;
      const bool whole = answers[i].finished && (*upstreams)[i].finished;
      const bool asks = EffectOf(answers[i].text).asks_back || EffectOf(judgement.upstream).asks_back;
      if (whole && !asks) different.push_back(static_cast<int>(i));
    }
  }
  if (absl::Status status = JudgeByLikelihood(upstream, items, answers, different, options, judgements); !status.ok()) {
    return status;
  }
  return judgements;
}

}  // namespace updraft
