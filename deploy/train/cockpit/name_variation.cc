#include "deploy/train/cockpit/name_variation.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace updraft::cockpit {
namespace {

using nlohmann::ordered_json;

constexpr std::array<std::string_view, 4> kFields = {"contact", "to", "title", "artist"};  // in the order of Role

std::string Lowered(std::string_view text) { return absl::AsciiStrToLower(std::string(text)); }
std::string Raised(std::string_view text) { return absl::AsciiStrToUpper(std::string(text)); }

// Meanings rather than names; and the words of an answer's own form, which stand in the assistant's turns.
bool IsFixed(std::string_view name) {
  static constexpr std::string_view kFixed[] = {"home",     "work",   "家",    "公司",   "set",   "call",  "name",
                                                "navigate", "to",     "avoid", "media",  "phone", "title", "artist",
                                                "contact",  "refuse", "say",   "result", "true",  "false"};
  return std::find(std::begin(kFixed), std::end(kFixed), Lowered(name)) != std::end(kFixed);
}

// Bytes of the CJK unified ideograph (U+4000 to U+9FFF) that begins at `at`; 0: none does.
size_t IdeographAt(std::string_view text, size_t at) {
  if (at + 3 > text.size()) return 0;
  const auto lead = static_cast<uint8_t>(text[at]);
  return lead >= 0xE4 && lead <= 0xE9 ? 3 : 0;
}

bool HasIdeograph(std::string_view text) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (IdeographAt(text, at) > 0) return true;
  }
  return false;
}

bool IsDialled(std::string_view name) {
  return name.size() >= 3 && std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
}

// Where a name was said.
struct Span {
  size_t begin = 0, end = 0;
};

// The digits of `number` one after another, spaces and hyphens between them. A longer number does not hold it.
std::optional<Span> FindNumber(std::string_view text, std::string_view number, size_t from) {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (text[begin] != number[0] || (begin > 0 && absl::ascii_isdigit(text[begin - 1]))) continue;
    size_t at = begin, n = 0;
    while (at < text.size() && n < number.size()) {
      if (text[at] == number[n]) {
        ++n;
      } else if (text[at] != ' ' && text[at] != '-') {
        break;
      }
      ++at;
    }
    if (n == number.size() && (at == text.size() || !absl::ascii_isdigit(text[at]))) return Span{begin, at};
  }
  return std::nullopt;
}

// Capitals do not count; a word does not hold a shorter one.
std::optional<Span> FindName(std::string_view text, std::string_view name, size_t from) {
  if (IsDialled(name)) return FindNumber(text, name, from);
  const std::string lowered = Lowered(name);
  for (size_t begin = from; begin + name.size() <= text.size(); ++begin) {
    const size_t end = begin + name.size();
    if (Lowered(text.substr(begin, name.size())) != lowered) continue;
    if (begin > 0 && absl::ascii_isalnum(name.front()) && absl::ascii_isalnum(text[begin - 1])) continue;
    if (end < text.size() && absl::ascii_isalnum(name.back()) && absl::ascii_isalnum(text[end])) continue;
    return Span{begin, end};
  }
  return std::nullopt;
}

// `name` written as `said` wrote `old`.
std::string WrittenLike(std::string_view said, std::string_view old, std::string_view name) {
  if (IsDialled(old)) {
    std::string digits(said);
    size_t n = 0;
    for (char& c : digits) {
      if (absl::ascii_isdigit(c)) c = name[n++];
    }
    return digits;
  }
  if (said == old) return std::string(name);
  if (said == Raised(old)) return Raised(name);
  return Lowered(name);
}

std::string Exchange(std::string_view text, std::string_view old, std::string_view name) {
  std::string out;
  size_t at = 0;
  while (const std::optional<Span> found = FindName(text, old, at)) {
    out += text.substr(at, found->begin - at);
    out += WrittenLike(text.substr(found->begin, found->end - found->begin), old, name);
    at = found->end;
  }
  out += text.substr(at);
  return out;
}

bool Said(const Example& example, std::string_view name) {
  for (const ChatTurn& turn : example.turns) {
    if (turn.role == "user" && FindName(turn.content, name, 0)) return true;
  }
  return false;
}

}  // namespace

std::vector<NameVariation::Name> NameVariation::NamesOf(const Example& example) {
  std::vector<Name> names;
  const ordered_json answer = ordered_json::parse(example.answer, nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object() || !answer.contains("call") || !answer["call"].is_object()) return names;
  for (int role = 0; role < kRoles; ++role) {
    const auto it = answer["call"].find(kFields[static_cast<size_t>(role)]);
    if (it == answer["call"].end() || !it->is_string()) continue;
    std::string text = it->get<std::string>();
    // What JSON would escape stays: names are exchanged in the answer's text.
    const bool plain = std::none_of(text.begin(), text.end(),
                                    [](char c) { return c == '"' || c == '\\' || static_cast<uint8_t>(c) < 0x20; });
    const size_t least = HasIdeograph(text) ? 6 : 2;  // bytes: a single character is a part of too many words
    if (plain && text.size() >= least && !IsFixed(text) && Said(example, text)) {
      names.push_back({static_cast<Role>(role), std::move(text)});
    }
  }
  return names;
}

NameVariation::NameVariation(std::span<const Example> written) {
  for (const Example& example : written) Learn(example);
  std::set<std::string> distinct;
  for (const std::vector<std::string>& run : runs_) distinct.insert(run.begin(), run.end());
  characters_.assign(distinct.begin(), distinct.end());
}

void NameVariation::Learn(const Example& example) {
  for (Name& name : NamesOf(example)) {
    const bool spaced = !HasIdeograph(name.text);
    if (IsDialled(name.text)) continue;
    if (spaced) LearnSpelling(name.text);
    (spaced ? spaced_ : unspaced_)[name.role].push_back(std::move(name.text));
  }
  for (const ChatTurn& turn : example.turns) {
    if (turn.role != "user") continue;
    std::string word;
    std::vector<std::string> run;
    const auto end_run = [&] {
      if (word.size() >= 3 && word.size() <= 10) words_.push_back(word);
      if (run.size() >= 2) runs_.push_back(run);
      word.clear();
      run.clear();
    };
    for (size_t at = 0; at < turn.content.size();) {
      const size_t bytes = IdeographAt(turn.content, at);
      const bool letter = absl::ascii_isalpha(turn.content[at]);
      if (bytes == 0 && !letter) end_run();
      if (letter) word += absl::ascii_tolower(turn.content[at]);
      if (bytes > 0) run.push_back(turn.content.substr(at, bytes));
      at += std::max<size_t>(bytes, 1);
    }
    end_run();
  }
}

void NameVariation::LearnSpelling(std::string_view name) {
  std::string before = "^^";
  const auto end_word = [&] {
    if (before != "^^") following_[before] += '$';
    before = "^^";
  };
  for (char c : name) {
    if (!absl::ascii_isalpha(c)) {
      end_word();
      continue;
    }
    following_[before] += absl::ascii_tolower(c);
    before = {before[1], absl::ascii_tolower(c)};
  }
  end_word();
}

std::string NameVariation::MadeUpWord(Random* random) const {
  std::string word, before = "^^";
  for (auto it = following_.find(before); it != following_.end() && word.size() < 11; it = following_.find(before)) {
    const char next = it->second[random->Below(static_cast<uint32_t>(it->second.size()))];
    if (next == '$') break;
    word += next;
    before = {before[1], next};
  }
  return word.size() < 2 ? absl::StrCat(word, "ola") : word;
}

std::string NameVariation::MadeUp(Role role, Random* random) const {
  const bool person = role == kContact || role == kArtist;
  const int most = person ? 2 : role == kPlace ? 3 : 4;
  std::string name;
  for (int words = random->Between(1, most); words > 0; --words) {
    std::string word;
    const uint32_t draw = random->Below(100);
    if (!person && draw < 8) {
      word = absl::StrCat(random->Between(1, 999));
    } else if (words_.empty() || draw < (person ? 85 : 50)) {
      word = MadeUpWord(random);
    } else {
      word = random->Pick(words_);
    }
    word[0] = absl::ascii_toupper(word[0]);
    absl::StrAppend(&name, name.empty() ? "" : " ", word);
  }
  return name;
}

std::string NameVariation::MadeUpInCharacters(Role role, Random* random) const {
  const int most = role == kContact || role == kArtist ? 4 : 7;
  const auto wanted = static_cast<size_t>(random->Between(2, most));
  std::string name;
  if (random->Percent(50)) {
    // Characters that do stand beside each other, from within what somebody said.
    const std::vector<std::string>& run = random->Pick(runs_);
    const size_t length = std::min(wanted, run.size());
    const size_t begin = random->Below(static_cast<uint32_t>(run.size() - length + 1));
    for (size_t i = 0; i < length; ++i) name += run[begin + i];
  } else {
    for (size_t i = 0; i < wanted; ++i) name += random->Pick(characters_);
  }
  if (role == kPlace && random->Percent(15)) absl::StrAppend(&name, random->Between(1, 999), "号");
  return name;
}

std::string NameVariation::Another(const Name& name, size_t request_bytes, Random* random) const {
  if (IsDialled(name.text)) {
    std::string digits(name.text);
    for (char& c : digits) c = static_cast<char>('0' + random->Below(10));
    return digits;
  }
  const bool spaced = !HasIdeograph(name.text);
  const std::vector<std::string>& known = (spaced ? spaced_ : unspaced_)[name.role];
  const bool alone = name.text.size() * 10 > request_bytes * 4;
  if (!known.empty() && (alone || random->Percent(50))) return random->Pick(known);
  if (alone) return name.text;
  if (spaced) return MadeUp(name.role, random);
  return runs_.empty() ? name.text : MadeUpInCharacters(name.role, random);
}

std::optional<Example> NameVariation::Draw(const Example& from, Random* random) const {
  std::vector<Name> names = NamesOf(from);
  if (names.empty()) return std::nullopt;
  // The longest first: what is part of it goes with it.
  std::stable_sort(names.begin(), names.end(),
                   [](const Name& a, const Name& b) { return a.text.size() > b.text.size(); });
  Example example = from;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string another = Another(names[i], from.turns.back().content.size(), random);
    // What is still to be exchanged would be found in it.
    const bool clashes = std::any_of(names.begin() + static_cast<ptrdiff_t>(i) + 1, names.end(),
                                     [&](const Name& other) { return FindName(another, other.text, 0).has_value(); });
    if (clashes) continue;
    for (ChatTurn& turn : example.turns) turn.content = Exchange(turn.content, names[i].text, another);
    example.answer = Exchange(example.answer, names[i].text, another);
  }
  return example;
}

}  // namespace updraft::cockpit
