#include "common/serving/shapes.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/gbnf.h"
#include "common/grammar/json_schema.h"
#include "common/tools/call_grammar.h"

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

absl::StatusOr<grammar::CompiledGrammar> CompiledCalls(const tools::CallFormat& format,
                                                       const v1::GenerateRequest& request) {
  std::vector<tools::CallableTool> callable;
  for (const v1::Tool& tool : request.tools()) callable.push_back({tool.name(), tool.parameters(), tool.strict()});
  const tools::CallWish wish{.required = request.tool_choice().mode() == v1::ToolChoice::MODE_REQUIRED,
                             .name = request.tool_choice().name(),
                             .one_call = request.tool_choice().one_call()};
  const auto make = [&] {
    const grammar::WorkBudget budget(kMaxSteps);
    return tools::GrammarOfCalls(format, callable, wish);
  };
  const auto compile = [&]() -> absl::StatusOr<grammar::CompiledGrammar> {
    const absl::StatusOr<grammar::Grammar> made = make();
    if (!made.ok()) return made.status();
    const grammar::WorkBudget budget(kMaxSteps);
    return grammar::CompiledGrammar::Compile(*made);
  };
  absl::StatusOr<grammar::CompiledGrammar> compiled = compile();
  if (compiled.ok() || !absl::IsResourceExhausted(compiled.status())) return compiled;
  // Too large together: of those that need not fit to the letter the arguments are any object.
  for (tools::CallableTool& tool : callable) {
    if (!tool.strict) tool.parameters = R"({"type":"object"})";
  }
  compiled = compile();
  if (compiled.ok()) return compiled;
  return absl::InvalidArgumentError(
      absl::StrCat("tools: cannot be followed together (", std::string(compiled.status().message()), ")"));
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
               std::optional<tools::CallFormat> calls, std::vector<int32_t> call_markers, size_t max_shapes)
    : tokenizer_(std::move(tokenizer)),
      ends_(std::move(ends)),
      n_vocab_(n_vocab),
      calls_(std::move(calls)),
      call_markers_(std::move(call_markers)),
      max_shapes_(max_shapes) {}

std::shared_ptr<const grammar::Vocabulary> Shapes::VocabularyOf(bool of_calls) const {
  MutexLock lock(mu_);
  const bool differs = of_calls && !call_markers_.empty();
  std::shared_ptr<const grammar::Vocabulary>& vocabulary = differs ? with_calls_ : vocabulary_;
  if (vocabulary == nullptr) {
    vocabulary =
        grammar::Vocabulary::Of(*tokenizer_, ends_, n_vocab_, differs ? call_markers_ : std::span<const int32_t>());
  }
  return vocabulary;
}

Shapes::Masks Shapes::Find(const std::string& key) const {
  MutexLock lock(mu_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return nullptr;
  used_.splice(used_.begin(), used_, found->second.used);
  return found->second.masks;
}

absl::StatusOr<Shapes::Masks> Shapes::FindOrMake(const std::string& key, bool of_calls, const Make& make) const {
  if (ends_.empty()) {
    return absl::FailedPreconditionError("shape: this model's vocabulary has no token that ends an answer");
  }
  if (Masks known = Find(key); known != nullptr) return known;
  // Not under the lock: others go on meanwhile, and if two make the same, the second is kept.
  absl::StatusOr<grammar::CompiledGrammar> compiled = make();
  if (!compiled.ok()) return compiled.status();
  auto masks = std::make_shared<const grammar::TokenMasks>(*std::move(compiled), VocabularyOf(of_calls));
  masks->Prepare(kPreparedVisits);
  Keep(key, masks);
  return masks;
}

absl::StatusOr<Shapes::Masks> Shapes::Of(const v1::Shape& shape) const {
  return FindOrMake("shape:" + shape.SerializeAsString(), /*of_calls=*/false,
                    [&]() -> absl::StatusOr<grammar::CompiledGrammar> {
                      const grammar::WorkBudget budget(kMaxSteps);
                      const Made made = GrammarOf(shape);
                      if (!made.grammar.ok()) return In(made.field, made.grammar.status());
                      auto compiled = grammar::CompiledGrammar::Compile(*made.grammar);
                      if (!compiled.ok()) return In(made.field, compiled.status());
                      return compiled;
                    });
}

absl::StatusOr<Shapes::Masks> Shapes::OfCalls(const v1::GenerateRequest& request) const {
  v1::GenerateRequest asked;  // what of it matters here
  *asked.mutable_tools() = request.tools();
  for (v1::Tool& tool : *asked.mutable_tools()) tool.clear_description();
  *asked.mutable_tool_choice() = request.tool_choice();
  return FindOrMake("calls:" + asked.SerializeAsString(), /*of_calls=*/true,
                    [&] { return CompiledCalls(*calls_, asked); });
}

void Shapes::Keep(const std::string& key, const Masks& masks) const {
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
}

}  // namespace updraft
