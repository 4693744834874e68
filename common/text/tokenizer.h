#ifndef UPDRAFT_COMMON_TEXT_TOKENIZER_H_
#define UPDRAFT_COMMON_TEXT_TOKENIZER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/byte_bpe.h"
#include "common/text/pretokenize.h"
#include "common/text/special_matcher.h"

namespace updraft::gguf {
class File;
}

namespace updraft::text {

// How a vocabulary turns text into tokens; the names in quotes are those of `tokenizer.ggml.model`.
enum class TokenizerModel {
  kSentencePieceBpe,  // "llama": merges by score over characters, unknown characters as bytes
  kByteLevelBpe,      // "gpt2": ranked merges over bytes, within the pieces of a pre-tokenizer
};

// `tokenizer.ggml.token_type`.
enum class TokenType : int32_t {
  kUndefined = 0,
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      // <s>, <|im_start|>: means something to the model and is no text
  kUserDefined = 4,  // whole words that are found in any text before it is tokenized
  kUnused = 5,
  kByte = 6,  // <0x41>: one byte of a character that has no token
};

// What a tokenizer is made of, as a model file stores it. For those who have no file: the trainer and the tests.
struct TokenizerParts {
  TokenizerModel model = TokenizerModel::kByteLevelBpe;
  std::string pre = "default";  // pre-tokenizer name (PreTokenizerByName); only for kByteLevelBpe

  std::vector<std::string>
      tokens;                    // [n_vocab], as printed in files: bytes mapped to printable ones, or U+2581 for space
  std::vector<TokenType> types;  // [n_vocab], or empty: all normal
  std::vector<float> scores;     // [n_vocab], or empty: all 0; only for kSentencePieceBpe
  std::vector<std::string> merges;  // "left right", best first; only for kByteLevelBpe

  std::optional<int32_t> bos_id, eos_id, eot_id, eom_id, unk_id, pad_id;
  bool add_bos = false;           // Encode with add_special begins with bos
  bool add_eos = false;           // ... and ends with eos
  bool add_space_prefix = false;  // text begins with a space, at the start and after special tokens (kSentencePieceBpe)
  bool strip_after_special = false;  // white space after a special token is dropped (Phi-3)

  std::vector<std::string> warnings;  // what was wrong with a file and could be left out (Tokenizer::warnings)
};

struct EncodeOptions {
  bool add_special = true;  // bos and eos, where the file says so
  // Whether control tokens written in the text (<|im_start|>) become those tokens. Must be false for text of users:
  // they could otherwise speak in the name of the system. User-defined tokens are found in either case.
  bool parse_special = false;
  // The text begins one, rather than continues one: a vocabulary that puts a space before the first word does so. After
  // special tokens within the text it does so in any case.
  bool at_text_start = true;
  size_t max_bytes = size_t{16} << 20;  // longer text is refused; bounds memory (some 100 bytes per byte of text)
};

// A stretch of a rendered prompt. Only special segments may hold control tokens.
struct TextSegment {
  std::string text;
  bool is_special = false;
};

// Text <-> token ids of one vocabulary. Immutable once made, so any number of threads may share one.
//
// Follows llama.cpp where files leave a choice, with two differences that keep users' text harmless: no merge of text
// ever forms a control, unknown or unused token, and special tokens that overlap are found leftmost first.
class Tokenizer {
 public:
  // INVALID_ARGUMENT names the key or token that is wrong: arrays of different length, duplicate or overlong tokens,
  // merges of tokens that are not there, ids out of range, scores that are not numbers, an empty vocabulary.
  // UNIMPLEMENTED names a model or pre-tokenizer that is not known. A file is forgiven what other readers of published
  // files forgive, with a warning: special ids outside the vocabulary, adding a bos or eos that it does not have, no
  // name of a pre-tokenizer.
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromGguf(const gguf::File& file);
  static absl::StatusOr<std::shared_ptr<const Tokenizer>> FromParts(const TokenizerParts& parts);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Any bytes are accepted. INVALID_ARGUMENT when the text is longer than options.max_bytes, or has a byte that the
  // vocabulary can neither express nor call unknown.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The same for a prompt made of segments. Neighbouring plain text is encoded as one, so tokens may cross segments;
  // options.parse_special is ignored in favour of TextSegment::is_special.
  absl::StatusOr<std::vector<int32_t>> EncodeSegments(std::span<const TextSegment> segments,
                                                      const EncodeOptions& options) const;

  // The bytes a token stands for; may be part of a character. Empty for control, unknown and unused tokens, unless
  // `render_special`, and for ids outside [0, vocab_size()).
  std::string TokenBytes(int32_t id, bool render_special = false) const;

  // The bytes of all. A vocabulary that adds a space to the beginning of text loses it again here, so that decoding an
  // encoding gives the text back.
  std::string Decode(std::span<const int32_t> ids, bool render_special = false) const;

  int32_t vocab_size() const { return static_cast<int32_t>(types_.size()); }
  TokenizerModel model() const { return model_; }
  bool adds_space_prefix() const { return add_space_prefix_; }
  bool adds_bos() const { return add_bos_; }
  TokenType type(int32_t id) const { return InRange(id) ? types_[id] : TokenType::kUndefined; }

  std::optional<int32_t> bos_id() const { return bos_id_; }
  std::optional<int32_t> eos_id() const { return eos_id_; }
  std::optional<int32_t> eot_id() const { return eot_id_; }  // end of turn
  std::optional<int32_t> unk_id() const { return unk_id_; }
  std::optional<int32_t> pad_id() const { return pad_id_; }

  // The control or user-defined token that is written `text`.
  std::optional<int32_t> SpecialTokenId(std::string_view text) const;

  // How a special token is written in a template (bos_token, eos_token); empty where it is none, or its text is
  // another's.
  std::string SpecialText(std::optional<int32_t> id) const;

  // Whether a model that says this token has finished: eos, end of turn, end of message, and the well-known
  // <|im_end|>, <|eot_id|>, <end_of_turn>, <|end|>, <|endoftext|> and their like where they are control tokens.
  bool IsEndOfGeneration(int32_t id) const { return end_of_generation_.contains(id); }
  std::vector<int32_t> EndOfGenerationIds() const;  // ascending

  // What was wrong with the file and was left out or guessed: the key, what was expected, what was found, what became
  // of it. Who loads a model shows these.
  const std::vector<std::string>& warnings() const { return warnings_; }

  // SHA-256 (hexadecimal) of everything above that gives ids their meaning. Two tiers with equal fingerprints may
  // exchange token ids.
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  friend class TokenizerBuilder;
  struct Fragment;

  Tokenizer() = default;

  bool InRange(int32_t id) const { return id >= 0 && id < vocab_size(); }
  std::string_view Stored(int32_t id) const;

  void Partition(std::string_view text, bool parse_special, std::vector<Fragment>* fragments) const;
  absl::Status EncodeFragments(std::span<const Fragment> fragments, const EncodeOptions& options,
                               std::vector<int32_t>* ids) const;
  absl::Status EncodePlain(std::string_view text, std::vector<int32_t>* ids) const;
  absl::Status EncodeSentencePiece(std::string_view text, bool space_prefix, std::vector<int32_t>* ids) const;
  absl::Status AppendBytes(std::string_view bytes, std::vector<int32_t>* ids) const;

  TokenizerModel model_ = TokenizerModel::kByteLevelBpe;
  PreTokenizer pre_ = PreTokenizer::kDefault;
  bool add_bos_ = false, add_eos_ = false, add_space_prefix_ = false;
  bool whole_pieces_first_ = false;  // a piece that is a token needs no merges (Llama 3, Tekken)
  std::optional<int32_t> bos_id_, eos_id_, eot_id_, unk_id_, pad_id_;

  // What each token is written as: bytes for normal tokens of byte-level BPE, the file's text for all others. Token id
  // lies at arena_[ends_[id - 1], ends_[id]).
  std::string arena_;
  std::vector<uint32_t> ends_;
  std::vector<TokenType> types_;
  std::vector<float> scores_;          // kSentencePieceBpe alone
  std::array<int32_t, 256> byte_ids_;  // the token of each byte, or -1
  size_t longest_token_bytes_ = 0;
  // kSentencePieceBpe: no token has a space after something else, so that words can be merged one by one.
  bool words_apart_ = false;

  // Tokens that text can become, by what they are written as; views of arena_.
  absl::flat_hash_map<std::string_view, int32_t> text_ids_;
  BpeMerger merger_;  // kByteLevelBpe alone

  SpecialMatcher user_defined_;  // found in any text
  SpecialMatcher all_special_;   // these, control and unknown tokens: found with parse_special
  absl::flat_hash_set<int32_t> strip_after_;
  absl::flat_hash_set<int32_t> end_of_generation_;
  std::vector<std::string> warnings_;
  std::string fingerprint_;
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_TOKENIZER_H_
