#include "common/http/json.h"

#include "absl/strings/str_format.h"
#include "common/json/nesting.h"

namespace updraft::http {
namespace {

// Builds the document while remembering where and why it failed (the parser's own error text needs exceptions
// otherwise).
class Builder : public nlohmann::detail::json_sax_dom_parser<Json> {
 public:
  explicit Builder(Json& root) : json_sax_dom_parser(root, /*allow_exceptions=*/false) {}
  template <typename Exception>
  bool parse_error(size_t position, const std::string& last_token, const Exception& exception) {
    position_ = position;
    failed_ = true;
    return json_sax_dom_parser::parse_error(position, last_token, exception);
  }
  bool failed() const { return failed_; }
  size_t position() const { return position_; }

 private:
  bool failed_ = false;
  size_t position_ = 0;
};

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text) {
  if (size_t at = FirstTooDeep(text, kMaxJsonDepth); at != std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrFormat("body: JSON nested deeper than %d levels at byte %d", kMaxJsonDepth, at));
  }
  Json value;
  Builder builder(value);
  if (!Json::sax_parse(text.begin(), text.end(), &builder) || builder.failed()) {
    if (builder.position() > text.size()) {  // behind the last byte
      return absl::InvalidArgumentError(absl::StrFormat(
          "body: expected one JSON value in UTF-8, found that it ends too early, after %d bytes", text.size()));
    }
    return absl::InvalidArgumentError(absl::StrFormat(
        "body: expected one JSON value in UTF-8, found an error at byte %d of %d", builder.position(), text.size()));
  }
  return value;
}

std::string DumpJson(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

const char* JsonTypeName(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

}  // namespace updraft::http
