// Element types of weights and activations: one table of facts per type, so that a new type is one row here, one block
// in blocks.h and one codec in codec.h.
//
// Type numbers and block sizes are those of the GGUF file format (ggml's `enum ggml_type`), so that published model
// files are used in place, without conversion; formats of our own have numbers far above.
#ifndef UPDRAFT_KERNELS_FORMATS_DTYPE_H_
#define UPDRAFT_KERNELS_FORMATS_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace updraft::kernels {

// Values index a table; they are not file numbers (see DTypeInfo::ggml_id). New types are added at the end.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kQ2_K,
  kQ3_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kNVFP4,
  kTQ1_0,
  kTQ2_0,
  kQ1_0,
  kQ2_0,
  kIQ1_S,
  kIQ1_M,
  kIQ2_XXS,
  kIQ2_XS,
  kIQ2_S,
  kIQ3_XXS,
  kIQ3_S,
  kQ8_2of4,
  kQ8_16of32
};

inline constexpr int kNumDTypes = 30;

// File numbers from here on are this project's own formats (sparse_blocks.h), not ggml's: "UD" and a number.
inline constexpr uint32_t kOwnTypeIds = 0x55440000;

struct DTypeInfo {
  const char* name;  // as users write it: "q4_0", "q4_k", "f16"
  uint32_t ggml_id;  // the number in a GGUF file
  int block_elems;   // consecutive elements of a row that are coded together; a row is a whole number of blocks
  int block_bytes;   // bytes of one such block
};

const DTypeInfo& Info(DType type);

// The supported type with that file number, if there is one.
std::optional<DType> FromGgmlId(uint32_t ggml_id);

// "q4_0", "Q4_0", "Q4_K", "f32", ...: case does not matter.
std::optional<DType> ParseDType(std::string_view name);

// The name of any type number that GGUF files have ever used, supported here or not ("IQ2_XS", "MXFP4", ...), so that
// an unsupported file can be refused by name; our own too. Null for numbers that were never given out.
const char* GgmlTypeName(uint32_t ggml_id);

// Bytes of one row of n elements. n >= 0 and a multiple of Info(type).block_elems; n < 2^58, so that the product fits.
size_t RowBytes(DType type, int64_t n);

// Bits per element, block scales included: 4.5 for q4_0.
inline double BitsPerElement(DType type) { return 8.0 * Info(type).block_bytes / Info(type).block_elems; }

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_FORMATS_DTYPE_H_
