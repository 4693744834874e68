// Published and generated templates, beside what Python's jinja2 writes for the same input. oracle.py (in a virtual
// environment that run_oracle.sh makes) writes the cases; without it the test skips.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/jinja/json.h"
#include "common/jinja/template.h"

namespace updraft::jinja {
namespace {

// As in oracle.py.
absl::Time Now() { return absl::FromCivil(absl::CivilSecond(2024, 7, 26, 12, 0, 0), absl::LocalTimeZone()); }

struct Case {
  std::string name, source;
  Dict globals;
  bool fails = false;
  std::string expected;  // the text, or the oracle's words where it fails
};

std::string TextOf(const Dict& line, const char* key) {
  const Value* value = line.Find(key);
  return value != nullptr && value->is_text() ? value->text().bytes() : std::string();
}

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const auto parsed = ParseJson(line, kTemplate);
    if (!parsed.ok() || !parsed->is_dict()) {
      ADD_FAILURE() << path << ": line " << cases.size() + 1 << " is no case: " << parsed.status();
      break;
    }
    const Dict& dict = parsed->dict();
    const bool fails = dict.Find("error") != nullptr;
    cases.push_back({TextOf(dict, "name"), TextOf(dict, "template"), dict.Find("globals")->dict(), fails,
                     TextOf(dict, fails ? "error" : "expected")});
  }
  return cases;
}

absl::StatusOr<std::string> Rendered(const Case& c) {
  const auto parsed = Template::Parse(c.source);
  if (!parsed.ok()) return parsed.status();
  const auto text = parsed->Render(c.globals, Now());
  if (!text.ok()) return text.status();
  return text->bytes();
}

// Where two texts part, with a little of both.
std::string Difference(const std::string& expected, const std::string& found) {
  size_t at = 0;
  while (at < expected.size() && at < found.size() && expected[at] == found[at]) ++at;
  const size_t begin = at < 40 ? 0 : at - 40;
  return absl::StrCat("at byte ", at, "\n  expected: ...", expected.substr(begin, 120), "\n  found:    ...",
                      found.substr(begin, 120));
}

void ExpectEqual(const std::string& path, size_t at_least) {
  const std::vector<Case> cases = ReadCases(path);
  EXPECT_GE(cases.size(), at_least);
  size_t n_text = 0, n_refused = 0, n_shown = 0;
  for (const Case& c : cases) {
    const auto found = Rendered(c);
    const bool equal = c.fails ? !found.ok() : found.ok() && *found == c.expected;
    (c.fails ? n_refused : n_text) += equal ? 1 : 0;
    if (equal) continue;
    if (++n_shown > 20) continue;
    ADD_FAILURE() << c.name << "\n"
                  << (c.fails      ? absl::StrCat("expected an error (", c.expected, "), found: ", *found)
                      : found.ok() ? Difference(c.expected, *found)
                                   : std::string(found.status().message()))
                  << (c.source.size() < 2000 ? absl::StrCat("\n  template: ", c.source) : "");
  }
  EXPECT_EQ(n_text + n_refused, cases.size());
  std::cout << path << ": " << n_text << " of " << cases.size() << " texts equal, " << n_refused
            << " refused by both\n";
}

constexpr int kGenerated = 10000;

// A file of cases by hand, or those that oracle.sh makes; null, after saying why, where it cannot.
class DifferentialTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* const seed = std::getenv("UPDRAFT_SEED");
    const char* const source = std::getenv("UPDRAFT_SOURCE_DIR");
    const char* const bin = std::getenv("UPDRAFT_BIN_DIR");
    if (source == nullptr || bin == nullptr) return;
    dir_ = absl::StrCat(bin, "/../oracle/jinja");
    const std::string log = absl::StrCat(dir_, ".log");
    std::cout << "seed " << (seed != nullptr ? seed : "1") << "\n";
    const std::string command =
        absl::StrCat("mkdir -p '", bin, "/../oracle' && '", source, "/tests/common/jinja/oracle.sh' '", dir_, "' '",
                     seed != nullptr ? seed : "1", "' ", kGenerated, " >'", log, "' 2>&1");
    there_ = std::system(command.c_str()) == 0;
    if (there_) return;
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) why_ = line.empty() ? why_ : line;
  }

  static std::string dir_, why_;
  static bool there_;
};
std::string DifferentialTest::dir_, DifferentialTest::why_ = "UPDRAFT_SOURCE_DIR or UPDRAFT_BIN_DIR is not set";
bool DifferentialTest::there_ = false;

TEST_F(DifferentialTest, PublishedTemplates) {
  if (!there_) GTEST_SKIP() << "no jinja2 to compare with: " << why_;
  ExpectEqual(dir_ + "/templates.jsonl", 600);
}

TEST_F(DifferentialTest, GeneratedTemplates) {
  if (!there_) GTEST_SKIP() << "no jinja2 to compare with: " << why_;
  ExpectEqual(dir_ + "/random.jsonl", kGenerated);
}

}  // namespace
}  // namespace updraft::jinja
