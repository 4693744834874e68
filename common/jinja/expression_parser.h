// Expressions, from the weakest binding (a if b else c) to names and constants.
#pragma once

#include <string>
#include <vector>

#include "common/jinja/ast.h"
#include "common/jinja/parser_base.h"

namespace updraft::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenReader* reader) : in_(*reader) {}

  ExprPtr Expression(bool with_condition = true);

  // One expression, or several with commas: then a tuple. Ends before the name `stop` and at the end of a tag.
  ExprPtr TupleOrExpression(bool with_condition = true, const char* stop = nullptr);

  // What can be assigned to: a name, a name's attribute (of a namespace), or a tuple of names. Ends before `stop`.
  ExprPtr Target(const char* stop = nullptr);
  ExprPtr NameTarget();

  // What follows a filter block's tag: name(arguments) | name ...
  ExprPtr FilterChain();

  // (arguments), from the opening bracket.
  CallArguments Arguments();

  // Names that were read since the beginning; for what a macro uses of caller, varargs and kwargs.
  const std::vector<std::string>& names() const { return names_; }

 private:
  ExprPtr Make(ExprKind kind) { return std::make_unique<Expr>(Expr{kind, in_.line()}); }
  ExprPtr Or();
  ExprPtr And();
  ExprPtr Not();
  ExprPtr Compare();
  ExprPtr Sum();
  ExprPtr Concat();
  ExprPtr Product();
  ExprPtr Power();
  ExprPtr Unary(bool with_filters = true);
  ExprPtr Primary();
  ExprPtr NamePrimary();
  ExprPtr Postfix(ExprPtr value);
  ExprPtr Filters(ExprPtr value);
  ExprPtr OneFilter(ExprPtr value);
  ExprPtr Test(ExprPtr value);
  ExprPtr AttributeOrIndex(ExprPtr value);
  ExprPtr Subscript();
  ExprPtr List();
  ExprPtr DictLiteral();
  ExprPtr Call(ExprPtr callee);
  std::string DottedName();
  bool BeginsTestArgument() const;
  bool EndsTuple(const char* stop) const;

  TokenReader& in_;
  std::vector<std::string> names_;
};

}  // namespace updraft::jinja
