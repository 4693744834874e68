// Shapes of tensors in checks and messages, in ggml's order of dimensions.
#pragma once

#include <cstdint>
#include <string>

#include "common/gguf/reader.h"

namespace updraft {

// Rows of n_in elements, n_out of them; a vector has n_out 1.
bool HasShape(const gguf::TensorInfo& tensor, int64_t n_in, int64_t n_out);
std::string ShapeText(int64_t n_in, int64_t n_out);  // "[576, 49152]", "[576]"
std::string ShapeText(const gguf::TensorInfo& tensor);

}  // namespace updraft
