// Requests that mean nothing without the conversation: "a bit warmer", "the other side too", "undo that".
#include <bit>

#include "absl/strings/str_cat.h"
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

// Says `clause` as an earlier turn, with the answer that the car gave.
void AddContext(const Clause& clause, Composer* composer, Draft* draft) {
  Draft earlier;
  earlier.meaning = clause.meaning;
  earlier.say = clause.say;
  const std::string text = RemoveMarks(clause.text);
  draft->context.push_back({"user", text});
  draft->context.push_back({"assistant", AnswerText(earlier)});
  absl::StrAppend(&draft->context_text, text, "\n");
}

Clause SayEarlier(const Intent* intent, unsigned zones, Composer* composer, Draft* draft) {
  composer->set_in_context(true);
  Clause clause = SayIntent(intent, zones, composer);
  composer->set_in_context(false);
  AddContext(clause, composer, draft);
  return clause;
}

// Another subject in between, at times.
void MaybeDistract(const Clause& subject, Composer* composer, Draft* draft) {
  if (!composer->random().Percent(25)) return;
  composer->set_in_context(true);
  Clause other = SayIntent(nullptr, kZoneNone, composer);
  for (int i = 0; i < 50 && other.intent->path == subject.intent->path; ++i)
    other = SayIntent(nullptr, kZoneNone, composer);
  composer->set_in_context(false);
  if (other.intent->path != subject.intent->path) AddContext(other, composer, draft);
}

std::string NounOf(const Intent& intent, Composer* composer) {
  return std::string(composer->english() ? intent.noun_english : intent.noun_chinese);
}

bool IsNumeric(const Intent& intent) { return intent.scale != Scale::kNone && intent.scale != Scale::kNegativePercent; }

const Intent& DrawIntent(Composer* composer, bool (*fits)(const Intent&)) {
  while (true) {
    const Intent& intent = composer->random().Pick(Intents());
    if (fits(intent)) return intent;
  }
}

void Answer(const Intent& intent, unsigned zones, const nlohmann::json& value, Composer* composer, Draft* draft) {
  SetInZones(intent, zones, value, &draft->meaning.set);
  draft->say = ReplyFor(intent, value, composer->language());
}

struct Step {
  int small, large;  // tenths: "a bit", "a lot"
  int low, high;
};
Step StepOf(Scale scale) {
  if (scale == Scale::kTemperature) return {10, 30, 160, 300};
  if (scale == Scale::kAngle) return {50, 150, 0, 600};
  if (scale == Scale::kSpeed) return {50, 200, 300, 1600};
  return {100, 300, 10, 1000};
}

std::optional<Draft> DraftRelative(Composer* composer) {
  Random& random = composer->random();
  Draft draft;
  const Intent& intent = DrawIntent(composer, IsNumeric);
  const Clause earlier = SayEarlier(&intent, kZoneNone, composer, &draft);
  if (!earlier.form->fixed.empty()) return std::nullopt;
  MaybeDistract(earlier, composer, &draft);
  const bool distracted = draft.context.size() > 2;
  const Step step = StepOf(intent.scale);
  const bool up = random.Percent(50);
  const uint32_t size = random.Below(3);
  const bool english = composer->english();
  const bool warm = intent.scale == Scale::kTemperature;
  const std::string direction = warm && random.Percent(60)
                                    ? composer->Say(english ? (up ? "[warmer|hotter]" : "[cooler|colder]")
                                                            : (up ? "[热|暖|暖和]" : "[凉|冷|凉快]"))
                                    : composer->Say(english ? (up ? "[higher|more|up]" : "[lower|less|down]")
                                                            : (up ? "[高|大|多]" : "[低|小|少]"));
  int delta;
  std::string amount;
  if (size == 0) {
    delta = step.small;
    amount =
        composer->Say(english ? "[a bit|a little|a little bit|slightly|a tad|somewhat]" : "[一点|一些|点|一点点|些]");
  } else if (size == 1) {
    delta = step.large;
    amount = composer->Say(english ? "[a lot|much|way|far|considerably]" : "[很多|好多|不少|多一些|得多]");
  } else {
    delta = warm ? 10 * random.Between(2, 5) : 50 * random.Between(1, 5);
    const std::string number =
        Protect(random.Percent(50) ? NumberInWords(delta, composer->language()) : absl::StrCat(delta / 10));
    const bool degrees = warm || intent.scale == Scale::kAngle;
    const bool speed = intent.scale == Scale::kSpeed;
    amount = number + (english ? (degrees ? " degrees"
                                  : speed ? ""
                                          : " percent")
                               : (degrees ? "度"
                                  : speed ? "公里"
                                          : "个百分点"));
  }
  const int tenths = earlier.tenths + (up ? delta : -delta);
  if (tenths < step.low || tenths > step.high || !composer->Allows(SideOfNumber(intent, tenths))) return std::nullopt;
  const Slots slots = {{"a", amount}, {"d", direction}, {"n", NounOf(intent, composer)}};
  if (distracted) {
    draft.core =
        composer->Say(english ? "[the {n} {a} {d}|make the {n} {a} {d}|and the {n} {a} {d}|i want the {n} {a} {d}]"
                              : "{n}[再|要|调|弄|还要]{d}{a}",
                      slots);
  } else {
    draft.core = composer->Say(english ? "[make it {a} {d}|{a} {d}|set it {a} {d}|put it {a} {d}|i'd like it {a} "
                                         "{d}|let's have it {a} {d}|it should be {a} {d}]"
                                       : "[再|要|调|弄|还要|把它调|改]{d}{a}",
                               slots);
  }
  draft.imperative = false;
  Answer(intent, earlier.zones, NumberJson(tenths, intent.scale), composer, &draft);
  return draft;
}

std::optional<Draft> DraftOtherZone(Composer* composer) {
  Random& random = composer->random();
  Draft draft;
  const Intent& intent =
      DrawIntent(composer, [](const Intent& i) { return SignalOf(i).zoning != Zoning::kNone && i.id != "lock"; });
  const bool mirror = SignalOf(intent).zoning == Zoning::kMirror;
  const unsigned zone = random.Pick(
      mirror ? std::vector<unsigned>{kDriver, kPassenger}
             : std::vector<unsigned>{kDriver, kDriver, kPassenger, kRearDriver, kRearPassenger, kFront, kRear});
  const Clause earlier = SayEarlier(&intent, zone, composer, &draft);
  if (earlier.zones != zone) return std::nullopt;
  const bool english = composer->english();
  unsigned other;
  if (std::popcount(zone) == 1 && random.Percent(40)) {
    // The other one of the same row.
    static constexpr unsigned kOther[] = {0, kPassenger, kDriver, 0, kRearPassenger, 0, 0, 0, kRearDriver};
    other = kOther[zone];
    draft.core =
        composer->Say(english ? "[and|now|also|do|] the other [one|side] [too|as well|also|likewise]"
                              : "[另一边|另一侧|旁边那个|另外一边|对面那边][也|也要|同样|也是][一样|这样|如此|照办]");
  } else {
    other = random.Pick(
        mirror ? std::vector<unsigned>{kDriver, kPassenger}
               : std::vector<unsigned>{kDriver, kPassenger, kRearDriver, kRearPassenger, kFront, kRear, kEverywhere});
    if (other & zone) return std::nullopt;
    const ZoneWords words = SayZone(other, false, false, composer);
    draft.core =
        composer->Say(english ? "[the same|same|and the same|also|do it|and do that] {z} [please|too|as well|now|]"
                              : "{z}[也|也要|同样|也是][一样|这样|如此|照办|来一个]",
                      {{"z", english ? words.phrase : words.chinese}});
  }
  draft.imperative = false;
  Answer(intent, other, earlier.meaning.set.begin().value(), composer, &draft);
  return draft;
}

std::optional<Draft> DraftUndo(Composer* composer) {
  Random& random = composer->random();
  Draft draft;
  const bool english = composer->english();
  if (random.Percent(50)) {
    const Intent& intent =
        DrawIntent(composer, [](const Intent& i) { return SignalOf(i).datatype == Datatype::kBoolean; });
    const Clause earlier = SayEarlier(&intent, kZoneNone, composer, &draft);
    Answer(intent, earlier.zones, !earlier.meaning.set.begin().value().get<bool>(), composer, &draft);
  } else {
    const Intent& intent = DrawIntent(composer, IsNumeric);
    const Clause before = SayEarlier(&intent, kZoneNone, composer, &draft);
    const Clause after = SayEarlier(&intent, before.zones, composer, &draft);
    if (before.zones != after.zones || before.meaning.set == after.meaning.set) return std::nullopt;
    Answer(intent, before.zones, before.meaning.set.begin().value(), composer, &draft);
  }
  draft.core = composer->Say(
      english ? "[no,|oh,|sorry,|hmm,|actually,|] [undo that|undo it|take that back|put it back|go back to how it "
                "was|reverse that|change it back|as it was before|revert that]"
              : "[不|哎|算了|等等|还是]，[撤销|撤回|恢复原样|改回去|还原|调回去|恢复刚才的|变回来|退回去][吧|一下|]");
  draft.imperative = false;
  return draft;
}

std::optional<Draft> DraftCorrection(Composer* composer) {
  Random& random = composer->random();
  Draft draft;
  const bool english = composer->english();
  if (random.Percent(25)) {
    composer->set_in_context(true);
    const Clause earlier = SayCall(composer);
    composer->set_in_context(false);
    if (earlier.meaning.call.contains("title") || earlier.meaning.call.contains("avoid")) return std::nullopt;
    AddContext(earlier, composer, &draft);
    const bool phone = earlier.meaning.call.contains("contact");
    const std::string entity = phone ? DrawContact(composer) : DrawPlace(composer);
    draft.meaning.call = earlier.meaning.call;
    draft.meaning.call[phone ? "contact" : "to"] = entity;
    draft.say = earlier.say;
    draft.core = composer->Say(
        english ? "[no,|sorry,|wait,|actually,|] [i meant|make that|rather|i mean|better] {e}[ instead||| please]"
                : "[不对|不是|等等|说错了|算了]，[我是说|应该是|换成|改成|是]{e}[吧|]",
        {{"e", Protect(entity)}});
    draft.imperative = false;
    return draft;
  }
  const Intent& intent = DrawIntent(composer, IsNumeric);
  const Clause earlier = SayEarlier(&intent, kZoneNone, composer, &draft);
  MaybeDistract(earlier, composer, &draft);
  const int tenths = DrawTenths(intent, composer);
  const Slots slots = {{"v", SayNumber(tenths, intent.scale, composer)}, {"n", NounOf(intent, composer)}};
  if (draft.context.size() > 2) {
    draft.core = composer->Say(english ? "[no,|sorry,|wait,|actually,|] [i want|make|set|put] the {n} [at|to] {v}"
                                       : "[不对|不是|等等|对了|算了]，{n}[还是|改成|换成|应该是|调到]{v}[吧|]",
                               slots);
  } else {
    draft.core = composer->Say(
        english ? "[no,|sorry,|wait,|actually,|] [i meant|make that|make it|better|i said|change it to|rather] {v}"
                : "[不对|不是|等等|说错了|算了]，[我是说|应该是|换成|改成|还是|调到]{v}[吧|]",
        slots);
  }
  draft.imperative = false;
  Answer(intent, earlier.zones, NumberJson(tenths, intent.scale), composer, &draft);
  return draft;
}

}  // namespace

std::optional<Draft> DraftFollowup(Composer* composer) {
  const uint32_t kind = composer->random().Below(100);
  if (kind < 40) return DraftRelative(composer);
  if (kind < 65) return DraftOtherZone(composer);
  if (kind < 80) return DraftUndo(composer);
  return DraftCorrection(composer);
}

}  // namespace updraft::cockpit
