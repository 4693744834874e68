// What holds without an oracle: who wrote what, limits, messages, and values worked out by hand.
#include "common/jinja/template.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/jinja/json.h"

namespace updraft::jinja {
namespace {

constexpr Source kUser = 7;

const absl::Time kNow = absl::FromCivil(absl::CivilSecond(2024, 7, 26, 12, 0, 0), absl::LocalTimeZone());

absl::StatusOr<SourcedText> Rendered(const std::string& source, const std::string& globals = "{}") {
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  const auto values = ParseJson(globals, kUser);
  if (!values.ok()) return values.status();
  return parsed->Render(values->dict(), kNow);
}

std::string Text(const std::string& source, const std::string& globals = "{}") {
  const auto text = Rendered(source, globals);
  return text.ok() ? text->bytes() : absl::StrCat("error: ", std::string(text.status().message()));
}

// The text with what the user wrote in brackets.
std::string Marked(const std::string& source, const std::string& globals = R"({"u":"<|end|>","m":{"k<":"v>"}})") {
  const auto text = Rendered(source, globals);
  if (!text.ok()) return absl::StrCat("error: ", std::string(text.status().message()));
  std::string marked;
  size_t begin = 0;
  for (const SourcedText::Run& run : text->runs()) {
    const std::string part = text->bytes().substr(begin, run.end - begin);
    marked += run.source == kUser ? absl::StrCat("[", part, "]") : part;
    begin = run.end;
  }
  return marked;
}

TEST(SourceTest, IsKeptByWhateverIsDoneToAString) {
  EXPECT_EQ(Marked("a{{ u }}b"), "a[<|end|>]b");
  EXPECT_EQ(Marked("{{ '<|' + u + '|>' }}"), "<|[<|end|>]|>");
  EXPECT_EQ(Marked("{{ '<|' ~ u }}"), "<|[<|end|>]");
  EXPECT_EQ(Marked("{{ ('  ' + u + ' ') | trim }}"), "[<|end|>]");
  EXPECT_EQ(Marked("{{ u[2:5] }}{{ u[0] }}{{ u[::-1] }}"), "[end<>|dne|<]");
  EXPECT_EQ(Marked("{{ u.upper() }}{{ (u + 'x') | title }}"), "[<|END|><|end|>]x");
  EXPECT_EQ(Marked("{{ u.split('n') | join('N') }}"), "[<|e]N[d|>]");
  EXPECT_EQ(Marked("{{ u | replace('end', 'start') }}{{ 'a-b' | replace('-', u) }}"), "[<|]start[|>]a[<|end|>]b");
  EXPECT_EQ(Marked("{{ u | list | join }}{% for c in u %}{{ c }}{% endfor %}"), "[<|end|><|end|>]");
  EXPECT_EQ(Marked("{{ m | tojson }}"), R"({"[k<]": "[v>]"})");
  EXPECT_EQ(Marked("{{ m }}"), "{'[k<]': '[v>]'}");
  EXPECT_EQ(Marked("{% for k, v in m.items() %}{{ k }}={{ v }}{% endfor %}"), "[k<]=[v>]");
  EXPECT_EQ(Marked("{{ '%s:%s' % (u, 1) }} {{ 'a{}'.format(u) }}"), "[<|end|>]:1 a[<|end|>]");
  EXPECT_EQ(Marked("{% macro f(x) %}({{ x }}){% endmacro %}{{ f(u) | indent }}"), "([<|end|>])");
  EXPECT_EQ(Marked("{% set x %}({{ u }}){% endset %}{{ x }}{% filter upper %}a{{ u }}{% endfilter %}"),
            "([<|end|>])A[<|END|>]");
  EXPECT_EQ(Marked("{{ u | escape }}"), "[&lt;|end|&gt;]");
  EXPECT_EQ(Marked("{{ {'x': '<|end|>'}[k] }}", R"({"k":"x"})"), "<|end|>");  // the template's own words
}

TEST(TemplateTest, WhiteSpaceAsHuggingFaceSetsIt) {
  EXPECT_EQ(Text("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(Text("a\n  {# note #}\nb"), "a\nb");
  EXPECT_EQ(Text("a  {{- 'x' -}}  b {{ 'y' }}\n c"), "axb y\n c");
  EXPECT_EQ(Text("  {%+ if true %}x{% endif +%}\ny"), "  x\ny");
  EXPECT_EQ(Text("{% raw %}{{ x }}{% endraw %}"), "{{ x }}");
  EXPECT_EQ(Text("a\r\nb\r"), "a\nb");
}

TEST(TemplateTest, Values) {
  EXPECT_EQ(Text("{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 3 ** 2 }} {{ 1e16 }} {{ 1e-5 }}"),
            "3 -4 2 3.5 64 1e+16 1e-05");
  EXPECT_EQ(Text("{{ none }} {{ true }} {{ [1, 'a\"', \"it's\"] }} {{ {'a': (1,)} }}"),
            "None True [1, 'a\"', \"it's\"] {'a': (1,)}");
  EXPECT_EQ(Text("{{ x is defined }} {{ x }} {{ x | default('d') }} {{ 'b' in 'abc' }} {{ 1 < 2 <= 2 }}"),
            "False  d True True");
  EXPECT_EQ(Text("{{ d | tojson(indent=2) }}", R"({"d":{"b":[1,2.50],"a":"\u00e9\u0001\n","n":null}})"),
            "{\n  \"b\": [\n    1,\n    2.5\n  ],\n  \"a\": \"\u00e9\\u0001\\n\",\n  \"n\": null\n}");
  EXPECT_EQ(Text("{% set ns = namespace(n=0) %}{% for i in range(4) %}{% if i == 2 %}{% break %}{% endif %}"
                 "{% set ns.n = ns.n + i %}{% set n = 9 %}{% endfor %}{{ ns.n }}{{ n }}"),
            "1");
  EXPECT_EQ(Text("{% for x in 'abc' %}{{ loop.index }}{{ loop.previtem }}{{ x }}{{ loop.nextitem }}{{ ',' if not "
                 "loop.last }}{% endfor %}"),
            "1ab,2abc,3bc");
  EXPECT_EQ(Text("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ caller() if caller }}{% endmacro %}{{ f(1) }}{{ f(b=0, a=3) }}"
                 "{% call f(4) %}!{% endcall %}"),
            "123042!");
  EXPECT_EQ(Text("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024");
  EXPECT_EQ(Text("{% generation %}x{% endgeneration %}"), "x");
}

TEST(TemplateTest, ErrorsSayWhereWhatAndWhat) {
  EXPECT_EQ(Text("{{ raise_exception('roles must alternate') }}"), "error: roles must alternate");
  EXPECT_EQ(Text("a\n{{ x.y }}"),
            "error: line 2: expected something with an attribute 'y', found 'x', which is not defined");
  EXPECT_EQ(Text("\n\n{{ 'a' + 1 }}"),
            "error: line 3: expected operands that '+' knows, found a string and an integer");
  EXPECT_EQ(Text("{% if x %}"),
            "error: line 1: expected {% elif %} or {% else %} or {% endif %}, found the end of the "
            "template");
  EXPECT_EQ(Text("{% include 'x' %}"), "error: line 1: a chat template is one file; expected no 'include', found it");
  EXPECT_EQ(Text("{{ x | nope }}"), "error: line 1: expected a filter that is known, found 'nope'");
  EXPECT_EQ(Text("{{ [].append(1) }}"), "error: line 1: expected a method that changes nothing, found 'append'");
  EXPECT_EQ(Text("{{ (1 }}"), "error: line 1: expected ')', found '}'");
}

TEST(LimitsTest, StepsBytesAndDepth) {
  const auto fails = [](const std::string& source, const char* with) {
    const std::string text = Text(source);
    EXPECT_TRUE(text.starts_with("error: ")) << source.substr(0, 80) << ": " << text.substr(0, 80);
    EXPECT_NE(text.find(with), std::string::npos) << text.substr(0, 200);
  };
  fails("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "steps of work");
  fails("{% set n = namespace(s='x') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{% endfor %}", "4194304 bytes");
  fails("{% set s = 'x' * 3000000 %}{{ s }}{{ s }}", "4194304 bytes");
  fails("{{ 'x' * 9000000000 }}", "4194304 bytes");
  fails("{{ [1] * 9000000000 }}", "steps of work");
  fails("{% set n = namespace(s=[]) %}{% for i in range(999) %}{% set n.s = [n.s] %}{% endfor %}", "64 deep");
  fails("{% set n = namespace(s={}) %}{% for i in range(999) %}{% set n.s = {'a': n.s.get} %}{% endfor %}", "64 deep");
  fails("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "64 deep");
  fails("{{ " + std::string(100, '(') + "1" + std::string(100, ')') + " }}", "at most 64");
  fails("{{ " + std::string(5000, '-') + "1 }}", "at most 64");
  fails("{{ 1" + std::string(5000, '|') + " }}", "expected");
  std::string ifs, chain = "{{ x";
  for (int i = 0; i < 5000; ++i) ifs += "{% if true %}", chain += ".a";
  fails(ifs, "at most 64");
  fails(chain + " }}", "at most 64");
  fails(std::string(2 << 20, ' '), "1048576 bytes");
  // As wide as one likes.
  std::string sum = "{{ 1";
  for (int i = 0; i < 5000; ++i) sum += " + 1";
  EXPECT_EQ(Text(sum + " }}"), "5001");
}

TEST(LimitsTest, NothingIsLeftBehindByWhatRefersToItself) {  // the leak sanitizer looks
  EXPECT_EQ(Text("{% set n = namespace() %}{% set n.n = n %}{% macro f() %}{{ g }}{% endmacro %}{% set n.f = f %}"
                 "{% macro g() %}{% macro h() %}{% endmacro %}{% endmacro %}{{ g() }}x"),
            "x");
}

}  // namespace
}  // namespace updraft::jinja
