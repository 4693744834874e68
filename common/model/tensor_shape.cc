#include "common/model/tensor_shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace updraft {

bool HasShape(const gguf::TensorInfo& tensor, int64_t n_in, int64_t n_out) {
  return tensor.dims[0] == n_in && tensor.dims[1] == n_out && tensor.rows() == n_out;
}

std::string ShapeText(int64_t n_in, int64_t n_out) {
  return n_out == 1 ? absl::StrFormat("[%d]", n_in) : absl::StrFormat("[%d, %d]", n_in, n_out);
}

std::string ShapeText(const gguf::TensorInfo& tensor) {
  std::string shape = "[";
  for (int i = 0; i < tensor.n_dims; ++i) absl::StrAppend(&shape, i > 0 ? ", " : "", tensor.dims[i]);
  return shape + "]";
}

}  // namespace updraft
