// Perplexity of a real model on a real text against llama.cpp's figures for the same files (3f545be, 40 chunks of 512
// tokens), within 0.3 %.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <string>

#include "common/text/tokenizer.h"
#include "deploy/evaluate/perplexity.h"
#include "tests/common/model/test_models.h"
#include "tests/deploy/evaluate/shared_files.h"

namespace updraft {
namespace {

using kernels::DType;

void ExpectPerplexity(const std::string& name, const std::string& path, double llama_cpp) {
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
  std::printf("%s: perplexity %.4f +- %.4f (llama.cpp %.4f, difference %.3f %%)\n", name.c_str(), result.perplexity,
              result.perplexity_error, llama_cpp, 100 * (result.perplexity / llama_cpp - 1));
  EXPECT_EQ(result.chunks, 40);
  EXPECT_EQ(result.tokens, 40 * 255);
  EXPECT_NEAR(result.perplexity, llama_cpp, 0.003 * llama_cpp);
}

struct Figure {
  std::string type;
  double perplexity;
};

class PerplexityConformanceTest : public ::testing::TestWithParam<Figure> {};

TEST_P(PerplexityConformanceTest, IsThatOfLlamaCpp) {
  ExpectPerplexity(GetParam().type, testing::SharedFile("models/stories260K-" + GetParam().type + ".gguf"),
                   GetParam().perplexity);
}

INSTANTIATE_TEST_SUITE_P(Types, PerplexityConformanceTest,
                         ::testing::Values(Figure{"F16", 3.8544}, Figure{"Q8_0", 3.8644}, Figure{"Q4_0", 4.2259}),
                         [](const auto& info) { return info.param.type; });

struct EncodedFigure {
  DType type;
  double perplexity;
};

class EncodedPerplexityConformanceTest : public ::testing::TestWithParam<EncodedFigure> {};

// Every type that the rows of this model (64 and 172 long; those of 172 stay F16) can have, written by our encoders.
TEST_P(EncodedPerplexityConformanceTest, IsThatOfLlamaCpp) {
  const std::string path = testing::SharedFile("models/stories260K-F16.gguf");
  UPDRAFT_SKIP_WITHOUT(path);
  const testing::TempFile file;
  ASSERT_TRUE(testing::EditFile(path, file.path(), {.convert_matrices = GetParam().type}).ok());
  ExpectPerplexity(kernels::Info(GetParam().type).name, file.path(), GetParam().perplexity);
}

INSTANTIATE_TEST_SUITE_P(Types, EncodedPerplexityConformanceTest,
                         ::testing::Values(EncodedFigure{DType::kF32, 3.8543}, EncodedFigure{DType::kBF16, 3.8546},
                                           EncodedFigure{DType::kQ8_0, 3.8613}, EncodedFigure{DType::kQ5_1, 3.9081},
                                           EncodedFigure{DType::kQ5_0, 3.9809}, EncodedFigure{DType::kQ4_1, 4.2667},
                                           EncodedFigure{DType::kQ4_0, 4.3610}, EncodedFigure{DType::kIQ4_NL, 4.2263},
                                           EncodedFigure{DType::kMXFP4, 4.9547}),
                         [](const auto& info) { return std::string(kernels::Info(info.param.type).name); });

}  // namespace
}  // namespace updraft
