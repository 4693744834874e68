// The values of a template: Python's, as far as templates see them. Immutable but for namespaces and the position of
// iterators, so they may be shared within one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/jinja/sourced_text.h"

namespace updraft::jinja {

class Value;
class Dict;
class Interpreter;
struct Loop;

struct Undefined {
  std::string name;  // what was looked for: "'x'", "an attribute 'x' of a dict"; for messages
};
struct None {};

// A list and everything that is walked like one.
struct Sequence {
  enum class Kind {
    kList,
    kTuple,
    kRange,
    kView,      // dict.keys() and the like: has a length, no indices
    kIterator,  // what map, select and their like give: no length, no indices, can be walked once
  };
  Kind kind = Kind::kList;
  std::vector<Value> items;
  const char* view = "";                  // kView: "keys", "values" or "items"
  int64_t first = 0, last = 0, step = 1;  // kRange: what it was made from
  mutable bool spent = false;             // kIterator
  int depth = 0;                          // set by Value
};

struct Namespace {
  absl::flat_hash_map<std::string, Value> members;
};

// What a call, a filter or a test is given.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

struct Callable {
  std::string name;  // for messages
  std::function<Value(Interpreter&, Arguments)> call;
  int depth = 0;  // of what it is bound to
};

class Value {
 public:
  using Text = std::shared_ptr<const SourcedText>;
  using Seq = std::shared_ptr<const Sequence>;
  using Map = std::shared_ptr<const Dict>;
  using Space = std::shared_ptr<Namespace>;
  using Function = std::shared_ptr<const Callable>;
  using LoopPtr = std::shared_ptr<Loop>;

  Value() : data_(Undefined{}) {}
  explicit Value(Undefined undefined) : data_(std::move(undefined)) {}
  explicit Value(None none) : data_(none) {}
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(SourcedText text) : data_(std::make_shared<const SourcedText>(std::move(text))) {}
  explicit Value(std::string text, Source source = kTemplate) : Value(SourcedText(std::move(text), source)) {}
  explicit Value(const char* text) : Value(std::string(text)) {}
  explicit Value(Sequence sequence);
  explicit Value(Dict dict);
  explicit Value(Space space) : data_(std::move(space)) {}
  explicit Value(Function function) : data_(std::move(function)) {}
  explicit Value(LoopPtr loop) : data_(std::move(loop)) {}

  static Value List(std::vector<Value> items) { return Value(Sequence{Sequence::Kind::kList, std::move(items)}); }
  static Value Tuple(std::vector<Value> items) { return Value(Sequence{Sequence::Kind::kTuple, std::move(items)}); }
  static Value Iterator(std::vector<Value> items) {
    return Value(Sequence{Sequence::Kind::kIterator, std::move(items)});
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }  // not a bool
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }  // as in Python, where True is 1
  bool is_text() const { return std::holds_alternative<Text>(data_); }
  bool is_sequence() const { return std::holds_alternative<Seq>(data_); }
  bool is_dict() const { return std::holds_alternative<Map>(data_); }
  bool is_namespace() const { return std::holds_alternative<Space>(data_); }
  bool is_callable() const { return std::holds_alternative<Function>(data_); }
  bool is_loop() const { return std::holds_alternative<LoopPtr>(data_); }
  bool is_sequence(Sequence::Kind kind) const { return is_sequence() && sequence().kind == kind; }
  bool is_list() const { return is_sequence(Sequence::Kind::kList); }
  bool is_tuple() const { return is_sequence(Sequence::Kind::kTuple); }
  bool is_iterator() const { return is_sequence(Sequence::Kind::kIterator); }

  // Each only of its kind.
  const Undefined& undefined() const { return std::get<Undefined>(data_); }
  bool boolean() const { return std::get<bool>(data_); }
  int64_t integer() const { return is_bool() ? static_cast<int64_t>(boolean()) : std::get<int64_t>(data_); }  // or bool
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }
  const SourcedText& text() const { return *std::get<Text>(data_); }
  const Sequence& sequence() const { return *std::get<Seq>(data_); }
  const std::vector<Value>& items() const { return sequence().items; }
  const Dict& dict() const { return *std::get<Map>(data_); }
  Namespace& space() const { return *std::get<Space>(data_); }
  const Callable& callable() const { return *std::get<Function>(data_); }
  Loop& loop() const { return *std::get<LoopPtr>(data_); }

  // How deeply lists, dicts and their like are nested in it; 0: not at all. Namespaces hide what they hold.
  int depth() const;

  // The same object, not an equal one.
  bool SameAs(const Value& other) const;

 private:
  std::variant<Undefined, None, bool, int64_t, double, Text, Seq, Map, Space, Function, LoopPtr> data_;
};

// Keys in the order in which they came.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  // False: the key cannot be one (a list, a dict).
  bool Set(const Value& key, Value value);
  void Set(std::string_view key, Value value);  // a key of the template's

  const Value* Find(const Value& key) const;  // null: not there, or cannot be a key
  const Value* Find(std::string_view key) const;

  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  int depth() const { return depth_; }

 private:
  int depth_ = 1;
  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, size_t> index_;
};

inline Value::Value(Dict dict) : data_(std::make_shared<const Dict>(std::move(dict))) {}

// The state that `loop` shows.
struct Loop {
  std::vector<Value> items;
  size_t index = 0;
  int depth = 1;  // of its items, and one
  std::optional<Value> last_changed;
};

// "a string", "a list", ...: for messages.
std::string KindName(const Value& value);

// Python's truth.
bool Truthy(const Value& value);

}  // namespace updraft::jinja
