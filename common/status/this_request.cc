#include "common/status/this_request.h"

#include "absl/strings/cord.h"

namespace updraft {
namespace {
constexpr char kPayloadUrl[] = "updraft/this-request-alone";
}  // namespace

absl::Status OfThisRequestAlone(absl::Status status) {
  status.SetPayload(kPayloadUrl, absl::Cord("1"));
  return status;
}

bool IsOfThisRequestAlone(const absl::Status& status) { return status.GetPayload(kPayloadUrl).has_value(); }

}  // namespace updraft
