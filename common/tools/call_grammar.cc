#include "common/tools/call_grammar.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/automaton.h"
#include "common/grammar/json_schema.h"
#include "nlohmann/json.hpp"

namespace updraft::tools {
namespace {

using grammar::Automaton;
using grammar::Expressions;
using grammar::ExprId;
using grammar::Grammar;
using grammar::kNoMaximum;
using grammar::RuleId;
using Form = CallFormat::Form;

constexpr int64_t kMaxStepsOfTool = 2'000'000;                 // of compiling one tool's arguments
constexpr size_t kMaxStatesOfTools = grammar::kMaxStates / 2;  // of all tools'
constexpr char kAnyObject[] = R"({"type":"object"})";
constexpr char kNoArguments[] = R"({"type":"object","additionalProperties":false})";

// As GrammarOfJsonSchema wants it: an object, whatever else it is.
absl::StatusOr<std::string> SchemaOf(const CallableTool& tool) {
  if (tool.parameters.empty()) return kNoArguments;
  auto schema = nlohmann::ordered_json::parse(tool.parameters, nullptr, /*allow_exceptions=*/false);
  if (!schema.is_object()) return absl::InvalidArgumentError("expected a JSON object");
  if (!schema.contains("type")) schema["type"] = "object";
  return schema.dump();
}

struct Arguments {
  Grammar grammar;
  size_t n_states = 0;
};

absl::StatusOr<Arguments> ArgumentsOf(const CallableTool& tool) {
  const grammar::WorkBudget budget(kMaxStepsOfTool);
  const auto schema = SchemaOf(tool);
  if (!schema.ok()) return schema.status();
  auto made = grammar::GrammarOfJsonSchema(*schema);
  if (!made.ok()) return made.status();
  // By itself, so that one tool's trouble is not all others'.
  const auto compiled = grammar::CompiledGrammar::Compile(*made);
  if (!compiled.ok()) return compiled.status();
  return Arguments{*std::move(made), compiled->states().size()};
}

// Of all tools that may be called; nullopt: any object.
using ArgumentsOfTools = std::vector<std::optional<Arguments>>;

// What is too large together gives way: the largest first, of those that need not fit to the letter.
void MakeFit(std::span<const CallableTool> tools, ArgumentsOfTools& arguments) {
  size_t n_states = 0;
  for (const auto& one : arguments) n_states += one ? one->n_states : 0;
  while (n_states > kMaxStatesOfTools) {
    std::optional<size_t> largest;
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (!arguments[i] || tools[i].strict) continue;
      if (!largest || arguments[i]->n_states > arguments[*largest]->n_states) largest = i;
    }
    if (!largest) return;
    n_states -= arguments[*largest]->n_states;
    arguments[*largest].reset();
  }
}

absl::StatusOr<ArgumentsOfTools> MakeArguments(std::span<const CallableTool> tools, const CallWish& wish) {
  ArgumentsOfTools made(tools.size());
  for (size_t i = 0; i < tools.size(); ++i) {
    if (!wish.name.empty() && tools[i].name != wish.name) continue;
    absl::StatusOr<Arguments> one = ArgumentsOf(tools[i]);
    if (one.ok()) {
      made[i] = *std::move(one);
    } else if (tools[i].strict) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tools[%d].parameters: %s", i, std::string(one.status().message())));
    }
  }
  MakeFit(tools, made);
  return made;
}

class Builder {
 public:
  Builder(const CallFormat& format, std::span<const CallableTool> tools, const CallWish& wish)
      : format_(format), tools_(tools), wish_(wish) {}

  absl::StatusOr<Grammar> Build() {
    const RuleId answer = g_.Declare("answer");
    const absl::StatusOr<ArgumentsOfTools> arguments = MakeArguments(tools_, wish_);
    const absl::StatusOr<Grammar> any_object = grammar::GrammarOfJsonSchema(kAnyObject);
    if (!arguments.ok()) return arguments.status();
    if (!any_object.ok()) return any_object.status();
    const ExprId object = e().Rule(g_.Import(*any_object));
    std::vector<ExprId> calls;
    for (size_t i = 0; i < tools_.size(); ++i) {
      if (!wish_.name.empty() && tools_[i].name != wish_.name) continue;
      const std::optional<Arguments>& own = (*arguments)[i];
      calls.push_back(CallOf(tools_[i].name, own ? e().Rule(g_.Import(own->grammar)) : object));
    }
    const RuleId call = g_.Declare("call");
    g_.Define(call, e().Choice(std::move(calls)));
    const ExprId all = Calls(e().Rule(call));
    absl::StatusOr<ExprId> whole = wish_.required ? Required(all) : Free(all);
    if (!whole.ok()) return whole.status();
    g_.Define(answer, *whole);
    return std::move(g_);
  }

 private:
  Expressions& e() { return g_.e(); }
  ExprId Space() { return e().Optional(e().Choice({e().Literal(" "), e().Literal("\n")})); }
  ExprId AnyBytes(Expressions& e) { return e.Repeat(e.ByteRange(0, 255), 0, kNoMaximum); }

  ExprId CallOf(const std::string& name, ExprId arguments) {
    const std::string quoted = nlohmann::json(name).dump();
    const auto key = [&](const std::string& text) {
      return e().Sequence({e().Literal(absl::StrCat("\"", text, "\"")), e().Literal(":"), Space()});
    };
    const auto id = [&] {
      return e().Repeat(e().Choice({e().ByteRange('0', '9'), e().ByteRange('A', 'Z'), e().ByteRange('a', 'z')}), 9, 9);
    };
    if (format_.form == Form::kNamed) {
      const ExprId said = format_.writes_id ? e().Sequence({e().Literal("[CALL_ID]"), id()}) : e().Empty();
      return e().Sequence({e().Literal(name), said, e().Literal(format_.before_arguments), Space(), arguments});
    }
    const ExprId more = e().Sequence({e().Literal(","), Space()});
    const ExprId said = format_.writes_id
                            ? e().Optional(e().Sequence({more, key("id"), e().Literal("\""), id(), e().Literal("\"")}))
                            : e().Empty();
    return e().Sequence({e().Literal("{"), Space(), key("name"), e().Literal(quoted), more, key(format_.arguments_key),
                         arguments, said, Space(), e().Literal("}")});
  }

  // All calls of an answer, with what is around them.
  ExprId Calls(ExprId call) {
    const bool several = format_.several && !wish_.one_call;
    const ExprId open = e().Literal(format_.open), close = e().Literal(format_.close);
    if (format_.form == Form::kList) {
      const ExprId more = e().Repeat(e().Sequence({e().Literal(","), Space(), call}), 0, several ? kNoMaximum : 0);
      return e().Sequence(
          {open, Space(), e().Literal("["), Space(), call, more, Space(), e().Literal("]"), Space(), close});
    }
    const ExprId one = e().Sequence({open, Space(), call, Space(), close});
    if (format_.bare) return e().Choice({call, one});
    return e().Sequence({one, e().Repeat(e().Sequence({Space(), one}), 0, several ? kNoMaximum : 0)});
  }

  // As a rule of its own: any text that has none of `markers` in it and, where calls need none, does not begin like
  // one.
  absl::StatusOr<ExprId> TextWithout(const std::vector<std::string>& markers) {
    Expressions any, other;
    auto all = grammar::MakeAutomaton(any, AnyBytes(any));
    if (!all.ok()) return all.status();
    std::vector<ExprId> wrong;
    for (const std::string& marker : markers) {
      wrong.push_back(other.Sequence({AnyBytes(other), other.Literal(marker), AnyBytes(other)}));
    }
    if (format_.bare) {
      std::vector<ExprId> spaces;
      for (const char* space : {" ", "\t", "\n", "\r"}) spaces.push_back(other.Literal(space));
      const ExprId space = other.Repeat(other.Choice(std::move(spaces)), 0, kNoMaximum);
      wrong.push_back(other.Sequence({space, other.Literal("{"), space, other.Literal("\"name\""), AnyBytes(other)}));
    }
    auto has = grammar::MakeAutomaton(other, other.Choice(std::move(wrong)));
    if (!has.ok()) return has.status();
    auto text = grammar::Difference(*all, *has);
    if (!text.ok()) return text.status();
    const RuleId rule = g_.Declare("text");
    g_.Define(rule, *std::move(text));
    return e().Rule(rule);
  }

  absl::StatusOr<ExprId> Free(ExprId calls) {
    auto text = TextWithout({format_.open});
    if (!text.ok()) return text.status();
    const ExprId mixed = e().Sequence({*text, e().Optional(calls)});
    return format_.bare ? e().Choice({mixed, e().Sequence({Space(), calls})}) : mixed;
  }

  absl::StatusOr<ExprId> Required(ExprId calls) {
    if (!format_.may_think) return e().Sequence({Space(), calls});
    auto thoughts = TextWithout({"</think>", format_.open});
    if (!thoughts.ok()) return thoughts.status();
    const ExprId thought = e().Sequence({*thoughts, e().Literal("</think>"), e().Repeat(e().Literal("\n"), 0, 2)});
    return e().Sequence({e().Optional(thought), Space(), calls});
  }

  const CallFormat& format_;
  const std::span<const CallableTool> tools_;
  const CallWish& wish_;
  Grammar g_;
};

}  // namespace

absl::StatusOr<Grammar> GrammarOfCalls(const CallFormat& format, std::span<const CallableTool> tools,
                                       const CallWish& wish) {
  return Builder(format, tools, wish).Build();
}

}  // namespace updraft::tools
