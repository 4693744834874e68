// What measures never trains: no written request holds a sentence of the recorded sets that judge the models.
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

namespace updraft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// Letters and digits, lower case, single spaces; what is not ASCII stays as it is.
std::string Normalized(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 || std::isalnum(byte)) {
      out += static_cast<char>(std::tolower(byte));
    } else if (!out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

void CollectUserTexts(const Json& line, std::set<std::string>& texts) {
  if (!line.contains("messages")) return;
  for (const Json& message : line["messages"]) {
    if (message.value("role", "") == "user") texts.insert(Normalized(message.value("content", "")));
  }
}

std::set<std::string> TextsIn(const fs::path& folder) {
  std::set<std::string> texts;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jsonl") continue;
    std::ifstream in(entry.path());
    for (std::string line; std::getline(in, line);) {
      if (!line.empty()) CollectUserTexts(Json::parse(line), texts);
    }
  }
  return texts;
}

TEST(WrittenTest, HoldsNoSentenceThatMeasures) {
  const char* root = std::getenv("UPDRAFT_SOURCE_DIR");
  ASSERT_NE(root, nullptr);
  const fs::path measuring = fs::path(root) / "../shared/data/cockpit_wild";
  if (!fs::exists(measuring)) GTEST_SKIP() << "the requests that measure are not at " << measuring;
  const std::set<std::string> wild = TextsIn(measuring);
  ASSERT_GT(wild.size(), 200u) << "the requests that measure were not read";
  const std::set<std::string> written = TextsIn(fs::path(root) / "deploy/train/cockpit/written");
  ASSERT_GT(written.size(), 8000u) << "the written requests were not read";
  for (const std::string& sentence : wild) {
    EXPECT_FALSE(written.contains(sentence)) << sentence;
    if (sentence.size() < 15) continue;  // too short to be anybody's
    for (const std::string& text : written) {
      EXPECT_EQ((" " + text + " ").find(" " + sentence + " "), std::string::npos) << sentence << " in: " << text;
    }
  }
}

}  // namespace
}  // namespace updraft
