#include "common/answer/assembler.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace updraft {

AnswerAssembler::AnswerAssembler(std::unique_ptr<TextStream> text, AssemblerOptions options)
    : text_(std::move(text)), options_(std::move(options)), stops_(options_.stops) {}

bool AnswerAssembler::IsEndToken(int32_t token) const {
  return std::find(options_.stop_tokens.begin(), options_.stop_tokens.end(), token) != options_.stop_tokens.end();
}

std::string AnswerAssembler::TextOf(int32_t token) {
  if (text_ == nullptr) return "";
  const std::string text = text_->Push(token);
  stream_bytes_ += text.size();
  return stops_.Push(text);
}

AnswerEnd AnswerAssembler::Resume(const AnswerSoFar& so_far) {
  assert(n_tokens_ == 0 && end_ == AnswerEnd::kOpen);
  AnswerEnd end = AnswerEnd::kOpen;
  // The text stream and the stop strings see the whole answer; what the reader has is dropped again.
  const auto n_prefix = static_cast<size_t>(std::max(so_far.n_prefix_tokens, 0));
  for (size_t i = 0; i < so_far.tokens.size() && end == AnswerEnd::kOpen; ++i) {
    if (IsEndToken(so_far.tokens[i])) end = AnswerEnd::kStop;
    if (end == AnswerEnd::kOpen) pending_ += TextOf(so_far.tokens[i]);
    if (stops_.stopped()) end = AnswerEnd::kStop;
    if (i < n_prefix) prefix_bytes_ = pending_.size();
  }
  skip_bytes_ = so_far.given_bytes ? prefix_bytes_ + *so_far.given_bytes : pending_.size();
  n_tokens_ = static_cast<int>(so_far.tokens.size());
  if (end == AnswerEnd::kOpen && n_tokens_ >= options_.max_tokens) end = AnswerEnd::kLength;
  return end;
}

AnswerPiece AnswerAssembler::Push(int32_t token, std::optional<TokenEvidence> evidence) {
  assert(end_ == AnswerEnd::kOpen);
  AnswerPiece piece;
  if (IsEndToken(token)) {
    End(AnswerEnd::kStop, piece);
    return piece;
  }
  ++n_tokens_;
  piece.token = token;
  piece.evidence = std::move(evidence);
  piece.text_offset = stream_bytes_ - std::min(stream_bytes_, prefix_bytes_);
  if (piece.evidence) piece.evidence->text_offset = static_cast<uint32_t>(piece.text_offset);
  Give(TextOf(token), piece);
  if (stops_.stopped()) {
    End(AnswerEnd::kStop, piece);
  } else if (n_tokens_ >= options_.max_tokens) {
    End(AnswerEnd::kLength, piece);
  }
  return piece;
}

AnswerPiece AnswerAssembler::Close(AnswerEnd end) {
  assert(end_ == AnswerEnd::kOpen && end != AnswerEnd::kOpen);
  AnswerPiece piece;
  End(end, piece);
  return piece;
}

void AnswerAssembler::Give(std::string text, AnswerPiece& piece) {
  pending_ += text;
  const size_t skip = std::min(skip_bytes_, pending_.size());
  skip_bytes_ -= skip;
  piece.text += pending_.substr(skip);
  pending_.clear();
}

void AnswerAssembler::End(AnswerEnd end, AnswerPiece& piece) {
  std::string rest;
  if (text_ != nullptr) {
    rest = stops_.Push(text_->Flush());
    rest += stops_.Flush();
  }
  Give(std::move(rest), piece);
  end_ = stops_.stopped() ? AnswerEnd::kStop : end;
  piece.end = end_;
}

}  // namespace updraft
