// Runs a parsed template once. What filters, tests, methods and functions are given.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/jinja/ast.h"
#include "common/jinja/budget.h"
#include "common/jinja/value.h"

namespace updraft::jinja {

// Names and their values, and the scope around. Loops, macros, blocks and with open one; if does not.
class Scope {
 public:
  explicit Scope(std::shared_ptr<Scope> parent) : parent_(std::move(parent)) {}

  const Value* Find(const std::string& name) const;  // here or further out; null: nowhere
  void Set(const std::string& name, Value value) { values_[name] = std::move(value); }
  void Clear() { values_.clear(); }

 private:
  std::shared_ptr<Scope> parent_;
  absl::flat_hash_map<std::string, Value> values_;
};

class Interpreter {
 public:
  // `globals` are what the template is given; a name in it hides a function of ours. `now` is what strftime_now shows.
  Interpreter(const Dict& globals, absl::Time now);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  absl::StatusOr<SourcedText> Run(const Body& body);

  Budget& budget() { return budget_; }
  bool ok() const { return budget_.ok(); }
  void Fail(std::string_view what) { budget_.Fail(what); }
  absl::Time now() const { return now_; }

  Value CallFilter(std::string_view name, Arguments arguments);  // the operand is the first positional one
  bool CallTest(std::string_view name, Arguments arguments);
  Value Call(const Value& callee, Arguments arguments);

  // value.name and value[index], as a template's . and [] look for them.
  Value Attribute(const Value& value, const std::string& name);
  Value Item(const Value& value, const Value& index);

  Value MakeNamespace(Namespace members);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using ScopePtr = std::shared_ptr<Scope>;
  class Deeper;  // guards the depth of evaluation

  // ---- Statements (statements.cc) ----
  Flow Execute(const Body& body);
  Flow ExecuteOne(const Stmt& stmt);
  Flow If(const Stmt& stmt);
  Flow For(const Stmt& stmt);
  std::vector<Value> LoopItems(const Stmt& stmt);
  void With(const Stmt& stmt);
  void SetBlock(const Stmt& stmt);
  void FilterBlock(const Stmt& stmt);
  void CallBlock(const Stmt& stmt);
  void Assign(const Expr& target, Value value);
  void Write(const Value& value);
  SourcedText Captured(const Body& body);  // what body writes, in a scope of its own
  Value MakeMacro(const MacroDefinition& macro);
  Value CallMacro(const MacroDefinition& macro, const ScopePtr& outer, Arguments arguments);
  void BindParameters(const MacroDefinition& macro, Arguments& arguments);
  void BindRest(const MacroDefinition& macro, Arguments& arguments, size_t n_positional);

  // ---- Expressions (expressions.cc) ----
  Value Eval(const Expr& expr);
  Value EvalKind(const Expr& expr);
  Value EvalList(const Expr& expr);
  Value EvalDict(const Expr& expr);
  Value EvalSlice(const Expr& expr);
  Value EvalCompare(const Expr& expr);
  Value EvalConcat(const Expr& expr);
  Value EvalAndOr(const Expr& expr);
  Value EvalFilter(const Expr& expr, Value operand);
  Value EvalFilterChain(const Expr& filter, Value operand);
  Arguments EvalArguments(const CallArguments& arguments);
  Value Name(const std::string& name);

  const Dict& globals_;
  const absl::Time now_;
  Budget budget_;
  ScopePtr scope_;
  SourcedText* out_ = nullptr;
  int depth_ = 0;        // of evaluation, within Run
  int macro_depth_ = 0;  // of macro calls
  // What may refer to itself through macros and namespaces; emptied at the end.
  std::vector<ScopePtr> captured_scopes_;
  std::vector<std::shared_ptr<Namespace>> namespaces_;
};

// What [first:last:step] takes of a string or a list; undefined or none parts have their defaults.
Value Slice(const Value& value, const Value& first, const Value& last, const Value& step, Interpreter& in);

// Doors to the tables of filters (filters.cc), tests (tests.cc), methods of strings and dicts (methods.cc), functions
// (functions.cc). Find... return null for what is not there.
using FilterFunction = Value (*)(Interpreter&, Arguments);
using TestFunction = bool (*)(Interpreter&, Arguments);
FilterFunction FindFilter(std::string_view name);
TestFunction FindTest(std::string_view name);
// Bound to the value; undefined: it has no such method.
Value FindMethod(const Value& value, const std::string& name);
// range, dict, namespace, raise_exception, strftime_now; undefined: none of them.
Value FindFunction(const std::string& name);

}  // namespace updraft::jinja
