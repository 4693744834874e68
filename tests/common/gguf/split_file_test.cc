// Models that are split into several files, as llama.cpp's gguf-split writes them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/gguf/inspect.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "tests/common/gguf/exercise.h"

namespace updraft::gguf {
namespace {

using ::testing::HasSubstr;
using Change = std::function<void(int number, Writer& writer)>;

class SplitFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "updraft_split_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string PathOf(int number, int n_parts = 3) const {
    return absl::StrFormat("%s/model-%05d-of-%05d.gguf", folder_, number + 1, n_parts);
  }

  // Three parts with two tensors each, the first with all metadata; tensor t<i> holds eight times the number i.
  void WriteParts(const Change& change = nullptr) {
    for (int number = 0; number < 3; ++number) {
      auto writer = Writer::Create(PathOf(number));
      ASSERT_TRUE(writer.ok()) << writer.status();
      if (number == 0) {
        writer->SetString("general.architecture", "llama");
        writer->SetString("general.name", "split");
        writer->SetStrings("some.list", std::vector<std::string>{"a", "b"});
      }
      writer->SetU32("split.no", static_cast<uint32_t>(number));
      writer->SetU32("split.count", 3);
      writer->SetI32("split.tensors.count", 6);
      if (change) change(number, *writer);
      for (int i = 2 * number; i < 2 * number + 2; ++i) {
        writer->AddTensor(absl::StrFormat("t%d", i), kernels::DType::kF32, {8});
      }
      for (int i = 2 * number; i < 2 * number + 2; ++i) {
        const std::vector<float> values(8, static_cast<float>(i));
        ASSERT_TRUE(writer->AppendTensorData(absl::StrFormat("t%d", i), std::as_bytes(std::span(values))).ok());
      }
      ASSERT_TRUE(writer->Finish().ok());
    }
  }

  // Why the parts, opened by the first, are refused.
  absl::Status Refusal(const Change& change) {
    WriteParts(change);
    return File::Open(PathOf(0)).status();
  }

  std::string folder_;
};

TEST_F(SplitFileTest, PartsReadAsOneFile) {
  WriteParts();
  const auto file = File::Open(PathOf(0));
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->parts().size(), 3u);
  EXPECT_EQ(file->path(), PathOf(0));
  ASSERT_EQ(file->tensors().size(), 6u);
  uint64_t bytes = 0;
  for (int i = 0; i < 6; ++i) {
    const TensorInfo* tensor = file->FindTensor(absl::StrFormat("t%d", i));
    ASSERT_NE(tensor, nullptr);
    float value = -1;
    std::memcpy(&value, tensor->data.data() + 28, sizeof(value));
    EXPECT_EQ(value, static_cast<float>(i));
  }
  for (int number = 0; number < 3; ++number) bytes += std::filesystem::file_size(PathOf(number));
  EXPECT_EQ(file->file_bytes(), bytes);
  EXPECT_EQ(file->GetString("general.name").value(), "split");
  EXPECT_EQ(file->GetStrings("some.list").value().size(), 2u);
  EXPECT_FALSE(file->Has("split.count")) << "a copy of the whole would call itself a part";
  EXPECT_TRUE(file->CheckIntact().ok());
  EXPECT_NE(testing::Exercise(*file), 0u);
  const auto inspection = Inspect(*file);
  ASSERT_TRUE(inspection.ok());
  EXPECT_THAT(ToText(*inspection), HasSubstr("3 parts"));
  EXPECT_THAT(ToJson(*inspection), HasSubstr("\"parts\":3"));
}

TEST_F(SplitFileTest, ACopyOfTheWholeIsOneFile) {
  WriteParts();
  const auto file = File::Open(PathOf(0));
  ASSERT_TRUE(file.ok()) << file.status();
  auto writer = Writer::Create(folder_ + "/whole.gguf");
  ASSERT_TRUE(writer.ok());
  writer->CopyMetadata(*file);
  for (const TensorInfo& tensor : file->tensors()) {
    writer->AddTensor(tensor.name, tensor.type, std::span(tensor.dims).first(tensor.n_dims));
  }
  for (const TensorInfo& tensor : file->tensors()) ASSERT_TRUE(writer->AppendTensorData(tensor.name, tensor.data).ok());
  ASSERT_TRUE(writer->Finish().ok());
  const auto whole = File::Open(folder_ + "/whole.gguf");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(whole->tensors().size(), 6u);
}

TEST_F(SplitFileTest, AMissingPartIsNamed) {
  for (int missing = 1; missing < 3; ++missing) {
    WriteParts();
    std::filesystem::remove(PathOf(missing));
    const absl::Status status = File::Open(PathOf(0)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr(PathOf(missing)));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(absl::StrFormat("part %d of a model in 3 files", missing + 1)));
  }
}

TEST_F(SplitFileTest, AnotherPartThanTheFirstLeadsToIt) {
  WriteParts();
  const absl::Status status = File::Open(PathOf(1)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("open the first, '" + PathOf(0) + "'"));
}

TEST_F(SplitFileTest, ANameThatDoesNotLeadToTheOthersIsRefused) {
  WriteParts();
  for (const char* name : {"/model.gguf", "/model-00001-of-00002.gguf", "/model-00002-of-00003.gguf"}) {
    std::filesystem::copy_file(PathOf(0), folder_ + name, std::filesystem::copy_options::overwrite_existing);
    const absl::Status status = File::Open(folder_ + name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr("'-00001-of-00003.gguf'")) << name;
  }
}

TEST_F(SplitFileTest, PartsThatDoNotBelongTogetherAreRefused) {
  const struct {
    const char* what;
    Change change;
    const char* says;
  } cases[] = {
      {"another number", [](int n, Writer& w) { w.SetU32("split.no", n == 1 ? 2 : static_cast<uint32_t>(n)); },
       "'split.no': expected 1, found 2"},
      {"another count", [](int n, Writer& w) { w.SetU32("split.count", n == 2 ? 4 : 3); },
       "'split.count': expected 3, found 4"},
      {"a number beyond the count", [](int n, Writer& w) { w.SetU32("split.no", n == 0 ? 3 : 1); },
       "expected a number below the 3"},
      {"more tensors promised", [](int, Writer& w) { w.SetI32("split.tensors.count", 7); }, "expected 7 tensors"},
      {"another architecture",
       [](int n, Writer& w) {
         if (n == 1) w.SetString("general.architecture", "qwen2");
       },
       "'general.architecture': expected 'llama'"},
      {"another model",
       [](int n, Writer& w) {
         if (n == 2) w.SetString("general.name", "other");
       },
       "'general.name': expected 'split'"},
      {"a count that is no number",
       [](int n, Writer& w) {
         if (n == 0) w.SetString("split.count", "3");
       },
       "'split.count': expected a u32"},
  };
  for (const auto& c : cases) {
    const absl::Status status = Refusal(c.change);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.what << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says)) << c.what;
  }
}

TEST_F(SplitFileTest, ATensorInTwoPartsIsRefused) {
  WriteParts();
  // The second part again, with the tensors of the first.
  auto writer = Writer::Create(PathOf(1));
  ASSERT_TRUE(writer.ok());
  writer->SetU32("split.no", 1);
  writer->SetU32("split.count", 3);
  const std::vector<float> values(8, 0.0f);
  for (const char* name : {"t0", "t3"}) writer->AddTensor(name, kernels::DType::kF32, {8});
  for (const char* name : {"t0", "t3"}) {
    ASSERT_TRUE(writer->AppendTensorData(name, std::as_bytes(std::span(values))).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  const absl::Status status = File::Open(PathOf(0)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor 't0' is in two of its 3 parts"));
}

TEST_F(SplitFileTest, ADamagedPartIsNamed) {
  WriteParts();
  std::filesystem::resize_file(PathOf(2), 40);
  const absl::Status status = File::Open(PathOf(0)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(PathOf(2)));
}

TEST_F(SplitFileTest, EveryPartIsWatched) {
  for (int number = 0; number < 3; ++number) {
    WriteParts();
    const auto file = File::Open(PathOf(0));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE(file->CheckIntact().ok());
    std::filesystem::resize_file(PathOf(number), 100);
    const absl::Status status = file->CheckIntact();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(status.message()), HasSubstr(PathOf(number)));
  }
}

}  // namespace
}  // namespace updraft::gguf
