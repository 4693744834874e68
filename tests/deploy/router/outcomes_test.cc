#include "deploy/router/outcomes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "deploy/router/csv.h"
#include "tests/files.h"

namespace updraft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using updraft::testing::WriteAll;

class OutcomesTest : public ::testing::Test {
 protected:
  OutcomesTest() : folder_(::testing::TempDir() + "updraft_outcomes_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~OutcomesTest() override { std::filesystem::remove_all(folder_); }

  absl::StatusOr<std::vector<RouterOutcome>> Read(const std::string& name, const std::string& text,
                                                  const std::string& without = "") {
    WriteAll(folder_ + "/" + name, text);
    return ReadOutcomes(folder_ + "/" + name, without);
  }

  std::string folder_;
};

// `n` sound lines, every other one fixed by the strong model.
std::string Lines(int n) {
  std::string text;
  for (int i = 0; i < n; ++i) {
    text += R"({"prompt": "q)" + std::to_string(i) + R"(", "weak": )" + (i % 2 == 0 ? "0" : "1") + R"(, "strong": 1})" +
            "\n";
  }
  return text;
}

TEST_F(OutcomesTest, JsonLinesInEveryWayToSayIt) {
  const auto rows =
      Read("t.jsonl", Lines(50) + R"({"prompt": "a", "weak": true, "strong": false, "more": [1]})"
                                  "\n\n"
                                  R"({"prompt": "b", "weak_score": 0.25, "strong_score": "0.75"})"
                                  "\n"
                                  R"({"messages": [{"role": "user", "content": "x"}, {"role": "assistant",)"
                                  R"( "content": "y"}, {"role": "user", "content": "z"}], "weak_correct": "False",)"
                                  R"( "strong_correct": 1})");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 53u);
  EXPECT_EQ((*rows)[50].breaks(), 1.0);
  EXPECT_EQ((*rows)[50].fixes(), 0.0);
  EXPECT_EQ((*rows)[51].fixes(), 0.5);
  EXPECT_EQ((*rows)[52].prompt, "z");
  EXPECT_EQ((*rows)[52].weak, 0.0);
}

TEST_F(OutcomesTest, CsvWithQuotesAndAFieldToLeaveOutBy) {
  std::string text = "row,prompt,weak_correct,strong_correct,near\r\n";
  for (int i = 0; i < 50; ++i) text += std::to_string(i) + ",q" + std::to_string(i) + ",0,1,0\r\n";
  text += "50,\"two\nlines, and \"\"quotes\"\"\",1,0,0\n51,out,0,1,1\n";
  const auto rows = Read("t.csv", text, "near");
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 51u);
  EXPECT_EQ(rows->back().prompt, "two\nlines, and \"quotes\"");
  EXPECT_EQ(rows->back().breaks(), 1.0);
  EXPECT_THAT(std::string(Read("t.csv", text, "nearby").status().message()), HasSubstr("no row has a field 'nearby'"));
}

TEST_F(OutcomesTest, BadLinesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"not json", "line 51: expected one JSON object"},
      {"[1]", "line 51: expected one JSON object"},
      {R"({"weak": 0, "strong": 1})", "line 51: expected \"prompt\""},
      {R"({"prompt": " ", "weak": 0, "strong": 1})", "line 51: expected \"prompt\""},
      {R"({"prompt": 7, "weak": 0, "strong": 1})", "line 51: expected \"prompt\""},
      {R"({"messages": {}, "weak": 0, "strong": 1})", "line 51: expected \"prompt\""},
      {R"({"messages": [{"role": "assistant", "content": "a"}, 3], "weak": 0, "strong": 1})",
       "line 51: expected \"prompt\""},
      {R"({"prompt": "a", "strong": 1})", "line 51: expected one of \"weak\""},
      {R"({"prompt": "a", "weak": 1})", "line 51: expected one of \"strong\""},
      {R"({"prompt": "a", "weak": 2, "strong": 1})", "\"weak\": expected true, false or a number in [0, 1], found '2'"},
      {R"({"prompt": "a", "weak": "nan", "strong": 1})", "line 51: \"weak\""},
      {R"({"prompt": "a", "weak": null, "strong": 1})", "line 51: \"weak\""},
      {R"({"prompt": "a", "weak": 0, "strong": [[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]})", "line 51: nests deeper"},
  };
  for (const auto& [line, message] : cases) {
    const auto rows = Read("t.jsonl", Lines(50) + line + "\n" + Lines(2));
    EXPECT_EQ(rows.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(rows.status().message()), AllOf(HasSubstr("t.jsonl"), HasSubstr(message))) << line;
  }
}

TEST_F(OutcomesTest, BadCsvIsNamed) {
  const std::string head = "prompt,weak,strong\n\"a\nb\",0,1\n";  // lines 2 and 3
  const std::pair<const char*, const char*> cases[] = {
      {"c,0\n", "line 4: expected 3 fields as in the first line, found 2"},
      {"\"c,0,1\n", "line 4: a quote that is not closed"},
      {"\"c\"d,0,1\n", "line 4: expected a comma"},
      {"c,yes or no,1\n", "line 4: \"weak\""}};
  for (const auto& [line, message] : cases) {
    EXPECT_THAT(std::string(Read("t.csv", head + line).status().message()), HasSubstr(message)) << line;
  }
  EXPECT_THAT(std::string(Read("t.csv", "question,weak,strong\na,0,1\n").status().message()),
              HasSubstr("line 2: expected \"prompt\""));
}

TEST_F(OutcomesTest, TooLittleToLearnFromSaysWhat) {
  EXPECT_EQ(ReadOutcomes(folder_ + "/none.jsonl").status().code(), absl::StatusCode::kNotFound);
  for (const char* text : {"", "\n\n"}) {
    EXPECT_THAT(std::string(Read("t.jsonl", text).status().message()), HasSubstr("expected at least 50 rows, found 0"));
  }
  EXPECT_THAT(std::string(Read("t.csv", "prompt,weak,strong\n").status().message()), HasSubstr("found 0"));
  EXPECT_THAT(std::string(Read("t.jsonl", Lines(49)).status().message()),
              HasSubstr("expected at least 50 rows, found 49"));
  EXPECT_TRUE(Read("t.jsonl", Lines(50)).ok());
  std::string one_class, exchanged;
  for (int i = 0; i < 60; ++i) {
    one_class += R"({"prompt": "a", "weak": 1, "strong": 1})"
                 "\n";
    exchanged += i < 10 ? R"({"prompt": "a", "weak": 0, "strong": 1})"
                          "\n"
                        : R"({"prompt": "a", "weak": 1, "strong": 0})"
                          "\n";
  }
  EXPECT_THAT(std::string(Read("t.jsonl", one_class).status().message()), HasSubstr("found none in 60"));
  EXPECT_THAT(std::string(Read("t.jsonl", exchanged).status().message()), HasSubstr("are they exchanged?"));
}

TEST(CsvTest, LinesAndFields) {
  const auto records = ParseCsv("a,,\"\"\n\n\"x\r\ny\",\"\"\"\",z");
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 2u);
  EXPECT_THAT((*records)[0].fields, ::testing::ElementsAre("a", "", ""));
  EXPECT_THAT((*records)[1].fields, ::testing::ElementsAre("x\r\ny", "\"", "z"));
  EXPECT_EQ((*records)[1].line, 3);
  EXPECT_THAT(ParseCsv("a,")->front().fields, ::testing::ElementsAre("a", ""));
}

}  // namespace
}  // namespace updraft
