#include "common/gguf/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/common/gguf/gguf_bytes.h"

namespace updraft::gguf {
namespace {

using testing::Bytes;
using testing::ByteSink;
using testing::GgufBytes;
using ::testing::HasSubstr;
using ::testing::Not;

Inspection InspectText(const std::string& bytes) {
  const absl::StatusOr<File> file = File::Parse(Bytes(bytes), "m.gguf");
  EXPECT_TRUE(file.ok()) << file.status();
  const absl::StatusOr<Inspection> inspection = Inspect(*file);
  EXPECT_TRUE(inspection.ok()) << inspection.status();
  return *inspection;
}

TEST(Inspect, AddsUpWhatTheTensorsHold) {
  const std::string bytes = testing::SampleFile();
  const Inspection found = InspectText(bytes);
  EXPECT_EQ(found.architecture, "llama");
  EXPECT_EQ(found.name, "sample");
  EXPECT_EQ(found.file_bytes, bytes.size());
  EXPECT_EQ(found.n_weights, 6u + 64u + 256u);
  EXPECT_EQ(found.tensor_bytes, 24u + 36u + 210u);
  EXPECT_DOUBLE_EQ(found.bits_per_weight, 8.0 * 270 / 326);
  ASSERT_EQ(found.types.size(), 3u);
  EXPECT_EQ(found.types[0].type, kernels::DType::kQ6_K);  // the most bytes first
  EXPECT_EQ(found.types[2].type, kernels::DType::kF32);
  EXPECT_EQ(found.metadata.size(), 18u);
  EXPECT_EQ(found.tensors.size(), 3u);
}

TEST(Inspect, JsonIsTheDocumentedObject) {
  GgufBytes file;
  file.String("general.architecture", "llama").Scalar("n", ValueType::kI32, int32_t{-3});
  file.Scalar("x", ValueType::kF32, std::numeric_limits<float>::infinity()).Scalar("b", ValueType::kBool, uint8_t{1});
  file.Array("short", ValueType::kI8, 2, std::string_view("\1\xff", 2));
  file.Array("long", ValueType::kU8, 9, "123456789");
  file.Tensor("t", {4, 2}, 0, 0).Data(32);
  const std::string bytes = file.Build();
  EXPECT_EQ(ToJson(InspectText(bytes)),
            "{\"path\":\"m.gguf\",\"parts\":1,\"version\":3,\"file_bytes\":" + std::to_string(bytes.size()) +
                ",\"alignment\":32,\"architecture\":\"llama\",\"name\":\"\",\"parameters\":8,\"tensor_bytes\":32,"
                "\"bits_per_weight\":32,\"warnings\":[],\"types\":[{\"type\":\"f32\",\"tensors\":1,\"parameters\":8,"
                "\"bytes\":32}],"
                "\"metadata\":{\"general.architecture\":\"llama\",\"n\":-3,\"x\":null,\"b\":true,\"short\":[1,-1],"
                "\"long\":{\"array\":\"u8\",\"size\":9,\"first\":[49,50,51,52,53,54,55,56]}},"
                "\"tensors\":[{\"name\":\"t\",\"type\":\"f32\",\"dims\":[4,2],\"bytes\":32}]}");
}

// Each ill-formed byte becomes one U+FFFD; well-formed characters of every length pass.
TEST(Inspect, JsonStringsAreAlwaysWellFormed) {
  const struct {
    std::string in, out;
  } cases[] = {
      {"a\"b\\c\n\x7f\x01", "a\\\"b\\\\c\\u000a\\u007f\\u0001"},
      {"\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80", "\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80"},
      {"\xff", "\xef\xbf\xbd"},
      {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                  // overlong
      {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},  // surrogate
      {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
      {"\xe4\xbd", "\xef\xbf\xbd\xef\xbf\xbd"},  // cut short
  };
  for (const auto& c : cases) {
    const std::string bytes = GgufBytes().String("k", c.in).Build();
    EXPECT_THAT(ToJson(InspectText(bytes)), HasSubstr("{\"k\":\"" + c.out + "\"}"));
  }
}

TEST(Inspect, TextShowsFactsAndEscapesTheRest) {
  const std::string text = ToText(InspectText(testing::SampleFile()));
  for (const char* part :
       {"GGUF version 3", "'sample', architecture 'llama'", "326 in 3 tensors", "6.626 bits per weight", "k.strings",
        "3 x string ['a', '', 'c\\xc3\\xa9']", "[3, 2]", "q6_k"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  const std::string hostile = GgufBytes().String("k\x1b[31m", "v\x1b]0;x\x07").Build();
  EXPECT_THAT(ToText(InspectText(hostile)), Not(HasSubstr("\x1b")));
}

TEST(Inspect, AnArchitectureThatIsNoStringIsAnError) {
  const std::string bytes = GgufBytes().Scalar("general.architecture", ValueType::kU32, uint32_t{1}).Build();
  const absl::StatusOr<File> file = File::Parse(Bytes(bytes), "m.gguf");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(Inspect(*file).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace updraft::gguf
