#include "common/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/jinja/expression_parser.h"
#include "common/jinja/parser_base.h"

namespace updraft::jinja {

std::string TokenReader::Described(const Token& token) {
  switch (token.kind) {
    case TokenKind::kData:
      return "text";
    case TokenKind::kBlockBegin:
      return "{%";
    case TokenKind::kVariableBegin:
      return "{{";
    case TokenKind::kBlockEnd:
    case TokenKind::kVariableEnd:
      return absl::StrCat("the end of the tag (", token.text, ")");
    case TokenKind::kString:
      return "a string";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return absl::StrCat("'", token.text.substr(0, 40), "'");
  }
}

namespace {

using Names = std::initializer_list<const char*>;

class Parser {
 public:
  explicit Parser(const std::vector<Token>& tokens) : in_(tokens), expressions_(&in_) {}

  absl::StatusOr<Body> Run() {
    Body body = Until({});
    if (!in_.ok()) return in_.status();
    return body;
  }

 private:
  // Statements up to a tag of one of these names, which is the next token then. None: up to the end of the template.
  Body Until(Names ends);
  void EndTag(const char* name);
  void CloseTag() {
    if (in_.ok() && !in_.Is(TokenKind::kBlockEnd)) in_.Expected("the end of the tag (%})");
    if (in_.ok()) in_.Skip();
  }
  Body BlockBody(const char* end);  // from the end of the opening tag to that of the closing one

  StmtPtr Make(StmtKind kind) { return std::make_unique<Stmt>(Stmt{kind, in_.line()}); }
  StmtPtr Tag();
  StmtPtr For();
  StmtPtr If();
  StmtPtr Set();
  StmtPtr Macro();
  StmtPtr CallBlock();
  StmtPtr FilterBlock();
  StmtPtr With();
  StmtPtr Block();
  StmtPtr Jump(StmtKind kind);
  void Signature(MacroDefinition* macro);
  void MacroBody(MacroDefinition* macro, const char* end);

  TokenReader in_;
  ExpressionParser expressions_;
  int loops_ = 0;  // around the statement, up to the macro that holds it
};

Body Parser::Until(Names ends) {
  Body body;
  const TokenReader::Deeper deeper(&in_);
  while (in_.ok() && !in_.Is(TokenKind::kEnd)) {
    if (in_.Is(TokenKind::kData)) {
      body.push_back(Make(StmtKind::kText));
      body.back()->text = in_.Now().text;
      in_.Skip();
    } else if (in_.Is(TokenKind::kVariableBegin)) {
      in_.Skip();
      body.push_back(Make(StmtKind::kOutput));
      body.back()->value = expressions_.TupleOrExpression();
      if (in_.ok() && !in_.Is(TokenKind::kVariableEnd)) in_.Expected("the end of the tag (}})");
      in_.Skip();
    } else {
      in_.Skip();  // {%
      for (const char* end : ends) {
        if (in_.IsName(end)) return body;
      }
      body.push_back(Tag());
    }
  }
  if (ends.size() > 0) in_.Expected(absl::StrCat("{% ", absl::StrJoin(ends, " %} or {% "), " %}"));
  return body;
}

void Parser::EndTag(const char* name) {
  if (!in_.SkipName(name)) in_.Expected(absl::StrCat("{% ", name, " %}"));
  CloseTag();
}

Body Parser::BlockBody(const char* end) {
  CloseTag();
  Body body = Until({end});
  EndTag(end);
  return body;
}

StmtPtr Parser::Tag() {
  if (in_.IsName("for")) return For();
  if (in_.IsName("if")) return If();
  if (in_.IsName("set")) return Set();
  if (in_.IsName("macro")) return Macro();
  if (in_.IsName("call")) return CallBlock();
  if (in_.IsName("filter")) return FilterBlock();
  if (in_.IsName("with")) return With();
  if (in_.IsName("block") || in_.IsName("generation")) return Block();
  if (in_.IsName("break")) return Jump(StmtKind::kBreak);
  if (in_.IsName("continue")) return Jump(StmtKind::kContinue);
  for (const char* file : {"include", "import", "from", "extends"}) {
    if (in_.IsName(file)) in_.Fail(absl::StrCat("a chat template is one file; expected no '", file, "', found it"));
  }
  in_.Expected("a tag (for, if, set, macro, call, filter, with, block, break, continue, generation or raw)");
  return Make(StmtKind::kText);
}

StmtPtr Parser::For() {
  StmtPtr loop = Make(StmtKind::kFor);
  in_.Skip();
  loop->target = expressions_.Target("in");
  if (!in_.SkipName("in")) in_.Expected("'in'");
  loop->value = expressions_.TupleOrExpression(/*with_condition=*/false, "recursive");
  if (in_.SkipName("if")) loop->condition = expressions_.Expression();
  if (in_.IsName("recursive")) in_.Fail("recursive loops are not known; write a macro that calls itself");
  CloseTag();
  ++loops_;
  loop->body = Until({"endfor", "else"});
  --loops_;
  if (in_.SkipName("else")) {
    CloseTag();
    loop->alternatives.push_back({nullptr, Until({"endfor"})});
  }
  EndTag("endfor");
  return loop;
}

StmtPtr Parser::If() {
  StmtPtr branches = Make(StmtKind::kIf);
  in_.Skip();
  while (in_.ok()) {
    Stmt::Alternative alternative;
    alternative.condition = expressions_.TupleOrExpression(/*with_condition=*/false);
    CloseTag();
    alternative.body = Until({"elif", "else", "endif"});
    branches->alternatives.push_back(std::move(alternative));
    if (!in_.SkipName("elif")) break;
  }
  if (in_.SkipName("else")) {
    CloseTag();
    branches->alternatives.push_back({nullptr, Until({"endif"})});
  }
  EndTag("endif");
  return branches;
}

StmtPtr Parser::Set() {
  StmtPtr set = Make(StmtKind::kSet);
  in_.Skip();
  set->target = expressions_.Target();
  if (in_.SkipOperator("=")) {
    set->value = expressions_.TupleOrExpression();
    CloseTag();
    return set;
  }
  set->kind = StmtKind::kSetBlock;
  if (in_.SkipOperator("|")) set->value = expressions_.FilterChain();
  set->body = BlockBody("endset");
  return set;
}

void Parser::Signature(MacroDefinition* macro) {
  in_.ExpectOperator("(");
  while (in_.ok() && !in_.IsOperator(")")) {
    if (!macro->parameters.empty()) in_.ExpectOperator(",");
    if (in_.IsOperator(")")) break;
    macro->parameters.push_back(expressions_.NameTarget()->name);
    if (in_.SkipOperator("=")) {
      macro->defaults.push_back(expressions_.Expression());
    } else if (!macro->defaults.empty()) {
      in_.Fail("expected parameters without defaults before those with, found one after");
    }
  }
  in_.ExpectOperator(")");
}

void Parser::MacroBody(MacroDefinition* macro, const char* end) {
  const size_t names_before = expressions_.names().size();
  const int loops = std::exchange(loops_, 0);
  macro->body = BlockBody(end);
  loops_ = loops;
  const auto used = [&](const char* name) {
    const auto& names = expressions_.names();
    return std::find(names.begin() + static_cast<ptrdiff_t>(names_before), names.end(), name) != names.end();
  };
  macro->uses_caller = used("caller");
  macro->uses_varargs = used("varargs");
  macro->uses_kwargs = used("kwargs");
}

StmtPtr Parser::Macro() {
  StmtPtr macro = Make(StmtKind::kMacro);
  in_.Skip();
  macro->callable = std::make_unique<MacroDefinition>();
  macro->callable->name = expressions_.NameTarget()->name;
  Signature(macro->callable.get());
  MacroBody(macro->callable.get(), "endmacro");
  return macro;
}

StmtPtr Parser::CallBlock() {
  StmtPtr call = Make(StmtKind::kCallBlock);
  in_.Skip();
  call->callable = std::make_unique<MacroDefinition>();
  call->callable->name = "caller";
  if (in_.IsOperator("(")) Signature(call->callable.get());
  call->value = expressions_.Expression();
  if (in_.ok() && call->value->kind != ExprKind::kCall)
    in_.Fail("expected a call after 'call', found another expression");
  MacroBody(call->callable.get(), "endcall");
  return call;
}

StmtPtr Parser::FilterBlock() {
  StmtPtr filter = Make(StmtKind::kFilterBlock);
  in_.Skip();
  filter->value = expressions_.FilterChain();
  filter->body = BlockBody("endfilter");
  return filter;
}

StmtPtr Parser::With() {
  StmtPtr with = Make(StmtKind::kWith);
  in_.Skip();
  while (in_.ok() && !in_.Is(TokenKind::kBlockEnd)) {
    if (!with->assignments.empty()) in_.ExpectOperator(",");
    ExprPtr target = expressions_.NameTarget();
    in_.ExpectOperator("=");
    with->assignments.emplace_back(std::move(target), expressions_.Expression());
  }
  with->body = BlockBody("endwith");
  return with;
}

StmtPtr Parser::Block() {
  StmtPtr block = Make(StmtKind::kScope);
  const bool is_block = in_.IsName("block");
  in_.Skip();
  if (!is_block) {
    block->body = BlockBody("endgeneration");
    return block;
  }
  const std::string name = in_.ExpectName();
  CloseTag();
  block->body = Until({"endblock"});
  in_.Skip();
  in_.SkipName(name);
  CloseTag();
  return block;
}

StmtPtr Parser::Jump(StmtKind kind) {
  StmtPtr jump = Make(kind);
  if (loops_ == 0) in_.Fail(absl::StrCat("expected '", in_.Now().text, "' inside a loop, found it outside"));
  in_.Skip();
  CloseTag();
  return jump;
}

}  // namespace

absl::StatusOr<Body> Parse(const std::vector<Token>& tokens) { return Parser(tokens).Run(); }

}  // namespace updraft::jinja
