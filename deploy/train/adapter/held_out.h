#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_HELD_OUT_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_HELD_OUT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/train/adapter/adapted_model.h"
#include "deploy/train/adapter/chat_encoder.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/adapter/sheets.h"
#include "deploy/train/batches.h"

namespace updraft::train {

// One row of examples as tensors; what has no weight is not selected.
LossBatch ToLossBatch(const Batch& batch, int32_t padding);
// The same for what counts in the answers alone, each with weight 1.
LossBatch ToAnswerBatch(const Batch& batch, int32_t padding);

// Requests that training never sees: one pass tells which of them greedy decoding would answer exactly, since it does
// when every token of the settings is the likeliest after those before it.
class HeldOut {
 public:
  // The held-out sheets of the recipe, and as many generated requests of the calibration side as one sheet has at most.
  static absl::StatusOr<HeldOut> Create(const AdapterRecipe& recipe, const ChatEncoder& encoder);

  // "exact en9 61.2 (49/80) zh4 ...; direct 70.0 ...; written 58.1, generated 80.0". per_set: the first so many of
  // each; 0: all.
  std::string Run(const AdaptedModel& model, int per_set, int workers) const;

 private:
  struct Item {
    Sequence sequence;
    std::string kind;  // empty: generated
  };
  struct Set {
    std::string name;
    std::vector<Item> items;
  };
  struct Count {
    int right = 0, all = 0;
  };

  std::vector<Set> sets_;
  int batch_tokens_ = 0;
  int32_t padding_ = 0;
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_HELD_OUT_H_
