// Several intents in one request: lists, zones with different values, differences, exceptions and conditions.
#include <set>

#include "absl/strings/str_cat.h"
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

std::string Done(Composer* composer) { return composer->english() ? "OK, all set." : "好的，都设好了。"; }

void Merge(const Clause& clause, Draft* draft) {
  for (const auto& [path, value] : clause.meaning.set.items()) draft->meaning.set[path] = value;
  if (!clause.meaning.call.empty()) draft->meaning.call = clause.meaning.call;
}

std::string Join(const std::vector<Clause>& clauses, Composer* composer) {
  const bool english = composer->english();
  if (clauses.size() == 2) {
    return composer->Say(english ? "{a}[ and| and then|, then|, and|, also| and also| plus] {b}"
                                 : "{a}[，|，然后|，再|，并且|，顺便|，还有]{b}",
                         {{"a", clauses[0].text}, {"b", clauses[1].text}});
  }
  return composer->Say(english ? "{a}, {b}[ and|, and|, and then|, then] {c}" : "{a}，{b}，[|再|然后|最后|还有]{c}",
                       {{"a", clauses[0].text}, {"b", clauses[1].text}, {"c", clauses[2].text}});
}

// Two or three different things; now and then the last one is a call.
std::optional<Draft> DraftList(Composer* composer) {
  Draft draft;
  Random& random = composer->random();
  const size_t count = random.Percent(65) ? 2 : 3;
  std::set<std::string_view> paths;
  std::vector<Clause> clauses;
  while (clauses.size() < count) {
    if (clauses.size() + 1 == count && random.Percent(15)) {
      clauses.push_back(SayCall(composer));
      break;
    }
    const Intent& intent = random.Pick(Intents());
    if (!paths.insert(intent.path).second) continue;
    clauses.push_back(SayIntent(&intent, kZoneNone, composer));
  }
  for (const Clause& clause : clauses) Merge(clause, &draft);
  draft.core = Join(clauses, composer);
  draft.say = Done(composer);
  return draft;
}

const Intent& DrawNumericZoned(Composer* composer) {
  while (true) {
    const Intent& intent = composer->random().Pick(Intents());
    if (SignalOf(intent).zoning != Zoning::kNone && intent.scale != Scale::kNone) return intent;
  }
}

// "... the driver side to 22 and the passenger side to 24", or "... two degrees cooler".
std::optional<Draft> DraftTwoZones(Composer* composer) {
  Random& random = composer->random();
  const Intent& intent = DrawNumericZoned(composer);
  static const std::vector<std::pair<unsigned, unsigned>> kPairs = {
      {kDriver, kPassenger},     {kPassenger, kDriver}, {kFront, kRear},
      {kRear, kFront},           {kDriver, kRear},      {kRearDriver, kRearPassenger},
      {kDriver, kRearPassenger}, {kPassenger, kRear},   {kRearPassenger, kPassenger}};
  const auto [first, second] = random.Pick(kPairs);
  const Clause clause = SayIntent(&intent, first, composer);
  if (!clause.form->fixed.empty() || clause.zones != first) return std::nullopt;
  Draft draft;
  Merge(clause, &draft);
  const bool english = composer->english();
  const ZoneWords words = SayZone(second, false, false, composer);
  const std::string zone = english ? words.phrase : words.chinese;
  int tenths;
  std::string text;
  if (intent.scale == Scale::kTemperature && random.Percent(45)) {
    const int delta = random.Between(1, 4) * (random.Percent(50) ? 10 : -10);
    tenths = clause.tenths + delta;
    if (tenths < 160 || tenths > 300 || !composer->Allows(SideOfNumber(intent, tenths))) return std::nullopt;
    const std::string amount = Protect(random.Percent(50) ? NumberInWords(std::abs(delta), composer->language())
                                                          : absl::StrCat(std::abs(delta) / 10));
    text = composer->Say(english
                             ? (delta > 0 ? "{c}[ and|, but|, and] {d} [degrees|degree] [warmer|higher|more|hotter] {z}"
                                          : "{c}[ and|, but|, and] {d} [degrees|degree] [cooler|lower|less|colder] {z}")
                             : (delta > 0 ? "{c}，{z}[高|热|暖|多]{d}度" : "{c}，{z}[低|凉|冷|少]{d}度"),
                         {{"c", clause.text}, {"d", amount}, {"z", zone}});
  } else {
    tenths = DrawTenths(intent, composer);
    text = composer->Say(english ? "{c}[ and|, and|, but] [|to ]{n} {z}" : "{c}，{z}[|调到|到|要|设为|则是]{n}",
                         {{"c", clause.text}, {"n", SayNumber(tenths, intent.scale, composer)}, {"z", zone}});
  }
  SetInZones(intent, second, NumberJson(tenths, intent.scale), &draft.meaning.set);
  draft.core = text;
  draft.say = Done(composer);
  return draft;
}

// "... everywhere except on the passenger side".
std::optional<Draft> DraftException(Composer* composer) {
  Random& random = composer->random();
  const Intent& intent = random.Pick(Intents());
  const Zoning zoning = SignalOf(intent).zoning;
  if (zoning == Zoning::kNone || zoning == Zoning::kMirror) return std::nullopt;
  const unsigned out =
      random.Pick(std::vector<unsigned>{kDriver, kPassenger, kRearDriver, kRearPassenger, kRear, kFront});
  const Form& form = random.Pick(intent.forms);
  Draft draft;
  const bool english = composer->english();
  Slots slots = {{"za", "the"}, {"s", "s"}};
  if (english) {
    slots.emplace_back(
        "zp", composer->Say("[everywhere|in the whole car|for everyone|all around] [except|but not|but|apart from] {z}",
                            {{"z", SayZone(out, false, false, composer).phrase}}));
  } else {
    slots.emplace_back("z", composer->Say("[除了|除]{z}[以外的|之外的|外的|以外][所有|全部|其他|其他位置的]",
                                          {{"z", SayZone(out, false, false, composer).chinese}}));
    slots.emplace_back("到", composer->Say("[调到|设为|设置为|改成|调成]"));
  }
  nlohmann::json value;
  if (form.fixed.empty()) {
    const int tenths = DrawTenths(intent, composer);
    slots.emplace_back("n", SayNumber(tenths, intent.scale, composer));
    value = NumberJson(tenths, intent.scale);
  } else {
    value = nlohmann::json::parse(form.fixed);
  }
  draft.core = composer->Say(english ? form.english : form.chinese, slots);
  SetInZones(intent, kEverywhere & ~out, value, &draft.meaning.set);
  draft.say = Done(composer);
  return draft;
}

// "it's 31 degrees outside, if that is over 25 ..., otherwise ...". The comparison is worked out before the setting:
// without that, small models choose the branch by chance.
std::optional<Draft> DraftCondition(Composer* composer) {
  Random& random = composer->random();
  const Clause yes = SayIntent(nullptr, kZoneNone, composer);
  const Clause no = SayIntent(nullptr, kZoneNone, composer);
  if (yes.intent == no.intent) return std::nullopt;
  const bool temperature = random.Percent(50);
  const int key = composer->DrawKey("condition", [&] { return random.Between(5, 38) * 100 + random.Between(10, 32); });
  int actual = key / 100, limit = key % 100;
  if (!temperature) actual *= 2, limit *= 2;
  if (actual == limit) return std::nullopt;
  const bool above = random.Percent(50);
  const bool holds = above ? actual > limit : actual < limit;
  const bool english = composer->english();
  const bool otherwise = random.Percent(75);
  if (!otherwise && !holds) return std::nullopt;
  const std::string fact = temperature
                               ? composer->Say(english ? "[it's|it is|we have] {a} degrees [outside|outdoors|out there]"
                                                       : "[外面|室外|车外][现在|][是|有]{a}度",
                                               {{"a", Protect(absl::StrCat(actual))}})
                               : composer->Say(english ? "[the battery is at|we have|battery shows] {a} percent"
                                                       : "[电量|电池|现在电量][是|还有|剩]{a}%",
                                               {{"a", Protect(absl::StrCat(actual))}});
  const std::string test = composer->Say(
      english ? (above ? "if [that is|it's|it is] [above|over|more than|higher than] {l}"
                       : "if [that is|it's|it is] [below|under|less than|lower than] {l}")
              : (above ? "[如果|要是][高于|超过|大于]{l}[|的话]" : "[如果|要是][低于|不到|小于]{l}[|的话]"),
      {{"l", Protect(absl::StrCat(limit))}});
  std::string text =
      composer->Say(english ? "{f}, {t} {y}" : "{f}，{t}[，|就]{y}", {{"f", fact}, {"t", test}, {"y", yes.text}});
  if (otherwise)
    text += composer->Say(english ? ", [otherwise|else|if not] {n}" : "，[否则|不然|要不然]{n}", {{"n", no.text}});
  Draft draft;
  draft.imperative = false;
  Merge(holds ? yes : no, &draft);
  draft.work = absl::StrCat(actual, above ? ">" : "<", limit, holds ? ";yes" : ";no");
  draft.core = text;
  draft.say = Done(composer);
  return draft;
}

}  // namespace

std::optional<Draft> DraftMulti(Composer* composer) {
  const uint32_t kind = composer->random().Below(100);
  if (kind < 45) return DraftList(composer);
  if (kind < 65) return DraftTwoZones(composer);
  if (kind < 80) return DraftException(composer);
  return DraftCondition(composer);
}

}  // namespace updraft::cockpit
