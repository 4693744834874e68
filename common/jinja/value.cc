#include "common/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace updraft::jinja {
namespace {

// Of tuples as keys.
constexpr int kMaxKeyDepth = 8;
constexpr size_t kMaxKeyBytes = 1 << 16;

// Equal keys have equal codes; False for what cannot be a key. Numbers are keys by value: 1, 1.0 and true are one.
bool KeyCode(const Value& key, std::string* code, int depth = 0) {
  if (key.is_text()) {
    absl::StrAppend(code, "s", key.text().size(), ":", key.text().bytes());
  } else if (key.is_float() && (key.number() != std::floor(key.number()) || std::abs(key.number()) > 9e15)) {
    absl::StrAppend(code, "f", key.number());
  } else if (key.is_number()) {
    absl::StrAppend(code, "i", key.is_float() ? static_cast<int64_t>(key.number()) : key.integer());
  } else if (key.is_sequence(Sequence::Kind::kRange)) {
    const Sequence& range = key.sequence();
    absl::StrAppend(code, "r", range.items.size(), ":", range.first, ":", range.step);
  } else if (key.is_none()) {
    *code += "n";
  } else if (key.is_undefined()) {
    *code += "u";
  } else if (key.is_tuple() && depth < kMaxKeyDepth && code->size() < kMaxKeyBytes) {
    *code += "(";
    for (const Value& item : key.items()) {
      if (!KeyCode(item, code, depth + 1)) return false;
    }
    *code += ")";
  } else {
    return false;
  }
  return true;
}

std::string KeyCode(std::string_view key) { return absl::StrCat("s", key.size(), ":", std::string(key)); }

}  // namespace

Value::Value(Sequence sequence) {
  sequence.depth = 0;
  for (const Value& item : sequence.items) sequence.depth = std::max(sequence.depth, item.depth());
  ++sequence.depth;
  data_ = std::make_shared<const Sequence>(std::move(sequence));
}

int Value::depth() const {
  if (is_sequence()) return sequence().depth;
  if (is_dict()) return dict().depth();
  if (is_callable()) return callable().depth;
  if (is_loop()) return loop().depth;
  return 0;
}

bool Value::SameAs(const Value& other) const {
  if (data_.index() != other.data_.index()) return false;
  if (is_none()) return true;
  if (is_bool()) return boolean() == other.boolean();
  if (is_int()) return integer() == other.integer();
  if (is_text()) return std::get<Text>(data_) == std::get<Text>(other.data_);
  if (is_sequence()) return std::get<Seq>(data_) == std::get<Seq>(other.data_);
  if (is_dict()) return std::get<Map>(data_) == std::get<Map>(other.data_);
  if (is_namespace()) return std::get<Space>(data_) == std::get<Space>(other.data_);
  if (is_callable()) return std::get<Function>(data_) == std::get<Function>(other.data_);
  return false;
}

bool Dict::Set(const Value& key, Value value) {
  std::string code;
  if (!KeyCode(key, &code)) return false;
  depth_ = std::max({depth_, 1 + value.depth(), 1 + key.depth()});
  const auto [it, is_new] = index_.try_emplace(std::move(code), entries_.size());
  if (is_new) {
    entries_.emplace_back(key, std::move(value));
  } else {
    entries_[it->second].second = std::move(value);
  }
  return true;
}

void Dict::Set(std::string_view key, Value value) { Set(Value(std::string(key)), std::move(value)); }

const Value* Dict::Find(const Value& key) const {
  std::string code;
  if (!KeyCode(key, &code)) return nullptr;
  const auto it = index_.find(code);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

const Value* Dict::Find(std::string_view key) const {
  const auto it = index_.find(KeyCode(key));
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

std::string KindName(const Value& value) {
  if (value.is_undefined()) {
    return value.undefined().name.empty() ? "nothing" : absl::StrCat(value.undefined().name, ", which is not defined");
  }
  if (value.is_none()) return "none";
  if (value.is_bool()) return "a boolean";
  if (value.is_int()) return "an integer";
  if (value.is_float()) return "a float";
  if (value.is_text()) return "a string";
  if (value.is_dict()) return "a dict";
  if (value.is_namespace()) return "a namespace";
  if (value.is_callable()) return absl::StrCat("the function ", value.callable().name);
  if (value.is_loop()) return "a loop";
  switch (value.sequence().kind) {
    case Sequence::Kind::kList:
      return "a list";
    case Sequence::Kind::kTuple:
      return "a tuple";
    case Sequence::Kind::kRange:
      return "a range";
    case Sequence::Kind::kView:
      return absl::StrCat("a dict's ", value.sequence().view);
    case Sequence::Kind::kIterator:
      return "an iterator";
  }
  return "a sequence";
}

bool Truthy(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_float()) return value.number() != 0.0;
  if (value.is_number()) return value.integer() != 0;
  if (value.is_text()) return !value.text().empty();
  if (value.is_iterator()) return true;
  if (value.is_sequence()) return !value.items().empty();
  if (value.is_dict()) return value.dict().size() > 0;
  return true;
}

}  // namespace updraft::jinja
