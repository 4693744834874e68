#include "kernels/formats/dtype.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace updraft::kernels {
namespace {

TEST(DType, EveryTypeIsFoundByItsNameAndItsFileNumber) {
  std::set<std::string> names;
  std::set<uint32_t> ids;
  for (int i = 0; i < kNumDTypes; ++i) {
    const auto type = static_cast<DType>(i);
    const DTypeInfo& info = Info(type);
    EXPECT_EQ(ParseDType(info.name), type);
    EXPECT_EQ(FromGgmlId(info.ggml_id), type);
    EXPECT_EQ(RowBytes(type, 4 * info.block_elems), 4u * static_cast<size_t>(info.block_bytes));
    EXPECT_EQ(RowBytes(type, 0), 0u);
    names.insert(info.name);
    ids.insert(info.ggml_id);
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kNumDTypes));
  EXPECT_EQ(ids.size(), static_cast<size_t>(kNumDTypes));
}

// The published figures: bits per weight of each format.
TEST(DType, BitsPerElement) {
  EXPECT_EQ(BitsPerElement(DType::kF32), 32.0);
  EXPECT_EQ(BitsPerElement(DType::kF16), 16.0);
  EXPECT_EQ(BitsPerElement(DType::kBF16), 16.0);
  EXPECT_EQ(BitsPerElement(DType::kQ8_0), 8.5);
  EXPECT_EQ(BitsPerElement(DType::kQ4_0), 4.5);
  EXPECT_EQ(BitsPerElement(DType::kQ4_1), 5.0);
  EXPECT_EQ(BitsPerElement(DType::kQ5_0), 5.5);
  EXPECT_EQ(BitsPerElement(DType::kQ5_1), 6.0);
  EXPECT_EQ(BitsPerElement(DType::kQ4_K), 4.5);
  EXPECT_EQ(BitsPerElement(DType::kQ5_K), 5.5);
  EXPECT_EQ(BitsPerElement(DType::kQ6_K), 6.5625);
  EXPECT_EQ(BitsPerElement(DType::kQ2_K), 2.625);
  EXPECT_EQ(BitsPerElement(DType::kQ3_K), 3.4375);
  EXPECT_EQ(BitsPerElement(DType::kTQ1_0), 1.6875);
  EXPECT_EQ(BitsPerElement(DType::kIQ1_S), 1.5625);
  EXPECT_EQ(BitsPerElement(DType::kMXFP4), 4.25);
  EXPECT_EQ(BitsPerElement(DType::kQ8_2of4), 5.5);
  EXPECT_EQ(BitsPerElement(DType::kQ8_16of32), 5.5);
}

TEST(DType, NamesIgnoreCaseAndNothingElse) {
  EXPECT_EQ(ParseDType("Q4_K"), DType::kQ4_K);
  EXPECT_EQ(ParseDType("bF16"), DType::kBF16);
  for (const char* name : {"", "q4", "q4_0 ", " q4_0", "q4_00", "q4-0", "q8_1", "f"}) {
    EXPECT_EQ(ParseDType(name), std::nullopt) << name;
  }
}

TEST(DType, UnsupportedTypesHaveNames) {
  EXPECT_STREQ(GgmlTypeName(17), "IQ2_XS");
  EXPECT_STREQ(GgmlTypeName(28), "F64");
  EXPECT_STREQ(GgmlTypeName(30), "BF16");
  EXPECT_STREQ(GgmlTypeName(34), "TQ1_0");
  EXPECT_STREQ(GgmlTypeName(39), "MXFP4");
  EXPECT_EQ(FromGgmlId(17), DType::kIQ2_XS);
  EXPECT_EQ(FromGgmlId(15), std::nullopt);  // Q8_K: of intermediate results, in no file
  EXPECT_EQ(FromGgmlId(4), std::nullopt);
  EXPECT_EQ(GgmlTypeName(43), nullptr);
  EXPECT_EQ(GgmlTypeName(0xffffffffu), nullptr);
  EXPECT_EQ(FromGgmlId(0xffffffffu), std::nullopt);
  // The two tables agree on what they both know.
  for (int i = 0; i < kNumDTypes; ++i) {
    const DTypeInfo& info = Info(static_cast<DType>(i));
    ASSERT_NE(GgmlTypeName(info.ggml_id), nullptr);
    EXPECT_EQ(ParseDType(GgmlTypeName(info.ggml_id)), static_cast<DType>(i));
  }
}

}  // namespace
}  // namespace updraft::kernels
