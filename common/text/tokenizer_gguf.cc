// Reads the tokenizer of a GGUF file: the keys `tokenizer.ggml.*` (specified in ggml's docs/gguf.md).
#include <algorithm>
#include <cctype>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/gguf/reader.h"
#include "common/text/tokenizer.h"
#include "common/text/tokenizer_builder.h"

namespace updraft::text {
namespace {

// Errors of one key after another: the first stays, later reads do nothing.
class KeyReader {
 public:
  explicit KeyReader(const gguf::File& file) : file_(file) {}

  bool Has(std::string_view key) const { return file_.Has(key); }

  std::string String(std::string_view key) { return std::string(Take(file_.GetString(key))); }
  std::string StringOr(std::string_view key, std::string_view fallback) {
    return std::string(Take(file_.GetStringOr(key, fallback)));
  }
  bool BoolOr(std::string_view key, bool fallback) { return Take(file_.GetBoolOr(key, fallback)); }

  std::vector<std::string> Strings(std::string_view key) {
    const std::vector<std::string_view> views = Take(file_.GetStrings(key));
    return {views.begin(), views.end()};
  }
  std::vector<int32_t> Ints(std::string_view key) { return Take(file_.GetI32s(key)); }
  std::vector<float> Floats(std::string_view key) { return Take(file_.GetF32s(key)); }

  // Any integer, whatever its type; nullopt where the key is absent.
  std::optional<int64_t> Integer(std::string_view key) {
    if (!file_.Has(key)) return std::nullopt;
    if (const absl::StatusOr<int32_t> small = file_.GetI32(key); small.ok()) return *small;
    const uint64_t large = Take(file_.GetU64(key));
    return static_cast<int64_t>(std::min<uint64_t>(large, INT64_MAX));
  }

  const absl::Status& status() const { return status_; }

 private:
  void Fail(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  template <typename T>
  T Take(absl::StatusOr<T> value) {
    if (value.ok()) return *std::move(value);
    Fail(value.status());
    return T();
  }

  const gguf::File& file_;
  absl::Status status_;
};

bool NamesPhi3(std::string name) {
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name.find("phi-3") != name.npos || name.find("phi3") != name.npos;
}

// Every key that names a token: those that are used here, and those that are only looked at.
struct SpecialKey {
  const char* key;
  std::optional<int32_t> TokenizerParts::*id;  // null: of no use here
};
constexpr SpecialKey kSpecialKeys[] = {
    {"tokenizer.ggml.bos_token_id", &TokenizerParts::bos_id},
    {"tokenizer.ggml.eos_token_id", &TokenizerParts::eos_id},
    {"tokenizer.ggml.eot_token_id", &TokenizerParts::eot_id},
    {"tokenizer.ggml.eom_token_id", &TokenizerParts::eom_id},
    {"tokenizer.ggml.unknown_token_id", &TokenizerParts::unk_id},
    {"tokenizer.ggml.padding_token_id", &TokenizerParts::pad_id},
    {"tokenizer.ggml.seperator_token_id", nullptr},  // spelt so in the format
    {"tokenizer.ggml.separator_token_id", nullptr},
    {"tokenizer.ggml.cls_token_id", nullptr},
    {"tokenizer.ggml.mask_token_id", nullptr},
    {"tokenizer.ggml.prefix_token_id", nullptr},
    {"tokenizer.ggml.suffix_token_id", nullptr},
    {"tokenizer.ggml.middle_token_id", nullptr},
    {"tokenizer.ggml.fim_pre_token_id", nullptr},
    {"tokenizer.ggml.fim_suf_token_id", nullptr},
    {"tokenizer.ggml.fim_mid_token_id", nullptr},
    {"tokenizer.ggml.fim_pad_token_id", nullptr},
    {"tokenizer.ggml.fim_rep_token_id", nullptr},
    {"tokenizer.ggml.fim_sep_token_id", nullptr},
};

// Ids that no token has are in published files, and other readers go on without them.
void ReadSpecialIds(KeyReader& keys, TokenizerParts* parts) {
  const auto n = static_cast<int64_t>(parts->tokens.size());
  for (const auto& [key, member] : kSpecialKeys) {
    const std::optional<int64_t> id = keys.Integer(key);
    if (!id || *id == -1 || *id == UINT32_MAX) continue;  // how writers say "none"
    if (*id < 0 || *id >= n) {
      parts->warnings.push_back(
          absl::StrFormat("%s: expected an id in [0, %d), found %d; it is left out", key, n, *id));
    } else if (member != nullptr) {
      parts->*member = static_cast<int32_t>(*id);
    }
  }
}

// add_bos_token and its like, which need the token that they are about.
bool MayAdd(KeyReader& keys, const char* key, bool fallback, const char* token_key, bool has_token,
            TokenizerParts* parts) {
  if (!keys.BoolOr(key, fallback)) return false;
  if (has_token) return true;
  parts->warnings.push_back(
      absl::StrFormat("%s: expected a token to add, but there is no usable %s; none is added, and answers may be worse",
                      key, token_key));
  return false;
}

bool MayAddBos(KeyReader& keys, bool fallback, TokenizerParts* parts) {
  return MayAdd(keys, "tokenizer.ggml.add_bos_token", fallback, "tokenizer.ggml.bos_token_id",
                parts->bos_id.has_value(), parts);
}

void ReadSentencePiece(KeyReader& keys, TokenizerParts* parts) {
  parts->model = TokenizerModel::kSentencePieceBpe;
  if (keys.Has("tokenizer.ggml.scores")) parts->scores = keys.Floats("tokenizer.ggml.scores");
  parts->add_space_prefix = keys.BoolOr("tokenizer.ggml.add_space_prefix", true);
  // SentencePiece's own numbers, for files that leave them out.
  const auto n = static_cast<int32_t>(std::min<size_t>(parts->tokens.size(), INT32_MAX));
  if (!parts->unk_id && n > 0) parts->unk_id = 0;
  if (!parts->bos_id && n > 1) parts->bos_id = 1;
  if (!parts->eos_id && n > 2) parts->eos_id = 2;
  parts->add_bos = MayAddBos(keys, parts->bos_id.has_value(), parts);
}

void ReadByteLevel(KeyReader& keys, TokenizerParts* parts) {
  parts->model = TokenizerModel::kByteLevelBpe;
  parts->pre = keys.StringOr("tokenizer.ggml.pre", "default");
  if (!keys.Has("tokenizer.ggml.pre")) {
    parts->warnings.push_back(
        "tokenizer.ggml.pre: expected the name of the pre-tokenizer, found none; text is cut by the rules called "
        "'default', which are probably not the model's, and answers may be worse; convert the model again with a "
        "converter that writes the name");
  }
  parts->merges = keys.Strings("tokenizer.ggml.merges");
  parts->add_bos = MayAddBos(keys, IsLlama3Family(parts->pre) && parts->bos_id.has_value(), parts);
}

absl::StatusOr<TokenizerParts> ReadParts(const gguf::File& file) {
  KeyReader keys(file);
  if (!keys.Has("tokenizer.ggml.model")) {
    return absl::InvalidArgumentError(
        "expected a tokenizer, found no key tokenizer.ggml.model; convert the model again with its tokenizer");
  }
  TokenizerParts parts;
  const std::string model = keys.String("tokenizer.ggml.model");
  parts.tokens = keys.Strings("tokenizer.ggml.tokens");
  if (keys.Has("tokenizer.ggml.token_type")) {
    for (const int32_t type : keys.Ints("tokenizer.ggml.token_type")) {
      parts.types.push_back(static_cast<TokenType>(type));
    }
    if (parts.types.empty() && !parts.tokens.empty() && keys.status().ok()) {
      return absl::InvalidArgumentError("tokenizer.ggml.token_type: expected one for each token, found none");
    }
  }
  ReadSpecialIds(keys, &parts);
  parts.strip_after_special = NamesPhi3(keys.StringOr("general.name", ""));
  if (!keys.status().ok()) return keys.status();

  if (model == "llama") {
    ReadSentencePiece(keys, &parts);
  } else if (model == "gpt2") {
    ReadByteLevel(keys, &parts);
  } else {
    return absl::UnimplementedError(absl::StrFormat(
        "tokenizer.ggml.model: expected 'llama' (SentencePiece BPE) or 'gpt2' (byte-level BPE), found '%s'; "
        "use a model with one of these",
        model.substr(0, 40)));
  }
  parts.add_eos = MayAdd(keys, "tokenizer.ggml.add_eos_token", false, "tokenizer.ggml.eos_token_id",
                         parts.eos_id.has_value(), &parts);
  if (!keys.status().ok()) return keys.status();
  return parts;
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Tokenizer>> Tokenizer::FromGguf(const gguf::File& file) {
  const auto in_file = [&](const absl::Status& status) {
    return absl::Status(status.code(),
                        absl::StrFormat("tokenizer of '%s': %s", file.path(), std::string(status.message())));
  };
  absl::StatusOr<TokenizerParts> parts = ReadParts(file);
  if (!parts.ok()) return in_file(parts.status());
  absl::StatusOr<std::shared_ptr<const Tokenizer>> made = FromParts(*parts);
  if (!made.ok()) return in_file(made.status());
  return made;
}

}  // namespace updraft::text
