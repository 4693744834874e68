// The cases of oracle.py, with what Python's jinja2 writes for them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/jinja/json.h"
#include "common/jinja/value.h"

namespace updraft::jinja {

// As in oracle.py.
inline absl::Time OracleNow() {
  return absl::FromCivil(absl::CivilSecond(2024, 7, 26, 12, 0, 0), absl::LocalTimeZone());
}

struct Case {
  std::string name, source;
  Dict globals;
  bool fails = false;
  std::string expected;   // the text, or the oracle's words where it fails
  std::string continued;  // of a prefill: with continue_final_message; empty: none
};

inline std::string TextOf(const Dict& line, const char* key) {
  const Value* value = line.Find(key);
  return value != nullptr && value->is_text() ? value->text().bytes() : std::string();
}

inline std::vector<Case> ReadCases(const std::string& path) {
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
                     TextOf(dict, fails ? "error" : "expected"), TextOf(dict, "continued")});
  }
  return cases;
}

inline constexpr int kGenerated = 10000;

// Where oracle.sh has put the cases: templates.jsonl, random.jsonl. It makes them at the first call, which takes
// minutes where its virtual environment is not there yet.
struct Oracle {
  bool there = false;
  std::string dir, why;  // why it is not there

  static const Oracle& Get() {
    static const Oracle* const oracle = new Oracle(Make());
    return *oracle;
  }

 private:
  static Oracle Make() {
    Oracle oracle;
    const char* const seed = std::getenv("UPDRAFT_SEED");
    const char* const source = std::getenv("UPDRAFT_SOURCE_DIR");
    const char* const bin = std::getenv("UPDRAFT_BIN_DIR");
    oracle.why = "UPDRAFT_SOURCE_DIR or UPDRAFT_BIN_DIR is not set";
    if (source == nullptr || bin == nullptr) return oracle;
    oracle.dir = absl::StrCat(bin, "/../oracle/jinja");
    const std::string log = absl::StrCat(oracle.dir, ".log");
    std::cout << "seed " << (seed != nullptr ? seed : "1") << "\n";
    const std::string command =
        absl::StrCat("mkdir -p '", bin, "/../oracle' && '", source, "/tests/common/jinja/oracle.sh' '", oracle.dir,
                     "' '", seed != nullptr ? seed : "1", "' ", kGenerated, " >'", log, "' 2>&1");
    oracle.there = std::system(command.c_str()) == 0;
    if (oracle.there) return oracle;
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) oracle.why = line.empty() ? oracle.why : line;
    return oracle;
  }
};

// Skips the test where jinja2 cannot be had.
#define UPDRAFT_NEED_ORACLE()                                                             \
  if (!::updraft::jinja::Oracle::Get().there) {                                           \
    GTEST_SKIP() << "no jinja2 to compare with: " << ::updraft::jinja::Oracle::Get().why; \
  }                                                                                       \
  static_assert(true)

}  // namespace updraft::jinja
