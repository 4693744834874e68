#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_BASE_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_BASE_H_

#include <torch/torch.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"
#include "deploy/train/transformer.h"

namespace updraft::train {

// A published model that adapters are trained over; nothing of it is ever learned or written.
struct Base {
  std::string path, sha256, name;
  std::shared_ptr<const text::Tokenizer> tokenizer;
  std::unique_ptr<Transformer> model;  // dequantized, f32, without gradients
  torch::Tensor output;                // [vocabulary, width] f32; the embedding's own tensor where they are tied

  void MoveTo(torch::Device device);
};

// Reads a GGUF of architecture llama whose chat can be written as ChatML. Messages say what is wrong: the hash
// (`sha256`, when not empty), the architecture, a tensor that this trainer does not know, a tokenizer that is missing
// or has no <|im_start|> and <|im_end|>, a model that does not fit in memory.
absl::StatusOr<Base> ReadBase(const std::string& path, const std::string& sha256, int context);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_BASE_H_
