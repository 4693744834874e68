#include "common/text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/text/score_bpe.h"

namespace updraft::text {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";  // how SentencePiece vocabularies write a space

std::string WithSpaceMarks(std::string_view text, bool space_prefix) {
  std::string marked;
  marked.reserve(text.size() + text.size() / 4 + kSpaceMark.size());
  if (space_prefix) marked += kSpaceMark;
  for (const char c : text) {
    if (c == ' ') {
      marked += kSpaceMark;
    } else {
      marked.push_back(c);
    }
  }
  return marked;
}

// Where the next word begins: at the first space mark after something else, or at the end.
size_t NextWord(std::string_view marked) {
  for (size_t at = marked.find(kSpaceMark, 1); at != marked.npos; at = marked.find(kSpaceMark, at + 1)) {
    if (marked.substr(0, at).ends_with(kSpaceMark)) continue;
    return at;
  }
  return marked.size();
}

std::string WithoutSpaceMarks(std::string_view marked) {
  std::string text;
  text.reserve(marked.size());
  for (size_t pos = 0; pos < marked.size();) {
    if (marked.substr(pos, kSpaceMark.size()) == kSpaceMark) {
      text.push_back(' ');
      pos += kSpaceMark.size();
    } else {
      text.push_back(marked[pos++]);
    }
  }
  return text;
}

std::string_view WithoutLeadingSpace(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\n\v\f\r");
  return begin == text.npos ? std::string_view() : text.substr(begin);
}

absl::Status CheckLength(size_t bytes, const EncodeOptions& options) {
  if (bytes <= options.max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("text to tokenize: expected at most %u bytes, found %u; shorten it", options.max_bytes, bytes));
}

}  // namespace

// A token that is already known, or text still to be encoded.
struct Tokenizer::Fragment {
  int32_t id = -1;
  std::string_view text;
};

std::string_view Tokenizer::Stored(int32_t id) const {
  const size_t begin = id == 0 ? 0 : ends_[id - 1];
  return std::string_view(arena_).substr(begin, ends_[id] - begin);
}

std::optional<int32_t> Tokenizer::SpecialTokenId(std::string_view text) const { return all_special_.Exact(text); }

std::string Tokenizer::SpecialText(std::optional<int32_t> id) const {
  std::string text = id ? TokenBytes(*id, /*render_special=*/true) : std::string();
  return SpecialTokenId(text) == id ? text : std::string();
}

std::vector<int32_t> Tokenizer::EndOfGenerationIds() const {
  std::vector<int32_t> ids(end_of_generation_.begin(), end_of_generation_.end());
  std::sort(ids.begin(), ids.end());
  return ids;
}

void Tokenizer::Partition(std::string_view text, bool parse_special, std::vector<Fragment>* fragments) const {
  const SpecialMatcher& matcher = parse_special ? all_special_ : user_defined_;
  size_t plain = 0;
  while (const auto match = matcher.Find(text, plain)) {
    if (plain < match->begin) fragments->push_back({-1, text.substr(plain, match->begin - plain)});
    fragments->push_back({match->id, {}});
    plain = match->end;
  }
  if (plain < text.size()) fragments->push_back({-1, text.substr(plain)});
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  if (const absl::Status fits = CheckLength(text.size(), options); !fits.ok()) return fits;
  std::vector<Fragment> fragments;
  Partition(text, options.parse_special, &fragments);
  std::vector<int32_t> ids;
  if (const absl::Status done = EncodeFragments(fragments, options, &ids); !done.ok()) return done;
  return ids;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeSegments(std::span<const TextSegment> segments,
                                                               const EncodeOptions& options) const {
  size_t bytes = 0;
  for (const TextSegment& segment : segments) bytes += segment.text.size();
  if (const absl::Status fits = CheckLength(bytes, options); !fits.ok()) return fits;

  // Tokens of special segments, with the runs of plain text between them.
  struct Part {
    int32_t id = -1;
    std::string run;
  };
  std::vector<Part> parts;
  const auto append_plain = [&](std::string_view text) {
    if (parts.empty() || parts.back().id >= 0) parts.emplace_back();
    parts.back().run += text;
  };
  std::vector<Fragment> fragments;
  for (const TextSegment& segment : segments) {
    if (!segment.is_special) {
      append_plain(segment.text);
      continue;
    }
    fragments.clear();
    Partition(segment.text, /*parse_special=*/true, &fragments);
    for (const Fragment& fragment : fragments) {
      if (fragment.id >= 0) {
        parts.push_back({fragment.id, {}});
      } else {
        append_plain(fragment.text);
      }
    }
  }
  fragments.clear();
  for (const Part& part : parts) {
    if (part.id >= 0) {
      fragments.push_back({part.id, {}});
    } else {
      Partition(part.run, /*parse_special=*/false, &fragments);
    }
  }
  std::vector<int32_t> ids;
  if (const absl::Status done = EncodeFragments(fragments, options, &ids); !done.ok()) return done;
  return ids;
}

absl::Status Tokenizer::EncodeFragments(std::span<const Fragment> fragments, const EncodeOptions& options,
                                        std::vector<int32_t>* ids) const {
  if (options.add_special && add_bos_) ids->push_back(*bos_id_);
  bool after_special = options.at_text_start;  // the start of a text counts as one
  bool strip = false;
  for (const Fragment& fragment : fragments) {
    if (fragment.id >= 0) {
      ids->push_back(fragment.id);
      after_special = true;
      strip = strip_after_.contains(fragment.id);
      continue;
    }
    const std::string_view text = strip ? WithoutLeadingSpace(fragment.text) : fragment.text;
    if (text.empty()) continue;
    const absl::Status done = model_ == TokenizerModel::kSentencePieceBpe
                                  ? EncodeSentencePiece(text, add_space_prefix_ && after_special, ids)
                                  : EncodePlain(text, ids);
    if (!done.ok()) return done;
    after_special = strip = false;
  }
  if (options.add_special && add_eos_) ids->push_back(*eos_id_);
  return absl::OkStatus();
}

absl::Status Tokenizer::EncodePlain(std::string_view text, std::vector<int32_t>* ids) const {
  std::vector<std::string_view> pieces;
  PreTokenize(pre_, text, &pieces);
  std::vector<int32_t> symbols;
  for (const std::string_view piece : pieces) {
    if (whole_pieces_first_) {
      if (const auto it = text_ids_.find(piece); it != text_ids_.end()) {
        ids->push_back(it->second);
        continue;
      }
    }
    symbols.clear();
    for (const char c : piece) {
      const auto byte = static_cast<uint8_t>(c);
      // A byte without a token merges with nothing; -1 - byte keeps it apart and tells which it was.
      symbols.push_back(byte_ids_[byte] >= 0 ? byte_ids_[byte] : -1 - byte);
    }
    merger_.Apply(&symbols);
    for (const int32_t symbol : symbols) {
      if (symbol >= 0) {
        ids->push_back(symbol);
        continue;
      }
      const char byte = static_cast<char>(-1 - symbol);
      if (const absl::Status done = AppendBytes({&byte, 1}, ids); !done.ok()) return done;
    }
  }
  return absl::OkStatus();
}

absl::Status Tokenizer::EncodeSentencePiece(std::string_view text, bool space_prefix, std::vector<int32_t>* ids) const {
  const std::string marked = WithSpaceMarks(text, space_prefix);
  if (marked.size() >= std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("text to tokenize: expected less than 4 GiB, found %u bytes; shorten it", marked.size()));
  }
  absl::Status status;
  const auto emit = [&](std::string_view bytes, int32_t id) {
    if (id >= 0) {
      ids->push_back(id);
    } else if (status.ok()) {
      status = AppendBytes(bytes, ids);
    }
  };
  std::string_view rest = marked;
  while (!rest.empty() && status.ok()) {
    const std::string_view word = rest.substr(0, words_apart_ ? NextWord(rest) : rest.size());
    ScoreBpe(word, text_ids_, scores_, longest_token_bytes_, emit);
    rest.remove_prefix(word.size());
  }
  return status;
}

absl::Status Tokenizer::AppendBytes(std::string_view bytes, std::vector<int32_t>* ids) const {
  bool known = true;
  for (const char byte : bytes) known = known && byte_ids_[static_cast<uint8_t>(byte)] >= 0;
  if (known) {
    for (const char byte : bytes) ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
    return absl::OkStatus();
  }
  if (unk_id_) {
    ids->push_back(*unk_id_);
    return absl::OkStatus();
  }
  std::string hex;
  for (const char byte : bytes) hex += absl::StrFormat("%02X ", static_cast<unsigned>(static_cast<uint8_t>(byte)));
  return absl::InvalidArgumentError(
      absl::StrFormat("text to tokenize: the vocabulary has no token for the bytes %sand no unknown token; "
                      "remove them from the text or use a model whose vocabulary has them",
                      hex));
}

std::string Tokenizer::TokenBytes(int32_t id, bool render_special) const {
  if (!InRange(id)) return {};
  const std::string_view stored = Stored(id);
  switch (types_[id]) {
    case TokenType::kNormal:
      return model_ == TokenizerModel::kSentencePieceBpe ? WithoutSpaceMarks(stored) : std::string(stored);
    case TokenType::kUserDefined:
    case TokenType::kByte:  // stored as the byte itself
      return std::string(stored);
    case TokenType::kControl:
    case TokenType::kUnknown:
    case TokenType::kUnused:
    case TokenType::kUndefined:
      break;
  }
  return render_special ? std::string(stored) : std::string();
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool render_special) const {
  std::string bytes;
  bool at_start = add_space_prefix_;
  for (const int32_t id : ids) {
    const std::string token = TokenBytes(id, render_special);
    const bool drop_space = at_start && !token.empty() && token[0] == ' ' && type(id) == TokenType::kNormal;
    bytes.append(token, drop_space ? 1 : 0);
    if (!token.empty()) at_start = false;
  }
  return bytes;
}

}  // namespace updraft::text
