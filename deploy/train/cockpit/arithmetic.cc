// Range, charging, arrival time and sums of legs, with a working-out that a small model can learn: every step repeats
// the operands it needs, a product of two-digit numbers is two products by one digit and a sum, and a sum goes column
// by column, least significant first, each column written as `x y carry digit`. Numbers are single-digit tokens.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/train/cockpit/draft.h"

namespace updraft::cockpit {
namespace {

// "44+880:4004 4802 0819 0000=924"
std::string SumSteps(int a, int b, int columns) {
  std::string out = absl::StrCat(a, "+", b, ":");
  int carry = 0, x = a, y = b;
  for (int i = 0; i < columns; ++i, x /= 10, y /= 10) {
    const int sum = x % 10 + y % 10 + carry;
    absl::StrAppend(&out, i ? " " : "", x % 10, y % 10, carry, sum % 10);
    carry = sum / 10;
  }
  absl::StrAppend(&out, "=", a + b);
  return out;
}

// "22*2=44,22*40=880,44+880:...=924"
std::string ProductSteps(int a, int b) {
  const int low = a * (b % 10), high = a * (b / 10) * 10;
  return absl::StrCat(a, "*", b % 10, "=", low, ",", a, "*", b / 10 * 10, "=", high, ",", SumSteps(low, high, 4));
}

std::string Num(int value) { return Protect(absl::StrCat(value)); }

std::string Percent(int value, Composer* composer) {
  if (composer->english()) return Protect(absl::StrCat(value, composer->random().Percent(50) ? "%" : " percent"));
  return Protect(composer->random().Percent(75) ? absl::StrCat(value, "%") : absl::StrCat("百分之", value));
}

// A pair of factors whose product a model of this split may see.
std::pair<int, int> DrawFactors(Composer* composer, int a_low, int a_high, int b_low, int b_high) {
  const int key = composer->DrawKey("product", [&] {
    Random& random = composer->random();
    return random.Between(a_low, a_high) * 1000 + random.Between(b_low, b_high);
  });
  return {key / 1000, key % 1000};
}

void DraftRange(Composer* composer, Draft* draft) {
  Random& random = composer->random();
  const auto [points, tens] = DrawFactors(composer, 11, 85, 20, 69);
  const int keep = random.Percent(75) ? random.Between(5, std::min(25, 99 - points)) : 0;
  const int battery = points + keep;
  const int range = points * tens / 10;
  const int trip = std::clamp(range + random.Between(-120, 120), 20, 700);
  const std::string b = Percent(battery, composer), k = Percent(keep, composer);
  const std::string f = Num(tens * 10), t = Num(trip);
  if (composer->english()) {
    const std::string full = composer->Say(
        "a full [charge|battery] [gives|lasts|is good for|means|takes us] {f} [km|kilometers]", {{"f", f}});
    const std::string now = composer->Say(
        "[the battery is at|i have|we have|we are at|battery shows|there is] {b} [|charge|left]", {{"b", b}});
    const std::string ask =
        composer->Say("[can|could|will] [i|we] [make|do|drive|manage|reach] {t} [km|kilometers]", {{"t", t}});
    const std::string reserve =
        keep == 0 ? ""
                  : composer->Say(" and [keep|still have|save|leave] {k} [in reserve|left|as reserve|in the battery]",
                                  {{"k", k}});
    draft->core = composer->Say("[{now}, {full}, {ask}{r}|{full}, {now}, {ask}{r}|{ask}{r} if {now} and {full}]",
                                {{"now", now}, {"full", full}, {"ask", ask}, {"r", reserve}});
  } else {
    const std::string full = composer->Say("[满电|充满|充满电|满电状态][能跑|续航|可以开|可以跑]{f}公里", {{"f", f}});
    const std::string now = composer->Say("[现在电量|电池|电量|目前电量|还有][|是|剩]{b}[|的电|电]", {{"b", b}});
    const std::string ask = composer->Say("[能不能|可以|能|够不够][跑|开|走|跑完|开到]{t}公里", {{"t", t}});
    const std::string reserve =
        keep == 0 ? "" : composer->Say("[，还要|，并且|，同时要][留|保留|剩]{k}[|的电|电量]", {{"k", k}});
    draft->core = composer->Say("[{now}，{full}，{ask}{r}|{full}，{now}，{ask}{r}|{ask}{r}，{now}，{full}]",
                                {{"now", now}, {"full", full}, {"ask", ask}, {"r", reserve}});
  }
  const bool reachable = range >= trip;
  draft->work = absl::StrCat(battery, "-", keep, "=", points, ";", ProductSteps(points, tens), ";", range, "-", trip,
                             reachable ? ";yes" : ";no");
  draft->result["range_km"] = range;
  draft->result["reachable"] = reachable;
  draft->say = composer->english() ? (reachable ? "Yes, that works." : "No, charge first.")
                                   : (reachable ? "可以，够用。" : "不够，请先充电。");
}

void DraftCharge(Composer* composer, Draft* draft) {
  Random& random = composer->random();
  const auto [points, capacity] = DrawFactors(composer, 11, 80, 35, 99);
  const int from = random.Between(5, 100 - points - 1), to = from + points;
  const std::string a = Percent(from, composer), b = Percent(to, composer), c = Num(capacity);
  if (composer->english()) {
    draft->core = composer->Say(
        "[how much energy|how many kilowatt hours|how many kwh|what energy] [do i need|does it take|is needed|goes in] "
        "[[to charge|for charging|to get|to go] from {a} to {b} [with|on|for|of] [a|my|our|the] {c} [kwh|kilowatt "
        "hour] [battery|pack]|"
        "[with|on|for|of] [a|my|our|the] {c} [kwh|kilowatt hour] [battery|pack] [to charge|for charging|to get|to go] "
        "from {a} to {b}]",
        {{"a", a}, {"b", b}, {"c", c}});
  } else {
    draft->core = composer->Say(
        "[{c}[度|千瓦时]的[电池|电池包][，|]从{a}[充到|充电到|到]{b}[要|需要|得充|得]多少[度电|电|千瓦时|能量]|"
        "从{a}[充到|充电到|到]{b}，[电池|电池包|电池容量][|是|有]{c}[度|千瓦时]，[要|需要|得充|得]多少[度电|电|千瓦时|"
        "能量]]",
        {{"a", a}, {"b", b}, {"c", c}});
  }
  const int hundredths = points * capacity;
  draft->work = absl::StrCat(to, "-", from, "=", points, ";", ProductSteps(points, capacity));
  draft->result["energy_kwh"] =
      hundredths % 100 == 0 ? nlohmann::ordered_json(hundredths / 100) : nlohmann::ordered_json(hundredths / 100.0);
  draft->say = composer->english() ? "That is the energy you need." : "需要这么多电。";
}

void DraftArrival(Composer* composer, Draft* draft) {
  Random& random = composer->random();
  const int key = composer->DrawKey("arrival", [&] {
    return ((random.Between(0, 23) * 60 + random.Between(0, 59)) * 10 + random.Between(0, 9)) * 60 +
           random.Between(1, 59);
  });
  const int take_minutes = key % 60, take_hours = key / 60 % 10;
  const int minute = key / 600 % 60, hour = key / 36000;
  const std::string now = Protect(absl::StrFormat("%d:%02d", hour, minute));
  if (composer->english()) {
    const std::string h =
        take_hours == 0 ? ""
                        : absl::StrCat(take_hours, take_hours == 1 ? " hour" : " hours", composer->Say("[ and | ]"));
    const std::string take = Protect(absl::StrCat(h, take_minutes, composer->Say("[ minutes| min| minutes]")));
    draft->core = composer->Say(
        "[it's|it is|now it is|we leave at|i leave at|departure is at] {now} [and|, ] the [drive|trip|ride|route] "
        "[takes|lasts|needs|will take] {take}, "
        "[when do we arrive|when will i be there|what time do we get there|when are we there|what is the arrival time]",
        {{"now", now}, {"take", take}});
  } else {
    const std::string h = take_hours == 0 ? "" : absl::StrCat(take_hours, composer->Say("[小时|个小时]"));
    const std::string take = Protect(absl::StrCat(h, take_minutes, composer->Say("[分钟|分]")));
    draft->core = composer->Say(
        "[现在|现在是|我们|出发时间是|我]{now}[出发，|，|，现在走，][路上|车程|全程|开车][要|需要|大概|要花]{take}，"
        "[几点到|什么时候到|几点能到|到达时间是几点|多久能到，几点]",
        {{"now", now}, {"take", take}});
  }
  const int minutes = minute + take_minutes;
  const int carry = minutes >= 60 ? 1 : 0;
  const int hours = hour + take_hours + carry;
  std::string work = SumSteps(minute, take_minutes, 3);
  if (carry) absl::StrAppend(&work, ",", minutes, "-60=", minutes - 60);
  absl::StrAppend(&work, ";", hour, "+", take_hours, "+", carry, "=", hours);
  if (hours >= 24) absl::StrAppend(&work, ",", hours, "-24=", hours - 24);
  draft->work = work;
  draft->result["arrival"] = absl::StrFormat("%02d:%02d", hours % 24, minutes % 60);
  draft->say = composer->english() ? "That is when you arrive." : "这是到达时间。";
}

void DraftLegs(Composer* composer, Draft* draft) {
  Random& random = composer->random();
  const bool three = random.Percent(60);
  const int key = composer->DrawKey("legs", [&] { return random.Between(10, 599) * 1000 + random.Between(10, 599); });
  const int a = key / 1000, b = key % 1000, c = random.Between(10, 599);
  Slots slots = {{"a", Num(a)}, {"b", Num(b)}, {"c", Num(c)}};
  if (composer->english()) {
    draft->core = composer->Say(
        three ? "[first {a} km then {b} km and then {c} km|{a} kilometers, then {b} and finally {c}|"
                "{a} km to the first stop, {b} to the second and {c} to the third|legs of {a}, {b} and {c} km] "
                "[how far is that|how long is that|what is the total|how many km is it] [in total|altogether|all "
                "together|in all]"
              : "[first {a} km then {b} km|{a} kilometers, then {b} more|{a} km to the first stop and {b} to the "
                "second|legs of {a} and {b} km] "
                "[how far is that|how long is that|what is the total|how many km is it] [in total|altogether|all "
                "together|in all]",
        slots);
  } else {
    draft->core = composer->Say(three ? "[先开{a}公里，再开{b}公里，然后{c}公里|{a}公里，再{b}公里，最后{c}公里|第一段{"
                                        "a}公里，第二段{b}公里，第三段{c}公里]，"
                                        "[一共|总共|加起来|合计][多少公里|多远|是多少公里|有多少公里]"
                                      : "[先开{a}公里，再开{b}公里|{a}公里，再{b}公里|第一段{a}公里，第二段{b}公里]，["
                                        "一共|总共|加起来|合计][多少公里|多远|是多少公里|有多少公里]",
                                slots);
  }
  draft->work = SumSteps(a, b, 4);
  if (three) absl::StrAppend(&draft->work, ";", SumSteps(a + b, c, 4));
  draft->result["total_km"] = a + b + (three ? c : 0);
  draft->say = composer->english() ? "That is the total." : "这是总里程。";
}

}  // namespace

std::optional<Draft> DraftArithmetic(Composer* composer) {
  Draft draft;
  draft.imperative = false;
  switch (composer->random().Below(10)) {
    case 0:
    case 1:
    case 2:
      DraftRange(composer, &draft);
      break;
    case 3:
    case 4:
    case 5:
      DraftCharge(composer, &draft);
      break;
    case 6:
    case 7:
      DraftArrival(composer, &draft);
      break;
    default:
      DraftLegs(composer, &draft);
  }
  return draft;
}

}  // namespace updraft::cockpit
