// Damaged and hostile files: each is refused with a message that names the trouble, none is misread, none reads outside
// its bytes (run under AddressSanitizer).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>

#include "common/gguf/reader.h"
#include "tests/common/gguf/exercise.h"
#include "tests/common/gguf/gguf_bytes.h"

namespace updraft::gguf {
namespace {

using testing::Bytes;
using testing::ByteSink;
using testing::GgufBytes;
using ::testing::HasSubstr;
using testing::SampleFile;

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

// Parses from a heap block of exactly that size, so that a sanitizer sees every byte read beyond it. Returns the status
// and exercises what was accepted.
absl::Status ParseExactly(const std::string& text) {
  const std::unique_ptr<std::byte[]> copy(new std::byte[text.size()]);
  std::memcpy(copy.get(), text.data(), text.size());
  const absl::StatusOr<File> file = File::Parse({copy.get(), text.size()}, "bad.gguf");
  if (file.ok()) testing::Exercise(*file);
  return file.status();
}

void ExpectRefused(const std::string& text, absl::StatusCode code, const char* part) {
  const absl::Status status = ParseExactly(text);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
  EXPECT_THAT(std::string(status.message()), HasSubstr("file 'bad.gguf'"));
}

void ExpectMalformed(const std::string& text, const char* part) {
  ExpectRefused(text, absl::StatusCode::kInvalidArgument, part);
}

void ExpectUnsupported(const std::string& text, const char* part) {
  ExpectRefused(text, absl::StatusCode::kUnimplemented, part);
}

TEST(Hostile, TruncationAtEveryByteIsRefused) {
  const std::string whole = SampleFile();
  ASSERT_TRUE(ParseExactly(whole).ok());
  for (size_t n = 0; n < whole.size(); ++n) {
    const absl::Status status = ParseExactly(whole.substr(0, n));
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << "cut to " << n << " bytes: " << status;
    ASSERT_THAT(std::string(status.message()), HasSubstr("at byte ")) << n;
    ASSERT_THAT(std::string(status.message()), HasSubstr("truncated")) << n;
  }
}

// Many flips make another sound file (a letter of a name, a value); none may do worse than that.
TEST(Hostile, FlippingAnyBitOfTheHeaderIsSafe) {
  const std::string whole = SampleFile();
  const size_t header_bytes = File::Parse(Bytes(whole), "whole")->parts()[0].data_offset;
  size_t refused = 0;
  for (size_t bit = 0; bit < 8 * header_bytes; ++bit) {
    std::string damaged = whole;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    refused += ParseExactly(damaged).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, header_bytes) << "of " << 8 * header_bytes << " flips";
}

// Every aligned and unaligned 8-byte window set to values that overflow sums and products.
TEST(Hostile, ExtremeNumbersAnywhereInTheHeaderAreSafe) {
  const std::string whole = SampleFile();
  const size_t header_bytes = File::Parse(Bytes(whole), "whole")->parts()[0].data_offset;
  constexpr uint64_t kExtremes[] = {
      0,          ~uint64_t{0}, uint64_t{1} << 63, (uint64_t{1} << 63) - 1, uint64_t{1} << 60, uint64_t{1} << 32,
      0xffffffff, 0x7fffffff,   ~uint64_t{0} - 7,  ~uint64_t{0} - 31};
  for (size_t at = 0; at + 8 <= header_bytes; ++at) {
    for (const uint64_t extreme : kExtremes) {
      std::string damaged = whole;
      std::memcpy(damaged.data() + at, &extreme, sizeof(extreme));
      (void)ParseExactly(damaged);
    }
  }
}

TEST(Hostile, Headers) {
  GgufBytes file;
  file.magic = "GGML";
  ExpectMalformed(file.Build(), "expected the magic bytes 'GGUF', found 'GGML'");
  file.magic = std::string("\x7f\0ZL", 4);
  ExpectMalformed(file.Build(), "found '\\x7f\\x00ZL'");
  file.magic = "GGUF";
  file.version = 0;
  ExpectMalformed(file.Build(), "expected GGUF version 2 or 3, found 0");
  file.version = 1;
  ExpectUnsupported(file.Build(), "GGUF version 1 is not supported");
  file.version = 4;
  ExpectUnsupported(file.Build(), "found 4; a newer Updraft may read it");
  file.version = 0x03000000;
  ExpectUnsupported(file.Build(), "big-endian");
}

// Counts are held against the bytes before anything is allocated: these would ask for exabytes.
TEST(Hostile, Counts) {
  for (const int64_t extra : {int64_t{1} << 62, int64_t{1} << 40, int64_t{-1}, int64_t{1000000}}) {
    GgufBytes tensors;
    tensors.extra_tensors = extra;
    ExpectMalformed(tensors.Build(), "tensors cannot be described in the 0 bytes that follow");
    GgufBytes metadata;
    metadata.extra_metadata = extra;
    ExpectMalformed(metadata.Build(), "metadata entries do not fit in the 0 bytes that follow");
  }
  GgufBytes one_more;
  one_more.extra_metadata = 1;
  ExpectMalformed(one_more.String("a", "a value long enough for two").Build(), "truncated");
}

TEST(Hostile, Metadata) {
  ExpectMalformed(GgufBytes().String("", "v").Build(), "empty key");
  ExpectMalformed(GgufBytes().String("a", "1").String("b", "2").String("a", "3").Build(), "metadata 'a' occurs twice");
  ExpectMalformed(GgufBytes().Scalar("a", static_cast<ValueType>(13), uint64_t{0}).Build(),
                  "metadata 'a': expected a value type below 13, found 13");
  ExpectMalformed(GgufBytes().Scalar("a", ValueType::kBool, uint8_t{2}).Build(), "expected a bool (0 or 1), found 2");
  ExpectMalformed(GgufBytes().Array("a", ValueType::kBool, 3, "\1\1\7").Build(), "expected a bool (0 or 1), found 7");
  ExpectMalformed(GgufBytes().Array("a", static_cast<ValueType>(99), 0, "").Build(), "found 99");
  ExpectUnsupported(GgufBytes().Array("a", ValueType::kArray, 1, std::string(12, '\0')).Build(),
                    "metadata 'a': arrays of arrays are not supported");
  for (const uint64_t count : {uint64_t{5}, uint64_t{1} << 61, uint64_t{1} << 62, ~uint64_t{0}}) {
    ExpectMalformed(GgufBytes().Array("a", ValueType::kU32, count, std::string(16, '\0')).Build(),
                    "does not fit in the 16 bytes that follow");
    ExpectMalformed(GgufBytes().Array("a", ValueType::kString, count, std::string(16, '\0')).Build(),
                    "does not fit in the 16 bytes that follow");
  }
  const std::string endless = ByteSink().String("a").Number(~uint64_t{0}).Raw("rest").bytes();
  ExpectMalformed(GgufBytes().Array("a", ValueType::kString, 2, endless).Build(), "truncated");
  const std::string long_key(70000, 'k');
  ExpectMalformed(GgufBytes().String(long_key, "v").Build(), "expected at most 65535 bytes, found a length of 70000");
}

TEST(Hostile, NamesInMessagesAreEscapedAndCut) {
  const std::string key = "\x1b[2J\n" + std::string(5000, 'x');
  const absl::Status status = ParseExactly(GgufBytes().String(key, "1").String(key, "2").Build());
  EXPECT_THAT(std::string(status.message()), HasSubstr("'\\x1b[2J\\nxxx"));
  EXPECT_LT(status.message().size(), 300u);
}

TEST(Hostile, Alignment) {
  for (const uint32_t alignment : {0u, 1u, 4u, 24u, 33u, 1u << 21, 1u << 31, 0xffffffffu}) {
    GgufBytes file;
    ExpectMalformed(file.Scalar("general.alignment", ValueType::kU32, alignment).Build(),
                    "'general.alignment': expected a power of two from 8 to 1048576");
  }
  ExpectMalformed(GgufBytes().String("general.alignment", "32").Build(), "found the string '32'");
  ExpectMalformed(GgufBytes().Scalar("general.alignment", ValueType::kI32, int32_t{-32}).Build(),
                  "found the integer -32");
}

TEST(Hostile, TensorShapes) {
  ExpectMalformed(GgufBytes().Tensor("t", {}, kF32, 0).Build(), "");
  ExpectMalformed(GgufBytes().Tensor("t", {1, 1, 1, 1, 1}, kF32, 0).Data(4).Build(),
                  "tensor 't': expected 1 to 4 dimensions, found 5");
  ExpectMalformed(GgufBytes().Tensor("t", {4, 0}, kF32, 0).Data(16).Build(), "tensor 't': dimension 1 is zero");
  const uint64_t big = uint64_t{1} << 40;
  ExpectMalformed(GgufBytes().Tensor("t", {big, big}, kF32, 0).Build(), "makes more than 2^60 elements");
  ExpectMalformed(GgufBytes().Tensor("t", {(uint64_t{1} << 60) + 1}, kF32, 0).Build(), "makes more than 2^60 elements");
  ExpectMalformed(GgufBytes().Tensor("t", {~uint64_t{0}}, kF32, 0).Build(), "makes more than 2^60 elements");
  ExpectMalformed(GgufBytes().Tensor("t", {uint64_t{1} << 60}, kF32, 0).Build(), "expected 4611686018427387904 bytes");
  ExpectMalformed(GgufBytes().Tensor("t", {48}, kQ4_0, 0).Data(64).Build(),
                  "tensor 't': type q4_0 needs rows of a multiple of 32 elements, found rows of 48");
  ExpectMalformed(GgufBytes().Tensor("t", {16, 2}, kQ4_0, 0).Data(64).Build(), "found rows of 16");
  ExpectMalformed(GgufBytes().Tensor("", {1}, kF32, 0).Data(4).Build(), "tensor 0 has an empty name");
  ExpectMalformed(GgufBytes().Tensor(std::string(300, 'n'), {1}, kF32, 0).Data(4).Build(), "at most 255 bytes");
  ExpectMalformed(GgufBytes().Tensor("t", {1}, kF32, 0).Tensor("t", {1}, kF32, 32).Data(36).Build(),
                  "tensor 't' occurs twice");
}

TEST(Hostile, TensorTypesAreRefusedByName) {
  ExpectUnsupported(GgufBytes().Tensor("x", {256}, 15, 0).Data(1024).Build(),
                    "tensor 'x': type Q8_K (id 15) is not supported by this build; use a file quantized to one of f32");
  ExpectUnsupported(GgufBytes().Tensor("x", {256}, 28, 0).Data(1024).Build(), "type F64 (id 28)");
  ExpectUnsupported(GgufBytes().Tensor("x", {256}, 31, 0).Data(1024).Build(), "type Q4_0_4_4 (id 31)");
  ExpectMalformed(GgufBytes().Tensor("x", {256}, 1000, 0).Data(1024).Build(), "tensor 'x': unknown tensor type 1000");
  ExpectMalformed(GgufBytes().Tensor("x", {256}, 0xffffffff, 0).Data(1024).Build(), "unknown tensor type 4294967295");
}

TEST(Hostile, TensorPlaces) {
  ExpectMalformed(GgufBytes().Tensor("t", {4}, kF32, 8).Data(64).Build(), "multiple of 32, found 8");
  ExpectMalformed(GgufBytes().Tensor("t", {4}, kF32, 64).Data(64).Build(), "expected 16 bytes at offset 64");
  ExpectMalformed(GgufBytes().Tensor("t", {4}, kF32, 0).Data(15).Build(), "found data of 15 bytes");
  ExpectMalformed(GgufBytes().Tensor("t", {4}, kF32, ~uint64_t{0} - 31).Data(64).Build(),
                  "at offset 18446744073709551584");
  ExpectMalformed(GgufBytes().Tensor("a", {16}, kF32, 0).Tensor("b", {16}, kF32, 32).Data(128).Build(),
                  "tensors 'a' and 'b' overlap");
  ExpectMalformed(GgufBytes().Tensor("a", {16}, kF32, 0).Tensor("b", {8}, kF32, 0).Data(128).Build(), "overlap");
}

}  // namespace
}  // namespace updraft::gguf
