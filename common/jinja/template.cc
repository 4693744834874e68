#include "common/jinja/template.h"

#include <utility>

#include "common/jinja/interpreter.h"
#include "common/jinja/lexer.h"
#include "common/jinja/parser.h"

namespace updraft::jinja {

struct Template::Tree {
  Body body;
};

absl::StatusOr<Template> Template::Parse(std::string_view source) {
  const absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<Body> body = updraft::jinja::Parse(*tokens);
  if (!body.ok()) return body.status();
  return Template(std::make_shared<const Tree>(Tree{*std::move(body)}));
}

absl::StatusOr<SourcedText> Template::Render(const Dict& globals, absl::Time now) const {
  return Interpreter(globals, now).Run(tree_->body);
}

}  // namespace updraft::jinja
