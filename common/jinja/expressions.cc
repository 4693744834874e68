// The interpreter's expressions.
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/interpreter.h"
#include "common/jinja/operators.h"
#include "common/jinja/unicode.h"

namespace updraft::jinja {
namespace {

// Of expressions in expressions and of statements in statements, through macro calls; bounds the stack.
constexpr int kMaxEvaluationDepth = 600;

Value LoopAttribute(const Loop& loop, const std::string& name) {
  const auto n = static_cast<int64_t>(loop.items.size());
  const auto index = static_cast<int64_t>(loop.index);
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(n - index);
  if (name == "revindex0") return Value(n - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index + 1 == n);
  if (name == "length") return Value(n);
  if (name == "depth") return Value(int64_t{1});  // of recursive loops, which are not known
  if (name == "depth0") return Value(int64_t{0});
  if (name == "previtem") return index > 0 ? loop.items[loop.index - 1] : Value(Undefined{"there is no previous item"});
  if (name == "nextitem") return index + 1 < n ? loop.items[loop.index + 1] : Value(Undefined{"there is no next item"});
  return Value(Undefined{absl::StrCat("loop.", name)});
}

Value LoopMethod(const Value& value, const std::string& name) {
  const Value held = value;
  if (name == "cycle") {
    return Value(std::make_shared<const Callable>(
        Callable{"loop.cycle",
                 [held](Interpreter& in, Arguments arguments) {
                   if (arguments.positional.empty()) {
                     in.Fail("expected something to cycle through, found nothing");
                     return Value();
                   }
                   return arguments.positional[held.loop().index % arguments.positional.size()];
                 },
                 value.depth()}));
  }
  return Value(std::make_shared<const Callable>(Callable{"loop.changed",
                                                         [held](Interpreter& in, Arguments arguments) {
                                                           Value now = Value::Tuple(std::move(arguments.positional));
                                                           Loop& loop = held.loop();
                                                           const bool changed =
                                                               !loop.last_changed ||
                                                               !Equal(*loop.last_changed, now, in.budget());
                                                           loop.last_changed = std::move(now);
                                                           return Value(changed);
                                                         },
                                                         value.depth()}));
}

// The index of an element, or -1.
int64_t Position(const Value& index, size_t size) {
  int64_t at = index.integer();
  if (at < 0) at += static_cast<int64_t>(size);
  return at >= 0 && at < static_cast<int64_t>(size) ? at : -1;
}

struct SliceBounds {
  int64_t first, last, step;
};

// As Python's slice.indices.
SliceBounds BoundsOf(const Value& first, const Value& last, int64_t step, int64_t size) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto bound = [&](const Value& value, int64_t otherwise) {
    if (!value.is_number()) return otherwise;
    int64_t at = value.integer();
    if (at < 0) at = at < -size ? -1 - size : at;
    if (at < 0) at += size;
    return std::clamp(at, low, high);
  };
  return {bound(first, step > 0 ? low : high), bound(last, step > 0 ? high : low), step};
}

Value SliceText(const SourcedText& text, const Value& first, const Value& last, int64_t step, Interpreter& in) {
  const std::string& bytes = text.bytes();
  if (!in.budget().ChargeBytes(bytes.size())) return Value();
  const SliceBounds bounds = BoundsOf(first, last, step, static_cast<int64_t>(CountChars(bytes)));
  if (step == 1) {
    const size_t begin = OffsetOfChar(bytes, static_cast<size_t>(bounds.first));
    if (bounds.last <= bounds.first) return Value(SourcedText());
    const size_t n =
        OffsetOfChar(std::string_view(bytes).substr(begin), static_cast<size_t>(bounds.last - bounds.first));
    return Value(text.Part(begin, begin + n));
  }
  if (!in.budget().Charge(bytes.size())) return Value();
  std::vector<size_t> starts;
  for (size_t pos = 0; pos < bytes.size(); NextChar(bytes, &pos)) starts.push_back(pos);
  starts.push_back(bytes.size());
  SourcedText out;
  out.set_markup(text.is_markup());
  for (int64_t i = bounds.first; step > 0 ? i < bounds.last : i > bounds.last; i += step) {
    out.AppendPart(text, starts[static_cast<size_t>(i)], starts[static_cast<size_t>(i) + 1]);
  }
  return Value(std::move(out));
}

}  // namespace

class Interpreter::Deeper {
 public:
  explicit Deeper(Interpreter* in) : in_(in) {
    if (++in_->depth_ > kMaxEvaluationDepth) {
      in_->Fail(absl::StrFormat("expected at most %d levels of evaluation, found more; a macro calls itself too often",
                                kMaxEvaluationDepth));
    }
  }
  ~Deeper() { --in_->depth_; }

 private:
  Interpreter* in_;
};

Value Slice(const Value& value, const Value& first, const Value& last, const Value& step, Interpreter& in) {
  for (const Value* part : {&first, &last, &step}) {
    if (part->is_none() || (part->is_number() && !part->is_float())) continue;
    in.Fail(absl::StrFormat("expected an integer in a slice, found %s", KindName(*part)));
    return Value();
  }
  int64_t by = step.is_number() ? step.integer() : 1;
  if (by == 0) {
    in.Fail("expected a step other than zero in a slice, found zero");
    return Value();
  }
  by = std::clamp<int64_t>(by, -(int64_t{1} << 40), int64_t{1} << 40);
  if (value.is_text()) return SliceText(value.text(), first, last, by, in);
  if (!value.is_list() && !value.is_tuple() && !value.is_sequence(Sequence::Kind::kRange)) {
    in.Fail(absl::StrFormat("expected a string or a list to slice, found %s", KindName(value)));
    return Value();
  }
  const std::vector<Value>& items = value.items();
  const SliceBounds bounds = BoundsOf(first, last, by, static_cast<int64_t>(items.size()));
  std::vector<Value> taken;
  for (int64_t i = bounds.first; by > 0 ? i < bounds.last : i > bounds.last; i += by) {
    if (!in.budget().Charge()) return Value();
    taken.push_back(items[static_cast<size_t>(i)]);
  }
  const Sequence& of = value.sequence();
  return Value(Sequence{of.kind, std::move(taken), "", of.first + bounds.first * of.step,
                        of.first + bounds.last * of.step, of.step * by});
}

Value Interpreter::Name(const std::string& name) {
  if (const Value* value = scope_->Find(name)) return *value;
  if (const Value* value = globals_.Find(name)) return *value;
  Value function = FindFunction(name);
  return function.is_undefined() ? Value(Undefined{absl::StrCat("'", name, "'")}) : function;
}

Value Interpreter::Attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) {
    Fail(absl::StrFormat("expected something with an attribute '%s', found %s", name, KindName(value)));
    return Value();
  }
  if (value.is_namespace()) {
    const auto it = value.space().members.find(name);
    if (it != value.space().members.end()) return it->second;
  } else if (value.is_loop()) {
    return name == "cycle" || name == "changed" ? LoopMethod(value, name) : LoopAttribute(value.loop(), name);
  } else {
    Value method = FindMethod(value, name);
    if (!method.is_undefined()) return method;
    if (value.is_dict()) {
      if (const Value* item = value.dict().Find(name)) return *item;
    }
  }
  return Value(Undefined{absl::StrFormat("the attribute '%s' of %s", name, KindName(value))});
}

Value Interpreter::Item(const Value& value, const Value& index) {
  if (value.is_undefined()) {
    Fail(absl::StrFormat("expected something with items, found %s", KindName(value)));
    return Value();
  }
  if (index.is_text()) budget_.ChargeBytes(index.text().size());
  if (value.is_dict()) {
    if (const Value* item = value.dict().Find(index)) return *item;
  } else if (index.is_number() && !index.is_float()) {
    if (value.is_text()) {
      const std::string& bytes = value.text().bytes();
      if (!budget_.ChargeBytes(bytes.size())) return Value();
      const int64_t at = Position(index, CountChars(bytes));
      if (at >= 0) {
        const size_t begin = OffsetOfChar(bytes, static_cast<size_t>(at));
        size_t end = begin;
        NextChar(bytes, &end);
        return Value(value.text().Part(begin, end));
      }
    } else if (value.is_list() || value.is_tuple() || value.is_sequence(Sequence::Kind::kRange)) {
      const int64_t at = Position(index, value.items().size());
      if (at >= 0) return value.items()[static_cast<size_t>(at)];
    }
  }
  if (index.is_text()) {
    if (!value.is_dict()) return Attribute(value, index.text().bytes());
    Value method = FindMethod(value, index.text().bytes());
    if (!method.is_undefined()) return method;
    return Value(Undefined{absl::StrFormat("the key '%s' of a dict", index.text().bytes().substr(0, 40))});
  }
  return Value(Undefined{absl::StrFormat("an item of %s", KindName(value))});
}

Value Interpreter::Eval(const Expr& expr) {
  const Deeper deeper(this);
  budget_.set_line(expr.line);
  if (!budget_.Charge()) return Value();
  Value value = EvalKind(expr);
  if (value.depth() > kMaxDepth) {
    Fail(absl::StrFormat("expected values nested at most %d deep, found deeper ones", kMaxDepth));
    return Value();
  }
  return ok() ? std::move(value) : Value();
}

Value Interpreter::EvalKind(const Expr& expr) {
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return Name(expr.name);
    case ExprKind::kList:
    case ExprKind::kTuple:
      return EvalList(expr);
    case ExprKind::kDict:
      return EvalDict(expr);
    case ExprKind::kSlice:
      return EvalSlice(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvalAndOr(expr);
    case ExprKind::kCompare:
      return EvalCompare(expr);
    case ExprKind::kConcat:
      return EvalConcat(expr);
    case ExprKind::kCondition:
      if (Truthy(Eval(*expr.operands[1]))) return Eval(*expr.operands[0]);
      return expr.operands[2] != nullptr ? Eval(*expr.operands[2]) : Value(Undefined{"an if without else"});
    default:
      break;
  }
  Value first = Eval(*expr.operands[0]);
  if (!ok()) return Value();
  switch (expr.kind) {
    case ExprKind::kAttribute:
      return Attribute(first, expr.name);
    case ExprKind::kIndex: {
      const Value index = Eval(*expr.operands[1]);
      return ok() ? Item(first, index) : Value();
    }
    case ExprKind::kNot:
      return Value(!Truthy(first));
    case ExprKind::kNegative:
      return Negative(first, budget_);
    case ExprKind::kPositive:
      if (!first.is_number()) Fail(absl::StrFormat("expected a number after '+', found %s", KindName(first)));
      return first.is_bool() ? Value(first.integer()) : first;
    case ExprKind::kFilter:
      return EvalFilter(expr, std::move(first));
    case ExprKind::kMath:
      for (size_t i = 1; i < expr.operands.size() && ok(); ++i) {
        const Value right = Eval(*expr.operands[i]);
        budget_.set_line(expr.line);
        if (ok()) first = Calculate(first, expr.operators[i - 1], right, budget_);
      }
      return first;
    default:
      break;
  }
  Arguments arguments = EvalArguments(expr.arguments);
  if (!ok()) return Value();
  budget_.set_line(expr.line);
  if (expr.kind == ExprKind::kCall) return Call(first, std::move(arguments));
  arguments.positional.insert(arguments.positional.begin(), std::move(first));  // kTest
  return Value(CallTest(expr.name, std::move(arguments)));
}

Value Interpreter::EvalList(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& operand : expr.operands) items.push_back(Eval(*operand));
  return expr.kind == ExprKind::kList ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

Value Interpreter::EvalDict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.operands.size() && ok(); i += 2) {
    const Value key = Eval(*expr.operands[i]);
    Value value = Eval(*expr.operands[i + 1]);
    if (!dict.Set(key, std::move(value))) {
      Fail(absl::StrFormat("expected something that can be a key of a dict, found %s", KindName(key)));
    }
  }
  return Value(std::move(dict));
}

Value Interpreter::EvalSlice(const Expr& expr) {
  const Value value = Eval(*expr.operands[0]);
  const auto part = [&](size_t i) { return expr.operands[i] != nullptr ? Eval(*expr.operands[i]) : Value(None{}); };
  const Value first = part(1), last = part(2), step = part(3);
  budget_.set_line(expr.line);
  return ok() ? Slice(value, first, last, step, *this) : Value();
}

Value Interpreter::EvalAndOr(const Expr& expr) {
  Value value;
  for (const ExprPtr& operand : expr.operands) {
    value = Eval(*operand);
    if (!ok() || Truthy(value) == (expr.kind == ExprKind::kOr)) break;
  }
  return value;
}

Value Interpreter::EvalCompare(const Expr& expr) {
  Value left = Eval(*expr.operands[0]);
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    Value right = Eval(*expr.operands[i + 1]);
    if (!ok()) return Value();
    budget_.set_line(expr.line);
    const std::string& op = expr.operators[i];
    bool holds;
    if (op == "==" || op == "!=") {
      holds = Equal(left, right, budget_) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = Contains(right, left, budget_) == (op == "in");
    } else {
      holds = Ordered(left, op, right, budget_);
    }
    if (!holds) return Value(false);
    left = std::move(right);
  }
  return Value(true);
}

Value Interpreter::EvalConcat(const Expr& expr) {
  SourcedText text;
  for (const ExprPtr& operand : expr.operands) {
    const Value value = Eval(*operand);
    if (!ok()) return Value();
    budget_.set_line(expr.line);
    text.Append(ToText(value, budget_));
    if (!budget_.ChargeBytes(text.size())) return Value();
  }
  return Value(std::move(text));
}

Value Interpreter::EvalFilter(const Expr& expr, Value operand) {
  Arguments arguments = EvalArguments(expr.arguments);
  if (!ok()) return Value();
  budget_.set_line(expr.line);
  arguments.positional.insert(arguments.positional.begin(), std::move(operand));
  return CallFilter(expr.name, std::move(arguments));
}

Arguments Interpreter::EvalArguments(const CallArguments& arguments) {
  Arguments out;
  for (const ExprPtr& argument : arguments.positional) out.positional.push_back(Eval(*argument));
  for (const auto& [name, argument] : arguments.named) out.named.emplace_back(name, Eval(*argument));
  if (arguments.star != nullptr) {
    for (Value& value : Elements(Eval(*arguments.star), budget_)) out.positional.push_back(std::move(value));
  }
  if (arguments.star_star != nullptr) {
    const Value more = Eval(*arguments.star_star);
    if (!more.is_dict()) {
      Fail(absl::StrFormat("expected a dict after '**', found %s", KindName(more)));
      return out;
    }
    for (const auto& [key, value] : more.dict().entries()) {
      if (!key.is_text()) Fail(absl::StrFormat("expected names as keys after '**', found %s", KindName(key)));
      if (ok()) out.named.emplace_back(key.text().bytes(), value);
    }
  }
  return out;
}

Value Interpreter::Call(const Value& callee, Arguments arguments) {
  if (!callee.is_callable()) {
    Fail(absl::StrFormat("expected a function or a macro to call, found %s", KindName(callee)));
    return Value();
  }
  if (!budget_.Charge()) return Value();
  return callee.callable().call(*this, std::move(arguments));
}

Value Interpreter::CallFilter(std::string_view name, Arguments arguments) {
  const FilterFunction filter = FindFilter(name);
  if (filter == nullptr) {
    Fail(absl::StrFormat("expected a filter that is known, found '%s'", std::string(name.substr(0, 40))));
    return Value();
  }
  if (!budget_.Charge()) return Value();
  return filter(*this, std::move(arguments));
}

bool Interpreter::CallTest(std::string_view name, Arguments arguments) {
  const TestFunction test = FindTest(name);
  if (test == nullptr) {
    Fail(absl::StrFormat("expected a test that is known, found '%s'", std::string(name.substr(0, 40))));
    return false;
  }
  return budget_.Charge() && test(*this, std::move(arguments));
}

}  // namespace updraft::jinja
