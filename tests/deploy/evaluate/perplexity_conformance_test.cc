// Perplexity of a real model on a real text against llama.cpp's figures (3f545be, 40 chunks of 512 tokens), within 0.3
// %.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <string>

#include "common/text/tokenizer.h"
#include "deploy/evaluate/perplexity.h"
#include "tests/deploy/evaluate/shared_files.h"

namespace updraft {
namespace {

struct Figure {
  std::string type;
  double perplexity;
};

class PerplexityConformanceTest : public ::testing::TestWithParam<Figure> {};

TEST_P(PerplexityConformanceTest, IsThatOfLlamaCpp) {
  const std::string path = testing::SharedFile("models/stories260K-" + GetParam().type + ".gguf");
  const std::string text_path = testing::SharedFile("data/text_perplexity/tinystories_val_part.txt");
  UPDRAFT_SKIP_WITHOUT(path);
  UPDRAFT_SKIP_WITHOUT(text_path);
  std::ifstream in(text_path);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  const auto model = Model::Load(path, {}).value();
  const auto tokenizer = text::Tokenizer::FromGguf(model->file()).value();
  const auto tokens = tokenizer->Encode(text).value();
  const PerplexityResult result =
      Perplexity(*model, tokens, {.context = 512, .chunks = 40, .bos = tokenizer->bos_id()}).value();
  std::printf("%s: perplexity %.4f +- %.4f (llama.cpp %.4f)\n", GetParam().type.c_str(), result.perplexity,
              result.perplexity_error, GetParam().perplexity);
  EXPECT_EQ(result.chunks, 40);
  EXPECT_EQ(result.tokens, 40 * 255);
  EXPECT_NEAR(result.perplexity, GetParam().perplexity, 0.003 * GetParam().perplexity);
}

INSTANTIATE_TEST_SUITE_P(Types, PerplexityConformanceTest,
                         ::testing::Values(Figure{"F16", 3.8544}, Figure{"Q8_0", 3.8644}, Figure{"Q4_0", 4.2259}),
                         [](const auto& info) { return info.param.type; });

}  // namespace
}  // namespace updraft
