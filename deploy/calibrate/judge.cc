#include "deploy/calibrate/judge.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "common/sync/mutex.h"

namespace updraft {
namespace {

constexpr std::string_view kAnswerKind = "upstream answers", kGapKind = "upstream's likelihoods";

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

// What the progress file has, or `find_out` says, which is kept there then.
absl::StatusOr<std::string> Known(std::string_view kind, int i, const JudgeOptions& options,
                                  const std::function<absl::StatusOr<std::string>()>& find_out) {
  if (options.progress != nullptr) {
    if (auto found = options.progress->Find(kind, i)) return *std::move(found);
  }
  auto finding = find_out();
  if (!finding.ok() || options.progress == nullptr) return finding;
  if (absl::Status status = options.progress->Add(kind, i, *finding); !status.ok()) return status;
  return finding;
}

// The status with the prompt that it is of.
absl::Status OfPrompt(const TaskItem& item, int i, const absl::Status& status) {
  return absl::Status(
      status.code(),
      absl::StrFormat("prompt %d%s: %s", i + 1, item.id.empty() ? "" : absl::StrFormat(" (%s)", item.id.substr(0, 80)),
                      std::string(status.message())));
}

// Words without their case and the punctuation around them. What stands within one or before a digit stays: -5 is not
// 5, nor 3.5 35.
std::string Normalized(std::string_view text) {
  static constexpr std::string_view kBefore = "\"'`([{*_<", kAfter = "\"'`)]}*_>.,;:!?";
  static constexpr std::string_view kSpaces = " \t\r\n";
  std::string normalized;
  size_t end = 0;
  for (size_t begin = text.find_first_not_of(kSpaces); begin != std::string_view::npos;
       begin = text.find_first_not_of(kSpaces, end)) {
    end = std::min(text.find_first_of(kSpaces, begin), text.size());
    std::string_view word = text.substr(begin, end - begin);
    while (!word.empty() && kBefore.find(word.front()) != std::string_view::npos) word.remove_prefix(1);
    while (!word.empty() && kAfter.find(word.back()) != std::string_view::npos) word.remove_suffix(1);
    for (const std::string_view mark : {"\u3002", "\uff0c", "\uff01", "\uff1f"}) {  // of Chinese
      if (word.size() >= mark.size() && word.substr(word.size() - mark.size()) == mark) word.remove_suffix(mark.size());
    }
    if (word.empty()) continue;
    if (!normalized.empty()) normalized += ' ';
    for (const char c : word) normalized += absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  return normalized;
}

std::string GapText(const Likelihood& own, const Likelihood& other) {
  return nlohmann::json({{"own", own.per_token()}, {"other", other.per_token()}}).dump();
}

std::optional<double> GapOf(const std::string& text) {
  const auto object = nlohmann::json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!object.is_object() || !object.contains("own") || !object["own"].is_number() || !object.contains("other") ||
      !object["other"].is_number()) {
    return std::nullopt;
  }
  return object["own"].get<double>() - object["other"].get<double>();
}

// A question in place of an answer is asked for want of a better one: what upstream would have done is the first that
// it offers. Its words are nobody's answer, and how likely they are says nothing.
bool IsUpstreams(std::string_view answer, std::string_view upstream) {
  if (!EffectOf(upstream).asks_back) return SameAnswer(answer, upstream);
  if (EffectOf(answer).asks_back) return true;
  const std::vector<std::string> offered = AlternativesOf(upstream);
  return !offered.empty() && SameAnswer(answer, offered.front());
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

absl::StatusOr<std::vector<Judgement>> JudgeAgainst(Upstream& upstream, std::span<const TaskItem> items,
                                                    std::span<const std::string> answers, const JudgeOptions& options) {
  const int n = static_cast<int>(items.size());
  std::vector<Judgement> judgements(items.size());
  absl::Status asked = ForEach(kAnswerKind, n, options, [&](int i) -> absl::Status {
    auto answer = Known(kAnswerKind, i, options, [&] { return upstream.Answer(items[i].messages); });
    if (!answer.ok()) return OfPrompt(items[i], i, answer.status());
    judgements[i].upstream = *std::move(answer);
    return absl::OkStatus();
  });
  if (!asked.ok()) return asked;

  std::vector<int> different;
  for (int i = 0; i < n; ++i) {
    Judgement& judgement = judgements[i];
    if (items[i].labelled) {
      judgement.right = IsCorrect(items[i], answers[i]);
      judgement.upstream_right = IsCorrect(items[i], judgement.upstream);
    } else if (IsUpstreams(answers[i], judgement.upstream)) {
      judgement.by = JudgedBy::kEquality;
      judgement.right = true;
    } else {
      judgement.by = JudgedBy::kDifference;
      if (!EffectOf(judgement.upstream).asks_back) different.push_back(i);
    }
  }
  absl::Status scored = ForEach(kGapKind, static_cast<int>(different.size()), options, [&](int k) -> absl::Status {
    const int i = different[k];
    Judgement& judgement = judgements[i];
    auto text = Known(kGapKind, i, options, [&]() -> absl::StatusOr<std::string> {
      auto own = upstream.LikelihoodOf(items[i].messages, judgement.upstream);
      if (!own.ok()) return own.status();
      auto other = upstream.LikelihoodOf(items[i].messages, answers[i]);
      if (!other.ok()) return other.status();
      return GapText(*own, *other);
    });
    if (absl::IsUnimplemented(text.status()) || absl::IsOutOfRange(text.status())) return absl::OkStatus();
    if (!text.ok()) return OfPrompt(items[i], i, text.status());
    const auto gap = GapOf(*text);
    if (!gap) return absl::DataLossError(absl::StrFormat("prompt %d: its likelihood cannot be read", i + 1));
    judgement.by = JudgedBy::kLikelihood;
    judgement.gap = *gap;
    judgement.right = *gap <= options.likelihood_margin;
    return absl::OkStatus();
  });
  if (!scored.ok()) return scored;
  return judgements;
}

}  // namespace updraft
