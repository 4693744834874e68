#include "common/tools/call_grammar.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/grammar/automaton.h"
#include "common/grammar/json_schema.h"
#include "common/tools/text_parts.h"
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
  const auto type = schema.find("type");
  if (type == schema.end()) {
    schema["type"] = "object";
    return schema.dump();
  }
  const bool may_be_object =
      *type == "object" || (type->is_array() && std::find(type->begin(), type->end(), "object") != type->end());
  if (!may_be_object) {
    return absl::InvalidArgumentError(
        absl::StrCat("#/type: expected \"object\", as arguments are one, found ", type->dump().substr(0, 80)));
  }
  *type = "object";
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

// Those that have to fit first, so that others do not use up what there is for all.
absl::StatusOr<ArgumentsOfTools> MakeArguments(std::span<const CallableTool> tools, const CallWish& wish) {
  ArgumentsOfTools made(tools.size());
  for (const bool strict : {true, false}) {
    for (size_t i = 0; i < tools.size(); ++i) {
      if (tools[i].strict != strict || (!wish.name.empty() && tools[i].name != wish.name)) continue;
      absl::StatusOr<Arguments> one = ArgumentsOf(tools[i]);
      if (one.ok()) {
        made[i] = *std::move(one);
      } else if (strict) {
        return absl::InvalidArgumentError(
            absl::StrFormat("tools[%d].parameters: %s", i, std::string(one.status().message())));
      }
    }
  }
  MakeFit(tools, made);
  return made;
}

// States of a text in which some texts are looked for as it goes on (Aho and Corasick 1975), as states of a rule's own:
// a text that may end anywhere within a rule of its own could go on in its caller from everywhere.
class Search {
 public:
  static constexpr int32_t kNever = -1;  // such a text there is none

  // found[i]: where it goes on behind marker i, or kNever. The first state is `first`.
  Search(const std::vector<std::string>& markers, const std::vector<int32_t>& found, int32_t first)
      : markers_(markers), found_(found), first_(first) {
    for (const std::string& marker : markers_) {
      for (size_t n = 0; n < marker.size(); ++n) {
        const std::string prefix = marker.substr(0, n);
        if (std::find(prefixes_.begin(), prefixes_.end(), prefix) == prefixes_.end()) prefixes_.push_back(prefix);
      }
    }
  }

  size_t n_states() const { return prefixes_.size(); }

  // From the n-th state, by one more byte.
  int32_t Next(size_t n, uint8_t byte) const {
    const std::string text = prefixes_[n] + static_cast<char>(byte);
    for (size_t i = 0; i < markers_.size(); ++i) {
      if (text.ends_with(markers_[i])) return found_[i];
    }
    size_t longest = 0;  // the empty one comes first
    for (size_t i = 1; i < prefixes_.size(); ++i) {
      if (text.ends_with(prefixes_[i]) && prefixes_[i].size() > prefixes_[longest].size()) longest = i;
    }
    return first_ + static_cast<int32_t>(longest);
  }

 private:
  const std::vector<std::string>& markers_;
  const std::vector<int32_t>& found_;
  const int32_t first_;
  std::vector<std::string> prefixes_;
};

// 256 targets as edges; kNever: none.
std::vector<Automaton::Edge> EdgesOf(const std::function<int32_t(uint8_t)>& target) {
  std::vector<Automaton::Edge> edges;
  for (int byte = 0; byte < 256; ++byte) {
    const int32_t to = target(static_cast<uint8_t>(byte));
    if (to == Search::kNever) continue;
    const bool goes_on = !edges.empty() && edges.back().target == to && edges.back().high + 1 == byte;
    if (goes_on) {
      edges.back().high = static_cast<uint8_t>(byte);
    } else {
      edges.push_back({static_cast<uint8_t>(byte), static_cast<uint8_t>(byte), to});
    }
  }
  return edges;
}

class Builder {
 public:
  Builder(const CallFormat& format, std::span<const CallableTool> tools, const CallWish& wish)
      : format_(format), tools_(tools), wish_(wish) {}

  absl::StatusOr<Grammar> Build() {
    const RuleId answer = g_.Declare("answer");
    const absl::StatusOr<Grammar> any_object = grammar::GrammarOfJsonSchema(kAnyObject);  // before others use much
    const absl::StatusOr<ArgumentsOfTools> arguments = MakeArguments(tools_, wish_);
    if (!arguments.ok()) return arguments.status();
    if (!any_object.ok()) return any_object.status();
    const ExprId object = e().Rule(g_.Import(*any_object));
    std::vector<ExprId> calls;
    for (size_t i = 0; i < tools_.size(); ++i) {
      if (!wish_.name.empty() && tools_[i].name != wish_.name) continue;
      const std::optional<Arguments>& own = (*arguments)[i];
      calls.push_back(CallOf(tools_[i].name, own ? e().Rule(g_.Import(own->grammar)) : object));
    }
    call_ = g_.Declare("call");
    g_.Define(call_, e().Choice(std::move(calls)));
    g_.Define(answer, wish_.required ? Required() : Free());
    return std::move(g_);
  }

 private:
  Expressions& e() { return g_.e(); }
  ExprId Space() { return e().Optional(e().Choice({e().Literal(" "), e().Literal("\n")})); }

  ExprId CallOf(const std::string& name, ExprId arguments) {
    const std::string quoted = nlohmann::json(name).dump();
    const auto key = [&](const std::string& text) {
      return e().Sequence({e().Literal(absl::StrCat("\"", text, "\"")), e().Literal(":"), Space()});
    };
    const auto id = [&] {
      return e().Repeat(e().Choice({e().ByteRange('0', '9'), e().ByteRange('A', 'Z'), e().ByteRange('a', 'z')}), 9, 9);
    };
    if (format_.form == Form::kNamed) {
      const ExprId said =
          format_.writes_id ? e().Optional(e().Sequence({e().Literal("[CALL_ID]"), id()})) : e().Empty();
      return e().Sequence({e().Literal(name), said, e().Literal(format_.before_arguments), Space(), arguments});
    }
    const ExprId more = e().Sequence({e().Literal(","), Space()});
    const ExprId said = format_.writes_id
                            ? e().Optional(e().Sequence({more, key("id"), e().Literal("\""), id(), e().Literal("\"")}))
                            : e().Empty();
    return e().Sequence({e().Literal("{"), Space(), key("name"), e().Literal(quoted), more, key(format_.arguments_key),
                         arguments, said, Space(), e().Literal("}")});
  }

  RuleId InRule(const char* name, ExprId expression) {
    const RuleId rule = g_.Declare(name);
    g_.Define(rule, expression);
    return rule;
  }
  ExprId Call() { return e().Rule(call_); }
  // White space, with which some models end.
  ExprId SpaceAtEnd() { return e().Repeat(e().Choice({e().Literal(" "), e().Literal("\n")}), 0, 4); }

  // All calls of an answer from behind the first OPEN on, with what is around them.
  ExprId BehindOpen() {
    const int most = format_.several && !wish_.one_call ? kNoMaximum : 0;
    const ExprId open = e().Literal(format_.open), close = e().Literal(format_.close);
    if (format_.form == Form::kList) {
      const ExprId more = e().Repeat(e().Sequence({e().Literal(","), Space(), Call()}), 0, most);
      return e().Sequence(
          {Space(), e().Literal("["), Space(), Call(), more, Space(), e().Literal("]"), Space(), close, SpaceAtEnd()});
    }
    const ExprId one = e().Sequence({Space(), Call(), Space(), close});
    return e().Sequence({one, e().Repeat(e().Sequence({Space(), open, one}), 0, most), SpaceAtEnd()});
  }
  ExprId Calls() { return e().Sequence({e().Literal(format_.open), BehindOpen()}); }

  // Text that may end anywhere and goes on with calls behind OPEN. Where calls need no OPEN they may begin it, and it
  // does not begin like one.
  Automaton Free() {
    const RuleId rest = InRule("calls behind their marker", BehindOpen());
    const std::vector<std::string> markers = {format_.open};
    // The end; behind OPEN; text; and what a bare call begins with: white space, {, and the letters of "name".
    constexpr int32_t kEnd = 1, kOpened = 2, kText = 3;
    const std::vector<int32_t> found = {kOpened};
    const Search search(markers, found, kText);
    Automaton text;
    text.states.resize(kText + search.n_states());
    text.states[kEnd].accepts = true;
    text.states[kOpened].calls = {{rest, kEnd}};
    for (size_t n = 0; n < search.n_states(); ++n) {
      text.states[kText + n].accepts = true;
      text.states[kText + n].edges = EdgesOf([&](uint8_t byte) { return search.Next(n, byte); });
    }
    if (!format_.bare) {
      text.states[0] = text.states[kText];
      return text;
    }
    constexpr std::string_view kBegin = "{\"name\"";
    const auto begun = static_cast<int32_t>(text.states.size());  // behind the first byte of kBegin
    text.states.resize(text.states.size() + kBegin.size() - 1);
    for (size_t n = 0; n < kBegin.size(); ++n) {
      const int32_t here = n == 0 ? 0 : begun + static_cast<int32_t>(n) - 1;
      const int32_t further = n + 1 == kBegin.size() ? Search::kNever : begun + static_cast<int32_t>(n);
      text.states[here].accepts = true;
      text.states[here].edges = EdgesOf([&](uint8_t byte) {
        if (byte == static_cast<uint8_t>(kBegin[n])) return further;
        return n <= 1 && IsSpace(static_cast<char>(byte)) ? here : search.Next(0, byte);
      });
    }
    const RuleId bare = InRule("a call without its marker", e().Sequence({Space(), Call(), SpaceAtEnd()}));
    text.states[0].calls = {{bare, kEnd}};
    return text;
  }

  // Calls alone, or behind thoughts, in which there is none.
  Automaton Required() {
    const RuleId marked = InRule("calls", Calls());
    const ExprId calls = format_.bare ? e().Choice({Call(), e().Rule(marked)}) : e().Rule(marked);
    const RuleId at_once = InRule("calls at once", e().Sequence({Space(), calls, SpaceAtEnd()}));
    // Behind thoughts a call that is no answer's beginning needs its marker.
    const RuleId behind =
        InRule("calls behind thoughts", e().Sequence({e().Repeat(e().Literal("\n"), 0, 2), Space(), e().Rule(marked)}));
    constexpr int32_t kEnd = 1, kThought = 2, kThoughts = 3;
    const std::vector<std::string> markers = {"</think>", format_.open};
    const std::vector<int32_t> found = {kThought, Search::kNever};
    const Search search(markers, found, kThoughts);
    Automaton whole;
    whole.states.resize(kThoughts);
    whole.states[kEnd].accepts = true;
    whole.states[kThought].calls = {{behind, kEnd}};
    for (size_t n = 0; format_.may_think && n < search.n_states(); ++n) {
      whole.states.emplace_back().edges = EdgesOf([&](uint8_t byte) { return search.Next(n, byte); });
    }
    if (format_.may_think) whole.states[0].edges = whole.states[kThoughts].edges;
    whole.states[0].calls = {{at_once, kEnd}};
    return whole;
  }

  const CallFormat& format_;
  const std::span<const CallableTool> tools_;
  const CallWish& wish_;
  Grammar g_;
  RuleId call_ = -1;  // one of them, without what is around it
};

}  // namespace

absl::StatusOr<Grammar> GrammarOfCalls(const CallFormat& format, std::span<const CallableTool> tools,
                                       const CallWish& wish) {
  return Builder(format, tools, wish).Build();
}

}  // namespace updraft::tools
