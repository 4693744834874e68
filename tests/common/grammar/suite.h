// The JSON-Schema-Test-Suite as it lies in a folder of files (groups of a schema and texts, each valid or not).
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/grammar/json_schema.h"
#include "nlohmann/json.hpp"

namespace updraft::grammar::testing {

struct SuiteCount {
  int n_schemas = 0, n_compiled = 0;
  int n_valid = 0, n_valid_fit = 0;      // texts of compiled schemas
  int n_invalid = 0, n_invalid_fit = 0;  // of the second there must be none
  std::map<std::string, int> refused;    // by the keyword at the end of the path
  std::vector<std::string> wrong;        // invalid texts that fit
  std::vector<std::string> missing;      // valid texts that do not
};

inline std::string KeywordOf(const std::string& message) {
  const std::string path = message.substr(0, message.find(": "));
  return path.substr(path.rfind('/') + 1);
}

inline void RunSuiteFile(const std::filesystem::path& file, SuiteCount& count) {
  std::ifstream in(file);
  const auto groups = nlohmann::ordered_json::parse(in);
  for (const auto& group : groups) {
    ++count.n_schemas;
    JsonSchemaOptions options;
    options.open_objects = true;  // as the standard has it
    const absl::StatusOr<Grammar> grammar = GrammarOfJsonSchema(group["schema"].dump(), options);
    absl::StatusOr<CompiledGrammar> compiled = absl::UnknownError("");
    if (grammar.ok()) compiled = CompiledGrammar::Compile(*grammar);
    if (!grammar.ok()) {
      ++count.refused[KeywordOf(std::string(grammar.status().message()))];
      continue;
    }
    ++count.n_compiled;
    for (const auto& test : group["tests"]) {
      const std::string text = test["data"].dump();
      bool fits = false;
      if (compiled.ok()) {
        Frames frames;
        Walker walker(&*compiled, &frames);
        Places places, next;
        walker.Begin(compiled->start(), Frames::kDone, places);
        for (const char c : text) {
          walker.Step(places, static_cast<uint8_t>(c), next);
          std::swap(places, next);
        }
        fits = places.done;
      }
      const bool valid = test["valid"];
      const std::string what = absl::StrCat(file.filename().string(), ": ", group["description"].get<std::string>(),
                                            ": ", text.substr(0, 100));
      ++(valid ? count.n_valid : count.n_invalid);
      if (fits) ++(valid ? count.n_valid_fit : count.n_invalid_fit);
      if (fits && !valid) count.wrong.push_back(what);
      if (!fits && valid) count.missing.push_back(what);
    }
  }
}

}  // namespace updraft::grammar::testing
