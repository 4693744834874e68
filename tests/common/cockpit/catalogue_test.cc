#include "common/cockpit/catalogue.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace updraft::cockpit {
namespace {

// One line of comma-separated values with quotes.
std::vector<std::string> SplitLine(const std::string& line) {
  std::vector<std::string> fields(1);
  bool quoted = false;
  for (char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      fields.emplace_back();
    } else {
      fields.back().push_back(c);
    }
  }
  return fields;
}

std::string DatatypeName(Datatype datatype) {
  switch (datatype) {
    case Datatype::kBoolean:
      return "boolean";
    case Datatype::kFloat:
      return "float";
    case Datatype::kUint8:
      return "uint8";
    case Datatype::kInt8:
      return "int8";
    case Datatype::kString:
      return "string";
  }
  return "";
}

TEST(CatalogueTest, AgreesWithTheSpecification) {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  const std::string path = std::string(root == nullptr ? "." : root) + "/../shared/data/vss_signals/vss_6.0_leaves.csv";
  std::ifstream in(path);
  if (!in) GTEST_SKIP() << "the signal tree is not here: " << path;
  std::map<std::string, std::vector<std::string>> leaves;
  for (std::string line; std::getline(in, line);) {
    const std::vector<std::string> fields = SplitLine(line);
    if (fields.size() >= 7) leaves[fields[0]] = fields;
  }
  for (const std::string& full : AllPaths()) {
    ASSERT_EQ(leaves.count(full), 1u) << full << " is not in the specification";
    const std::vector<std::string>& leaf = leaves[full];
    const Signal* signal = FindSignal(full);
    ASSERT_NE(signal, nullptr) << full;
    EXPECT_EQ(leaf[1], "actuator") << full;
    EXPECT_EQ(leaf[2], DatatypeName(signal->datatype)) << full;
    EXPECT_EQ(leaf[3], std::string(signal->unit)) << full;
    EXPECT_EQ(leaf[4].empty(), std::isnan(signal->min)) << full;
    EXPECT_EQ(leaf[5].empty(), std::isnan(signal->max)) << full;
    if (!leaf[4].empty()) {
      EXPECT_EQ(std::stod(leaf[4]), signal->min) << full;
    }
    if (!leaf[5].empty()) {
      EXPECT_EQ(std::stod(leaf[5]), signal->max) << full;
    }
    EXPECT_EQ(leaf[6], std::string(signal->allowed)) << full;
  }
}
}  // namespace
}  // namespace updraft::cockpit
