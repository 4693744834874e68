#include "common/text/tokenizer_builder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/text/field_hasher.h"

namespace updraft::text {
namespace {

// Far above the longest token of published vocabularies (a few hundred bytes); bounds the work per byte of text.
constexpr size_t kMaxTokenBytes = 4096;

// Markers of the chat formats. Files exist that call some of them normal or user-defined, which would let users write
// them; these are control tokens in any file.
constexpr std::string_view kMarkers[] = {
    "<s>",
    "</s>",
    "<bos>",
    "<eos>",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "<EOT>",
    "<\uFF5Cbegin\u2581of\u2581sentence\uFF5C>",
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
};

constexpr std::string_view kEndMarkers[] = {
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>",
    "<|eot_id|>", "<|eom_id|>",    "<end_of_turn>",
    "<|end|>",    "<EOT>",         "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
};

// Models whose special tokens swallow the space after them, these excepted (tokenizer.json of Phi-3, "rstrip").
constexpr std::string_view kNeverStripAfter[] = {"<unk>", "<s>", "<|endoftext|>"};

bool LooksLikeMarker(std::string_view text) {
  return text.size() > 2 &&
         ((text.front() == '<' && text.back() == '>') || (text.front() == '[' && text.back() == ']'));
}

// <0x41>
std::optional<uint8_t> ByteOfName(std::string_view name) {
  if (name.size() != 6 || name.substr(0, 3) != "<0x" || name[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : name.substr(3, 2)) {
    int digit;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (c >= 'A' && c <= 'F') {
      digit = c - 'A' + 10;
    } else if (c >= 'a' && c <= 'f') {
      digit = c - 'a' + 10;
    } else {
      return std::nullopt;
    }
    value = value * 16 + digit;
  }
  return static_cast<uint8_t>(value);
}

// A SentencePiece token with a space after something that is none.
bool HasInnerSpace(std::string_view token) {
  constexpr std::string_view kSpaceMark = "\u2581";
  for (size_t at = token.find(kSpaceMark, 1); at != token.npos; at = token.find(kSpaceMark, at + 1)) {
    if (!token.substr(0, at).ends_with(kSpaceMark)) return true;
  }
  return false;
}

// A token or merge in a message: cut short, and safe to print.
std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text.substr(0, 40)) {
    const auto byte = static_cast<uint8_t>(c);
    quoted += byte >= 0x20 && byte < 0x7F ? std::string(1, c) : absl::StrFormat("\\x%02X", static_cast<unsigned>(byte));
  }
  return quoted + (text.size() > 40 ? "...'" : "'");
}

}  // namespace

bool IsLlama3Family(std::string_view pre) {
  for (const std::string_view name : {"llama3", "llama-v3", "llama-bpe", "falcon3", "tekken"}) {
    if (pre == name) return true;
  }
  return false;
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> TokenizerBuilder::Build() {
  made_->model_ = parts_.model;
  made_->warnings_ = parts_.warnings;
  made_->byte_ids_.fill(-1);
  for (const auto step : {&TokenizerBuilder::CheckSizes, &TokenizerBuilder::CheckIds}) {
    if (absl::Status done = (this->*step)(); !done.ok()) return done;
  }
  SetTypes();
  for (const auto step :
       {&TokenizerBuilder::IndexTexts, &TokenizerBuilder::StoreTokens, &TokenizerBuilder::BuildMerges}) {
    if (absl::Status done = (this->*step)(); !done.ok()) return done;
  }
  BuildMatchers();
  SetEndOfGeneration();
  if (absl::Status done = SetFingerprint(); !done.ok()) return done;
  return std::shared_ptr<const Tokenizer>(std::move(made_));
}

absl::Status TokenizerBuilder::CheckSizes() const {
  const size_t n = parts_.tokens.size();
  if (n == 0) return absl::InvalidArgumentError("tokenizer.ggml.tokens: expected at least one token, found none");
  if (n > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(absl::StrFormat("tokenizer.ggml.tokens: expected fewer than 2^31, found %u", n));
  }
  const auto check = [n](const char* key, size_t found) {
    if (found == 0 || found == n) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: expected one for each of the %u tokens, found %u; the file is damaged", key, n, found));
  };
  if (absl::Status ok = check("tokenizer.ggml.token_type", parts_.types.size()); !ok.ok()) return ok;
  if (absl::Status ok = check("tokenizer.ggml.scores", parts_.scores.size()); !ok.ok()) return ok;
  size_t bytes = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t size = parts_.tokens[i].size();
    if (size > kMaxTokenBytes) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.tokens[%u]: expected at most %u bytes, found %u (%s)", i, kMaxTokenBytes,
                          size, Quoted(parts_.tokens[i])));
    }
    bytes += size;
  }
  if (bytes > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("tokenizer.ggml.tokens: expected less than 4 GiB of text, found %u bytes", bytes));
  }
  for (size_t i = 0; i < parts_.types.size(); ++i) {
    const auto type = static_cast<int32_t>(parts_.types[i]);
    if (type < 0 || type > 6) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.token_type[%u]: expected 0 to 6, found %d", i, type));
    }
  }
  for (size_t i = 0; i < parts_.scores.size(); ++i) {
    if (!std::isfinite(parts_.scores[i])) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.scores[%u]: expected a finite number, found %g", i, parts_.scores[i]));
    }
  }
  return absl::OkStatus();
}

absl::Status TokenizerBuilder::CheckIds() const {
  const std::pair<const char*, std::optional<int32_t>> ids[] = {
      {"bos", parts_.bos_id}, {"eos", parts_.eos_id},     {"eot", parts_.eot_id},
      {"eom", parts_.eom_id}, {"unknown", parts_.unk_id}, {"padding", parts_.pad_id},
  };
  const size_t n = parts_.tokens.size();
  for (const auto& [name, id] : ids) {
    if (id && (*id < 0 || static_cast<size_t>(*id) >= n)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.%s_token_id: expected an id in [0, %u), found %d", name, n, *id));
    }
  }
  if (parts_.add_bos && !parts_.bos_id) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_bos_token: true, but the file names no tokenizer.ggml.bos_token_id");
  }
  if (parts_.add_eos && !parts_.eos_id) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_eos_token: true, but the file names no tokenizer.ggml.eos_token_id");
  }
  made_->bos_id_ = parts_.bos_id;
  made_->eos_id_ = parts_.eos_id;
  made_->eot_id_ = parts_.eot_id;
  made_->unk_id_ = parts_.unk_id;
  made_->pad_id_ = parts_.pad_id;
  made_->add_bos_ = parts_.add_bos;
  made_->add_eos_ = parts_.add_eos;
  made_->add_space_prefix_ = parts_.add_space_prefix && parts_.model == TokenizerModel::kSentencePieceBpe;
  return absl::OkStatus();
}

void TokenizerBuilder::SetTypes() {
  std::vector<TokenType>& types = made_->types_;
  types = parts_.types;
  types.resize(parts_.tokens.size(), TokenType::kNormal);
  for (size_t i = 0; i < types.size(); ++i) {
    if (std::find(std::begin(kMarkers), std::end(kMarkers), parts_.tokens[i]) != std::end(kMarkers)) {
      types[i] = TokenType::kControl;
    }
  }
  for (const std::optional<int32_t>& id : {parts_.bos_id, parts_.eos_id, parts_.eot_id, parts_.eom_id}) {
    if (id && types[*id] == TokenType::kNormal && LooksLikeMarker(parts_.tokens[*id])) types[*id] = TokenType::kControl;
  }
  if (parts_.unk_id && types[*parts_.unk_id] == TokenType::kNormal && LooksLikeMarker(parts_.tokens[*parts_.unk_id])) {
    types[*parts_.unk_id] = TokenType::kUnknown;
  }
}

absl::Status TokenizerBuilder::IndexTexts() {
  file_ids_.reserve(parts_.tokens.size());
  for (int32_t id = 0; id < made_->vocab_size(); ++id) {
    // Published files pad their vocabularies with empty and unused tokens; no text becomes one of these.
    if (parts_.tokens[id].empty() || made_->types_[id] == TokenType::kUnused) continue;
    const auto [it, fresh] = file_ids_.try_emplace(parts_.tokens[id], id);
    if (!fresh) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.tokens: expected distinct tokens, found %s at both %d and %d; convert the "
                          "model again",
                          Quoted(parts_.tokens[id]), it->second, id));
    }
  }
  return absl::OkStatus();
}

std::optional<int32_t> TokenizerBuilder::Find(std::string_view text) const {
  const auto it = file_ids_.find(text);
  return it == file_ids_.end() ? std::nullopt : std::optional<int32_t>(it->second);
}

bool TokenizerBuilder::FromText(int32_t id) const {
  return made_->types_[id] == TokenType::kNormal || made_->types_[id] == TokenType::kUserDefined;
}

absl::Status TokenizerBuilder::StoreTokens() {
  const bool byte_level = parts_.model == TokenizerModel::kByteLevelBpe;
  for (int32_t id = 0; id < made_->vocab_size(); ++id) {
    const std::string& text = parts_.tokens[id];
    TokenType& type = made_->types_[id];
    if (type == TokenType::kByte) {
      const std::optional<uint8_t> byte = ByteOfName(text);
      if (!byte) {
        return absl::InvalidArgumentError(
            absl::StrFormat("tokenizer.ggml.tokens[%d]: a byte token, expected a name from <0x00> to <0xFF>, found %s",
                            id, Quoted(text)));
      }
      made_->arena_.push_back(static_cast<char>(*byte));
    } else if (byte_level && type == TokenType::kNormal) {
      // Added tokens that a converter called normal are not in the printable alphabet: they stand for themselves.
      const std::optional<std::string> bytes = BytesOfPrintable(text);
      made_->arena_ += bytes ? *bytes : text;
    } else {
      made_->arena_ += text;
    }
    made_->ends_.push_back(static_cast<uint32_t>(made_->arena_.size()));
  }
  SetByteIds();

  made_->whole_pieces_first_ = byte_level && IsLlama3Family(parts_.pre);
  if (byte_level && !made_->whole_pieces_first_) return absl::OkStatus();
  made_->words_apart_ = !byte_level;
  for (int32_t id = 0; id < made_->vocab_size(); ++id) {
    const std::string_view stored = made_->Stored(id);
    if (stored.empty() || !FromText(id)) continue;
    made_->text_ids_.try_emplace(stored, id);
    made_->longest_token_bytes_ = std::max(made_->longest_token_bytes_, stored.size());
    made_->words_apart_ = made_->words_apart_ && !HasInnerSpace(stored);
  }
  if (!byte_level) {
    made_->scores_ = parts_.scores;
    made_->scores_.resize(parts_.tokens.size(), 0.0f);
  }
  return absl::OkStatus();
}

void TokenizerBuilder::SetByteIds() {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string raw(1, static_cast<char>(byte));
    std::optional<int32_t> id;
    if (parts_.model == TokenizerModel::kByteLevelBpe) {
      id = Find(PrintableOfBytes(raw));
      if (id && !FromText(*id)) id.reset();
    } else {
      id = Find(absl::StrFormat("<0x%02X>", byte));
      // Vocabularies without byte tokens may have the byte as a token.
      if (!id || made_->types_[*id] != TokenType::kByte) id = Find(raw);
      if (id && !FromText(*id) && made_->types_[*id] != TokenType::kByte) id.reset();
    }
    made_->byte_ids_[byte] = id.value_or(-1);
  }
}

absl::Status TokenizerBuilder::BuildMerges() {
  if (parts_.model != TokenizerModel::kByteLevelBpe) return absl::OkStatus();
  const std::optional<PreTokenizer> pre = PreTokenizerByName(parts_.pre);
  if (!pre) {
    return absl::UnimplementedError(absl::StrFormat(
        "tokenizer.ggml.pre: no pre-tokenizer named %s is known; known are gpt-2, llama-bpe, qwen2, tekken, gpt-4o, "
        "starcoder, refact, command-r, smollm, mpt, falcon, deepseek-llm, deepseek-coder and default",
        Quoted(parts_.pre)));
  }
  made_->pre_ = *pre;
  merges_.reserve(parts_.merges.size());
  std::string joined;
  for (size_t i = 0; i < parts_.merges.size(); ++i) {
    const std::string_view merge = parts_.merges[i];
    // The left part is not empty, and may itself begin with a space in vocabularies that are not byte-level throughout.
    const size_t space = merge.find(' ', 1);
    if (space == merge.npos || space + 1 == merge.size()) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "tokenizer.ggml.merges[%u]: expected two tokens with a space between, found %s", i, Quoted(merge)));
    }
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    joined.assign(left).append(right);
    const std::optional<int32_t> ids[] = {Find(left), Find(right), Find(joined)};
    const std::string_view texts[] = {left, right, joined};
    for (int k = 0; k < 3; ++k) {
      if (ids[k]) continue;
      return absl::InvalidArgumentError(
          absl::StrFormat("tokenizer.ggml.merges[%u]: %s is no token of tokenizer.ggml.tokens (merge %s); the file is "
                          "damaged",
                          i, Quoted(texts[k]), Quoted(merge)));
    }
    if (!FromText(*ids[2])) continue;
    merges_.push_back({*ids[0], *ids[1], *ids[2]});
  }
  absl::StatusOr<BpeMerger> merger = BpeMerger::Create(merges_);
  if (!merger.ok()) return merger.status();
  made_->merger_ = *std::move(merger);
  return absl::OkStatus();
}

void TokenizerBuilder::BuildMatchers() {
  for (int32_t id = 0; id < made_->vocab_size(); ++id) {
    const TokenType type = made_->types_[id];
    const std::string_view text = made_->Stored(id);
    const bool special = type == TokenType::kControl || type == TokenType::kUserDefined || type == TokenType::kUnknown;
    if (!special || text.empty()) continue;
    if (type == TokenType::kUserDefined) made_->user_defined_.Add(text, id);
    made_->all_special_.Add(text, id);
    const bool never =
        std::find(std::begin(kNeverStripAfter), std::end(kNeverStripAfter), text) != std::end(kNeverStripAfter);
    if (parts_.strip_after_special && !never) made_->strip_after_.insert(id);
  }
}

void TokenizerBuilder::SetEndOfGeneration() {
  for (const std::optional<int32_t>& id : {parts_.eos_id, parts_.eot_id, parts_.eom_id}) {
    if (id) made_->end_of_generation_.insert(*id);
  }
  for (const std::string_view marker : kEndMarkers) {
    if (const std::optional<int32_t> id = Find(marker)) made_->end_of_generation_.insert(*id);
  }
  for (const char* marker : {"<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"}) {
    if (!made_->eot_id_) made_->eot_id_ = Find(marker);
  }
}

absl::Status TokenizerBuilder::SetFingerprint() {
  FieldHasher hash;
  hash.Add("updraft tokenizer 1");
  hash.Add(static_cast<int64_t>(made_->model_));
  hash.Add(static_cast<int64_t>(made_->pre_));
  for (const bool flag : {made_->add_bos_, made_->add_eos_, made_->add_space_prefix_, made_->whole_pieces_first_,
                          parts_.strip_after_special}) {
    hash.Add(static_cast<int64_t>(flag));
  }
  for (const std::optional<int32_t>& id :
       {parts_.bos_id, parts_.eos_id, parts_.eot_id, parts_.eom_id, parts_.unk_id, parts_.pad_id}) {
    hash.Add(static_cast<int64_t>(id.value_or(-1)));
  }
  hash.Add(static_cast<int64_t>(parts_.tokens.size()));
  for (size_t i = 0; i < parts_.tokens.size(); ++i) {
    hash.Add(parts_.tokens[i]);
    hash.Add(static_cast<int64_t>(made_->types_[i]));
  }
  hash.Add(static_cast<int64_t>(made_->scores_.size()));
  for (const float score : made_->scores_) {
    hash.Add(static_cast<int64_t>(std::bit_cast<uint32_t>(score == 0 ? 0.0f : score)));  // -0 is 0
  }
  hash.Add(static_cast<int64_t>(merges_.size()));
  for (const BpeMerge& merge : merges_) {
    hash.Add(static_cast<int64_t>(merge.left));
    hash.Add(static_cast<int64_t>(merge.right));
  }
  absl::StatusOr<std::string> fingerprint = hash.Finish();
  if (!fingerprint.ok()) return fingerprint.status();
  made_->fingerprint_ = *std::move(fingerprint);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromParts(const TokenizerParts& parts) {
  return TokenizerBuilder(parts).Build();
}

}  // namespace updraft::text
