#include "common/grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/json_text.h"
#include "common/grammar/regex.h"
#include "common/grammar/schema_builder.h"
#include "common/grammar/schema_parts.h"
#include "common/json/nesting.h"

namespace updraft::grammar {
namespace {

using Json = SchemaJson;

constexpr int kMaxJsonDepth = 64;
constexpr int kMaxSchemaDepth = 128;    // of schemas within schemas, merged ones included
constexpr size_t kMaxSchemas = 20'000;  // built of one text

// Keywords that say what fits and cannot be followed.
constexpr const char* kUnknown[] = {
    "not",          "if",           "then",        "else",        "dependentRequired",     "dependentSchemas",
    "dependencies", "contains",     "minContains", "maxContains", "unevaluatedProperties", "unevaluatedItems",
    "$dynamicRef",  "$recursiveRef"};

}  // namespace

// ---- What all share -------------------------------------------------------------------------------------------------

ExprId SchemaBuilder::InRule(const std::string& name, ExprId expression) {
  const RuleId rule = g_.Declare(name);
  g_.Define(rule, expression);
  return e().Rule(rule);
}

ExprId SchemaBuilder::InRule(const std::string& name, absl::StatusOr<Automaton> automaton, const std::string& path) {
  if (!automaton.ok()) return FailAt(path, automaton.status());
  const RuleId rule = g_.Declare(name);
  g_.Define(rule, *std::move(automaton));
  return e().Rule(rule);
}

ExprId SchemaBuilder::WhiteSpace() {
  if (!options_.white_space) return e().Empty();
  auto [it, is_new] = shared_.try_emplace("white space", 0);
  if (is_new) {
    it->second = g_.Declare("white space");
    const ExprId indent = e().Repeat(e().Choice({e().Literal(" "), e().Literal("\t")}), 0, 20);
    g_.Define(it->second, e().Optional(e().Choice({e().Literal(" "), e().Sequence({e().Literal("\n"), indent})})));
  }
  return e().Rule(it->second);
}

ExprId SchemaBuilder::AnyString() {
  auto [it, is_new] = shared_.try_emplace("string", 0);
  if (is_new) {
    it->second = g_.Declare("string");
    g_.Define(it->second,
              e().Sequence({e().Literal("\""), e().Repeat(AnyJsonChar(e()), 0, kNoMaximum), e().Literal("\"")}));
  }
  return e().Rule(it->second);
}

ExprId SchemaBuilder::AnyValue() {
  auto [it, is_new] = shared_.try_emplace("value", 0);
  if (!is_new) return e().Rule(it->second);
  const RuleId value = it->second = g_.Declare("value");
  const auto list = [&](const char* open, ExprId part, const char* close) {
    const ExprId more = e().Repeat(e().Sequence({e().Literal(","), WhiteSpace(), part}), 0, kNoMaximum);
    return e().Sequence(
        {e().Literal(open), WhiteSpace(), e().Optional(e().Sequence({part, more, WhiteSpace()})), e().Literal(close)});
  };
  const ExprId any = e().Rule(value);
  g_.Define(value, e().Choice({e().Literal("null"), e().Literal("true"), e().Literal("false"), AnyJsonNumber(e()),
                               AnyString(), list("[", any, "]"), list("{", EntryOf(AnyString(), any), "}")}));
  return any;
}

std::optional<int64_t> SchemaBuilder::Count(const Json& schema, const char* keyword, const std::string& path) {
  const auto it = schema.find(keyword);
  if (it == schema.end()) return std::nullopt;
  const bool whole = it->is_number() && std::trunc(it->get<double>()) == it->get<double>();
  if (!whole || it->get<double>() < 0) {
    Fail(absl::StrCat(path, "/", keyword), "expected a whole number of at least 0, found " + Shown(*it));
    return std::nullopt;
  }
  return static_cast<int64_t>(std::min(it->get<double>(), 1e15));
}

// ---- Schemas --------------------------------------------------------------------------------------------------------

// What joining schemas makes of them is larger than they are: it counts as well.
bool SchemaBuilder::Spend(size_t n_schemas, const std::string& path) {
  n_schemas_ += n_schemas;
  if (n_schemas_ > kMaxSchemas) Fail(absl::ResourceExhaustedError(absl::StrCat(path, ": expected a smaller schema")));
  return status_.ok();
}

size_t SchemaBuilder::SizeOf(const Json& json) const {
  size_t n = 1;
  if (json.is_structured()) {
    for (const Json& part : json) n += SizeOf(part);
  }
  return n;
}

bool SchemaBuilder::CheckKeywords(const Json& schema, const std::string& path) {
  if (&schema != &root_ && schema.contains("$id") && schema["$id"].is_string()) {
    Fail(path + "/$id", "a schema within the schema has no name of its own here; leave it out");
  }
  for (const char* keyword : kUnknown) {
    if (schema.contains(keyword)) {
      Fail(absl::StrCat(path, "/", keyword), "this keyword is not known here; say it in another way, or leave it out");
    }
  }
  const auto unique = schema.find("uniqueItems");
  if (unique != schema.end() && *unique != false) {
    Fail(absl::StrCat(path, "/uniqueItems"), "this keyword is not known here; say it in another way, or leave it out");
  }
  return status_.ok();
}

ExprId SchemaBuilder::Value(const Json& schema, const std::string& path, int depth) {
  if (!status_.ok()) return 0;
  if (depth > kMaxSchemaDepth) return Fail(path, "expected schemas nested less deeply");
  if (!Spend(1, path)) return 0;
  if (schema.is_boolean()) return schema.get<bool>() ? AnyValue() : e().Nothing();
  if (!schema.is_object()) return Fail(path, "expected a schema (an object, true or false), found " + Shown(schema));
  if (!CheckKeywords(schema, path)) return 0;
  return OfKeywords(schema, path, depth);
}

ExprId SchemaBuilder::OfKeywords(const Json& schema, const std::string& path, int depth) {
  if (schema.contains("$ref")) return Reference(schema, path, depth);
  // Before allOf, so that each alternative is joined with what stands beside it, alternatives there included.
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) return Alternatives(schema, keyword, path, depth);
  }
  if (schema.contains("allOf")) return AllOf(schema, path, depth);
  if (schema.contains("const")) return Literals(schema, Json::array({schema["const"]}), path);
  if (schema.contains("enum")) {
    if (!schema["enum"].is_array()) return Fail(path + "/enum", "expected an array, found " + Shown(schema["enum"]));
    return Literals(schema, schema["enum"], path);
  }
  const bool says_nothing = std::all_of(schema.items().begin(), schema.items().end(), [](const auto& item) {
    return IsAnnotation(item.key()) && item.key() != "format";
  });
  if (says_nothing) return AnyValue();
  const absl::StatusOr<std::vector<std::string>> types = TypesOf(schema);
  if (!types.ok()) return FailAt(path + "/type", types.status());
  std::vector<ExprId> choices;
  for (const std::string& type : *types) choices.push_back(OfType(type, schema, path, depth));
  return e().Choice(std::move(choices));
}

// "#", "#/$defs/name": within this text alone.
const Json* SchemaBuilder::Resolve(const std::string& reference) const {
  if (reference.empty() || reference[0] != '#') return nullptr;
  const Json* at = &root_;
  for (size_t begin = 1; begin < reference.size();) {
    if (reference[begin] != '/') return nullptr;
    const size_t end = std::min(reference.find('/', begin + 1), reference.size());
    const std::string name = Unescaped(reference.substr(begin + 1, end - begin - 1));
    if (at->is_object() && at->contains(name)) {
      at = &(*at)[name];
    } else if (at->is_array() && !name.empty() && name.size() < 6 &&
               name.find_first_not_of("0123456789") == std::string::npos &&
               static_cast<size_t>(std::stoi(name)) < at->size()) {
      at = &(*at)[static_cast<size_t>(std::stoi(name))];
    } else {
      return nullptr;
    }
    begin = end;
  }
  return at;
}

ExprId SchemaBuilder::Reference(const Json& schema, const std::string& path, int depth) {
  const Json& reference = schema["$ref"];
  const std::string where = path + "/$ref";
  if (!reference.is_string()) return Fail(where, "expected a string, found " + Shown(reference));
  const Json* target = Resolve(reference.get<std::string>());
  if (target == nullptr) {
    return Fail(where, "expected a place in this schema (#/$defs/NAME), found " + Shown(reference));
  }
  const bool alone = std::all_of(schema.items().begin(), schema.items().end(),
                                 [](const auto& item) { return item.key() == "$ref" || IsAnnotation(item.key()); });
  if (!alone) {
    Json rest = schema;
    rest.erase("$ref");
    const absl::StatusOr<Json> merged = Merged(*target, rest);
    return merged.ok() ? Value(*merged, path, depth + 1) : FailAt(path, merged.status());
  }
  auto [it, is_new] = references_.try_emplace(target, 0);
  if (is_new) {
    const RuleId rule = it->second = g_.Declare(reference.get<std::string>());
    const ExprId expression = Value(*target, reference.get<std::string>(), depth + 1);
    if (status_.ok()) g_.Define(rule, expression);
    return e().Rule(rule);
  }
  return e().Rule(it->second);
}

ExprId SchemaBuilder::AllOf(const Json& schema, const std::string& path, int depth) {
  Json rest = schema;
  const Json parts = rest["allOf"];
  rest.erase("allOf");
  if (!parts.is_array()) return Fail(path + "/allOf", "expected an array, found " + Shown(parts));
  for (const Json& part : parts) {
    Json resolved = part;
    // A reference alone is taken for what it names; one that leads back here would never end.
    for (int i = 0; resolved.is_object() && resolved.contains("$ref"); ++i) {
      const Json* target = resolved["$ref"].is_string() ? Resolve(resolved["$ref"].get<std::string>()) : nullptr;
      if (target == nullptr || i > 32) {
        return Fail(path + "/allOf", "expected references to places in this schema that do not lead back");
      }
      Json beside = resolved;
      beside.erase("$ref");
      absl::StatusOr<Json> merged = Merged(*target, beside);
      if (!merged.ok()) return FailAt(path + "/allOf", merged.status());
      resolved = *std::move(merged);
    }
    absl::StatusOr<Json> merged = Merged(rest, resolved);
    if (!merged.ok()) return FailAt(path + "/allOf", merged.status());
    rest = *std::move(merged);
    if (!Spend(1 + SizeOf(rest) / 16, path)) return 0;
  }
  return Value(rest, path, depth + 1);
}

ExprId SchemaBuilder::Alternatives(const Json& schema, const char* keyword, const std::string& path, int depth) {
  Json rest = schema;
  const Json parts = rest[keyword];
  rest.erase(keyword);
  const std::string where = absl::StrCat(path, "/", keyword);
  if (!parts.is_array() || parts.empty()) return Fail(where, "expected an array of schemas, found " + Shown(parts));
  if (std::string_view(keyword) == "oneOf") {
    constexpr size_t kMaxOneOf = 256;  // each is compared with each
    if (parts.size() > kMaxOneOf) {
      return Fail(where, absl::StrFormat("expected at most %d alternatives, found %d; enum or anyOf takes more",
                                         kMaxOneOf, parts.size()));
    }
    const auto resolve = [this](const std::string& reference) { return Resolve(reference); };
    for (size_t i = 0; i < parts.size(); ++i) {
      for (size_t j = i + 1; j < parts.size(); ++j) {
        if (AreApart(parts[i], parts[j], resolve)) continue;
        return Fail(where, absl::StrFormat("expected alternatives of which no two can both fit (other types, or a "
                                           "required property with other values), found %d and %d; anyOf needs no such "
                                           "thing",
                                           i, j));
      }
    }
  }
  std::vector<ExprId> choices;
  for (size_t i = 0; i < parts.size() && status_.ok(); ++i) {
    const std::string at = absl::StrCat(where, "/", i);
    const absl::StatusOr<Json> merged = Merged(rest, parts[i]);
    if (!merged.ok()) return FailAt(at, merged.status());
    if (!Spend(1 + SizeOf(*merged) / 16, path)) return 0;
    choices.push_back(Value(*merged == Json::object() ? Json(true) : *merged, at, depth + 1));
  }
  return e().Choice(std::move(choices));
}

// ---- Values that are named ------------------------------------------------------------------------------------------

ExprId SchemaBuilder::LiteralOf(const Json& value) {
  if (value.is_string()) return e().Literal(JsonString(value.get_ref<const std::string&>()));
  if (!value.is_structured()) return e().Literal(value.dump());
  std::vector<ExprId> parts = {e().Literal(value.is_array() ? "[" : "{"), WhiteSpace()};
  bool first = true;
  for (const auto& [key, part] : value.items()) {
    if (!std::exchange(first, false)) parts.insert(parts.end(), {e().Literal(","), WhiteSpace()});
    parts.push_back(value.is_array() ? LiteralOf(part) : EntryOf(e().Literal(JsonString(key)), LiteralOf(part)));
  }
  if (!first) parts.push_back(WhiteSpace());
  parts.push_back(e().Literal(value.is_array() ? "]" : "}"));
  return e().Sequence(std::move(parts));
}

ExprId SchemaBuilder::Literals(const Json& schema, const Json& values, const std::string& path) {
  std::vector<ExprId> choices;
  const absl::StatusOr<std::vector<Automaton>> patterns = PatternAutomataOf(schema);
  if (!patterns.ok()) return FailAt(path, patterns.status());
  for (const Json& value : values) {
    const absl::StatusOr<bool> fits = FitsBeside(value, schema, *patterns);
    if (!fits.ok()) return FailAt(path, fits.status());
    if (*fits) choices.push_back(LiteralOf(value));
  }
  return e().Choice(std::move(choices));
}

// ---- Types ----------------------------------------------------------------------------------------------------------

ExprId SchemaBuilder::OfType(const std::string& type, const Json& schema, const std::string& path, int depth) {
  if (type == "null") return e().Literal("null");
  if (type == "boolean") return e().Choice({e().Literal("true"), e().Literal("false")});
  if (type == "integer") return Integers(schema, path);
  if (type == "number") return Numbers(schema, path);
  if (type == "string") return Strings(schema, path);
  return type == "array" ? Arrays(schema, path, depth) : Objects(schema, path, depth);
}

ExprId SchemaBuilder::Integers(const Json& schema, const std::string& path) {
  const absl::StatusOr<NumberBounds> bounds = BoundsOf(schema, /*whole=*/true);
  if (!bounds.ok()) return FailAt(path, bounds.status());
  const absl::StatusOr<std::optional<int64_t>> low = LeastInteger(*bounds), high = GreatestInteger(*bounds);
  if (!low.ok()) return FailAt(path, low.status());
  if (!high.ok()) return FailAt(path, high.status());
  return JsonIntegers(e(), *low, *high);
}

ExprId SchemaBuilder::Numbers(const Json& schema, const std::string& path) {
  const absl::StatusOr<NumberBounds> bounds = BoundsOf(schema, /*whole=*/false);
  if (!bounds.ok()) return FailAt(path, bounds.status());
  if (bounds->whole) return Integers(schema, path);
  if (!bounds->low && !bounds->high) return AnyJsonNumber(e());
  return InRule(path, JsonNumbers(bounds->low, bounds->high), path);
}

ExprId SchemaBuilder::Strings(const Json& schema, const std::string& path) {
  const std::optional<int64_t> least = Count(schema, "minLength", path), most = Count(schema, "maxLength", path);
  if (!status_.ok()) return 0;
  if (least.value_or(0) > kMaxCounted) {
    return Fail(path + "/minLength", absl::StrFormat("expected at most %d, found %d", kMaxCounted, *least));
  }
  if (most && *most < least.value_or(0)) return e().Nothing();
  const int low = static_cast<int>(least.value_or(0));
  const int high = most ? static_cast<int>(std::min<int64_t>(*most, std::max(kMaxCounted, low))) : kNoMaximum;
  const absl::StatusOr<std::vector<std::string>> patterns = PatternsOf(schema);
  if (!patterns.ok()) return FailAt(path, patterns.status());
  const bool counted = low > 0 || high != kNoMaximum;
  if (patterns->empty()) {
    if (!counted) return AnyString();
    return InRule(path, Counted(Chars(AnyJsonChar), low, high), path);
  }
  // In their shortest form, so that what a pattern says of characters can be joined with their count.
  std::optional<Automaton> joined;
  const auto join = [&](absl::StatusOr<Automaton> part) {
    if (part.ok() && joined) part = Intersection(*joined, *part);
    if (!part.ok()) return FailAt(path, part.status());
    joined = *std::move(part);
    return ExprId{0};
  };
  for (const std::string& pattern : *patterns) {
    Expressions of_pattern;
    const absl::StatusOr<ExprId> parsed = ParseRegex(pattern, Anchoring::kFind, of_pattern, JsonChars);
    if (!parsed.ok()) return FailAt(path + "/pattern", parsed.status());
    join(MakeAutomaton(of_pattern, *parsed));
  }
  if (counted) {
    const absl::StatusOr<Automaton> chars =
        Chars([](Expressions& of_chars) { return JsonChars(of_chars, Complement({})); });
    const absl::StatusOr<Automaton> quoted = Counted(chars, low, high);
    if (quoted.ok()) {
      join(Unquoted(*quoted));
    } else {
      join(quoted);
    }
  }
  if (!status_.ok()) return 0;
  return InRule(path, Quoted(*joined), path);
}

absl::StatusOr<Automaton> SchemaBuilder::Chars(const std::function<ExprId(Expressions&)>& one) {
  Expressions expressions;
  const ExprId root = one(expressions);
  return MakeAutomaton(expressions, root);
}

ExprId SchemaBuilder::Arrays(const Json& schema, const std::string& path, int depth) {
  const std::optional<int64_t> least = Count(schema, "minItems", path), most = Count(schema, "maxItems", path);
  const absl::StatusOr<ItemsOf> items = ItemsOf::Read(schema);
  if (!items.ok()) return FailAt(path, items.status());
  if (!status_.ok()) return 0;
  if (least.value_or(0) > kMaxCounted) {
    return Fail(path + "/minItems", absl::StrFormat("expected at most %d, found %d", kMaxCounted, *least));
  }
  const auto n_first = static_cast<int64_t>(items->first.size());
  const int64_t low = least.value_or(0);
  // Without others there are no more than the first ones.
  int64_t high = most ? std::min<int64_t>(*most, std::max<int64_t>(kMaxCounted, low)) : kNoMaximum;
  if (items->others == Json(false)) high = high == kNoMaximum ? n_first : std::min(high, n_first);
  if (high != kNoMaximum && high < low) return e().Nothing();

  std::vector<ExprId> first;
  for (int64_t i = 0; i < n_first && (high == kNoMaximum || i < high); ++i) {
    const std::string at = absl::StrCat(path, "/", items->first_keyword, "/", i);
    first.push_back(InRule(at, Value(items->first[static_cast<size_t>(i)], at, depth + 1)));
  }
  const ExprId open = e().Sequence({e().Literal("["), WhiteSpace()});
  const ExprId close = e().Literal("]");
  const auto n = static_cast<int64_t>(first.size());
  const bool has_others = high == kNoMaximum || high > n;
  const ExprId other =
      has_others ? InRule(path + "/items", Value(items->others, path + "/items", depth + 1)) : ExprId{0};
  if (!status_.ok()) return 0;
  const auto next = [&](ExprId item) { return e().Sequence({e().Literal(","), WhiteSpace(), item}); };
  // From behind: what follows the first n, then what follows each of them.
  std::optional<ExprId> rest;  // of items with a comma before each; none: nothing can follow
  if (has_others) {
    const auto from = static_cast<int>(std::max<int64_t>(0, low - std::max<int64_t>(n, 1)));
    const int to = high == kNoMaximum ? kNoMaximum : static_cast<int>(high - std::max<int64_t>(n, 1));
    rest = e().Repeat(next(other), from, to);
  }
  for (int64_t i = n - 1; i >= 1; --i) {
    const ExprId with = rest ? e().Sequence({next(first[i]), *rest}) : next(first[i]);
    rest = i < low ? with : e().Optional(with);
  }
  if (n == 0 && !has_others) return e().Sequence({open, close});
  const ExprId begin = n > 0 ? first[0] : other;
  const ExprId body = e().Sequence({rest ? e().Sequence({begin, *rest}) : begin, WhiteSpace()});
  return e().Sequence({open, low > 0 ? body : e().Optional(body), close});
}

absl::StatusOr<Grammar> GrammarOfJsonSchema(std::string_view schema, const JsonSchemaOptions& options) {
  if (schema.size() > kMaxSchemaBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("#: expected a schema of at most %d bytes, found %d", kMaxSchemaBytes, schema.size()));
  }
  if (FirstTooDeep(schema, kMaxJsonDepth) != std::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrFormat("#: expected JSON nested at most %d levels", kMaxJsonDepth));
  }
  const SchemaJson root = SchemaJson::parse(schema, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return absl::InvalidArgumentError("#: expected a schema as JSON in UTF-8, found other text");
  try {
    return SchemaBuilder(root, options).Build();
  } catch (const SchemaJson::exception& error) {  // a keyword of a type that nobody thought of
    return absl::InvalidArgumentError(
        absl::StrFormat("#: expected keywords of the types that JSON Schema gives them (%s)", error.what()));
  }
}

}  // namespace updraft::grammar
