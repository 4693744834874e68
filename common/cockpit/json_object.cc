#include "common/cockpit/json_object.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "common/json/nesting.h"

namespace updraft::cockpit {
using nlohmann::json;

absl::StatusOr<json> ParseObject(std::string_view text, std::string_view what) {
  if (text.size() > kMaxObjectBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(what), ": expected at most ", kMaxObjectBytes, " bytes, found ", text.size()));
  }
  if (FirstTooDeep(text, kMaxObjectDepth) != std::string_view::npos) {
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
