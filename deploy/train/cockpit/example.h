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
  std::string answer;           // one JSON object: work, set, call, result, refuse, say (in this order)
  std::string bare;             // the normalised request without politeness and noise; not stored
};

// What counts in an answer, as one canonical text: set, call, result and refuse, keys sorted, 22.0 written as 22.
// work and say do not count: they may be worded otherwise. An error when `answer` is not an object of the agreed form.
absl::StatusOr<std::string> CanonicalSettings(std::string_view answer);

// True when both parse and mean the same settings. A malformed answer never matches.
bool ExactMatch(std::string_view expected, std::string_view got);

// One line of JSONL each way: {"id","family","language","messages":[{"role","content"}...],"answer"}.
std::string ToJsonLine(const Example& example);
absl::StatusOr<Example> FromJsonLine(std::string_view line);
absl::Status WriteJsonLines(const std::vector<Example>& examples, const std::string& path);
absl::StatusOr<std::vector<Example>> ReadJsonLines(const std::string& path);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_EXAMPLE_H_
