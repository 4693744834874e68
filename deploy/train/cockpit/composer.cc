#include "deploy/train/cockpit/composer.h"

#include <algorithm>
#include <array>

namespace updraft::cockpit {
namespace {

// Shares of the sixteen hash classes: three for the test, two for calibration, the rest for training.
constexpr uint64_t kClasses = 16;
constexpr uint64_t kTestClasses = 3;
constexpr uint64_t kCalibrateClasses = 2;
constexpr int kTries = 200;

constexpr std::array<std::string_view, 8> kEnglishFillers = {"um", "uh", "er", "well", "hmm", "like", "uhm", "erm"};
constexpr std::array<std::string_view, 6> kChineseFillers = {"呃", "嗯", "那个", "额", "就是", "这个"};

bool IsWordByte(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\'';
}

void ReplaceAll(std::string* text, std::string_view from, std::string_view to) {
  for (size_t at = text->find(from); at != std::string::npos; at = text->find(from, at + to.size())) {
    text->replace(at, from.size(), to);
  }
}

std::string CollapseSpaces(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ' ' && !out.empty() && out.back() == ' ') continue;
    // No space before a comma that follows an empty alternative.
    if (c == ',' && !out.empty() && out.back() == ' ') out.pop_back();
    out.push_back(c);
  }
  return out;
}

std::string TrimSpaces(std::string_view text) {
  const size_t begin = text.find_first_not_of(' ');
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(' ') - begin + 1));
}

// Byte positions outside protected spans at which an English word starts.
std::vector<size_t> FreeWordStarts(std::string_view text) {
  std::vector<size_t> starts;
  bool is_protected = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == kProtectBegin) is_protected = true;
    if (!is_protected && IsWordByte(text[i]) && (i == 0 || text[i - 1] == ' ')) starts.push_back(i);
    if (text[i] == kProtectEnd) is_protected = false;
  }
  return starts;
}

void AddEnglishTypo(std::string* text, Random* random) {
  std::vector<std::pair<size_t, size_t>> words;
  for (size_t start : FreeWordStarts(*text)) {
    size_t end = start;
    while (end < text->size() && (*text)[end] >= 'a' && (*text)[end] <= 'z') ++end;
    if (end - start >= 5) words.emplace_back(start, end);
  }
  if (words.empty()) return;
  const auto [start, end] = random->Pick(words);
  // Not the first letter: people and spelling correctors rely on it most.
  const size_t at = start + 1 + random->Below(static_cast<uint32_t>(end - start - 2));
  switch (random->Below(3)) {
    case 0:
      std::swap((*text)[at], (*text)[at + 1]);
      break;
    case 1:
      text->erase(at, 1);
      break;
    default:
      text->insert(at, 1, (*text)[at]);
  }
}

void AddChineseTypo(std::string* text, Random* random) {
  // Characters that a speech recogniser or an input method confuses: same or nearly the same sound.
  static const std::vector<std::pair<std::string_view, std::string_view>> kConfusions = {
      {"座椅", "坐椅"}, {"空调", "空条"}, {"温度", "文度"}, {"打开", "大开"}, {"关闭", "关必"}, {"车窗", "车床"},
      {"帮我", "邦我"}, {"调到", "掉到"}, {"音量", "因量"}, {"主驾", "主架"}, {"副驾", "付驾"}, {"后排", "后牌"},
      {"一点", "一店"}, {"加热", "加日"}, {"导航", "导行"}, {"播放", "波放"}, {"前排", "钱排"}, {"设置", "设制"},
      {"设为", "设位"}, {"把", "吧"},     {"的", "得"},     {"在", "再"},     {"请", "情"},     {"有点", "有店"}};
  std::vector<size_t> present;
  for (size_t i = 0; i < kConfusions.size(); ++i) {
    if (text->find(kConfusions[i].first) != std::string::npos) present.push_back(i);
  }
  if (present.empty()) return;
  const auto& [from, to] = kConfusions[random->Pick(present)];
  const size_t at = text->find(from);
  const size_t begin_mark = text->rfind(kProtectBegin, at);
  const size_t end_mark = text->rfind(kProtectEnd, at);
  const bool is_protected = begin_mark != std::string::npos && (end_mark == std::string::npos || end_mark < begin_mark);
  if (!is_protected) text->replace(at, from.size(), to);
}

std::string DressEnglish(std::string_view core, bool imperative, Composer* composer) {
  Random& random = composer->random();
  std::string text = TrimSpaces(core);
  const uint32_t style = random.Below(10);
  if (imperative && style < 5) {
    text = composer->Say(
        "[|hey car, |ok car, |hi, |hello, ][please|can you|could you|could you please|can you please|would you|"
        "i want you to|i'd like you to|i need you to|you should|let's|would you mind and|go ahead and|kindly|"
        "will you|would you please|now] {core}[||| please| for me| thanks| right now| now| if you can| thank you]",
        {{"core", text}});
  } else if (style < 7) {
    text =
        composer->Say("[hey|hey car|ok|ok car|hi|hello|listen|so|alright|car|excuse me|look|right], {core}[||| please]",
                      {{"core", text}});
  } else if (style < 8) {
    text = composer->Say("{core}[ please| thanks|, thank you| now|, ok|, will you| please, thanks]", {{"core", text}});
  }
  if (random.Percent(14)) {
    const std::vector<size_t> starts = FreeWordStarts(text);
    const auto filler = kEnglishFillers[random.Below(kEnglishFillers.size())];
    if (!starts.empty()) text.insert(random.Pick(starts), std::string(filler) + (random.Percent(30) ? ", " : " "));
  }
  if (random.Percent(9)) AddEnglishTypo(&text, &random);
  if (random.Percent(35)) {
    ReplaceAll(&text, " i ", " I ");
    ReplaceAll(&text, " i'", " I'");
    if (text.rfind("i ", 0) == 0 || text.rfind("i'", 0) == 0 || random.Percent(60)) {
      if (text[0] >= 'a' && text[0] <= 'z') text[0] = static_cast<char>(text[0] - 'a' + 'A');
    }
    if (random.Percent(60)) text += '.';
  } else if (random.Percent(10)) {
    ReplaceAll(&text, "'", "");
  }
  return text;
}

std::string DressChinese(std::string_view core, bool imperative, Composer* composer) {
  Random& random = composer->random();
  std::string text(core);
  const uint32_t style = random.Below(10);
  if (imperative && style < 6) {
    text = composer->Say(
        "[||你好，|小度，|嘿，|车车，][请|帮我|请帮我|麻烦|麻烦你|能不能|可以|给我|你|能|可不可以|劳驾|麻烦帮我|现在|"
        "能帮我|"
        "我想|我要]{core}[|||吧|好吗|谢谢|一下吧|，谢谢|，好不好|吗]",
        {{"core", text}});
  } else if (style < 8) {
    text = composer->Say("[你好|喂|嘿|好的|哎|那么|对了|听着|车车]，{core}[|||啊|，谢谢|呢]", {{"core", text}});
  }
  if (random.Percent(14)) {
    const std::string filler(kChineseFillers[random.Below(kChineseFillers.size())]);
    const size_t comma = text.find("，");
    if (comma != std::string::npos && random.Percent(50)) {
      text.insert(comma + 3, filler);
    } else {
      text.insert(0, filler + (random.Percent(50) ? "，" : ""));
    }
  }
  if (random.Percent(9)) AddChineseTypo(&text, &random);
  if (random.Percent(20)) text += "。";
  return text;
}

std::string EnglishWords(int n) {
  static constexpr std::array<const char*, 20> kSmall = {
      "zero", "one",    "two",    "three",    "four",     "five",    "six",     "seven",     "eight",    "nine",
      "ten",  "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"};
  static constexpr std::array<const char*, 10> kTens = {"",      "",      "twenty",  "thirty", "forty",
                                                        "fifty", "sixty", "seventy", "eighty", "ninety"};
  if (n < 20) return kSmall[n];
  if (n < 100) return std::string(kTens[n / 10]) + (n % 10 ? std::string(" ") + kSmall[n % 10] : "");
  if (n == 100) return "one hundred";
  return "one hundred and " + EnglishWords(n - 100);
}

std::string ChineseWords(int n) {
  static constexpr std::array<const char*, 10> kDigits = {"零", "一", "二", "三", "四", "五", "六", "七", "八", "九"};
  if (n < 10) return kDigits[n];
  if (n < 100) {
    return std::string(n >= 20 ? kDigits[n / 10] : "") + "十" + (n % 10 ? kDigits[n % 10] : "");
  }
  std::string out = "一百";
  if (n == 100) return out;
  if (n < 110) return out + "零" + kDigits[n % 10];
  return out + kDigits[(n - 100) / 10] + "十" + (n % 10 ? kDigits[n % 10] : "");
}

}  // namespace

Split SideOf(uint64_t hash) {
  const uint64_t bucket = hash % kClasses;
  if (bucket < kTestClasses) return Split::kTest;
  return bucket < kTestClasses + kCalibrateClasses ? Split::kCalibrate : Split::kTrain;
}

Split SideOfNumber(int value, int low, int high, int turn) {
  const auto sixteenth = static_cast<uint64_t>(value - low) * kClasses / static_cast<uint64_t>(high - low + 1);
  return SideOf(sixteenth + static_cast<uint64_t>(turn));
}

std::string NormalizeUtterance(std::string_view text) {
  std::string plain(text);
  for (std::string_view mark : {"，", "。", "？", "！", "、", "；", "："}) ReplaceAll(&plain, mark, " ");
  for (std::string_view filler : kChineseFillers) ReplaceAll(&plain, filler, "");
  std::string out, word;
  const auto flush = [&] {
    const bool filler = std::find(kEnglishFillers.begin(), kEnglishFillers.end(), word) != kEnglishFillers.end();
    if (!word.empty() && !filler) out += (out.empty() ? "" : " ") + word;
    word.clear();
  };
  for (char c : plain) {
    if (!IsWordByte(c) && c != '%') {
      flush();
    } else if (c != '\'') {
      word.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
    }
  }
  flush();
  return out;
}

Split SideOfUtterance(std::string_view normalized) { return SideOf(HashBytes(normalized, /*seed=*/0x5EED)); }

std::string Composer::Expand(std::string_view pattern, const Slots& slots, Wording* wording) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '{') {
      const size_t end = pattern.find('}', i);
      const std::string_view name = pattern.substr(i + 1, end - i - 1);
      for (const auto& [slot, value] : slots) {
        if (slot == name) out += value;
      }
      i = end;
    } else if (pattern[i] == '[') {
      std::vector<std::string_view> options;
      size_t begin = i + 1, at = begin;
      for (int depth = 1; depth > 0; ++at) {
        if (pattern[at] == '[') ++depth;
        if (pattern[at] == ']') --depth;
        if (depth == 0 || (depth == 1 && pattern[at] == '|')) {
          options.push_back(pattern.substr(begin, at - begin));
          begin = at + 1;
        }
      }
      const uint32_t choice = random_.Below(static_cast<uint32_t>(options.size()));
      // An alternative may be repeated to come more often; it is one choice all the same.
      const uint64_t first = std::find(options.begin(), options.end(), options[choice]) - options.begin();
      wording->hash = HashCombine(wording->hash, first + 1);
      wording->index = wording->index * options.size() + first;
      wording->combinations *= options.size();
      ++wording->choices;
      out += Expand(options[choice], slots, wording);
      i = at - 1;
    } else {
      out.push_back(pattern[i]);
    }
  }
  return out;
}

Split Composer::SideOfWording(std::string_view pattern, const Wording& wording) {
  // So many that every side gets its share by hash alone.
  if (wording.combinations >= 4 * kClasses) return SideOf(wording.hash);
  // Few: dealt out, so that no pattern is without held-out wordings.
  const uint64_t n = wording.combinations;
  const uint64_t place = (wording.index + HashBytes(pattern, /*seed=*/0xDEA1)) % n;
  const uint64_t n_test = std::max<uint64_t>(1, n * kTestClasses / kClasses);
  const uint64_t n_calibrate = std::max<uint64_t>(1, n * kCalibrateClasses / kClasses);
  if (place < n_test) return Split::kTest;
  return place < n_test + n_calibrate ? Split::kCalibrate : Split::kTrain;
}

std::string Composer::Say(std::string_view pattern, const Slots& slots) {
  std::string text;
  for (int i = 0; i < kTries; ++i) {
    Wording wording{HashBytes(pattern), 0, 0, 1};
    text = CollapseSpaces(Expand(pattern, slots, &wording));
    // One choice is a word for a thing: vocabulary, which no one can guess. Wording is how choices go together.
    if (wording.choices < 2) return text;
    const Split side = SideOfWording(pattern, wording);
    if (side != Split::kTrain && side != split_) continue;
    if (!in_context_) {
      ++open_wordings_;
      held_out_wordings_ += side == split_ ? 1 : 0;
    }
    return text;
  }
  failed_ = true;
  return text;
}

std::string Composer::SayOne(const std::vector<std::string_view>& patterns, const Slots& slots) {
  return Say(random_.Pick(patterns), slots);
}

std::string Composer::DrawEntity(const std::function<std::string()>& draw) {
  for (int i = 0; i < kTries; ++i) {
    std::string text = draw();
    if (SideOf(HashBytes(text, /*seed=*/0xE17)) != split_) continue;
    if (!in_context_) ++held_out_contents_;
    return text;
  }
  failed_ = true;
  return draw();
}

int Composer::DrawValue(const std::function<int()>& draw, const std::function<Split(int)>& side) {
  for (int i = 0; i < kTries; ++i) {
    const int value = draw();
    if (side(value) != split_) continue;
    if (!in_context_) ++held_out_contents_;
    return value;
  }
  failed_ = true;
  return draw();
}

int Composer::DrawKey(std::string_view domain, const std::function<int()>& draw) {
  const uint64_t domain_hash = HashBytes(domain, /*seed=*/0x7A1);
  return DrawValue(draw, [&](int key) { return SideOf(HashCombine(domain_hash, static_cast<uint64_t>(key))); });
}

bool Composer::Acceptable() {
  if (failed_) return false;
  if (split_ == Split::kTrain || held_out_wordings_ > 0) return true;
  if (open_wordings_ > 0 || held_out_contents_ == 0) return false;
  // As often as an open wording is a held-out one, so that the mix of requests is that of training.
  const uint64_t own = split_ == Split::kTest ? kTestClasses : kCalibrateClasses;
  return random_.Below(kClasses - kTestClasses - kCalibrateClasses + own) < own;
}

std::string Protect(std::string_view text) { return kProtectBegin + std::string(text) + kProtectEnd; }

std::string RemoveMarks(std::string_view text) {
  std::string plain;
  for (char c : text) {
    if (c != kProtectBegin && c != kProtectEnd) plain.push_back(c);
  }
  return TrimSpaces(CollapseSpaces(plain));
}

std::string Dress(std::string_view core, bool imperative, Composer* composer) {
  return RemoveMarks(composer->english() ? DressEnglish(core, imperative, composer)
                                         : DressChinese(core, imperative, composer));
}

void AddTypo(Language language, std::string* text, Random* random) {
  language == Language::kEnglish ? AddEnglishTypo(text, random) : AddChineseTypo(text, random);
}

std::string NumberInWords(int tenths, Language language) {
  const int whole = tenths / 10;
  const bool half = tenths % 10 == 5;
  if (language == Language::kEnglish) return EnglishWords(whole) + (half ? " and a half" : "");
  return ChineseWords(whole) + (half ? "点五" : "");
}

}  // namespace updraft::cockpit
