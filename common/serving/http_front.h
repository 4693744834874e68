// OpenAI's HTTP over a backend: chat completions, completions and models; /metrics and /healthz (or /health).
#pragma once

#include <memory>

#include "common/http/server.h"
#include "common/serving/api_keys.h"
#include "common/serving/backend.h"
#include "common/serving/http_access.h"
#include "common/telemetry/metrics.h"

namespace updraft {

// Both must outlive the server that the router is given to. What a request may say beside its body:
//   X-Updraft-Tier         local, upstream or auto: who may answer; the answer's "updraft" field says who did, and why
//   X-Request-Id           its id (request_id of the wire); made here when absent or when it cannot be. Every response
//                          has it in the same header, refusals of the server itself too
//   X-Updraft-Deadline-Ms  milliseconds, from when the request is whole, after which nobody waits for the answer: 504
//   X-Updraft-Budget-Tokens  answer tokens of each choice at most: the smaller of it and the body's max_tokens counts
// A value that cannot be is a 400 that names the header.
// What is refused before the backend has seen it leaves a line in the log (`refused`) and is counted
// (updraft_refused_total), as the backend does with what it refuses.
// keys: who may ask, by Authorization: Bearer KEY, or X-Api-Key as Anthropic's clients have it; null: anybody. Health
// is told to everybody. Whose the key is is the request's tenant (TenantBelow).
http::Router MakeHttpFront(Backend* backend, Metrics* metrics, HttpAccess access = {},
                           std::shared_ptr<const ApiKeys> keys = nullptr);

}  // namespace updraft
