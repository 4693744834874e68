// A parsed template. Chains of one operator are one node, so that the depth of the tree is that of the brackets.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/jinja/value.h"

namespace updraft::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, star_star;  // *args, **kwargs; null: none
};

enum class ExprKind {
  kConstant,   // constant
  kName,       // name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, ...
  kAttribute,  // operands[0].name
  kIndex,      // operands[0][operands[1]]
  kSlice,      // operands: of what, first, last, step; the last three may be null
  kCall,       // operands[0](arguments)
  kFilter,     // operands[0] | name(arguments); operands[0] null: of a filter block
  kTest,       // operands[0] is name(arguments)
  kNot,
  kNegative,
  kPositive,
  kMath,     // operands joined by operators (+ - * / // % **), left to right
  kConcat,   // operands joined by ~
  kCompare,  // operands joined by operators (== != < <= > >= in, not in), each pair must hold
  kAnd,
  kOr,
  kCondition,  // operands[0] if operands[1] else operands[2] (may be null)
};

struct Expr {
  ExprKind kind;
  int line;
  std::string name = {};
  Value constant = {};
  std::vector<ExprPtr> operands = {};
  std::vector<std::string> operators = {};
  CallArguments arguments = {};
};

struct Stmt;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

enum class StmtKind {
  kText,         // text
  kOutput,       // value
  kFor,          // target in value if condition: body, otherwise: alternatives[0].body
  kIf,           // alternatives, in order; the last may be without condition
  kSet,          // target = value
  kSetBlock,     // target = body, through `value` (a filter without operand) where it is there
  kMacro,        // callable
  kCallBlock,    // value (a call), with `callable` as its caller
  kFilterBlock,  // value (a filter without operand) of body
  kWith,         // assignments: body
  kScope,        // body (block, generation)
  kBreak,
  kContinue,
};

struct MacroDefinition {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  Body body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

struct Stmt {
  struct Alternative {
    ExprPtr condition;  // null: else
    Body body;
  };
  StmtKind kind;
  int line;
  std::string text = {};
  ExprPtr target = {}, value = {}, condition = {};
  Body body = {};
  std::vector<Alternative> alternatives = {};
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments = {};
  std::unique_ptr<MacroDefinition> callable = {};
};

}  // namespace updraft::jinja
