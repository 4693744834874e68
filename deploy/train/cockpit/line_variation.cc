#include "deploy/train/cockpit/line_variation.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/cockpit/answer.h"
#include "common/cockpit/catalogue.h"
#include "deploy/train/cockpit/composer.h"

namespace updraft::cockpit {
namespace {

using nlohmann::ordered_json;

bool Falls(double share, Random* random) { return random->Below(10000) < share * 10000; }

ordered_json Parsed(const Example& example) {
  return ordered_json::parse(example.answer, nullptr, /*allow_exceptions=*/false);
}

// A number as people write it.
struct Spelling {
  bool words = false;
  Language language = Language::kEnglish;  // of the words
  bool hyphen = false;                     // twenty-three

  std::string Of(int n) const {
    if (!words) return absl::StrCat(n);
    const std::string spelt = NumberInWords(n * 10, language);
    return hyphen ? absl::StrReplaceAll(spelt, {{" ", "-"}}) : spelt;
  }
};

constexpr std::array<Spelling, 4> kSpellings = {
    {{}, {true, Language::kEnglish, false}, {true, Language::kEnglish, true}, {true, Language::kChinese, false}}};

// Whether what stands before and after makes it a part of a longer number or word.
bool IsWhole(std::string_view text, size_t begin, size_t end, const Spelling& spelling) {
  const std::string_view before = text.substr(0, begin), after = text.substr(end);
  if (spelling.words && spelling.language == Language::kChinese) {
    static constexpr std::string_view kNumerals[] = {"零", "一", "二", "两", "三", "四", "五", "六",
                                                     "七", "八", "九", "十", "百", "半", "点", "个"};
    return std::none_of(std::begin(kNumerals), std::end(kNumerals), [&](std::string_view numeral) {
      return before.ends_with(numeral) || after.starts_with(numeral);
    });
  }
  const auto joins = [](char c) { return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == ':' || c == '/'; };
  if (!before.empty() && joins(before.back())) return false;
  if (after.empty() || !joins(after.front())) return true;
  return after.front() == '.' && (after.size() == 1 || !absl::ascii_isdigit(after[1]));  // a full stop
}

struct Place {
  size_t begin = 0, end = 0;
  Spelling spelling;
};

// Where `number` is said, whatever its spelling; nullopt: nowhere, or more than once.
std::optional<Place> FindSaid(std::string_view text, int number) {
  std::optional<Place> place;
  for (const Spelling& spelling : kSpellings) {
    // Small Chinese ones are parts of other words; twenty has no hyphen.
    if (spelling.words && spelling.language == Language::kChinese && number < 10) continue;
    if (spelling.hyphen && (number < 20 || number > 99 || number % 10 == 0)) continue;
    const std::string spelt = spelling.Of(number);
    for (size_t at = text.find(spelt); at != std::string_view::npos; at = text.find(spelt, at + 1)) {
      if (!IsWhole(text, at, at + spelt.size(), spelling)) continue;
      if (place) return std::nullopt;
      place = Place{at, at + spelt.size(), spelling};
    }
  }
  return place;
}

// The whole number that `value` is, where it is one that people say; else nullopt.
std::optional<int> SayableNumber(const ordered_json& value) {
  if (!value.is_number()) return std::nullopt;
  const double number = value.get<double>();
  if (number != std::floor(number) || number < 5 || number > 199) return std::nullopt;
  return static_cast<int>(number);
}

int AnotherNumber(int old, std::pair<int, int> range, Random* random) {
  const auto [least, most] = range;
  if (old % 10 == 0 && most - least >= 40 && random->Percent(60)) {
    return (random->Between((least + 9) / 10, most / 10)) * 10;  // round stays round
  }
  return random->Between(least, most);
}

std::string WithoutEnd(std::string text) {
  static constexpr std::string_view kEnds[] = {".", "!", "?", ",", " ", "。", "！", "？", "，"};
  for (bool cut = true; cut;) {
    cut = false;
    for (std::string_view end : kEnds) {
      if (!std::string_view(text).ends_with(end)) continue;
      text.resize(text.size() - end.size());
      cut = true;
    }
  }
  return text;
}

// Within a sentence: "The fan" -> "the fan", but not "I", "AC", "Mum's" (a name that the answer has).
std::string WithinSentence(const std::string& text, const std::string& answer) {
  size_t end = 0;
  while (end < text.size() && absl::ascii_isalpha(text[end])) ++end;
  if (end < 2 || !absl::ascii_isupper(text[0]) || absl::ascii_isupper(text[1])) return text;
  if (answer.find(text.substr(0, end)) != std::string::npos) return text;
  std::string out = text;
  out[0] = absl::ascii_tolower(out[0]);
  return out;
}

// Nothing but names: "Golden Temple, quick". Beside a setting any clause would look like one.
bool IsBareCall(const Example& example, const ordered_json& call) {
  size_t named = 0;
  for (const auto& [key, value] : call.items()) {
    if (key != "name" && key != "avoid" && value.is_string()) named += value.get_ref<const std::string&>().size();
  }
  return named * 10 > example.turns[0].content.size() * 4;
}

std::string InOneBreath(const Example& first, const Example& second, Random* random) {
  static const std::vector<std::string_view> kEnglish = {", and ",  " and ", ", then ",    ". ",     ", ",
                                                         ", also ", "; ",    " and then ", " plus ", ", oh and "};
  static const std::vector<std::string_view> kChinese = {"，", "，", "，然后", "，再", "，顺便", "，还有", "。", " "};
  const bool english = first.language == Language::kEnglish;
  const std::string_view joint = random->Pick(english ? kEnglish : kChinese);
  const std::string& next = second.turns[0].content;
  std::string text = WithoutEnd(first.turns[0].content);
  text += joint;
  text += joint == ". " ? next : WithinSentence(next, second.answer);
  return text;
}

}  // namespace

std::optional<Example> Joined(const Example& first, const Example& second, Random* random) {
  if (first.turns.size() != 1 || second.turns.size() != 1 || first.language != second.language) return std::nullopt;
  Answer both;
  bool calls = false, does = false;
  for (const Example* part : {&first, &second}) {
    const ordered_json answer = Parsed(*part);
    if (!answer.is_object()) return std::nullopt;
    const ordered_json set = answer.value("set", ordered_json::object());
    for (const auto& [path, value] : set.items()) {
      if (both.set.contains(path)) return std::nullopt;
      both.set[path] = value;
      does = true;
    }
    if (const ordered_json call = answer.value("call", ordered_json::object()); !call.empty()) {
      if (calls || IsBareCall(*part, call)) return std::nullopt;
      both.call = call;
      calls = does = true;
    }
  }
  both.refuse = !does;
  Example joined = first;
  joined.turns[0].content = InOneBreath(first, second, random);
  joined.answer = AnswerText(both);
  joined.family = does ? Family::kMulti : Family::kScope;
  return joined;
}

LineVariation::LineVariation(std::span<const Example> written) : written_(written), names_(written) {
  for (const Example& line : written) {
    const ordered_json answer = Parsed(line);
    if (!answer.is_object() || line.turns.empty()) continue;
    const ordered_json set = answer.value("set", ordered_json::object());
    for (const auto& [path, value] : set.items()) {
      const std::optional<int> number = SayableNumber(value);
      const Signal* signal = FindSignal(path);
      if (!number || signal == nullptr || !FindSaid(line.turns.back().content, *number)) continue;
      auto& [least, most] = said_.try_emplace(signal->path, *number, *number).first->second;
      least = std::min(least, *number);
      most = std::max(most, *number);
    }
  }
}

std::optional<Example> LineVariation::WithOtherNumbers(const Example& from, Random* random) const {
  ordered_json answer = Parsed(from);
  if (from.turns.size() != 1 || !answer.is_object() || !answer.contains("set")) return std::nullopt;
  Example example = from;
  bool changed = false;
  std::vector<int> done;  // numbers that are said of several signals change together
  for (const auto& [path, value] : answer["set"].items()) {
    const std::optional<int> number = SayableNumber(value);
    const Signal* signal = FindSignal(path);
    if (!number || signal == nullptr || std::ranges::find(done, *number) != done.end()) continue;
    const auto range = said_.find(signal->path);
    const std::optional<Place> place = FindSaid(example.turns[0].content, *number);
    if (range == said_.end() || !place) continue;
    const int another = AnotherNumber(*number, range->second, random);
    example.turns[0].content.replace(place->begin, place->end - place->begin, place->spelling.Of(another));
    for (auto& [other_path, other_value] : answer["set"].items()) {
      if (SayableNumber(other_value) == number) other_value = another;
    }
    done.push_back(another);
    changed = true;
  }
  if (!changed) return std::nullopt;
  example.answer = answer.dump();
  // Of signals that took one number some may not take the other.
  return CheckLegal(example.answer).ok() ? std::optional(example) : std::nullopt;
}

Example LineVariation::Vary(const Example& line, const VariationShares& shares, Random* random) const {
  Example example = line;
  const bool has_call = line.answer.find("\"call\"") != std::string::npos;
  if (has_call && Falls(shares.names, random)) {
    if (std::optional<Example> other = names_.Draw(example, random)) example = *std::move(other);
  }
  if (Falls(shares.numbers, random)) {
    if (std::optional<Example> other = WithOtherNumbers(example, random)) example = *std::move(other);
  }
  if (!has_call && Falls(shares.typos, random)) AddTypo(line.language, &example.turns.back().content, random);
  return example;
}

Example LineVariation::Draw(const Example& line, const VariationShares& shares, Random* random) const {
  Example varied = Vary(line, shares, random);
  if (Falls(shares.joined, random)) {
    if (std::optional<Example> joined = Joined(varied, Vary(Any(random), shares, random), random)) {
      return *std::move(joined);
    }
  }
  return varied;
}

}  // namespace updraft::cockpit
