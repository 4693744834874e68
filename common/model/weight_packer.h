// The matrices of a model in the layout that its operations want: packed here, or read from a packed file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/gguf/reader.h"
#include "common/model/load_options.h"
#include "kernels/ops.h"

namespace updraft {

// A tensor of the model's file that products use; its shape has been checked.
struct MatrixToPack {
  const gguf::TensorInfo* tensor = nullptr;
  int64_t n_out = 0, n_in = 0;
};

// One result for each of `matrices`, in their order. `file` holds their tensors and outlives the results. The packed
// file of options.packed_cache may be missing, damaged or another model's: the results are the same, and `use` tells
// what happened. They are others only where packed_file.h says that a change of the model goes unnoticed, or where
// somebody wrote a packed file on purpose. Reports options.on_progress.
std::vector<std::unique_ptr<kernels::PackedMatrix>> PackMatrices(std::span<const MatrixToPack> matrices,
                                                                 const gguf::File& file, kernels::Ops& ops,
                                                                 const LoadOptions& options, PackedCacheUse& use);

}  // namespace updraft
