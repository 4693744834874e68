// Filters of what can be walked. What Jinja computes while it is walked (map, select, unique, ...) is computed at once
// here and walked later; only the order of errors can tell.
#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/jinja/arguments.h"
#include "common/jinja/filters.h"
#include "common/jinja/operators.h"
#include "common/jinja/text_functions.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {

Value ByPath(Interpreter& in, const Value& value, const Value& path) {
  if (!path.is_text()) return in.Item(value, path);
  Value found = value;
  for (const absl::string_view part : absl::StrSplit(path.text().bytes(), '.')) {
    if (!in.ok()) return Value();
    int64_t index = 0;
    const bool is_index = part.find_first_not_of("0123456789") == part.npos && absl::SimpleAtoi(part, &index);
    found = in.Item(found, is_index ? Value(index) : Value(std::string(part)));
  }
  return found;
}

namespace {

std::vector<Value> Walk(Interpreter& in, const Value& value) { return Elements(value, in.budget()); }

// map, select and their like take whatever is false for nothing.
std::vector<Value> WalkIfTrue(Interpreter& in, const Value& value) {
  return Truthy(value) ? Walk(in, value) : std::vector<Value>();
}

Value Length(Interpreter& in, Arguments arguments) {
  const Bound args(in, "length", std::move(arguments), {"value"}, 1);
  const Value& value = args[0];
  if (!in.ok()) return Value();
  if (value.is_undefined()) return Value(int64_t{0});
  if (value.is_text()) {
    in.budget().ChargeBytes(value.text().size());
    return Value(static_cast<int64_t>(CountChars(value.text().bytes())));
  }
  if (value.is_dict()) return Value(static_cast<int64_t>(value.dict().size()));
  if (value.is_sequence() && !value.is_iterator()) return Value(static_cast<int64_t>(value.items().size()));
  if (value.is_loop()) return Value(static_cast<int64_t>(value.loop().items.size()));
  in.Fail(absl::StrFormat("length: expected something with a length, found %s%s", KindName(value),
                          value.is_iterator() ? "; make a list of it first" : ""));
  return Value();
}

Value List(Interpreter& in, Arguments arguments) {
  const Bound args(in, "list", std::move(arguments), {"value"}, 1);
  return in.ok() ? Value::List(Walk(in, args[0])) : Value();
}

template <bool last>
Value FirstOrLast(Interpreter& in, Arguments arguments) {
  const Bound args(in, last ? "last" : "first", std::move(arguments), {"seq"}, 1);
  if (!in.ok()) return Value();
  if (last && args[0].is_iterator()) {
    in.Fail("last: expected something with an end, found an iterator; make a list of it first");
    return Value();
  }
  const std::vector<Value> items = Walk(in, args[0]);
  if (items.empty()) return Value(Undefined{last ? "the last of nothing" : "the first of nothing"});
  return last ? items.back() : items.front();
}

Value Join(Interpreter& in, Arguments arguments) {
  const Bound args(in, "join", std::move(arguments), {"value", "d", "attribute"}, 1);
  if (!in.ok()) return Value();
  const SourcedText separator = args.has(1) ? ToText(args[1], in.budget()) : SourcedText();
  std::vector<SourcedText> parts;
  for (const Value& item : Walk(in, args[0])) {
    parts.push_back(ToText(args.has_value(2) ? ByPath(in, item, args[2]) : item, in.budget()));
    if (!in.ok()) return Value();
  }
  return Value(Joined(parts, separator, in.budget()));
}

Value Reverse(Interpreter& in, Arguments arguments) {
  const Bound args(in, "reverse", std::move(arguments), {"value"}, 1);
  if (!in.ok()) return Value();
  if (args[0].is_text()) return Slice(args[0], Value(None{}), Value(None{}), Value(int64_t{-1}), in);
  std::vector<Value> items = Walk(in, args[0]);
  std::reverse(items.begin(), items.end());
  return args[0].is_iterator() ? Value::List(std::move(items)) : Value::Iterator(std::move(items));
}

Value Items(Interpreter& in, Arguments arguments) {
  const Bound args(in, "items", std::move(arguments), {"value"}, 1);
  if (!in.ok()) return Value();
  std::vector<Value> items;
  if (args[0].is_undefined()) return Value::Iterator(std::move(items));
  if (!args[0].is_dict()) {
    in.Fail(absl::StrFormat("items: expected a dict, found %s", KindName(args[0])));
    return Value();
  }
  if (!in.budget().Charge(args[0].dict().size())) return Value();
  for (const auto& [key, value] : args[0].dict().entries()) items.push_back(Value::Tuple({key, value}));
  return Value::Iterator(std::move(items));
}

Value Batch(Interpreter& in, Arguments arguments) {
  const Bound args(in, "batch", std::move(arguments), {"value", "linecount", "fill_with"}, 2);
  const int64_t size = args.Integer(1, 1);
  if (!in.ok()) return Value();
  std::vector<Value> batches, batch;
  for (Value& item : Walk(in, args[0])) {
    if (static_cast<int64_t>(batch.size()) == size) batches.push_back(Value::List(std::exchange(batch, {})));
    batch.push_back(std::move(item));
  }
  if (!batch.empty()) {
    while (args.has_value(2) && static_cast<int64_t>(batch.size()) < size && in.budget().Charge())
      batch.push_back(args[2]);
    batches.push_back(Value::List(std::move(batch)));
  }
  return Value::Iterator(std::move(batches));
}

Value Sum(Interpreter& in, Arguments arguments) {
  const Bound args(in, "sum", std::move(arguments), {"iterable", "attribute", "start"}, 1);
  if (!in.ok()) return Value();
  Value sum = args.has(2) ? args[2] : Value(int64_t{0});
  for (const Value& item : Walk(in, args[0])) {
    sum = Calculate(sum, "+", args.has_value(1) ? ByPath(in, item, args[1]) : item, in.budget());
    if (!in.ok()) return Value();
  }
  return sum;
}

// ---- Order ----------------------------------------------------------------------------------------------------------

struct Keyed {
  Value key, value;
};

Value Folded(const Value& key, bool case_sensitive) {
  return case_sensitive || !key.is_text() ? key : Value(Lower(key.text()));
}

std::vector<Keyed> WithKeys(Interpreter& in, const Value& walked, const Value* path, bool case_sensitive) {
  std::vector<Keyed> keyed;
  for (Value& value : Walk(in, walked)) {
    Value key = Folded(path != nullptr ? ByPath(in, value, *path) : value, case_sensitive);
    keyed.push_back({std::move(key), std::move(value)});
    if (!in.ok()) return {};
  }
  return keyed;
}

// Stable, also when reversed, as Python's. An order that fails half-way leaves any order.
void SortByKey(Interpreter& in, std::vector<Keyed>* keyed, bool reverse) {
  const auto before = [&](const Keyed& a, const Keyed& b) {
    return reverse ? Ordered(b.key, "<", a.key, in.budget()) : Ordered(a.key, "<", b.key, in.budget());
  };
  // Merge sort asks only for what an inconsistent order (NaN, or after a failure) may answer.
  std::stable_sort(keyed->begin(), keyed->end(), before);
}

Value Sort(Interpreter& in, Arguments arguments) {
  const Bound args(in, "sort", std::move(arguments), {"value", "reverse", "case_sensitive", "attribute"}, 1);
  if (!in.ok()) return Value();
  std::vector<Keyed> keyed;
  if (args.has_value(3) && args[3].is_text()) {  // several attributes with commas
    for (Value& value : Walk(in, args[0])) {
      std::vector<Value> keys;
      for (const absl::string_view path : absl::StrSplit(args[3].text().bytes(), ',')) {
        keys.push_back(Folded(ByPath(in, value, Value(std::string(path))), args.Flag(2, false)));
        if (!in.ok()) return Value();
      }
      keyed.push_back({Value::List(std::move(keys)), std::move(value)});
    }
  } else {
    keyed = WithKeys(in, args[0], args.has_value(3) ? &args[3] : nullptr, args.Flag(2, false));
  }
  SortByKey(in, &keyed, args.Flag(1, false));
  std::vector<Value> items;
  for (Keyed& item : keyed) items.push_back(std::move(item.value));
  return Value::List(std::move(items));
}

Value DictSort(Interpreter& in, Arguments arguments) {
  const Bound args(in, "dictsort", std::move(arguments), {"value", "case_sensitive", "by", "reverse"}, 1);
  const std::string by = args.Text(2, "key").bytes();
  if (in.ok() && by != "key" && by != "value") in.Fail("dictsort: expected by='key' or by='value', found another");
  if (in.ok() && !args[0].is_dict()) in.Fail(absl::StrFormat("dictsort: expected a dict, found %s", KindName(args[0])));
  if (!in.ok()) return Value();
  std::vector<Keyed> keyed;
  for (const auto& [key, value] : args[0].dict().entries()) {
    if (!in.budget().Charge()) return Value();
    keyed.push_back({Folded(by == "key" ? key : value, args.Flag(1, false)), Value::Tuple({key, value})});
  }
  SortByKey(in, &keyed, args.Flag(3, false));
  std::vector<Value> items;
  for (Keyed& item : keyed) items.push_back(std::move(item.value));
  return Value::List(std::move(items));
}

template <bool largest>
Value MinOrMax(Interpreter& in, Arguments arguments) {
  const Bound args(in, largest ? "max" : "min", std::move(arguments), {"value", "case_sensitive", "attribute"}, 1);
  if (!in.ok()) return Value();
  const std::vector<Keyed> keyed = WithKeys(in, args[0], args.has_value(2) ? &args[2] : nullptr, args.Flag(1, false));
  if (keyed.empty()) return Value(Undefined{"the least or largest of nothing"});
  const Keyed* best = &keyed[0];
  for (const Keyed& item : keyed) {
    if (&item != best && Ordered(item.key, largest ? ">" : "<", best->key, in.budget())) best = &item;
    if (!in.ok()) return Value();
  }
  return best->value;
}

Value Unique(Interpreter& in, Arguments arguments) {
  const Bound args(in, "unique", std::move(arguments), {"value", "case_sensitive", "attribute"}, 1);
  if (!in.ok()) return Value();
  Dict seen;
  std::vector<Value> items;
  for (Keyed& item : WithKeys(in, args[0], args.has_value(2) ? &args[2] : nullptr, args.Flag(1, false))) {
    const size_t before = seen.size();
    if (!seen.Set(item.key, Value(true))) {
      in.Fail(absl::StrFormat("unique: expected values that can be keys of a dict, found %s", KindName(item.key)));
      return Value();
    }
    if (seen.size() > before) items.push_back(std::move(item.value));
  }
  return Value::Iterator(std::move(items));
}

Value GroupBy(Interpreter& in, Arguments arguments) {
  const Bound args(in, "groupby", std::move(arguments), {"value", "attribute", "default", "case_sensitive"}, 2);
  if (!in.ok()) return Value();
  std::vector<Keyed> keyed;
  for (Value& value : Walk(in, args[0])) {
    Value key = ByPath(in, value, args[1]);
    if (key.is_undefined() && args.has(2)) key = args[2];
    keyed.push_back({std::move(key), std::move(value)});
    if (!in.ok()) return Value();
  }
  const auto fold = [&](const Value& key) { return Folded(key, args.Flag(3, false)); };
  std::vector<Keyed> sorted;
  for (Keyed& item : keyed) sorted.push_back({fold(item.key), Value::Tuple({item.key, item.value})});
  SortByKey(in, &sorted, false);
  std::vector<Value> groups, group;
  for (size_t i = 0; i < sorted.size() && in.ok(); ++i) {
    group.push_back(sorted[i].value.items()[1]);
    if (i + 1 < sorted.size() && Equal(sorted[i].key, sorted[i + 1].key, in.budget())) continue;
    const Value& first = sorted[i + 1 - group.size()].value.items()[0];
    groups.push_back(Value::Tuple({first, Value::List(std::exchange(group, {}))}));
  }
  return Value::List(std::move(groups));
}

// ---- Each element by a filter or a test -----------------------------------------------------------------------------

Value Map(Interpreter& in, Arguments arguments) {
  if (arguments.positional.empty()) in.Fail("map: expected something to walk over, found nothing");
  if (!in.ok()) return Value();
  std::vector<Value> items = WalkIfTrue(in, arguments.positional[0]);
  if (arguments.positional.size() == 1) {
    const Bound args(in, "map", std::move(arguments), {"value", "attribute", "default"}, 1);
    if (in.ok() && !args.has(1)) in.Fail("map: expected attribute=... or the name of a filter, found neither");
    for (Value& item : items) {
      if (!in.ok()) return Value();
      Value found = ByPath(in, item, args[1]);
      item = found.is_undefined() && args.has(2) ? args[2] : std::move(found);
    }
    return Value::Iterator(std::move(items));
  }
  if (!arguments.positional[1].is_text()) {
    in.Fail(absl::StrFormat("map: expected the name of a filter, found %s", KindName(arguments.positional[1])));
    return Value();
  }
  const std::string name = arguments.positional[1].text().bytes();
  for (Value& item : items) {
    if (!in.ok()) return Value();
    Arguments each{{std::move(item)}, arguments.named};
    each.positional.insert(each.positional.end(), arguments.positional.begin() + 2, arguments.positional.end());
    item = in.CallFilter(name, std::move(each));
  }
  return Value::Iterator(std::move(items));
}

template <bool keep, bool by_attribute>
Value Select(Interpreter& in, Arguments arguments) {
  constexpr size_t kTest = by_attribute ? 2 : 1;  // before it: what is walked, and the attribute
  const char* what = by_attribute ? (keep ? "selectattr" : "rejectattr") : (keep ? "select" : "reject");
  if (arguments.positional.size() < kTest) {
    in.Fail(absl::StrFormat("%s: expected at least %u arguments, found %u", what, kTest, arguments.positional.size()));
    return Value();
  }
  const bool has_test = arguments.positional.size() > kTest;
  if (has_test && !arguments.positional[kTest].is_text()) {
    in.Fail(absl::StrFormat("%s: expected the name of a test, found %s", what, KindName(arguments.positional[kTest])));
    return Value();
  }
  std::vector<Value> kept;
  for (Value& item : WalkIfTrue(in, arguments.positional[0])) {
    Value tested = by_attribute ? ByPath(in, item, arguments.positional[1]) : item;
    if (!in.ok()) return Value();
    bool passes = Truthy(tested);
    if (has_test) {
      Arguments each{{std::move(tested)}, arguments.named};
      each.positional.insert(each.positional.end(), arguments.positional.begin() + kTest + 1,
                             arguments.positional.end());
      passes = in.CallTest(arguments.positional[kTest].text().bytes(), std::move(each));
    }
    if (!in.ok()) return Value();
    if (passes == keep) kept.push_back(std::move(item));
  }
  return Value::Iterator(std::move(kept));
}

}  // namespace

const Filters& SequenceFilters() {
  static const auto* const filters = new Filters{
      {"length", Length},
      {"count", Length},
      {"list", List},
      {"first", FirstOrLast<false>},
      {"last", FirstOrLast<true>},
      {"join", Join},
      {"reverse", Reverse},
      {"items", Items},
      {"batch", Batch},
      {"sum", Sum},
      {"sort", Sort},
      {"dictsort", DictSort},
      {"min", MinOrMax<false>},
      {"max", MinOrMax<true>},
      {"unique", Unique},
      {"groupby", GroupBy},
      {"map", Map},
      {"select", Select<true, false>},
      {"reject", Select<false, false>},
      {"selectattr", Select<true, true>},
      {"rejectattr", Select<false, true>},
  };
  return *filters;
}

FilterFunction FindFilter(std::string_view name) {
  for (const Filters* filters : {&TextFilters(), &SequenceFilters()}) {
    if (const auto it = filters->find(name); it != filters->end()) return it->second;
  }
  return nullptr;
}

}  // namespace updraft::jinja
