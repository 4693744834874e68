#include "common/grammar/schema_merge.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace updraft::grammar {
namespace {

absl::Status CannotJoin(const std::string& keyword) {
  return absl::InvalidArgumentError(
      absl::StrCat(keyword, ": stands twice with other values in what must hold together; that is not known here"));
}

SchemaJson AsList(const SchemaJson& value) { return value.is_array() ? value : SchemaJson::array({value}); }

// integer is part of number.
SchemaJson CommonTypes(const SchemaJson& a, const SchemaJson& b) {
  SchemaJson common = SchemaJson::array();
  for (const SchemaJson& type : AsList(a)) {
    for (const SchemaJson& other : AsList(b)) {
      if (type == other) common.push_back(type);
      if ((type == "integer" && other == "number") || (type == "number" && other == "integer")) {
        common.push_back("integer");
      }
    }
  }
  SchemaJson once = SchemaJson::array();
  for (const SchemaJson& type : common) {
    if (std::find(once.begin(), once.end(), type) == once.end()) once.push_back(type);
  }
  return once;
}

SchemaJson CommonValues(const SchemaJson& a, const SchemaJson& b) {
  SchemaJson common = SchemaJson::array();
  for (const SchemaJson& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) common.push_back(value);
  }
  return common;
}

absl::StatusOr<SchemaJson> Both(const SchemaJson& a, const SchemaJson& b) {
  if (a == b || b == SchemaJson(true) || b == SchemaJson::object()) return a;
  if (a == SchemaJson(true) || a == SchemaJson::object()) return b;
  if (a == SchemaJson(false) || b == SchemaJson(false)) return SchemaJson(false);
  return SchemaJson{{"allOf", SchemaJson::array({a, b})}};
}

// Of names in one of the two only the other's additionalProperties holds.
absl::StatusOr<SchemaJson> CommonProperties(const SchemaJson& a, const SchemaJson& b) {
  const auto of = [](const SchemaJson& schema) { return schema.value("properties", SchemaJson::object()); };
  const auto others = [](const SchemaJson& schema) { return schema.value("additionalProperties", SchemaJson(true)); };
  SchemaJson joined = SchemaJson::object();
  const SchemaJson in_a = of(a), in_b = of(b);
  for (const auto& [name, schema] : in_a.items()) {
    const bool in_both = in_b.contains(name);
    absl::StatusOr<SchemaJson> both = Both(schema, in_both ? in_b[name] : others(b));
    if (!both.ok()) return both.status();
    joined[name] = *std::move(both);
  }
  for (const auto& [name, schema] : in_b.items()) {
    if (in_a.contains(name)) continue;
    absl::StatusOr<SchemaJson> both = Both(schema, others(a));
    if (!both.ok()) return both.status();
    joined[name] = *std::move(both);
  }
  return joined;
}

// Keywords that speak of what their neighbours leave: where two schemas have some of them, each means its own
// neighbours. INVALID_ARGUMENT: joined they would mean something else.
absl::Status CheckNeighbours(const SchemaJson& a, const SchemaJson& b) {
  const auto has_any = [](const SchemaJson& schema, std::initializer_list<const char*> keywords) {
    return std::any_of(keywords.begin(), keywords.end(), [&](const char* k) { return schema.contains(k); });
  };
  const auto of_objects = {"properties", "additionalProperties", "patternProperties"};
  for (const auto& [one, other] : {std::pair{&a, &b}, {&b, &a}}) {
    if (one->contains("patternProperties") && has_any(*other, of_objects)) return CannotJoin("patternProperties");
    const bool counts_items =
        has_any(*one, {"prefixItems", "additionalItems"}) || (one->contains("items") && (*one)["items"].is_array());
    if (counts_items && has_any(*other, {"items", "prefixItems", "additionalItems"})) return CannotJoin("items");
  }
  return absl::OkStatus();
}

bool IsOneOf(const std::string& keyword, std::initializer_list<const char*> list) {
  return std::any_of(list.begin(), list.end(), [&](const char* other) { return keyword == other; });
}

// Of a keyword that both have.
absl::StatusOr<SchemaJson> JoinKeyword(const std::string& keyword, const SchemaJson& a, const SchemaJson& b) {
  if (a == b) return a;
  if (keyword == "type") return CommonTypes(a, b);
  if (keyword == "enum" && a.is_array() && b.is_array()) return CommonValues(a, b);
  if (keyword == "const") return CannotJoin(keyword);
  if (a.is_number() && b.is_number()) {
    if (IsOneOf(keyword, {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})) {
      return a.get<double>() < b.get<double>() ? b : a;
    }
    if (IsOneOf(keyword, {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})) {
      return a.get<double>() < b.get<double>() ? a : b;
    }
  }
  if (keyword == "required" && a.is_array() && b.is_array()) {
    SchemaJson joined = a;
    for (const SchemaJson& name : b) {
      if (std::find(joined.begin(), joined.end(), name) == joined.end()) joined.push_back(name);
    }
    return joined;
  }
  if (keyword == "additionalProperties" || keyword == "items") return Both(a, b);
  return CannotJoin(keyword);
}

// Each once.
void AddParts(const SchemaJson& more, SchemaJson& parts) {
  for (const SchemaJson& part : more) {
    if (std::find(parts.begin(), parts.end(), part) == parts.end()) parts.push_back(part);
  }
}

}  // namespace

bool IsAnnotation(const std::string& keyword) {
  static const auto* const known = new std::set<std::string>{
      "title",         "description", "default",       "examples", "example",         "$schema",
      "$id",           "id",          "$anchor",       "$comment", "readOnly",        "writeOnly",
      "deprecated",    "$defs",       "definitions",   "format",   "contentEncoding", "contentMediaType",
      "contentSchema", "$vocabulary", "$dynamicAnchor"};
  return known->count(keyword) > 0;
}

bool IsAssertion(const std::string& keyword) {
  static const auto* const known = new std::set<std::string>{"type",
                                                             "enum",
                                                             "const",
                                                             "multipleOf",
                                                             "maximum",
                                                             "exclusiveMaximum",
                                                             "minimum",
                                                             "exclusiveMinimum",
                                                             "maxLength",
                                                             "minLength",
                                                             "pattern",
                                                             "format",
                                                             "items",
                                                             "additionalItems",
                                                             "prefixItems",
                                                             "maxItems",
                                                             "minItems",
                                                             "uniqueItems",
                                                             "contains",
                                                             "minContains",
                                                             "maxContains",
                                                             "maxProperties",
                                                             "minProperties",
                                                             "required",
                                                             "properties",
                                                             "patternProperties",
                                                             "additionalProperties",
                                                             "propertyNames",
                                                             "dependencies",
                                                             "dependentRequired",
                                                             "dependentSchemas",
                                                             "unevaluatedItems",
                                                             "unevaluatedProperties",
                                                             "allOf",
                                                             "anyOf",
                                                             "oneOf",
                                                             "not",
                                                             "if",
                                                             "then",
                                                             "else",
                                                             "$ref",
                                                             "$dynamicRef",
                                                             "$recursiveRef"};
  return known->count(keyword) > 0;
}

absl::StatusOr<SchemaJson> Merged(const SchemaJson& a, const SchemaJson& b) {
  for (const SchemaJson* schema : {&a, &b}) {
    if (!schema->is_object() && !schema->is_boolean()) {
      return absl::InvalidArgumentError("expected schemas (objects, true or false) in what must hold together");
    }
  }
  if (a == SchemaJson(false) || b == SchemaJson(false)) return SchemaJson(false);
  if (!a.is_object()) return b;
  if (!b.is_object()) return a;
  if (a == b) return a;
  if (absl::Status status = CheckNeighbours(a, b); !status.ok()) return status;
  SchemaJson merged = a;
  if (a.contains("properties") || b.contains("properties")) {
    absl::StatusOr<SchemaJson> properties = CommonProperties(a, b);
    if (!properties.ok()) return properties.status();
    merged["properties"] = *std::move(properties);
  }
  for (const auto& [keyword, value] : b.items()) {
    if (keyword == "properties") continue;
    if (!merged.contains(keyword)) {
      merged[keyword] = value;
      continue;
    }
    if (keyword == "allOf" && merged[keyword].is_array() && value.is_array()) {
      AddParts(value, merged[keyword]);
      continue;
    }
    // Alternatives of both: of each some one holds.
    if (IsOneOf(keyword, {"anyOf", "oneOf", "$ref"}) && merged[keyword] != value) {
      SchemaJson& parts = merged["allOf"];
      if (!parts.is_null() && !parts.is_array()) return CannotJoin("allOf");
      AddParts(SchemaJson::array({SchemaJson{{keyword, value}}}), parts);
      continue;
    }
    if (IsAnnotation(keyword) && keyword != "format") continue;
    absl::StatusOr<SchemaJson> joined = JoinKeyword(keyword, merged[keyword], value);
    if (!joined.ok()) return joined.status();
    merged[keyword] = *std::move(joined);
  }
  return merged;
}

}  // namespace updraft::grammar
