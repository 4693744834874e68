#include "deploy/bench/openai_stream.h"

#include <gtest/gtest.h>

namespace updraft {
namespace {

// Other people's servers send what they like.
TEST(OpenAiStreamTest, OnlyEventsWithTextCount) {
  EXPECT_TRUE(CarriesText(R"({"choices":[{"text":"hello"}]})"));
  for (const char* event :
       {"", "null", "[]", "{}", R"({"choices":[]})", R"({"choices":{"text":"x"}})", R"({"choices":1})",
        R"({"choices":"x"})", R"({"choices":[[]]})", R"({"choices":[{}]})", R"({"choices":[{"text":""}]})",
        R"({"choices":[{"text":1}]})", R"({"choices":[{"text":null}]})"}) {
    EXPECT_FALSE(CarriesText(event)) << event;
  }
}

}  // namespace
}  // namespace updraft
