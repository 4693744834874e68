// The interpreter's statements, and a run from beginning to end.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/jinja/interpreter.h"
#include "common/jinja/operators.h"

namespace updraft::jinja {

const Value* Scope::Find(const std::string& name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
    if (const auto it = scope->values_.find(name); it != scope->values_.end()) return &it->second;
  }
  return nullptr;
}

Interpreter::Interpreter(const Dict& globals, absl::Time now)
    : globals_(globals), now_(now), scope_(std::make_shared<Scope>(nullptr)) {}

// Macros hold the scopes that hold them, and namespaces may hold themselves.
Interpreter::~Interpreter() {
  for (const auto& space : namespaces_) space->members.clear();
  for (const ScopePtr& scope : captured_scopes_) scope->Clear();
}

absl::StatusOr<SourcedText> Interpreter::Run(const Body& body) {
  SourcedText out;
  out_ = &out;
  Execute(body);
  out_ = nullptr;
  if (!ok()) return budget_.status();
  return out;
}

Value Interpreter::MakeNamespace(Namespace members) {
  auto space = std::make_shared<Namespace>(std::move(members));
  namespaces_.push_back(space);
  return Value(std::move(space));
}

void Interpreter::Write(const Value& value) {
  if (!ok()) return;
  const SourcedText text = ToText(value, budget_);
  if (!ok() || !budget_.ChargeBytes(out_->size() + text.size() > kMaxTextBytes ? kMaxTextBytes + 1 : text.size()))
    return;
  out_->Append(text);
}

SourcedText Interpreter::Captured(const Body& body) {
  SourcedText text;
  SourcedText* const outer_out = std::exchange(out_, &text);
  const ScopePtr outer = std::exchange(scope_, std::make_shared<Scope>(scope_));
  Execute(body);
  scope_ = outer;
  out_ = outer_out;
  return text;
}

Interpreter::Flow Interpreter::Execute(const Body& body) {
  for (const StmtPtr& stmt : body) {
    if (!ok()) return Flow::kOn;
    if (const Flow flow = ExecuteOne(*stmt); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::ExecuteOne(const Stmt& stmt) {
  budget_.set_line(stmt.line);
  if (!budget_.Charge()) return Flow::kOn;
  switch (stmt.kind) {
    case StmtKind::kText:
      if (budget_.ChargeBytes(stmt.text.size() + out_->size() > kMaxTextBytes ? kMaxTextBytes + 1 : stmt.text.size())) {
        out_->Append(stmt.text, kTemplate);
      }
      break;
    case StmtKind::kOutput:
      Write(Eval(*stmt.value));
      break;
    case StmtKind::kFor:
      return For(stmt);
    case StmtKind::kIf:
      return If(stmt);
    case StmtKind::kSet: {
      Value value = Eval(*stmt.value);
      if (ok()) Assign(*stmt.target, std::move(value));
      break;
    }
    case StmtKind::kSetBlock:
      SetBlock(stmt);
      break;
    case StmtKind::kMacro:
      scope_->Set(stmt.callable->name, MakeMacro(*stmt.callable));
      break;
    case StmtKind::kCallBlock:
      CallBlock(stmt);
      break;
    case StmtKind::kFilterBlock:
      FilterBlock(stmt);
      break;
    case StmtKind::kWith:
      With(stmt);
      break;
    case StmtKind::kScope: {
      const ScopePtr outer = std::exchange(scope_, std::make_shared<Scope>(scope_));
      const Flow flow = Execute(stmt.body);
      scope_ = outer;
      return flow;
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

Interpreter::Flow Interpreter::If(const Stmt& stmt) {
  for (const Stmt::Alternative& alternative : stmt.alternatives) {
    const bool taken = alternative.condition == nullptr || Truthy(Eval(*alternative.condition));
    if (!ok()) break;
    if (taken) return Execute(alternative.body);
  }
  return Flow::kOn;
}

// The items that pass the loop's condition, which sees the target but no `loop`.
std::vector<Value> Interpreter::LoopItems(const Stmt& stmt) {
  const Value walked = Eval(*stmt.value);
  if (!ok()) return {};
  std::vector<Value> items = Elements(walked, budget_);
  if (stmt.condition == nullptr) return items;
  std::vector<Value> kept;
  const ScopePtr outer = scope_;
  for (Value& item : items) {
    scope_ = std::make_shared<Scope>(outer);
    Assign(*stmt.target, item);
    const bool keeps = ok() && Truthy(Eval(*stmt.condition));
    if (!ok()) break;
    if (keeps) kept.push_back(std::move(item));
  }
  scope_ = outer;
  return kept;
}

Interpreter::Flow Interpreter::For(const Stmt& stmt) {
  auto loop = std::make_shared<Loop>();
  loop->items = LoopItems(stmt);
  if (!ok()) return Flow::kOn;
  for (const Value& item : loop->items) loop->depth = std::max(loop->depth, 1 + item.depth());
  const ScopePtr outer = scope_;
  bool otherwise = true;  // no iteration has come to its end: Jinja looks no further before it runs the else
  for (; loop->index < loop->items.size() && ok(); ++loop->index) {
    scope_ = std::make_shared<Scope>(outer);
    scope_->Set("loop", Value(loop));
    Assign(*stmt.target, loop->items[loop->index]);
    const Flow flow = ok() ? Execute(stmt.body) : Flow::kOn;
    if (flow == Flow::kOn) otherwise = false;
    if (flow == Flow::kBreak) break;
  }
  Flow flow = Flow::kOn;
  if (otherwise && !stmt.alternatives.empty() && ok()) {
    scope_ = std::make_shared<Scope>(outer);
    flow = Execute(stmt.alternatives[0].body);
  }
  scope_ = outer;
  return flow;
}

void Interpreter::With(const Stmt& stmt) {
  auto inner = std::make_shared<Scope>(scope_);
  for (const auto& [target, value] : stmt.assignments) inner->Set(target->name, Eval(*value));
  const ScopePtr outer = std::exchange(scope_, inner);
  Execute(stmt.body);
  scope_ = outer;
}

// A filter without operand, given one: of a | b | c the innermost is `a`.
Value Interpreter::EvalFilterChain(const Expr& filter, Value operand) {
  if (filter.operands[0] != nullptr) operand = EvalFilterChain(*filter.operands[0], std::move(operand));
  return ok() ? EvalFilter(filter, std::move(operand)) : Value();
}

void Interpreter::SetBlock(const Stmt& stmt) {
  Value value(Captured(stmt.body));
  if (stmt.value != nullptr && ok()) value = EvalFilterChain(*stmt.value, std::move(value));
  if (ok()) Assign(*stmt.target, std::move(value));
}

void Interpreter::FilterBlock(const Stmt& stmt) {
  Value text(Captured(stmt.body));
  if (ok()) Write(EvalFilterChain(*stmt.value, std::move(text)));
}

void Interpreter::CallBlock(const Stmt& stmt) {
  const Value callee = Eval(*stmt.value->operands[0]);
  Arguments arguments = EvalArguments(stmt.value->arguments);
  arguments.named.emplace_back("caller", MakeMacro(*stmt.callable));
  if (ok()) Write(Call(callee, std::move(arguments)));
}

void Interpreter::Assign(const Expr& target, Value value) {
  if (target.kind == ExprKind::kName) return scope_->Set(target.name, std::move(value));
  if (target.kind == ExprKind::kAttribute) {
    const Value space = Eval(*target.operands[0]);
    if (!ok()) return;
    if (!space.is_namespace()) {
      return Fail(absl::StrFormat("expected a namespace to assign an attribute of, found %s", KindName(space)));
    }
    space.space().members[target.name] = std::move(value);
    return;
  }
  std::vector<Value> parts = value.is_undefined() ? std::vector<Value>() : Elements(value, budget_);
  if (!ok()) return;
  if (parts.size() != target.operands.size()) {
    return Fail(absl::StrFormat("expected %u values to assign, found %u", target.operands.size(), parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) Assign(*target.operands[i], std::move(parts[i]));
}

// ---- Macros ---------------------------------------------------------------------------------------------------------

Value Interpreter::MakeMacro(const MacroDefinition& macro) {
  captured_scopes_.push_back(scope_);
  const ScopePtr outer = scope_;
  const MacroDefinition* const definition = &macro;
  return Value(std::make_shared<const Callable>(
      Callable{absl::StrCat("macro ", macro.name), [definition, outer](Interpreter& in, Arguments arguments) {
                 return in.CallMacro(*definition, outer, std::move(arguments));
               }}));
}

Value Interpreter::CallMacro(const MacroDefinition& macro, const ScopePtr& outer, Arguments arguments) {
  if (macro_depth_ == kMaxDepth) {
    Fail(absl::StrFormat("expected macros that call each other at most %d deep, found more", kMaxDepth));
    return Value();
  }
  ++macro_depth_;
  const ScopePtr caller = std::exchange(scope_, std::make_shared<Scope>(outer));
  BindParameters(macro, arguments);
  Value text(ok() ? Captured(macro.body) : SourcedText());
  scope_ = caller;
  --macro_depth_;
  return text;
}

// Into scope_, which is the macro's own.
void Interpreter::BindParameters(const MacroDefinition& macro, Arguments& arguments) {
  const size_t n_parameters = macro.parameters.size();
  const size_t n_positional = std::min(arguments.positional.size(), n_parameters);
  const size_t first_default = n_parameters - macro.defaults.size();
  std::vector<size_t> missing;
  for (size_t i = 0; i < n_parameters && ok(); ++i) {
    const std::string& name = macro.parameters[i];
    const auto named = std::find_if(arguments.named.begin(), arguments.named.end(),
                                    [&](const auto& argument) { return argument.first == name; });
    if (i < n_positional) {
      if (named != arguments.named.end()) {
        return Fail(absl::StrFormat("macro %s: expected one value for '%s', found two", macro.name, name));
      }
      scope_->Set(name, std::move(arguments.positional[i]));
    } else if (named != arguments.named.end()) {
      scope_->Set(name, std::move(named->second));
      arguments.named.erase(named);
    } else {
      missing.push_back(i);
      scope_->Set(name, Value(Undefined{absl::StrFormat("parameter '%s' of macro %s", name, macro.name)}));
    }
  }
  // A default sees the parameters, its own and those after it as undefined.
  for (const size_t i : missing) {
    if (i >= first_default && ok()) scope_->Set(macro.parameters[i], Eval(*macro.defaults[i - first_default]));
  }
  if (ok()) BindRest(macro, arguments, n_positional);
}

void Interpreter::BindRest(const MacroDefinition& macro, Arguments& arguments, size_t n_positional) {
  const auto caller = std::find_if(arguments.named.begin(), arguments.named.end(),
                                   [](const auto& argument) { return argument.first == "caller"; });
  if (macro.uses_caller) {
    scope_->Set("caller", caller != arguments.named.end() ? std::move(caller->second)
                                                          : Value(Undefined{"'caller', as there is no call block"}));
    if (caller != arguments.named.end()) arguments.named.erase(caller);
  }
  if (macro.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : arguments.named) rest.Set(name, std::move(value));
    scope_->Set("kwargs", Value(std::move(rest)));
  } else if (!arguments.named.empty()) {
    return Fail(absl::StrFormat("macro %s: expected no argument named '%s', found one", macro.name,
                                arguments.named.front().first));
  }
  if (macro.uses_varargs) {
    scope_->Set("varargs", Value::Tuple({std::make_move_iterator(arguments.positional.begin() + n_positional),
                                         std::make_move_iterator(arguments.positional.end())}));
  } else if (arguments.positional.size() > macro.parameters.size()) {
    Fail(absl::StrFormat("macro %s: expected at most %u arguments, found %u", macro.name, macro.parameters.size(),
                         arguments.positional.size()));
  }
}

}  // namespace updraft::jinja
