#include "common/gguf/writer.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "common/gguf/reader.h"
#include "kernels/formats/codec.h"
#include "tests/common/gguf/gguf_bytes.h"
#include "tests/kernels/formats/samples.h"

namespace updraft::gguf {
namespace {

using kernels::DType;
using testing::Bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class WriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "updraft-gguf-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ / "out.gguf";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  Writer Create(const WriterOptions& options = {}) {
    absl::StatusOr<Writer> writer = Writer::Create(path_, options);
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }
  size_t FilesInDirectory() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), {}));
  }
  static std::string Contents(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path directory_;
  std::string path_;
};

TEST_F(WriterTest, EveryTensorTypeSurvivesTheRoundTrip) {
  for (const uint64_t alignment : {8, 32, 4096}) {
    std::vector<std::vector<uint8_t>> rows;
    Writer writer = Create({.alignment = alignment});
    writer.SetString("general.architecture", "llama");
    for (int i = 0; i < kernels::kNumDTypes; ++i) {
      const auto type = static_cast<DType>(i);
      rows.push_back(kernels::testing::RandomBlocks(type, 4, 512 * 3));
      writer.AddTensor(kernels::Info(type).name, type, {512, 3});
    }
    for (int i = 0; i < kernels::kNumDTypes; ++i) {
      const auto data = std::as_bytes(std::span(rows[static_cast<size_t>(i)]));
      const std::string name = kernels::Info(static_cast<DType>(i)).name;
      ASSERT_TRUE(writer.AppendTensorData(name, data.first(100)).ok());  // in pieces
      ASSERT_TRUE(writer.AppendTensorData(name, data.subspan(100)).ok());
    }
    ASSERT_TRUE(writer.Finish().ok());

    const absl::StatusOr<File> file = File::Open(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->alignment(), alignment);
    ASSERT_EQ(file->tensors().size(), static_cast<size_t>(kernels::kNumDTypes));
    for (int i = 0; i < kernels::kNumDTypes; ++i) {
      const TensorInfo& tensor = file->tensors()[static_cast<size_t>(i)];
      EXPECT_EQ(tensor.type, static_cast<DType>(i));
      EXPECT_THAT(tensor.dims, ElementsAre(512, 3, 1, 1));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % std::min<uint64_t>(alignment, 4096), 0u);
      ASSERT_EQ(tensor.data.size(), rows[static_cast<size_t>(i)].size());
      EXPECT_EQ(0, std::memcmp(tensor.data.data(), rows[static_cast<size_t>(i)].data(), tensor.data.size()));
    }
  }
}

TEST_F(WriterTest, EveryMetadataTypeSurvivesTheRoundTrip) {
  Writer writer = Create();
  writer.SetU32("u32", 4000000000u);
  writer.SetU64("u64", ~uint64_t{0});
  writer.SetI32("i32", -5);
  writer.SetF32("f32", 0.1f);
  writer.SetBool("bool", true);
  writer.SetString("string", std::string_view("a\0b", 3));
  writer.SetString("empty", "");
  writer.SetStrings("strings", std::vector<std::string>{"x", "", "\xff"});
  writer.SetI32s("i32s", std::vector<int32_t>{-1, 2});
  writer.SetU32s("u32s", std::vector<uint32_t>{1, 4000000000u});
  writer.SetF32s("f32s", std::vector<float>{-0.5f, 2.0f});
  writer.SetBools("bools", std::vector<uint8_t>{0, 1, 5});
  writer.SetI32s("none", std::vector<int32_t>{});
  writer.Set("i64", Value(int64_t{-7}));
  writer.SetU32("u32", 17);  // replaced in its place
  ASSERT_TRUE(writer.Finish().ok());
  const absl::StatusOr<File> file = File::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().size(), 14u);
  EXPECT_EQ(file->metadata()[0].key, "u32");
  EXPECT_EQ(*file->GetU32("u32"), 17u);
  EXPECT_EQ(*file->GetU64("u64"), ~uint64_t{0});
  EXPECT_EQ(*file->GetI32("i32"), -5);
  EXPECT_EQ(*file->GetF32("f32"), 0.1f);
  EXPECT_EQ(*file->GetBool("bool"), true);
  EXPECT_EQ(*file->GetString("string"), std::string_view("a\0b", 3));
  EXPECT_EQ(*file->GetString("empty"), "");
  EXPECT_THAT(*file->GetStrings("strings"), ElementsAre("x", "", "\xff"));
  EXPECT_THAT(*file->GetI32s("i32s"), ElementsAre(-1, 2));
  EXPECT_THAT(*file->GetU32s("u32s"), ElementsAre(1u, 4000000000u));
  EXPECT_THAT(*file->GetF32s("f32s"), ElementsAre(-0.5f, 2.0f));
  EXPECT_THAT(*file->GetBools("bools"), ElementsAre(false, true, true));
  EXPECT_TRUE(file->GetI32s("none")->empty());
  EXPECT_EQ(*file->GetI32("i64"), -7);
}

// The bytes equal those of a file built by hand, and, where there are any, those that other writers made.
TEST_F(WriterTest, CopyingAFileGivesTheSameBytes) {
  std::vector<std::string> originals = {directory_ / "sample.gguf"};
  std::ofstream(originals[0], std::ios::binary) << testing::SampleFile();
  if (const char* source = std::getenv("UPDRAFT_SOURCE_DIR"); source != nullptr) {
    std::error_code missing;
    for (const auto& entry :
         std::filesystem::directory_iterator(std::filesystem::path(source) / "../shared/models", missing)) {
      if (entry.path().extension() == ".gguf") originals.push_back(entry.path());
    }
  }
  for (const std::string& original : originals) {
    const absl::StatusOr<File> file = File::Open(original);
    ASSERT_TRUE(file.ok()) << file.status();
    Writer writer = Create();
    writer.CopyMetadata(*file);
    for (const TensorInfo& t : file->tensors()) {
      writer.AddTensor(t.name, t.type, std::span(t.dims).first(static_cast<size_t>(t.n_dims)));
    }
    for (const TensorInfo& t : file->tensors()) ASSERT_TRUE(writer.AppendTensorData(t.name, t.data).ok());
    ASSERT_TRUE(writer.Finish().ok());
    std::string expected = Contents(original);
    expected.resize((expected.size() + 31) / 32 * 32);  // the last tensor is padded too
    EXPECT_TRUE(Contents(path_) == expected) << original;
  }
}

TEST_F(WriterTest, NothingAppearsUnderTheNameBeforeFinish) {
  std::ofstream(path_) << "the old file";
  {
    Writer writer = Create();
    writer.AddTensor("t", DType::kF32, {2});
    ASSERT_TRUE(writer.AppendTensorData("t", std::as_bytes(std::span("1234567", 8))).ok());
    EXPECT_EQ(Contents(path_), "the old file");
    EXPECT_EQ(FilesInDirectory(), 2u);
  }  // destroyed without Finish
  EXPECT_EQ(Contents(path_), "the old file");
  EXPECT_EQ(FilesInDirectory(), 1u);

  // A reader that has the old file mapped keeps it.
  std::ofstream(path_, std::ios::binary) << testing::SampleFile();
  const absl::StatusOr<File> old = File::Open(path_);
  Writer writer = Create();
  writer.SetString("general.name", "new");
  ASSERT_TRUE(writer.Finish().ok());
  EXPECT_EQ(*old->GetString("general.name"), "sample");
  EXPECT_EQ(*File::Open(path_)->GetString("general.name"), "new");
  EXPECT_EQ(FilesInDirectory(), 1u);
}

TEST_F(WriterTest, MisuseIsAnErrorThatSticks) {
  const auto expect = [this](auto misuse, const char* part) {
    Writer writer = Create();
    writer.AddTensor("a", DType::kF32, {2});
    writer.AddTensor("b", DType::kF32, {2});
    misuse(writer);
    const absl::Status status = writer.Finish();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr(part));
    EXPECT_EQ(writer.status(), status);
    EXPECT_FALSE(writer.AppendTensorData("b", {}).ok());
  };
  const std::string eight(8, 'x');
  expect([](Writer&) {}, "2 of 2 tensors have no complete data, the first is 'a'");
  expect([&](Writer& w) { (void)w.AppendTensorData("b", Bytes(eight)); },
         "data for tensor 'b' came out of turn; expected 8 more bytes of 'a'");
  expect([&](Writer& w) { (void)w.AppendTensorData("a", Bytes(std::string(9, 'x'))); },
         "tensor 'a': expected 8 more bytes of its 8, found 9");
  expect(
      [&](Writer& w) {
        (void)w.AppendTensorData("a", Bytes(eight));
        w.SetU32("late", 1);
      },
      "metadata 'late' was added after the first tensor data");
  expect([](Writer& w) { w.AddTensor("a", DType::kF32, {1}); }, "tensor 'a': declared twice");
  expect([](Writer& w) { w.AddTensor("c", DType::kQ4_0, {33}); }, "multiple of 32 elements, found rows of 33");
  expect([](Writer& w) { w.AddTensor("c", DType::kF32, {0}); }, "found 0");
  expect([](Writer& w) { w.AddTensor("c", DType::kF32, {1 << 30, 1 << 30, 2}); }, "at most 2^60 elements");
  expect([](Writer& w) { w.AddTensor("c", DType::kF32, {1, 1, 1, 1, 1}); }, "1 to 4 dimensions, found 5");
  expect([](Writer& w) { w.AddTensor(std::string(64, 'n'), DType::kF32, {1}); }, "1 to 63 bytes, found 64");
  expect([](Writer& w) { w.SetU32("", 1); }, "expected 1 to 65535 bytes, found 0");
  expect([](Writer& w) { w.SetU32("general.alignment", 64); }, "set by WriterOptions::alignment");
  EXPECT_EQ(FilesInDirectory(), 0u);
}

TEST_F(WriterTest, PlacesThatCannotBeWrittenAreRefused) {
  EXPECT_EQ(Writer::Create(directory_ / "no/such/m.gguf").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Writer::Create("").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Writer::Create(directory_.string() + "/").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Writer::Create(path_, {.alignment = 12}).status().code(), absl::StatusCode::kInvalidArgument);
  // A directory that comes under the final name later is found out by the rename, and the temporary file is removed.
  Writer writer = Create();
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(writer.Finish().ok());
  EXPECT_EQ(FilesInDirectory(), 2u);
}

// A file size limit acts as a full disk does: a write comes back short and the next one fails.
// A rename onto a device would destroy it, as root even /dev/null.
TEST_F(WriterTest, WhatIsNoFileIsNotReplaced) {
  const std::string pipe = ::testing::TempDir() + "updraft_writer_pipe_" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(std::string(Writer::Create(pipe).status().message()), HasSubstr("not a regular file"));
  EXPECT_EQ(Writer::Create("/dev/null").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Writer::Create(::testing::TempDir()).status().code(), absl::StatusCode::kInvalidArgument);
  struct stat info;
  ASSERT_EQ(stat(pipe.c_str(), &info), 0);
  EXPECT_TRUE(S_ISFIFO(info.st_mode));
  std::remove(pipe.c_str());
}

TEST_F(WriterTest, ALinkKeepsPointingToWhatIsReplaced) {
  const std::string target = ::testing::TempDir() + "updraft_writer_target_" + std::to_string(getpid());
  const std::string link = target + ".link";
  std::ofstream(target) << "old";
  ASSERT_EQ(symlink(target.c_str(), link.c_str()), 0);
  auto writer = Writer::Create(link);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_TRUE(File::Open(target).ok());
  std::remove(link.c_str());
  std::remove(target.c_str());
}

TEST_F(WriterTest, AFullDiskIsReportedAndLeavesNothing) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  {
    Writer writer = Create();
    writer.AddTensor("t", DType::kF32, {1 << 20});
    const std::string data(4 << 20, 'x');
    const rlimit small{1 << 20, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    const absl::Status status = writer.AppendTensorData("t", Bytes(data));
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("free some space"));
    EXPECT_EQ(writer.Finish(), status);
  }
  std::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(FilesInDirectory(), 0u);
}

}  // namespace
}  // namespace updraft::gguf
