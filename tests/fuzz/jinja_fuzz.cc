// Any bytes as a chat template, run on a small conversation: refused with words or rendered within the limits, and what
// the user wrote never passes for the template's.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "common/jinja/budget.h"
#include "common/jinja/json.h"
#include "common/jinja/template.h"
#include "tests/fuzz/seeds.h"

namespace {

using updraft::jinja::Dict;
using updraft::jinja::ParseJson;
using updraft::jinja::Source;
using updraft::jinja::SourcedText;
using updraft::jinja::Template;
using updraft::jinja::Value;

constexpr Source kUser = 1;
// A character of the user's alone: templates with escapes aside, where it comes out the user wrote it.
constexpr std::string_view kMark = "\U0010F00D";

void Require(bool holds) {
  if (!holds) std::abort();
}

const Dict& Globals() {
  static const Dict* const globals = [] {
    // @ stands for the mark, whose bytes a JSON escape spells.
    std::string json = R"([{"role":"system","content":"Be @brief."},{"role":"user","content":"@ Hi"},
      {"role":"assistant","content":"x","tool_calls":[{"id":"1","function":{"name":"f@","arguments":{"a":[1,2.5,null,"@"]}}}]}])";
    for (size_t at = json.find('@'); at != json.npos; at = json.find('@', at)) json.replace(at, 1, "\\uDBFC\\uDC0D");
    const auto messages = ParseJson(json, kUser);
    auto* dict = new Dict;
    dict->Set("messages", *messages);
    dict->Set("tools", *ParseJson(R"([{"type":"function","function":{"name":"f","parameters":{}}}])", kUser));
    dict->Set("add_generation_prompt", Value(true));
    dict->Set("bos_token", Value("<s>"));
    dict->Set("eos_token", Value("</s>"));
    return dict;
  }();
  return *globals;
}

void CheckOutput(const SourcedText& text, bool has_escapes) {
  Require(text.size() <= updraft::jinja::kMaxTextBytes);
  size_t begin = 0;
  for (const SourcedText::Run& run : text.runs()) {
    Require(run.end > begin && run.end <= text.size() && run.source <= kUser);
    begin = run.end;
  }
  Require(begin == text.size());
  if (has_escapes) return;
  for (size_t at = text.bytes().find(kMark); at != std::string::npos; at = text.bytes().find(kMark, at + 1)) {
    Require(text.SourceAt(at) == kUser && text.SourceAt(at + kMark.size() - 1) == kUser);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = Template::Parse(source);
  if (!parsed.ok()) {
    Require(!parsed.status().message().empty());
    return 0;
  }
  const auto text = parsed->Render(Globals(), absl::UnixEpoch());
  if (!text.ok()) return 0;  // a template may raise an exception without words
  CheckOutput(*text, source.find('\\') != source.npos || source.find(kMark) != source.npos);
  const auto again = parsed->Render(Globals(), absl::UnixEpoch());
  Require(again.ok() && again->bytes() == text->bytes());
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  for (
      const std::string_view seed : {
          "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message.content | trim }}"
          "{% if not loop.last %}{{ eos_token }}{% endif %}{% endfor %}",
          "{%- set ns = namespace(a=[], last=-1) -%}{% for m in messages[::-1] if m.role != 'system' %}{% set ns.last "
          "= "
          "loop.index0 + ns.last %}{% else %}x{% endfor %}{{ ns.last // 2 ~ ns.a }}",
          "{% macro f(x, y=none, **kw) %}{% if x is string %}{{ x | upper | replace('A', y or 'b') | indent(2, true) }}"
          "{% elif x is mapping %}{% for k, v in x | dictsort %}{{ k }}: {{ f(v) }}{% endfor %}{% else %}{{ x | tojson "
          "}}"
          "{% endif %}{% endmacro %}{{ f(messages[2]) }}{% call f('a') %}{% endcall %}",
          "{% if tools %}{{ tools | map(attribute='function.name') | list | join(', ') }}{{ tools | tojson(indent=4) }}"
          "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{% endif %}{# c -#}  {% raw %}{{ {% "
          "endraw %}",
          "{% set x %}{{ messages[1].content.split(' ')[-1].strip()[::-1] }}{% endset %}{{ x.rstrip('i') ~ 1.5e3 ** 2 "
          "% 7 }}"
          "{{ raise_exception('no') if x in ['a'] else '%s-%d' % (x, 3) }}{% generation %}{{ x }}{% endgeneration %}",
          "{% for a in 'abc' %}{% for b in range(3) %}{% if b == 1 %}{% continue %}{% endif %}{{ loop.cycle(a, b) }}"
          "{% break %}{% endfor %}{{ loop.nextitem is defined and not loop.first }}{% endfor %}{% with q = {1: [(2,)]} "
          "%}"
          "{{ q[1][0].0 }}{% endwith %}{% filter trim | safe %} {{ messages[0] }} {% endfilter %}",
      }) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
