#ifndef UPDRAFT_DEPLOY_TRAIN_ENCODER_H_
#define UPDRAFT_DEPLOY_TRAIN_ENCODER_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "common/text/byte_bpe.h"
#include "deploy/train/bpe_trainer.h"
#include "deploy/train/cockpit/example.h"

namespace updraft::train {

// The chat template of the models that this trainer makes (ChatML without a system prompt), as stored in their files.
extern const char* const kChatTemplate;

// One example as the model sees it: the answer is learned, or what has a weight.
struct Sequence {
  std::vector<int32_t> tokens;
  int32_t answer_begin = 0;    // first token of the last answer
  int32_t settings_end = 0;    // first token after what counts: where "say" begins
  std::vector<float> weights;  // of each token's loss, given those before it; empty: 1 in the answer, else 0
  cockpit::Family family = cockpit::Family::kSlot;
  int group = 0;  // a mark of whoever made it

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
};

// Encodes conversations. Not thread-safe: it remembers the pieces that it has met.
class Encoder {
 public:
  static absl::StatusOr<Encoder> Create(BpeVocabulary vocabulary);

  const BpeVocabulary& vocabulary() const { return vocabulary_; }
  void AppendText(std::string_view text, std::vector<int32_t>* tokens);
  Sequence EncodeExample(const cockpit::Example& example);

 private:
  BpeVocabulary vocabulary_;
  text::BpeMerger merger_;
  std::unordered_map<std::string, std::vector<int32_t>> cache_;
};

// What the tokenizer is learned from: `examples` of the training stream, and what people wrote.
PieceCounts CountPieces(uint64_t seed, int examples, std::span<const cockpit::Example> written = {});

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ENCODER_H_
