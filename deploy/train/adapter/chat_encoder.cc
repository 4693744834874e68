#include "deploy/train/adapter/chat_encoder.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

namespace updraft::train {
namespace {

constexpr std::string_view kBeforeReply = ",\"say\":\"";
constexpr std::string_view kNoReply = ",\"say\":\"\"}";

}  // namespace

absl::StatusOr<ChatEncoder> ChatEncoder::Create(std::shared_ptr<const text::Tokenizer> tokenizer) {
  absl::StatusOr<text::ChatTemplate> chat = text::ChatTemplate::FromJinja(kChatTemplate);
  if (!chat.ok()) return chat.status();
  ChatEncoder encoder(std::move(tokenizer), *std::move(chat));
  const auto begin = encoder.tokenizer_->SpecialTokenId("<|im_start|>");
  const auto end = encoder.tokenizer_->SpecialTokenId("<|im_end|>");
  if (!begin || !end) return absl::UnimplementedError("the tokenizer has no <|im_start|> and <|im_end|>");
  encoder.begin_ = *begin;
  encoder.end_ = *end;
  return encoder;
}

absl::StatusOr<Sequence> ChatEncoder::Encode(const cockpit::Example& example, const LossWeights& weights) const {
  std::vector<text::ChatMessage> messages;
  for (const cockpit::ChatTurn& turn : example.turns) messages.push_back({turn.role, turn.content});
  absl::StatusOr<std::vector<int32_t>> prompt = chat_.RenderTokens(*tokenizer_, {.messages = messages});
  if (!prompt.ok()) return prompt.status();
  const size_t border = example.answer.rfind(kBeforeReply);
  if (border == std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("answer without \"say\" at its end: ", example.answer));
  }
  const bool replies = !std::string_view(example.answer).ends_with(kNoReply);
  const std::string_view answer =
      std::string_view(example.answer).substr(0, replies ? std::string::npos : border + kBeforeReply.size());
  absl::StatusOr<std::vector<int32_t>> told = tokenizer_->Encode(answer, {.add_special = false});
  if (!told.ok()) return told.status();
  Sequence sequence;
  sequence.family = example.family;
  sequence.tokens = *std::move(prompt);
  sequence.answer_begin = sequence.length();
  sequence.tokens.insert(sequence.tokens.end(), told->begin(), told->end());
  // What counts ends with the word "say": a token before it may be shared with a further field.
  size_t bytes = 0;
  sequence.settings_end = sequence.answer_begin;
  while (sequence.settings_end < sequence.length() && bytes < border + kBeforeReply.size() - 2) {
    bytes += tokenizer_->TokenBytes(sequence.tokens[sequence.settings_end++]).size();
  }
  if (replies) sequence.tokens.push_back(end_);
  sequence.weights.assign(sequence.tokens.size(), 0);
  std::fill(sequence.weights.begin() + sequence.answer_begin, sequence.weights.begin() + sequence.settings_end, 1.0f);
  std::fill(sequence.weights.begin() + sequence.settings_end, sequence.weights.end(), weights.reply);
  if (weights.question > 0) {
    // <|im_start|>user\n ... <|im_end|>, the last one before <|im_start|>assistant.
    const auto stop = std::find(sequence.tokens.rend() - sequence.answer_begin, sequence.tokens.rend(), end_).base();
    const auto start = std::find(std::make_reverse_iterator(stop), sequence.tokens.rend(), begin_).base();
    const auto header = tokenizer_->Encode("user\n", {.add_special = false});
    if (!header.ok()) return header.status();
    for (auto at = start + static_cast<int64_t>(header->size()); at < stop; ++at) {
      sequence.weights[static_cast<size_t>(at - sequence.tokens.begin())] = weights.question;
    }
  }
  return sequence;
}

}  // namespace updraft::train
