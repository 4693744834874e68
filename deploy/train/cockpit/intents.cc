#include "deploy/train/cockpit/intents.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <map>

#include "absl/strings/str_cat.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;

std::string_view EnglishAdjective(unsigned zones) {
  switch (zones) {
    case kDriver:
      return "[the driver|the driver's|my|the front left|the driver side]";
    case kPassenger:
      return "[the passenger|the passenger's|the front right|the front passenger|the passenger side]";
    case kRearDriver:
      return "[the rear left|the back left|the left rear]";
    case kRearPassenger:
      return "[the rear right|the back right|the right rear]";
    case kFront:
      return "[both front|the front|the two front]";
    case kRear:
      return "[the rear|the back|both rear|both back]";
    case kLeft:
      return "[both left|the left side|the two left]";
    case kRight:
      return "[both right|the right side|the two right]";
    default:
      return "[all|all the|all four|all of the]";
  }
}

std::string_view EnglishPhrase(unsigned zones) {
  switch (zones) {
    case kDriver:
      return "[on the driver's side|on my side|on the driver side|for me|for the driver|on the front left|at my seat]";
    case kPassenger:
      return "[on the passenger's side|on the passenger side|for the passenger|for my passenger|on the front "
             "right|next to me|"
             "at the passenger seat]";
    case kRearDriver:
      return "[in the rear left|on the back left|behind me|behind the driver|at the left rear]";
    case kRearPassenger:
      return "[in the rear right|on the back right|behind the passenger|behind the front passenger|at the right rear]";
    case kFront:
      return "[in the front|up front|at the front|for both of us in front|for the front row|for driver and passenger]";
    case kRear:
      return "[in the back|in the rear|for the back row|for the rear passengers|at the back|for the people behind]";
    case kLeft:
      return "[on the left side|on the left|on the whole left side]";
    case kRight:
      return "[on the right side|on the right|on the whole right side]";
    default:
      return "[everywhere|in the whole car|for everyone|for everybody|in all zones|all around]";
  }
}

std::string_view ChineseZone(unsigned zones) {
  switch (zones) {
    case kDriver:
      return "[主驾|主驾驶|驾驶位|我这边|左前|驾驶员侧|司机位]";
    case kPassenger:
      return "[副驾|副驾驶|副驾驶位|右前|乘客侧|我旁边]";
    case kRearDriver:
      return "[左后|后排左边|后排左侧|驾驶位后面|主驾后面]";
    case kRearPassenger:
      return "[右后|后排右边|后排右侧|副驾后面|副驾驶后面]";
    case kFront:
      return "[前排|前面|前排两边|主副驾|前排两侧]";
    case kRear:
      return "[后排|后面|后座|后排两边|后排两侧]";
    case kLeft:
      return "[左边|左侧|左边两个|左侧两边]";
    case kRight:
      return "[右边|右侧|右边两个|右侧两边]";
    default:
      return "[全车|所有|全部|整车|四个位置|各个位置]";
  }
}

// How the reply calls true and false.
std::pair<const char*, const char*> StateWords(const Intent& intent, bool english) {
  if (intent.id == "trunk" || intent.id == "frunk") {
    return english ? std::pair{"open", "closed"} : std::pair{"已打开", "已关上"};
  }
  if (intent.id == "lock") return english ? std::pair{"engaged", "released"} : std::pair{"已锁", "已解锁"};
  if (intent.id == "mirror_fold") return english ? std::pair{"folded", "unfolded"} : std::pair{"已收起", "已展开"};
  return english ? std::pair{"on", "off"} : std::pair{"已开", "已关"};
}

std::string ChineseVerbTo(Composer* composer) {
  return composer->Say("[调到|设为|设置为|改成|调成|设到|调整到|设成|变成|换成]");
}

// What stands for a zone that is not said, until its "的" has gone with it.
constexpr std::string_view kUnsaid = "\x04";

std::string WithoutUnsaid(std::string text) {
  for (std::string_view from : {"\x04的", "\x04"}) {
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at)) text.erase(at, from.size());
  }
  return text;
}

// What people ask for, in tenths.
int DrawTenths(Scale scale, Random& random) {
  switch (scale) {
    case Scale::kTemperature:
      return random.Percent(70) ? 10 * random.Between(16, 28) : 5 * random.Between(32, 56);
    case Scale::kAngle:
      return 10 * random.Between(5, 45);
    case Scale::kSpeed:
      return random.Percent(70) ? 50 * random.Between(6, 30) : 10 * random.Between(30, 150);
    case Scale::kChargeLimit:
      return random.Percent(70) ? 50 * random.Between(10, 20) : 10 * random.Between(50, 100);
    default:
      return random.Percent(70) ? 50 * random.Between(1, 20) : 10 * random.Between(1, 100);
  }
}

// All that an answer may hold, in tenths.
std::pair<int, int> RangeOf(Scale scale) {
  switch (scale) {
    case Scale::kTemperature:
      return {160, 300};
    case Scale::kAngle:
      return {0, 600};
    case Scale::kSpeed:
      return {300, 1600};
    case Scale::kChargeLimit:
      return {500, 1000};
    default:
      return {0, 1000};
  }
}

// Where the ranges that an intent holds out begin: by its hash, moved on until none of its fixed values is held out.
int ChooseTurn(const Intent& intent) {
  std::vector<int> fixed = WishedTenths(intent.id);
  for (const Form& form : intent.forms) {
    if (form.fixed.empty()) continue;
    const json value = json::parse(form.fixed);
    if (value.is_number()) fixed.push_back(std::abs(static_cast<int>(std::lround(10 * value.get<double>()))));
  }
  const auto [low, high] = RangeOf(intent.scale);
  const int first = static_cast<int>(HashBytes(intent.id, /*seed=*/0x7B7) % 16);
  for (int turn = first; turn < first + 16; ++turn) {
    const bool clear = std::all_of(fixed.begin(), fixed.end(), [&, low = low, high = high](int tenths) {
      return SideOfNumber(std::clamp(tenths, low, high), low, high, turn) == Split::kTrain;
    });
    if (clear) return turn;
  }
  return first;
}

int TurnOf(const Intent& intent) {
  static const auto* turns = [] {
    auto* chosen = new std::map<std::string_view, int>;
    for (const Intent& each : Intents()) (*chosen)[each.id] = ChooseTurn(each);
    return chosen;
  }();
  return turns->at(intent.id);
}

// Without a zone there is nothing for "的" to follow: with and without it are one wording.
std::string WithoutIdleChoice(std::string_view pattern, bool unsaid) {
  constexpr std::string_view kIdle = "{z}[的|]";
  std::string text(pattern);
  if (!unsaid) return text;
  for (size_t at = text.find(kIdle); at != std::string::npos; at = text.find(kIdle)) text.erase(at, kIdle.size());
  return text;
}

}  // namespace

const Signal& SignalOf(const Intent& intent) {
  for (const Signal& signal : Catalogue()) {
    if (signal.path == intent.path) return signal;
  }
  return Catalogue().front();  // the tests hold every intent to the catalogue
}

unsigned PlainZones(const Intent& intent) {
  const Zoning zoning = SignalOf(intent).zoning;
  if (zoning == Zoning::kNone) return kZoneNone;
  if (zoning == Zoning::kMirror) return kFront;
  return intent.id == "lock" ? kEverywhere : kDriver;
}

std::vector<unsigned> SingleZones(unsigned zones) {
  std::vector<unsigned> singles;
  for (unsigned zone = 1; zone <= kRearPassenger; zone <<= 1) {
    if (zones & zone) singles.push_back(zone);
  }
  return singles;
}

unsigned DrawZones(const Intent& intent, Composer* composer) {
  Random& random = composer->random();
  const Zoning zoning = SignalOf(intent).zoning;
  if (zoning == Zoning::kNone) return kZoneNone;
  if (random.Percent(30)) return PlainZones(intent);
  if (zoning == Zoning::kMirror) return random.Pick(std::vector<unsigned>{kDriver, kPassenger, kFront});
  static const std::vector<unsigned> kChoices = {kDriver,        kPassenger,  kRearDriver, kRearPassenger, kFront,
                                                 kRear,          kEverywhere, kPassenger,  kDriver,        kRearDriver,
                                                 kRearPassenger, kLeft,       kRight};
  return random.Pick(kChoices);
}

ZoneWords SayZone(unsigned zones, bool plain, bool adjective, Composer* composer) {
  ZoneWords words{"the", "", ""};
  if (zones == kZoneNone || plain) return words;
  if (!composer->english()) {
    words.chinese = composer->Say(ChineseZone(zones));
  } else if (adjective) {
    words.adjective = composer->Say(EnglishAdjective(zones));
  } else {
    words.phrase = composer->Say(EnglishPhrase(zones));
  }
  return words;
}

Split SideOfNumber(const Intent& intent, int tenths) {
  const auto [low, high] = RangeOf(intent.scale);
  return SideOfNumber(std::clamp(tenths, low, high), low, high, TurnOf(intent));
}

int DrawTenths(const Intent& intent, Composer* composer) {
  return composer->DrawValue([&] { return DrawTenths(intent.scale, composer->random()); },
                             [&](int tenths) { return SideOfNumber(intent, tenths); });
}

std::string SayNumber(int tenths, Scale scale, Composer* composer) {
  Random& random = composer->random();
  const bool words = random.Percent(35);
  const std::string digits = absl::StrCat(tenths / 10, tenths % 10 ? absl::StrCat(".", tenths % 10) : "");
  const std::string spoken = words ? NumberInWords(tenths, composer->language()) : digits;
  switch (scale) {
    case Scale::kTemperature:
      if (composer->english()) return Protect(spoken) + " " + composer->Say("[degrees||| celsius|degrees celsius]");
      if (tenths % 10 == 5 && random.Percent(50)) {
        return Protect((words ? NumberInWords(tenths / 10 * 10, Language::kChinese) : absl::StrCat(tenths / 10)) +
                       "度半");
      }
      return Protect(spoken) + composer->Say("[度|度|摄氏度]");
    case Scale::kAngle:
      return Protect(spoken) + (composer->english() ? " degrees" : "度");
    case Scale::kSpeed:
      return Protect(spoken) + (composer->english() ? " " + composer->Say("[|kilometers per hour|km/h|kph]")
                                                    : composer->Say("[|公里|公里每小时|码]"));
    default:
      if (tenths == 500 && random.Percent(20)) return composer->english() ? "half" : "一半";
      if (composer->english())
        return Protect(words ? spoken + " percent" : spoken + (random.Percent(60) ? "%" : " percent"));
      return Protect(words ? "百分之" + spoken : random.Percent(75) ? spoken + "%" : "百分之" + spoken);
  }
}

json NumberJson(int tenths, Scale scale) {
  if (scale == Scale::kNegativePercent) tenths = -tenths;
  if (tenths % 10 == 0) return tenths / 10;
  return tenths / 10.0;
}

void SetInZones(const Intent& intent, unsigned zones, const json& value, nlohmann::ordered_json* set) {
  const Signal& signal = SignalOf(intent);
  if (signal.zoning == Zoning::kNone) {
    (*set)[std::string(intent.path)] = value;
    return;
  }
  for (unsigned zone : SingleZones(zones)) (*set)[PathInZone(intent.path, signal.zoning, zone)] = value;
}

std::string ReplyFor(const Intent& intent, const json& value, Language language) {
  const bool english = language == Language::kEnglish;
  const std::string noun(english ? intent.noun_english : intent.noun_chinese);
  if (value.is_number()) {
    return english ? absl::StrCat("OK, ", noun, " ", value.dump(), ".")
                   : absl::StrCat("好的，", noun, value.dump(), "。");
  }
  if (value.is_boolean()) {
    const bool on = value.get<bool>();
    const auto [yes, no] = StateWords(intent, english);
    return english ? absl::StrCat("OK, ", noun, " ", on ? yes : no, ".")
                   : absl::StrCat("好的，", noun, on ? yes : no, "。");
  }
  return english ? absl::StrCat("OK, ", noun, " set.") : absl::StrCat("好的，", noun, "已设好。");
}

Clause SayIntent(const Intent* intent, unsigned zones, Composer* composer) {
  Random& random = composer->random();
  Clause clause;
  clause.intent = intent != nullptr ? intent : &random.Pick(Intents());
  clause.form = &random.Pick(clause.intent->forms);
  clause.zones = zones != kZoneNone ? zones : DrawZones(*clause.intent, composer);
  if (SignalOf(*clause.intent).zoning == Zoning::kNone) clause.zones = kZoneNone;

  const std::string_view pattern = composer->english() ? clause.form->english : clause.form->chinese;
  const auto has = [pattern](std::string_view slot) { return pattern.find(slot) != std::string_view::npos; };
  const auto is_many = [&clause] { return std::popcount(clause.zones) > 1; };
  const auto takes_adjective = [&] { return has("{za}") && (!is_many() || has("{s}")); };
  const bool sayable = composer->english() ? takes_adjective() || has("{zp}") : has("{z}");
  if (!sayable) clause.zones = PlainZones(*clause.intent);  // what the words leave out cannot be meant
  const bool many = is_many();
  const bool plain = !sayable || (clause.zones == PlainZones(*clause.intent) && random.Percent(60));
  const bool adjective = takes_adjective() && (!has("{zp}") || random.Percent(50));
  const ZoneWords zone = SayZone(clause.zones, plain, adjective, composer);
  Slots slots = {{"za", zone.adjective}, {"zp", zone.phrase}, {"s", many ? "s" : ""}};
  slots.emplace_back("z", zone.chinese.empty() ? std::string(kUnsaid) : zone.chinese);
  if (!composer->english()) slots.emplace_back("到", ChineseVerbTo(composer));

  json value;
  if (clause.form->fixed.empty()) {
    const Scale scale = clause.intent->scale;
    clause.tenths = DrawTenths(*clause.intent, composer);
    slots.emplace_back("n", SayNumber(clause.tenths, scale, composer));
    value = NumberJson(clause.tenths, scale);
  } else {
    value = json::parse(clause.form->fixed);
  }
  clause.text = WithoutUnsaid(composer->Say(WithoutIdleChoice(pattern, zone.chinese.empty()), slots));
  SetInZones(*clause.intent, clause.zones, value, &clause.meaning.set);
  clause.say = ReplyFor(*clause.intent, value, composer->language());
  return clause;
}

Clause SayCall(Composer* composer) {
  Random& random = composer->random();
  const bool english = composer->english();
  Clause clause;
  auto& call = clause.meaning.call;
  const uint32_t kind = random.Below(10);
  if (kind < 4) {
    const std::string place = DrawPlace(composer);
    call["name"] = "navigate";
    call["to"] = place;
    const uint32_t avoid = random.Below(12);
    static constexpr std::string_view kEnglishAvoid[] = {"[avoid tolls|without tolls|no toll roads]",
                                                         "[avoid highways|without highways|no motorways]",
                                                         "[avoid ferries|without ferries|no ferry]"};
    static constexpr std::string_view kChineseAvoid[] = {
        "[避开收费|不走收费路|不要收费站]", "[不走高速|避开高速|不上高速]", "[不坐轮渡|避开轮渡|不走轮渡]"};
    static constexpr std::string_view kAvoid[] = {"tolls", "highways", "ferries"};
    std::string extra;
    if (avoid < 3) {
      extra = composer->Say(english ? kEnglishAvoid[avoid] : kChineseAvoid[avoid]);
      call["avoid"] = kAvoid[avoid];
    }
    clause.text =
        composer->Say(english ? "[navigate to|take me to|drive me to|bring me to|get directions to|find the way to|set "
                                "the route to|guide me to|route to|let's go to|show me the way to|i need to get to|"
                                "head to] {p}[|||| now| next| by the fastest way| as quickly as possible] {x}"
                              : "[导航到|导航去|带我去|去|开到|我要去|我想去|送我到|规划路线到|怎么走到|出发去|"
                                "开车去]{p}[||||吧|，走最快的路|，尽快]{x}",
                      {{"p", Protect(place)},
                       {"x", extra.empty() ? ""
                             : english     ? extra
                                           : "，" + extra}});
    clause.say = english ? "Starting the route." : "开始导航。";
  } else if (kind < 7) {
    const std::string person = DrawContact(composer);
    call["name"] = "phone";
    call["contact"] = person;
    clause.text = composer->Say(
        english ? "[call|phone|ring|dial|give a call to|make a call to|start a call with|get me|ring up|call up|i "
                  "want to talk to] {p}[|||| now| on the phone| hands free| on speaker]"
                : "[给{p}打电话|打电话给{p}|呼叫{p}|拨打{p}的电话|拨通{p}|联系{p}|给{p}打个电话|致电{p}|拨号给{p}][|||"
                  "|吧|，用免提|，开免提]",
        {{"p", Protect(person)}});
    clause.say = english ? "Calling now." : "正在拨打。";
  } else {
    const std::string song = DrawSong(composer);
    const bool by_artist = random.Percent(35);
    call["name"] = "media";
    call["title"] = song;
    std::string artist;
    if (by_artist) {
      artist = DrawPerson(composer);
      call["artist"] = artist;
    }
    clause.text = composer->Say(
        english
            ? (by_artist ? "[play|put on|start|i want to hear|let me hear|let's listen to] [the song|the track||] {t} "
                           "[by|from] {a}"
                         : "[play|put on|start|i want to hear|let me hear|let's listen to] [the song|the track||] {t}")
            : (by_artist ? "[播放|放|来一首|听|我想听|放一首|点一首]{a}的{t}"
                         : "[播放|放|来一首|听|我想听|放一首|点一首][歌曲|歌|]{t}"),
        {{"t", Protect(song)}, {"a", Protect(artist)}});
    clause.say = english ? "Here it comes." : "马上播放。";
  }
  return clause;
}

}  // namespace updraft::cockpit
