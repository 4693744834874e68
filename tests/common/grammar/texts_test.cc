// Regular expressions, GBNF, lists, and what automata make of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <string>
#include <vector>

#include "common/grammar/gbnf.h"
#include "common/grammar/json_text.h"
#include "common/grammar/regex.h"
#include "tests/common/grammar/follow.h"

namespace updraft::grammar {
namespace {

using testing::Follower;
using ::testing::HasSubstr;

std::string ErrorOf(const absl::Status& status) { return std::string(status.message()); }

// ---- Characters -----------------------------------------------------------------------------------------------------

// Every code point of the ranges and its neighbours, against UTF-8 written by hand.
std::string Utf8(char32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  std::string bytes;
  const int n = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  const unsigned char heads[] = {0, 0xC0, 0xE0, 0xF0};
  bytes += static_cast<char>(heads[n] | (c >> (6 * n)));
  for (int i = n - 1; i >= 0; --i) bytes += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
  return bytes;
}

TEST(CharsTest, AreThoseOfTheRanges) {
  std::mt19937 random(3);
  const char32_t edges[] = {0, 0x7F, 0x80, 0x7FF, 0x800, 0xFFF, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x3FFFF, 0x10FFFF};
  const auto some = [&]() -> char32_t {
    const char32_t c = edges[random() % std::size(edges)] + random() % 200 - 100;
    return std::min<char32_t>(c > 0x80000000 ? 0 : c, kMaxChar);
  };
  for (int round = 0; round < 300; ++round) {
    CharRanges ranges;
    for (uint32_t i = 0; i <= random() % 3; ++i) {
      const char32_t a = some(), b = some();
      ranges.emplace_back(std::min(a, b), std::max(a, b));
    }
    Expressions e;
    const absl::StatusOr<Automaton> automaton = MakeAutomaton(e, e.Chars(ranges));
    const absl::StatusOr<Automaton> rest = MakeAutomaton(e, e.Chars(Complement(ranges)));
    ASSERT_TRUE(automaton.ok() && rest.ok());
    for (int i = 0; i < 200; ++i) {
      const char32_t c = i % 2 == 0 ? some() : ranges[random() % ranges.size()].first + random() % 3 - 1;
      if (c > kMaxChar || (c >= 0xD800 && c <= 0xDFFF)) continue;
      bool in = false;
      for (const auto& [low, high] : ranges) in = in || (c >= low && c <= high);
      EXPECT_EQ(automaton->Accepts(Utf8(c)), in) << static_cast<uint32_t>(c);
      EXPECT_EQ(rest->Accepts(Utf8(c)), !in) << static_cast<uint32_t>(c);
    }
    EXPECT_FALSE(automaton->Accepts("\xED\xA0\x80")) << "a surrogate";
    EXPECT_FALSE(automaton->Accepts("\xC0\x80")) << "too long a form";
  }
}

// ---- Regular expressions --------------------------------------------------------------------------------------------

// Against the standard library's, on patterns that both read the same way.
std::string RandomPattern(std::mt19937& random, int depth) {
  const auto pick = [&](std::initializer_list<const char*> list) {
    return std::string(*(list.begin() + random() % list.size()));
  };
  std::string pattern;
  const uint32_t n = 1 + random() % 3;
  for (uint32_t i = 0; i < n; ++i) {
    std::string atom = pick({"a", "b", "c", "[ab]", "[^a]", "\\d", "\\w", ".", "[a-c0]", "1"});
    if (depth > 0 && random() % 3 == 0) {
      atom = pick({"(?:", "("}) + RandomPattern(random, depth - 1) +
             (random() % 2 == 0 ? "|" + RandomPattern(random, depth - 1) : "") + ")";
    }
    pattern += atom + pick({"", "", "", "*", "+", "?", "{2}", "{1,3}", "{2,}"});
  }
  return pattern;
}

TEST(RegexTest, AsTheStandardLibraryHasIt) {
  int n_too_large = 0;
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    std::mt19937 random(seed);
    const std::string pattern = RandomPattern(random, 2);
    const std::regex reference(pattern, std::regex::ECMAScript);
    if (absl::IsResourceExhausted(CompiledGrammar::Compile(*GrammarOfRegex(pattern)).status())) {
      ++n_too_large;
      continue;
    }
    const Follower whole(GrammarOfRegex(pattern));
    Expressions e;
    const auto chars = [](Expressions& of, const CharRanges& ranges) { return of.Chars(ranges); };
    const auto parsed = ParseRegex(pattern, Anchoring::kFind, e, chars);
    ASSERT_TRUE(parsed.ok()) << pattern << ": " << parsed.status();
    const absl::StatusOr<Automaton> found = MakeAutomaton(e, *parsed);
    ASSERT_TRUE(found.ok());
    for (int i = 0; i < 60; ++i) {
      std::string text;
      for (uint32_t n = random() % 7; n > 0; --n) text += "abc01"[random() % 5];
      EXPECT_EQ(whole.Fits(text), std::regex_match(text, reference))
          << "seed " << seed << " " << pattern << " " << text;
      EXPECT_EQ(found->Accepts(text), std::regex_search(text, reference)) << pattern << " in " << text;
    }
  }
  EXPECT_LE(n_too_large, 6) << "of 300";
}

TEST(RegexTest, AnchorsEscapesAndClasses) {
  const auto find = [](const std::string& pattern, const std::string& text) {
    Expressions e;
    const auto chars = [](Expressions& of, const CharRanges& ranges) { return of.Chars(ranges); };
    const auto parsed = ParseRegex(pattern, Anchoring::kFind, e, chars);
    EXPECT_TRUE(parsed.ok()) << pattern << ": " << parsed.status();
    return parsed.ok() && MakeAutomaton(e, *parsed)->Accepts(text);
  };
  EXPECT_TRUE(find("^a|b$", "axx"));
  EXPECT_TRUE(find("^a|b$", "xxb"));
  EXPECT_FALSE(find("^a|b$", "xax"));
  EXPECT_TRUE(find("^$", ""));
  EXPECT_FALSE(find("^$", "a"));
  EXPECT_TRUE(find("^\\$5$", "$5"));
  EXPECT_TRUE(find("^[\\]\\-x]+$", "]-x"));
  EXPECT_TRUE(find("^[a-]$", "-"));
  EXPECT_TRUE(find("^\\u00e9\\xe9\\u{1F600}$", "éé😀"));
  EXPECT_TRUE(find("^\\ud83d\\ude00$", "😀"));
  EXPECT_TRUE(find("^.$", "é"));
  EXPECT_FALSE(find("^.$", "\n"));
  EXPECT_TRUE(find("^\\s\\S$", "\u3000x"));
  EXPECT_TRUE(find("^(?<name>x)y$", "xy"));
  EXPECT_TRUE(find("^{a}$", "{a}"));
  EXPECT_TRUE(find("^x{2,3}?$", "xx"));
}

TEST(RegexTest, WhatCannotBeFollowedIsNamed) {
  for (const auto& [pattern, what] : {std::pair{"(a)\\1", "\\1"},
                                      {"a(?=b)", "an assertion or a flag"},
                                      {"(?i)a", "an assertion or a flag"},
                                      {"\\bword", "\\b"},
                                      {"\\p{L}", "\\p"},
                                      {"a^b", "an anchor within"},
                                      {"(^a)", "an anchor within"},
                                      {"a++", "possessive"},
                                      {"*a", "nothing before it"},
                                      {"(a", "a ( without"},
                                      {"a)", "a ) without"},
                                      {"[a", "a [ without"},
                                      {"[b-a]", "wrong way round"},
                                      {"a{3,2}", "wrong way round"},
                                      {"a{5000}", "repetitions"},
                                      {"a\\", "nothing behind it"},
                                      {"\\u12", "without its digits"},
                                      {"\xff", "not UTF-8"}}) {
    const absl::Status status = GrammarOfRegex(pattern).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << pattern;
    EXPECT_THAT(ErrorOf(status), HasSubstr(what)) << pattern;
  }
  std::string deep;
  for (int i = 0; i < 100; ++i) deep += "(";
  EXPECT_THAT(ErrorOf(GrammarOfRegex(deep).status()), HasSubstr("nested too deeply"));
  const auto large = GrammarOfRegex("((a{2000}){2000}){2000}");
  ASSERT_TRUE(large.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(CompiledGrammar::Compile(*large).status()));
  // Few states, each of many: refused for what that takes, and soon.
  const auto wide = GrammarOfRegex("((a?){2000}){30}");
  ASSERT_TRUE(wide.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(CompiledGrammar::Compile(*wide).status()));
  EXPECT_THAT(ErrorOf(GrammarOfRegex("a{1000000000}").status()), HasSubstr("repetitions"));
  EXPECT_THAT(ErrorOf(GrammarOfRegex("a" + std::string(4000, '*')).status()), HasSubstr("one after the other"));
  EXPECT_THAT(ErrorOf(GrammarOfGbnf("root ::= \"a\"" + std::string(60000, '*')).status()), HasSubstr("quantifiers"));
}

// ---- Automata -------------------------------------------------------------------------------------------------------

TEST(AutomatonTest, IntersectionAndDifference) {
  const auto make = [](const std::string& pattern) {
    Expressions e;
    const auto chars = [](Expressions& of, const CharRanges& ranges) { return of.Chars(ranges); };
    return MakeAutomaton(e, *ParseRegex(pattern, Anchoring::kWhole, e, chars)).value();
  };
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const std::string first = RandomPattern(random, 1), second = RandomPattern(random, 1);
    const Automaton a = make(first), b = make(second);
    const Automaton both = Intersection(a, b).value(), less = Difference(a, b).value();
    for (int i = 0; i < 60; ++i) {
      std::string text;
      for (uint32_t n = random() % 6; n > 0; --n) text += "abc01"[random() % 5];
      EXPECT_EQ(both.Accepts(text), a.Accepts(text) && b.Accepts(text)) << first << " and " << second << ": " << text;
      EXPECT_EQ(less.Accepts(text), a.Accepts(text) && !b.Accepts(text)) << first << " less " << second << ": " << text;
    }
  }
}

// ---- Numbers --------------------------------------------------------------------------------------------------------

TEST(JsonNumberTest, WholeNumbersOfARange) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    const int64_t spread = round % 3 == 0 ? 12 : round % 3 == 1 ? 300 : 100000;
    std::optional<int64_t> low, high;
    if (random() % 4 != 0) low = static_cast<int64_t>(random() % (2 * spread)) - spread;
    if (random() % 4 != 0) high = static_cast<int64_t>(random() % (2 * spread)) - spread;
    Expressions e;
    const Automaton automaton = MakeAutomaton(e, JsonIntegers(e, low, high)).value();
    for (int i = 0; i < 100; ++i) {
      int64_t n = static_cast<int64_t>(random() % (4 * spread)) - 2 * spread;
      if (low && random() % 4 == 0) n = *low + static_cast<int64_t>(random() % 3) - 1;
      if (high && random() % 4 == 0) n = *high + static_cast<int64_t>(random() % 3) - 1;
      EXPECT_EQ(automaton.Accepts(std::to_string(n)), (!low || n >= *low) && (!high || n <= *high))
          << n << " in [" << low.value_or(-1) << ", " << high.value_or(-1) << "]";
    }
    EXPECT_FALSE(automaton.Accepts("01") || automaton.Accepts("+1") || automaton.Accepts("1.5") ||
                 (low && automaton.Accepts("-0")));
  }
  Expressions e;
  const int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
  const Automaton all = MakeAutomaton(e, JsonIntegers(e, least, most)).value();
  EXPECT_TRUE(all.Accepts("-9223372036854775808") && all.Accepts("9223372036854775807"));
  EXPECT_FALSE(all.Accepts("-9223372036854775809") || all.Accepts("9223372036854775808"));
}

// Against long double, on numbers that it has exactly.
TEST(JsonNumberTest, DecimalNumbersOfARange) {
  std::mt19937 random(7);
  const auto text_of = [&](int64_t eighths) {  // of 1/8
    const bool negative = eighths < 0;
    const int64_t magnitude = negative ? -eighths : eighths;
    const char* const fractions[] = {"", ".125", ".25", ".375", ".5", ".625", ".75", ".875"};
    return (negative ? "-" : "") + std::to_string(magnitude / 8) + fractions[magnitude % 8];
  };
  for (int round = 0; round < 400; ++round) {
    const int64_t spread = round % 2 == 0 ? 40 : 2000;
    const auto some = [&] { return static_cast<int64_t>(random() % (2 * spread)) - spread; };
    std::optional<DecimalBound> low, high;
    int64_t low_value = 0, high_value = 0;
    if (random() % 4 != 0) low = DecimalBound{*ParseDecimal(text_of(low_value = some())), random() % 2 == 0};
    if (random() % 4 != 0) high = DecimalBound{*ParseDecimal(text_of(high_value = some())), random() % 2 == 0};
    if (!low && !high) continue;
    const Automaton automaton = JsonNumbers(low, high).value();
    for (int i = 0; i < 100; ++i) {
      int64_t n = some() * 2;
      if (low && random() % 4 == 0) n = low_value + static_cast<int64_t>(random() % 3) - 1;
      if (high && random() % 4 == 0) n = high_value + static_cast<int64_t>(random() % 3) - 1;
      const bool above = !low || (low->exclusive ? n > low_value : n >= low_value);
      const bool below = !high || (high->exclusive ? n < high_value : n <= high_value);
      const std::string text = text_of(n);
      EXPECT_EQ(automaton.Accepts(text), above && below) << text << " round " << round;
      // Zeros behind change nothing, and neither does a whole number's fraction of zeros.
      const std::string longer = text.find('.') == std::string::npos ? text + ".00" : text + "0";
      EXPECT_EQ(automaton.Accepts(longer), above && below) << longer << " round " << round;
    }
    EXPECT_FALSE(automaton.Accepts("1.") || automaton.Accepts(".5") || automaton.Accepts("00") ||
                 automaton.Accepts("-") || automaton.Accepts(""));
  }
}

TEST(JsonNumberTest, DecimalsAreRead) {
  const auto shown = [](const std::string& json) {
    const std::optional<Decimal> value = ParseDecimal(json);
    return value ? (value->negative ? "-" : "") + value->whole + "." + value->fraction : "none";
  };
  EXPECT_EQ(shown("0"), "0.");
  EXPECT_EQ(shown("-0.0"), "0.");
  EXPECT_EQ(shown("12.50"), "12.5");
  EXPECT_EQ(shown("1e3"), "1000.");
  EXPECT_EQ(shown("1.5e-3"), "0.0015");
  EXPECT_EQ(shown("-1.25E1"), "-12.5");
  EXPECT_EQ(shown("1e60"), "none");
}

// ---- GBNF -----------------------------------------------------------------------------------------------------------

TEST(GbnfTest, RulesGroupsAndRepetitions) {
  const Follower list(GrammarOfGbnf(R"(
# items, one a line
root  ::= item+           # at least one
item  ::= "- " word ("," " "? word)* "\n"
word  ::= [a-z_] [a-z0-9]{0,3} |
          "\"" [^"\n]* "\"" | emoji
emoji ::= [\U0001F600-\U0001F64F] | "\u00e9" .
)"));
  EXPECT_TRUE(list.Fits("- ab,c3\n"));
  EXPECT_TRUE(list.Fits("- a, \"any Thing\"\n- 😀\n"));
  EXPECT_TRUE(list.Fits("- éx\n"));
  EXPECT_FALSE(list.Fits(""));
  EXPECT_FALSE(list.Fits("- abcde\n"));
  EXPECT_TRUE(list.Begins("- abcd"));
  EXPECT_FALSE(list.Begins("- A"));
}

TEST(GbnfTest, RulesMayCallThemselves) {
  const Follower nested(GrammarOfGbnf("root ::= \"(\" root \")\" root | \"\""));
  for (const auto& [text, fits] :
       {std::pair{"", true}, {"()", true}, {"(()())()", true}, {"(()", false}, {")", false}}) {
    EXPECT_EQ(nested.Fits(text), fits) << text;
  }
  std::string deep(5000, '(');
  EXPECT_TRUE(nested.Begins(deep));
  deep += std::string(5000, ')');
  EXPECT_TRUE(nested.Fits(deep));
}

TEST(GbnfTest, WhatIsWrongIsSaid) {
  for (const auto& [text, what] : {std::pair{"", "a rule 'root'"},
                                   {"root ::= a", "a rule 'a'"},
                                   {"root = \"a\"", "line 1: expected ::="},
                                   {"root ::= \"a", "quotation mark"},
                                   {"root ::= [a", "a ] at"},
                                   {"root ::= (\"a\"", "a ) to the ("},
                                   {"root ::= \"a\"\nroot ::= \"b\"", "line 2: expected each rule once"},
                                   {"root ::= \"\\q\"", "an escape"},
                                   {"root ::= \"a\"{3,1}", "{m}, {m,}"},
                                   {"root ::= \"a\"{9999}", "at most 2000"},
                                   {"root ::= *", "a literal"},
                                   {"root ::= [b-a]", "from the lower"},
                                   {"root ::= \"\xff\"", "UTF-8"}}) {
    const absl::Status status = GrammarOfGbnf(text).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_THAT(ErrorOf(status), HasSubstr(what)) << text;
  }
  for (const auto& [text, what] : {std::pair{"root ::= root \"a\" | \"b\"", "left recursion"},
                                   {"root ::= x\nx ::= y \"a\" | \"b\"\ny ::= \"c\"? x", "left"},
                                   {"root ::= \"a\" root", "none does"}}) {
    const absl::StatusOr<Grammar> grammar = GrammarOfGbnf(text);
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    EXPECT_THAT(ErrorOf(CompiledGrammar::Compile(*grammar).status()), HasSubstr(what)) << text;
  }
}

TEST(ChoiceTest, OneOfTheTexts) {
  const std::vector<std::string> texts = {"yes", "yesterday", "no"};
  const Follower choice(GrammarOfTexts(texts));
  for (const std::string& text : texts) EXPECT_TRUE(choice.Fits(text));
  EXPECT_FALSE(choice.Fits("yest") || choice.Fits("") || choice.Fits("nope"));
  EXPECT_FALSE(GrammarOfTexts({}).ok());
  EXPECT_FALSE(GrammarOfTexts(std::vector<std::string>{""}).ok());
}

}  // namespace
}  // namespace updraft::grammar
