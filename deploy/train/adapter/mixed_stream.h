#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_MIXED_STREAM_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_MIXED_STREAM_H_

#include <cstdint>
#include <vector>

#include "deploy/train/adapter/chat_encoder.h"
#include "deploy/train/adapter/recipe.h"
#include "deploy/train/adapter/sheets.h"
#include "deploy/train/batches.h"

namespace updraft::train {

// The training stream of an adapter in batches: written requests in rounds (each line as often as its sheet says, in an
// order of the round's own) and generated ones, pool by pool, each pool sorted by length and cut. Written ones are
// varied as the recipe says. A pool depends on the recipe's seed and its own number alone, so that the place in the
// stream is two numbers.
class MixedStream {
 public:
  // Keeps references to recipe and encoder. Examples of more than recipe.max_tokens tokens are left out.
  MixedStream(const AdapterRecipe& recipe, const std::vector<Sheet>& sheets, const ChatEncoder& encoder);

  // Throws std::runtime_error when no example fits, or one cannot be encoded.
  Batch Next();

  struct Place {
    int64_t pool = 0;
    int64_t taken = 0;  // batches of it
  };
  Place place() const { return place_; }
  void Restore(const Place& place);

  double rounds() const;                          // of the written requests, so far
  int64_t left_out() const { return left_out_; }  // too long

 private:
  void FillPool();
  const cockpit::Example& Written(int64_t draw);
  void Add(const cockpit::Example& example, uint64_t draw, std::vector<Sequence>* sequences);

  const AdapterRecipe& recipe_;
  const ChatEncoder& encoder_;
  const std::vector<cockpit::Example> lines_;  // one round, in the order of the sheets
  const cockpit::LineVariation variation_;     // of lines_
  std::vector<uint32_t> round_;                // places in lines_, in the order of round_number_
  int64_t round_number_ = -1;
  int64_t written_per_pool_ = 0;
  int64_t left_out_ = 0;
  Place place_;
  std::vector<Batch> pool_;
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_MIXED_STREAM_H_
