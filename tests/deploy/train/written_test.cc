// The written requests: what measures never trains (no request holds a sentence of the recorded sets that judge the
// models, or comes near one), no request comes near another, and every label is one that a car may carry out.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "common/cockpit/answer.h"
#include "tests/deploy/train/written_sheets.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using written::ForEachJsonLine;
using written::IsChinese;
using written::Normalized;
using written::Plain;
using written::SheetFolder;
using written::SourceRoot;
using written::UserTexts;

constexpr double kNearMeasured = 0.6;  // Jaccard of character 5-grams
constexpr double kNearWritten = 0.7;

// ---- reading ----

struct Request {
  std::string where;  // file:line
  std::string text;   // what the user says, all messages
  std::u32string normalized;
};

struct Measure {
  std::vector<std::u32string> sentences;
  std::unordered_set<std::u32string> seen;

  void Add(const std::string& text) {
    std::u32string sentence = Normalized(text);
    if (!sentence.empty() && seen.insert(sentence).second) sentences.push_back(std::move(sentence));
  }
};

// The fields of one line of CSV; quotes are doubled inside quotes.
std::vector<std::string> CsvFields(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else if (c != '\r') {
      fields.back() += c;
    }
  }
  return fields;
}

void AddCsvTexts(const fs::path& folder, Measure& measure) {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".csv") continue;
    std::ifstream in(entry.path());
    std::string line;
    std::getline(in, line);
    const std::vector<std::string> head = CsvFields(line);
    const auto column = static_cast<size_t>(std::find(head.begin(), head.end(), "text") - head.begin());
    while (std::getline(in, line)) {
      const std::vector<std::string> fields = CsvFields(line);
      if (column < fields.size()) measure.Add(fields[column]);
    }
  }
}

// What the user says in every request: each message on its own, or all of a conversation joined.
std::vector<Request> Written(bool joined) {
  std::vector<Request> requests;
  const auto add = [&requests](const std::string& where, const std::string& text) {
    requests.push_back({where, text, Normalized(text)});
  };
  ForEachJsonLine(SheetFolder(), [&](const Json& line, const std::string& where) {
    if (joined) return add(where, written::JoinedUserText(line));
    for (const std::string& text : UserTexts(line)) add(where, text);
  });
  return requests;
}

// Every message, the assistant's (JSON with what it says) included.
std::vector<Request> EveryMessage() {
  std::vector<Request> messages;
  ForEachJsonLine(SheetFolder(), [&messages](const Json& line, const std::string& where) {
    for (const Json& message : line.at("messages")) {
      const auto& text = message.at("content").get_ref<const std::string&>();
      messages.push_back({where, text, Normalized(text)});
    }
  });
  return messages;
}

// ---- near copies ----

using Grams = std::vector<uint64_t>;  // distinct, rarest first

Grams GramsOf(const std::u32string& text) {
  constexpr size_t kLength = 5;
  Grams grams;
  for (size_t at = 0; at == 0 || at + kLength <= text.size(); ++at) {
    grams.push_back(std::hash<std::u32string>()(text.substr(at, kLength)));
  }
  std::sort(grams.begin(), grams.end());
  grams.erase(std::unique(grams.begin(), grams.end()), grams.end());
  return grams;
}

// Two sets with a Jaccard index of `threshold` share one of the rarest this many of either.
size_t PrefixLength(const Grams& grams, double threshold) {
  return grams.size() - static_cast<size_t>(std::ceil(threshold * static_cast<double>(grams.size()))) + 1;
}

double Jaccard(Grams a, Grams b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  Grams both;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(both));
  return static_cast<double>(both.size()) / static_cast<double>(a.size() + b.size() - both.size());
}

// Calls `visit(i, j, jaccard)` for every text i and other text j at least `threshold` alike.
void ForEachNearPair(const std::vector<std::u32string>& texts, const std::vector<std::u32string>& others,
                     double threshold, const std::function<void(size_t, size_t, double)>& visit) {
  std::vector<Grams> grams;
  for (const auto& text : texts) grams.push_back(GramsOf(text));
  for (const auto& text : others) grams.push_back(GramsOf(text));
  std::unordered_map<uint64_t, size_t> count;
  for (const Grams& set : grams) {
    for (const uint64_t gram : set) ++count[gram];
  }
  for (Grams& set : grams) {
    std::sort(set.begin(), set.end(),
              [&count](uint64_t a, uint64_t b) { return std::make_pair(count[a], a) < std::make_pair(count[b], b); });
  }
  std::unordered_map<uint64_t, std::vector<size_t>> holders;
  for (size_t j = 0; j < others.size(); ++j) {
    const Grams& set = grams[texts.size() + j];
    for (size_t k = 0; k < PrefixLength(set, threshold); ++k) holders[set[k]].push_back(j);
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    std::vector<size_t> candidates;
    for (size_t k = 0; k < PrefixLength(grams[i], threshold); ++k) {
      const auto it = holders.find(grams[i][k]);
      if (it != holders.end()) candidates.insert(candidates.end(), it->second.begin(), it->second.end());
    }
    std::sort(candidates.begin(), candidates.end());
    candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());
    for (const size_t j : candidates) {
      const double jaccard = Jaccard(grams[i], grams[texts.size() + j]);
      if (jaccard >= threshold) visit(i, j, jaccard);
    }
  }
}

std::vector<std::u32string> NormalizedOf(const std::vector<Request>& requests) {
  std::vector<std::u32string> texts;
  for (const Request& request : requests) texts.push_back(request.normalized);
  return texts;
}

// ---- the sets that measure ----

struct MeasuringSet {
  const char* folder;  // under ../shared/data
  const char* field;   // of a line of JSON; empty: messages; "csv": a CSV's column "text"
  size_t enough;       // sentences that are there at least
  size_t shortest;     // letters of an English sentence that counts as contained
};

class MeasuringTest : public testing::TestWithParam<MeasuringSet> {};

// A Chinese sentence of fewer characters is anybody's.
constexpr size_t kShortestChinese = 6;

Measure ReadMeasure(const fs::path& data, const MeasuringSet& set) {
  Measure measure;
  const std::string field = set.field;
  if (field == "csv") {
    AddCsvTexts(data, measure);
    return measure;
  }
  ForEachJsonLine(data, [&](const Json& line, const std::string&) {
    if (!field.empty()) {
      measure.Add(line.at(field).get<std::string>());
    } else {
      for (const std::string& text : UserTexts(line)) measure.Add(text);
    }
  });
  return measure;
}

// Finds which sentences stand inside a text, also where they begin or end within a word.
class Finder {
 public:
  Finder(const std::vector<std::u32string>& sentences, size_t shortest_english) : shortest_(shortest_english) {
    for (const std::u32string& sentence : sentences) {
      const size_t length = IsChinese(sentence) ? kShortestChinese : shortest_;
      if (sentence.size() >= length) by_start_[std::u32string_view(sentence).substr(0, length)].push_back(&sentence);
    }
  }

  std::vector<const std::u32string*> In(std::u32string_view text) const {
    std::vector<const std::u32string*> found;
    for (size_t at = 0; at < text.size(); ++at) {
      for (const size_t length : {kShortestChinese, shortest_}) {
        const auto it = by_start_.find(text.substr(at, length));
        if (it == by_start_.end()) continue;
        for (const std::u32string* sentence : it->second) {
          if (text.substr(at, sentence->size()) == *sentence) found.push_back(sentence);
        }
      }
    }
    return found;
  }

 private:
  size_t shortest_;
  std::unordered_map<std::u32string_view, std::vector<const std::u32string*>> by_start_;
};

TEST_P(MeasuringTest, NoWrittenRequestHoldsItsSentences) {
  const fs::path data = SourceRoot() / "../shared/data" / GetParam().folder;
  if (!fs::exists(data)) GTEST_SKIP() << "the requests that measure are not at " << data;
  const Measure measure = ReadMeasure(data, GetParam());
  ASSERT_GT(measure.sentences.size(), GetParam().enough) << "the requests that measure were not read";
  const std::vector<Request> written = EveryMessage();
  ASSERT_GT(written.size(), 12000u) << "the written requests were not read";

  const Finder finder(measure.sentences, GetParam().shortest);
  for (const Request& request : written) {
    EXPECT_FALSE(measure.seen.contains(request.normalized)) << request.where << ": " << request.text;
    for (const std::u32string* sentence : finder.In(request.normalized)) {
      ADD_FAILURE() << request.where << ": '" << request.text << "' holds '" << Plain(*sentence) << "'";
    }
  }
}

TEST_P(MeasuringTest, NoWrittenRequestComesNearItsSentences) {
  const fs::path data = SourceRoot() / "../shared/data" / GetParam().folder;
  if (!fs::exists(data)) GTEST_SKIP() << "the requests that measure are not at " << data;
  const Measure measure = ReadMeasure(data, GetParam());
  const std::vector<Request> written = Written(/*joined=*/false);
  ForEachNearPair(NormalizedOf(written), measure.sentences, kNearMeasured, [&](size_t i, size_t j, double jaccard) {
    ADD_FAILURE() << written[i].where << ": '" << written[i].text << "' is " << jaccard << " like '"
                  << Plain(measure.sentences[j]) << "'";
  });
}

// Phrases of 12 letters are anybody's in a set of thousands ("thank you kindly"), where one of hundreds has sentences.
INSTANTIATE_TEST_SUITE_P(Sets, MeasuringTest,
                         testing::Values(MeasuringSet{"cockpit_wild", "", 200, 12},
                                         MeasuringSet{"cockpit_real", "", 900, 12},
                                         MeasuringSet{"task_clinc150/dev", "csv", 20000, 20},
                                         MeasuringSet{"task_macslu_zh_cabin/dev", "query", 500, 20},
                                         MeasuringSet{"task_snips/dev", "text", 10000, 20},
                                         MeasuringSet{"task_slurp/dev", "text", 3000, 20}),
                         [](const testing::TestParamInfo<MeasuringSet>& info) {
                           std::string name = info.param.folder;
                           std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
                           return name;
                         });

TEST(WrittenTest, NoRequestComesNearAnother) {
  const std::vector<Request> written = Written(/*joined=*/true);
  const std::vector<std::u32string> texts = NormalizedOf(written);
  ForEachNearPair(texts, texts, kNearWritten, [&](size_t i, size_t j, double jaccard) {
    if (i < j) {
      ADD_FAILURE() << written[i].where << ": '" << written[i].text << "' is " << jaccard << " like "
                    << written[j].where << ": '" << written[j].text << "'";
    }
  });
}

// ---- labels ----

// Why `answer` (an act with `set` or `call`) is none that the sheets may hold; empty: it is.
std::string FaultOfAct(const Json& answer) {
  const absl::Status legal = cockpit::CheckLegal(answer.dump());
  if (!legal.ok()) return std::string(legal.message());
  if (!answer.contains("set") && !answer.contains("call")) return "neither 'set' nor 'call'";
  for (const auto& [key, value] : answer.items()) {
    if (key == "partly" ? value != Json(true) : key != "set" && key != "call" && key != "adjust") return "key " + key;
    if (value.empty()) return "empty " + key;
  }
  if (answer.contains("call")) {
    for (const auto& [key, value] : answer["call"].items()) {
      if (!value.is_string() || value.get<std::string>().empty()) return "call without a text for " + key;
    }
  }
  const Json set = answer.value("set", Json::object());
  for (const auto& [path, value] : set.items()) {
    const bool temperature = path.find("Temperature") != std::string::npos;
    if (temperature && (value < 14 || value > 32)) return path + " beyond 14 to 32 degrees";
    if (path.find("Recline") != std::string::npos && (value < 0 || value > 90)) return path + " beyond 0 to 90 degrees";
    if (path.find("SpeedSet") != std::string::npos && (value < 20 || value > 250))
      return path + " beyond 20 to 250 km/h";
  }
  static const std::regex change("up|down|[+-][0-9]+(\\.[0-9]+)?");
  const Json adjust = answer.value("adjust", Json::object());
  for (const auto& [path, by] : adjust.items()) {
    if (!set.contains(path)) return "adjusts what it does not set: " + path;
    if (!by.is_string() || !std::regex_match(by.get<std::string>(), change)) return "adjust of " + path;
  }
  return "";
}

std::string FaultOf(const Json& answer) {
  if (answer.contains("refuse")) return answer == Json{{"refuse", true}} ? "" : "refuses and acts";
  if (!answer.contains("clarify")) return FaultOfAct(answer);
  const Json& readings = answer["clarify"];
  if (answer.size() != 1 || readings.size() < 2 || readings.size() > 3) return "expected two or three readings alone";
  for (const Json& reading : readings) {
    const std::string fault = FaultOfAct(reading);
    if (!fault.empty()) return "a reading: " + fault;
  }
  return "";
}

TEST(WrittenTest, EveryLabelIsLegal) {
  static const std::set<std::string> kinds = {"direct", "levelless", "implicit", "multi", "followup", "call", "scope"};
  ForEachJsonLine(SheetFolder(), [](const Json& line, const std::string& where) {
    EXPECT_EQ(FaultOf(line.at("answer")), "") << where;
    EXPECT_EQ(line.at("sheet").get<std::string>() + ".jsonl", where.substr(0, where.find(':')));
    const std::string kind = line.at("kind");
    EXPECT_TRUE(kinds.contains(kind)) << where << ": " << kind;
    const Json& messages = line.at("messages");
    EXPECT_EQ(messages.size() > 1, kind == "followup") << where;
    EXPECT_EQ(messages.size() % 2, 1u) << where;
    EXPECT_LE(messages.size(), 5u) << where;
    for (size_t k = 0; k < messages.size(); ++k) {
      EXPECT_EQ(messages[k].at("role"), k % 2 == 0 ? "user" : "assistant") << where;
      const std::string content = messages[k].at("content");
      EXPECT_FALSE(content.empty()) << where;
      if (k % 2 == 1) {
        EXPECT_TRUE(cockpit::CheckLegal(content).ok()) << where << ": " << content;
      }
    }
  });
}

// What the sheets' conventions take a setting to be before anybody spoke; NaN: they say nothing.
double RestingState(const std::string& path, double set) {
  static const std::vector<std::pair<std::string, double>> states = {
      {"Temperature", 22}, {"FanSpeed", 40},       {"Volume", 40},  {"Brightness", 50},  {"Intensity", 50},
      {"Massage", 50},     {"HeatingCooling", 50}, {"Recline", 15}, {"ChargeLimit", 80}, {"SpeedSet", 100}};
  for (const auto& [part, state] : states) {
    if (path.find(part) == std::string::npos) continue;
    return part == "HeatingCooling" && set < 0 ? -state : state;
  }
  return std::nan("");
}

// "Two degrees warmer" with nothing before it is two above the resting state; "from twenty" says another one.
TEST(WrittenTest, CountedStepsStartFromTheRestingState) {
  size_t steps = 0;
  ForEachJsonLine(SheetFolder(), [&steps](const Json& line, const std::string& where) {
    if (line.at("kind") == "followup" || UserTexts(line)[0].find(" from ") != std::string::npos) return;
    const Json& answer = line.at("answer");
    for (const Json& reading : answer.value("clarify", Json::array({answer}))) {
      const Json adjust = reading.value("adjust", Json::object());
      for (const auto& [path, by] : adjust.items()) {
        if (by == "up" || by == "down") continue;
        const double set = reading.at("set").at(path);
        EXPECT_EQ(set, RestingState(path, set) + std::stod(by.get<std::string>())) << where << ": " << path;
        ++steps;
      }
    }
  });
  EXPECT_GT(steps, 50u);
}

}  // namespace
}  // namespace updraft
