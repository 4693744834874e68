// A task: conversations with expected answers, and how answers to it are judged. Cockpit conversations are judged by
// the settings that their JSON means; any other by its words.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/task/accept_list.h"
#include "deploy/task/answerer.h"
#include "deploy/task/statistics.h"
#include "deploy/train/cockpit/example.h"

namespace updraft {

struct TaskItem {
  std::string id;
  std::string family, language;  // empty: none
  Conversation messages;
  std::string expected;
  bool cockpit = false;  // judged by cockpit::ExactMatch
  bool clarify = false;  // a sensible assistant asks back, and that alone is right
  std::optional<AcceptList>
      accept;            // where there is one it judges, and `expected` is its text, or one answer that fits
  bool worded = true;    // `expected` is one answer, to whose words others can be compared
  bool labelled = true;  // false: nothing says what is right, and IsCorrect is not to be asked
};

TaskItem TaskItemOf(const cockpit::Example& example);

// `n` generated cockpit conversations. The same (split, n, seed) gives the same items.
std::vector<TaskItem> CockpitTask(cockpit::Split split, int n, uint64_t seed);

// JSONL, one object a line: {"messages": [{"role","content"}...] or "prompt": "...", "answer": "...", and if wanted
// "id", "family", "language"}. A line whose family is a cockpit one is judged as such. Lines that were labelled by hand
// have a "kind" for a family, are in the language of what is asked last, and have "accept" instead of an answer
// (accept_list.h), or an answer that is an object (deploy/train/cockpit/written; written_label.h says what it leaves
// open). DataLoss names the line; NotFound the file.
absl::StatusOr<std::vector<TaskItem>> ReadTask(const std::string& path);

// Prompts whose answers are judged by another model's: the same lines, of which none needs an answer. Each asks for
// one, is not blank and stands once. Errors as ReadTask.
absl::StatusOr<std::vector<TaskItem>> ReadPrompts(const std::string& path);

bool IsCorrect(const TaskItem& item, std::string_view answer);

struct GroupScore {
  std::string name;
  int n = 0, correct = 0;
  Interval interval;  // Wilson, 95 %
  double share() const { return n > 0 ? static_cast<double>(correct) / n : 0.0; }
};

struct TaskReport {
  int n = 0;
  double exact_match = 0.0;
  Interval exact_match_interval;  // Wilson, 95 %
  // Of answers that are cockpit ones: neither right nor wrong; and setting or calling something that is not right.
  GroupScore asked_back{"asked back", 0, 0, {}}, acted_wrong{"acted and wrong", 0, 0, {}};
  // Of those that asked back with alternatives: a right one among them; the first one right, which is what would have
  // been done without asking.
  GroupScore offered_right{"right one offered", 0, 0, {}}, needless{"asked needlessly", 0, 0, {}};
  // Words are compared where there is one answer to compare with.
  int n_worded = 0;
  double f1 = 0.0;                                 // mean over items
  Interval f1_interval;                            // bootstrap, 95 %
  double bleu = 0.0;                               // corpus
  std::vector<GroupScore> by_family, by_language;  // in order of first appearance
  // Of a model in this process; 0 when the answers came from elsewhere.
  int n_layer = 0;
  double mean_exit_layer = 0.0;   // over tokens
  double early_exit_share = 0.0;  // of tokens
  double mean_answer_tokens = 0.0;
  int unfinished = 0;  // answers cut off by max_tokens or the context
  double seconds = 0.0;
};

// answers: one text per item.
TaskReport ScoreAnswers(std::span<const TaskItem> items, std::span<const std::string> answers);

// Answers every item with the model and scores the answers, which are left in `texts` unless it is null.
absl::StatusOr<TaskReport> EvaluateTask(const std::string& model_path, std::span<const TaskItem> items,
                                        const AnswerOptions& options, std::vector<std::string>* texts = nullptr);

// JSONL for a person who wants to know what went wrong, one object per item: id, family, language, messages, expected,
// answer, correct. texts: one per item.
absl::Status WriteAnswers(const std::string& path, std::span<const TaskItem> items, std::span<const std::string> texts);

std::vector<Conversation> ConversationsOf(std::span<const TaskItem> items);

std::string ToJson(const TaskReport& report);  // one object
std::string ToText(const TaskReport& report);  // a table for a person

}  // namespace updraft
