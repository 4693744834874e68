#include "deploy/train/adapter/base.h"

#include <cstddef>
#include <cstdio>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/sha256.h"
#include "common/gguf/reader.h"
#include "common/memory/available.h"
#include "deploy/train/gguf_model.h"

namespace updraft::train {
namespace {

absl::Status CheckMemory(const gguf::File& file) {
  int64_t elements = 0;
  for (const gguf::TensorInfo& tensor : file.tensors()) elements += tensor.elements();
  // f32 to merge from, bf16 to compute with; the activations of two batches of 1024 tokens come to about as much again.
  const uint64_t needed = static_cast<uint64_t>(elements) * 6 * 2;
  const AvailableMemory available = ReadAvailableMemory();
  if (needed > available.bytes) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: training over its %d million weights takes about %s of memory and %s are free (%s); take a smaller base",
        file.path(), elements / 1000000, ShowBytes(needed), ShowBytes(available.bytes), available.source));
  }
  return absl::OkStatus();
}

absl::Status CheckTensors(const gguf::File& file, Transformer* model) {
  std::set<std::string> known = {"output.weight"};
  for (const auto& [name, tensor] : model->parameters()) known.insert(name);
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    if (!known.contains(tensor.name)) {
      return absl::UnimplementedError(absl::StrCat(file.path(), ": tensor '", tensor.name,
                                                   "' is of a kind of Llama that this trainer cannot compute"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckHash(const gguf::File& file, const std::string& expected, std::string* found) {
  if (file.parts().size() > 1) {
    return absl::UnimplementedError(absl::StrCat(
        file.path(), ": is one of ", file.parts().size(),
        " files of a model, and an adapter names its base by the hash of one; join them (llama-gguf-split --merge)"));
  }
  const std::span<const std::byte> bytes = file.parts().front().bytes;
  const absl::StatusOr<std::string> hash = Sha256Hex(bytes);
  if (!hash.ok()) return hash.status();
  *found = *hash;
  if (!expected.empty() && *hash != expected) {
    return absl::FailedPreconditionError(absl::StrCat(file.path(), ": the recipe's base_sha256 is ", expected,
                                                      ", this file's is ", *hash,
                                                      "; fetch the file that the recipe means, or change the recipe"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const text::Tokenizer>> ReadTokenizer(const gguf::File& file) {
  absl::StatusOr<std::shared_ptr<const text::Tokenizer>> tokenizer = text::Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        file.path(), ": the base has no tokenizer that can be used: ", std::string(tokenizer.status().message())));
  }
  for (const char* marker : {"<|im_start|>", "<|im_end|>"}) {
    if (!(*tokenizer)->SpecialTokenId(marker)) {
      return absl::UnimplementedError(absl::StrCat(file.path(), ": the tokenizer has no token ", marker,
                                                   ", which the chat template needs; take a base that speaks ChatML"));
    }
  }
  return tokenizer;
}

}  // namespace

void Base::MoveTo(torch::Device device) {
  const bool tied = output.is_same(model->Get("token_embd.weight"));
  model->MoveTo(device);
  output = tied ? model->Get("token_embd.weight") : output.to(device);
}

absl::StatusOr<Base> ReadBase(const std::string& path, const std::string& sha256, int context) {
  const absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  if (!file.ok()) return file.status();
  Base base;
  base.path = path;
  if (absl::Status status = CheckHash(*file, sha256, &base.sha256); !status.ok()) return status;
  absl::StatusOr<ModelShape> shape = ReadShape(*file);
  if (!shape.ok()) return shape.status();
  shape->exits.clear();
  shape->context = std::min(shape->context, context);
  absl::StatusOr<std::shared_ptr<const text::Tokenizer>> tokenizer = ReadTokenizer(*file);
  if (!tokenizer.ok()) return tokenizer.status();
  base.tokenizer = *std::move(tokenizer);
  if (absl::Status status = CheckMemory(*file); !status.ok()) return status;
  const absl::StatusOr<std::string_view> name = file->GetStringOr("general.name", "");
  base.name = name.ok() ? std::string(*name) : "";
  const int32_t vocabulary = base.tokenizer->vocab_size();
  base.model = std::make_unique<Transformer>(*shape, vocabulary, /*seed=*/0, torch::kCPU);
  for (auto& [key, tensor] : base.model->parameters()) tensor.set_requires_grad(false);
  if (absl::Status status = CheckTensors(*file, base.model.get()); !status.ok()) return status;
  if (absl::Status status = ReadTensors(*file, base.model.get()); !status.ok()) return status;
  base.output = base.model->Get("token_embd.weight");
  if (file->FindTensor("output.weight") != nullptr) {
    absl::StatusOr<torch::Tensor> output = ReadTensor(*file, "output.weight", base.output.sizes().vec());
    if (!output.ok()) return output.status();
    base.output = *std::move(output);
  }
  if (absl::Status status = file->CheckIntact(); !status.ok()) return status;
  return base;
}

}  // namespace updraft::train
