#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_FILE_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_FILE_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/train/adapter/base.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/gguf_model.h"
#include "deploy/train/optimizer.h"

namespace updraft::train {

// The adapter's tensors under their names in the file, [rank, in] "blk.N.NAME.weight.lora_a" and [out, rank]
// "blk.N.NAME.weight.lora_b" by turns, f32. A is random of deviation 1 / sqrt(in), B zero: the base as it is.
NamedTensors NewLora(const LoraShape& shape, const ModelShape& base, uint64_t seed);

// Writes them as llama.cpp reads a LoRA (general.type "adapter", adapter.type "lora", adapter.lora.alpha), in f16, with
// the chat template that the adapter was trained with, the base's SHA-256 and what was held out from training.
// Rotated pairs lie as in the base file, so the rows of attn_q and attn_k need no other order.
absl::Status WriteLora(const std::string& path, const AdapterRecipe& recipe, const TrainingRecord& record,
                       const Base& base, const NamedTensors& tensors);

// Fills `tensors` from such a file, llama.cpp's own among them. INVALID_ARGUMENT names what does not fit: another rank,
// alpha, base (where the file says its hash) or set of targets.
absl::Status ReadLora(const std::string& path, const LoraShape& shape, const Base& base, NamedTensors* tensors);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_LORA_FILE_H_
