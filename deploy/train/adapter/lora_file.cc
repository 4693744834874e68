#include "deploy/train/adapter/lora_file.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "absl/strings/str_cat.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "deploy/train/encoder.h"

namespace updraft::train {
namespace {

constexpr const char* kBaseHash = "updraft.adapter.base_sha256";

// {in, out} of a linear layer of a block.
std::pair<int64_t, int64_t> LayerSizes(const std::string& target, const ModelShape& base) {
  const int64_t keys = static_cast<int64_t>(base.kv_heads) * base.head();
  if (target == "attn_k" || target == "attn_v") return {base.width, keys};
  if (target == "ffn_gate" || target == "ffn_up") return {base.width, base.feed_forward};
  if (target == "ffn_down") return {base.feed_forward, base.width};
  return {base.width, base.width};
}

}  // namespace

NamedTensors NewLora(const LoraShape& shape, const ModelShape& base, uint64_t seed) {
  torch::manual_seed(seed);
  NamedTensors tensors;
  for (int layer = 0; layer < base.layers; ++layer) {
    for (const std::string& target : shape.targets) {
      const auto [in, out] = LayerSizes(target, base);
      const std::string name = absl::StrCat("blk.", layer, ".", target, ".weight.lora_");
      tensors.emplace_back(name + "a", torch::randn({shape.rank, in}) / std::sqrt(static_cast<double>(in)));
      tensors.emplace_back(name + "b", torch::zeros({out, shape.rank}));
    }
  }
  return tensors;
}

absl::Status WriteLora(const std::string& path, const AdapterRecipe& recipe, const TrainingRecord& record,
                       const Base& base, const NamedTensors& tensors) {
  absl::StatusOr<gguf::Writer> writer = gguf::Writer::Create(path);
  if (!writer.ok()) return writer.status();
  writer->SetString("general.architecture", "llama");
  writer->SetString("general.type", "adapter");
  writer->SetString("general.name", recipe.name);
  writer->SetString("adapter.type", "lora");
  writer->SetF32("adapter.lora.alpha", static_cast<float>(recipe.adapter.alpha));
  writer->SetString("tokenizer.chat_template", kChatTemplate);
  writer->SetString("updraft.acts", "cockpit");
  writer->SetString(kBaseHash, base.sha256);
  writer->SetString("updraft.adapter.base_name", base.name);
  writer->SetString("updraft.training.recipe", record.recipe_fingerprint);
  writer->SetU64("updraft.training.seed", record.seed);
  writer->SetU64("updraft.training.tokens", static_cast<uint64_t>(record.tokens));
  writer->SetU32("updraft.training.data_version", static_cast<uint32_t>(record.data_version));
  writer->SetStrings("updraft.training.held_out", std::span<const std::string>(recipe.held_out));
  for (const auto& [name, tensor] : tensors) {
    writer->AddTensor(name, kernels::DType::kF16, {tensor.size(1), tensor.size(0)});  // ggml counts from the innermost
  }
  for (const auto& [name, tensor] : tensors) {
    if (absl::Status status = AppendTensor(name, tensor, kernels::DType::kF16, &*writer); !status.ok()) return status;
  }
  return writer->Finish();
}

absl::Status ReadLora(const std::string& path, const LoraShape& shape, const Base& base, NamedTensors* tensors) {
  const absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  if (!file.ok()) return file.status();
  const absl::StatusOr<std::string_view> type = file->GetStringOr("adapter.type", "");
  if (!type.ok() || *type != "lora") {
    return absl::InvalidArgumentError(absl::StrCat(path, ": expected a LoRA adapter (adapter.type \"lora\")"));
  }
  const absl::StatusOr<std::string_view> hash = file->GetStringOr(kBaseHash, base.sha256);
  if (!hash.ok()) return hash.status();
  if (*hash != base.sha256) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": was trained over a base with SHA-256 ",
                                                      std::string(*hash), ", and ", base.path, " has ", base.sha256));
  }
  const absl::StatusOr<float> alpha = file->GetF32("adapter.lora.alpha");
  if (!alpha.ok()) return alpha.status();
  if (*alpha != static_cast<float>(shape.alpha)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": adapter.lora.alpha is ", *alpha, " and the recipe's is ", shape.alpha));
  }
  if (file->tensors().size() != tensors->size()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has ", file->tensors().size(),
                                                   " tensors, the recipe's targets ", tensors->size(),
                                                   "; name the targets that it was trained with"));
  }
  for (auto& [name, tensor] : *tensors) {
    const absl::StatusOr<torch::Tensor> read = ReadTensor(*file, name, tensor.sizes().vec());
    if (!read.ok()) return read.status();
    tensor.copy_(*read);
  }
  return file->CheckIntact();
}

}  // namespace updraft::train
