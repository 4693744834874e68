#ifndef UPDRAFT_DEPLOY_TRAIN_GGUF_MODEL_H_
#define UPDRAFT_DEPLOY_TRAIN_GGUF_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "deploy/train/bpe_trainer.h"
#include "deploy/train/recipe.h"
#include "deploy/train/transformer.h"

namespace updraft::train {

// What a model file says of its training.
struct TrainingRecord {
  std::string recipe_fingerprint;  // of the recipe's text
  uint64_t seed = 0;
  int64_t tokens = 0;
  int data_version = 0;
};

// Writes `model` as GGUF, architecture llama, with its tokenizer and chat template; exits as updraft.exit.*.
absl::Status WriteModel(const std::string& path, const Recipe& recipe, const TrainingRecord& record,
                        const BpeVocabulary& vocabulary, Transformer* model);

struct LoadedModel {
  BpeVocabulary vocabulary;
  std::unique_ptr<Transformer> model;  // dequantized
};

// Reads back a file that WriteModel made.
absl::StatusOr<LoadedModel> ReadModel(const std::string& path, torch::Device device);

// The parts of that: a Llama's shape (UNIMPLEMENTED for another architecture), one tensor as f32, all of a model's.
absl::StatusOr<ModelShape> ReadShape(const gguf::File& file);
absl::StatusOr<torch::Tensor> ReadTensor(const gguf::File& file, const std::string& name,
                                         const std::vector<int64_t>& sizes);
absl::Status ReadTensors(const gguf::File& file, Transformer* model);

// Appends the data of a tensor that `writer` knows, encoded as `type`.
absl::Status AppendTensor(const std::string& name, const torch::Tensor& tensor, kernels::DType type,
                          gguf::Writer* writer);

// The model with a vocabulary whose merges begin with its own. A new token starts as the mean of its two parts.
LoadedModel WithVocabulary(const LoadedModel& from, const BpeVocabulary& larger);

// Fills `model` from a file of the same width, or a wider and deeper one: layers evenly spaced, first rows and columns.
// Parameters that the file lacks (exits) stay as they are.
absl::Status InitializeFrom(const LoadedModel& from, Transformer* model);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_GGUF_MODEL_H_
