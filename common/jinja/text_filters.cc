// Filters of strings and of single values: those of Jinja 3.1 (jinja2/filters.py) that make sense in a chat, and tojson
// as Hugging Face sets it.
#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "common/jinja/arguments.h"
#include "common/jinja/filters.h"
#include "common/jinja/json.h"
#include "common/jinja/operators.h"
#include "common/jinja/text_functions.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

// The operand as text.
SourcedText Operand(Interpreter& in, const Bound& args) {
  SourcedText text = ToText(args[0], in.budget());
  in.budget().ChargeBytes(text.size());
  return text;
}

template <SourcedText (*map)(const SourcedText&)>
Value Map(Interpreter& in, Arguments arguments) {
  const Bound args(in, "a filter of strings", std::move(arguments), {"s"}, 1);
  return in.ok() ? Value(map(Operand(in, args))) : Value();
}

SourcedText Same(const SourcedText& text) { return text; }

SourcedText Safe(const SourcedText& text) {
  SourcedText safe = text;
  safe.set_markup(true);
  return safe;
}

Value Trim(Interpreter& in, Arguments arguments) {
  const Bound args(in, "trim", std::move(arguments), {"value", "chars"}, 1);
  const SourcedText chars = args.has_value(1) ? args.Text(1) : SourcedText();
  if (!in.ok()) return Value();
  const std::string_view view = chars.bytes();
  return Value(Stripped(Operand(in, args), args.has_value(1) ? &view : nullptr, true, true));
}

Value Replace(Interpreter& in, Arguments arguments) {
  const Bound args(in, "replace", std::move(arguments), {"s", "old", "new", "count"}, 3);
  const int64_t count = args.Integer(3, -1);
  if (!in.ok()) return Value();
  const SourcedText from = ToText(args[1], in.budget()), to = ToText(args[2], in.budget());
  return Value(Replaced(Operand(in, args), from.bytes(), to, count, in.budget()));
}

Value Indent(Interpreter& in, Arguments arguments) {
  const Bound args(in, "indent", std::move(arguments), {"s", "width", "first", "blank"}, 1);
  if (!in.ok()) return Value();
  SourcedText indention;
  if (args.has(1) && args[1].is_text()) {
    indention = args[1].text();
  } else {
    const int64_t width = args.Integer(1, 4);
    if (!in.ok() || (width > 0 && !in.budget().ChargeBytes(static_cast<size_t>(width)))) return Value();
    indention = SourcedText(std::string(width > 0 ? static_cast<size_t>(width) : 0, ' '));
  }
  if (!args[0].is_text()) {
    in.Fail(absl::StrFormat("indent: expected a string, found %s", KindName(args[0])));
    return Value();
  }
  SourcedText text = Operand(in, args);
  text.Append("\n", kTemplate);
  SourcedText out;
  out.set_markup(args[0].is_text() && args[0].text().is_markup());
  if (args.Flag(2, false)) out.Append(indention);
  const std::vector<SourcedText> lines = Lines(text, /*keep_ends=*/false);
  for (size_t i = 0; i < lines.size() && in.ok(); ++i) {
    if (i > 0) {
      out.Append("\n", kTemplate);
      if (!lines[i].empty() || args.Flag(3, false)) out.Append(indention);
    }
    out.Append(lines[i]);
    if (out.size() > kMaxTextBytes || !in.budget().Charge(1 + indention.size() / 64))
      in.budget().ChargeBytes(out.size());
  }
  return Value(std::move(out));
}

Value Center(Interpreter& in, Arguments arguments) {
  const Bound args(in, "center", std::move(arguments), {"value", "width"}, 1);
  const int64_t width = args.Integer(1, 80);
  if (!in.ok()) return Value();
  const Value text(Operand(in, args));
  return in.Call(in.Attribute(text, "center"), {{Value(width)}, {}});
}

Value WordCount(Interpreter& in, Arguments arguments) {
  const Bound args(in, "wordcount", std::move(arguments), {"s"}, 1);
  if (!in.ok()) return Value();
  int64_t n = 0;
  bool inside = false;
  const SourcedText text = Operand(in, args);
  for (size_t pos = 0; pos < text.size();) {
    const int32_t c = NextChar(text.bytes(), &pos);
    const bool letter = c == '_' || IsAlnum(c);
    n += letter && !inside ? 1 : 0;
    inside = letter;
  }
  return Value(n);
}

Value Format(Interpreter& in, Arguments arguments) {
  if (arguments.positional.empty() || !arguments.named.empty()) {
    in.Fail("format: expected values without names, found some with");
    return Value();
  }
  const SourcedText format = ToText(arguments.positional[0], in.budget());
  arguments.positional.erase(arguments.positional.begin());
  return FormatPercent(format, Value::Tuple(std::move(arguments.positional)), in.budget());
}

Value ToJson(Interpreter& in, Arguments arguments) {
  const Bound args(in, "tojson", std::move(arguments), {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1);
  if (!in.ok()) return Value();
  JsonStyle style;
  style.ensure_ascii = args.Flag(1, false);
  style.sort_keys = args.Flag(4, false);
  if (args.has_value(2)) {
    style.multiline = true;
    style.item_separator = ",";
    if (args[2].is_text()) {
      style.indent = args[2].text().bytes();
    } else {
      const int64_t width = args.Integer(2, 0);
      if (width > 64) in.Fail("tojson: expected an indent of at most 64, found more");
      style.indent = std::string(width > 0 && in.ok() ? static_cast<size_t>(width) : 0, ' ');
    }
  }
  if (args.has_value(3)) {
    const Value& pair = args[3];
    if (!(pair.is_tuple() || pair.is_list()) || pair.items().size() != 2 || !pair.items()[0].is_text() ||
        !pair.items()[1].is_text()) {
      in.Fail("tojson: expected two strings as separators, found something else");
      return Value();
    }
    style.item_separator = pair.items()[0].text().bytes();
    style.key_separator = pair.items()[1].text().bytes();
  }
  return in.ok() ? Value(WriteJson(args[0], style, in.budget())) : Value();
}

// ---- Any value ------------------------------------------------------------------------------------------------------

Value Default(Interpreter& in, Arguments arguments) {
  const Bound args(in, "default", std::move(arguments), {"value", "default_value", "boolean"}, 1);
  if (!in.ok()) return Value();
  const bool missing = args[0].is_undefined() || (args.Flag(2, false) && !Truthy(args[0]));
  if (!missing) return args[0];
  return args.has(1) ? args[1] : Value("");
}

Value Attr(Interpreter& in, Arguments arguments) {
  const Bound args(in, "attr", std::move(arguments), {"obj", "name"}, 2);
  const SourcedText name = args.Text(1);
  if (!in.ok()) return Value();
  if (args[0].is_dict()) {  // of a dict only its methods are attributes
    Value method = FindMethod(args[0], name.bytes());
    return method.is_undefined() ? Value(Undefined{absl::StrFormat("the attribute '%s' of a dict", name.bytes())})
                                 : method;
  }
  return in.Attribute(args[0], name.bytes());
}

// int(text, base) of Python for what fits 64 bits.
bool ParseInteger(std::string_view text, int64_t base, int64_t* out) {
  std::string digits(absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size())));
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  const std::string prefix = absl::AsciiStrToLower(digits.substr(0, 2));
  const int64_t prefix_base = prefix == "0x" ? 16 : prefix == "0o" ? 8 : prefix == "0b" ? 2 : 0;
  if (prefix_base != 0 && (base == prefix_base || base == 0)) {
    digits.erase(0, 2);
    base = prefix_base;
  }
  if (base == 0) base = 10;
  if (digits.starts_with('_') || digits.ends_with('_') || digits.find("__") != digits.npos) return false;
  std::erase(digits, '_');
  if (base < 2 || base > 36 || digits.empty() || digits[0] == '-') return false;
  if (negative) digits.insert(0, "-");
  const auto end = std::from_chars(digits.data(), digits.data() + digits.size(), *out, static_cast<int>(base));
  return end.ec == std::errc() && end.ptr == digits.data() + digits.size();
}

// float(value) of Python; false: it would raise.
bool ParseFloat(const Value& value, double* out) {
  if (value.is_number()) {
    *out = value.number();
    return true;
  }
  if (!value.is_text()) return false;
  std::string text(absl::StripAsciiWhitespace(value.text().bytes()));
  if (text.starts_with('_') || text.ends_with('_') || text.find("__") != text.npos) return false;
  std::erase(text, '_');
  if (text.find_first_of("xX") != text.npos || text.size() > 1000) return false;
  return absl::SimpleAtod(text, out);
}

Value Int(Interpreter& in, Arguments arguments) {
  const Bound args(in, "int", std::move(arguments), {"value", "default", "base"}, 1);
  const int64_t base = args.Integer(2, 10);
  if (!in.ok()) return Value();
  const Value& value = args[0];
  if (value.is_undefined()) {
    in.Fail(absl::StrFormat("int: expected a number or a string, found %s", KindName(value)));
    return Value();
  }
  int64_t integer = 0;
  if (value.is_text() && ParseInteger(value.text().bytes(), base, &integer)) return Value(integer);
  if (value.is_number() && !value.is_float()) return Value(value.integer());
  double number = 0;
  if (ParseFloat(value, &number) && std::isfinite(number)) {
    if (std::abs(number) < 9.2e18) return Value(static_cast<int64_t>(number));
    in.Fail("int: expected an integer of at most 64 bits, found a larger one");
    return Value();
  }
  return args.has(1) ? args[1] : Value(int64_t{0});
}

Value Float(Interpreter& in, Arguments arguments) {
  const Bound args(in, "float", std::move(arguments), {"value", "default"}, 1);
  if (!in.ok()) return Value();
  if (args[0].is_undefined()) {
    in.Fail(absl::StrFormat("float: expected a number or a string, found %s", KindName(args[0])));
    return Value();
  }
  double number = 0;
  if (ParseFloat(args[0], &number)) return Value(number);
  return args.has(1) ? args[1] : Value(0.0);
}

Value Abs(Interpreter& in, Arguments arguments) {
  const Bound args(in, "abs", std::move(arguments), {"x"}, 1);
  if (!in.ok()) return Value();
  if (args[0].is_float()) return Value(std::abs(args[0].number()));
  if (args[0].is_number()) return args[0].integer() < 0 ? Negative(args[0], in.budget()) : Value(args[0].integer());
  in.Fail(absl::StrFormat("abs: expected a number, found %s", KindName(args[0])));
  return Value();
}

// The nearest decimal to the exact value; ties to even, as Python rounds.
double RoundCommon(double value, int64_t precision) {
  if (!std::isfinite(value) || precision > 300) return value;
  if (precision >= 0) {
    double rounded = value;
    if (absl::SimpleAtod(absl::StrFormat("%.*f", static_cast<int>(precision), value), &rounded)) return rounded;
    return value;
  }
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::isinf(scale) ? 0.0 : std::nearbyint(value / scale) * scale;
}

Value Round(Interpreter& in, Arguments arguments) {
  const Bound args(in, "round", std::move(arguments), {"value", "precision", "method"}, 1);
  const int64_t precision = args.Integer(1, 0);
  const std::string method = args.Text(2, "common").bytes();
  if (!in.ok()) return Value();
  if (method != "common" && method != "ceil" && method != "floor") {
    in.Fail("round: expected the method common, ceil or floor, found another");
  }
  if (!args[0].is_number()) {
    in.Fail(absl::StrFormat("round: expected a number, found %s", KindName(args[0])));
  }
  if (!in.ok()) return Value();
  if (method == "common") {
    if (!args[0].is_float() && precision >= 0) return Value(args[0].integer());
    const double rounded = RoundCommon(args[0].number(), precision);
    return args[0].is_float() ? Value(rounded) : Value(static_cast<int64_t>(rounded));
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = args[0].number() * scale;
  // + 0.0: Python goes by way of integers, which have no -0.
  return Value(((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) + 0.0) / scale);
}

}  // namespace

const Filters& TextFilters() {
  static const auto* const filters = new Filters{
      {"upper", Map<Upper>},
      {"lower", Map<Lower>},
      {"title", Map<TitleFilter>},
      {"capitalize", Map<Capitalized>},
      {"string", Map<Same>},
      {"safe", Map<Safe>},
      {"escape", Map<Escaped>},
      {"e", Map<Escaped>},
      {"trim", Trim},
      {"replace", Replace},
      {"indent", Indent},
      {"center", Center},
      {"wordcount", WordCount},
      {"format", Format},
      {"tojson", ToJson},
      {"default", Default},
      {"d", Default},
      {"attr", Attr},
      {"int", Int},
      {"float", Float},
      {"abs", Abs},
      {"round", Round},
  };
  return *filters;
}

}  // namespace updraft::jinja
