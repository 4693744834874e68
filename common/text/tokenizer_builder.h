#ifndef UPDRAFT_COMMON_TEXT_TOKENIZER_BUILDER_H_
#define UPDRAFT_COMMON_TEXT_TOKENIZER_BUILDER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/text/tokenizer.h"

namespace updraft::text {

// Llama 3's family of byte-level tokenizers (by the name of the pre-tokenizer): a piece that is a token needs no
// merges, and text begins with bos unless the file says otherwise.
bool IsLlama3Family(std::string_view pre);

// Checks TokenizerParts, which come from hostile files, and makes a Tokenizer of them. One use.
class TokenizerBuilder {
 public:
  explicit TokenizerBuilder(const TokenizerParts& parts) : parts_(parts), made_(new Tokenizer()) {}

  absl::StatusOr<std::shared_ptr<const Tokenizer>> Build();

 private:
  absl::Status CheckSizes() const;
  absl::Status CheckIds() const;
  void SetTypes();
  absl::Status IndexTexts();
  absl::Status StoreTokens();
  absl::Status BuildMerges();
  void SetByteIds();
  void BuildMatchers();
  void SetEndOfGeneration();
  absl::Status SetFingerprint();

  // The id of a token by its text in the file, whatever its type.
  std::optional<int32_t> Find(std::string_view text) const;
  // Whether text may become this token: text never turns into a control token by merging.
  bool FromText(int32_t id) const;

  const TokenizerParts& parts_;
  std::shared_ptr<Tokenizer> made_;
  absl::flat_hash_map<std::string_view, int32_t> file_ids_;  // views of parts_.tokens
  std::vector<BpeMerge> merges_;
};

}  // namespace updraft::text

#endif  // UPDRAFT_COMMON_TEXT_TOKENIZER_BUILDER_H_
