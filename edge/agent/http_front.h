// The agent's HTTP face: OpenAI's chat completions, completions and models; /metrics and /healthz.
#pragma once

#include "common/http/openai.h"
#include "common/http/server.h"
#include "common/telemetry/metrics.h"
#include "edge/agent/agent.h"

namespace updraft {

// Both must outlive the server that the router is given to. A request's header X-Updraft-Tier (local, upstream, auto)
// says who may answer; the answer's "updraft" field says who did, and why.
http::Router MakeHttpFront(Agent* agent, Metrics* metrics);

// Provenance as it stands in the "updraft" field.
http::Json ProvenanceToJson(const v1::Provenance& provenance);

}  // namespace updraft
