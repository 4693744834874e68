// The model's file is cut or written to between two tokens: a status, not a fault, and no token that was computed from
// other weights.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/model/memory_need.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using kernels::DType;
using ::testing::HasSubstr;

class FileFaultTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(Synthesize(testing::Shape("tiny-llama"), GetParam(), file_.path(), {.seed = 1, .n_threads = 1}).ok());
    auto model = Model::Load(file_.path(), {.n_threads = 2});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    pool_ = KvPool::Create(model_->ops(), model_->config(), {.n_blocks = 16}).value();
    generator_ = std::make_unique<Generator>(model_.get(), pool_.get(), GeneratorOptions());
    ASSERT_TRUE(generator_->Prefill(std::vector<int32_t>{1, 2, 3, 4, 5}).ok());
    ASSERT_TRUE(generator_->Next().ok());
  }
  void ExpectLost() {
    const auto next = generator_->Next();
    EXPECT_EQ(next.status().code(), absl::StatusCode::kUnavailable) << next.status();
    EXPECT_THAT(std::string(next.status().message()), HasSubstr(file_.path()));
    EXPECT_EQ(generator_->Next().status().code(), absl::StatusCode::kUnavailable) << "for good";
  }

  testing::TempFile file_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Generator> generator_;
};

TEST_P(FileFaultTest, CutToNothing) {
  fs::resize_file(file_.path(), 0);
  ExpectLost();
}

TEST_P(FileFaultTest, WrittenInPlace) {
  std::fstream(file_.path(), std::ios::in | std::ios::out | std::ios::binary).seekp(4096) << "other weights";
  ExpectLost();
}

TEST_P(FileFaultTest, ReplacedByRenaming) {
  std::ofstream(file_.path() + ".next") << "another file";
  fs::rename(file_.path() + ".next", file_.path());
  EXPECT_TRUE(generator_->Next().ok());
}

// Quantized matrices are packed, but the embedding is read in the file; floats all are.
INSTANTIATE_TEST_SUITE_P(Types, FileFaultTest, ::testing::Values(DType::kF32, DType::kF16, DType::kQ8_0),
                         [](const auto& info) { return std::string(kernels::Info(info.param).name); });

TEST(FileFaultAtLoadTest, AFileThatChangesWhileItIsLoadedIsRefused) {
  testing::TempFile file;
  ASSERT_TRUE(Synthesize(testing::Shape("tiny-llama"), DType::kQ8_0, file.path(), {.seed = 1, .n_threads = 1}).ok());
  fs::last_write_time(file.path(), fs::last_write_time(file.path()) - std::chrono::hours(1));
  LoadOptions options{.n_threads = 1};
  options.packed_cache = file.path() + ".packed";
  options.admit = [&](const ModelConfig&, const WeightsNeed&) {
    fs::resize_file(file.path(), 0);
    return absl::OkStatus();
  };
  const auto model = Model::Load(file.path(), options);
  EXPECT_EQ(model.status().code(), absl::StatusCode::kUnavailable) << model.status();
  EXPECT_TRUE(!fs::exists(options.packed_cache) || fs::is_empty(options.packed_cache))
      << "what was packed from the wrong bytes must not be found again";
  fs::remove_all(options.packed_cache);
}

TEST(FileFaultAtLoadTest, WhatIsNotAdmittedIsNotLoaded) {
  testing::TempFile file;
  ASSERT_TRUE(Synthesize(testing::Shape("tiny-llama"), DType::kQ8_0, file.path(), {.seed = 1, .n_threads = 1}).ok());
  uint64_t asked = 0;
  bool packed = false;
  LoadOptions options{.n_threads = 1};
  options.on_progress = [&](uint64_t, uint64_t) { packed = true; };
  options.admit = [&](const ModelConfig& config, const WeightsNeed& need) {
    asked = need.weights_bytes;
    EXPECT_GT(need.header_bytes, 0u);
    EXPECT_EQ(config.n_layer, 2);
    return absl::ResourceExhaustedError("no");
  };
  EXPECT_EQ(Model::Load(file.path(), options).status().message(), "no");
  EXPECT_FALSE(packed);
  // The embedding in place, everything else packed.
  const auto model = Model::Load(file.path(), {.n_threads = 1}).value();
  EXPECT_GE(asked, model->bytes_per_token());
  EXPECT_LE(asked, model->bytes_per_token() + model->file().FindTensor("token_embd.weight")->data.size());
}

}  // namespace
}  // namespace updraft
