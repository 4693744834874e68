// A real trained model against other implementations: greedy tokens of llama.cpp, and logits of the double-precision
// reference.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "deploy/evaluate/compare.h"
#include "tests/common/model/test_models.h"
#include "tests/deploy/evaluate/shared_files.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::SharedFile;
using testing::SourceDir;
using testing::TempFile;

struct GoldenPrompt {
  std::string text;
  std::vector<int32_t> tokens;
  std::vector<int32_t> continuation;
};

std::vector<int32_t> Ids(const std::string& text) {
  std::istringstream in(text);
  std::vector<int32_t> ids;
  for (int32_t id = 0; in >> id;) ids.push_back(id);
  return ids;
}

std::vector<GoldenPrompt> ReadGolden() {
  std::ifstream in(SourceDir() + "/tests/golden/stories260k_greedy.tsv");
  std::vector<GoldenPrompt> prompts;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t first = line.find('\t');
    const size_t second = line.find('\t', first + 1);
    prompts.push_back(
        {line.substr(0, first), Ids(line.substr(first + 1, second - first - 1)), Ids(line.substr(second + 1))});
  }
  return prompts;
}

void ExpectGoldenTokens(const std::string& path) {
  const auto model = Model::Load(path, {}).value();
  const std::vector<GoldenPrompt> prompts = ReadGolden();
  ASSERT_EQ(prompts.size(), 20u);
  auto pool = KvPool::Create(model->config(), {.n_blocks = 32}).value();
  for (const GoldenPrompt& prompt : prompts) {
    ASSERT_EQ(prompt.continuation.size(), 64u);
    Generator generator(model.get(), pool.get(), {});
    ASSERT_TRUE(generator.Prefill(prompt.tokens).ok());
    std::vector<int32_t> got;
    for (size_t i = 0; i < prompt.continuation.size(); ++i) got.push_back(generator.Next().value().token);
    EXPECT_EQ(got, prompt.continuation) << prompt.text;
  }
}

TEST(GreedyConformanceTest, F16TokensAreThoseOfLlamaCpp) {
  const std::string path = SharedFile("models/stories260K-F16.gguf");
  UPDRAFT_SKIP_WITHOUT(path);
  ExpectGoldenTokens(path);
}

TEST(GreedyConformanceTest, F32TokensAreThoseOfLlamaCpp) {
  const std::string path = SharedFile("models/stories260K-F16.gguf");
  UPDRAFT_SKIP_WITHOUT(path);
  TempFile f32;
  ASSERT_TRUE(testing::EditFile(path, f32.path(), {.convert_all = DType::kF32}).ok());
  ExpectGoldenTokens(f32.path());
}

// The product's quantized arithmetic against double precision on the same dequantized weights.
class ReferenceConformanceTest : public ::testing::TestWithParam<DType> {};

TEST_P(ReferenceConformanceTest, DivergenceFromDoublePrecisionIsSmall) {
  const std::string path = SharedFile("models/stories260K-F16.gguf");
  UPDRAFT_SKIP_WITHOUT(path);
  const TempFile file;
  ASSERT_TRUE(testing::EditFile(path, file.path(), {.convert_matrices = GetParam()}).ok());
  const auto model = Model::Load(file.path(), {}).value();
  std::vector<int32_t> text;
  for (const GoldenPrompt& prompt : ReadGolden()) {
    text.insert(text.end(), prompt.tokens.begin(), prompt.tokens.end());
    text.insert(text.end(), prompt.continuation.begin(), prompt.continuation.end());
  }
  const EvaluationOptions options = {.context = 256, .bos = 1};
  auto source = ModelSource::Create(model.get(), options.context).value();
  ReferenceSource reference(model.get());
  const ComparisonResult result = Compare(*source, reference, text, options).value();
  std::printf("%s: mean KLD %.2e, p99 %.2e, top-1 agreement %.4f, perplexity ratio %.5f over %d positions\n",
              kernels::Info(GetParam()).name, result.kld_mean, result.kld_p99, result.top1_agreement,
              result.perplexity_ratio, static_cast<int>(result.tokens));
  EXPECT_LE(result.kld_mean, 1e-3);
}

// Every type that rows of 64 can have; rows of 172 stay F16.
INSTANTIATE_TEST_SUITE_P(Types, ReferenceConformanceTest,
                         ::testing::Values(DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ5_1,
                                           DType::kQ5_0, DType::kQ4_1, DType::kQ4_0, DType::kIQ4_NL, DType::kMXFP4),
                         [](const auto& info) { return std::string(kernels::Info(info.param).name); });

}  // namespace
}  // namespace updraft
