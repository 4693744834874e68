#include "common/grammar/schema_parts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/regex.h"

namespace updraft::grammar {
namespace {

using Json = SchemaJson;

const std::vector<std::string>& AllTypes() {
  static const auto* const types =
      new std::vector<std::string>{"null", "boolean", "number", "string", "array", "object"};
  return *types;
}

std::string TypeOf(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return std::trunc(value.get<double>()) == value.get<double>() ? "integer" : "number";
  if (value.is_string()) return "string";
  return value.is_array() ? "array" : "object";
}

bool IsOfType(const Json& value, const std::string& type) {
  const std::string own = TypeOf(value);
  return own == type || (own == "integer" && type == "number");
}

absl::Status Wrong(const std::string& keyword, const std::string& expected, const Json& found) {
  return absl::InvalidArgumentError(absl::StrCat(keyword, ": expected ", expected, ", found ", Shown(found)));
}

int64_t CharactersIn(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Types, without the checks of TypesOf.
std::set<std::string> MayBe(const Json& schema) {
  const absl::StatusOr<std::vector<std::string>> types = TypesOf(schema);
  if (!types.ok()) return {AllTypes().begin(), AllTypes().end()};
  std::set<std::string> may(types->begin(), types->end());
  if (schema.contains("const")) return {TypeOf(schema["const"])};
  if (schema.contains("enum") && schema["enum"].is_array()) {
    may.clear();
    for (const Json& value : schema["enum"]) may.insert(TypeOf(value));
  }
  return may;
}

// The values that a schema names; none: it names none.
std::optional<std::vector<Json>> ValuesOf(const Json& schema) {
  if (schema.contains("const")) return std::vector<Json>{schema["const"]};
  if (!schema.contains("enum") || !schema["enum"].is_array()) return std::nullopt;
  return std::vector<Json>(schema["enum"].begin(), schema["enum"].end());
}

// What a name in a list may hold at most once; a regular expression for each format that is checked.
const std::map<std::string, std::string>& Formats() {
  // Of the years from 1 on: readers refuse 0000.
  static const std::string year = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])";
  static const std::string date = year + "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|" +
                                  "(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))";
  static const std::string time =
      "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
  static const std::string octet = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
  static const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  static const auto* const formats = new std::map<std::string, std::string>{
      {"date", "^(?:" + date + ")$"},
      {"time", "^" + time + "$"},
      {"date-time", "^(?:" + date + ")T" + time + "$"},
      {"duration",
       "^P(?:[0-9]{1,6}W|(?:[0-9]{1,6}Y(?:[0-9]{1,6}M(?:[0-9]{1,6}D)?)?|[0-9]{1,6}M(?:[0-9]{1,6}D)?|[0-9]{1,6}D)"
       "(?:T(?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S))?|"
       "T(?:[0-9]{1,6}H(?:[0-9]{1,6}M(?:[0-9]{1,6}S)?)?|[0-9]{1,6}M(?:[0-9]{1,6}S)?|[0-9]{1,6}S))$"},
      {"uuid", "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"},
      {"ipv4", "^" + octet + "(?:\\." + octet + "){3}$"},
      {"hostname", "^" + label + "(?:\\." + label + "){0,3}$"},
      {"email", "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,16}){0,1}@" + label + "(?:\\." + label + "){1,2}$"}};
  return *formats;
}

bool AreApartWithin(const Json& a, const Json& b, const ResolveReference& resolve, int depth, int& budget);

absl::StatusOr<Decimal> DecimalOf(const Json& schema, const std::string& keyword) {
  const Json& value = schema[keyword];
  if (!value.is_number()) return Wrong(keyword, "a number", value);
  const std::optional<Decimal> decimal = ParseDecimal(value.dump());
  if (!decimal) return Wrong(keyword, "a number of at most 40 digits", value);
  return *decimal;
}

// -1, 0, 1.
int Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int magnitude =
      a.whole.size() != b.whole.size() ? (a.whole.size() < b.whole.size() ? -1 : 1) : a.whole.compare(b.whole);
  if (magnitude == 0) magnitude = a.fraction.compare(b.fraction);  // no trailing zeros
  magnitude = magnitude < 0 ? -1 : magnitude > 0 ? 1 : 0;
  return a.negative ? -magnitude : magnitude;
}

absl::Status BeyondInt64() { return absl::InvalidArgumentError("expected a bound of whole numbers within 64 bits"); }

absl::StatusOr<int64_t> WholeOf(const Decimal& value) {
  int64_t number = 0;
  if (!absl::SimpleAtoi((value.negative ? "-" : "") + value.whole, &number)) {
    return BeyondInt64();
  }
  return number;
}

}  // namespace

std::string Shown(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 80);
}

std::string Unescaped(std::string_view part) {
  std::string bytes;
  for (size_t i = 0; i < part.size(); ++i) {
    if (part[i] == '%' && i + 2 < part.size()) {
      int byte = 0;
      if (absl::SimpleHexAtoi(std::string(part.substr(i + 1, 2)), &byte)) {
        bytes += static_cast<char>(byte);
        i += 2;
        continue;
      }
    }
    bytes += part[i];
  }
  std::string name;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const bool escape = bytes[i] == '~' && i + 1 < bytes.size();
    if (escape && (bytes[i + 1] == '0' || bytes[i + 1] == '1')) {
      name += bytes[++i] == '0' ? '~' : '/';
    } else {
      name += bytes[i];
    }
  }
  return name;
}

absl::StatusOr<std::vector<std::string>> TypesOf(const Json& schema) {
  const auto type = schema.find("type");
  if (type == schema.end()) return AllTypes();
  std::vector<std::string> types;
  for (const Json& one : type->is_array() ? *type : Json::array({*type})) {
    const bool known = one.is_string() && (one == "integer" || std::find(AllTypes().begin(), AllTypes().end(),
                                                                         one.get<std::string>()) != AllTypes().end());
    if (!known) return Wrong("type", "one of null, boolean, integer, number, string, array, object", one);
    if (std::find(types.begin(), types.end(), one) == types.end()) types.push_back(one.get<std::string>());
  }
  // Of integer and number the second is both.
  if (std::find(types.begin(), types.end(), "number") != types.end()) {
    types.erase(std::remove(types.begin(), types.end(), "integer"), types.end());
  }
  return types;
}

bool AreApart(const Json& a, const Json& b, const ResolveReference& resolve) {
  int budget = 2000;
  return AreApartWithin(a, b, resolve, 0, budget);
}

namespace {
bool AreApartWithin(const Json& a, const Json& b, const ResolveReference& resolve, int depth, int& budget) {
  constexpr int kMaxDepth = 16;
  if (depth > kMaxDepth || --budget < 0) return false;
  if (a == Json(false) || b == Json(false)) return true;
  if (!a.is_object() || !b.is_object()) return false;
  const auto target = [&](const Json& schema) {
    const Json* at = &schema;
    for (int i = 0; i < 32 && at != nullptr && at->is_object() && at->contains("$ref"); ++i) {
      at = (*at)["$ref"].is_string() ? resolve((*at)["$ref"].get<std::string>()) : nullptr;
    }
    return at;
  };
  const Json *first = target(a), *second = target(b);
  if (first == nullptr || second == nullptr || !first->is_object() || !second->is_object()) return false;
  const std::set<std::string> mine = MayBe(*first), others = MayBe(*second);
  const auto can_be = [](const std::set<std::string>& types, const std::string& type) {
    return types.count(type) > 0 || (type == "integer" && types.count("number") > 0) ||
           (type == "number" && types.count("integer") > 0);
  };
  std::set<std::string> both;
  for (const std::string& type : mine) {
    if (can_be(others, type)) both.insert(type);
  }
  if (both.empty()) return true;
  const auto values = ValuesOf(*first), other_values = ValuesOf(*second);
  if (values && other_values) {
    // Objects are equal in whatever order.
    return std::none_of(values->begin(), values->end(), [&](const Json& value) {
      return std::any_of(other_values->begin(), other_values->end(),
                         [&](const Json& other) { return nlohmann::json(value) == nlohmann::json(other); });
    });
  }
  if (both != std::set<std::string>{"object"}) return false;
  // A property that both need, and that cannot be the same in both.
  const auto needs = [](const Json& schema, const std::string& name) {
    const Json required = schema.value("required", Json::array());
    return std::find(required.begin(), required.end(), name) != required.end();
  };
  const Json properties = first->value("properties", Json::object());
  const Json other_properties = second->value("properties", Json::object());
  for (const auto& [name, schema] : properties.items()) {
    if (!other_properties.contains(name) || !needs(*first, name) || !needs(*second, name)) continue;
    if (AreApartWithin(schema, other_properties[name], resolve, depth + 1, budget)) return true;
  }
  return false;
}
}  // namespace

absl::StatusOr<std::vector<Automaton>> PatternAutomataOf(const Json& schema) {
  const absl::StatusOr<std::vector<std::string>> patterns = PatternsOf(schema);
  if (!patterns.ok()) return patterns.status();
  std::vector<Automaton> automata;
  for (const std::string& pattern : *patterns) {
    Expressions expressions;
    const absl::StatusOr<ExprId> parsed = ParseRegex(pattern, Anchoring::kFind, expressions, JsonChars);
    if (!parsed.ok()) return parsed.status();
    absl::StatusOr<Automaton> automaton = MakeAutomaton(expressions, *parsed);
    if (!automaton.ok()) return automaton.status();
    automata.push_back(*std::move(automaton));
  }
  return automata;
}

absl::StatusOr<bool> FitsBeside(const Json& value, const Json& schema, const std::vector<Automaton>& patterns) {
  for (const auto& [keyword, said] : schema.items()) {
    if (keyword != "format" && (IsAnnotation(keyword) || keyword == "nullable")) continue;
    if (keyword == "const") {
      if (value != said) return false;
    } else if (keyword == "enum") {
      if (!said.is_array() || std::find(said.begin(), said.end(), value) == said.end()) return false;
    } else if (keyword == "type") {
      const Json types = said.is_array() ? said : Json::array({said});
      const bool fits = std::any_of(types.begin(), types.end(), [&](const Json& type) {
        return type.is_string() && IsOfType(value, type.get<std::string>());
      });
      if (!fits) return false;
    } else if (keyword == "minLength" || keyword == "maxLength") {
      if (!value.is_string() || !said.is_number()) continue;
      const auto n = static_cast<double>(CharactersIn(value.get<std::string>()));
      if (keyword == "minLength" ? n < said.get<double>() : n > said.get<double>()) return false;
    } else if (keyword == "minimum" || keyword == "maximum" || keyword == "exclusiveMinimum" ||
               keyword == "exclusiveMaximum") {
      if (!value.is_number() || !said.is_number()) continue;
      const nlohmann::json number = value, bound = said;  // whole numbers to the last digit
      const bool inside = keyword == "minimum"            ? number >= bound
                          : keyword == "maximum"          ? number <= bound
                          : keyword == "exclusiveMinimum" ? number > bound
                                                          : number < bound;
      if (!inside) return false;
    } else if (keyword == "pattern" || keyword == "format") {
      continue;  // below
    } else if (IsAssertion(keyword)) {
      return absl::InvalidArgumentError(
          absl::StrCat(keyword, ": is not known here beside const or enum; leave it out"));
    }
  }
  if (!value.is_string()) return true;
  const std::string text = JsonString(value.get<std::string>());
  return std::all_of(patterns.begin(), patterns.end(),
                     [&](const Automaton& pattern) { return pattern.Accepts(text.substr(1, text.size() - 2)); });
}

absl::StatusOr<NumberBounds> BoundsOf(const Json& schema, bool whole) {
  NumberBounds bounds{.whole = whole};
  const auto take = [](std::optional<DecimalBound>& bound, const DecimalBound& other, int sign) {
    const int order = bound ? sign * Compare(other.value, bound->value) : 1;
    if (order > 0 || (order == 0 && other.exclusive)) bound = other;
  };
  for (const auto& [keyword, exclusive, sign] :
       {std::tuple{"minimum", "exclusiveMinimum", 1}, {"maximum", "exclusiveMaximum", -1}}) {
    std::optional<DecimalBound>& bound = sign > 0 ? bounds.low : bounds.high;
    const bool as_flag = schema.contains(exclusive) && schema[exclusive].is_boolean();  // draft 4
    if (schema.contains(keyword)) {
      const absl::StatusOr<Decimal> value = DecimalOf(schema, keyword);
      if (!value.ok()) return value.status();
      take(bound, {.value = *value, .exclusive = as_flag && schema[exclusive].get<bool>()}, sign);
    }
    if (schema.contains(exclusive) && !as_flag) {
      const absl::StatusOr<Decimal> value = DecimalOf(schema, exclusive);
      if (!value.ok()) return value.status();
      take(bound, {.value = *value, .exclusive = true}, sign);
    }
  }
  const auto multiple = schema.find("multipleOf");
  if (multiple == schema.end()) return bounds;
  if (!multiple->is_number() || multiple->get<double>() != 1.0) {
    return Wrong("multipleOf", "1 (others are not known here)", *multiple);
  }
  bounds.whole = true;
  return bounds;
}

absl::StatusOr<std::optional<int64_t>> LeastInteger(const NumberBounds& bounds) {
  if (!bounds.low) return std::optional<int64_t>();
  const absl::StatusOr<int64_t> whole = WholeOf(bounds.low->value);
  if (!whole.ok()) return whole.status();
  if (*whole == std::numeric_limits<int64_t>::max() && bounds.low->exclusive) return BeyondInt64();
  const bool has_fraction = !bounds.low->value.fraction.empty();
  // Towards zero is up for what is below it.
  const bool up = has_fraction ? !bounds.low->value.negative : bounds.low->exclusive;
  return std::optional<int64_t>(*whole + (up ? 1 : 0));
}

absl::StatusOr<std::optional<int64_t>> GreatestInteger(const NumberBounds& bounds) {
  if (!bounds.high) return std::optional<int64_t>();
  const absl::StatusOr<int64_t> whole = WholeOf(bounds.high->value);
  if (!whole.ok()) return whole.status();
  if (*whole == std::numeric_limits<int64_t>::min() && bounds.high->exclusive) return BeyondInt64();
  const bool has_fraction = !bounds.high->value.fraction.empty();
  const bool down = has_fraction ? bounds.high->value.negative : bounds.high->exclusive;
  return std::optional<int64_t>(*whole - (down ? 1 : 0));
}

absl::StatusOr<std::vector<std::string>> PatternsOf(const Json& schema) {
  std::vector<std::string> patterns;
  if (schema.contains("pattern")) {
    if (!schema["pattern"].is_string()) return Wrong("pattern", "a string", schema["pattern"]);
    patterns.push_back(schema["pattern"].get<std::string>());
  }
  if (schema.contains("format") && schema["format"].is_string()) {
    const auto known = Formats().find(schema["format"].get<std::string>());
    if (known != Formats().end()) patterns.push_back(known->second);
  }
  return patterns;
}

absl::StatusOr<ItemsOf> ItemsOf::Read(const Json& schema) {
  ItemsOf items;
  const auto read_list = [&](const char* keyword) -> absl::Status {
    if (!schema[keyword].is_array()) return Wrong(keyword, "an array of schemas", schema[keyword]);
    items.first.assign(schema[keyword].begin(), schema[keyword].end());
    items.first_keyword = keyword;
    return absl::OkStatus();
  };
  const bool as_list = schema.contains("items") && schema["items"].is_array();  // up to draft 2019-09
  if (schema.contains("prefixItems")) {
    if (absl::Status status = read_list("prefixItems"); !status.ok()) return status;
  } else if (as_list) {
    if (absl::Status status = read_list("items"); !status.ok()) return status;
    if (schema.contains("additionalItems")) items.others = schema["additionalItems"];
  }
  if (schema.contains("items") && !as_list) items.others = schema["items"];
  return items;
}

absl::StatusOr<std::vector<PropertyOf>> PropertiesOf(const Json& schema) {
  const Json properties = schema.value("properties", Json::object());
  if (!properties.is_object()) return Wrong("properties", "an object of schemas", properties);
  const Json required = schema.value("required", Json::array());
  if (!required.is_array()) return Wrong("required", "an array of names", required);
  std::vector<PropertyOf> all;
  for (const auto& [name, value] : properties.items()) all.push_back({.name = name, .schema = value});
  for (const Json& name : required) {
    if (!name.is_string()) return Wrong("required", "names", name);
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const PropertyOf& property) { return property.name == name; });
    if (found != all.end()) {
      found->required = true;
      continue;
    }
    Json others = schema.value("additionalProperties", Json(true));
    all.push_back({.name = name.get<std::string>(), .schema = std::move(others), .required = true});
  }
  return all;
}

Automaton Quoted(const Automaton& automaton) {
  Automaton quoted;
  if (automaton.states.empty()) return quoted;
  quoted.states.resize(1);
  quoted.states[0].edges.push_back({.low = '"', .high = '"', .target = 1});
  const auto end = static_cast<int32_t>(automaton.states.size() + 1);
  for (Automaton::State state : automaton.states) {
    for (Automaton::Edge& edge : state.edges) ++edge.target;
    if (std::exchange(state.accepts, false)) {
      // No text within a string has this byte.
      const auto at = std::find_if(state.edges.begin(), state.edges.end(), [](const auto& e) { return e.low > '"'; });
      state.edges.insert(at, {.low = '"', .high = '"', .target = end});
    }
    quoted.states.push_back(std::move(state));
  }
  quoted.states.push_back({.accepts = true});
  return quoted;
}

Automaton Unquoted(const Automaton& automaton) {
  // From behind the first mark on; what the last one leads to accepts.
  Automaton plain;
  for (size_t i = 1; i < automaton.states.size(); ++i) {
    Automaton::State state = automaton.states[i];
    const auto mark = std::find_if(state.edges.begin(), state.edges.end(),
                                   [](const auto& edge) { return edge.low == '"' && edge.high == '"'; });
    const bool ends = mark != state.edges.end() && automaton.states[static_cast<size_t>(mark->target)].accepts;
    if (ends) {
      state.accepts = true;
      state.edges.erase(mark);
    } else {
      state.accepts = false;
    }
    for (Automaton::Edge& edge : state.edges) --edge.target;
    plain.states.push_back(std::move(state));
  }
  return Trimmed(plain, {});
}

absl::StatusOr<Automaton> Counted(const absl::StatusOr<Automaton>& chars, int minimum, int maximum) {
  if (!chars.ok()) return chars;
  const size_t n_own = chars->states.size();
  const auto n_copies = static_cast<size_t>(maximum == kNoMaximum ? minimum + 1 : maximum);
  if (n_copies * n_own > static_cast<size_t>(kMaxStates)) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("expected at most %d states, found %d for strings of so many characters; use a smaller bound",
                        kMaxStates, n_copies * n_own));
  }
  Automaton counted;
  const auto first_of = [n_own](size_t copy) { return static_cast<int32_t>(1 + copy * n_own); };
  const int32_t last = first_of(n_copies), end = last + 1;  // after the most characters, and behind the mark
  counted.states.push_back({.edges = {{.low = '"', .high = '"', .target = n_copies > 0 ? first_of(0) : last}}});
  for (size_t copy = 0; copy < n_copies; ++copy) {
    // Without a maximum the last copy leads to itself.
    const bool loops = maximum == kNoMaximum && copy + 1 == n_copies;
    const int32_t next = loops ? first_of(copy) : copy + 1 < n_copies ? first_of(copy + 1) : last;
    for (size_t i = 0; i < n_own; ++i) {
      Automaton::State state = chars->states[i];
      state.accepts = false;
      for (Automaton::Edge& edge : state.edges) {
        const bool whole = chars->states[static_cast<size_t>(edge.target)].accepts;
        edge.target = whole ? next : first_of(copy) + edge.target;
      }
      if (i == 0 && static_cast<int>(copy) >= minimum) {
        const auto at = std::find_if(state.edges.begin(), state.edges.end(), [](const auto& e) { return e.low > '"'; });
        state.edges.insert(at, {.low = '"', .high = '"', .target = end});
      }
      counted.states.push_back(std::move(state));
    }
  }
  counted.states.push_back({.edges = {{.low = '"', .high = '"', .target = end}}});
  counted.states.push_back({.accepts = true});
  return Trimmed(counted, {});
}

}  // namespace updraft::grammar
