#ifndef UPDRAFT_DEPLOY_TRAIN_CHECKPOINT_H_
#define UPDRAFT_DEPLOY_TRAIN_CHECKPOINT_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/train/batches.h"
#include "deploy/train/bpe_trainer.h"
#include "deploy/train/optimizer.h"
#include "deploy/train/transformer.h"

namespace updraft::train {

// Where a run stands, beside its tensors.
struct Progress {
  size_t step = 0;           // of the recipe
  int64_t step_tokens = 0;   // seen in this step
  int64_t total_tokens = 0;  // seen in all steps
  double seconds = 0;        // spent training
  BatchStream::Place place;
};

struct Checkpoint {
  Progress progress;
  BpeVocabulary vocabulary;
};

// A checkpoint is one file: a line of JSON, then the weights and both moments as f32, in the order of the parameters.
// It is replaced as a whole: a crash while writing leaves the old one. `header` says where the run stands; its "format"
// names the kind of run, and names and sizes of the tensors are added.
absl::Status WriteCheckpoint(const std::string& path, nlohmann::json header, const NamedTensors& parameters,
                             const Optimizer& optimizer);
absl::StatusOr<nlohmann::json> ReadCheckpointHeader(const std::string& path, const std::string& format);
// FAILED_PRECONDITION when the file's tensors are not these.
absl::Status ReadCheckpointTensors(const std::string& path, const std::string& format, NamedTensors* parameters,
                                   Optimizer* optimizer);

// Those of a whole model.
absl::Status SaveCheckpoint(const std::string& path, const Progress& progress, const BpeVocabulary& vocabulary,
                            Transformer* model, Optimizer* optimizer);

// The header alone: what is needed to build the model that LoadCheckpointTensors fills.
absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path);
absl::Status LoadCheckpointTensors(const std::string& path, Transformer* model, Optimizer* optimizer);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_CHECKPOINT_H_
