#include "common/cockpit/json_object.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace updraft::cockpit {
namespace {

using nlohmann::json;

bool TooDeep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxObjectDepth) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<json> ParseObject(std::string_view text, std::string_view what) {
  if (text.size() > kMaxObjectBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": expected at most ", kMaxObjectBytes, " bytes, found ", text.size()));
  }
  if (TooDeep(text)) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": nested deeper than ", kMaxObjectDepth, " levels"));
  }
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded() || !value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": expected one JSON object, found '", std::string(text.substr(0, 80)), "'"));
  }
  return value;
}

}  // namespace updraft::cockpit
