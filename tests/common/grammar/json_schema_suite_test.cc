// The JSON-Schema-Test-Suite: of schemas that are known here no text fits that the schema refuses; how many there are,
// and how many valid texts are written, is printed and may not fall. tests/oracles/json_schema_suite.sh fetches it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "tests/common/grammar/suite.h"

namespace updraft::grammar::testing {
namespace {

struct Draft {
  const char* name;
  double least_compiled, least_fit;  // shares
};

class JsonSchemaSuiteTest : public ::testing::TestWithParam<Draft> {};

TEST_P(JsonSchemaSuiteTest, NothingInvalidFits) {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::filesystem::path folder =
      std::filesystem::path(source != nullptr ? source : ".") / "build/json-schema-suite" / GetParam().name;
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder << ": run tests/oracles/json_schema_suite.sh";
  SuiteCount count;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() == ".json") RunSuiteFile(file.path(), count);
  }
  std::cout << GetParam().name << ": " << count.n_compiled << " of " << count.n_schemas
            << " schemas known; of their texts " << count.n_valid_fit << " of " << count.n_valid << " valid and "
            << count.n_invalid_fit << " of " << count.n_invalid << " invalid ones fit\n";
  for (const auto& [keyword, n] : count.refused) std::cout << "  refused: " << keyword << " " << n << "\n";
  for (const std::string& what : count.missing) std::cout << "  valid, not written: " << what << "\n";
  for (const std::string& what : count.wrong) ADD_FAILURE() << "invalid, and fits: " << what;
  EXPECT_GT(count.n_schemas, 200);
  EXPECT_GE(count.n_compiled, GetParam().least_compiled * count.n_schemas);
  EXPECT_GE(count.n_valid_fit, GetParam().least_fit * count.n_valid);
}

INSTANTIATE_TEST_SUITE_P(Drafts, JsonSchemaSuiteTest,
                         ::testing::Values(Draft{"draft6", 0.70, 0.95}, Draft{"draft7", 0.67, 0.95},
                                           Draft{"draft2019-09", 0.49, 0.95}, Draft{"draft2020-12", 0.47, 0.94}));

}  // namespace
}  // namespace updraft::grammar::testing
