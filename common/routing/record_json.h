// A decision record as one line of JSON, for logs. In a library of its own (updraft_routing_records), so that routing
// builds where there is no JSON library.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/routing/record.h"

namespace updraft {

inline constexpr size_t kMaxRecordBytes = 64 << 10;  // of a line; an honest one has a tenth

// No newline. Fields in one fixed order, all of them always. Numbers come back exactly; NaN is null, infinities are the
// strings "inf" and "-inf", fingerprints 16 hexadecimal digits.
std::string RecordToJson(const DecisionRecord& record);

// The inverse. Strict: InvalidArgument names the field that is missing, unknown, twice there, of another type or out of
// range. FailedPrecondition names a schema that this build does not read.
absl::StatusOr<DecisionRecord> RecordFromJson(std::string_view line);

}  // namespace updraft
