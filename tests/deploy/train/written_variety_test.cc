// How varied the written requests are: skeletons (what is left of a request when names, numbers, zones and colours are
// masked) and meanings (what a label does, values left out). Prints both counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tests/deploy/train/written_sheets.h"

namespace updraft {
namespace {

using Json = nlohmann::json;

// ---- skeletons ----

using Names = std::set<std::pair<std::u32string, char32_t>>;  // a name and what kind it is

void CollectNames(const Json& answer, Names& names) {
  static const std::map<std::string, char32_t> kinds = {
      {"to", U'P'}, {"contact", U'C'}, {"title", U'T'}, {"artist", U'A'}, {"avoid", U'R'}};
  for (const Json& reading : answer.value("clarify", Json::array())) CollectNames(reading, names);
  const Json call = answer.value("call", Json::object());
  for (const auto& [key, value] : call.items()) {
    const auto kind = kinds.find(key);
    if (kind != kinds.end()) names.emplace(written::Normalized(value.get<std::string>()), kind->second);
  }
}

void ReplaceAll(std::u32string& text, const std::u32string& what, const std::u32string& with, bool whole_words) {
  for (size_t at = text.find(what); at != std::u32string::npos; at = text.find(what, at)) {
    const size_t end = at + what.size();
    const bool whole = (at == 0 || text[at - 1] == ' ') && (end == text.size() || text[end] == ' ');
    if (whole || !whole_words) text.replace(at, what.size(), with);
    at += whole || !whole_words ? with.size() : 1;
  }
}

void MaskNames(std::u32string& text, const Names& names) {
  std::vector<std::pair<std::u32string, char32_t>> longest_first(names.begin(), names.end());
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  for (const auto& [name, kind] : longest_first) {
    if (!name.empty()) ReplaceAll(text, name, std::u32string(U"$") + kind, !written::IsChinese(name));
  }
}

const std::vector<std::pair<std::vector<std::u32string>, std::u32string>>& Masks() {
  static const auto* masks = new std::vector<std::pair<std::vector<std::u32string>, std::u32string>>{
      {{U"zero",    U"oh",      U"one",       U"two",      U"three",    U"four",    U"five",     U"six",
        U"seven",   U"eight",   U"nine",      U"ten",      U"eleven",   U"twelve",  U"thirteen", U"fourteen",
        U"fifteen", U"sixteen", U"seventeen", U"eighteen", U"nineteen", U"twenty",  U"thirty",   U"forty",
        U"fifty",   U"sixty",   U"seventy",   U"eighty",   U"ninety",   U"hundred", U"half",     U"halfway",
        U"third",   U"thirds",  U"quarter",   U"quarters", U"零",       U"一",      U"二",       U"三",
        U"四",      U"五",      U"六",        U"七",       U"八",       U"九",      U"十",       U"百",
        U"千",      U"两",      U"半",        U"幺",       U"点",       U"几",      U"成"},
       U"#"},
      {{U"my",        U"mine",      U"me",         U"driver",  U"drivers",  U"passenger", U"passengers", U"front",
        U"rear",      U"back",      U"left",       U"right",   U"behind",   U"all",       U"every",      U"everyone",
        U"everyones", U"everybody", U"everybodys", U"both",    U"kids",     U"children",  U"her",        U"his",
        U"hers",      U"wife",      U"wifes",      U"husband", U"husbands", U"row",       U"side",       U"seat",
        U"主驾",      U"副驾驶",    U"副驾",       U"驾驶位",  U"驾驶座",   U"司机",      U"后排",       U"后座",
        U"二排",      U"全车",      U"所有",       U"个",      U"边",       U"侧",        U"我这",       U"我的",
        U"面",        U"头",        U"左",         U"右",      U"前",       U"后"},
       U"@"},
      {{U"red",  U"blue", U"green", U"purple",    U"pink",    U"orange", U"yellow", U"white", U"amber",
        U"gold", U"teal", U"cyan",  U"turquoise", U"crimson", U"silver", U"红",     U"蓝",    U"绿",
        U"紫",   U"粉",   U"橙",    U"黄",        U"白",      U"金",     U"青"},
       U"%"}};
  return *masks;
}

// Masks that touch become one.
std::u32string Collapsed(const std::u32string& text) {
  std::u32string out;
  for (const char32_t c : text) {
    const bool mask = c == '#' || c == '@' || c == '%';
    const size_t last = out.find_last_not_of(U' ');
    if (mask && last != std::u32string::npos && out[last] == c) {
      out.resize(last + 1);
    } else {
      out += c;
    }
  }
  return out;
}

std::u32string Skeleton(const Json& line) {
  std::u32string text = written::Normalized(written::JoinedUserText(line));
  Names names;
  CollectNames(line.at("answer"), names);
  for (const Json& message : line.at("messages")) {
    if (message.at("role") == "assistant") CollectNames(Json::parse(message.at("content").get<std::string>()), names);
  }
  MaskNames(text, names);
  for (char32_t& c : text) {
    if (c >= '0' && c <= '9') c = '#';
  }
  for (const auto& [words, mask] : Masks()) {
    for (const std::u32string& word : words) ReplaceAll(text, word, mask, !written::IsChinese(word));
  }
  return Collapsed(text);
}

TEST(WrittenVarietyTest, NoSkeletonIsUsedMoreThanFiveTimes) {
  std::map<std::u32string, std::vector<std::string>> lines;  // skeleton, prefixed with its language -> where
  written::ForEachJsonLine(written::SheetFolder(), [&lines](const Json& line, const std::string& where) {
    const bool chinese = written::IsChinese(written::Normalized(written::JoinedUserText(line)));
    lines[(chinese ? U"zh " : U"en ") + Skeleton(line)].push_back(where);
  });
  std::printf("%zu skeletons\n", lines.size());
  EXPECT_GE(lines.size(), 9000u);
  for (const auto& [skeleton, where] : lines) {
    std::string all;
    for (const std::string& line : where) all += " " + line;
    EXPECT_LE(where.size(), 5u) << written::Plain(skeleton) << ":" << all;
  }
}

// ---- meanings ----

// Which way a setting goes; its value is left out, but for on, off and the names of a list.
std::string Way(const Json& value, const Json& adjust) {
  if (!adjust.is_null()) {
    const std::string by = adjust.get<std::string>();
    return by == "up" || by[0] == '+' ? "more" : "less";
  }
  if (value.is_boolean()) return value.get<bool>() ? "on" : "off";
  if (value.is_string()) return value.get<std::string>()[0] == '#' ? "a colour" : value.get<std::string>();
  return value == 0 ? "zero" : value < 0 ? "below zero" : "a level";
}

// What one answer does, part by part: a signal with its zones and way, or a call with the kinds of its arguments.
std::set<std::string> Parts(const Json& answer) {
  if (answer.contains("refuse")) return {"refuse"};
  static const std::regex zone("Row[12]\\.(Driver|Passenger)(Side)?|Mirrors\\.(Driver|Passenger)Side");
  const Json set = answer.value("set", Json::object());
  const Json adjust = answer.value("adjust", Json::object());
  std::map<std::string, std::string> zones;  // signal and way -> zones
  for (const auto& [path, value] : set.items()) {
    std::smatch match;
    const std::string where = std::regex_search(path, match, zone) ? match.str() : "";
    const std::string signal = std::regex_replace(path, zone, "%");
    zones[signal + " " + Way(value, adjust.value(path, Json()))] += " " + where;
  }
  std::set<std::string> parts;
  for (const auto& [signal, where] : zones) parts.insert(signal + where);
  const Json call = answer.value("call", Json::object());
  if (!call.empty()) {
    std::string kind = call.at("name");
    for (const char* key : {"avoid", "artist"}) kind += call.contains(key) ? std::string(" ") + key : "";
    parts.insert(kind);
  }
  return parts;
}

std::string Meaning(const Json& answer) {
  std::string meaning = answer.contains("partly") ? "partly" : "";
  for (const std::string& part : Parts(answer)) meaning += "; " + part;
  std::set<std::string> readings;
  for (const Json& reading : answer.value("clarify", Json::array())) readings.insert(Meaning(reading));
  for (const std::string& reading : readings) meaning += " or " + reading;
  return meaning;
}

TEST(WrittenVarietyTest, LabelsMeanManyThings) {
  std::set<std::string> parts;
  std::set<std::string> meanings;
  written::ForEachJsonLine(written::SheetFolder(), [&](const Json& line, const std::string&) {
    const Json& answer = line.at("answer");
    meanings.insert(Meaning(answer));
    parts.merge(Parts(answer));
    for (const Json& reading : answer.value("clarify", Json::array())) parts.merge(Parts(reading));
  });
  std::printf("%zu meanings of whole labels, made of %zu parts\n", meanings.size(), parts.size());
  EXPECT_GE(meanings.size(), 400u);
  EXPECT_GE(parts.size(), 300u);
}

}  // namespace
}  // namespace updraft
