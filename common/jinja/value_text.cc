// str, repr and str % arguments.
#include <charconv>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/operators.h"
#include "common/jinja/text_functions.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

// repr of a string: quoted with ' unless that is in it and " is not.
void AppendQuoted(const SourcedText& text, SourcedText* out) {
  const std::string& bytes = text.bytes();
  const char quote = bytes.find('\'') != bytes.npos && bytes.find('"') == bytes.npos ? '"' : '\'';
  out->Append({&quote, 1}, kTemplate);
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t begin = pos;
    const int32_t c = NextChar(bytes, &pos);
    const Source source = text.SourceAt(begin);
    if (c == quote || c == '\\') {
      out->Append("\\", source);
      out->AppendPart(text, begin, pos);
    } else if (c == '\n' || c == '\r' || c == '\t') {
      out->Append(c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t", source);
    } else if (IsPrintable(c)) {
      out->AppendPart(text, begin, pos);
    } else {
      const uint32_t code = c >= 0 ? static_cast<uint32_t>(c) : static_cast<unsigned char>(bytes[begin]);
      out->Append(code < 0x100     ? absl::StrFormat("\\x%02x", code)
                  : code < 0x10000 ? absl::StrFormat("\\u%04x", code)
                                   : absl::StrFormat("\\U%08x", code),
                  source);
    }
  }
  out->Append({&quote, 1}, kTemplate);
}

void AppendRepr(const Value& value, Budget& budget, SourcedText* out);

void AppendItems(const std::vector<Value>& items, std::string_view open, std::string_view close, Budget& budget,
                 SourcedText* out) {
  out->Append(open, kTemplate);
  for (size_t i = 0; i < items.size() && budget.ok(); ++i) {
    if (i > 0) out->Append(", ", kTemplate);
    AppendRepr(items[i], budget, out);
  }
  out->Append(close, kTemplate);
}

void AppendSequence(const Value& value, Budget& budget, SourcedText* out) {
  const Sequence& sequence = value.sequence();
  switch (sequence.kind) {
    case Sequence::Kind::kList:
      return AppendItems(sequence.items, "[", "]", budget, out);
    case Sequence::Kind::kTuple:
      return AppendItems(sequence.items, "(", sequence.items.size() == 1 ? ",)" : ")", budget, out);
    case Sequence::Kind::kView:
      return AppendItems(sequence.items, absl::StrCat("dict_", sequence.view, "(["), "])", budget, out);
    case Sequence::Kind::kRange:
      out->Append(absl::StrCat("range(", sequence.first, ", ", sequence.last,
                               sequence.step == 1 ? "" : absl::StrCat(", ", sequence.step), ")"),
                  kTemplate);
      return;
    case Sequence::Kind::kIterator:
      budget.Fail(absl::StrFormat("expected a value to write, found %s; make a list of it first", KindName(value)));
  }
}

void AppendRepr(const Value& value, Budget& budget, SourcedText* out) {
  if (!budget.Charge()) return;
  if (out->size() > kMaxTextBytes) return void(budget.ChargeBytes(out->size()));
  if (value.is_text()) {
    if (!budget.ChargeBytes(value.text().size())) return;
    if (value.text().is_markup()) out->Append("Markup(", kTemplate);
    AppendQuoted(value.text(), out);
    if (value.text().is_markup()) out->Append(")", kTemplate);
  } else if (value.is_sequence()) {
    AppendSequence(value, budget, out);
  } else if (value.is_dict()) {
    out->Append("{", kTemplate);
    bool first = true;
    for (const auto& [key, item] : value.dict().entries()) {
      if (!budget.ok()) return;
      if (!std::exchange(first, false)) out->Append(", ", kTemplate);
      AppendRepr(key, budget, out);
      out->Append(": ", kTemplate);
      AppendRepr(item, budget, out);
    }
    out->Append("}", kTemplate);
  } else if (value.is_undefined()) {
    out->Append("Undefined", kTemplate);
  } else {
    out->Append(ToText(value, budget));
  }
}

// One %-conversion of `value`; the letter is the last of `spec`.
SourcedText Converted(std::string_view spec, const Value& value, Budget& budget) {
  const char letter = spec.back();
  const std::string flags(spec.substr(0, spec.size() - 1));
  if (flags.find_first_not_of("0123456789.-+ #") != flags.npos || flags.size() > 8) {
    budget.Fail(absl::StrFormat("expected a format like %%5.2f, found '%%%s'", std::string(spec)));
    return {};
  }
  if (letter == 's' || letter == 'r') {
    SourcedText text = letter == 's' ? ToText(value, budget) : Repr(value, budget);
    if (flags.empty()) return text;
    budget.Fail("expected %s or %r without a width, found one with");
    return {};
  }
  if (!value.is_number()) {
    budget.Fail(absl::StrFormat("expected a number for %%%c, found %s", letter, KindName(value)));
    return {};
  }
  if (letter == 'd' || letter == 'i' || letter == 'x' || letter == 'X' || letter == 'o') {
    const auto number = value.is_float() ? static_cast<int64_t>(value.number()) : value.integer();
    const auto format = absl::ParsedFormat<absl::FormatConversionCharSet::kIntegral>::New("%" + std::string(spec));
    if (format != nullptr) return SourcedText(absl::StrFormat(*format, number));
  } else if (letter == 'f' || letter == 'e' || letter == 'g' || letter == 'F' || letter == 'E' || letter == 'G') {
    const auto format = absl::ParsedFormat<absl::FormatConversionCharSet::kFloating>::New("%" + std::string(spec));
    if (format != nullptr) return SourcedText(absl::StrFormat(*format, value.number()));
  }
  budget.Fail(absl::StrFormat("expected one of %%s %%r %%d %%x %%o %%f %%e %%g, found '%%%s'", std::string(spec)));
  return {};
}

}  // namespace

// As Python's repr: the shortest digits that give the number back, exponents below 1e-4 and from 1e16.
std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const double size = std::abs(value);
  const bool scientific = size != 0.0 && (size < 1e-4 || size >= 1e16);
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value,
                                 scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string text(buffer, end.ptr);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

SourcedText Repr(const Value& value, Budget& budget) {
  SourcedText out;
  AppendRepr(value, budget, &out);
  return out;
}

SourcedText ToText(const Value& value, Budget& budget) {
  if (value.is_text()) return value.text();
  if (value.is_undefined()) return {};
  if (value.is_none()) return SourcedText("None");
  if (value.is_bool()) return SourcedText(value.boolean() ? "True" : "False");
  if (value.is_int()) return SourcedText(absl::StrCat(value.integer()));
  if (value.is_float()) return SourcedText(FloatText(value.number()));
  if (value.is_sequence() || value.is_dict()) return Repr(value, budget);
  budget.Fail(absl::StrFormat("expected a value to write, found %s", KindName(value)));
  return {};
}

Value FormatPercent(const SourcedText& format, const Value& arguments, Budget& budget) {
  const std::vector<Value> single = {arguments};
  const std::vector<Value>& values = arguments.is_tuple() ? arguments.items() : single;
  const std::string& bytes = format.bytes();
  SourcedText out;
  out.set_markup(format.is_markup());
  size_t used = 0, pos = 0;
  while (budget.ok()) {
    const size_t percent = bytes.find('%', pos);
    out.AppendPart(format, pos, std::min(percent, bytes.size()));
    if (percent == bytes.npos) break;
    const size_t letter = bytes.find_first_not_of("0123456789.-+ #", percent + 1);
    if (letter == bytes.npos) {
      budget.Fail("expected a letter after % in a format, found the end");
      break;
    }
    pos = letter + 1;
    if (bytes[letter] == '%') {
      out.AppendPart(format, letter, pos);
      continue;
    }
    if (used == values.size()) {
      budget.Fail(absl::StrFormat("expected a value for each %% of a format, found only %u", used));
      break;
    }
    const SourcedText text =
        Converted(std::string_view(bytes).substr(percent + 1, letter - percent), values[used++], budget);
    out.Append(format.is_markup() ? Escaped(text) : text);
    if (!budget.ChargeBytes(out.size())) break;
  }
  if (budget.ok() && used < values.size() && !arguments.is_dict()) {
    budget.Fail(absl::StrFormat("expected %u values for a format, found %u", used, values.size()));
  }
  return Value(std::move(out));
}

}  // namespace updraft::jinja
