#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_EXAMPLE_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_EXAMPLE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft::cockpit {

enum class Family { kSlot, kImplicit, kMulti, kFollowup, kArithmetic, kScope };
inline constexpr int kFamilies = 6;
enum class Language { kEnglish, kChinese };
enum class Split { kTrain, kCalibrate, kTest };

std::string_view FamilyName(Family family);
std::string_view LanguageName(Language language);  // "en", "zh"
std::string_view SplitName(Split split);
absl::StatusOr<Family> FamilyFromName(std::string_view name);
absl::StatusOr<Language> LanguageFromName(std::string_view name);
absl::StatusOr<Split> SplitFromName(std::string_view name);

struct ChatTurn {
  std::string role;  // "user" or "assistant"
  std::string content;
};

// One query with its reference answer.
struct Example {
  std::string id;
  Family family = Family::kSlot;
  Language language = Language::kEnglish;
  std::vector<ChatTurn> turns;  // user and assistant by turns; the last one is the user's
  std::string answer;           // as common/cockpit/answer.h has it
  std::string bare;             // the normalised request without politeness and noise; not stored
};

// One line of JSONL each way: {"id","family","language","messages":[{"role","content"}...],"answer"}.
std::string ToJsonLine(const Example& example);
absl::StatusOr<Example> FromJsonLine(std::string_view line);
absl::Status WriteJsonLines(const std::vector<Example>& examples, const std::string& path);
absl::StatusOr<std::vector<Example>> ReadJsonLines(const std::string& path);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_EXAMPLE_H_
