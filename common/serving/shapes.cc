#include "common/serving/shapes.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/gbnf.h"
#include "common/grammar/json_schema.h"

namespace updraft {
namespace {

constexpr size_t kMaxShapeBytes = 64 << 10;
constexpr int64_t kMaxSteps = 8'000'000;     // of compiling one: others wait meanwhile
constexpr size_t kMaxKeptBytes = 128 << 20;  // of masks, of all shapes
// Nodes of the tree of tokens that are looked at before the first answer: some tens of milliseconds.
constexpr int64_t kPreparedVisits = 1'000'000;

// Whatever is wrong with it, too large included, is the request's fault: sent again it is wrong again.
absl::Status In(const char* field, const absl::Status& status) {
  return absl::InvalidArgumentError(absl::StrCat("shape.", field, ": ", std::string(status.message())));
}

struct Made {
  const char* field = "";
  absl::StatusOr<grammar::Grammar> grammar = absl::UnknownError("");
};

Made GrammarOf(const v1::Shape& shape) {
  switch (shape.kind_case()) {
    case v1::Shape::kJsonSchema:
      return {"json_schema", grammar::GrammarOfJsonSchema(shape.json_schema())};
    case v1::Shape::kRegex:
      return {"regex", grammar::GrammarOfRegex(shape.regex())};
    case v1::Shape::kGrammar:
      return {"grammar", grammar::GrammarOfGbnf(shape.grammar())};
    case v1::Shape::kChoice: {
      const std::vector<std::string> texts(shape.choice().texts().begin(), shape.choice().texts().end());
      return {"choice", grammar::GrammarOfTexts(texts)};
    }
    case v1::Shape::KIND_NOT_SET:
      break;
  }
  return {"kind", absl::InvalidArgumentError("expected json_schema, regex, grammar or choice")};
}

}  // namespace

absl::Status CheckShape(const v1::Shape& shape) {
  if (shape.kind_case() == v1::Shape::KIND_NOT_SET) {
    const bool has_others = !shape.GetReflection()->GetUnknownFields(shape).empty();
    return absl::InvalidArgumentError(
        absl::StrFormat("shape: %s; expected json_schema, regex, grammar or choice",
                        has_others ? "of a kind that this version does not know" : "missing"));
  }
  if (shape.ByteSizeLong() <= kMaxShapeBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("shape: expected at most %d bytes, found %d", kMaxShapeBytes, shape.ByteSizeLong()));
}

Shapes::Shapes(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<int32_t> ends, int n_vocab,
               size_t max_shapes)
    : tokenizer_(std::move(tokenizer)), ends_(std::move(ends)), n_vocab_(n_vocab), max_shapes_(max_shapes) {}

std::shared_ptr<const grammar::Vocabulary> Shapes::VocabularyOf() const {
  MutexLock lock(mu_);
  if (vocabulary_ == nullptr) vocabulary_ = grammar::Vocabulary::Of(*tokenizer_, ends_, n_vocab_);
  return vocabulary_;
}

Shapes::Masks Shapes::Find(const std::string& key) const {
  MutexLock lock(mu_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  used_.splice(used_.begin(), used_, found->second.used);
  return found->second.masks;
}

absl::StatusOr<Shapes::Masks> Shapes::Of(const v1::Shape& shape) const {
  if (ends_.empty()) {
    return absl::FailedPreconditionError("shape: this model's vocabulary has no token that ends an answer");
  }
  const std::string key = shape.SerializeAsString();
  if (Masks known = Find(key); known != nullptr) return known;
  // Not under the lock: others go on meanwhile, and if two make the same, the second is kept.
  const grammar::WorkBudget budget(kMaxSteps);
  Made made = GrammarOf(shape);
  if (!made.grammar.ok()) return In(made.field, made.grammar.status());
  absl::StatusOr<grammar::CompiledGrammar> compiled = grammar::CompiledGrammar::Compile(*made.grammar);
  if (!compiled.ok()) return In(made.field, compiled.status());
  auto masks = std::make_shared<const grammar::TokenMasks>(*std::move(compiled), VocabularyOf());
  masks->Prepare(kPreparedVisits);
  MutexLock lock(mu_);
  const auto [entry, is_new] = entries_.try_emplace(key);
  entry->second.masks = masks;
  if (is_new) {
    used_.push_front(key);
    entry->second.used = used_.begin();
  }
  // They grow as answers meet more of their states.
  size_t n_bytes = 0;
  for (const auto& [unused, kept] : entries_) n_bytes += kept.masks->n_bytes();
  while (used_.size() > 1 && (used_.size() > max_shapes_ || n_bytes > kMaxKeptBytes)) {
    const auto oldest = entries_.find(used_.back());
    n_bytes -= std::min(n_bytes, oldest->second.masks->n_bytes());
    entries_.erase(oldest);
    used_.pop_back();
  }
  return masks;
}

}  // namespace updraft
