// Objects: entries in order, keys that are not named, counts.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/grammar/json_text.h"
#include "common/grammar/regex.h"
#include "common/grammar/schema_builder.h"
#include "common/grammar/schema_parts.h"

namespace updraft::grammar {
namespace {

using Json = SchemaJson;

constexpr int64_t kMaxOptional = 400;  // properties; each is a way to go on
constexpr size_t kMaxPatterns = 32;    // of properties; each is compared with each

}  // namespace

ExprId SchemaBuilder::Entries(const std::vector<Entry>& entries, std::optional<ExprId> others, int64_t least_others,
                              std::optional<int64_t> most_others) {
  const auto after_comma = [&](ExprId entry) { return e().Sequence({e().Literal(","), WhiteSpace(), entry}); };
  const auto bound = [](std::optional<int64_t> value, int64_t less) {
    return value ? static_cast<int>(std::max<int64_t>(0, *value - less)) : kNoMaximum;
  };
  // What follows entry i, with commas, and what follows when nothing has been written yet: from behind.
  ExprId rest = least_others > 0 ? e().Nothing() : e().Empty();
  if (others) rest = e().Repeat(after_comma(*others), static_cast<int>(least_others), bound(most_others, 0));
  std::vector<ExprId> first;  // what may come when there is nothing yet, each beginning with another entry
  if (others && (!most_others || *most_others > 0)) {
    const ExprId some = e().Sequence(
        {*others, e().Repeat(after_comma(*others), static_cast<int>(std::max<int64_t>(0, least_others - 1)),
                             bound(most_others, 1))});
    first.push_back(least_others > 0 ? some : e().Optional(some));
  } else if (least_others == 0) {
    first.push_back(e().Empty());
  }
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (entry->required) first.clear();
    first.push_back(e().Sequence({entry->text, rest}));
    const ExprId with = after_comma(entry->text);
    // A rule of its own, so that it is there once, though the entries before lead to it in two ways.
    rest = InRule("entries", e().Sequence({entry->required ? with : e().Optional(with), rest}));
  }
  return e().Choice(std::move(first));
}

// Keys in their shortest form that `propertyNames` allows, without quotes.
absl::StatusOr<Automaton> SchemaBuilder::Keys(const Json& schema) const {
  Expressions any;
  absl::StatusOr<Automaton> keys = MakeAutomaton(any, any.Repeat(JsonChars(any, Complement({})), 0, kNoMaximum));
  const auto names = schema.find("propertyNames");
  if (!keys.ok() || names == schema.end() || *names == Json(true)) return keys;
  if (*names == Json(false)) return Automaton();
  if (!names->is_object())
    return absl::InvalidArgumentError("propertyNames: expected a schema, found " + Shown(*names));
  for (const auto& [keyword, value] : names->items()) {
    Expressions of;
    absl::StatusOr<ExprId> allowed = of.Nothing();
    if (keyword == "pattern" && value.is_string()) {
      allowed = ParseRegex(value.get_ref<const std::string&>(), Anchoring::kFind, of, JsonChars);
    } else if (keyword == "enum" && value.is_array()) {
      std::vector<ExprId> choices;
      for (const Json& name : value) {
        if (!name.is_string()) continue;
        const std::string text = JsonString(name.get_ref<const std::string&>());
        choices.push_back(of.Literal(text.substr(1, text.size() - 2)));
      }
      allowed = of.Choice(std::move(choices));
    } else if ((keyword == "minLength" || keyword == "maxLength") && value.is_number_unsigned()) {
      const int n = static_cast<int>(std::min<uint64_t>(value.get<uint64_t>(), kMaxCounted));
      if (keyword == "minLength" && value.get<uint64_t>() > kMaxCounted) {
        return absl::InvalidArgumentError(absl::StrFormat("propertyNames/minLength: expected at most %d", kMaxCounted));
      }
      allowed = keyword == "minLength" ? of.Repeat(JsonChars(of, Complement({})), n, kNoMaximum)
                                       : of.Repeat(JsonChars(of, Complement({})), 0, n);
    } else if (!(keyword == "type" && value == "string") && !IsAnnotation(keyword)) {
      return absl::InvalidArgumentError(
          absl::StrCat("propertyNames/", keyword, ": this keyword is not known here; leave it out"));
    } else {
      continue;
    }
    if (!allowed.ok()) return allowed.status();
    const absl::StatusOr<Automaton> part = MakeAutomaton(of, *allowed);
    if (!part.ok()) return part;
    keys = Intersection(*keys, *part);
    if (!keys.ok()) return keys;
  }
  return keys;
}

// Keys in their shortest form. INVALID_ARGUMENT: one of `names` is among them, and would have to fit both.
absl::StatusOr<Automaton> SchemaBuilder::KeysOfPattern(const std::string& pattern,
                                                       const std::vector<std::string>& names) const {
  Expressions expressions;
  const absl::StatusOr<ExprId> parsed = ParseRegex(pattern, Anchoring::kFind, expressions, JsonChars);
  if (!parsed.ok()) return parsed.status();
  absl::StatusOr<Automaton> keys = MakeAutomaton(expressions, *parsed);
  if (!keys.ok()) return keys;
  for (const std::string& name : names) {
    const std::string text = JsonString(name);
    if (!keys->Accepts(text.substr(1, text.size() - 2))) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("'", pattern, "' also speaks of the property '", name, "'; that is not known here"));
  }
  return keys;
}

// An entry whose key is none of `names`: of a pattern, or any. None: there are none.
std::optional<ExprId> SchemaBuilder::Others(const Json& schema, const std::vector<std::string>& names,
                                            const std::string& path, int depth) {
  absl::StatusOr<Automaton> left = Keys(schema);  // keys that are not spoken of yet
  const auto take = [&](const Automaton& keys) {
    if (left.ok()) left = Difference(*left, keys);
  };
  Expressions of_names;
  std::vector<ExprId> choices;
  for (const std::string& name : names) {
    const std::string text = JsonString(name);
    choices.push_back(of_names.Literal(text.substr(1, text.size() - 2)));
  }
  const absl::StatusOr<Automaton> named = MakeAutomaton(of_names, of_names.Choice(std::move(choices)));
  if (!named.ok()) return FailAt(path, named.status()), std::nullopt;
  take(*named);
  std::vector<ExprId> entries;
  const Json patterns = schema.value("patternProperties", Json::object());
  if (!patterns.is_object()) return Fail(path + "/patternProperties", "expected an object"), std::nullopt;
  if (patterns.size() > kMaxPatterns) {
    return Fail(path + "/patternProperties",
                absl::StrFormat("expected at most %d, found %d", kMaxPatterns, patterns.size())),
           std::nullopt;
  }
  std::vector<Automaton> of_patterns;
  for (const auto& [pattern, value] : patterns.items()) {
    absl::StatusOr<Automaton> keys = KeysOfPattern(pattern, names);
    if (!keys.ok()) return FailAt(path + "/patternProperties", keys.status()), std::nullopt;
    of_patterns.push_back(*std::move(keys));
  }
  size_t i = 0;
  for (const auto& [pattern, value] : patterns.items()) {
    const std::string at = absl::StrCat(path, "/patternProperties/", pattern);
    // A key of two patterns would have to fit both: there are none of these.
    absl::StatusOr<Automaton> mine = left;
    if (mine.ok()) mine = Intersection(*mine, of_patterns[i]);
    for (size_t j = 0; j < of_patterns.size() && mine.ok(); ++j) {
      if (j != i) mine = Difference(*mine, of_patterns[j]);
    }
    if (!mine.ok()) return FailAt(at, mine.status()), std::nullopt;
    ++i;
    if (value == Json(false) || mine->states.empty()) continue;
    entries.push_back(EntryOf(InRule(at, Quoted(*mine), at), InRule(at, Value(value, at, depth + 1))));
  }
  for (const Automaton& keys : of_patterns) take(keys);
  const bool closed = !options_.open_objects && schema.contains("properties");
  const Json others = schema.value("additionalProperties", Json(!closed));
  if (others != Json(false)) {
    if (!left.ok()) return FailAt(path, left.status()), std::nullopt;
    const std::string at = path + "/additionalProperties";
    entries.push_back(EntryOf(InRule(at, Quoted(*left), at), InRule(at, Value(others, at, depth + 1))));
  }
  if (!left.ok()) return FailAt(path, left.status()), std::nullopt;
  if (entries.empty() || !status_.ok()) return std::nullopt;
  return InRule(path + "/others", e().Choice(std::move(entries)));
}

ExprId SchemaBuilder::Objects(const Json& schema, const std::string& path, int depth) {
  absl::StatusOr<std::vector<PropertyOf>> properties = PropertiesOf(schema);
  if (!properties.ok()) return FailAt(path, properties.status());
  const std::optional<int64_t> least = Count(schema, "minProperties", path),
                               most = Count(schema, "maxProperties", path);
  if (!status_.ok()) return 0;
  const absl::StatusOr<Automaton> keys = Keys(schema);
  if (!keys.ok()) return FailAt(path, keys.status());
  std::vector<Entry> entries;
  std::vector<std::string> names;
  int64_t n_required = 0;
  for (const PropertyOf& property : *properties) {
    names.push_back(property.name);
    n_required += property.required ? 1 : 0;
    const std::string at = absl::StrCat(path, "/properties/", property.name);
    const std::string key = JsonString(property.name);
    const bool possible = property.schema != Json(false) && keys->Accepts(key.substr(1, key.size() - 2));
    if (!possible && !property.required) continue;
    const ExprId value = possible ? Value(property.schema, at, depth + 1) : e().Nothing();
    entries.push_back({.text = InRule(at, EntryOf(e().Literal(key), value)), .required = property.required});
  }
  const std::optional<ExprId> others = Others(schema, names, path, depth);
  if (!status_.ok()) return 0;
  // Counts are those of the others alone, which is exact where the named ones are all required.
  const auto n_entries = static_cast<int64_t>(entries.size());
  const bool exact = n_required == n_entries;
  const bool counts = least.value_or(0) > n_required || (most && (others || *most < n_entries));
  if (counts && !exact) {
    return Fail(path + (most ? "/maxProperties" : "/minProperties"),
                "is known here only where all named properties are required");
  }
  if (most && *most < n_required) return e().Nothing();
  const int64_t least_others = std::max<int64_t>(0, least.value_or(0) - n_required);
  if (least_others > 1 && others) {
    // Twice the same key would be counted twice.
    return Fail(path + "/minProperties", "is known here only up to one more than the required properties");
  }
  if (n_entries - n_required > kMaxOptional) {
    return Fail(path + "/properties", absl::StrFormat("expected at most %d that are not required, found %d",
                                                      kMaxOptional, n_entries - n_required));
  }
  std::optional<int64_t> most_others;
  if (most) most_others = std::min<int64_t>(*most - n_required, kMaxCounted);
  if (most_others && *most_others < least_others) return e().Nothing();
  const ExprId body = Entries(entries, others, least_others, most_others);
  return e().Sequence({e().Literal("{"), WhiteSpace(), body, WhiteSpace(), e().Literal("}")});
}

}  // namespace updraft::grammar
