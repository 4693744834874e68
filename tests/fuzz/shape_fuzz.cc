// Any bytes as a shape: refused with words, or compiled within the limits, and whatever is chosen among the tokens that
// are allowed stays within the grammar. The first byte chooses schema, expression or grammar.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/grammar/gbnf.h"
#include "common/grammar/json_schema.h"
#include "common/grammar/token_masks.h"
#include "nlohmann/json.hpp"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft::grammar;

void Require(bool holds) {
  if (!holds) std::abort();
}

std::shared_ptr<const Vocabulary> Tokens() {
  static const auto tokens = [] {
    std::vector<std::string> texts = {"<end>"};
    for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* piece : {"\": ", "\",", "\"}", "{\"", "true", "null", "12", "]}", ", \"", "aa", "ab\"", "\n  "}) {
      texts.push_back(piece);
    }
    const int n = static_cast<int>(texts.size());
    return std::make_shared<const Vocabulary>(texts, std::vector<int32_t>{0}, n);
  }();
  return tokens;
}

// Chooses by the bytes of the input, and goes back now and then; true: the text ended.
bool Follow(const std::shared_ptr<const TokenMasks>& masks, std::string_view choices, std::string& text) {
  GrammarMask mask(masks);
  const Vocabulary& vocabulary = masks->vocabulary();
  std::vector<size_t> lengths;
  for (size_t i = 0; i < 60 && !mask.ended(); ++i) {
    const auto wish = static_cast<uint8_t>(choices.empty() ? i * 37 : choices[i % choices.size()]);
    const std::vector<uint64_t> allowed(mask.Allowed().begin(), mask.Allowed().end());
    if (mask.broken()) return false;  // as many ways as are followed at most
    int32_t token = wish;
    while (!updraft::MaskAllows(allowed, token)) token = (token + 1) % vocabulary.n_vocab();
    if (mask.may_end() && i > 20) token = 0;
    lengths.push_back(text.size());
    if (token != 0) text += vocabulary.text(token);
    mask.Advance(token);
    if (wish % 11 != 0 || mask.ended()) continue;
    mask.Rollback(1);
    Require(std::vector<uint64_t>(mask.Allowed().begin(), mask.Allowed().end()) == allowed);
    mask.Advance(token);
  }
  return mask.ended();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  const int kind = data[0] % 3;
  const absl::StatusOr<Grammar> grammar = kind == 0   ? GrammarOfJsonSchema(text)
                                          : kind == 1 ? GrammarOfRegex(text)
                                                      : GrammarOfGbnf(text);
  if (!grammar.ok()) {
    Require(!grammar.status().message().empty());
    return 0;
  }
  absl::StatusOr<CompiledGrammar> compiled = CompiledGrammar::Compile(*grammar);
  if (!compiled.ok()) {
    Require(!compiled.status().message().empty());
    return 0;
  }
  const auto masks = std::make_shared<const TokenMasks>(*std::move(compiled), Tokens());
  std::string written;
  const bool ended = Follow(masks, text, written);
  if (ended && kind == 0) Require(nlohmann::json::accept(written));
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  for (const std::string_view seed :
       {"0{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":5,\"pattern\":\"^a+\"},\"b\":{"
        "\"enum\":[1,"
        "\"x\",null]}},\"required\":[\"a\"],\"additionalProperties\":{\"type\":\"integer\",\"minimum\":-3}}",
        "0{\"$ref\":\"#/$defs/n\",\"$defs\":{\"n\":{\"type\":[\"array\",\"null\"],\"items\":{\"$ref\":\"#/$defs/"
        "n\"},\"minItems\":1,"
        "\"maxItems\":3}}}",
        "0{\"anyOf\":[{\"type\":\"number\",\"exclusiveMaximum\":1.5e1},{\"allOf\":[{\"type\":\"string\"},{\"format\":"
        "\"date-time\"}]},"
        "{\"oneOf\":[{\"const\":true},{\"const\":[1,{\"a\":2}]}]}]}",
        "0{\"type\":\"object\",\"patternProperties\":{\"^x\":{\"prefixItems\":[true,false]}},\"propertyNames\":{"
        "\"maxLength\":3},"
        "\"minProperties\":1}",
        "1^(a|b){2,3}[^x-z\\d]?\\u00e9.*$", "1(?:foo|ba[rz])+\\s\\\\",
        "2root ::= item+ # c\nitem ::= \"- \" [a-z]{1,3} (\", \" item | \"\\n\")\n",
        "2root ::= \"(\" root \")\" root | \"\" | ."}) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
