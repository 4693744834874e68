// Functions that every template has.
#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/jinja/arguments.h"
#include "common/jinja/interpreter.h"
#include "common/jinja/operators.h"

namespace updraft::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

Value Range(Interpreter& in, Arguments arguments) {
  const bool one = arguments.positional.size() == 1;
  const Bound args(in, "range", std::move(arguments), {"start", "stop", "step"}, 1);
  const int64_t first = one ? 0 : args.Integer(0, 0);
  const int64_t last = one ? args.Integer(0, 0) : args.Integer(1, 0);
  const int64_t step = args.Integer(2, 1);
  if (step == 0) in.Fail("range: expected a step other than zero, found zero");
  if (!in.ok()) return Value();
  std::vector<Value> items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    if (items.size() == static_cast<size_t>(kMaxRange)) {
      in.Fail(absl::StrFormat("range: expected at most %d numbers, found more", kMaxRange));
      return Value();
    }
    if (!in.budget().Charge()) return Value();
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value(Sequence{Sequence::Kind::kRange, std::move(items), "", first, last, step});
}

// The pairs of dict(mapping, name=value, ...) and of namespace(...).
Dict Pairs(Interpreter& in, const char* what, Arguments arguments) {
  Dict dict;
  if (arguments.positional.size() > 1) in.Fail(absl::StrFormat("%s: expected at most one dict, found more", what));
  for (const Value& given : arguments.positional) {
    if (given.is_undefined()) in.Fail(absl::StrFormat("%s: expected a dict, found %s", what, KindName(given)));
    if (given.is_dict()) {
      if (!in.budget().Charge(given.dict().size())) return dict;
      dict = given.dict();
      continue;
    }
    for (const Value& pair : Elements(given, in.budget())) {
      const std::vector<Value> parts = Elements(pair, in.budget());
      if (in.ok() && (parts.size() != 2 || !dict.Set(parts[0], parts[1]))) {
        in.Fail(absl::StrFormat("%s: expected pairs of a key and a value, found something else", what));
      }
    }
  }
  for (auto& [name, value] : arguments.named) dict.Set(name, std::move(value));
  return dict;
}

Value MakeDict(Interpreter& in, Arguments arguments) { return Value(Pairs(in, "dict", std::move(arguments))); }

Value MakeNamespace(Interpreter& in, Arguments arguments) {
  const Dict pairs = Pairs(in, "namespace", std::move(arguments));
  Namespace space;
  for (const auto& [key, value] : pairs.entries()) {
    if (key.is_text()) space.members[key.text().bytes()] = value;
  }
  return in.MakeNamespace(std::move(space));
}

Value RaiseException(Interpreter& in, Arguments arguments) {
  const Bound args(in, "raise_exception", std::move(arguments), {"message"}, 1);
  if (in.ok()) in.budget().Raise(ToText(args[0], in.budget()).bytes());
  return Value();
}

Value StrftimeNow(Interpreter& in, Arguments arguments) {
  const Bound args(in, "strftime_now", std::move(arguments), {"format"}, 1);
  const SourcedText format = args.Text(0);
  if (!in.ok()) return Value();
  if (format.size() > 256) in.Fail("strftime_now: expected a format of at most 256 bytes, found more");
  return in.ok() ? Value(absl::FormatTime(format.bytes(), in.now(), absl::LocalTimeZone())) : Value();
}

template <Value (*function)(Interpreter&, Arguments)>
Value Named(const char* name) {
  return Value(std::make_shared<const Callable>(Callable{name, function}));
}

}  // namespace

Value FindFunction(const std::string& name) {
  if (name == "range") return Named<Range>("range");
  if (name == "dict") return Named<MakeDict>("dict");
  if (name == "namespace") return Named<MakeNamespace>("namespace");
  if (name == "raise_exception") return Named<RaiseException>("raise_exception");
  if (name == "strftime_now") return Named<StrftimeNow>("strftime_now");
  return Value();
}

}  // namespace updraft::jinja
