// Shapes of answers as OpenAI, vLLM and llama.cpp name them.
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/http/field_reader.h"

namespace updraft::http::openai {
namespace {

// Of text that is JSON, as the parser has found: where the value that begins at `at` ends.
size_t EndOfValue(std::string_view text, size_t at) {
  int depth = 0;
  bool in_string = false;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (in_string) {
      if (c == '\\') {
        ++at;
      } else if (c == '"') {
        in_string = false;
        if (depth == 0) return at + 1;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;  // the end of what a number stands in
      if (--depth == 0) return at + 1;
    } else if (depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
      return at;
    }
  }
  return at;
}

// The value of a key of an object; of one that is there twice the last counts, as the parser has it.
std::string_view MemberOf(std::string_view object, std::string_view key) {
  constexpr std::string_view kBetween = " \t\r\n,:{";
  std::string_view found;
  const size_t begin = object.find('{');
  for (size_t at = begin == std::string_view::npos ? begin : object.find_first_not_of(" \t\r\n", begin + 1);
       at < object.size() && object[at] == '"';) {
    const size_t key_end = EndOfValue(object, at);
    const std::string_view written = object.substr(at, key_end - at);
    const bool plain = written.find('\\') == std::string_view::npos;
    const auto name =
        plain ? absl::StatusOr<Json>(Json(std::string(written.substr(1, written.size() - 2)))) : ParseJson(written);
    at = object.find_first_not_of(kBetween.substr(0, 6), key_end);
    if (at == std::string_view::npos) break;
    const size_t end = EndOfValue(object, at);
    if (name.ok() && name->is_string() && name->get_ref<const std::string&>() == std::string(key)) {
      found = object.substr(at, end - at);
    }
    at = object.find_first_not_of(kBetween.substr(0, 5), end);
  }
  return found;
}

// The value at this path of the body, as it was written: keys of a schema have an order, which Json forgets.
std::string AsWritten(std::string_view body, std::initializer_list<const char*> path) {
  std::string_view at = body;
  for (const char* key : path) at = MemberOf(at, key);
  return std::string(at);
}

class ShapeReader {
 public:
  ShapeReader(FieldReader& reader, std::string_view body, std::optional<Shape>& shape)
      : reader_(reader), body_(body), shape_(shape) {}

  void ReadAll() {
    ReadResponseFormat();
    for (const char* field : {"guided_json", "json_schema"}) {
      if (const Json* value = reader_.Find(field)) Schema(*value, {field}, field);
    }
    for (const char* field : {"guided_regex"}) Text(reader_.Find(field), Shape::Kind::kRegex, field);
    for (const char* field : {"guided_grammar", "grammar"}) Text(reader_.Find(field), Shape::Kind::kGrammar, field);
    if (const Json* value = reader_.Find("guided_choice")) Choice(*value, "guided_choice");
    ReadStructuredOutputs();
  }

 private:
  void Take(Shape shape) {
    if (shape_) {
      return reader_.Fail(FieldError(shape.field, absl::StrCat("is there beside ", shape_->field,
                                                               "; an answer has one shape, so send one of them")));
    }
    shape_ = std::move(shape);
  }

  // An object, or its text.
  void Schema(const Json& value, std::initializer_list<const char*> path, const std::string& field) {
    if (!value.is_object() && !value.is_boolean() && !value.is_string()) {
      return reader_.Fail(WrongType(field, "a JSON schema", value));
    }
    if (value.is_string() && value.get_ref<const std::string&>().empty()) return;
    Take({.kind = Shape::Kind::kJsonSchema,
          .text = value.is_string() ? value.get<std::string>() : AsWritten(body_, path),
          .texts = {},
          .field = field});
  }

  void Text(const Json* value, Shape::Kind kind, const std::string& field) {
    if (value == nullptr) return;
    if (!value->is_string()) return reader_.Fail(WrongType(field, "a string", *value));
    if (value->get_ref<const std::string&>().empty()) return;
    Take({.kind = kind, .text = value->get<std::string>(), .texts = {}, .field = field});
  }

  void Choice(const Json& value, const std::string& field) {
    Shape shape{.kind = Shape::Kind::kChoice, .text = {}, .texts = {}, .field = field};
    if (!value.is_array()) return reader_.Fail(WrongType(field, "an array of strings", value));
    if (value.empty()) return;
    for (const Json& text : value) {
      if (!text.is_string()) return reader_.Fail(WrongType(field, "an array of strings", text));
      shape.texts.push_back(text.get<std::string>());
    }
    Take(std::move(shape));
  }

  void ReadResponseFormat() {
    const Json* value = reader_.Find("response_format");
    if (value == nullptr) return;
    if (!value->is_object()) return reader_.Fail(WrongType("response_format", "an object", *value));
    FieldReader format(*value, "response_format.");
    std::string type;
    format.String("type", 64, type);
    reader_.Fail(format.status());
    if (!reader_.status().ok() || type == "text") return;
    if (type == "json_object") {
      if (const Json* schema = format.Find("schema")) {  // as llama.cpp has it
        return Schema(*schema, {"response_format", "schema"}, "response_format.schema");
      }
      return Take(
          {.kind = Shape::Kind::kJsonSchema, .text = R"({"type":"object"})", .texts = {}, .field = "response_format"});
    }
    if (type != "json_schema") {
      return reader_.Fail(
          FieldError("response_format.type",
                     absl::StrFormat("expected \"text\", \"json_object\" or \"json_schema\", found \"%s\"", type)));
    }
    const Json* inner = format.Find("json_schema");
    if (inner == nullptr || !inner->is_object()) {
      return reader_.Fail(FieldError("response_format.json_schema", "missing; expected an object with a schema"));
    }
    const auto schema = inner->find("schema");
    if (schema == inner->end()) {
      return reader_.Fail(FieldError("response_format.json_schema.schema", "missing; expected a JSON schema"));
    }
    Schema(*schema, {"response_format", "json_schema", "schema"}, "response_format.json_schema.schema");
  }

  // As vLLM has it since its version 0.11.
  void ReadStructuredOutputs() {
    const Json* value = reader_.Find("structured_outputs");
    if (value == nullptr) return;
    if (!value->is_object()) return reader_.Fail(WrongType("structured_outputs", "an object", *value));
    FieldReader inner(*value, "structured_outputs.");
    for (const auto& item : value->items()) {
      const std::string& key = item.key();
      const std::string field = "structured_outputs." + key.substr(0, 64);
      if (item.value().is_null() || item.value() == Json(false)) continue;
      if (key == "json") {
        Schema(item.value(), {"structured_outputs", "json"}, field);
      } else if (key == "regex") {
        Text(&item.value(), Shape::Kind::kRegex, field);
      } else if (key == "grammar") {
        Text(&item.value(), Shape::Kind::kGrammar, field);
      } else if (key == "choice") {
        Choice(item.value(), field);
      } else if (key == "json_object") {
        Take({.kind = Shape::Kind::kJsonSchema, .text = R"({"type":"object"})", .texts = {}, .field = field});
      } else {
        reader_.Fail(FieldError(field, "not known; expected json, json_object, regex, grammar or choice"));
      }
    }
  }

  FieldReader& reader_;
  const std::string_view body_;
  std::optional<Shape>& shape_;
};

}  // namespace

void ReadShape(FieldReader& reader, std::string_view body, std::optional<Shape>& shape) {
  ShapeReader(reader, body, shape).ReadAll();
}

}  // namespace updraft::http::openai
