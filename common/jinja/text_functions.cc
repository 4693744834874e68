#include "common/jinja/text_functions.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <utility>

#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

// Each run by itself, so that its bytes keep their source.
template <typename Function>
SourcedText Mapped(const SourcedText& text, Function map) {
  SourcedText out;
  size_t begin = 0;
  for (const SourcedText::Run& run : text.runs()) {
    out.Append(map(std::string_view(text.bytes()).substr(begin, run.end - begin)), run.source);
    begin = run.end;
  }
  out.set_markup(text.is_markup());
  return out;
}

// The first character of every word by `ToTitle`, the others by ToLower; `ends_word`: what a word begins after.
template <typename Predicate>
SourcedText TitledWords(const SourcedText& text, std::string (*first)(std::string_view), Predicate ends_word) {
  SourcedText out;
  bool begins = true;
  const std::string_view bytes = text.bytes();
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t begin = pos;
    const int32_t c = NextChar(bytes, &pos);
    const std::string_view written = bytes.substr(begin, pos - begin);
    const bool ends = ends_word(c);
    out.Append(ends ? std::string(written) : begins ? first(written) : ToLower(written), text.SourceAt(begin));
    begins = ends;
  }
  return out;
}

std::vector<SourcedText> SplitAtSpace(const SourcedText& text, int64_t max_splits) {
  std::vector<SourcedText> parts;
  const std::string_view bytes = text.bytes();
  size_t pos = 0;
  while (true) {
    pos += StripRange(bytes.substr(pos), nullptr, true, false).begin;
    if (pos == bytes.size()) return parts;
    if (max_splits >= 0 && parts.size() == static_cast<size_t>(max_splits)) {
      parts.push_back(text.Part(pos, bytes.size()));
      return parts;
    }
    const size_t begin = pos;
    size_t end = pos;
    while (end < bytes.size()) {
      size_t next = end;
      if (IsSpace(NextChar(bytes, &next))) break;
      end = next;
    }
    parts.push_back(text.Part(begin, end));
    pos = end;
  }
}

std::vector<SourcedText> SplitAtSpaceFromRight(const SourcedText& text, int64_t max_splits) {
  std::vector<SourcedText> parts;
  std::string_view rest = text.bytes();
  while (true) {
    rest = rest.substr(0, StripRange(rest, nullptr, false, true).end);
    if (rest.empty()) break;
    if (parts.size() == static_cast<size_t>(max_splits)) {
      parts.push_back(text.Part(0, rest.size()));
      break;
    }
    size_t begin = 0;
    for (size_t pos = 0; pos < rest.size();) {
      if (IsSpace(NextChar(rest, &pos))) begin = pos;
    }
    parts.push_back(text.Part(begin, rest.size()));
    rest = rest.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

SourcedText Escaped(const SourcedText& text) {
  if (text.is_markup()) return text;
  SourcedText out;
  size_t plain = 0;
  const std::string& bytes = text.bytes();
  for (size_t at = bytes.find_first_of("&<>'\""); at != bytes.npos; at = bytes.find_first_of("&<>'\"", at + 1)) {
    out.AppendPart(text, plain, at);
    const char c = bytes[at];
    out.Append(c == '&'   ? "&amp;"
               : c == '<' ? "&lt;"
               : c == '>' ? "&gt;"
               : c == '"' ? "&#34;"
                          : "&#39;",
               text.SourceAt(at));
    plain = at + 1;
  }
  out.AppendPart(text, plain, bytes.size());
  out.set_markup(true);
  return out;
}

SourcedText Upper(const SourcedText& text) { return Mapped(text, ToUpper); }
SourcedText Lower(const SourcedText& text) { return Mapped(text, ToLower); }

SourcedText Capitalized(const SourcedText& text) {
  size_t first = 0;
  if (!text.empty()) NextChar(text.bytes(), &first);
  SourcedText out = Mapped(text.Part(0, first), ToTitle);
  out.Append(Lower(text.Part(first, text.size())));
  return out;
}

SourcedText TitleMethod(const SourcedText& text) {
  SourcedText out = TitledWords(text, ToTitle, [](int32_t c) {
    return c < 0 || !(u_isULowercase(c) || u_isUUppercase(c) || u_charType(c) == U_TITLECASE_LETTER);
  });
  out.set_markup(text.is_markup());
  return out;
}

SourcedText TitleFilter(const SourcedText& text) {
  return TitledWords(text, ToUpper,
                     [](int32_t c) { return IsSpace(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<'; });
}

SourcedText Stripped(const SourcedText& text, const std::string_view* chars, bool left, bool right) {
  const ByteRange range = StripRange(text.bytes(), chars, left, right);
  return text.Part(range.begin, range.end);
}

SourcedText Replaced(const SourcedText& text, const std::string& from, const SourcedText& to, int64_t count,
                     Budget& budget) {
  SourcedText out;
  const std::string& bytes = text.bytes();
  size_t done = 0, pos = 0;
  while (count != 0 && budget.ok()) {
    const size_t hit = bytes.find(from, pos);
    if (hit == bytes.npos) break;
    out.AppendPart(text, done, hit);
    out.Append(to);
    if (out.size() > kMaxTextBytes) budget.ChargeBytes(out.size());
    done = pos = hit + from.size();
    if (count > 0) --count;
    if (!from.empty()) continue;
    if (pos == bytes.size()) break;
    NextChar(bytes, &pos);  // an empty string is found before every character and at the end
  }
  out.AppendPart(text, done, bytes.size());
  budget.ChargeBytes(bytes.size() + out.size() > kMaxTextBytes ? out.size() : bytes.size() + out.size());
  return out;
}

std::vector<SourcedText> Split(const SourcedText& text, const std::string* separator, int64_t max_splits,
                               bool from_right, Budget& budget) {
  if (!budget.ChargeBytes(text.size())) return {};
  std::vector<SourcedText> parts;
  if (separator == nullptr) {
    parts = from_right && max_splits >= 0 ? SplitAtSpaceFromRight(text, max_splits) : SplitAtSpace(text, max_splits);
    budget.Charge(parts.size());
    return parts;
  }
  if (separator->empty()) {
    budget.Fail("split: expected a separator, found an empty string");
    return {};
  }
  const std::string& bytes = text.bytes();
  const auto may_split = [&] { return max_splits < 0 || parts.size() < static_cast<size_t>(max_splits); };
  if (from_right) {
    size_t end = bytes.size();
    while (may_split() && end >= separator->size()) {
      const size_t hit = bytes.rfind(*separator, end - separator->size());
      if (hit == bytes.npos) break;
      parts.push_back(text.Part(hit + separator->size(), end));
      end = hit;
    }
    parts.push_back(text.Part(0, end));
    std::reverse(parts.begin(), parts.end());
  } else {
    size_t begin = 0;
    while (may_split()) {
      const size_t hit = bytes.find(*separator, begin);
      if (hit == bytes.npos) break;
      parts.push_back(text.Part(begin, hit));
      begin = hit + separator->size();
    }
    parts.push_back(text.Part(begin, bytes.size()));
  }
  budget.Charge(parts.size());
  return parts;
}

std::vector<SourcedText> Lines(const SourcedText& text, bool keep_ends) {
  std::vector<SourcedText> lines;
  const std::string_view bytes = text.bytes();
  size_t line = 0;
  for (size_t pos = 0; pos < bytes.size();) {
    const size_t begin = pos;
    const int32_t c = NextChar(bytes, &pos);
    if (!IsLineBreak(c)) continue;
    if (c == '\r' && pos < bytes.size() && bytes[pos] == '\n') ++pos;
    lines.push_back(text.Part(line, keep_ends ? pos : begin));
    line = pos;
  }
  if (line < bytes.size()) lines.push_back(text.Part(line, bytes.size()));
  return lines;
}

SourcedText Joined(const std::vector<SourcedText>& parts, const SourcedText& separator, Budget& budget) {
  SourcedText out;
  for (size_t i = 0; i < parts.size() && budget.ok(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(parts[i]);
    if (out.size() > kMaxTextBytes) budget.ChargeBytes(out.size());
  }
  budget.ChargeBytes(out.size());
  return out;
}

}  // namespace updraft::jinja
