#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_RECIPE_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_RECIPE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/train/cockpit/generator.h"
#include "deploy/train/cockpit/line_variation.h"

namespace updraft::train {

// A low-rank adapter (Hu et al. 2021, arXiv:2106.09685): the base's product W x becomes W x + alpha / rank * B A x.
struct LoraShape {
  int rank = 16;
  double alpha = 0;                  // 0: twice the rank
  std::vector<std::string> targets;  // GGUF names within a block ("attn_q"); empty: all seven linear layers

  double scale() const { return alpha / rank; }
};

// A recipe with a "base": what `updraft train --recipe` reads to train an adapter over a published model.
struct AdapterRecipe {
  std::string name;
  uint64_t seed = 1;
  std::string base;          // GGUF; relative to the recipe's folder
  std::string base_sha256;   // of that file; empty: any
  std::string init_adapter;  // LoRA GGUF to start from; empty: A random, B zero
  LoraShape adapter;

  // How long: `updates`, or `minutes` of training; one of the two is 0. The rate rises for `warmup` of it, stays, and
  // falls to `final_rate` of itself over the last `decay`.
  int64_t updates = 0;
  double minutes = 0;
  double warmup = 0.02, decay = 0.5, final_rate = 0.02;
  double learning_rate = 1e-3;
  double weight_decay = 0;
  double clip = 1.0;
  int batch_tokens = 1024;  // of a batch, padding counted
  int batches = 4;          // per update; they differ in length, and threads take them side by side
  int max_tokens = 512;     // longer examples are left out

  // Weights of the loss: 1 for what counts in an answer.
  double reply_weight = 0.3;     // for "say" and the end of the answer
  double question_share = 0.25;  // of the examples are learned with their question,
  double question_weight = 0.1;  // each of its tokens counting so much

  // Data. A sheet is a JSONL file of `sheet_folder` (cockpit/written/README.md), named without its ending.
  std::string sheet_folder;                         // relative to the recipe's folder
  std::vector<std::pair<std::string, int>> sheets;  // and how often each of its lines stands in a round
  std::vector<std::string> held_out;                // sheets that measure
  cockpit::VariationShares vary;                    // how written requests are varied
  double generated_share = 0.3;                     // of the examples; of all when there are no sheets
  double english_share = 0.5;                       // of the generated ones
  cockpit::FamilyMix mix = {1, 1, 1, 1, 0, 1};      // families of the generated ones; no arithmetic

  int check_examples = 40;  // per held-out sheet, and of generated ones, at each check; all at the end
  int check_seconds = 600;
  int checkpoint_seconds = 240;
  std::string text;  // the JSON itself, for the fingerprint in the file
};

// Whether the JSON text is a recipe of this kind: an object that has "base".
bool IsAdapterRecipe(std::string_view json);

// Every field is checked; an unknown one is refused by name.
absl::StatusOr<AdapterRecipe> ParseAdapterRecipe(std::string_view json);
// With paths resolved.
absl::StatusOr<AdapterRecipe> ReadAdapterRecipe(const std::string& path);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_RECIPE_H_
