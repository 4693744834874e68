#ifndef UPDRAFT_DEPLOY_TRAIN_RECIPE_H_
#define UPDRAFT_DEPLOY_TRAIN_RECIPE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/train/cockpit/generator.h"
#include "deploy/train/cockpit/line_variation.h"

namespace updraft::train {

enum class WeightType { kF32, kF16, kQ8_0, kQ4_0 };

struct ModelShape {
  int layers = 0;
  int width = 0;         // d_model
  int heads = 0;         // query heads
  int kv_heads = 0;      // divides heads
  int feed_forward = 0;  // inner width
  int context = 1024;    // tokens
  double rope_base = 10000;
  double norm_epsilon = 1e-5;
  std::vector<int> exits;  // layer counts after which an exit reads the residual stream

  int head() const { return width / heads; }
};

// One stretch of training: warm-up, constant rate, linear decay to nothing at the end.
struct TrainStep {
  std::string name;
  int64_t tokens = 0;  // padding not counted
  int64_t warmup_tokens = 0;
  int64_t decay_tokens = 0;
  int batch_tokens = 4096;  // of a batch, padding counted
  int batches = 1;          // per update; they differ in length, and threads take them side by side
  double learning_rate = 0;
  double weight_decay = 0.05;
  double clip = 1.0;
  double distill = 0;                      // share of the teacher's soft labels in the loss, 0 to 1
  double temperature = 1;                  // of the soft labels
  double exit_weight = 0;                  // of each exit's loss, beside 1 for the final one
  double written = 0;                      // share of the examples that comes from the recipe's sheets, 0 to 1
  cockpit::VariationShares vary;           // how those are varied
  WeightType matrices = WeightType::kF32;  // what the weights are rounded to while training
  WeightType embedding = WeightType::kF32;
  cockpit::FamilyMix mix = cockpit::kEvenMix;
};

// A whole training run: what `updraft train --recipe` reads.
struct Recipe {
  std::string name;
  uint64_t seed = 1;
  int vocabulary = 0;  // tokens to learn; a teacher brings its own; a file to start from, too, which more tokens
                       // than it has extend by whole characters
  int tokenizer_examples = 0;  // of the training stream
  std::string teacher;         // GGUF; relative to the recipe's folder
  std::string init_from;       // GGUF to start from: same shape, or larger (then layers and rows are taken from it)
  // Share of the start's weights in those that are written, the rest being the trained ones: what the start knew and
  // the new data lack is kept (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). For a start of
  // the same shape.
  double keep_start = 0;
  std::string keep_from;     // GGUF whose weights those are, of the same shape and descent; empty: init_from's
  std::string sheet_folder;  // relative to the recipe's folder
  std::vector<std::pair<std::string, int>> sheets;  // written requests: name, and how often each line counts
  ModelShape model;
  std::vector<TrainStep> steps;
  WeightType file_matrices = WeightType::kF16;
  WeightType file_embedding = WeightType::kF16;
  std::vector<double> exit_thresholds;  // top probability at which a token may leave, one per exit
  int check_examples = 240;             // held-out, per check
  int check_seconds = 180;
  int checkpoint_seconds = 180;
  std::string text;  // the JSON itself, for the fingerprint in the file
};

// Every field is checked; an unknown one is refused by name.
absl::StatusOr<Recipe> ParseRecipe(std::string_view json);
absl::StatusOr<Recipe> ReadRecipe(const std::string& path);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_RECIPE_H_
