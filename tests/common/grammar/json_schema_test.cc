// JSON schemas: texts that fit and texts that do not, keyword by keyword; what is not known is named.
#include "common/grammar/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/common/grammar/follow.h"

namespace updraft::grammar {
namespace {

using testing::Follower;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Case {
  const char* what;
  std::string schema;
  std::vector<std::string> fit;
  std::vector<std::string> do_not;
};

void Check(const std::vector<Case>& cases, const JsonSchemaOptions& options = {}) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const Follower schema(GrammarOfJsonSchema(c.schema, options));
    for (const std::string& text : c.fit) EXPECT_TRUE(schema.Fits(text)) << text;
    for (const std::string& text : c.do_not) EXPECT_FALSE(schema.Fits(text)) << text;
  }
}

TEST(JsonSchemaTest, TypesAndValues) {
  Check(
      {{"any", "true", {"null", "1", "[1, {\"a\":[]}]", "\"\\u00e9\\n\"", "{}", "-0.5e+3"}, {"", "nul", "01", "[1,]"}},
       {"any", "{}", {"[[[[]]]]", "{\"a\": {\"b\": null}}"}, {"{a:1}", "'x'"}},
       {"described", R"({"title":"t","description":"d","default":3})", {"\"x\""}, {"x"}},
       {"null", R"({"type":"null"})", {"null"}, {"0", "\"null\""}},
       {"boolean", R"({"type":"boolean"})", {"true", "false"}, {"1"}},
       {"integer",
        R"({"type":"integer"})",
        {"0", "-12", "123456789012345678"},
        {"1.5", "01", "1e3", "", "1234567890123456789"}},
       {"number", R"({"type":"number"})", {"0", "-1.5", "1e3", "2E-7"}, {"1.", ".5", "+1", "\"1\""}},
       {"several", R"({"type":["string","null"]})", {"null", "\"\""}, {"0"}},
       {"integer is a number", R"({"type":["integer","number"]})", {"1.5", "1"}, {"null"}},
       {"string",
        R"({"type":"string"})",
        {"\"\"", "\"a\\\"b\\\\\"", "\"é😀\"", "\"\\ud83d\\ude00\""},
        {"\"\n\"", "\"\\x\"", "\"\\ud83d\"", "\"\xff\"", "\"a"}},
       {"const", R"({"const":{"a":[1,"x"]}})", {"{\"a\":[1,\"x\"]}", "{\"a\": [1, \"x\"]}"}, {"{}", "{\"a\":[1]}"}},
       {"enum", R"({"enum":["on","off",3,null]})", {"\"on\"", "\"off\"", "3", "null"}, {"\"o\"", "4", "on"}},
       {"enum of a type", R"({"type":"string","enum":["on",3],"maxLength":2})", {"\"on\""}, {"3"}},
       {"enum of a pattern", R"({"enum":["on","off"],"pattern":"ff$"})", {"\"off\""}, {"\"on\""}}});
}

TEST(JsonSchemaTest, Numbers) {
  Check({{"range", R"({"type":"integer","minimum":-3,"maximum":120})", {"-3", "0", "99", "120"}, {"-4", "121", "1000"}},
         {"exclusive", R"({"type":"integer","exclusiveMinimum":0,"exclusiveMaximum":10})", {"1", "9"}, {"0", "10"}},
         {"draft 4", R"({"type":"integer","minimum":0,"exclusiveMinimum":true})", {"1"}, {"0", "-1"}},
         {"fraction", R"({"type":"integer","minimum":0.5,"maximum":2.5})", {"1", "2"}, {"0", "3"}},
         {"negative fraction", R"({"type":"integer","minimum":-2.5,"maximum":-0.5})", {"-2", "-1"}, {"-3", "0"}},
         {"number",
          R"({"type":"number","minimum":16,"maximum":28.5})",
          {"16", "16.0", "28.5", "20.25"},
          {"15.9", "28.51", "29", "1.6e1"}},
         {"multiple", R"({"type":"number","multipleOf":1})", {"4", "-7"}, {"4.5"}},
         {"exponent in the schema", R"({"type":"number","maximum":1e2})", {"100", "-5"}, {"100.1"}}});
}

TEST(JsonSchemaTest, Strings) {
  Check(
      {{"length",
        R"({"type":"string","minLength":2,"maxLength":3})",
        {"\"ab\"", "\"é😀x\"", "\"\\n\\n\""},
        {"\"a\"", "\"abcd\"", "\"\""}},
       {"pattern",
        R"({"type":"string","pattern":"^[A-Z]{2}-\\d+$"})",
        {"\"AB-1\""},
        {"\"ab-1\"", "\"AB-\"", "\"xAB-1\""}},
       {"pattern anywhere", R"({"type":"string","pattern":"o"})", {"\"foo\"", "\"o\""}, {"\"bar\""}},
       {"pattern of a quote", R"({"type":"string","pattern":"^\"\\\\$"})", {"\"\\\"\\\\\""}, {"\"\"\"", "\"\\\\\""}},
       {"pattern and length", R"({"type":"string","pattern":"^a+$","maxLength":2})", {"\"a\"", "\"aa\""}, {"\"aaa\""}},
       {"date",
        R"({"type":"string","format":"date"})",
        {"\"2026-02-28\""},
        {"\"2026-02-31\"", "\"2026-13-01\"", "\"0000-01-01\""}},
       {"date-time", R"({"type":"string","format":"date-time"})", {"\"2026-12-01T11:00:00Z\""}, {"\"2026-12-01\""}},
       {"uuid", R"({"type":"string","format":"uuid"})", {"\"123e4567-e89b-12d3-a456-426614174000\""}, {"\"123\""}},
       {"unknown format", R"({"type":"string","format":"iri"})", {"\"x\""}, {"x"}},
       {"other types stay", R"({"pattern":"^a$"})", {"\"a\"", "1", "null"}, {"\"b\""}}});
}

TEST(JsonSchemaTest, Arrays) {
  Check({{"items",
          R"({"type":"array","items":{"type":"integer"}})",
          {"[]", "[1]", "[1,2, 3]", "[\n  1,\n  2\n]"},
          {"[1,]", "[\"a\"]", "[,1]"}},
         {"count",
          R"({"type":"array","items":{"type":"null"},"minItems":1,"maxItems":2})",
          {"[null]", "[null,null]"},
          {"[]", "[null,null,null]"}},
         {"empty", R"({"type":"array","maxItems":0})", {"[]", "[ ]"}, {"[1]"}},
         {"first ones",
          R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"items":{"const":3}})",
          {"[]", "[1]", "[1,2]", "[1,2,3,3]"},
          {"[2]", "[1,3]", "[1,2,2]"}},
         {"first ones alone",
          R"({"type":"array","prefixItems":[{"const":1},{"const":2}],"items":false,"minItems":1})",
          {"[1]", "[1,2]"},
          {"[]", "[1,2,3]"}},
         {"as before 2020",
          R"({"type":"array","items":[{"const":1}],"additionalItems":false,"minItems":1})",
          {"[1]"},
          {"[]", "[1,1]"}},
         {"first ones, more needed",
          R"({"type":"array","prefixItems":[{"const":1}],"minItems":3})",
          {"[1,2,3]"},
          {"[1,2]"}}});
}

TEST(JsonSchemaTest, Objects) {
  const std::string person = R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},
                                 "mail":{"type":"string"}},"required":["name"]})";
  Check({{"in order",
          person,
          {R"({"name":"a"})", R"({"name": "a", "age": 3})", R"({"name":"a","mail":"b"})",
           "{\n  \"name\": \"a\",\n  \"age\": 3\n}"},
          {"{}", R"({"age":3})", R"({"age":3,"name":"a"})", R"({"name":"a",})", R"({"name":"a","name":"b"})",
           R"({"name":"a","x":1})"}},
         {"all optional",
          R"({"type":"object","properties":{"a":{},"b":{},"c":{}}})",
          {"{}", R"({"a":1})", R"({"b":1})", R"({"a":1,"c":1})", R"({"b":1,"c":1})"},
          {R"({,"a":1})", R"({"c":1,"a":1})"}},
         {"open",
          R"({"type":"object","properties":{"a":{"const":1}},"additionalProperties":{"type":"boolean"}})",
          {R"({"a":1,"x":true})", R"({"x":true,"y":false})"},
          {R"({"x":1})", R"({"x":true,"a":1})", R"({"a":true})"}},
         {"closed", R"({"type":"object","properties":{"a":{}},"additionalProperties":false})", {"{}"}, {R"({"b":1})"}},
         {"a map",
          R"({"type":"object","additionalProperties":{"type":"integer"},"minProperties":1,"maxProperties":2})",
          {R"({"x":1})", R"({"x":1,"y":2})"},
          {"{}", R"({"x":1,"y":2,"z":3})"}},
         {"patterns",
          R"({"type":"object","patternProperties":{"^x_":{"type":"integer"}},"additionalProperties":false})",
          {"{}", R"({"x_a":1})"},
          {R"({"y":1})", R"({"x_a":"1"})"}},
         {"names", R"({"type":"object","propertyNames":{"pattern":"^[a-z]+$"}})", {R"({"ab":1})"}, {R"({"A":1})"}},
         {"required without a schema",
          R"({"type":"object","required":["a"],"additionalProperties":{"const":1}})",
          {R"({"a":1})", R"({"a":1,"b":1})"},
          {"{}", R"({"a":2})"}},
         {"a quote in a name",
          R"({"type":"object","properties":{"a\"b":{"const":1}}})",
          {R"({"a\"b":1})"},
          {R"({"a":1})"}},
         {"nothing can be",
          R"({"type":"object","properties":{"a":false,"b":{}}})",
          {"{}", R"({"b":1})"},
          {R"({"a":1})"}}});
  JsonSchemaOptions open;
  open.open_objects = true;
  Check({{"as the standard has it",
          R"({"type":"object","properties":{"a":{"const":1}}})",
          {R"({"a":1,"b":2})"},
          {R"({"a":2})", R"({"b":1,"a":1})"}}},
        open);
  JsonSchemaOptions tight;
  tight.white_space = false;
  Check({{"without space",
          R"({"type":"array","items":{"type":"object","properties":{"a":{}}}})",
          {R"([{"a":1},{}])"},
          {R"([{"a": 1}])", "[ ]"}}},
        tight);
}

TEST(JsonSchemaTest, Joined) {
  Check({{"any of",
          R"({"anyOf":[{"type":"integer"},{"type":"string","maxLength":1}]})",
          {"7", "\"a\""},
          {"\"ab\"", "null"}},
         {"beside alternatives",
          R"({"type":"object","properties":{"kind":{"type":"string"}},"required":["kind"],
            "anyOf":[{"properties":{"kind":{"const":"a"}}},{"properties":{"kind":{"const":"b"},"n":{"type":"integer"}},
            "required":["n"]}]})",
          {R"({"kind":"a"})", R"({"kind":"b","n":1})"},
          {R"({"kind":"b"})", R"({"kind":"c"})"}},
         {"one of types", R"({"oneOf":[{"type":"integer"},{"type":"string"}]})", {"1", "\"a\""}, {"null"}},
         {"one of kinds",
          R"({"oneOf":[{"type":"object","properties":{"t":{"const":"a"}},"required":["t"]},
            {"type":"object","properties":{"t":{"const":"b"}},"required":["t"]}]})",
          {R"({"t":"a"})", R"({"t":"b"})"},
          {R"({"t":"c"})"}},
         {"all of", R"({"allOf":[{"type":"integer","minimum":3},{"maximum":5}]})", {"3", "5"}, {"2", "6", "\"a\""}},
         {"all of objects",
          R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},
            {"properties":{"b":{"type":"string"}},"required":["b"]}]})",
          {R"({"a":1,"b":"x"})"},
          {R"({"a":1})"}},
         {"a property of two",
          R"({"allOf":[{"type":"object","properties":{"a":{"minimum":3}}},
            {"properties":{"a":{"type":"integer"}},"required":["a"]}]})",
          {R"({"a":3})"},
          {R"({"a":2})", R"({"a":"x"})"}},
         {"references",
          R"({"$defs":{"n":{"type":"integer"}},"type":"array","items":{"$ref":"#/$defs/n"}})",
          {"[1]"},
          {"[\"a\"]"}},
         {"to itself",
          R"({"$ref":"#/definitions/tree","definitions":{"tree":{"type":"object","properties":{
            "value":{"type":"integer"},"children":{"type":"array","items":{"$ref":"#/definitions/tree"}}},
            "required":["value"]}}})",
          {R"({"value":1})", R"({"value":1,"children":[{"value":2,"children":[]},{"value":3}]})"},
          {R"({"children":[]})", R"({"value":1,"children":[{}]})"}},
         {"the whole", R"({"type":"array","items":{"$ref":"#"}})", {"[]", "[[],[[]]]"}, {"[1]"}},
         {"beside a reference", R"({"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n","minimum":5})", {"5"}, {"4"}},
         {"escaped names", R"({"$defs":{"a/b~c d":{"const":1}},"$ref":"#/$defs/a~1b~0c%20d"})", {"1"}, {"2"}}});
}

// Found by reading: each accepted what its schema does not.
TEST(JsonSchemaTest, WhatDoesNotFitIsNotWritten) {
  Check({{"more than there can be",
          R"({"type":"object","properties":{"a":{"type":"integer"},"b":{}},"required":["a","b"],"minProperties":2})",
          {R"({"a":1,"b":2})"},
          {R"({"a":1})"}},
         {"64 bits", R"({"type":"integer","exclusiveMinimum":9223372036854775806})", {"9223372036854775807"}, {"0"}},
         {"to the last digit",
          R"({"enum":[9007199254740993,1],"maximum":9007199254740992})",
          {"1"},
          {"9007199254740993"}},
         {"duration",
          R"({"type":"string","format":"duration"})",
          {"\"P1Y2M3DT4H5M6S\"", "\"PT5M\"", "\"P3W\""},
          {"\"P1Y2D\"", "\"PT1H2S\"", "\"P\""}},
         {"alternatives of two",
          R"({"allOf":[{"anyOf":[{"minimum":3},{"maximum":-3}]},{"anyOf":[{"multipleOf":1}]}],"type":"number"})",
          {"3", "-4"},
          {"2", "3.5"}},
         {"beside a reference",
          R"({"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n","nullable":true,"x-order":3})",
          {"1"},
          {"null"}}});
  const absl::StatusOr<Grammar> none = GrammarOfJsonSchema(
      R"({"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"minProperties":2})");
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_FALSE(CompiledGrammar::Compile(*none).ok()) << "closed, and one property short";
}

TEST(JsonSchemaTest, WhatIsNotKnownIsNamed) {
  for (const auto& [schema, what] : std::vector<std::pair<std::string, std::string>>{
           {"{", "#: expected a schema as JSON"},
           {"3", "#: expected a schema"},
           {R"({"not":{}})", "#/not: this keyword is not known"},
           {R"({"properties":{"a":{"if":{}}}})", "#/properties/a/if: "},
           {R"({"type":"strnig"})", "#/type: type: expected one of"},
           {R"({"type":"array","uniqueItems":true})", "#/uniqueItems: "},
           {R"({"type":"array","contains":{}})", "#/contains: "},
           {R"({"type":"string","pattern":"(a)\\1"})", "#/pattern: expected a regular expression"},
           {R"({"type":"string","pattern":3})", "pattern: expected a string"},
           {R"({"type":"string","minLength":-1})", "#/minLength: expected a whole number"},
           {R"({"type":"string","maxLength":"3"})", "#/maxLength: expected a whole number"},
           {R"({"type":"string","minLength":5000})", "#/minLength: expected at most"},
           {R"({"type":"integer","multipleOf":3})", "multipleOf: expected 1"},
           {R"({"type":"integer","minimum":"3"})", "minimum: expected a number"},
           {R"({"type":"integer","minimum":1e30})", "within 64 bits"},
           {R"({"$ref":"#/nowhere"})", "#/$ref: expected a place in this schema"},
           {R"({"$ref":"https://example.com/x"})", "#/$ref: expected a place in this schema"},
           {R"({"enum":3})", "#/enum: expected an array"},
           {R"({"enum":[{}],"required":["a"]})", "required: is not known here beside"},
           {R"({"anyOf":[]})", "#/anyOf: expected an array of schemas"},
           {R"({"oneOf":[{"type":"integer"},{"minimum":3}]})", "#/oneOf: expected alternatives"},
           {R"({"allOf":[{"$ref":"#"}]})", "nested less deeply"},
           {R"({"allOf":[{"pattern":"a"},{"pattern":"b"}]})", "pattern: stands twice"},
           {R"({"allOf":[{"prefixItems":[{"minimum":3}]}],"items":{"minimum":5}})", "items: stands twice"},
           {R"({"allOf":[{"patternProperties":{"^a":{}}}],"properties":{"b":{}}})", "patternProperties: stands twice"},
           {R"({"type":"object","properties":3})", "properties: expected an object"},
           {R"({"type":"object","required":"a"})", "required: expected an array"},
           {R"({"type":"object","properties":{"a":{}},"patternProperties":{"a":{}}})",
            "also speaks of the property 'a'"},
           {R"({"type":"object","properties":{"a":{},"b":{}},"maxProperties":1})",
            "#/maxProperties: is known here only"},
           {R"({"$ref":"#/$defs/a","allOf":5,"anyOf":[{}],"$defs":{"a":{"anyOf":[true]}}})", "allOf"},
           {R"({"allOf":[5]})", "expected schemas"},
           {R"({"anyOf":[5]})", "expected schemas"},
           {R"({"type":"integer","exclusiveMinimum":9223372036854775807})", "within 64 bits"},
           {R"({"oneOf":[{"const":{"a":1,"b":2}},{"const":{"b":2,"a":1}}]})", "#/oneOf: expected alternatives"},
           {R"({"oneOf":[{"$ref":"#/$defs/A"},{"$ref":"#/$defs/B"}],"$defs":{"A":{"type":"object","required":["x"],)"
            R"("properties":{"x":{"$ref":"#/$defs/A"}}},"B":{"type":"object","required":["x"],)"
            R"("properties":{"x":{"$ref":"#/$defs/B"}}}}})",
            "#/oneOf: expected alternatives"},
           {R"({"type":"object","minProperties":2})", "#/minProperties: is known here only"},
           {R"({"type":"object","propertyNames":{"minLength":2500}})", "propertyNames/minLength"},
           {R"({"properties":{"a":{"$id":"b","$ref":"#/x"}}})", "#/properties/a/$id"},
           {R"({"type":"array","items":{"items":3}})", "#/items"}}) {
    const absl::Status status = GrammarOfJsonSchema(schema).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << schema << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(what)) << schema;
  }
  for (const char* nothing :
       {"false", R"({"enum":[]})", R"({"type":"integer","minimum":3,"maximum":2})",
        R"({"type":"object","properties":{"a":false},"required":["a"]})",
        R"({"$ref":"#/$defs/a","$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"},"minItems":1}}})"}) {
    const absl::StatusOr<Grammar> grammar = GrammarOfJsonSchema(nothing);
    ASSERT_TRUE(grammar.ok()) << grammar.status();
    EXPECT_TRUE(absl::IsInvalidArgument(CompiledGrammar::Compile(*grammar).status())) << nothing;
  }
}

TEST(JsonSchemaTest, LargeAndDeepOnesEnd) {
  std::string deep = "{}";
  for (int i = 0; i < 60; ++i) deep = R"({"items":)" + deep + "}";
  EXPECT_TRUE(GrammarOfJsonSchema(deep).ok());
  for (int i = 0; i < 60; ++i) deep = R"({"items":)" + deep + "}";
  EXPECT_FALSE(GrammarOfJsonSchema(deep).ok());
  std::string wide = R"({"type":"object","properties":{)";
  for (int i = 0; i < 400; ++i) wide += (i > 0 ? ",\"p" : "\"p") + std::to_string(i) + R"(":{"type":"integer"})";
  const absl::StatusOr<Grammar> grammar = GrammarOfJsonSchema(wide + "}}");
  ASSERT_TRUE(grammar.ok()) << grammar.status();
  EXPECT_TRUE(CompiledGrammar::Compile(*grammar).ok());
  EXPECT_FALSE(GrammarOfJsonSchema(std::string(kMaxSchemaBytes + 1, ' ')).ok());
  // Doubles at each step: the bound on schemas ends it.
  std::string twice = R"({"$defs":{"d0":{"type":"null"})";
  for (int i = 1; i < 40; ++i) {
    twice += absl::StrFormat(R"(,"d%d":{"anyOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}],"minimum":1})", i,
                             i - 1, i - 1);
  }
  EXPECT_FALSE(GrammarOfJsonSchema(twice + R"(},"$ref":"#/$defs/d39"})").ok());
  std::string joined = R"({"$defs":{"a40":{"minimum":1})";
  for (int i = 39; i >= 0; --i) {
    joined += absl::StrFormat(R"(,"a%d":{"allOf":[{"$ref":"#/$defs/a%d"},{"$ref":"#/$defs/a%d","title":"x"}]})", i,
                              i + 1, i + 1);
  }
  EXPECT_TRUE(GrammarOfJsonSchema(joined + R"(},"$ref":"#/$defs/a0"})").ok()) << "equal parts count once";
  std::string first_ones = R"({"type":"array","prefixItems":[)";
  for (int i = 0; i < 20000; ++i) first_ones += i > 0 ? ",{}" : "{}";
  const absl::StatusOr<Grammar> many = GrammarOfJsonSchema(first_ones + "]}");
  if (many.ok()) {
    EXPECT_FALSE(CompiledGrammar::Compile(*many).ok());
  }
}

}  // namespace
}  // namespace updraft::grammar
