#include "kernels/formats/dtype.h"

#include <cassert>
#include <iterator>

#include "kernels/formats/blocks.h"
#include "kernels/formats/lowbit_blocks.h"
#include "kernels/formats/sparse_blocks.h"

namespace updraft::kernels {
namespace {

// In the order of DType.
constexpr DTypeInfo kTable[] = {
    {"f32", 0, 1, 4},
    {"f16", 1, 1, 2},
    {"bf16", 30, 1, 2},
    {"q8_0", 8, BlockQ8_0::kElems, sizeof(BlockQ8_0)},
    {"q4_0", 2, BlockQ4_0::kElems, sizeof(BlockQ4_0)},
    {"q4_1", 3, BlockQ4_1::kElems, sizeof(BlockQ4_1)},
    {"q5_0", 6, BlockQ5_0::kElems, sizeof(BlockQ5_0)},
    {"q5_1", 7, BlockQ5_1::kElems, sizeof(BlockQ5_1)},
    {"q4_k", 12, BlockQ4_K::kElems, sizeof(BlockQ4_K)},
    {"q5_k", 13, BlockQ5_K::kElems, sizeof(BlockQ5_K)},
    {"q6_k", 14, BlockQ6_K::kElems, sizeof(BlockQ6_K)},
    {"q2_k", 10, BlockQ2_K::kElems, sizeof(BlockQ2_K)},
    {"q3_k", 11, BlockQ3_K::kElems, sizeof(BlockQ3_K)},
    {"iq4_nl", 20, BlockIQ4_NL::kElems, sizeof(BlockIQ4_NL)},
    {"iq4_xs", 23, BlockIQ4_XS::kElems, sizeof(BlockIQ4_XS)},
    {"mxfp4", 39, BlockMXFP4::kElems, sizeof(BlockMXFP4)},
    {"nvfp4", 40, BlockNVFP4::kElems, sizeof(BlockNVFP4)},
    {"tq1_0", 34, BlockTQ1_0::kElems, sizeof(BlockTQ1_0)},
    {"tq2_0", 35, BlockTQ2_0::kElems, sizeof(BlockTQ2_0)},
    {"q1_0", 41, BlockQ1_0::kElems, sizeof(BlockQ1_0)},
    {"q2_0", 42, BlockQ2_0::kElems, sizeof(BlockQ2_0)},
    {"iq1_s", 19, BlockIQ1_S::kElems, sizeof(BlockIQ1_S)},
    {"iq1_m", 29, BlockIQ1_M::kElems, sizeof(BlockIQ1_M)},
    {"iq2_xxs", 16, BlockIQ2_XXS::kElems, sizeof(BlockIQ2_XXS)},
    {"iq2_xs", 17, BlockIQ2_XS::kElems, sizeof(BlockIQ2_XS)},
    {"iq2_s", 22, BlockIQ2_S::kElems, sizeof(BlockIQ2_S)},
    {"iq3_xxs", 18, BlockIQ3_XXS::kElems, sizeof(BlockIQ3_XXS)},
    {"iq3_s", 21, BlockIQ3_S::kElems, sizeof(BlockIQ3_S)},
    {"q8_2of4", kOwnTypeIds + 1, BlockQ8_2of4::kElems, sizeof(BlockQ8_2of4)},
    {"q8_16of32", kOwnTypeIds + 2, BlockQ8_16of32::kElems, sizeof(BlockQ8_16of32)},
};
static_assert(std::size(kTable) == kNumDTypes);
static_assert(static_cast<int>(DType::kQ8_16of32) == kNumDTypes - 1);

// By file number. Numbers 4, 5, 31-33 and 36-38 were withdrawn by ggml; files with them still exist.
constexpr const char* kGgmlNames[] = {
    "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
    "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
    "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
    "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
    "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4",    "Q1_0",     "Q2_0",
};
static_assert(std::size(kGgmlNames) == 43);

constexpr char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (ToLower(a[i]) != ToLower(b[i])) return false;
  }
  return true;
}

}  // namespace

const DTypeInfo& Info(DType type) {
  assert(static_cast<int>(type) < kNumDTypes);
  return kTable[static_cast<int>(type)];
}

std::optional<DType> FromGgmlId(uint32_t ggml_id) {
  for (int i = 0; i < kNumDTypes; ++i) {
    if (kTable[i].ggml_id == ggml_id) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<DType> ParseDType(std::string_view name) {
  for (int i = 0; i < kNumDTypes; ++i) {
    if (EqualsIgnoringCase(kTable[i].name, name)) return static_cast<DType>(i);
  }
  return std::nullopt;
}

const char* GgmlTypeName(uint32_t ggml_id) {
  if (ggml_id < std::size(kGgmlNames)) return kGgmlNames[ggml_id];
  const std::optional<DType> own = FromGgmlId(ggml_id);
  return own ? Info(*own).name : nullptr;
}

size_t RowBytes(DType type, int64_t n) {
  const DTypeInfo& info = Info(type);
  assert(n >= 0 && n % info.block_elems == 0);
  return static_cast<size_t>(n / info.block_elems) * static_cast<size_t>(info.block_bytes);
}

}  // namespace updraft::kernels
