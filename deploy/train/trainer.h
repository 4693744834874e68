#ifndef UPDRAFT_DEPLOY_TRAIN_TRAINER_H_
#define UPDRAFT_DEPLOY_TRAIN_TRAINER_H_

#include <string>

#include "absl/status/status.h"
#include "deploy/train/recipe.h"

namespace updraft::train {

struct TrainOptions {
  std::string out;      // the GGUF to write; checkpoints lie beside it as OUT.checkpoint
  bool resume = false;  // go on from the checkpoint
  // Stop after so many updates in this process, with a checkpoint (0: run to the end).
  int64_t stop_after_updates = 0;
  double minutes = 0;        // of an adapter's training: stop after so many in this process, likewise
  std::string base;          // of an adapter's training: the file, if not the recipe's
  bool export_only = false;  // write the GGUF of the checkpoint as it stands
  bool quiet = false;
};

// Runs a recipe to its end and writes the model file. Progress goes to stderr.
absl::Status Train(const Recipe& recipe, const TrainOptions& options);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_TRAINER_H_
