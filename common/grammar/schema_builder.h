// From a schema to expressions and rules of a grammar, keyword by keyword. Private to this folder: json_schema.cc has
// what all kinds of values share, schema_objects.cc objects.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/grammar/json_schema.h"
#include "common/grammar/schema_merge.h"

namespace updraft::grammar {

inline constexpr int kMaxCounted = 2000;  // characters and items that a bound counts; see docs/SHAPES.md

class SchemaBuilder {
  using Json = SchemaJson;

 public:
  SchemaBuilder(const Json& root, const JsonSchemaOptions& options) : root_(root), options_(options) {}

  absl::StatusOr<Grammar> Build() {
    const RuleId start = g_.Declare("#");
    const ExprId whole = Value(root_, "#", 0);
    if (!status_.ok()) return status_;
    g_.Define(start, whole);
    return std::move(g_);
  }

 private:
  Expressions& e() { return g_.e(); }
  ExprId Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
    return 0;
  }
  ExprId Fail(const std::string& path, const std::string& what) {
    return Fail(absl::InvalidArgumentError(absl::StrCat(path, ": ", what)));
  }
  // Of a part whose own error does not say where it stands.
  ExprId FailAt(const std::string& path, const absl::Status& status) {
    return Fail(absl::Status(status.code(), absl::StrCat(path, ": ", std::string(status.message()))));
  }

  ExprId WhiteSpace();
  ExprId AnyValue();
  ExprId AnyString();
  ExprId InRule(const std::string& name, ExprId expression);
  ExprId InRule(const std::string& name, absl::StatusOr<Automaton> automaton, const std::string& path);

  ExprId Value(const Json& schema, const std::string& path, int depth);
  ExprId OfKeywords(const Json& schema, const std::string& path, int depth);
  ExprId Reference(const Json& schema, const std::string& path, int depth);
  const Json* Resolve(const std::string& reference) const;
  ExprId Alternatives(const Json& schema, const char* keyword, const std::string& path, int depth);
  ExprId AllOf(const Json& schema, const std::string& path, int depth);
  ExprId Literals(const Json& schema, const Json& values, const std::string& path);
  ExprId LiteralOf(const Json& value);
  ExprId OfType(const std::string& type, const Json& schema, const std::string& path, int depth);
  ExprId Integers(const Json& schema, const std::string& path);
  ExprId Numbers(const Json& schema, const std::string& path);
  ExprId Strings(const Json& schema, const std::string& path);
  ExprId Arrays(const Json& schema, const std::string& path, int depth);
  ExprId Objects(const Json& schema, const std::string& path, int depth);

  std::optional<int64_t> Count(const Json& schema, const char* keyword, const std::string& path);
  bool CheckKeywords(const Json& schema, const std::string& path);
  bool Spend(size_t n_schemas, const std::string& path);
  size_t SizeOf(const Json& json) const;

  // Objects: entries in order, each with its comma when another is before it.
  // One character of a string: an automaton that no two texts of pass through the same end.
  static absl::StatusOr<Automaton> Chars(const std::function<ExprId(Expressions&)>& one);
  struct Entry {
    ExprId text;  // key and value
    bool required = false;
  };
  ExprId Entries(const std::vector<Entry>& entries, std::optional<ExprId> others, int64_t least_others,
                 std::optional<int64_t> most_others);
  ExprId EntryOf(ExprId key, ExprId value) { return e().Sequence({key, e().Literal(":"), WhiteSpace(), value}); }
  std::optional<ExprId> Others(const Json& schema, const std::vector<std::string>& names, const std::string& path,
                               int depth);
  absl::StatusOr<Automaton> Keys(const Json& schema) const;
  absl::StatusOr<Automaton> KeysOfPattern(const std::string& pattern, const std::vector<std::string>& names) const;

  const Json& root_;
  const JsonSchemaOptions options_;
  Grammar g_;
  absl::Status status_;
  size_t n_schemas_ = 0;
  std::map<const Json*, RuleId> references_;
  std::map<std::string, RuleId> shared_;  // by name
};

}  // namespace updraft::grammar
