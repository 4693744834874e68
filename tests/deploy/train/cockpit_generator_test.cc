#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/cockpit/answer.h"
#include "common/cockpit/catalogue.h"
#include "deploy/train/cockpit/composer.h"
#include "deploy/train/cockpit/generator.h"
#include "deploy/train/cockpit/intents.h"

namespace updraft::cockpit {
namespace {

constexpr Split kSplits[] = {Split::kTrain, Split::kCalibrate, Split::kTest};

TEST(GeneratorTest, SameSeedGivesTheSameStream) {
  Generator a(5, Split::kTrain), b(5, Split::kTrain), other(6, Split::kTrain);
  int different = 0;
  for (int i = 0; i < 500; ++i) {
    const std::string line = ToJsonLine(a.Next());
    EXPECT_EQ(line, ToJsonLine(b.Next()));
    different += line != ToJsonLine(other.Next());
  }
  EXPECT_GT(different, 490);
}

TEST(GeneratorTest, RestoreContinuesTheStream) {
  Generator a(5, Split::kTrain);
  for (int i = 0; i < 100; ++i) a.Next();
  Generator b(999, Split::kTrain);
  b.Restore(a.state(), a.count());
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ToJsonLine(a.Next()), ToJsonLine(b.Next()));
}

// The proof that no test utterance is in the training stream: every example lies on its split's side of a function of
// the normalised words alone, so no normalised text can be in two splits, however long the streams are.
TEST(GeneratorTest, EveryUtteranceLiesOnItsSide) {
  for (Split split : kSplits) {
    Generator generator(11, split);
    for (int i = 0; i < 3000; ++i) {
      const Example example = generator.Next();
      ASSERT_EQ(SideOfUtterance(NormalizedConversation(example)), split) << example.id << " " << ToJsonLine(example);
    }
  }
}

// And seen from outside, without the function: 300,000 training utterances against 6,000 held-out ones, as they are
// said and without politeness and noise.
TEST(GeneratorTest, NoHeldOutUtteranceInTheTrainingStream) {
  std::set<std::string> held_out, bare;
  for (Split split : {Split::kCalibrate, Split::kTest}) {
    Generator generator(12, split);
    for (int i = 0; i < 3000; ++i) {
      const Example example = generator.Next();
      held_out.insert(NormalizedConversation(example));
      bare.insert(example.bare);
    }
  }
  ASSERT_GT(held_out.size(), 5000u);
  ASSERT_GT(bare.size(), 4000u);
  Generator training(1, Split::kTrain);
  std::set<std::string> shared;
  for (int i = 0; i < 300000; ++i) {
    const Example example = training.Next();
    ASSERT_EQ(held_out.count(NormalizedConversation(example)), 0u) << ToJsonLine(example);
    if (bare.count(example.bare) > 0) shared.insert(example.bare);
  }
  EXPECT_TRUE(shared.empty()) << shared.size() << ", such as " << *shared.begin();
}

TEST(GeneratorTest, EntitiesAreHeldOut) {
  const auto entities = [](Split split, int count) {
    std::set<std::string> found;
    Generator generator(13, split);
    for (int i = 0; i < count; ++i) {
      const auto answer = nlohmann::json::parse(generator.Next(Family::kSlot).answer);
      if (!answer.contains("call")) continue;
      for (const char* key : {"to", "contact", "title", "artist"}) {
        if (answer["call"].contains(key)) found.insert(answer["call"][key].get<std::string>());
      }
    }
    return found;
  };
  const std::set<std::string> training = entities(Split::kTrain, 20000);
  const std::set<std::string> test = entities(Split::kTest, 1500);
  ASSERT_GT(training.size(), 2000u);
  ASSERT_GT(test.size(), 100u);
  std::set<std::string> familiar;
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    for (const std::string_view contact : FamiliarContacts(language)) familiar.emplace(contact);
  }
  size_t n_familiar = 0;
  for (const std::string& entity : test) {
    const bool known = familiar.count(entity) > 0;
    n_familiar += known ? 1 : 0;
    EXPECT_TRUE(known || training.count(entity) == 0) << entity;
  }
  EXPECT_GT(n_familiar, 0u);
  EXPECT_LT(5 * n_familiar, test.size()) << "names are what is held out";
}

// What leaves only a name open, "navigate to ...", has no wording to hold out; it is in every split all the same, as
// often as in training.
TEST(GeneratorTest, CallsAreAsCommonInEverySplit) {
  const auto shares = [](Split split) {
    std::map<std::string, double> share;
    Generator generator(14, split);
    constexpr int kCount = 6000;
    for (int i = 0; i < kCount; ++i) {
      const auto answer = nlohmann::json::parse(generator.Next(Family::kSlot).answer);
      if (answer.contains("call")) share[answer["call"]["name"].get<std::string>()] += 1.0 / kCount;
    }
    return share;
  };
  const std::map<std::string, double> training = shares(Split::kTrain);
  ASSERT_GE(training.size(), 3u);
  for (const Split split : {Split::kCalibrate, Split::kTest}) {
    std::map<std::string, double> held_out = shares(split);
    for (const auto& [name, share] : training) {
      EXPECT_GT(held_out[name], share / 2) << name;
      EXPECT_LT(held_out[name], share * 2) << name;
    }
  }
}

// Of every number that an intent can hold, one range is the test's: no training answer has a number of it, however it
// came about, and a held-out command has no other.
TEST(GeneratorTest, NumberRangesAreHeldOut) {
  // The intents with numbers that an entry of an answer may come from.
  const auto intents_of = [](const std::string& path, double value) {
    std::vector<const Intent*> found;
    for (const Intent& intent : Intents()) {
      const Signal& signal = SignalOf(intent);
      bool is_path = path == intent.path;
      for (const unsigned zone : SingleZones(kEverywhere)) {
        is_path |= signal.zoning != Zoning::kNone && path == PathInZone(intent.path, signal.zoning, zone);
      }
      const bool negative = intent.scale == Scale::kNegativePercent;
      if (is_path && intent.scale != Scale::kNone && negative == (value < 0)) found.push_back(&intent);
    }
    return found;
  };
  const auto sides = [&](Split split, std::initializer_list<Family> families, int count) {
    std::map<std::string, std::map<Split, int>> by_intent;
    for (const Family family : families) {
      Generator generator(15, split);
      for (int i = 0; i < count; ++i) {
        const auto answer = nlohmann::json::parse(generator.Next(family).answer);
        for (const auto& [path, value] : answer["set"].items()) {
          if (!value.is_number()) continue;
          const int tenths = static_cast<int>(std::lround(std::fabs(10 * value.get<double>())));
          for (const Intent* intent : intents_of(path, value.get<double>())) {
            ++by_intent[std::string(intent->id)][SideOfNumber(*intent, tenths)];
          }
        }
      }
    }
    return by_intent;
  };
  const auto training =
      sides(Split::kTrain, {Family::kSlot, Family::kImplicit, Family::kMulti, Family::kFollowup}, 20000);
  EXPECT_GE(training.size(), 10u);
  for (const auto& [intent, count] : training) {
    EXPECT_EQ(count.size(), 1u) << intent;
    EXPECT_EQ(count.count(Split::kTrain), 1u) << intent;
  }
  int n_test = 0, n_other = 0;
  for (auto [intent, count] : sides(Split::kTest, {Family::kSlot}, 4000)) {
    n_test += count[Split::kTest];
    n_other += count[Split::kCalibrate];
    EXPECT_GT(count[Split::kTest], 0) << intent;
  }
  EXPECT_GT(n_test, 500);
  EXPECT_EQ(n_other, 0);
}

// What the training stream asks for is asked for in the held-out splits too, in both languages.
TEST(GeneratorTest, EverySettingIsTested) {
  const auto pairs = [](Split split, int count) {
    std::set<std::pair<Language, std::string>> found;
    Generator generator(16, split);
    for (int i = 0; i < count; ++i) {
      const Example example = generator.Next(Family::kSlot);
      for (const auto& [path, value] : nlohmann::json::parse(example.answer)["set"].items()) {
        found.emplace(example.language, path);
      }
    }
    return found;
  };
  const auto held_out = pairs(Split::kTest, 30000);
  for (const auto& [language, path] : pairs(Split::kTrain, 10000)) {
    EXPECT_EQ(held_out.count({language, path}), 1u) << std::string(LanguageName(language)) << " " << path;
  }
}

// The factors of every worked product are held out as a pair.
TEST(GeneratorTest, FactorsAreHeldOut) {
  const auto products = [](Split split, int count) {
    std::set<std::string> found;
    Generator generator(14, split);
    for (int i = 0; i < count; ++i) {
      const auto answer = nlohmann::json::parse(generator.Next(Family::kArithmetic).answer);
      const std::string work = answer["work"];
      const size_t semicolon = work.find(';');
      if (work.find('*') == std::string::npos) continue;
      // "37-15=22;22*2=44,22*40=880,..." -> "22*2 22*40"
      const size_t first = work.find('=', semicolon), comma = work.find(',', semicolon), second = work.find('=', comma);
      found.insert(work.substr(semicolon + 1, first - semicolon - 1) + " " +
                   work.substr(comma + 1, second - comma - 1));
    }
    return found;
  };
  const std::set<std::string> training = products(Split::kTrain, 20000);
  const std::set<std::string> test = products(Split::kTest, 1000);
  ASSERT_GT(test.size(), 100u);
  for (const std::string& product : test) EXPECT_EQ(training.count(product), 0u) << product;
}

TEST(GeneratorTest, EveryAnswerIsLegalAndComplete) {
  for (Split split : kSplits) {
    Generator generator(15, split);
    for (int i = 0; i < 3000; ++i) {
      const Example example = generator.Next();
      EXPECT_TRUE(CheckLegal(example.answer).ok()) << CheckLegal(example.answer) << " " << ToJsonLine(example);
      const auto answer = nlohmann::ordered_json::parse(example.answer);
      EXPECT_TRUE(answer.contains("set") && answer.contains("say")) << example.answer;
      // Only numbers are worked out: of arithmetic, and of the conditions among several intents.
      EXPECT_TRUE(answer.contains("work") ? example.family == Family::kArithmetic || example.family == Family::kMulti
                                          : example.family != Family::kArithmetic)
          << example.answer;
      EXPECT_EQ(answer.contains("refuse"), example.family == Family::kScope);
      if (answer.contains("work")) {
        EXPECT_EQ(answer.begin().key(), "work");
      }
      const bool does_something = !answer["set"].empty() || answer.contains("call") || answer.contains("result");
      EXPECT_NE(does_something, answer.contains("refuse")) << example.answer;
      ASSERT_FALSE(example.turns.empty());
      EXPECT_EQ(example.turns.back().role, "user");
      EXPECT_EQ(example.turns.size() > 1, example.family == Family::kFollowup);
      for (const ChatTurn& turn : example.turns) {
        EXPECT_EQ(turn.content.find_first_of("{}[]|\x02\x03") == std::string::npos || turn.role == "assistant", true)
            << turn.content;
        EXPECT_FALSE(turn.content.empty());
      }
    }
  }
}

// The arithmetic of the working-out and of the result, done again from the words of the answer.
TEST(GeneratorTest, WorkingOutAndResultAgree) {
  Generator generator(16, Split::kTrain);
  for (int i = 0; i < 5000; ++i) {
    const Example example = generator.Next(Family::kArithmetic);
    const auto answer = nlohmann::json::parse(example.answer);
    const std::string work = answer["work"];
    const std::string last = work.substr(work.rfind('=') + 1);
    const auto& result = answer["result"];
    if (result.contains("total_km")) {
      EXPECT_EQ(std::stoi(last), result["total_km"].get<int>()) << example.answer;
    } else if (result.contains("energy_kwh")) {
      EXPECT_NEAR(std::stoi(last) / 100.0, result["energy_kwh"].get<double>(), 1e-9) << example.answer;
    } else if (result.contains("range_km")) {
      EXPECT_EQ(std::stoi(last) / 10, result["range_km"].get<int>()) << example.answer;
      const bool yes = work.size() > 3 && work.substr(work.size() - 3) == "yes";
      EXPECT_EQ(yes, result["reachable"].get<bool>()) << example.answer;
    } else {
      const std::string arrival = result["arrival"];
      EXPECT_EQ(std::stoi(last), std::stoi(arrival.substr(0, 2))) << example.answer;
    }
  }
}

// "68>56;yes": the comparison is true, both numbers were said, and both branches come up.
TEST(GeneratorTest, ConditionsAreComparedRight) {
  Generator generator(18, Split::kTrain);
  int n[2] = {};
  for (int i = 0; i < 4000; ++i) {
    const Example example = generator.Next(Family::kMulti);
    const auto answer = nlohmann::json::parse(example.answer);
    if (!answer.contains("work")) continue;
    const std::string work = answer["work"];
    int actual = 0, limit = 0;
    char relation = 0, verdict[4] = {};
    ASSERT_EQ(std::sscanf(work.c_str(), "%d%c%d;%3s", &actual, &relation, &limit, verdict), 4) << work;
    const bool holds = relation == '>' ? actual > limit : actual < limit;
    ASSERT_TRUE(relation == '>' || relation == '<') << work;
    EXPECT_EQ(std::string(verdict), holds ? "yes" : "no") << work;
    for (const int number : {actual, limit}) {
      EXPECT_NE(example.turns.back().content.find(std::to_string(number)), std::string::npos) << ToJsonLine(example);
    }
    ++n[holds];
  }
  EXPECT_GT(n[false], 100);
  EXPECT_GT(n[true], 100);
}

// A clause sets other zones than those that go without saying only where its words name them.
TEST(IntentsTest, ZonesThatAreMeantAreSaid) {
  for (const Language language : {Language::kEnglish, Language::kChinese}) {
    Random random(19);
    Composer composer(&random, language, Split::kTrain);
    const std::vector<std::string> words =
        language == Language::kEnglish
            ? std::vector<std::string>{"driver",     "passenger", "left",   "right", "rear",
                                       "back",       "front",     "behind", "my ",   "for me",
                                       "next to me", "all",       "every",  "whole", "zones"}
            : std::vector<std::string>{"驾",   "左",   "右", "前",   "后",   "我",
                                       "乘客", "司机", "全", "整车", "所有", "位置"};
    int n_named = 0;
    for (int i = 0; i < 20000; ++i) {
      const Clause clause = SayIntent(nullptr, kZoneNone, &composer);
      if (clause.zones == PlainZones(*clause.intent)) continue;
      ++n_named;
      EXPECT_TRUE(std::any_of(words.begin(), words.end(),
                              [&](const std::string& word) { return clause.text.find(word) != std::string::npos; }))
          << clause.text << " means " << clause.meaning.set.dump();
    }
    EXPECT_GT(n_named, 1000);
  }
}

TEST(GeneratorTest, MixIsKept) {
  Generator generator(17, Split::kTrain, {1, 0, 3, 0, 0, 0});
  int slot = 0;
  for (int i = 0; i < 4000; ++i) {
    const Family family = generator.Next().family;
    ASSERT_TRUE(family == Family::kSlot || family == Family::kMulti);
    slot += family == Family::kSlot;
  }
  // Binomial(4000, 1/4): 1000 with a deviation of 27.4; six of them.
  EXPECT_NEAR(slot, 1000, 165);
}

// A zone that nobody names takes its "的" with it.
TEST(GeneratorTest, UnsaidZonesLeaveNoParticle) {
  Generator generator(15, Split::kTrain);
  for (int i = 0; i < 20000; ++i) {
    for (const ChatTurn& turn : generator.Next().turns) {
      for (const char* wrong : {"把的", "吧的", "关闭的", "打开的", "锁上的", "\x04"}) {
        ASSERT_EQ(turn.content.find(wrong), std::string::npos) << turn.content;
      }
    }
  }
}

TEST(ComposerTest, OneChoiceIsVocabularySeveralAreWording) {
  // Every split may use each word of a single choice ...
  std::set<std::string> words;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    Random random(seed);
    Composer composer(&random, Language::kEnglish, Split::kTest);
    words.insert(composer.Say("[a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p]"));
    EXPECT_FALSE(composer.Acceptable());  // a word alone holds nothing out
  }
  EXPECT_EQ(words.size(), 16u);
  // ... but of the ways in which two choices go together, training and test share none.
  std::set<std::string> train, test;
  for (uint64_t seed = 0; seed < 4000; ++seed) {
    for (const Split split : {Split::kTrain, Split::kTest}) {
      Random random(seed);
      Composer composer(&random, Language::kEnglish, split);
      const std::string text = composer.Say("[a|b|c|d|e|f|g|h] [a|b|c|d|e|f|g|h]");
      if (split == Split::kTrain) train.insert(text);
      if (split == Split::kTest && composer.Acceptable()) test.insert(text);
    }
  }
  EXPECT_GT(train.size(), 20u);
  EXPECT_GT(test.size(), 3u);
  for (const std::string& text : test) EXPECT_EQ(train.count(text), 0u) << text;
}

TEST(ComposerTest, NormalFormForgetsNoise) {
  EXPECT_EQ(NormalizeUtterance("Um, turn it ON!"), NormalizeUtterance("turn it on"));
  EXPECT_EQ(NormalizeUtterance("呃，打开车窗。"), NormalizeUtterance("打开车窗"));
  EXPECT_NE(NormalizeUtterance("turn it on"), NormalizeUtterance("turn it off"));
}

TEST(ComposerTest, NumbersInWords) {
  EXPECT_EQ(NumberInWords(225, Language::kEnglish), "twenty two and a half");
  EXPECT_EQ(NumberInWords(1000, Language::kEnglish), "one hundred");
  EXPECT_EQ(NumberInWords(220, Language::kChinese), "二十二");
  EXPECT_EQ(NumberInWords(165, Language::kChinese), "十六点五");
  EXPECT_EQ(NumberInWords(1050, Language::kChinese), "一百零五");
  EXPECT_EQ(NumberInWords(1100, Language::kChinese), "一百一十");
}

}  // namespace
}  // namespace updraft::cockpit
