// Adapters with random numbers beside a real model: for speed work and for tests.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/formats/dtype.h"

namespace updraft {

struct SynthAdapterOptions {
  uint64_t seed = 1;
  int rank = 16;                               // >= 1
  kernels::DType type = kernels::DType::kF16;  // f32, f16 or bf16
  double alpha = 32.0;                         // adapter.lora.alpha; not 0
  // Root mean square of what is added to a matrix, beside that of the matrix itself.
  double strength = 0.1;
  bool embedding = false;  // token_embd.weight too
  bool output = false;     // output.weight too, tied or not
};

// Writes a LoRA GGUF (common/model/adapter.h) of all matrices of the layers of the model at `base_path`.
// InvalidArgument for options that cannot be; errors of reading the base and of gguf::Writer.
absl::Status SynthesizeAdapter(const std::string& base_path, const std::string& path,
                               const SynthAdapterOptions& options = {});

}  // namespace updraft
