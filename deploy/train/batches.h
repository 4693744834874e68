#ifndef UPDRAFT_DEPLOY_TRAIN_BATCHES_H_
#define UPDRAFT_DEPLOY_TRAIN_BATCHES_H_

#include <cstdint>
#include <vector>

#include "deploy/train/cockpit/generator.h"
#include "deploy/train/cockpit/line_variation.h"
#include "deploy/train/encoder.h"

namespace updraft::train {

// Sequences of about one length, to be padded to the longest.
using Batch = std::vector<Sequence>;

// Cuts sequences, sorted by length, into batches of at most `batch_tokens` tokens, padding counted.
std::vector<Batch> CutBatches(std::vector<Sequence> sequences, int batch_tokens);

// Requests that people wrote, drawn beside the generated ones.
struct WrittenShare {
  const cockpit::LineVariation* lines = nullptr;  // outlives the stream; null: none
  double share = 0;                               // of the stream's examples, 0 to 1
  cockpit::VariationShares vary = {};
};

// The training stream in batches. A pool of examples is drawn, sorted by length and cut; its batches come in random
// order. The place in the stream is two numbers, so that a run can go on exactly where it stopped.
class BatchStream {
 public:
  // Examples of more than max_tokens tokens (the model's context) are left out.
  BatchStream(uint64_t seed, const cockpit::FamilyMix& mix, int batch_tokens, int max_tokens, Encoder* encoder,
              const WrittenShare& written = {});

  // Throws std::runtime_error when no example fits.
  Batch Next();

  struct Place {
    uint64_t generator_state = 0;  // where the current pool began
    int64_t generator_count = 0;
    int64_t batches_taken = 0;  // of the current pool
  };
  Place place() const { return {pool_state_, pool_count_, taken_}; }
  void Restore(const Place& place);

 private:
  void FillPool();
  Sequence DrawWritten(cockpit::Random* draws);

  cockpit::Generator generator_;
  WrittenShare written_;
  int batch_tokens_;
  size_t max_tokens_;
  Encoder* encoder_;
  uint64_t pool_state_ = 0;
  int64_t pool_count_ = 0;
  int64_t taken_ = 0;
  std::vector<Batch> pool_;
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_BATCHES_H_
