// Any bytes as an answer with calls of tools, and as the schema of a tool. An answer is read to the same calls and text
// however it is cut, and nothing of what is no call is lost; what a grammar of calls lets through is read as calls. The
// first byte chooses.
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "common/grammar/grammar.h"
#include "common/tools/call_grammar.h"
#include "common/tools/call_parser.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft::tools;

void Require(bool holds) {
  if (!holds) std::abort();
}

const std::vector<CallFormat>& Formats() {
  static const auto formats = [] {
    std::vector<CallFormat> all;
    for (const char* name : {"hermes", "jamba", "mistral", "mistral-named", "phi4", "granite", "llama3"}) {
      all.push_back(*CallFormatNamed(name));
    }
    return all;
  }();
  return formats;
}

struct Parts {
  std::string text;
  std::vector<std::string> names, arguments;
  bool operator==(const Parts&) const = default;
};

// piece: of so many bytes.
Parts Parsed(const CallFormat& format, std::string_view answer, size_t piece) {
  CallParser parser(format);
  std::vector<CallEvent> events;
  for (size_t at = 0; at < answer.size(); at += piece) parser.Push(answer.substr(at, piece), events);
  parser.Finish(events);
  Parts parts;
  for (const CallEvent& event : events) {
    if (event.kind == CallEvent::Kind::kText) parts.text += event.text;
    if (event.kind == CallEvent::Kind::kCall) parts.names.push_back(event.text), parts.arguments.emplace_back();
    if (event.kind == CallEvent::Kind::kArguments) {
      Require(!parts.arguments.empty());
      parts.arguments.back() += event.text;
    }
  }
  return parts;
}

void TryAnswer(const CallFormat& format, std::string_view answer) {
  const Parts whole = Parsed(format, answer, std::max<size_t>(answer.size(), 1));
  for (const size_t piece : {1u, 3u, 7u}) Require(Parsed(format, answer, piece) == whole);
  if (whole.names.empty()) Require(whole.text == answer);
}

// A call of a tool with this schema, written by the bytes.
void TrySchema(const CallFormat& format, std::string_view schema) {
  const CallableTool tool{"f", std::string(schema)};
  const updraft::grammar::WorkBudget budget(200'000);
  const auto grammar = GrammarOfCalls(format, {&tool, 1}, {.required = true});
  if (!grammar.ok()) return;
  const auto compiled = updraft::grammar::CompiledGrammar::Compile(*grammar);
  if (!compiled.ok()) return;
  updraft::grammar::Frames frames;
  updraft::grammar::Walker walker(&*compiled, &frames);
  updraft::grammar::Places places, next;
  walker.Begin(compiled->start(), updraft::grammar::Frames::kDone, places);
  std::mt19937 random(static_cast<uint32_t>(schema.size()));
  std::string text;
  while (text.size() < 200 && !places.ways.empty() && !(places.done && random() % 4 == 0)) {
    std::vector<uint8_t> fits;
    for (int byte = 0; byte < 256; ++byte) {
      walker.Step(places, static_cast<uint8_t>(byte), next);
      if (next.done || !next.ways.empty()) fits.push_back(static_cast<uint8_t>(byte));
    }
    if (fits.empty()) return;  // as many ways as are followed at most
    text += static_cast<char>(fits[random() % fits.size()]);
    walker.Step(places, static_cast<uint8_t>(text.back()), next);
    std::swap(places, next);
  }
  if (!places.done) return;
  const Parts parts = Parsed(format, text, 5);
  Require(!parts.names.empty() && parts.text.empty());
  for (size_t i = 0; i < parts.names.size(); ++i) {
    Require(parts.names[i] == "f");
    Require(nlohmann::json::parse(parts.arguments[i], nullptr, /*allow_exceptions=*/false).is_object());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1 || size > 2000) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const CallFormat& format = Formats()[data[0] / 2 % Formats().size()];
  data[0] % 2 == 0 ? TryAnswer(format, rest) : TrySchema(format, rest);
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string answers[] = {
      "Hi.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, \"}\\\"\"]}}\n</tool_call>\n<tool_call>",
      "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}, \"id\": \"abcdefghi\"}, {\"arguments\": \"{}\", \"name\": "
      "\"g\"}]",
      "[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"a\": 1}[TOOL_CALLS]g{} x",
      "{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {\"x\": null}}",
      "<|python_tag|>{\"name\": \"f\"}<|tool_call|>[{\"name\": \"f\"}]<|/tool_call|>"};
  const std::string schemas[] = {
      R"({"type":"object","properties":{"a":{"type":"string","maxLength":3},"b":{"enum":[1,"x"]}},"required":["a"]})",
      R"({"properties":{"n":{"$ref":"#/$defs/n"}},"$defs":{"n":{"type":["array","null"],"items":{"$ref":"#/$defs/n"}}}})",
      R"({"type":["object","null"],"additionalProperties":false})", ""};
  for (size_t i = 0; i < Formats().size(); ++i) {
    for (const std::string& answer : answers) {
      const std::string seed = static_cast<char>(2 * i) + answer;
      add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
    }
    for (const std::string& schema : schemas) {
      const std::string seed = static_cast<char>(2 * i + 1) + schema;
      add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
    }
  }
}
