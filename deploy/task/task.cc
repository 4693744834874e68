#include "deploy/task/task.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "deploy/task/text_metrics.h"
#include "deploy/task/written_label.h"
#include "deploy/train/cockpit/generator.h"

namespace updraft {
namespace {

using nlohmann::json;

GroupScore& GroupNamed(std::vector<GroupScore>& groups, const std::string& name) {
  for (GroupScore& group : groups) {
    if (group.name == name) return group;
  }
  groups.push_back({name, 0, 0, {}});
  return groups.back();
}

json GroupsToJson(const std::vector<GroupScore>& groups) {
  json object = json::object();
  for (const GroupScore& group : groups) {
    object[group.name] = {{"n", group.n},
                          {"exact_match", group.share()},
                          {"exact_match_ci95", {group.interval.low, group.interval.high}}};
  }
  return object;
}

}  // namespace

TaskItem TaskItemOf(const cockpit::Example& example) {
  TaskItem item;
  item.id = example.id;
  item.family = std::string(cockpit::FamilyName(example.family));
  item.language = std::string(cockpit::LanguageName(example.language));
  for (const cockpit::ChatTurn& turn : example.turns) item.messages.push_back({turn.role, turn.content});
  item.expected = example.answer;
  item.cockpit = true;
  return item;
}

std::vector<TaskItem> CockpitTask(cockpit::Split split, int n, uint64_t seed) {
  cockpit::Generator generator(seed, split);
  std::vector<TaskItem> items;
  for (int i = 0; i < n; ++i) items.push_back(TaskItemOf(generator.Next()));
  return items;
}

bool IsCorrect(const TaskItem& item, std::string_view answer) {
  if (item.accept) return item.accept->Fits(answer);
  if (item.clarify) return EffectOf(answer).asks_back;
  return item.cockpit ? cockpit::ExactMatch(item.expected, answer) : ExactText(item.expected, answer);
}

std::vector<Conversation> ConversationsOf(std::span<const TaskItem> items) {
  std::vector<Conversation> conversations;
  for (const TaskItem& item : items) conversations.push_back(item.messages);
  return conversations;
}

namespace {

void CountOffer(const TaskItem& item, std::span<const std::string> alternatives, TaskReport& report) {
  if (alternatives.empty() || item.clarify) return;
  const auto right = [&](const std::string& alternative) { return IsCorrect(item, alternative); };
  for (GroupScore* score : {&report.offered_right, &report.needless}) ++score->n;
  report.offered_right.correct += std::any_of(alternatives.begin(), alternatives.end(), right) ? 1 : 0;
  report.needless.correct += right(alternatives[0]) ? 1 : 0;
}

}  // namespace

TaskReport ScoreAnswers(std::span<const TaskItem> items, std::span<const std::string> answers) {
  TaskReport report;
  report.n = static_cast<int>(std::min(items.size(), answers.size()));
  int correct = 0;
  std::vector<double> f1;
  CorpusBleu bleu;
  for (int i = 0; i < report.n; ++i) {
    const bool right = IsCorrect(items[i], answers[i]);
    correct += right ? 1 : 0;
    if (items[i].cockpit) {
      const Effect effect = EffectOf(answers[i]);
      for (GroupScore* score : {&report.asked_back, &report.acted_wrong}) ++score->n;
      report.asked_back.correct += effect.asks_back ? 1 : 0;
      report.acted_wrong.correct += effect.acts && !right ? 1 : 0;
      CountOffer(items[i], AlternativesOf(answers[i]), report);
    }
    if (items[i].worded && !items[i].clarify) {
      f1.push_back(WordF1(items[i].expected, answers[i]));
      bleu.Add(items[i].expected, answers[i]);
    }
    for (auto [groups, name] :
         {std::pair(&report.by_family, &items[i].family), std::pair(&report.by_language, &items[i].language)}) {
      if (name->empty()) continue;
      GroupScore& group = GroupNamed(*groups, *name);
      group.n += 1;
      group.correct += right ? 1 : 0;
    }
  }
  for (GroupScore* score : {&report.asked_back, &report.acted_wrong, &report.offered_right, &report.needless}) {
    score->interval = WilsonInterval(score->correct, score->n);
  }
  report.n_worded = static_cast<int>(f1.size());
  for (auto* groups : {&report.by_family, &report.by_language}) {
    for (GroupScore& group : *groups) group.interval = WilsonInterval(group.correct, group.n);
  }
  report.exact_match = report.n > 0 ? static_cast<double>(correct) / report.n : 0.0;
  report.exact_match_interval = WilsonInterval(correct, report.n);
  report.f1 = Mean(f1);
  report.f1_interval = BootstrapMeanInterval(f1, /*seed=*/1);
  report.bleu = bleu.value();
  return report;
}

absl::StatusOr<TaskReport> EvaluateTask(const std::string& model_path, std::span<const TaskItem> items,
                                        const AnswerOptions& options, std::vector<std::string>* answer_texts) {
  const auto start = std::chrono::steady_clock::now();
  auto answers = AnswerAll(model_path, ConversationsOf(items), options);
  if (!answers.ok()) return answers.status();
  std::vector<std::string> texts;
  for (const LocalAnswer& answer : *answers) texts.push_back(answer.text);
  TaskReport report = ScoreAnswers(items, texts);
  double tokens = 0.0, layers = 0.0, early = 0.0;
  for (const LocalAnswer& answer : *answers) {
    report.n_layer = answer.n_layer;
    report.unfinished += answer.finished ? 0 : 1;
    for (const TokenEvidence& token : answer.evidence) {
      tokens += 1.0;
      layers += token.exit_layer;
      early += token.exit_layer < answer.n_layer ? 1.0 : 0.0;
    }
  }
  report.mean_exit_layer = tokens > 0.0 ? layers / tokens : 0.0;
  report.early_exit_share = tokens > 0.0 ? early / tokens : 0.0;
  report.mean_answer_tokens = report.n > 0 ? tokens / report.n : 0.0;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (answer_texts != nullptr) *answer_texts = std::move(texts);
  return report;
}

absl::Status WriteAnswers(const std::string& path, std::span<const TaskItem> items,
                          std::span<const std::string> texts) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  for (size_t i = 0; i < items.size() && out; ++i) {
    const TaskItem& item = items[i];
    json messages = json::array();
    for (const text::ChatMessage& message : item.messages)
      messages.push_back({{"role", message.role}, {"content", message.content}});
    const json line = {{"id", item.id},
                       {"family", item.family},
                       {"language", item.language},
                       {"messages", messages},
                       {"expected", item.expected},
                       {"answer", texts[i]},
                       {"correct", IsCorrect(item, texts[i])}};
    // A model may write bytes that are not UTF-8.
    out << line.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  }
  out.flush();
  if (!out) return absl::DataLossError(absl::StrCat("cannot write '", path, "': ", std::strerror(errno)));
  return absl::OkStatus();
}

std::string ToJson(const TaskReport& report) {
  json object = {{"n", report.n},
                 {"exact_match", report.exact_match},
                 {"exact_match_ci95", {report.exact_match_interval.low, report.exact_match_interval.high}},
                 {"by_family", GroupsToJson(report.by_family)},
                 {"by_language", GroupsToJson(report.by_language)}};
  if (report.n_worded > 0) {
    object["f1"] = report.f1;
    object["f1_ci95"] = {report.f1_interval.low, report.f1_interval.high};
    object["bleu"] = report.bleu;
  }
  if (report.acted_wrong.n > 0) {
    const auto& [back, wrong] = std::pair(report.asked_back, report.acted_wrong);
    object["asked_back"] = back.share();
    object["asked_back_ci95"] = {back.interval.low, back.interval.high};
    object["acted_and_wrong"] = wrong.share();
    object["acted_and_wrong_ci95"] = {wrong.interval.low, wrong.interval.high};
    if (report.offered_right.n > 0) {
      object["right_among_offered"] = report.offered_right.share();
      object["asked_needlessly"] = report.needless.share();
      object["n_offers"] = report.offered_right.n;
    }
  }
  if (report.n_layer > 0) {
    object["n_layer"] = report.n_layer;
    object["mean_exit_layer"] = report.mean_exit_layer;
    object["early_exit_share"] = report.early_exit_share;
    object["mean_answer_tokens"] = report.mean_answer_tokens;
    object["unfinished"] = report.unfinished;
    object["seconds"] = report.seconds;
  }
  return object.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string ToText(const TaskReport& report) {
  std::string text = absl::StrFormat("%-14s %6s  %12s  %s\n", "", "n", "exact match", "95 % interval");
  const auto line = [&](const std::string& name, int n, double value, const Interval& interval) {
    absl::StrAppendFormat(&text, "%-14s %6d  %10.1f %%  %.1f to %.1f %%\n", name, n, 100 * value, 100 * interval.low,
                          100 * interval.high);
  };
  for (const auto* groups : {&report.by_family, &report.by_language}) {
    for (const GroupScore& group : *groups) line(group.name, group.n, group.share(), group.interval);
  }
  line("all", report.n, report.exact_match, report.exact_match_interval);
  if (report.acted_wrong.n > 0) {
    for (const GroupScore& score : {report.asked_back, report.acted_wrong, report.offered_right, report.needless}) {
      if (score.n > 0) line(score.name, score.n, score.share(), score.interval);
    }
  }
  if (report.n_worded > 0) absl::StrAppendFormat(&text, "word F1 %.3f, BLEU %.3f\n", report.f1, report.bleu);
  if (report.n_layer > 0) {
    absl::StrAppendFormat(&text, "mean exit layer %.2f of %d, %.1f tokens an answer, %d unfinished, %.1f s\n",
                          report.mean_exit_layer, report.n_layer, report.mean_answer_tokens, report.unfinished,
                          report.seconds);
  }
  return text;
}

}  // namespace updraft
