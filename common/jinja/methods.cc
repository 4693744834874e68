// Methods of strings, dicts and lists: those of Python that do not change what they are called on. Hugging Face's
// sandbox refuses the others (append, update, pop, ...), and so they are not found here.
#include <unicode/uchar.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/arguments.h"
#include "common/jinja/interpreter.h"
#include "common/jinja/operators.h"
#include "common/jinja/text_functions.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

using Method = Value (*)(Interpreter&, const Value& self, Arguments);
using Methods = absl::flat_hash_map<std::string_view, Method>;

// ---- Strings: cutting -----------------------------------------------------------------------------------------------

template <bool left, bool right>
Value Strip(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "strip", std::move(arguments), {"chars"}, 0);
  if (!in.ok() || !in.budget().ChargeBytes(self.text().size())) return Value();
  if (!args.has_value(0)) return Value(Stripped(self.text(), nullptr, left, right));
  const SourcedText chars = args.Text(0);
  const std::string_view view = chars.bytes();
  return Value(Stripped(self.text(), &view, left, right));
}

std::vector<Value> Values(std::vector<SourcedText> parts) {
  std::vector<Value> values;
  for (SourcedText& part : parts) values.emplace_back(std::move(part));
  return values;
}

template <bool from_right>
Value SplitMethod(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, from_right ? "rsplit" : "split", std::move(arguments), {"sep", "maxsplit"}, 0);
  const SourcedText separator = args.has_value(0) ? args.Text(0) : SourcedText();
  const int64_t max_splits = args.Integer(1, -1);
  if (!in.ok()) return Value();
  return Value::List(Values(
      Split(self.text(), args.has_value(0) ? &separator.bytes() : nullptr, max_splits, from_right, in.budget())));
}

template <bool from_right>
Value Partition(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "partition", std::move(arguments), {"sep"}, 1);
  const std::string separator = args.Text(0).bytes();
  const SourcedText& text = self.text();
  if (!in.ok() || !in.budget().ChargeBytes(text.size())) return Value();
  if (separator.empty()) in.Fail("partition: expected a separator, found an empty string");
  const size_t at = from_right ? text.bytes().rfind(separator) : text.bytes().find(separator);
  const Value empty{SourcedText()};
  if (at == std::string::npos) {
    return from_right ? Value::Tuple({empty, empty, self}) : Value::Tuple({self, empty, empty});
  }
  return Value::Tuple({Value(text.Part(0, at)), Value(text.Part(at, at + separator.size())),
                       Value(text.Part(at + separator.size(), text.size()))});
}

Value SplitLines(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "splitlines", std::move(arguments), {"keepends"}, 0);
  if (!in.budget().ChargeBytes(self.text().size())) return Value();
  std::vector<SourcedText> lines = Lines(self.text(), args.Flag(0, false));
  in.budget().Charge(lines.size());
  return Value::List(Values(std::move(lines)));
}

template <bool prefix>
Value Remove(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, prefix ? "removeprefix" : "removesuffix", std::move(arguments), {"affix"}, 1);
  const std::string affix = args.Text(0).bytes();
  const SourcedText& text = self.text();
  if (prefix && text.bytes().starts_with(affix)) return Value(text.Part(affix.size(), text.size()));
  if (!prefix && text.bytes().ends_with(affix)) return Value(text.Part(0, text.size() - affix.size()));
  return self;
}

// ---- Strings: asking ------------------------------------------------------------------------------------------------

// text[first:last], as the arguments `first` and `last` say.
SourcedText Ranged(Interpreter& in, const Value& self, const Bound& args, size_t first, size_t last) {
  if (!args.has_value(first) && !args.has_value(last)) return self.text();
  const auto part = [&](size_t i) { return args.has_value(i) ? args[i] : Value(None{}); };
  const Value range = Slice(self, part(first), part(last), Value(None{}), in);
  return range.is_text() ? range.text() : SourcedText();
}

template <bool start>
Value StartsOrEnds(Interpreter& in, const Value& self, Arguments arguments) {
  const char* what = start ? "startswith" : "endswith";
  const Bound args(in, what, std::move(arguments), {"prefix", "start", "end"}, 1);
  if (!in.ok()) return Value();
  const SourcedText text = Ranged(in, self, args, 1, 2);
  const auto fits = [&](const Value& affix) {
    if (!affix.is_text()) {
      in.Fail(absl::StrFormat("%s: expected a string or a tuple of strings, found %s", what, KindName(affix)));
      return false;
    }
    return start ? text.bytes().starts_with(affix.text().bytes()) : text.bytes().ends_with(affix.text().bytes());
  };
  if (!args[0].is_tuple()) return Value(fits(args[0]));
  for (const Value& affix : args[0].items()) {
    if (fits(affix)) return Value(true);
  }
  return Value(false);
}

template <bool from_right, bool must>
Value FindText(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, must ? "index" : "find", std::move(arguments), {"sub", "start", "end"}, 1);
  const std::string wanted = args.Text(0).bytes();
  if (!in.ok() || !in.budget().ChargeBytes(self.text().size())) return Value();
  const SourcedText text = Ranged(in, self, args, 1, 2);
  const size_t at = from_right ? text.bytes().rfind(wanted) : text.bytes().find(wanted);
  if (at == std::string::npos) {
    if (must) in.Fail("index: expected a part of the string, found one that is not in it");
    return Value(int64_t{-1});
  }
  auto first = args.Integer(1, 0);
  const auto n_chars = static_cast<int64_t>(CountChars(self.text().bytes()));
  if (first < 0) first = std::max<int64_t>(0, first + n_chars);
  return Value(first + static_cast<int64_t>(CountChars(std::string_view(text.bytes()).substr(0, at))));
}

Value CountText(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "count", std::move(arguments), {"sub", "start", "end"}, 1);
  const std::string wanted = args.Text(0).bytes();
  if (!in.ok() || !in.budget().ChargeBytes(self.text().size())) return Value();
  const SourcedText text = Ranged(in, self, args, 1, 2);
  if (wanted.empty()) return Value(static_cast<int64_t>(CountChars(text.bytes()) + 1));
  int64_t n = 0;
  for (size_t at = text.bytes().find(wanted); at != std::string::npos;
       at = text.bytes().find(wanted, at + wanted.size())) {
    ++n;
  }
  return Value(n);
}

// Whether the text has a character and `is` holds for all.
template <typename Predicate>
bool All(Interpreter& in, const Value& self, Arguments arguments, Predicate is) {
  const Bound args(in, "a question to a string", std::move(arguments), {}, 0);
  if (!in.budget().ChargeBytes(self.text().size())) return false;
  const std::string& bytes = self.text().bytes();
  for (size_t pos = 0; pos < bytes.size();) {
    if (!is(NextChar(bytes, &pos))) return false;
  }
  return !bytes.empty();
}

template <bool (*is)(int32_t)>
Value AllAre(Interpreter& in, const Value& self, Arguments arguments) {
  return Value(All(in, self, std::move(arguments), is));
}

// No character of the other case, and one at least of this.
template <bool upper>
Value IsCase(Interpreter& in, const Value& self, Arguments arguments) {
  bool has = false;
  const bool none = All(in, self, std::move(arguments), [&](int32_t c) {
    if (c < 0) return true;
    const bool is_upper = u_isUUppercase(c), is_lower = u_isULowercase(c);
    has = has || (upper ? is_upper : is_lower);
    return !(upper ? is_lower : is_upper) && u_charType(c) != U_TITLECASE_LETTER;
  });
  return Value(none && has);
}

// ---- Strings: making ------------------------------------------------------------------------------------------------

template <SourcedText (*map)(const SourcedText&)>
Value Map(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "a method of strings", std::move(arguments), {}, 0);
  return in.ok() && in.budget().ChargeBytes(self.text().size()) ? Value(map(self.text())) : Value();
}

Value Replace(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "replace", std::move(arguments), {"old", "new", "count"}, 2);
  const SourcedText from = args.Text(0), to = args.Text(1);
  const int64_t count = args.Integer(2, -1);
  if (!in.ok()) return Value();
  const bool markup = self.text().is_markup();
  SourcedText replaced = Replaced(self.text(), from.bytes(), markup ? Escaped(to) : to, count, in.budget());
  replaced.set_markup(markup);
  return Value(std::move(replaced));
}

Value Join(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "join", std::move(arguments), {"iterable"}, 1);
  if (!in.ok()) return Value();
  std::vector<SourcedText> parts;
  for (const Value& item : Elements(args[0], in.budget())) {
    if (!item.is_text()) {
      in.Fail(absl::StrFormat("join: expected strings, found %s", KindName(item)));
      return Value();
    }
    parts.push_back(self.text().is_markup() ? Escaped(item.text()) : item.text());
  }
  SourcedText joined = Joined(parts, self.text(), in.budget());
  joined.set_markup(self.text().is_markup());
  return Value(std::move(joined));
}

enum class Side { kLeft, kRight, kBoth };

template <Side side>
Value Pad(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "a method that pads", std::move(arguments), {"width", "fillchar"}, 1);
  const int64_t width = args.Integer(0, 0);
  const SourcedText fill = args.Text(1, " ");
  if (!in.ok()) return Value();
  if (CountChars(fill.bytes()) != 1) in.Fail("expected one character to pad with, found another number");
  const int64_t missing = width - static_cast<int64_t>(CountChars(self.text().bytes()));
  if (missing <= 0 || !in.budget().ChargeBytes(static_cast<size_t>(missing))) return self;
  // As str.center: of an odd number the larger half is left where the width is odd.
  const int64_t left = side == Side::kRight ? 0 : side == Side::kLeft ? missing : missing / 2 + (missing & width & 1);
  SourcedText out;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(self.text());
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return Value(std::move(out));
}

Value ZeroFill(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "zfill", std::move(arguments), {"width"}, 1);
  const int64_t missing = args.Integer(0, 0) - static_cast<int64_t>(CountChars(self.text().bytes()));
  if (missing <= 0 || !in.ok() || !in.budget().ChargeBytes(static_cast<size_t>(missing))) return self;
  const SourcedText& text = self.text();
  const size_t sign = !text.empty() && (text.bytes()[0] == '+' || text.bytes()[0] == '-') ? 1 : 0;
  SourcedText out = text.Part(0, sign);
  out.Append(std::string(static_cast<size_t>(missing), '0'), kTemplate);
  out.AppendPart(text, sign, text.size());
  return Value(std::move(out));
}

// The value of a field of str.format: {}, {0}, {name}, each with .attribute or [item] behind.
Value FieldValue(Interpreter& in, std::string_view field, const Arguments& arguments, size_t* next) {
  const size_t name_end = std::min(field.find_first_of(".["), field.size());
  const std::string name(field.substr(0, name_end));
  Value value;
  const bool numbered = name.find_first_not_of("0123456789") == name.npos;
  if (numbered) {
    const size_t index = name.empty() ? (*next)++ : name.size() > 4 ? arguments.positional.size() : std::stoul(name);
    if (index >= arguments.positional.size()) {
      in.Fail("format: expected a value for each {}, found fewer");
      return value;
    }
    value = arguments.positional[index];
  } else {
    const auto it = std::find_if(arguments.named.begin(), arguments.named.end(),
                                 [&](const auto& argument) { return argument.first == name; });
    if (it == arguments.named.end()) {
      in.Fail(absl::StrFormat("format: expected a value for '{%s}', found none", name.substr(0, 40)));
      return value;
    }
    value = it->second;
  }
  if (name_end < field.size()) in.Fail("format: expected {}, {0} or {name}, found more in the brackets");
  return value;
}

Value Format(Interpreter& in, const Value& self, Arguments arguments) {
  const std::string_view bytes = self.text().bytes();
  SourcedText out;
  out.set_markup(self.text().is_markup());
  size_t next = 0, pos = 0;
  while (in.ok()) {
    const size_t brace = bytes.find_first_of("{}", pos);
    out.AppendPart(self.text(), pos, std::min(brace, bytes.size()));
    if (brace == bytes.npos) break;
    if (brace + 1 < bytes.size() && bytes[brace + 1] == bytes[brace]) {  // {{ and }}
      out.AppendPart(self.text(), brace, brace + 1);
      pos = brace + 2;
      continue;
    }
    const size_t end = bytes.find('}', brace);
    if (bytes[brace] == '}' || end == bytes.npos) {
      in.Fail("format: expected { and } in pairs, found one alone");
      break;
    }
    const std::string_view field = bytes.substr(brace + 1, end - brace - 1);
    if (field.find_first_of(":!") != field.npos) {
      in.Fail("format: expected {}, {0} or {name}, found a format behind : or !");
      break;
    }
    const SourcedText text = ToText(FieldValue(in, field, arguments, &next), in.budget());
    out.Append(self.text().is_markup() ? Escaped(text) : text);
    if (out.size() > kMaxTextBytes || !in.budget().Charge()) in.budget().ChargeBytes(out.size());
    pos = end + 1;
  }
  return Value(std::move(out));
}

const Methods& TextMethods() {
  static const auto* const methods = new Methods{
      {"strip", Strip<true, true>},
      {"lstrip", Strip<true, false>},
      {"rstrip", Strip<false, true>},
      {"split", SplitMethod<false>},
      {"rsplit", SplitMethod<true>},
      {"partition", Partition<false>},
      {"rpartition", Partition<true>},
      {"splitlines", SplitLines},
      {"removeprefix", Remove<true>},
      {"removesuffix", Remove<false>},
      {"startswith", StartsOrEnds<true>},
      {"endswith", StartsOrEnds<false>},
      {"find", FindText<false, false>},
      {"rfind", FindText<true, false>},
      {"index", FindText<false, true>},
      {"rindex", FindText<true, true>},
      {"count", CountText},
      {"isalpha", AllAre<IsAlpha>},
      {"isdigit", AllAre<IsDigit>},
      {"isdecimal", AllAre<IsDecimal>},
      {"isnumeric", AllAre<IsNumeric>},
      {"isalnum", AllAre<IsAlnum>},
      {"isspace", AllAre<IsSpace>},
      {"isupper", IsCase<true>},
      {"islower", IsCase<false>},
      {"upper", Map<Upper>},
      {"lower", Map<Lower>},
      {"title", Map<TitleMethod>},
      {"capitalize", Map<Capitalized>},
      {"replace", Replace},
      {"join", Join},
      {"ljust", Pad<Side::kRight>},
      {"rjust", Pad<Side::kLeft>},
      {"center", Pad<Side::kBoth>},
      {"zfill", ZeroFill},
      {"format", Format},
  };
  return *methods;
}

// ---- Dicts and lists ------------------------------------------------------------------------------------------------

Value View(const char* name, std::vector<Value> items) {
  return Value(Sequence{Sequence::Kind::kView, std::move(items), name});
}

Value Items(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "items", std::move(arguments), {}, 0);
  std::vector<Value> items;
  if (!in.budget().Charge(self.dict().size())) return Value();
  for (const auto& [key, value] : self.dict().entries()) items.push_back(Value::Tuple({key, value}));
  return View("items", std::move(items));
}

template <bool keys>
Value KeysOrValues(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, keys ? "keys" : "values", std::move(arguments), {}, 0);
  std::vector<Value> items;
  if (!in.budget().Charge(self.dict().size())) return Value();
  for (const auto& entry : self.dict().entries()) items.push_back(keys ? entry.first : entry.second);
  return View(keys ? "keys" : "values", std::move(items));
}

Value Get(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "get", std::move(arguments), {"key", "default"}, 1);
  if (!in.ok()) return Value();
  if (args[0].is_list() || args[0].is_dict()) {
    in.Fail(absl::StrFormat("get: expected something that can be a key of a dict, found %s", KindName(args[0])));
  }
  if (const Value* value = self.dict().Find(args[0])) return *value;
  return args.has(1) ? args[1] : Value(None{});
}

Value Copy(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "copy", std::move(arguments), {}, 0);
  return self;
}

Value IndexOf(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "index", std::move(arguments), {"value"}, 1);
  const std::vector<Value>& items = self.items();
  for (size_t i = 0; i < items.size() && in.ok(); ++i) {
    if (Equal(items[i], args[0], in.budget())) return Value(static_cast<int64_t>(i));
  }
  in.Fail("index: expected an element of the list, found none that is equal");
  return Value();
}

Value CountItems(Interpreter& in, const Value& self, Arguments arguments) {
  const Bound args(in, "count", std::move(arguments), {"value"}, 1);
  int64_t n = 0;
  for (const Value& item : self.items()) n += Equal(item, args[0], in.budget()) ? 1 : 0;
  return Value(n);
}

const Methods& DictMethods() {
  static const auto* const methods = new Methods{
      {"items", Items}, {"keys", KeysOrValues<true>}, {"values", KeysOrValues<false>}, {"get", Get}, {"copy", Copy}};
  return *methods;
}

const Methods& ListMethods() {
  static const auto* const methods = new Methods{{"index", IndexOf}, {"count", CountItems}, {"copy", Copy}};
  return *methods;
}

// Those that change what they are called on hide keys of the same name, and cannot be called.
bool IsRefused(const Value& value, std::string_view name) {
  static constexpr std::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  static constexpr std::string_view kList[] = {"append", "clear",  "extend",  "insert",
                                               "pop",    "remove", "reverse", "sort"};
  if (value.is_dict()) return std::find(std::begin(kDict), std::end(kDict), name) != std::end(kDict);
  return value.is_list() && std::find(std::begin(kList), std::end(kList), name) != std::end(kList);
}

}  // namespace

Value FindMethod(const Value& value, const std::string& name) {
  const Methods* const methods = value.is_text()                       ? &TextMethods()
                                 : value.is_dict()                     ? &DictMethods()
                                 : value.is_list() || value.is_tuple() ? &ListMethods()
                                                                       : nullptr;
  if (methods == nullptr) return Value();
  if (IsRefused(value, name)) {
    return Value(std::make_shared<const Callable>(
        Callable{name, [name](Interpreter& in, Arguments) {
                   in.Fail(absl::StrFormat("expected a method that changes nothing, found '%s'", name));
                   return Value();
                 }}));
  }
  const auto it = methods->find(name);
  if (it == methods->end()) return Value();
  const Method method = it->second;
  return Value(std::make_shared<const Callable>(Callable{
      name, [method, value](Interpreter& in, Arguments arguments) { return method(in, value, std::move(arguments)); },
      value.depth()}));
}

}  // namespace updraft::jinja
