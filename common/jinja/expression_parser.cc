#include "common/jinja/expression_parser.h"

#include <charconv>
#include <initializer_list>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace updraft::jinja {
namespace {

// a | b | c and a.b.c nest to the left without a bracket.
constexpr int kMaxChain = kMaxDepth;

}  // namespace

ExprPtr ExpressionParser::Expression(bool with_condition) {
  const TokenReader::Deeper deeper(&in_);
  if (!in_.ok()) return Make(ExprKind::kConstant);
  ExprPtr value = Or();
  while (with_condition && in_.ok() && in_.IsName("if")) {
    ExprPtr condition = Make(ExprKind::kCondition);
    in_.Skip();
    condition->operands.push_back(std::move(value));
    condition->operands.push_back(Or());
    condition->operands.push_back(in_.SkipName("else") ? Expression() : nullptr);
    value = std::move(condition);
  }
  return value;
}

ExprPtr ExpressionParser::Or() {
  ExprPtr left = And();
  if (!in_.IsName("or")) return left;
  ExprPtr chain = Make(ExprKind::kOr);
  chain->operands.push_back(std::move(left));
  while (in_.SkipName("or")) chain->operands.push_back(And());
  return chain;
}

ExprPtr ExpressionParser::And() {
  ExprPtr left = Not();
  if (!in_.IsName("and")) return left;
  ExprPtr chain = Make(ExprKind::kAnd);
  chain->operands.push_back(std::move(left));
  while (in_.SkipName("and")) chain->operands.push_back(Not());
  return chain;
}

ExprPtr ExpressionParser::Not() {
  if (!in_.IsName("not")) return Compare();
  const TokenReader::Deeper deeper(&in_);
  ExprPtr negation = Make(ExprKind::kNot);
  in_.Skip();
  negation->operands.push_back(in_.ok() ? Not() : Make(ExprKind::kConstant));
  return negation;
}

ExprPtr ExpressionParser::Compare() {
  ExprPtr left = Sum();
  const auto next_operator = [&]() -> std::string {
    for (const char* op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (in_.SkipOperator(op)) return op;
    }
    if (in_.SkipName("in")) return "in";
    if (in_.ok() && in_.IsName("not") && in_.Ahead().kind == TokenKind::kName && in_.Ahead().text == "in") {
      in_.Skip();
      in_.Skip();
      return "not in";
    }
    return "";
  };
  ExprPtr chain;
  const int line = in_.line();
  for (std::string op = next_operator(); !op.empty(); op = next_operator()) {
    if (chain == nullptr) {
      chain = std::make_unique<Expr>(Expr{ExprKind::kCompare, line});
      chain->operands.push_back(std::move(left));
    }
    chain->operators.push_back(std::move(op));
    chain->operands.push_back(Sum());
  }
  return chain != nullptr ? std::move(chain) : std::move(left);
}

ExprPtr ExpressionParser::Sum() {
  ExprPtr left = Concat();
  if (!in_.IsOperator("+") && !in_.IsOperator("-")) return left;
  ExprPtr chain = Make(ExprKind::kMath);
  chain->operands.push_back(std::move(left));
  while (in_.ok() && (in_.IsOperator("+") || in_.IsOperator("-"))) {
    chain->operators.push_back(in_.Now().text);
    in_.Skip();
    chain->operands.push_back(Concat());
  }
  return chain;
}

ExprPtr ExpressionParser::Concat() {
  ExprPtr left = Product();
  if (!in_.IsOperator("~")) return left;
  ExprPtr chain = Make(ExprKind::kConcat);
  chain->operands.push_back(std::move(left));
  while (in_.SkipOperator("~")) chain->operands.push_back(Product());
  return chain;
}

ExprPtr ExpressionParser::Product() {
  ExprPtr left = Power();
  const auto is_operator = [&] {
    return in_.IsOperator("*") || in_.IsOperator("/") || in_.IsOperator("//") || in_.IsOperator("%");
  };
  if (!is_operator()) return left;
  ExprPtr chain = Make(ExprKind::kMath);
  chain->operands.push_back(std::move(left));
  while (in_.ok() && is_operator()) {
    chain->operators.push_back(in_.Now().text);
    in_.Skip();
    chain->operands.push_back(Power());
  }
  return chain;
}

ExprPtr ExpressionParser::Power() {
  ExprPtr left = Unary();
  if (!in_.IsOperator("**")) return left;
  ExprPtr chain = Make(ExprKind::kMath);
  chain->operands.push_back(std::move(left));
  while (in_.SkipOperator("**")) {
    chain->operators.push_back("**");
    chain->operands.push_back(Unary());
  }
  return chain;
}

ExprPtr ExpressionParser::Unary(bool with_filters) {
  const TokenReader::Deeper deeper(&in_);
  if (!in_.ok()) return Make(ExprKind::kConstant);
  ExprPtr value;
  if (in_.IsOperator("-") || in_.IsOperator("+")) {
    value = Make(in_.IsOperator("-") ? ExprKind::kNegative : ExprKind::kPositive);
    in_.Skip();
    value->operands.push_back(Unary(/*with_filters=*/false));
  } else {
    value = Primary();
  }
  value = Postfix(std::move(value));
  return with_filters ? Filters(std::move(value)) : std::move(value);
}

// ---- Names, constants, brackets -------------------------------------------------------------------------------------

ExprPtr ExpressionParser::NamePrimary() {
  ExprPtr value = Make(ExprKind::kConstant);
  const std::string name = in_.ExpectName();
  if (name == "true" || name == "True") {
    value->constant = Value(true);
  } else if (name == "false" || name == "False") {
    value->constant = Value(false);
  } else if (name == "none" || name == "None") {
    value->constant = Value(None{});
  } else {
    value->kind = ExprKind::kName;
    value->name = name;
    names_.push_back(name);
  }
  return value;
}

ExprPtr ExpressionParser::Primary() {
  if (in_.Is(TokenKind::kName)) return NamePrimary();
  ExprPtr value = Make(ExprKind::kConstant);
  const Token& token = in_.Now();
  if (token.kind == TokenKind::kString) {
    std::string text;
    for (; in_.Is(TokenKind::kString); in_.Skip()) text += in_.Now().text;
    value->constant = Value(std::move(text));
  } else if (token.kind == TokenKind::kInteger) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(token.text, &number)) in_.Expected("an integer of at most 64 bits");
    value->constant = Value(number);
    in_.Skip();
  } else if (token.kind == TokenKind::kFloat) {
    double number = 0;
    if (!absl::SimpleAtod(token.text, &number)) in_.Expected("a number");
    value->constant = Value(number);
    in_.Skip();
  } else if (in_.SkipOperator("(")) {
    if (in_.SkipOperator(")")) return Make(ExprKind::kTuple);
    value = TupleOrExpression();
    in_.ExpectOperator(")");
  } else if (in_.IsOperator("[")) {
    return List();
  } else if (in_.IsOperator("{")) {
    return DictLiteral();
  } else {
    in_.Expected("an expression");
  }
  return value;
}

ExprPtr ExpressionParser::List() {
  ExprPtr list = Make(ExprKind::kList);
  in_.ExpectOperator("[");
  while (in_.ok() && !in_.IsOperator("]")) {
    if (!list->operands.empty()) in_.ExpectOperator(",");
    if (in_.IsOperator("]")) break;
    list->operands.push_back(Expression());
  }
  in_.ExpectOperator("]");
  return list;
}

ExprPtr ExpressionParser::DictLiteral() {
  ExprPtr dict = Make(ExprKind::kDict);
  in_.ExpectOperator("{");
  while (in_.ok() && !in_.IsOperator("}")) {
    if (!dict->operands.empty()) in_.ExpectOperator(",");
    if (in_.IsOperator("}")) break;
    dict->operands.push_back(Expression());
    in_.ExpectOperator(":");
    dict->operands.push_back(Expression());
  }
  in_.ExpectOperator("}");
  return dict;
}

bool ExpressionParser::EndsTuple(const char* stop) const {
  return !in_.ok() || in_.Is(TokenKind::kVariableEnd) || in_.Is(TokenKind::kBlockEnd) || in_.IsOperator(")") ||
         (stop != nullptr && in_.IsName(stop));
}

ExprPtr ExpressionParser::TupleOrExpression(bool with_condition, const char* stop) {
  ExprPtr first = Expression(with_condition);
  if (!in_.IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple);
  tuple->operands.push_back(std::move(first));
  while (in_.SkipOperator(",") && !EndsTuple(stop)) tuple->operands.push_back(Expression(with_condition));
  return tuple;
}

// ---- What follows a value -------------------------------------------------------------------------------------------

ExprPtr ExpressionParser::Postfix(ExprPtr value) {
  for (int n = 0; in_.ok(); ++n) {
    if (n > kMaxChain) in_.Fail(absl::StrFormat("expected at most %d of . [ ( after one value, found more", kMaxChain));
    if (in_.IsOperator(".") || in_.IsOperator("[")) {
      value = AttributeOrIndex(std::move(value));
    } else if (in_.IsOperator("(")) {
      value = Call(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

ExprPtr ExpressionParser::Filters(ExprPtr value) {
  for (int n = 0; in_.ok(); ++n) {
    if (n > kMaxChain) in_.Fail(absl::StrFormat("expected at most %d filters in a row, found more", kMaxChain));
    if (in_.SkipOperator("|")) {
      value = OneFilter(std::move(value));
    } else if (in_.IsName("is")) {
      value = Test(std::move(value));
    } else if (in_.IsOperator("(")) {  // calls may follow filters
      value = Call(std::move(value));
    } else {
      break;
    }
  }
  return value;
}

std::string ExpressionParser::DottedName() {
  std::string name = in_.ExpectName();
  while (in_.SkipOperator(".")) name += "." + in_.ExpectName();
  return name;
}

ExprPtr ExpressionParser::OneFilter(ExprPtr value) {
  ExprPtr filter = Make(ExprKind::kFilter);
  filter->name = DottedName();
  filter->operands.push_back(std::move(value));
  if (in_.IsOperator("(")) filter->arguments = Arguments();
  return filter;
}

ExprPtr ExpressionParser::FilterChain() {
  ExprPtr value = OneFilter(nullptr);
  for (int n = 0; in_.SkipOperator("|"); ++n) {
    if (n > kMaxChain) in_.Fail(absl::StrFormat("expected at most %d filters in a row, found more", kMaxChain));
    value = OneFilter(std::move(value));
  }
  return value;
}

bool ExpressionParser::BeginsTestArgument() const {
  if (in_.Is(TokenKind::kName)) {
    return !in_.IsName("else") && !in_.IsName("or") && !in_.IsName("and");
  }
  return in_.Is(TokenKind::kString) || in_.Is(TokenKind::kInteger) || in_.Is(TokenKind::kFloat) ||
         in_.IsOperator("[") || in_.IsOperator("{");
}

ExprPtr ExpressionParser::Test(ExprPtr value) {
  ExprPtr test = Make(ExprKind::kTest);
  in_.Skip();  // is
  ExprPtr negation;
  if (in_.IsName("not")) {
    negation = Make(ExprKind::kNot);
    in_.Skip();
  }
  test->name = DottedName();
  test->operands.push_back(std::move(value));
  if (in_.ok() && in_.IsOperator("(")) {
    test->arguments = Arguments();
  } else if (in_.ok() && BeginsTestArgument()) {
    if (in_.IsName("is")) in_.Fail("expected one test, found 'is' after 'is'");
    const TokenReader::Deeper deeper(&in_);
    test->arguments.positional.push_back(Postfix(in_.ok() ? Primary() : Make(ExprKind::kConstant)));
  }
  if (negation == nullptr) return test;
  negation->operands.push_back(std::move(test));
  return negation;
}

ExprPtr ExpressionParser::AttributeOrIndex(ExprPtr value) {
  if (in_.SkipOperator(".")) {
    if (in_.Is(TokenKind::kInteger)) {
      ExprPtr index = Make(ExprKind::kIndex);
      index->operands.push_back(std::move(value));
      index->operands.push_back(Primary());
      return index;
    }
    ExprPtr attribute = Make(ExprKind::kAttribute);
    attribute->name = in_.ExpectName();
    attribute->operands.push_back(std::move(value));
    return attribute;
  }
  ExprPtr index = Make(ExprKind::kIndex);
  in_.ExpectOperator("[");
  ExprPtr subscript = Subscript();
  if (in_.IsOperator(",")) {
    ExprPtr tuple = Make(ExprKind::kTuple);
    tuple->operands.push_back(std::move(subscript));
    while (in_.SkipOperator(",")) tuple->operands.push_back(Subscript());
    for (const ExprPtr& part : tuple->operands) {
      if (part->kind == ExprKind::kSlice) in_.Fail("expected one slice, found several");
    }
    subscript = std::move(tuple);
  }
  in_.ExpectOperator("]");
  if (subscript->kind == ExprKind::kSlice && subscript->operands[0] == nullptr) {
    subscript->operands[0] = std::move(value);
    return subscript;
  }
  index->operands.push_back(std::move(value));
  index->operands.push_back(std::move(subscript));
  return index;
}

// An index, or a slice whose operand is still missing.
ExprPtr ExpressionParser::Subscript() {
  ExprPtr slice = Make(ExprKind::kSlice);
  slice->operands.resize(4);
  if (!in_.IsOperator(":")) {
    ExprPtr first = Expression();
    if (!in_.IsOperator(":")) return first;
    slice->operands[1] = std::move(first);
  }
  for (size_t part = 2; part < 4 && in_.SkipOperator(":"); ++part) {
    if (!in_.IsOperator(":") && !in_.IsOperator("]") && !in_.IsOperator(",")) slice->operands[part] = Expression();
  }
  return slice;
}

ExprPtr ExpressionParser::Call(ExprPtr callee) {
  ExprPtr call = Make(ExprKind::kCall);
  call->operands.push_back(std::move(callee));
  call->arguments = Arguments();
  return call;
}

CallArguments ExpressionParser::Arguments() {
  CallArguments arguments;
  in_.ExpectOperator("(");
  for (bool first = true; in_.ok() && !in_.IsOperator(")"); first = false) {
    if (!first) in_.ExpectOperator(",");
    if (in_.IsOperator(")")) break;
    if (in_.SkipOperator("*")) {
      if (arguments.star != nullptr || arguments.star_star != nullptr) in_.Fail("expected one *, found another");
      arguments.star = Expression();
    } else if (in_.SkipOperator("**")) {
      if (arguments.star_star != nullptr) in_.Fail("expected one **, found another");
      arguments.star_star = Expression();
    } else if (in_.Is(TokenKind::kName) && in_.Ahead().kind == TokenKind::kOperator && in_.Ahead().text == "=") {
      std::string name = in_.ExpectName();
      in_.Skip();
      arguments.named.emplace_back(std::move(name), Expression());
    } else {
      if (!arguments.named.empty() || arguments.star != nullptr || arguments.star_star != nullptr) {
        in_.Fail("expected arguments without names before those with, found one after");
      }
      arguments.positional.push_back(Expression());
    }
  }
  in_.ExpectOperator(")");
  return arguments;
}

// ---- Targets --------------------------------------------------------------------------------------------------------

ExprPtr ExpressionParser::NameTarget() {
  ExprPtr target = Make(ExprKind::kName);
  target->name = in_.ExpectName();
  for (const char* reserved : {"true", "false", "none", "True", "False", "None"}) {
    if (target->name == reserved) in_.Fail("expected a name to assign to, found a constant");
  }
  return target;
}

ExprPtr ExpressionParser::Target(const char* stop) {
  const TokenReader::Deeper deeper(&in_);
  if (!in_.ok()) return Make(ExprKind::kName);
  const auto one = [&]() -> ExprPtr {
    if (in_.SkipOperator("(")) {
      ExprPtr inner = Target();
      in_.ExpectOperator(")");
      return inner;
    }
    ExprPtr name = NameTarget();
    if (!in_.IsOperator(".")) return name;
    ExprPtr attribute = Make(ExprKind::kAttribute);
    in_.Skip();
    attribute->name = in_.ExpectName();
    attribute->operands.push_back(std::move(name));
    return attribute;
  };
  ExprPtr first = one();
  if (!in_.IsOperator(",")) return first;
  ExprPtr tuple = Make(ExprKind::kTuple);
  tuple->operands.push_back(std::move(first));
  while (in_.SkipOperator(",") && !EndsTuple(stop) && !in_.IsOperator("=")) tuple->operands.push_back(one());
  return tuple;
}

}  // namespace updraft::jinja
