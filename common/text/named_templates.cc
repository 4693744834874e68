#include "common/text/named_templates.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace updraft::text {
namespace {

// The messages after a system message at the beginning, in `rest`, and that one's content in `system`; users and
// assistants must take turns.
constexpr char kTurns[] = R"({%- set system = messages[0].content if messages[0].role == 'system' else none %}
{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}
{%- if not rest %}{{ raise_exception('the format needs a user message after the system message') }}{% endif %}
{%- for message in rest %}
  {%- if message.role == 'system' %}
    {{- raise_exception('the format takes one system message, before all others; join them') }}
  {%- endif %}
  {%- set expected = 'user' if loop.index0 is even else 'assistant' %}
  {%- if message.role != expected %}
    {{- raise_exception('in the format user and assistant take turns, beginning with user; expected ' + expected +
                        ', found ' + message.role + '; join neighbouring messages of one role') }}
  {%- endif %}
{%- endfor %})";

constexpr char kChatMl[] = R"({%- for message in messages %}
  {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";

// The marks are Hermes' and Qwen's (<tools>, <tool_call>, <tool_response>); models that were taught them know them.
constexpr char kHermes[] = R"({%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- set rest = messages[1:] if messages[0].role == 'system' else messages %}
{%- if tools %}
  {{- '<|im_start|>system\n' + (system + '\n\n' if system else '') + '# Tools\n\nThese functions can be called; each '
      'line is the signature of one, as JSON:\n<tools>' }}
  {%- for tool in tools %}{{ '\n' }}{{ tool | tojson }}{% endfor %}
  {{- '\n</tools>\n\nTo call one, write its name and its arguments as a JSON object between these tags:\n<tool_call>\n'
      '{"name": <function>, "arguments": <object>}\n</tool_call><|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}
  {{- '<|im_start|>system\n' + system + '<|im_end|>\n' }}
{%- endif %}
{%- for message in rest %}
  {%- if message.role == 'tool' %}
    {{- '<|im_start|>user\n' if loop.first or rest[loop.index0 - 1].role != 'tool' else '\n' }}
    {{- '<tool_response>\n' + message.content + '\n</tool_response>' }}
    {{- '<|im_end|>\n' if loop.last or rest[loop.index0 + 1].role != 'tool' }}
  {%- else %}
    {{- '<|im_start|>' + message.role + ('\n' + message.content if message.content or not message.tool_calls else '') }}
    {%- for call in message.tool_calls or [] %}
      {{- '\n<tool_call>\n{"name": ' }}{{ call.function.name | tojson }}{{ ', "arguments": ' }}
      {{- call.function.arguments | tojson }}{{ '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %})";

constexpr char kLlama2[] = R"({%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- ' ' + message.content.strip() + ' ' + eos_token }}
  {%- else %}
    {%- set content = message.content %}
    {%- if loop.first and system is not none %}
      {%- set content = '<<SYS>>\n' + system + '\n<</SYS>>\n\n' + content %}
    {%- endif %}
    {{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
  {%- endif %}
{%- endfor %})";

constexpr char kLlama3[] = R"({{- bos_token }}
{%- for message in messages %}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %})";

constexpr char kGemma[] = R"({%- if system is not none %}
  {{- raise_exception('the format has no system role; put the text into the first user message') }}
{%- endif %}
{{- bos_token }}
{%- for message in rest %}
  {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\n' + message.content | trim }}
  {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %})";

constexpr char kPhi3[] = R"({%- for message in messages if message.role != 'system' or message.content %}
  {{- '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";

constexpr char kMistral[] = R"({{- bos_token }}
{%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- ' ' + message.content | trim + eos_token }}
  {%- else %}
    {{- '[INST] ' + (system + '\n\n' if loop.last and system is not none else '') + message.content + '[/INST]' }}
  {%- endif %}
{%- endfor %})";

constexpr char kMistralV1[] = R"({{- bos_token }}
{%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- ' ' + message.content + eos_token }}
  {%- else %}
    {{- ' [INST] ' + (system + '\n\n' if loop.first and system is not none else '') + message.content + ' [/INST]' }}
  {%- endif %}
{%- endfor %})";

constexpr char kMistralV7[] = R"({{- bos_token }}
{%- if system is not none %}{{ '[SYSTEM_PROMPT] ' + system + '[/SYSTEM_PROMPT]' }}{% endif %}
{%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- ' ' + message.content + eos_token }}
  {%- else %}
    {{- '[INST] ' + message.content + '[/INST]' }}
  {%- endif %}
{%- endfor %})";

constexpr char kZephyr[] = R"({%- for message in messages %}
  {{- '<|' + message.role + '|>\n' + message.content + eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %})";

constexpr char kVicuna[] = R"({{- bos_token }}
{%- if system is not none %}{{ system + '\n\n' }}{% endif %}
{%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- 'ASSISTANT: ' + message.content + eos_token + '\n' }}
  {%- else %}
    {{- 'USER: ' + message.content + '\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %})";

constexpr char kAlpaca[] = R"({{- bos_token }}
{%- if system is not none %}{{ system + '\n\n' }}{% endif %}
{%- for message in rest %}
  {%- if message.role == 'assistant' %}
    {{- '### Response:\n' + message.content + eos_token + '\n\n' }}
  {%- else %}
    {{- '### Instruction:\n' + message.content + '\n\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Response:\n' }}{% endif %})";

using Sources = std::vector<std::pair<std::string, std::string>>;

const Sources& All() {
  static const auto* const all = [] {
    const auto with_turns = [](const char* source) { return absl::StrCat(kTurns, "\n", source); };
    return new Sources{{"chatml", kChatMl},
                       {"hermes", kHermes},
                       {"llama2", with_turns(kLlama2)},
                       {"llama3", kLlama3},
                       {"gemma", with_turns(kGemma)},
                       {"phi3", kPhi3},
                       {"mistral", with_turns(kMistral)},
                       {"mistral-v1", with_turns(kMistralV1)},
                       {"mistral-v7", with_turns(kMistralV7)},
                       {"zephyr", kZephyr},
                       {"vicuna", with_turns(kVicuna)},
                       {"alpaca", with_turns(kAlpaca)}};
  }();
  return *all;
}

}  // namespace

const std::vector<std::string>& NamedTemplates() {
  static const auto* const names = [] {
    auto* made = new std::vector<std::string>;
    for (const auto& entry : All()) made->push_back(entry.first);
    return made;
  }();
  return *names;
}

std::optional<std::string_view> NamedTemplate(std::string_view name) {
  for (const auto& [known, source] : All()) {
    if (known == name) return source;
  }
  return std::nullopt;
}

}  // namespace updraft::text
