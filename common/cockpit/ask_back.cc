#include "common/cockpit/ask_back.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/cockpit/answer.h"
#include "common/cockpit/json_object.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

bool Says(const json& answer, const char* key) {
  const auto it = answer.find(key);
  if (it == answer.end()) return false;
  if (it->is_boolean()) return it->get<bool>();
  return (it->is_object() || it->is_array()) && !it->empty();
}

// A lead byte of the unified ideographs.
bool LeadsIdeograph(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0xe4 && byte <= 0xe9;
}

// Whoever writes any ideograph is asked in Chinese; where the request is not known, whoever is answered with one first.
bool IsChinese(std::string_view request, std::span<const std::string> candidates) {
  if (!request.empty()) return std::any_of(request.begin(), request.end(), LeadsIdeograph);
  for (const std::string& candidate : candidates) {
    const absl::StatusOr<json> answer = ParseObject(candidate, "answer");
    if (!answer.ok()) continue;
    const auto say = answer->find("say");
    if (say == answer->end() || !say->is_string()) continue;
    const std::string words = say->get<std::string>();
    const auto first = std::find_if(words.begin(), words.end(), [](char c) {
      return absl::ascii_isalpha(static_cast<unsigned char>(c)) || LeadsIdeograph(c);
    });
    if (first != words.end()) return LeadsIdeograph(*first);
  }
  return false;
}

std::string Plain(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, json::error_handler_t::replace);
}

// The last n parts of a path with dots.
std::string LastParts(const std::string& path, int n) {
  size_t dot = path.size();
  while (n-- > 0 && dot != std::string::npos) dot = dot == 0 ? std::string::npos : path.rfind('.', dot - 1);
  return dot == std::string::npos ? path : path.substr(dot + 1);
}

std::string Argument(const json& call, const char* key) {
  const auto it = call.find(key);
  return it == call.end() ? "" : Plain(*it);
}

// "call Mia": what models word alike whoever is called.
std::string DescribedCall(const json& call, bool chinese) {
  const std::string name = Argument(call, "name");
  if (name == "navigate") return absl::StrCat(chinese ? "导航去" : "navigate to ", Argument(call, "to"));
  if (name == "phone") return absl::StrCat(chinese ? "打电话给" : "call ", Argument(call, "contact"));
  const std::string artist = Argument(call, "artist"), title = Argument(call, "title");
  if (chinese) return absl::StrCat("播放", artist, artist.empty() ? "" : "的", title);
  return absl::StrCat("play ", title, artist.empty() ? "" : " by ", artist);
}

// "Row1.DriverSide.HeatingCooling 60, call Mia": what an alternative does.
std::string Described(const json& answer, bool chinese) {
  std::vector<std::string> parts;
  if (Says(answer, "set")) {
    for (const auto& [path, value] : answer["set"].items()) {
      parts.push_back(absl::StrCat(LastParts(path, 3), " ", Plain(value)));
    }
  }
  if (Says(answer, "call")) parts.push_back(DescribedCall(answer["call"], chinese));
  return absl::StrJoin(parts, ", ");
}

// In the model's own words where they tell what is meant: of calls they do not.
std::string Worded(const json& answer, bool chinese) {
  if (Says(answer, "refuse")) return chinese ? "什么都不做" : "do nothing";
  const auto say = answer.find("say");
  std::string words = say != answer.end() && say->is_string() ? say->get<std::string>() : "";
  while (!words.empty() && (words.back() == '.' || words.back() == ' ')) words.pop_back();
  return words.empty() || Says(answer, "call") ? Described(answer, chinese) : words;
}

// What is carried out of an answer, and nothing else.
ordered_json Alternative(const json& answer) {
  ordered_json out = ordered_json::object();
  for (const char* key : {"set", "call"}) {
    if (Says(answer, key)) out[key] = answer[key];
  }
  if (Says(answer, "refuse")) out["refuse"] = true;
  return out;
}

std::string Dump(const ordered_json& object) {
  return object.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

struct Reading {
  ordered_json alternative;
  std::string words;      // as the model put it
  std::string described;  // as it is
  int n = 0;              // candidates that mean it
};

// What the candidates mean, each once: the first candidate's reading first, then by how many share it.
std::vector<Reading> ReadingsOf(std::span<const std::string> candidates, bool chinese) {
  std::vector<Reading> readings;
  std::map<std::string, size_t> seen;  // meaning -> place in readings
  for (const std::string& candidate : candidates) {
    const Effect effect = EffectOf(candidate);
    if (effect != Effect::kAct && effect != Effect::kRefuse) continue;
    const json answer = *ParseObject(candidate, "answer");
    ordered_json alternative = Alternative(answer);
    const absl::StatusOr<std::string> meaning = CanonicalSettings(Dump(alternative));
    if (!meaning.ok()) continue;
    const auto [it, is_new] = seen.try_emplace(*meaning, readings.size());
    if (is_new) {
      readings.push_back({.alternative = std::move(alternative),
                          .words = Worded(answer, chinese),
                          .described = Says(answer, "refuse") ? Worded(answer, chinese) : Described(answer, chinese)});
    }
    ++readings[it->second].n;
  }
  if (readings.size() > 2) {
    std::stable_sort(readings.begin() + 1, readings.end(),
                     [](const Reading& a, const Reading& b) { return a.n > b.n; });
  }
  return readings;
}

}  // namespace

Effect EffectOf(std::string_view answer) {
  const absl::StatusOr<json> parsed = ParseObject(answer, "answer");
  if (!parsed.ok()) return Effect::kNone;
  if (Says(*parsed, "clarify")) return Effect::kAsk;
  if (Says(*parsed, "refuse")) return Effect::kRefuse;
  if (!CheckLegal(answer).ok()) return Effect::kIllegal;
  return Says(*parsed, "set") || Says(*parsed, "call") ? Effect::kAct : Effect::kNone;
}

AskedBack AskBack(std::span<const std::string> candidates, std::string_view request) {
  const bool chinese = IsChinese(request, candidates);
  AskedBack asked;
  ordered_json list = ordered_json::array();
  std::vector<Reading> readings = ReadingsOf(candidates, chinese);
  if (readings.size() > kMaxAlternatives) readings.erase(readings.begin() + kMaxAlternatives, readings.end());
  for (const Reading& reading : readings) {
    asked.alternatives.push_back(Dump(reading.alternative));
    list.push_back(reading.alternative);
  }
  // Nothing, or nothing but to do nothing: there is no question in it.
  if (list.empty() || (list.size() == 1 && list[0].contains("refuse"))) {
    asked.alternatives.clear();
    Answer refusal;
    refusal.refuse = true;
    refusal.say = chinese ? "我没有听懂。" : "I did not understand that.";
    asked.text = AnswerText(refusal);
    return asked;
  }
  std::set<std::string> distinct;
  for (const Reading& reading : readings) distinct.insert(reading.words);
  std::vector<std::string> words;  // that tell the readings apart
  for (const Reading& reading : readings) {
    words.push_back(distinct.size() == readings.size() ? reading.words : reading.described);
  }
  ordered_json object = ordered_json::object();
  object["set"] = ordered_json::object();
  object["clarify"] = std::move(list);
  object["say"] = chinese ? absl::StrCat("您是想：", absl::StrJoin(words, "，还是："), "？")
                          : absl::StrCat("Did you mean: ", absl::StrJoin(words, ", or: "), "?");
  asked.text = Dump(object);
  return asked;
}

}  // namespace updraft::cockpit
