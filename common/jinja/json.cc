#include "common/jinja/json.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/operators.h"
#include "common/jinja/unicode.h"
#include "nlohmann/json.hpp"

namespace updraft::jinja {
namespace {

// Builds values while the library's parser reads; its own documents would lose the order of keys or take quadratic time
// to keep it.
class Builder {
 public:
  explicit Builder(Source source) : source_(source) {}

  bool null() { return Put(Value(None{})); }
  bool boolean(bool value) { return Put(Value(value)); }
  bool number_integer(int64_t value) { return Put(Value(value)); }
  bool number_unsigned(uint64_t value) {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Put(Value(static_cast<double>(value)));
    }
    return Put(Value(static_cast<int64_t>(value)));
  }
  bool number_float(double value, const std::string&) { return Put(Value(value)); }
  bool string(std::string& value) { return Put(Value(std::move(value), source_)); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(size_t) { return Open(true); }
  bool start_array(size_t) { return Open(false); }
  bool key(std::string& value) {
    open_.back().key = Value(std::move(value), source_);
    return true;
  }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  template <typename Exception>
  bool parse_error(size_t position, const std::string&, const Exception&) {
    error_ = absl::StrFormat("expected one JSON value in UTF-8, found an error at byte %u", position);
    return false;
  }

  Value result;
  const std::string& error() const { return error_; }

 private:
  struct Level {
    bool is_object;
    Dict dict;
    std::vector<Value> items;
    Value key;
  };

  bool Open(bool is_object) {
    if (open_.size() == kMaxDepth) {
      error_ = absl::StrFormat("expected JSON of at most %d levels, found more", kMaxDepth);
      return false;
    }
    open_.push_back({is_object, {}, {}, {}});
    return true;
  }
  bool Close() {
    Level level = std::move(open_.back());
    open_.pop_back();
    return Put(level.is_object ? Value(std::move(level.dict)) : Value::List(std::move(level.items)));
  }
  bool Put(Value value) {
    if (open_.empty()) {
      result = std::move(value);
    } else if (open_.back().is_object) {
      open_.back().dict.Set(open_.back().key, std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return true;
  }

  const Source source_;
  std::vector<Level> open_;
  std::string error_;
};

class Writer {
 public:
  Writer(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  SourcedText Run(const Value& value) {
    Write(value, 0);
    return std::move(out_);
  }

 private:
  void Put(std::string_view text) { out_.Append(text, kTemplate); }
  void NewLine(int level) {
    if (!style_.multiline) return;
    Put("\n");
    for (int i = 0; i < level; ++i) Put(style_.indent);
  }

  void Write(const Value& value, int level) {
    if (!budget_.Charge()) return;
    if (out_.size() > kMaxTextBytes) return void(budget_.ChargeBytes(out_.size()));
    if (value.is_none()) return Put("null");
    if (value.is_bool()) return Put(value.boolean() ? "true" : "false");
    if (value.is_int()) return Put(absl::StrCat(value.integer()));
    if (value.is_float()) return Put(Number(value.number()));
    if (value.is_text()) return String(value.text());
    if (value.is_dict()) return Object(value.dict(), level);
    if (value.is_list() || value.is_tuple()) return Array(value.items(), level);
    budget_.Fail(absl::StrFormat("expected a value that JSON can hold, found %s", KindName(value)));
  }

  static std::string Number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return FloatText(value);
  }

  void Array(const std::vector<Value>& items, int level) {
    if (items.empty()) return Put("[]");
    Put("[");
    for (size_t i = 0; i < items.size() && budget_.ok(); ++i) {
      if (i > 0) Put(style_.item_separator);
      NewLine(level + 1);
      Write(items[i], level + 1);
    }
    NewLine(level);
    Put("]");
  }

  void Object(const Dict& dict, int level) {
    if (dict.size() == 0) return Put("{}");
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const Dict::Entry* a, const Dict::Entry* b) {
        return Ordered(a->first, "<", b->first, budget_);
      });
    }
    Put("{");
    for (size_t i = 0; i < entries.size() && budget_.ok(); ++i) {
      if (i > 0) Put(style_.item_separator);
      NewLine(level + 1);
      Key(entries[i]->first);
      Put(style_.key_separator);
      Write(entries[i]->second, level + 1);
    }
    NewLine(level);
    Put("}");
  }

  void Key(const Value& key) {
    if (key.is_text()) return String(key.text());
    if (!key.is_none() && !key.is_number()) {
      return budget_.Fail(absl::StrFormat("expected a key that JSON can hold, found %s", KindName(key)));
    }
    Put("\"");
    Write(key, 0);
    Put("\"");
  }

  void String(const SourcedText& text) {
    const std::string& bytes = text.bytes();
    if (!budget_.ChargeBytes(bytes.size())) return;
    Put("\"");
    size_t plain = 0;  // what is written as it is begins here
    for (size_t pos = 0; pos < bytes.size();) {
      const size_t begin = pos;
      const int32_t c = NextChar(bytes, &pos);
      const std::string escape = Escape(c);
      if (escape.empty()) continue;
      out_.AppendPart(text, plain, begin);
      out_.Append(escape, text.SourceAt(begin));
      plain = pos;
    }
    out_.AppendPart(text, plain, bytes.size());
    Put("\"");
  }

  // Empty: the character stands for itself.
  std::string Escape(int32_t c) const {
    switch (c) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\f':
        return "\\f";
      case '\b':
        return "\\b";
      default:
        break;
    }
    if (c >= 0 && c < 0x20) return absl::StrFormat("\\u%04x", c);
    if (c < 0x7F || !style_.ensure_ascii) return "";
    if (c < 0x10000) return absl::StrFormat("\\u%04x", c);
    const int32_t rest = c - 0x10000;
    return absl::StrFormat("\\u%04x\\u%04x", 0xD800 + (rest >> 10), 0xDC00 + (rest & 0x3FF));
  }

  const JsonStyle& style_;
  Budget& budget_;
  SourcedText out_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(std::string_view json, Source source) {
  Builder builder(source);
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &builder)) {
    return absl::InvalidArgumentError(builder.error());
  }
  return std::move(builder.result);
}

SourcedText WriteJson(const Value& value, const JsonStyle& style, Budget& budget) {
  return Writer(style, budget).Run(value);
}

}  // namespace updraft::jinja
