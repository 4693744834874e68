#include "deploy/train/cockpit/generator.h"

#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/cockpit/answer.h"
#include "deploy/train/cockpit/composer.h"
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

// Politeness and noise are redrawn this often before the request itself is.
constexpr int kDressings = 40;

std::optional<Draft> DraftFamily(Family family, Composer* composer) {
  switch (family) {
    case Family::kSlot:
      return DraftSlot(composer);
    case Family::kImplicit:
      return DraftImplicit(composer);
    case Family::kMulti:
      return DraftMulti(composer);
    case Family::kFollowup:
      return DraftFollowup(composer);
    case Family::kArithmetic:
      return DraftArithmetic(composer);
    case Family::kScope:
      return DraftScope(composer);
  }
  std::abort();  // the enumeration is complete
}

}  // namespace

std::optional<Draft> DraftSlot(Composer* composer) {
  Draft draft;
  Clause clause = composer->random().Percent(22) ? SayCall(composer) : SayIntent(nullptr, kZoneNone, composer);
  draft.core = std::move(clause.text);
  draft.meaning = std::move(clause.meaning);
  draft.say = std::move(clause.say);
  return draft;
}

std::string AnswerText(const Draft& draft) {
  return AnswerText(Answer{draft.work, draft.meaning.set, draft.meaning.call, draft.result, draft.refuse, draft.say});
}

std::string NormalizedConversation(const Example& example) {
  std::string text;
  for (const ChatTurn& turn : example.turns) {
    if (turn.role == "user") absl::StrAppend(&text, NormalizeUtterance(turn.content), "\n");
  }
  return text;
}

Generator::Generator(uint64_t seed, Split split, const FamilyMix& mix)
    // Splits of one seed must not walk through the same numbers.
    : random_(HashCombine(seed, static_cast<uint64_t>(split) + 1)), split_(split), mix_(mix) {
  for (int share : mix_) total_ += share;
}

Example Generator::Next() {
  int ticket = static_cast<int>(random_.Below(static_cast<uint32_t>(total_)));
  int family = 0;
  while (ticket >= mix_[family]) ticket -= mix_[family++];
  return Next(static_cast<Family>(family));
}

Example Generator::Next(Family family) {
  while (true) {
    // Every attempt has a generator of its own, so that one draw more in a family does not move the whole stream.
    Random random(random_.Next());
    const Language language = random.Percent(50) ? Language::kEnglish : Language::kChinese;
    Composer composer(&random, language, split_);
    std::optional<Draft> draft = DraftFamily(family, &composer);
    if (!draft || !composer.Acceptable()) continue;
    // The bare request decides first: no dressing may bring a test request into training. Where it is one wording, that
    // has decided already, and a setting that is said in few ways would be left without any; then it is taken as often
    // as others are, to keep the mix.
    const std::string bare = draft->context_text + NormalizeUtterance(RemoveMarks(draft->core));
    const bool decided = split_ != Split::kTrain && composer.IsOneHeldOutWording();
    if (SideOf(decided ? random.Next() : HashBytes(bare, /*seed=*/0xC0)) != split_) continue;
    for (int i = 0; i < kDressings; ++i) {
      Example example;
      example.turns = draft->context;
      example.turns.push_back({"user", Dress(draft->core, draft->imperative, &composer)});
      if (SideOfUtterance(NormalizedConversation(example)) != split_) continue;
      example.family = family;
      example.bare = bare;
      example.language = language;
      example.answer = AnswerText(*draft);
      example.id = absl::StrFormat("%s-%06d-%s-%s", std::string(SplitName(split_)), count_,
                                   std::string(FamilyName(family)), std::string(LanguageName(language)));
      ++count_;
      return example;
    }
  }
}

}  // namespace updraft::cockpit
