#include "common/serving/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
constexpr uint64_t kMiB = 1 << 20;

ModelConfig Config() {
  ModelConfig config;
  config.n_layer = 16;
  config.d_model = 1024;
  config.n_head = 16;
  config.n_kv_head = 8;
  config.head_dim = 64;
  config.d_ff = 4096;
  config.n_vocab = 32000;
  config.context_length = 8192;
  return config;
}

// In f16: 2 * 16 layers * 8 heads * 64 * 2 bytes = 32 KiB a token.
constexpr KvStoreOptions kKv{.n_blocks = 2048, .block_tokens = 16};  // 32,768 tokens: 1 GiB
constexpr WeightsNeed kWeights{.weights_bytes = 300 * kMiB, .header_bytes = 2 * kMiB};

absl::Status Check(uint64_t available_mib, const KvStoreOptions& kv = kKv) {
  return CheckMemory(Config(), kWeights, kv, /*max_rows=*/512, {.bytes = available_mib * kMiB, .source = "a test"});
}

TEST(Admission, SumsUpWhatIsNeeded) {
  const auto need = NeedOf(Config(), kWeights, kKv, 512);
  ASSERT_TRUE(need.ok());
  EXPECT_EQ(need->weights_bytes, 300 * kMiB);
  EXPECT_EQ(need->kv_bytes, 1024 * kMiB);
  // 512 rows of 2 * (1024 + (16 + 8) * 64 + 4096) floats, 16 of 32,000 logits and 1,024.
  EXPECT_EQ(need->step_bytes, 4u * (512 * 2 * (1024 + 24 * 64 + 4096) + 16 * (32000 + 1024)));
  EXPECT_EQ(need->total(), need->weights_bytes + need->kv_bytes + need->step_bytes + need->other_bytes);
  EXPECT_TRUE(CheckMemory(Config(), kWeights, kKv, 512, {.bytes = need->total(), .source = "a test"}).ok());
  EXPECT_FALSE(CheckMemory(Config(), kWeights, kKv, 512, {.bytes = need->total() - 1, .source = "a test"}).ok());
  // Of an address space the file that is mapped has its part already.
  WeightsNeed in_place = kWeights;
  in_place.in_place_bytes = 200 * kMiB;
  const uint64_t rest = need->total() - 200 * kMiB;
  EXPECT_TRUE(CheckMemory(Config(), in_place, kKv, 512, {.bytes = rest, .source = "a test", .less_mapped = true}).ok());
  EXPECT_FALSE(
      CheckMemory(Config(), in_place, kKv, 512, {.bytes = rest - 1, .source = "a test", .less_mapped = true}).ok());
}

TEST(Admission, ARefusalHasTheNumbersAndWhatToChange) {
  const absl::Status status = Check(512);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("weights 300.0 MiB"));
  EXPECT_THAT(message, HasSubstr("KV cache of 32768 tokens 1.0 GiB"));
  EXPECT_THAT(message, HasSubstr("found 512.0 MiB (a test)"));
  EXPECT_THAT(message, HasSubstr("lower --kv-tokens to at most "));
  EXPECT_THAT(message, HasSubstr("--kv-type i8"));
}

// What the message recommends is taken at its word.
TEST(Admission, TheAdviceWorks) {
  for (const uint64_t mib : {380, 400, 512, 777, 1300}) {
    const absl::Status status = Check(mib);
    ASSERT_FALSE(status.ok()) << mib;
    const std::string message(status.message());
    const size_t at = message.find("at most ");
    ASSERT_NE(at, std::string::npos) << message;
    const int tokens = std::stoi(message.substr(at + 8));
    EXPECT_TRUE(Check(mib, {.n_blocks = tokens / 16, .block_tokens = 16}).ok()) << mib << ": " << tokens;
    EXPECT_FALSE(Check(mib, {.n_blocks = tokens / 16 + 1, .block_tokens = 16}).ok()) << mib << ": " << tokens;
  }
}

TEST(Admission, AModelThatIsTooLargeByItselfIsNotToldOfTheCache) {
  const absl::Status status = Check(200);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("--kv-tokens")));
  EXPECT_THAT(std::string(status.message()), HasSubstr("choose a smaller model"));
}

TEST(Admission, WhereNothingIsKnownNothingIsRefused) {
  EXPECT_TRUE(CheckMemory(Config(), kWeights, kKv, 512, {}).ok());
}

TEST(Admission, KvOptionsThatCannotBeAreNamed) {
  const absl::Status status = Check(9999, {.n_blocks = 0, .block_tokens = 16});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("kv_tokens"));
}

}  // namespace
}  // namespace updraft
