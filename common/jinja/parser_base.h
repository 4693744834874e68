// What the parsers of expressions and of statements share: a place in the tokens and the first error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "common/jinja/ast.h"
#include "common/jinja/budget.h"
#include "common/jinja/lexer.h"

namespace updraft::jinja {

// After an error every function returns something empty, and the caller looks at ok() before it goes on.
class TokenReader {
 public:
  explicit TokenReader(const std::vector<Token>& tokens) : tokens_(tokens) {}

  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  const Token& Now() const { return tokens_[pos_]; }
  const Token& Ahead() const { return tokens_[pos_ + 1 < tokens_.size() ? pos_ + 1 : pos_]; }
  int line() const { return Now().line; }
  void Skip() {
    if (Now().kind != TokenKind::kEnd) ++pos_;
  }
  bool Is(TokenKind kind) const { return Now().kind == kind; }
  bool IsOperator(std::string_view op) const { return Is(TokenKind::kOperator) && Now().text == op; }
  bool IsName(std::string_view name) const { return Is(TokenKind::kName) && Now().text == name; }
  bool SkipOperator(std::string_view op) {
    if (!ok() || !IsOperator(op)) return false;
    Skip();
    return true;
  }
  bool SkipName(std::string_view name) {
    if (!ok() || !IsName(name)) return false;
    Skip();
    return true;
  }
  void ExpectOperator(std::string_view op) {
    if (!SkipOperator(op)) Expected(absl::StrFormat("'%s'", std::string(op)));
  }
  std::string ExpectName() {
    if (!ok() || !Is(TokenKind::kName)) {
      Expected("a name");
      return "";
    }
    std::string name = Now().text;
    Skip();
    return name;
  }

  void Expected(std::string_view what) {
    Fail(absl::StrFormat("expected %s, found %s", std::string(what), Described(Now())));
  }
  void Fail(std::string_view what) {
    if (ok()) status_ = absl::InvalidArgumentError(absl::StrFormat("line %d: %s", line(), std::string(what)));
  }

  // One level deeper for as long as it lives.
  class Deeper {
   public:
    explicit Deeper(TokenReader* reader) : reader_(reader) {
      if (++reader_->depth_ > kMaxDepth) {
        reader_->Fail(absl::StrFormat("expected at most %d levels of blocks and brackets, found more", kMaxDepth));
      }
    }
    ~Deeper() { --reader_->depth_; }

   private:
    TokenReader* reader_;
  };

  static std::string Described(const Token& token);

 private:
  const std::vector<Token>& tokens_;
  size_t pos_ = 0;
  int depth_ = 0;
  absl::Status status_;
};

}  // namespace updraft::jinja
