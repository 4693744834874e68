#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_TRAINER_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_TRAINER_H_

#include "absl/status/status.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/trainer.h"

namespace updraft::train {

// Trains an adapter to the end of its recipe, or of this piece of it (options.minutes, options.stop_after_updates).
// At every checkpoint options.out is the adapter as it stands, so that it can be tried while training goes on; a piece
// ends with both. Progress goes to stderr, with the accuracy on every held-out sheet at each check.
absl::Status TrainAdapter(const AdapterRecipe& recipe, const TrainOptions& options);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_TRAINER_H_
