// What a daemon says of its health, over gRPC (grpc.health.v1) and HTTP.
#pragma once

#include <string>

#include "tests/e2e/process.h"

namespace updraft::testing {

// "SERVING", "NOT_SERVING" or what went wrong.
std::string GrpcHealth(const Daemon& daemon);
// The status of GET /healthz.
int HttpHealth(const Daemon& daemon);

}  // namespace updraft::testing
