#include "common/gguf/reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "tests/common/gguf/exercise.h"
#include "tests/common/gguf/gguf_bytes.h"

namespace updraft::gguf {
namespace {

using testing::Bytes;
using ::testing::ElementsAre;
using testing::GgufBytes;
using ::testing::HasSubstr;
using testing::SampleFile;

absl::StatusOr<File> ParseText(const std::string& text) { return File::Parse(Bytes(text), "test.gguf"); }

TEST(Reader, ReadsEveryMetadataType) {
  const std::string bytes = SampleFile();
  const absl::StatusOr<File> file = ParseText(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->version(), 3u);
  EXPECT_EQ(file->alignment(), 32u);
  EXPECT_EQ(file->file_bytes(), bytes.size());
  EXPECT_EQ(file->path(), "test.gguf");
  EXPECT_EQ(*file->GetString("general.name"), "sample");
  EXPECT_EQ(*file->GetU32("k.u8"), 200u);
  EXPECT_EQ(*file->GetI32("k.i8"), -100);
  EXPECT_EQ(*file->GetU32("k.u16"), 60000u);
  EXPECT_EQ(*file->GetI32("k.i16"), -30000);
  EXPECT_EQ(*file->GetU32("k.u32"), 4000000000u);
  EXPECT_EQ(*file->GetI32("k.i32"), -2000000000);
  EXPECT_EQ(*file->GetU64("k.u64"), uint64_t{1} << 63);
  EXPECT_EQ(std::get<int64_t>(*file->Find("k.i64")), -(int64_t{1} << 62));
  EXPECT_EQ(*file->GetF32("k.f32"), 0.5f);
  EXPECT_EQ(*file->GetF32("k.f64"), 0.25f);
  EXPECT_EQ(*file->GetBool("k.bool"), true);
  EXPECT_THAT(*file->GetStrings("k.strings"), ElementsAre("a", "", "c\xc3\xa9"));
  EXPECT_THAT(*file->GetI32s("k.i32s"), ElementsAre(-1, 7));
  EXPECT_THAT(*file->GetF32s("k.f32s"), ElementsAre(1.5f, -2.5f));
  EXPECT_THAT(*file->GetBools("k.bools"), ElementsAre(false, true, true));
  EXPECT_TRUE(file->GetI32s("k.empty")->empty());
  EXPECT_EQ(file->metadata().size(), 18u);
  EXPECT_EQ(file->metadata()[2].key, "k.u8");
}

TEST(Reader, TensorsAreViewsOfTheirBytes) {
  const std::string bytes = SampleFile();
  const absl::StatusOr<File> file = ParseText(bytes);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 3u);
  const TensorInfo* q4 = file->FindTensor("b.q4_0");
  ASSERT_NE(q4, nullptr);
  EXPECT_EQ(q4->type, kernels::DType::kQ4_0);
  EXPECT_EQ(q4->n_dims, 1);
  EXPECT_THAT(q4->dims, ElementsAre(64, 1, 1, 1));
  EXPECT_EQ(q4->data.size(), 36u);
  EXPECT_EQ(q4->data.data(), Bytes(bytes).data() + file->parts()[0].data_offset + 32);
  EXPECT_EQ(file->FindTensor("a.f32")->elements(), 6);
  EXPECT_EQ(file->FindTensor("a.f32")->rows(), 2);
  EXPECT_EQ(file->FindTensor("c.q6_k")->n_dims, 4);
  EXPECT_EQ(file->FindTensor("none"), nullptr);
  EXPECT_EQ(file->FindTensor(""), nullptr);
}

TEST(Reader, Version2IsReadTheSame) {
  GgufBytes file;
  file.version = 2;
  const std::string bytes = file.String("general.architecture", "llama").Build();
  const absl::StatusOr<File> parsed = ParseText(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->version(), 2u);
}

TEST(Reader, LookupsSayWhatIsMissingAndWhatDoesNotFit) {
  const std::string bytes = SampleFile();
  const absl::StatusOr<File> file = ParseText(bytes);
  ASSERT_TRUE(file.ok());
  const auto expect = [](const absl::Status& status, absl::StatusCode code, const char* part) {
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  };
  expect(file->GetU32("no.such").status(), absl::StatusCode::kNotFound,
         "file 'test.gguf': metadata 'no.such' is missing (expected a u32)");
  expect(file->GetU32("k.u64").status(), absl::StatusCode::kInvalidArgument,
         "metadata 'k.u64': expected a u32, found the integer 9223372036854775808");
  expect(file->GetU32("k.i8").status(), absl::StatusCode::kInvalidArgument, "found the integer -100");
  expect(file->GetI32("k.u32").status(), absl::StatusCode::kInvalidArgument, "found the integer 4000000000");
  expect(file->GetU32("k.bool").status(), absl::StatusCode::kInvalidArgument, "found the bool true");
  expect(file->GetBool("k.u8").status(), absl::StatusCode::kInvalidArgument, "expected a bool");
  expect(file->GetF32("k.u8").status(), absl::StatusCode::kInvalidArgument, "expected an f32");
  expect(file->GetString("k.strings").status(), absl::StatusCode::kInvalidArgument, "found an array of 3 string");
  expect(file->GetStrings("k.i32s").status(), absl::StatusCode::kInvalidArgument, "expected an array of strings");
  expect(file->GetI32s("k.strings").status(), absl::StatusCode::kInvalidArgument, "found an array of 3 string");
  expect(file->GetU32s("k.i32s").status(), absl::StatusCode::kInvalidArgument, "expected an array, each element a u32");
  expect(file->GetF32s("k.u8").status(), absl::StatusCode::kInvalidArgument, "found the integer 200");
  expect(file->GetStrings("no.such").status(), absl::StatusCode::kNotFound, "'no.such' is missing");
  EXPECT_EQ(*file->GetU32Or("no.such", 5), 5u);
  EXPECT_EQ(*file->GetU32Or("k.u8", 5), 200u);
  EXPECT_EQ(*file->GetStringOr("no.such", "x"), "x");
  expect(file->GetU32Or("k.f32", 5).status(), absl::StatusCode::kInvalidArgument, "found the number 0.5");
}

TEST(Reader, DoublesBeyondFloatAreRefused) {
  GgufBytes big;
  const std::string bytes = big.Scalar("x", ValueType::kF64, 1e300).Build();
  const absl::StatusOr<File> file = ParseText(bytes);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->GetF32("x").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Reader, ViewsSurviveAMove) {
  const std::string bytes = SampleFile();
  absl::StatusOr<File> file = ParseText(bytes);
  ASSERT_TRUE(file.ok());
  const TensorInfo* tensor = file->FindTensor("b.q4_0");
  File moved = *std::move(file);
  EXPECT_EQ(moved.FindTensor("b.q4_0"), tensor);
  EXPECT_EQ(*moved.GetString("general.name"), "sample");
  testing::Exercise(moved);
}

TEST(Reader, AlignmentOfTheFileIsUsed) {
  GgufBytes file;
  file.alignment = 128;
  file.Scalar("general.alignment", ValueType::kU32, uint32_t{128}).Tensor("a", {4}, 0, 0).Tensor("b", {4}, 0, 128);
  const std::string bytes = file.Data(144).Build();
  const absl::StatusOr<File> parsed = ParseText(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->alignment(), 128u);
  EXPECT_EQ(parsed->parts()[0].data_offset % 128, 0u);
  EXPECT_EQ(parsed->FindTensor("b")->data.data() - parsed->FindTensor("a")->data.data(), 128);
}

TEST(Reader, TensorsMayShareAllOfTheirBytes) {
  GgufBytes file;
  const std::string bytes = file.Tensor("a", {16}, 0, 0).Tensor("b", {4, 4}, 0, 0).Data(64).Build();
  const absl::StatusOr<File> parsed = ParseText(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->tensors()[0].data.data(), parsed->tensors()[1].data.data());
}

TEST(Reader, AFileWithoutTensorsOrMetadataIsSound) {
  const std::string bytes = GgufBytes().Build();
  const absl::StatusOr<File> parsed = ParseText(bytes);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_TRUE(parsed->tensors().empty());
  EXPECT_TRUE(parsed->metadata().empty());
  testing::Exercise(*parsed);
}

// ---- Opening ------------------------------------------------------------------------------------------------------

class OpenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "updraft-gguf-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
};

TEST_F(OpenTest, MapsAFile) {
  const std::string path = directory_ / "m.gguf";
  std::ofstream(path, std::ios::binary) << SampleFile();
  for (const MapOptions& options : {MapOptions{}, MapOptions{.populate = true}}) {
    absl::StatusOr<File> file = File::Open(path, options);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->path(), path);
    File moved = *std::move(file);
    moved = *File::Open(path);
    testing::Exercise(moved);
  }
}

TEST_F(OpenTest, WhatIsNotAFileIsRefused) {
  EXPECT_EQ(File::Open(directory_ / "none").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(File::Open(directory_).status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string fifo = directory_ / "fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(File::Open(fifo).status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string empty = directory_ / "empty";
  std::ofstream(empty).close();
  const absl::Status status = File::Open(empty).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("truncated"));
}

// ---- Published files ----------------------------------------------------------------------------------------------

std::vector<std::filesystem::path> PublishedFiles() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  std::vector<std::filesystem::path> files;
  if (source == nullptr) return files;
  const auto shared = std::filesystem::path(source) / "../shared";
  for (const auto& folder : {shared / "models", shared / "data/tokenizer_conformance/llamacpp_vocab_tests"}) {
    std::error_code missing;
    for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
      if (entry.path().extension() == ".gguf") files.push_back(entry.path());
    }
  }
  return files;
}

TEST(PublishedFiles, AreRead) {
  const std::vector<std::filesystem::path> files = PublishedFiles();
  if (files.empty()) GTEST_SKIP() << "no .gguf files in $UPDRAFT_SOURCE_DIR/../shared/{models,data}: nothing to read";
  for (const auto& path : files) {
    const absl::StatusOr<File> file = File::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->GetString("general.architecture").ok()) << path;
    EXPECT_GT(file->GetStrings("tokenizer.ggml.tokens")->size(), 100u) << path;
    testing::Exercise(*file);
  }
}

}  // namespace
}  // namespace updraft::gguf
