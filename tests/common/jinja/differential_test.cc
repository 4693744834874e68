// Published and generated templates, beside what Python's jinja2 writes for the same input. oracle.py (in a virtual
// environment that run_oracle.sh makes) writes the cases; without it the test skips.
#include <gtest/gtest.h>

#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/jinja/template.h"
#include "tests/common/jinja/oracle_cases.h"

namespace updraft::jinja {
namespace {

absl::StatusOr<std::string> Rendered(const Case& c) {
  const auto parsed = Template::Parse(c.source);
  if (!parsed.ok()) return parsed.status();
  const auto text = parsed->Render(c.globals, OracleNow());
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

TEST(DifferentialTest, PublishedTemplates) {
  UPDRAFT_NEED_ORACLE();
  ExpectEqual(Oracle::Get().dir + "/templates.jsonl", 600);
}

TEST(DifferentialTest, GeneratedTemplates) {
  UPDRAFT_NEED_ORACLE();
  ExpectEqual(Oracle::Get().dir + "/random.jsonl", kGenerated);
}

}  // namespace
}  // namespace updraft::jinja
