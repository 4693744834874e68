// Provenance as OpenAI's clients find it: the field "updraft" of an answer.
#pragma once

#include "common/http/json.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

// Of an answer that is complete. "disposition" is there when the answer has one.
http::Json ProvenanceToJson(const v1::Done& done);

}  // namespace updraft
