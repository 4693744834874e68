#ifndef UPDRAFT_DEPLOY_TRAIN_ADAPTER_CHAT_ENCODER_H_
#define UPDRAFT_DEPLOY_TRAIN_ADAPTER_CHAT_ENCODER_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "deploy/train/cockpit/example.h"
#include "deploy/train/encoder.h"

namespace updraft::train {

// What of an example is learned beside the answer's settings, which count 1.
struct LossWeights {
  float reply = 1;     // "say" and the end of the answer
  float question = 0;  // the user's last message
};

// Conversations as tokens of a published model: the chat template of this trainer's own models (kChatTemplate), so that
// all tiers see one prompt. The published template would put a system message of 20 tokens before every request.
class ChatEncoder {
 public:
  static absl::StatusOr<ChatEncoder> Create(std::shared_ptr<const text::Tokenizer> tokenizer);

  // An answer whose "say" is empty (written requests have none) ends where the reply would begin: nothing is learned of
  // how it goes on. INVALID_ARGUMENT for an answer that is not of the agreed form.
  absl::StatusOr<Sequence> Encode(const cockpit::Example& example, const LossWeights& weights) const;

  int32_t end() const { return end_; }  // <|im_end|>

 private:
  ChatEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, text::ChatTemplate chat)
      : tokenizer_(std::move(tokenizer)), chat_(std::move(chat)) {}

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  text::ChatTemplate chat_;
  int32_t begin_ = 0, end_ = 0;
};

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_ADAPTER_CHAT_ENCODER_H_
